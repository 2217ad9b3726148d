//! What an arm cost: CPU time, context switches, memory, and throughput by makespan.
//!
//! Read from the server's and the driver's records of valid runs. A record that lacks a figure leaves it `None`;
//! nothing is estimated. CPU time and switches are those of the server over its whole life, so they are divided by all
//! requests that were sent to it, warm-up included. Throughput is replies over the run's makespan, summed before the
//! division: a sum of per-client rates can flip the sign of a comparison.

use crate::load::Study;
use regauge_traces::study::RunRecord;
use serde::Serialize;
use serde_json::Value;

/// Costs of one arm over its valid runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Resources {
    /// Server CPU time (user and system) per planned request, ns.
    pub cpu_ns_per_request: Option<f64>,
    /// Voluntary context switches of the server per planned request.
    pub voluntary_switches_per_request: Option<f64>,
    /// Involuntary ones.
    pub involuntary_switches_per_request: Option<f64>,
    /// Largest resident set of any run, bytes.
    pub max_rss_bytes: Option<u64>,
    /// Requests done right per second of makespan (the run's start to its last reply), all runs together.
    pub throughput_per_s: Option<f64>,
}

/// Adds up the records of an arm's valid runs.
pub fn resources(study: &Study, arm: &str) -> Resources {
    let runs: Vec<&RunRecord> = study.runs_of(arm).filter(|run| run.valid).collect();
    let requests = sum(&runs, |run| number(&run.driver, "requests"));
    let per_request = |total: Option<f64>| Some(total? / requests.filter(|&n| n > 0.0)?);
    let cpu = |run: &RunRecord| Some(number(&run.server, "cpu_user_ns")? + number(&run.server, "cpu_system_ns")?);
    let done = sum(&runs, |run| Some(number(&run.driver, "requests")? - run.errors as f64));
    let makespan_ns = sum(&runs, |run| number(&run.driver, "makespan_ns"));
    let rss: Option<Vec<u64>> =
        runs.iter().map(|run| run.server.get("max_rss_bytes").and_then(Value::as_u64)).collect();
    Resources {
        cpu_ns_per_request: per_request(sum(&runs, cpu)),
        voluntary_switches_per_request: per_request(sum(&runs, |run| number(&run.server, "voluntary_switches"))),
        involuntary_switches_per_request: per_request(sum(&runs, |run| number(&run.server, "involuntary_switches"))),
        max_rss_bytes: rss.and_then(|rss| rss.into_iter().max()),
        throughput_per_s: done.zip(makespan_ns.filter(|&ns| ns > 0.0)).map(|(done, ns)| done / ns * 1e9),
    }
}

fn number(record: &Value, key: &str) -> Option<f64> {
    record.get(key).and_then(Value::as_f64)
}

/// The sum over all runs; `None` when there is no run or one of them lacks the figure.
fn sum(runs: &[&RunRecord], of: impl Fn(&RunRecord) -> Option<f64>) -> Option<f64> {
    if runs.is_empty() { None } else { runs.iter().map(|run| of(run)).sum() }
}
