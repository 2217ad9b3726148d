//! Slow lines as RobustMQ printed them, with lanes appended: what its engineers saw, and what they could not see.
//!
//! ```text
//! [meta_0] apply batch slow: total=11.07ms route=0.07ms membership=0.00ms set_last_applied=11.00ms | runnable=9.80ms …
//! [connect] slow connect_id=5922 total=30.61ms session_process=30.44ms | queued=28.90ms …
//! ```
//! Up to the bar the formats are RobustMQ's (`[\w-]+\] apply batch slow: total=…`, `\[connect\] slow connect_id=…` with
//! the fields that Regauge knows), so that whoever parses its logs parses these. Thresholds are the article's.

use super::aggregate::SET_LAST_APPLIED;
use super::lane::{Lane, Lanes};
use super::{RunLanes, StepLanes};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// From this on an apply batch is slow, ns.
pub const SLOW_APPLY_NS: u64 = 5_000_000;
/// From this on a CONNECT is slow, ns, as the server sees it.
pub const SLOW_CONNECT_NS: u64 = 30_000_000;
/// The slowest so many of each kind are kept of a run.
const KEPT: usize = 5;

/// What was slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The meta-service applied a batch of log entries.
    Apply,
    /// The broker answered a CONNECT.
    Connect,
}

/// One slow line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlowLine {
    /// What was slow.
    pub kind: Kind,
    /// Block of its run.
    pub block: u32,
    /// Arm of its run.
    pub arm: String,
    /// Of a CONNECT: its id, for `regauge explain`.
    pub op_id: Option<u64>,
    /// As the line's total, ns.
    pub total_ns: u64,
    /// Whether it reaches RobustMQ's threshold for such a line.
    pub reaches_threshold: bool,
    /// The line.
    pub line: String,
    /// Its lanes, ns. Those of a CONNECT are those of the whole request, from its planned time.
    pub lanes: Lanes,
}

/// The slowest of a run, slowest first within each kind.
pub fn slow_lines(block: u32, arm: &str, run: &RunLanes) -> Vec<SlowLine> {
    let mut lines = applies(block, arm, &run.steps);
    lines.extend(connects(block, arm, run));
    lines
}

/// Of several runs: all that reach the threshold, or where none does the slowest few, at most `most` of a kind.
pub fn slowest(lines: &[SlowLine], kind: Kind, most: usize) -> Vec<&SlowLine> {
    let mut of_kind: Vec<&SlowLine> = lines.iter().filter(|line| line.kind == kind).collect();
    of_kind.sort_by_key(|line| std::cmp::Reverse(line.total_ns));
    if of_kind.first().is_some_and(|line| line.reaches_threshold) {
        of_kind.retain(|line| line.reaches_threshold);
    }
    of_kind.truncate(most);
    of_kind
}

fn applies(block: u32, arm: &str, steps: &[StepLanes]) -> Vec<SlowLine> {
    // The steps of a batch are calls of the same entries; one that made no call took no time.
    let mut batches: BTreeMap<u64, [u64; 3]> = BTreeMap::new();
    let mut lanes: BTreeMap<u64, Lanes> = BTreeMap::new();
    // set_last_applied may name only the batch's last entry.
    let ends: BTreeMap<u64, u64> =
        steps.iter().filter(|s| s.step == SET_LAST_APPLIED).map(|s| (last(s), last(s))).collect();
    for step in steps.iter().filter(|step| !step.is_warmup) {
        let Some((_, end)) = ends.range(last(step)..).next() else { continue };
        let at = match step.step {
            "route" => 0,
            "membership" => 1,
            _ => 2,
        };
        if let Some(slot) = batches.entry(*end).or_default().get_mut(at) {
            *slot += step.total_ns;
        }
        lanes.entry(*end).or_default().extend(&step.lanes);
    }
    let mut slow: Vec<(u64, [u64; 3])> = batches.into_iter().collect();
    slow.sort_by_key(|(_, parts)| std::cmp::Reverse(parts.iter().sum::<u64>()));
    slow.truncate(KEPT);
    let line = |(end, parts): (u64, [u64; 3])| {
        let total_ns = parts.iter().sum();
        let lanes = lanes.get(&end).copied().unwrap_or_default();
        let [route, membership, applied] = parts.map(ms);
        let line = format!(
            "[meta_0] apply batch slow: total={}ms route={route}ms membership={membership}ms \
             set_last_applied={applied}ms | {}",
            ms(total_ns),
            appended(&lanes, &STEP_LANES)
        );
        let reaches_threshold = total_ns >= SLOW_APPLY_NS;
        let (kind, arm) = (Kind::Apply, arm.to_owned());
        SlowLine { kind, block, arm, op_id: None, total_ns, reaches_threshold, line, lanes }
    };
    slow.into_iter().map(line).collect()
}

fn last(step: &StepLanes) -> u64 {
    step.first.saturating_add(u64::from(step.count.max(1)) - 1)
}

fn connects(block: u32, arm: &str, run: &RunLanes) -> Vec<SlowLine> {
    let connects = run.requests.iter().filter(|request| request.step == "connect" && !request.is_warmup);
    let mut slow: Vec<_> = connects.filter_map(|request| Some((request.server_ns?, request, request.lanes?))).collect();
    slow.sort_by_key(|(ns, ..)| std::cmp::Reverse(*ns));
    slow.truncate(KEPT);
    let line = |(total_ns, request, lanes): (u64, &super::RequestLanes, Lanes)| SlowLine {
        kind: Kind::Connect,
        block,
        arm: arm.to_owned(),
        op_id: Some(request.op_id),
        total_ns,
        reaches_threshold: total_ns >= SLOW_CONNECT_NS,
        line: format!(
            "[connect] slow connect_id={} total={}ms session_process={}ms | {}",
            request.conn.unwrap_or(request.op_id),
            ms(total_ns),
            ms(request.session_ns.unwrap_or(0)),
            appended(&lanes, &Lane::ALL)
        ),
        lanes,
    };
    slow.into_iter().map(line).collect()
}

/// What a call of the meta-service can spend its time on; always printed, so that a zero is seen to be one.
const STEP_LANES: [Lane; 8] = [
    Lane::WokenPolled,
    Lane::Runnable,
    Lane::OnCpu,
    Lane::Wal,
    Lane::Memtable,
    Lane::Delay,
    Lane::ThreadWait,
    Lane::OtherStorage,
];

/// `runnable=9.80ms on_cpu=0.02ms …`: the lanes of the list, and any other that has time.
fn appended(lanes: &Lanes, always: &[Lane]) -> String {
    let mut text = String::new();
    for lane in Lane::ALL {
        let ns = lanes.get(lane);
        if always.contains(&lane) || ns > 0 {
            let space = if text.is_empty() { "" } else { " " };
            let _ = write!(text, "{space}{}={}ms", lane.name(), ms(ns));
        }
    }
    text
}

/// Milliseconds with two digits, as RobustMQ prints them.
fn ms(ns: u64) -> String {
    format!("{:.2}", ns as f64 / 1e6)
}
