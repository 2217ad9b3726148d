//! The figures of a run, as the driver prints them and `run.json` keeps them.

use super::DriveOptions;
use super::run::Measured;
use super::samples::{NEVER, Row, State};
use crate::plan::Plan;
use hdrhistogram::Histogram;
use regauge_traces::study::sample_flags;
use serde::{Deserialize, Serialize};

/// The window of the rates is open this long beyond the last planned time, ns. Without it the last request, which
/// cannot be sent before its time, would always count as not achieved.
const GRACE_NS: u64 = 10_000_000;

/// Percentiles of the latency that are looked at for what the driver itself put into them, in millionths.
const LADDER_PPM: [u64; 6] = [500_000, 900_000, 990_000, 999_000, 999_900, 999_990];

/// A percentile may hold so much of the driver's own lateness, as a share.
const OWN_SHARE_MAX: f64 = 0.1;

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
    /// Requests that the driver sent, or would have sent but for the server or the protocol, within the window, per
    /// second. A gate looks at this: what a slow server holds back is latency.
    pub tried_per_s: f64,
    /// From t0 to the end of the last send or reply, ns.
    pub makespan_ns: u64,
    /// Sent − planned, whatever the reason; measured requests only.
    pub send_lag_ns: LagRecord,
    /// The driver's own lateness; measured requests only. The gate looks at this.
    pub driver_lag_ns: LagRecord,
    /// How long right replies may have waited for the driver, at most; measured requests only. A gate looks at this.
    pub read_lag_ns: LagRecord,
    /// How long the driver's thread was ready to run and had no CPU, all together, ns; null where the kernel does not
    /// count it.
    pub run_delay_ns: Option<u64>,
    /// The highest of the percentiles 50, 90, 99, 99.9, 99.99 and 99.999 up to which the latencies are not the driver's
    /// own: without its lateness in sending and reading they would not be lower by more than a tenth. Figures above it
    /// are refused. Null when not even the median stands.
    pub lag_refuses_above: Option<f64>,
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
    /// CONNECTs that the trace does not have and that were not granted.
    pub setup_failed: u64,
    /// Acknowledgements that belong to no request: stray, or a second time.
    pub violations: u64,
    /// Connections that failed or were closed while requests were open on them.
    pub failed_connections: u64,
    /// The first of those, in words.
    pub first_fault: Option<String>,
    /// Packets whose recorded length could not be met.
    pub resized: u64,
    /// t0 on CLOCK_MONOTONIC, ns: joins these times to the server's stamps.
    #[serde(alias = "t0_monotonic_ns")]
    pub t0_ns: u64,
}

/// A histogram as Regauge keeps them: 1 ns to one hour, 3 significant digits; larger values count as an hour.
pub(super) fn histogram() -> Result<Histogram<u64>, hdrhistogram::CreationError> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3)
}

fn lag(values: impl Iterator<Item = u64>) -> LagRecord {
    let mut sorted: Vec<u64> = values.collect();
    sorted.sort_unstable();
    LagRecord {
        p50: quantile(&sorted, 500_000),
        p99: quantile(&sorted, 990_000),
        p99_9: quantile(&sorted, 999_000),
        max: sorted.last().copied().unwrap_or(0),
    }
}

/// The r-th smallest with r = ⌈N·ppm/10⁶⌉, in integers; 0 of nothing.
fn quantile(sorted: &[u64], ppm: u64) -> u64 {
    let rank = (sorted.len() as u64 * ppm).div_ceil(1_000_000).max(1) - 1;
    sorted.get(rank as usize).copied().unwrap_or(0)
}

/// See [`DriverRecord::lag_refuses_above`]. The driver's lateness is taken off each request's own latency, not off the
/// percentile: a late driver on fast requests owns nothing of the tail.
fn refuses_above(rows: &[Row]) -> Option<f64> {
    let measured = || rows.iter().filter(|row| row.is_measured());
    let mut with: Vec<u64> = measured().filter_map(|row| row.latency_ns).collect();
    let own_ns = |row: &Row| row.driver_lag_ns.unwrap_or(0) + row.read_lag_ns.unwrap_or(0);
    let mut without: Vec<u64> =
        measured().filter_map(|row| Some(row.latency_ns?.saturating_sub(own_ns(row)))).collect();
    with.sort_unstable();
    without.sort_unstable();
    let stands = |ppm: &u64| {
        let (with, without) = (quantile(&with, *ppm), quantile(&without, *ppm));
        without as f64 >= with as f64 * (1.0 - OWN_SHARE_MAX)
    };
    LADDER_PPM.into_iter().take_while(stands).last().map(|ppm| ppm as f64 / 10_000.0)
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
        tried_per_s: per_s(
            rows.iter()
                .filter(|row| row.driver_lag_ns.is_some_and(|lag| row.planned_ns.saturating_add(lag) <= window_ns))
                .count(),
        ),
        send_lag_ns: lag(sent().map(send_lag)),
        driver_lag_ns: lag((0..plan.ops.len()).filter(in_measure).filter_map(driver_lag)),
        read_lag_ns: lag(rows
            .iter()
            .filter(|row| row.is_measured())
            .filter_map(|row| row.latency_ns.and(row.read_lag_ns))),
        run_delay_ns: measured.run_delay_ns,
        lag_refuses_above: refuses_above(rows),
        held: Held { requests: hindered.len() as u64, max_ns: hindered.iter().copied().max().unwrap_or(0) },
        deliveries: measured.links.iter().map(|link| link.deliveries).sum(),
        replies_digest: samples.replies_digest(plan),
        cpu_ns: measured.cpu_ns,
        cpu: options.cpu,
        spin: options.spin,
        connections: plan.connections.len() as u64,
        setup_failed: plan
            .ops
            .iter()
            .zip(&samples.state)
            .filter(|(op, state)| op.setup && **state != State::Right)
            .count() as u64,
        violations: measured.links.iter().map(|link| link.strays).sum(),
        failed_connections: measured.faults.connections,
        first_fault: measured.faults.first.clone(),
        resized: plan.resized,
        t0_ns: measured.t0_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand requests of 1 ms, the slowest of them 100 ms; each as late as `own` says.
    fn rows(own: impl Fn(usize) -> (u64, u64)) -> Vec<Row> {
        let row = |index| Row {
            op_id: index as u64,
            step: "publish",
            session: 0,
            planned_ns: 0,
            sent_ns: Some(0),
            latency_ns: Some(if index == 999 { 100_000_000 } else { 1_000_000 }),
            service_ns: Some(0),
            status: 0,
            flags: 0,
            connection: 0,
            sent_offset: None,
            reply_offset: None,
            driver_lag_ns: Some(own(index).0),
            read_lag_ns: Some(own(index).1),
        };
        (0..1000).map(row).collect()
    }

    #[test]
    fn figures_that_the_driver_may_own_are_refused() {
        assert_eq!(refuses_above(&rows(|_| (20_000, 30_000))), Some(99.999));
        // The slowest is the driver's own doing, half of it in sending and half in reading.
        assert_eq!(refuses_above(&rows(|at| if at == 999 { (49_000_000, 50_000_000) } else { (0, 0) })), Some(99.9));
        // As late, but on a request that was not slow for that reason.
        assert_eq!(refuses_above(&rows(|at| if at == 5 { (900_000, 0) } else { (0, 0) })), Some(99.999));
        assert_eq!(refuses_above(&rows(|_| (0, 200_000))), None);
        // Warm-up is in no figure, so it refuses none.
        let mut warm = rows(|_| (0, 200_000));
        warm.iter_mut().take(500).for_each(|row| row.flags = sample_flags::WARMUP);
        warm.iter_mut().skip(500).for_each(|row| row.read_lag_ns = Some(0));
        assert_eq!(refuses_above(&warm), Some(99.999));
    }
}
