//! Validity gates: may this run enter a table?
//!
//! Why: a late driver, a stolen CPU or a lost reply changes the tail more than any runtime does. A run that fails a
//! gate is invalid and says why; it is never repaired, and no latency decides: gates are blind to the arm and to the
//! tail. A value that is missing fails its gate. Gates over all arms of a block stand in [`block`].
//!
//! Left out, for now: steady state, and running a whole block again when one of its runs is invalid.

mod attestation;
pub mod block;

use crate::canary::Canary;
use crate::drive::{DriverRecord, LagRecord};
use crate::layout::SHARED;
use regauge_traces::study::{ArmRecord, Gate, LayoutRecord};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Largest share of stolen time on any CPU in use, percent. A coarse net: a tenth of this already moves a P99.9, but
/// a tighter limit would refuse every rented host, and steal that hits all arms alike widens the intervals by itself.
pub const STEAL_PERCENT_MAX: f64 = 3.0;

/// Below this the canary's sync is too fast for a ratio to say anything (a cache, not a device), ns.
const SYNC_FLOOR_NS: u64 = 50_000;

/// Thresholds of the gates; kept in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateLimits {
    /// Requests that the driver sent, or would have sent but for the server, within the plan's length over requests
    /// planned, at least.
    pub achieved_ratio_min: f64,
    /// 99th percentile of the driver's own lateness, in sending and in reading each, at most, ns. What a slow server held back is not the driver's
    /// fault: it is latency.
    pub lag_p99_ns_max: u64,
    /// 99.9th percentile of it, at most, ns.
    pub lag_p99_9_ns_max: u64,
    /// With fewer requests the 99.9th percentile is one single request and is not asked for.
    pub lag_p99_9_requests_min: u64,
    /// Requests lost or never sent over requests planned, at most.
    pub lost_ratio_max: f64,
    /// Share of stolen time on any CPU in use, at most, percent.
    pub steal_percent_max: f64,
    /// Slower over faster of the canary's loop before and after, at most.
    pub spin_drift_max: f64,
    /// Slower over faster of the canary's median sync before and after, at most.
    pub sync_drift_max: f64,
}

impl GateLimits {
    /// The limits for a layout.
    ///
    /// A driver that owns a CPU sleeps to within 100 µs of a deadline and then spins; its own error is some µs, so
    /// 200 µs at P99 leaves room for interrupts and long batches but not for a second program on the CPU, and 1 ms at
    /// P99.9 is where a virtual machine's short absences begin. A driver that shares its CPUs may wait for one time
    /// slice of the kernel's scheduler (about 3 ms), which no setting of ours can forbid: there 2 ms and 10 ms only
    /// refuse runs in which the driver was starved.
    pub fn for_layout(layout: &LayoutRecord) -> GateLimits {
        let shares = layout.name == SHARED;
        GateLimits {
            achieved_ratio_min: 0.99,
            lag_p99_ns_max: if shares { 2_000_000 } else { 200_000 },
            lag_p99_9_ns_max: if shares { 10_000_000 } else { 1_000_000 },
            lag_p99_9_requests_min: 1000,
            // None: a lost reply has no latency, so even one per ten thousand would cut the worst off a P99.99, and an
            // arm that drops a connection in a stall would look better than one that answers late.
            lost_ratio_max: 0.0,
            steal_percent_max: STEAL_PERCENT_MAX,
            // A clock that falls by a third, a sync that takes five times as long: the host is another one then.
            spin_drift_max: 1.5,
            sync_drift_max: 5.0,
        }
    }
}

/// What surrounded one run; kept in run.json.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Surroundings {
    /// Worst share of stolen time on the CPUs in use, percent; `None` when the kernel does not count it.
    pub steal_percent: Option<f64>,
    /// Before the server started.
    pub canary_before: Option<Canary>,
    /// After the data directory was removed.
    pub canary_after: Option<Canary>,
}

/// What the gates of one run look at.
pub struct RunFacts<'a> {
    /// The arm as it was asked for.
    pub arm: &'a ArmRecord,
    /// The layout.
    pub layout: &'a LayoutRecord,
    /// Hash of the plan that the manifest promises.
    pub plan_hash: &'a str,
    /// DriverRecord.
    pub driver: &'a Value,
    /// ServerRecord.
    pub server: &'a Value,
    /// The run's directory with the driver's files.
    pub dir: &'a Path,
    /// Whether the server was to write its stamps there too.
    pub stamps: bool,
    /// Steal and canaries.
    pub surroundings: &'a Surroundings,
}

/// All gates of one run, except those over its block.
pub fn of_run(facts: &RunFacts<'_>, limits: &GateLimits) -> Vec<Gate> {
    let mut gates = of_driver(facts, limits);
    gates.push(files(facts.dir, facts.stamps));
    gates.push(attestation::gate(facts.arm, facts.layout, facts.server));
    gates.extend(of_host(facts.surroundings, limits));
    gates
}

/// The gates that a pilot looks at: is the driver on time and is every request answered?
pub fn of_driver(facts: &RunFacts<'_>, limits: &GateLimits) -> Vec<Gate> {
    let driver = match DriverRecord::deserialize(facts.driver) {
        Ok(driver) => driver,
        Err(e) => {
            let asked = "the record of a driver of the same version";
            return vec![gate("driver_record", false, format!("a record that cannot be read ({e})"), asked)];
        }
    };
    let own = crate::layout::driver_own(facts.layout);
    let ratio = driver.tried_per_s / driver.offered_per_s;
    let missing = driver.lost + driver.unsent;
    let lost_ratio = missing as f64 / driver.requests as f64;
    let mut gates = vec![
        gate("plan", driver.plan_hash == facts.plan_hash, driver.plan_hash.as_str(), facts.plan_hash),
        gate(
            "driver_cpu",
            driver.cpu == own && driver.spin == own.is_some(),
            format!("{}, {}", on_cpu(driver.cpu), if driver.spin { "spinning" } else { "sleeping" }),
            format!("{}, {}", on_cpu(own), if own.is_some() { "spinning" } else { "sleeping" }),
        ),
        gate(
            "offered",
            ratio >= limits.achieved_ratio_min,
            format!("{:.1} of {:.1} requests/s ({ratio:.4})", driver.tried_per_s, driver.offered_per_s),
            format!("at least {} of the planned rate, but for what the server held back", limits.achieved_ratio_min),
        ),
        gate(
            "measured",
            driver.measured > 0,
            format!("{} of {} requests after the warm-up", driver.measured, driver.requests),
            "at least one: shorten the warm-up or replay a longer trace",
        ),
    ];
    gates.extend(late("driver_lag", "late in sending", &driver.driver_lag_ns, driver.requests, limits));
    gates.extend(late("read_lag", "late in reading, at most,", &driver.read_lag_ns, driver.requests, limits));
    gates.push(gate(
        "connections",
        driver.failed_connections == 0 && driver.setup_failed == 0,
        match &driver.first_fault {
            Some(fault) => format!("{} failed ({fault}), {}", driver.failed_connections, refused(&driver)),
            None => format!("{} failed, {}", driver.failed_connections, refused(&driver)),
        },
        "no connection that failed or was refused",
    ));
    gates.push(gate("replies", driver.wrong == 0, format!("{} wrong", driver.wrong), "0 wrong replies"));
    gates.push(gate(
        "protocol",
        driver.violations == 0,
        format!("{} acknowledgements that belong to no request", driver.violations),
        "each request acknowledged once, and nothing else",
    ));
    gates.push(gate(
        "errors",
        driver.requests > 0 && lost_ratio <= limits.lost_ratio_max,
        format!("{} lost and {} unsent of {} requests", driver.lost, driver.unsent, driver.requests),
        format!("at most {} %", limits.lost_ratio_max * 100.0),
    ));
    gates
}

/// The driver was on time, in sending or in reading.
fn late(name: &str, how: &str, lag: &LagRecord, requests: u64, limits: &GateLimits) -> Vec<Gate> {
    let judge = |suffix: &str, percentile: &str, ns: u64, ns_max: u64| {
        let measured = format!("{} {how} at {percentile}", us(ns));
        gate(&format!("{name}_{suffix}"), ns <= ns_max, measured, format!("at most {}", us(ns_max)))
    };
    let mut gates = vec![judge("p99", "P99", lag.p99, limits.lag_p99_ns_max)];
    if requests >= limits.lag_p99_9_requests_min {
        gates.push(judge("p99_9", "P99.9", lag.p99_9, limits.lag_p99_9_ns_max));
    }
    gates
}

fn refused(driver: &DriverRecord) -> String {
    format!("{} CONNECTs of the replay's own refused", driver.setup_failed)
}

fn of_host(surroundings: &Surroundings, limits: &GateLimits) -> Vec<Gate> {
    let steal = match surroundings.steal_percent {
        Some(percent) => gate(
            "steal",
            percent <= limits.steal_percent_max,
            format!("{percent:.2} % on the worst CPU"),
            format!("at most {} %", limits.steal_percent_max),
        ),
        None => gate("steal", false, "not counted by this kernel", "a kernel that counts stolen time"),
    };
    let (Some(before), Some(after)) = (surroundings.canary_before, surroundings.canary_after) else {
        return vec![steal, gate("canary", false, "not measured", "a canary before and after the run")];
    };
    let spin = drift(before.spin_ns, after.spin_ns);
    let sync = drift(before.sync_p50_ns.max(SYNC_FLOOR_NS), after.sync_p50_ns.max(SYNC_FLOOR_NS));
    let change = |a: u64, b: u64, ratio: f64| format!("{} before, {} after ({ratio:.2})", us(a), us(b));
    vec![
        steal,
        gate(
            "canary_spin",
            spin <= limits.spin_drift_max,
            change(before.spin_ns, after.spin_ns, spin),
            format!("a factor of at most {}", limits.spin_drift_max),
        ),
        gate(
            "canary_sync",
            sync <= limits.sync_drift_max,
            change(before.sync_p50_ns, after.sync_p50_ns, sync),
            format!("a factor of at most {}", limits.sync_drift_max),
        ),
    ]
}

/// The files of the driver and the server are there and not empty.
fn files(dir: &Path, stamps: bool) -> Gate {
    let stamps = stamps.then_some("stamps.parquet");
    let asked: Vec<&str> =
        ["requests.parquet", "histograms.parquet", "connections.parquet"].into_iter().chain(stamps).collect();
    let absent: Vec<&str> = asked
        .iter()
        .copied()
        .filter(|name| !std::fs::metadata(dir.join(name)).is_ok_and(|m| m.is_file() && m.len() > 0))
        .collect();
    let measured = if absent.is_empty() { "all".to_owned() } else { format!("without {}", absent.join(" and ")) };
    gate("samples", absent.is_empty(), measured, asked.join(", "))
}

/// One sentence per gate that failed.
pub fn sentences(gates: &[Gate]) -> Vec<String> {
    let failed = gates.iter().filter(|g| !g.passed);
    failed.map(|g| format!("{}: {}; required: {}", g.name, g.measured, g.required)).collect()
}

fn gate(name: &str, passed: bool, measured: impl Into<String>, required: impl Into<String>) -> Gate {
    Gate { name: name.to_owned(), passed, measured: measured.into(), required: required.into() }
}

fn drift(a: u64, b: u64) -> f64 {
    let (low, high) = (a.min(b), a.max(b));
    if low == 0 { f64::INFINITY } else { high as f64 / low as f64 }
}

fn on_cpu(cpu: Option<usize>) -> String {
    cpu.map_or("on any CPU".to_owned(), |c| format!("on CPU {c}"))
}

fn us(ns: u64) -> String {
    format!("{:.1} µs", ns as f64 / 1e3)
}

#[cfg(test)]
mod tests;
