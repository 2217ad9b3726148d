//! Did an arm keep up in a trial, and if not, was it the arm or the driver?
//!
//! An arm kept up when every request was answered right and the last reply came so soon after the last planned request
//! that the rate, counted by makespan, is at least 0.99 of what was offered: a backlog that has to be drained afterwards
//! makes the makespan long. A driver that was late itself (its lag gates fail) shows nothing about the server; such a
//! trial says so first, because a run at that rate would be invalid.

use super::search::DRIVER;
use crate::drive::DriverRecord;
use crate::gates::sentences;
use crate::process::ChildError;
use arrow_array::{Array, BinaryArray, StringArray};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use regauge_traces::study::{Gate, KneeProbe};
use serde::Deserialize;
use serde_json::Value;
use std::fs::File;
use std::path::Path;

/// Rate by makespan over rate offered, at least.
const KEPT_MIN: f64 = 0.99;

/// Gates whose failure is the driver's doing.
const DRIVERS: [&str; 7] = ["driver_record", "plan", "driver_cpu", "offered", "measured", "driver_lag", "read_lag"];

/// The outcome of a trial whose driver came to its end. `dir` holds the driver's files.
pub(super) fn probe(speed: f64, driver: &Value, gates: &[Gate], dir: &Path) -> KneeProbe {
    let failed = |drivers: bool| -> Vec<Gate> {
        let of = |gate: &&Gate| DRIVERS.iter().any(|name| gate.name.starts_with(name)) == drivers;
        gates.iter().filter(|gate| !gate.passed).filter(of).cloned().collect()
    };
    let (of_driver, of_server) = (sentences(&failed(true)), sentences(&failed(false)));
    let (mut offered_per_s, mut achieved_per_s) = (0.0, 0.0);
    let mut why = String::new();
    if let Ok(driver) = DriverRecord::deserialize(driver) {
        let right = driver.requests.saturating_sub(driver.errors);
        offered_per_s = driver.offered_per_s;
        achieved_per_s = right as f64 * 1e9 / driver.makespan_ns.max(1) as f64;
        if achieved_per_s < KEPT_MIN * offered_per_s {
            let done_s = driver.makespan_ns as f64 / 1e9;
            why = format!(
                "the server answered {achieved_per_s:.0} of {offered_per_s:.0} requests/s: the last came after {done_s:.2} s"
            );
        }
    }
    if !of_server.is_empty() {
        why = format!("the server made errors ({})", of_server.join("; "));
    }
    if !of_driver.is_empty() {
        why = format!("{DRIVER} was not on time ({})", of_driver.join("; "));
    }
    KneeProbe { speed, offered_per_s, achieved_per_s, p99_ns: p99(dir), kept: why.is_empty(), why }
}

/// The outcome of a trial in which a child broke: the server, as far as anybody can tell.
pub(super) fn broken(speed: f64, error: &ChildError) -> KneeProbe {
    let why = format!("the trial broke: {error}");
    KneeProbe { speed, offered_per_s: 0.0, achieved_per_s: 0.0, p99_ns: None, kept: false, why }
}

/// P99 of all latencies, from the driver's histograms; `None` when they cannot be read. Nothing depends on it: it is
/// kept for whoever wants to see the queue grow.
fn p99(dir: &Path) -> Option<u64> {
    let file = File::open(dir.join("histograms.parquet")).ok()?;
    let mut all: Option<Histogram<u64>> = None;
    for batch in ParquetRecordBatchReaderBuilder::try_new(file).ok()?.build().ok()? {
        let batch = batch.ok()?;
        let metrics = batch.column_by_name("metric")?.as_any().downcast_ref::<StringArray>()?.clone();
        let blobs = batch.column_by_name("blob")?.as_any().downcast_ref::<BinaryArray>()?.clone();
        for row in (0..blobs.len()).filter(|row| metrics.value(*row) == "latency") {
            let one: Histogram<u64> = Deserializer::new().deserialize(&mut blobs.value(row)).ok()?;
            match &mut all {
                Some(all) => all.add(one).ok()?,
                None => all = Some(one),
            }
        }
    }
    let all = all?;
    // The rank in integers: see METHODOLOGY.md. `value_at_quantile` rounds it in floating point, which one trial's
    // figure for the eye can bear.
    Some(all.value_at_quantile(0.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(name: &str, passed: bool) -> Gate {
        Gate { name: name.into(), passed, measured: "9 ms late".into(), required: "at most 2 ms".into() }
    }

    /// 1000 requests in 1 s, of which the last was answered after `makespan_ms`.
    fn driver(makespan_ms: u64, errors: u64) -> Value {
        let lag = serde_json::json!({"p50": 0, "p99": 0, "p99_9": 0, "max": 0});
        serde_json::json!({
            "plan_hash": "", "requests": 1000, "measured": 1000, "errors": errors, "lost": errors, "wrong": 0,
            "unsent": 0, "offered_per_s": 990.1, "achieved_per_s": 990.1, "tried_per_s": 990.1,
            "makespan_ns": makespan_ms * 1_000_000, "send_lag_ns": lag, "driver_lag_ns": lag, "read_lag_ns": lag,
            "run_delay_ns": null, "lag_refuses_above": 99.9, "held": {"requests": 0, "max_ns": 0}, "deliveries": 0,
            "replies_digest": "", "cpu_ns": 0, "cpu": null, "spin": false, "connections": 1, "setup_failed": 0,
            "violations": 0, "failed_connections": 0, "first_fault": null, "resized": 0, "t0_ns": 0
        })
    }

    fn judged(driver: &Value, gates: &[Gate]) -> KneeProbe {
        probe(2.0, driver, gates, Path::new("/nonexistent"))
    }

    #[test]
    fn who_drains_no_backlog_keeps_up() {
        let kept = judged(&driver(1005, 0), &[gate("driver_lag_p99", true), gate("errors", true)]);
        assert!(kept.kept && kept.why.is_empty() && kept.speed == 2.0, "{kept:?}");
        assert!((994.0..996.0).contains(&kept.achieved_per_s) && kept.offered_per_s == 990.1);
        let behind = judged(&driver(1200, 0), &[]);
        assert!(!behind.kept && behind.why.starts_with("the server answered 833 of 990"), "{}", behind.why);
        let fewer = judged(&driver(1000, 30), &[]);
        assert!(!fewer.kept, "{fewer:?}");
    }

    #[test]
    fn a_late_driver_is_named_before_the_server() {
        let late = judged(&driver(1200, 0), &[gate("read_lag_p99", false), gate("errors", false)]);
        assert!(!late.kept && late.why.starts_with(DRIVER), "{}", late.why);
        let errors = judged(&driver(1000, 0), &[gate("errors", false), gate("offered", true)]);
        assert!(!errors.kept && errors.why.starts_with("the server made errors (errors: "), "{}", errors.why);
        let nonsense = judged(&Value::Null, &[gate("driver_record", false)]);
        assert!(!nonsense.kept && nonsense.why.starts_with(DRIVER), "{}", nonsense.why);
    }
}
