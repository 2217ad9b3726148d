//! `regauge diagnose`: which of the rival causes makes `set_last_applied` slow.
//!
//! The experiment is a study of one base arm as deployed and one arm per cause with just that cause removed; this reads
//! it, judges each hypothesis by the rule in [`judge`], and shows the base arm's slow lines as RobustMQ printed them,
//! with lanes. It runs nothing and knows no stack.

pub mod hypotheses;
pub mod judge;
pub mod terminal;

pub use judge::{Judged, Verdict};

use crate::counts::Counts;
use crate::error::AnalysisError;
use crate::lanes::StudyLanes;
use crate::lanes::aggregate::SET_LAST_APPLIED;
use crate::lanes::slow::{Kind, SlowLine, slowest};
use crate::lanes::study::ArmTimes;
use crate::load::Study;
use hypotheses::HYPOTHESES;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Slow lines shown of each kind.
const LINES: usize = 3;

/// What came of it: the JSON contract of `regauge diagnose --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// The study's directory.
    pub study: PathBuf,
    /// The base arm.
    pub base: String,
    /// Where the workload came from, in words.
    pub workload: String,
    /// Blocks asked for.
    pub blocks: u32,
    /// Finished runs.
    pub runs: u64,
    /// Of these, those that passed all gates.
    pub valid_runs: u64,
    /// Runs that entered the figures.
    pub runs_used: u64,
    /// Invalid runs entered the figures too: asked for, and to be read with that in mind.
    pub with_invalid: bool,
    /// Why runs are invalid: gate and how often.
    pub failed_gates: Vec<(String, u64)>,
    /// Why runs have no lanes.
    pub lanes_missing: Vec<String>,
    /// The step in question, in the base arm.
    pub set_last_applied: StepTimes,
    /// Every rival cause.
    pub hypotheses: Vec<Judged>,
    /// One sentence.
    pub finding: String,
    /// The base arm's slow lines, slowest first within each kind.
    pub slow_lines: Vec<SlowLine>,
    /// RobustMQ's thresholds, ns: for an apply batch and for a CONNECT.
    pub thresholds_ns: [u64; 2],
}

/// Times of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StepTimes {
    /// Calls.
    pub calls: u64,
    /// Median, ns.
    pub p50_ns: Option<u64>,
    /// P99, ns.
    pub p99_ns: Option<u64>,
    /// Slowest, ns.
    pub max_ns: Option<u64>,
}

/// Reads the study of a diagnosis and judges every hypothesis.
///
/// # Errors
/// Anything that makes the study unreadable; see [`AnalysisError`]. Too few valid runs are no error: then it cannot tell.
pub fn diagnose(dir: &Path, with_invalid: bool) -> Result<Diagnosis, AnalysisError> {
    let study = Study::open_any(dir)?;
    let lanes = StudyLanes::of(&study, with_invalid)?;
    Ok(of(&study, &lanes, with_invalid))
}

/// Judges what was read.
fn of(study: &Study, lanes: &StudyLanes, with_invalid: bool) -> Diagnosis {
    let nothing = ArmTimes::default();
    let arm = |name: &str| lanes.arms.iter().find(|arm| arm.arm == name);
    let base = arm(&study.manifest.base).unwrap_or(&nothing);
    let judged: Vec<Judged> = HYPOTHESES.iter().map(|hypothesis| judge::judge(hypothesis, base, arm)).collect();
    let slow_lines: Vec<SlowLine> =
        [Kind::Apply, Kind::Connect].into_iter().flat_map(|kind| slowest(&base.slow, kind, LINES)).cloned().collect();
    let calls = base.runs.iter().filter_map(|run| run.steps.get(SET_LAST_APPLIED)).flatten();
    let calls = Counts::from_values(calls.map(|(ns, _)| *ns).collect());
    let mut failed_gates: Vec<(String, u64)> = Vec::new();
    for gate in study.runs.iter().flat_map(|run| &run.gates).filter(|gate| !gate.passed) {
        match failed_gates.iter_mut().find(|(name, _)| *name == gate.name) {
            Some((_, n)) => *n += 1,
            None => failed_gates.push((gate.name.clone(), 1)),
        }
    }
    Diagnosis {
        study: study.dir.clone(),
        base: study.manifest.base.clone(),
        workload: study.manifest.trace_source.clone(),
        blocks: study.manifest.blocks,
        runs: study.runs.len() as u64,
        valid_runs: study.runs.iter().filter(|run| run.valid).count() as u64,
        runs_used: lanes.arms.iter().map(|arm| arm.runs.len() as u64).sum(),
        with_invalid,
        failed_gates,
        lanes_missing: lanes.missing(),
        set_last_applied: StepTimes {
            calls: calls.total(),
            p50_ns: calls.quantile(500_000),
            p99_ns: calls.quantile(990_000),
            max_ns: calls.max(),
        },
        finding: finding(&judged),
        hypotheses: judged,
        slow_lines,
        thresholds_ns: [crate::lanes::slow::SLOW_APPLY_NS, crate::lanes::slow::SLOW_CONNECT_NS],
    }
}

fn finding(judged: &[Judged]) -> String {
    let titles = |verdict| {
        let of: Vec<&str> = judged.iter().filter(|j| j.verdict == verdict).map(|j| j.title).collect();
        (!of.is_empty()).then(|| of.join(", "))
    };
    let mut parts = Vec::new();
    match titles(Verdict::Supported) {
        Some(titles) => parts.push(format!("Supported: {titles}.")),
        None => parts.push("No cause is supported.".to_owned()),
    }
    parts.extend(titles(Verdict::Refuted).map(|titles| format!("Refuted: {titles}.")));
    parts.extend(titles(Verdict::CannotTell).map(|titles| format!("Cannot tell: {titles}.")));
    parts.join(" ")
}
