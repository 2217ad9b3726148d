//! The lanes as stacked bars: per step one picture, per arm a bar around the median and one in the tail.
//!
//! Every bar is as long as all others, since a tail is hundreds of times its median; the time that it stands for is
//! written beside it. Lanes differ by colour, by their fixed order, and by the share written into what is wide enough.

use super::Figure;
use crate::lanes::Lane;
use crate::lanes::aggregate::{ArmLanes, At, Group};
use crate::report::plot::escape;
use crate::units::time;
use std::fmt::Write;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 196.0;
const RIGHT: f64 = 84.0;
const BAR: f64 = 22.0;
const GAP: f64 = 5.0;
const BETWEEN_ARMS: f64 = 14.0;
const LEGEND: f64 = 58.0;
/// Letters of a name that fit before the bars, also on a narrow screen.
const NAME: usize = 12;

/// What is drawn: class of the style sheet, name, lanes.
const PARTS: [(&str, &str, &[Lane]); 8] = [
    ("l0", "driver lag", &[Lane::DriverLag]),
    ("l1", "network", &[Lane::Network]),
    ("l2", "queued", &[Lane::Queued]),
    ("l3", "woken→polled", &[Lane::WokenPolled]),
    ("l4", "runnable", &[Lane::Runnable]),
    ("l5", "on CPU", &[Lane::OnCpu]),
    ("l6", "storage", &Lane::STORAGE),
    ("l7", "unattributed", &[Lane::Unattributed]),
];

/// One figure per step that has any mean.
pub(super) fn draw(arms: &[ArmLanes]) -> Vec<Figure> {
    let mut steps: Vec<&str> = arms.iter().flat_map(|arm| &arm.groups).map(|group| group.step.as_str()).collect();
    steps.sort_unstable();
    steps.dedup();
    let has_mean =
        |step: &&str| arms.iter().flat_map(|arm| &arm.groups).any(|g| g.step == **step && g.shares.is_some());
    steps.into_iter().filter(has_mean).map(|step| figure(step, arms)).collect()
}

fn figure(step: &str, arms: &[ArmLanes]) -> Figure {
    let mut body = String::new();
    let mut y = LEGEND;
    for arm in arms {
        let groups: Vec<&Group> = arm.groups.iter().filter(|group| group.step == step).collect();
        if groups.is_empty() {
            continue;
        }
        // A name that would run into the column beside it stands above.
        let is_long = arm.arm.chars().count() > NAME;
        if is_long {
            let _ = write!(body, r#"<text x="0" y="{:.1}">{}</text>"#, y + 14.0, escape(&arm.arm));
            y += BAR;
        }
        for (i, group) in groups.iter().enumerate() {
            bar(&mut body, y, if i == 0 && !is_long { &arm.arm } else { "" }, group);
            y += BAR + GAP;
        }
        y += BETWEEN_ARMS;
    }
    let about = format!("Shares of lanes in the time of {step} for every arm, around the median and in the tail");
    let mut svg = format!(
        r#"<svg class="plot lanes" viewBox="0 0 {WIDTH} {:.0}" role="img" aria-label="{}">"#,
        y - BETWEEN_ARMS + GAP,
        escape(&about)
    );
    legend(&mut svg);
    svg += &body;
    svg += "</svg>";
    let open = arms.iter().filter_map(|arm| Some((arm, arm.unattributed_tail?)));
    let open: Vec<String> = open.map(|(arm, share)| format!("{} {:.1} %", arm.arm, share * 100.0)).collect();
    let what = match step == crate::lanes::aggregate::SET_LAST_APPLIED {
        true => "Calls of set_last_applied, from asking for the write to going on after it",
        false => "Requests from their planned time to their reply",
    };
    let lacking: String =
        arms.iter().filter_map(|arm| arm.lacking(Some(step))).map(|said| format!(" {said}.")).collect();
    let caption = format!(
        "{what}: mean of those around P50 (P45–P55) and of the tail (P99 and above), split into lanes that add up. \
         Unattributed is what no stamp explains; of all tails it is: {}.{lacking}",
        if open.is_empty() { "not known".to_owned() } else { open.join(", ") }
    );
    Figure::one(format!("Where the time goes: {step}"), caption, svg)
}

fn legend(svg: &mut String) {
    for (i, (class, name, _)) in PARTS.iter().enumerate() {
        let (x, y) = ((i % 4) as f64 * 172.0 + 2.0, (i / 4) as f64 * 24.0 + 6.0);
        let _ = write!(
            svg,
            r#"<rect class="lane {class}" x="{x:.1}" y="{y:.1}" width="16" height="14"/><text class="tick" x="{:.1}" y="{:.1}">{name}</text>"#,
            x + 22.0,
            y + 12.0
        );
    }
}

fn bar(svg: &mut String, y: f64, arm: &str, group: &Group) {
    let middle = y + BAR / 2.0 + 4.5;
    let at = match group.at {
        At::Median => "~P50",
        At::Tail => "≥P99",
    };
    if !arm.is_empty() {
        let _ = write!(svg, r#"<text x="0" y="{middle:.1}">{}</text>"#, escape(arm));
    }
    let _ = write!(svg, r#"<text class="tick end" x="{:.1}" y="{middle:.1}">{at}</text>"#, LEFT - 8.0);
    let (Some(ns), Some(shares)) = (group.latency_ns, &group.shares) else {
        let why = group.refused.as_deref().unwrap_or("no figures");
        let _ = write!(svg, r#"<text class="word" x="{LEFT}" y="{middle:.1}">refused: {}</text>"#, escape(why));
        return;
    };
    let full = WIDTH - LEFT - RIGHT;
    let mut x = LEFT;
    for (class, name, lanes) in PARTS {
        let share: f64 = lanes.iter().filter_map(|lane| shares.get(lane.name())).sum();
        let width = share * full;
        if width < 0.2 {
            continue;
        }
        let mut title = format!("{name}: {} ({:.1} %)", time(share * ns as f64), share * 100.0);
        if lanes.len() > 1 {
            let parts = lanes.iter().filter_map(|lane| Some((lane.label(), *shares.get(lane.name())?)));
            let parts: Vec<String> =
                parts.filter(|(_, s)| *s > 0.0005).map(|(l, s)| format!("{l} {:.1} %", s * 100.0)).collect();
            title += &format!(": {}", parts.join(", "));
        }
        let _ = write!(
            svg,
            r#"<rect class="lane {class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{BAR}"><title>{}</title></rect>"#,
            escape(&title)
        );
        if width > 36.0 {
            let _ = write!(
                svg,
                r#"<text class="share {class} mid" x="{:.1}" y="{middle:.1}">{:.0} %</text>"#,
                x + width / 2.0,
                share * 100.0
            );
        }
        x += width;
    }
    let _ = write!(svg, r#"<text x="{:.1}" y="{middle:.1}">{}</text>"#, WIDTH - RIGHT + 8.0, time(ns as f64));
}
