//! Lanes for a terminal of 80 columns: shares of each lane, per step and arm, around the median and in the tail.

use super::aggregate::{ArmLanes, At, Group};
use super::lane::Lane;
use crate::terminal::wrap;
use crate::units::{plural, time};
use std::fmt::Write;

const NAME: usize = 17;
/// Columns of shares: heading, lanes.
const SHARES: [(&str, &[Lane]); 8] = [
    ("lag", &[Lane::DriverLag]),
    ("net", &[Lane::Network]),
    ("queue", &[Lane::Queued]),
    ("woken", &[Lane::WokenPolled]),
    ("ready", &[Lane::Runnable]),
    ("cpu", &[Lane::OnCpu]),
    ("store", &Lane::STORAGE),
    ("?", &[Lane::Unattributed]),
];

/// Appends the lanes, if there are any, and why runs have none.
pub fn render(text: &mut String, arms: &[ArmLanes], missing: &[String]) {
    let mut steps: Vec<&str> = arms.iter().flat_map(|arm| &arm.groups).map(|group| group.step.as_str()).collect();
    steps.sort_unstable();
    steps.dedup();
    for step in &steps {
        text.push('\n');
        let _ = write!(text, "{:<NAME$}{:>6}{:>9}", step, "", "mean");
        for (name, _) in SHARES {
            let _ = write!(text, "{name:>6}");
        }
        text.push('\n');
        for arm in arms {
            for (i, group) in arm.groups.iter().filter(|group| group.step == *step).enumerate() {
                row(text, if i == 0 { &arm.arm } else { "" }, group);
            }
        }
    }
    if !steps.is_empty() {
        text.push('\n');
        wrap(
            text,
            "Lanes: mean time of requests around P50 (P45–P55) and in the tail (P99 and above), and which share of it was \
             driver lag, network, queued in the broker, woken and not polled, ready without a CPU, on the CPU, blocked in \
             storage, unattributed. They add up.",
            "",
        );
        let open = arms.iter().filter_map(|arm| Some((arm.arm.as_str(), arm.unattributed_tail?)));
        let open: Vec<String> = open.map(|(arm, share)| format!("{arm} {:.1} %", share * 100.0)).collect();
        if !open.is_empty() {
            wrap(text, &format!("Of the tail nothing explains: {}.", open.join(", ")), "  ");
        }
        arms.iter().filter_map(|arm| arm.lacking(None)).for_each(|lacking| wrap(text, &format!("{lacking}."), "  "));
        for arm in arms.iter().filter(|arm| arm.disagreeing > 0) {
            let largest = time(arm.largest_disagreement_ns as f64);
            let requests = plural(arm.disagreeing, "request");
            wrap(text, &format!("{}: stamps of {requests} contradict each other, by up to {largest}.", arm.arm), "  ");
        }
    }
    missing.iter().for_each(|missing| wrap(text, missing, "  "));
}

fn row(text: &mut String, arm: &str, group: &Group) {
    let at = match group.at {
        At::Median => "~P50",
        At::Tail => "≥P99",
    };
    if arm.chars().count() > NAME {
        text.push_str(arm);
        text.push('\n');
    }
    let name = if arm.chars().count() > NAME { "" } else { arm };
    let _ = write!(text, "{name:<NAME$}{at:>6}");
    match (&group.latency_ns, &group.shares) {
        (Some(ns), Some(shares)) => {
            let _ = write!(text, "{:>9}", time(*ns as f64));
            for (_, lanes) in SHARES {
                let share: f64 = lanes.iter().filter_map(|lane| shares.get(lane.name())).sum();
                let _ = write!(text, "{:>6}", percent(share));
            }
        }
        _ => drop(write!(text, "  refused: {}", group.refused.as_deref().unwrap_or("no figures"))),
    }
    text.push('\n');
}

/// A share in percent: what is there is never shown as nothing.
fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "·".to_owned(),
        p if p < 0.5 => "<1".to_owned(),
        p => format!("{p:.0}"),
    }
}
