//! A timeline for a terminal of 80 columns, without colours.

use super::{Explanation, StageShown};
use crate::lanes::{CLOCK_NOISE_NS, Lane};
use crate::terminal::wrap;
use crate::units::time;
use std::fmt::Write;

/// Cells of the bar that shows where in the request a stage lies.
const BAR: usize = 14;
const STAGE: usize = 20;
const THREAD: usize = 9;
const LANE: usize = 15;

/// Renders it. Lines end in `\n`.
pub fn render(explanation: &Explanation) -> String {
    let mut text = String::new();
    let mut head = format!(
        "{} {} in block {} of {}: {} from its planned time to its reply",
        explanation.step,
        explanation.op_id,
        explanation.block,
        explanation.arm,
        time(explanation.latency_ns as f64)
    );
    if let Some(ns) = explanation.session_ns {
        let what = if explanation.step == "connect" { "session_process" } else { "storage operations" };
        head += &format!(", {} of it {what}", time(ns as f64));
    }
    wrap(&mut text, &format!("{head}."), "");
    if !explanation.valid {
        wrap(&mut text, "Its run failed a gate and enters no table: this is what happened, not evidence.", "");
    }
    text.push('\n');
    line(&mut text, ["start", "length", "stage", "thread", "mostly"], "");
    for stage in &explanation.stages {
        let (start, length) = (time(stage.start_ns as f64), time(stage.length_ns as f64));
        let cells = [&start, &length, stage.stage, stage.thread.as_deref().unwrap_or("–"), &mostly(stage)];
        line(&mut text, cells, &bar(stage, explanation.latency_ns));
    }
    text.push('\n');
    totals(&mut text, explanation);
    text
}

fn line(text: &mut String, [start, length, stage, thread, lane]: [&str; 5], bar: &str) {
    let row = format!(
        "{start:>8} {length:>8} {:<STAGE$} {:<THREAD$} {:<LANE$} {bar}",
        cut(stage, STAGE),
        cut(thread, THREAD),
        cut(lane, LANE)
    );
    text.push_str(row.trim_end());
    text.push('\n');
}

/// The lane with most of a stage, and its share unless that is all.
fn mostly(stage: &StageShown) -> String {
    let lane = stage.lanes_ns.largest();
    let percent = 100.0 * stage.lanes_ns.get(lane) as f64 / stage.length_ns.max(1) as f64;
    let short = match lane {
        Lane::Unattributed => "unattrib.",
        Lane::ThreadWait => "thr. wait",
        Lane::OtherStorage => "storage",
        other => other.label(),
    };
    match percent {
        p if p > 99.5 => lane.label().to_owned(),
        p => format!("{:.0}% {}", p, if lane == Lane::WokenPolled { "woken→poll" } else { short }),
    }
}

/// Where in the request the stage lies: at least one cell.
fn bar(stage: &StageShown, latency_ns: u64) -> String {
    let cell = |ns: u64| (ns as f64 / latency_ns.max(1) as f64 * BAR as f64).round() as usize;
    let from = cell(stage.start_ns).min(BAR - 1);
    let to = cell(stage.start_ns + stage.length_ns).clamp(from + 1, BAR);
    let mark = if stage.length_ns * 100 >= latency_ns { "█" } else { "▏" };
    format!("{}{}", "·".repeat(from), mark.repeat(to - from))
}

fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// The lanes together, largest first; storage with its parts.
fn totals(text: &mut String, explanation: &Explanation) {
    let mut lanes: Vec<(Lane, u64)> =
        Lane::ALL.into_iter().map(|lane| (lane, explanation.lanes_ns.get(lane))).collect();
    lanes.retain(|(lane, ns)| *ns > 0 || *lane == Lane::Unattributed);
    lanes.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    for (lane, ns) in lanes {
        let label = if Lane::STORAGE.contains(&lane) && lane != Lane::OtherStorage {
            format!("storage: {}", lane.label())
        } else {
            lane.label().to_owned()
        };
        let percent = 100.0 * ns as f64 / explanation.latency_ns.max(1) as f64;
        let blocks = "█".repeat((percent / 100.0 * 40.0).round() as usize);
        let row = format!("{label:<22}{:>9}{percent:>5.0} %  {blocks}", time(ns as f64));
        let _ = writeln!(text, "{}", row.trim_end());
    }
    let _ = writeln!(text, "{:<22}{:>9}", "together", time(explanation.lanes_ns.total() as f64));
    if explanation.disagreement_ns > CLOCK_NOISE_NS {
        text.push('\n');
        let by = time(explanation.disagreement_ns as f64);
        wrap(text, &format!("Stamps contradict each other by {by}; moments were moved to fit."), "");
    }
}
