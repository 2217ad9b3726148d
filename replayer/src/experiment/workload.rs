//! The workload of a study: the trace's facts, the study's own sealed copy, and the piece of it that a pilot replays.

use super::ExperimentError;
use super::store::failed;
use crate::plan::{Plan, PlanError, PlanOptions, Reply};
use regauge_traces::ops::{Slice, slice};
use regauge_traces::{Form, Trace, TraceReader, open, seal, workload_hash, write_sealed};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What is replayed: facts of the trace and of the plan made from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Hash of the trace, hex.
    pub workload_hash: String,
    /// Hash of the plan, hex.
    pub plan_hash: String,
    /// Where the trace came from, in words.
    pub trace_source: String,
    /// Requests planned per run.
    pub requests: u64,
    /// Length of the plan, ns.
    pub duration_ns: u64,
    /// Kinds of requests that have a reply, so a latency: the steps that a study can be about, besides `all`.
    pub steps: BTreeSet<&'static str>,
}

impl Workload {
    /// The facts of the trace in a file, replayed at a speed.
    ///
    /// # Errors
    /// If the trace cannot be read or cannot be replayed.
    pub fn open(trace: &Path, speed: f64) -> Result<Workload, PlanError> {
        let trace = open(trace)?;
        let plan = Plan::build(&trace.spans, &PlanOptions { speed })?;
        Ok(Workload::of(&trace, &plan))
    }

    /// The facts of a trace and of the plan made from it.
    pub fn of(trace: &Trace, plan: &Plan) -> Workload {
        let answered = plan.ops.iter().filter(|op| !op.setup && op.reply != Reply::None);
        Workload {
            workload_hash: workload_hash(&trace.spans),
            plan_hash: plan.hash(),
            trace_source: trace.meta.source.clone(),
            requests: plan.requests(),
            duration_ns: plan.duration_ns(),
            steps: answered.map(|op| op.kind.name()).collect(),
        }
    }
}

/// Gives the study a sealed copy of its own.
pub(super) fn keep(trace: &Path, copy: &Path) -> Result<(), ExperimentError> {
    let source = trace.canonicalize().map_err(failed("read", trace))?;
    if source == copy {
        return Ok(());
    }
    match TraceReader::open(&source)?.form() {
        Form::Live => seal(&source, copy).map(drop).map_err(ExperimentError::from),
        Form::Sealed => {
            let beside = copy.with_extension("parquet.tmp");
            std::fs::copy(&source, &beside).map_err(failed("write", &beside))?;
            std::fs::rename(&beside, copy).map_err(failed("write", copy))
        }
    }
}

/// Writes the first `plan_ns` of the trace's plan at `speed` into `dir`, as a trace.
pub(super) fn beginning(trace: &Path, plan_ns: u64, speed: f64, dir: &Path) -> Result<PathBuf, ExperimentError> {
    let trace = open(trace)?;
    let first = trace.spans.iter().filter(|s| s.parent.is_none()).map(|s| s.start_ns).min().unwrap_or(0);
    let to_ns = first.saturating_add((plan_ns as f64 * speed) as u64).max(first + 1);
    let part = slice(&trace, &Slice { to_ns: Some(to_ns), ..Slice::default() })?;
    let path = dir.join("pilot.parquet");
    write_sealed(&path, &part.meta, &part.spans)?;
    Ok(path)
}
