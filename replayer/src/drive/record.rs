//! The figures of a run, as the driver prints them and `run.json` keeps them.

use super::DriveOptions;
use super::run::Measured;
use super::samples::{NEVER, Row};
use crate::plan::Plan;
use hdrhistogram::Histogram;
use regauge_traces::study::sample_flags;
use serde::{Deserialize, Serialize};

/// The window of the rates is open this long beyond the last planned time, ns. Without it the last request, which
/// cannot be sent before its time, would always count as not achieved.
const GRACE_NS: u64 = 10_000_000;

/// Percentiles of a lag, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LagRecord {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p99_9: u64,
    /// Largest.
    pub max: u64,
}

/// Requests that were due and went out later than the driver alone would have sent them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// How many were hindered for more than 1 ms.
    pub requests: u64,
    /// The longest, ns.
    pub max_ns: u64,
}

/// The driver's own record of a run. Rates count from the first planned time until 10 ms after the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriverRecord {
    /// Names the workload and its timing.
    pub plan_hash: String,
    /// Requests planned.
    pub requests: u64,
    /// Those planned after the warm-up.
    pub measured: u64,
    /// LOST, WRONG or UNSENT, warm-up included.
    pub errors: u64,
    /// No reply before the drain deadline.
    pub lost: u64,
    /// A reply that was not the one due.
    pub wrong: u64,
    /// Never sent.
    pub unsent: u64,
    /// Requests planned per second.
    pub offered_per_s: f64,
    /// Requests sent within the window, per second.
    pub achieved_per_s: f64,
    /// From t0 to the end of the last send or reply, ns.
    pub makespan_ns: u64,
    /// Sent − planned, whatever the reason; measured requests only.
    pub send_lag_ns: LagRecord,
    /// The driver's own lateness; measured requests only. The gate looks at this.
    pub driver_lag_ns: LagRecord,
    /// What the server or the protocol held back; measured requests only.
    pub held: Held,
    /// PUBLISH packets from the server, all connections together.
    pub deliveries: u64,
    /// Over the replies of every session, independent of how sessions interleaved, hex.
    pub replies_digest: String,
    /// CPU time of the driver's thread during the run, ns.
    pub cpu_ns: u64,
    /// CPU that it was bound to.
    pub cpu: Option<usize>,
    /// Whether it watched the clock before deadlines.
    pub spin: bool,
    /// Connections of the plan.
    pub connections: u64,
    /// Connections that failed or were closed while requests were open on them.
    pub failed_connections: u64,
    /// The first of those, in words.
    pub first_fault: Option<String>,
    /// Packets whose recorded length could not be met.
    pub resized: u64,
    /// t0 on CLOCK_MONOTONIC, ns: joins these times to the server's stamps.
    pub t0_monotonic_ns: u64,
}

/// A histogram as Regauge keeps them: 1 ns to one hour, 3 significant digits; larger values count as an hour.
pub(super) fn histogram() -> Result<Histogram<u64>, hdrhistogram::CreationError> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3)
}

fn lag(values: impl Iterator<Item = u64>) -> LagRecord {
    let mut sorted: Vec<u64> = values.collect();
    sorted.sort_unstable();
    // The r-th smallest with r = ⌈N·ppm/10⁶⌉, in integers.
    let quantile = |ppm: u64| {
        let rank = (sorted.len() as u64 * ppm).div_ceil(1_000_000).max(1) - 1;
        sorted.get(rank as usize).copied().unwrap_or(0)
    };
    LagRecord {
        p50: quantile(500_000),
        p99: quantile(990_000),
        p99_9: quantile(999_000),
        max: sorted.last().copied().unwrap_or(0),
    }
}

/// Sums up a run.
pub(super) fn record(plan: &Plan, measured: &Measured, rows: &[Row], options: &DriveOptions) -> DriverRecord {
    let samples = &measured.samples;
    let window_ns = plan.duration_ns() + GRACE_NS;
    let per_s = |count: usize| count as f64 * 1e9 / window_ns as f64;
    let flagged = |flag: u32| rows.iter().filter(|row| row.flags & flag != 0).count() as u64;
    let warmup_ns = options.warmup_ns.unwrap_or(0);
    let in_measure = |index: &usize| !plan.ops[*index].setup && plan.ops[*index].planned_ns >= warmup_ns;
    let sent = || (0..plan.ops.len()).filter(in_measure).filter(|index| samples.sent_ns[*index] != NEVER);
    let send_lag = |index: usize| samples.sent_ns[index].saturating_sub(plan.ops[index].planned_ns);
    let driver_lag = |index: usize| Some(samples.driver_lag_ns[index]).filter(|lag| *lag != NEVER);
    let hindered: Vec<u64> = sent()
        .map(|index| send_lag(index).saturating_sub(driver_lag(index).unwrap_or(0)))
        .filter(|held| *held > 1_000_000)
        .collect();
    let last = |times: &[u64]| times.iter().copied().filter(|time| *time != NEVER).max().unwrap_or(0);
    DriverRecord {
        plan_hash: plan.hash(),
        requests: rows.len() as u64,
        measured: rows.iter().filter(|row| row.is_measured()).count() as u64,
        errors: rows.iter().filter(|row| row.is_error()).count() as u64,
        lost: flagged(sample_flags::LOST),
        wrong: flagged(sample_flags::WRONG),
        unsent: flagged(sample_flags::UNSENT),
        offered_per_s: per_s(rows.len()),
        achieved_per_s: per_s(rows.iter().filter(|row| row.sent_ns.is_some_and(|sent| sent <= window_ns)).count()),
        makespan_ns: last(&samples.sent_ns).max(last(&samples.replied_ns)),
        send_lag_ns: lag(sent().map(send_lag)),
        driver_lag_ns: lag((0..plan.ops.len()).filter(in_measure).filter_map(driver_lag)),
        held: Held { requests: hindered.len() as u64, max_ns: hindered.iter().copied().max().unwrap_or(0) },
        deliveries: measured.links.iter().map(|link| link.deliveries).sum(),
        replies_digest: samples.replies_digest(plan),
        cpu_ns: measured.cpu_ns,
        cpu: options.cpu,
        spin: options.spin,
        connections: plan.connections.len() as u64,
        failed_connections: measured.faults.connections,
        first_fault: measured.faults.first.clone(),
        resized: plan.resized,
        t0_monotonic_ns: measured.t0_ns,
    }
}
