//! The result of an analysis as others read it: the JSON contract of `regauge analyze --json` and of analysis.json.
//!
//! Fields may be added; none changes its meaning without a new [`ANALYSIS_VERSION`].

use crate::check::ExactCheck;
use crate::comparisons::compare_arm;
use crate::decide::{Input, decide};
use crate::decision::{Decision, SteadyState};
use crate::error::AnalysisError;
use crate::evidence::{ALL, ArmEvidence, Tally, common_blocks};
use crate::lanes::StudyLanes;
use crate::lanes::aggregate::ArmLanes;
use crate::load::Study;
use crate::resources::{Resources, resources};
use crate::samples::Metric;
use crate::source::Source;
use crate::tails::{Refusal, Tails, tails};
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the JSON contract.
pub const ANALYSIS_VERSION: u32 = 2;

/// Everything that the tables say.
#[derive(Debug, Clone, Serialize)]
pub struct Analysis {
    /// [`ANALYSIS_VERSION`].
    pub version: u32,
    /// Name of the base arm.
    pub base: String,
    /// Blocks that the study asked for.
    pub blocks: u32,
    /// Hash of the packets and their planned times.
    pub plan_hash: String,
    /// The arms, base first.
    pub arms: Vec<ArmSummary>,
    /// Every arm but the base, each step (`all` first) and percentile, by latency from the planned time.
    pub comparisons: Vec<Comparison>,
    /// How far histogram percentiles lie from the exact ones of the raw samples.
    pub check: ExactCheck,
    /// `MIGRATE`, `FIX IN PLACE`, `STAY` or `INSUFFICIENT EVIDENCE`.
    pub verdict: &'static str,
    /// What the verdict rests on, or what it lacks: one sentence each.
    pub verdict_why: Vec<String>,
    /// What the data show so far, in one sentence.
    pub finding: String,
    /// The decision with everything it rests on; `verdict`, `verdict_why` and `finding` above repeat its words.
    pub decision: Decision,
    /// Mean lanes per arm and step, around the median and in the tail; empty without stamps.
    pub lanes: Vec<ArmLanes>,
    /// Why runs have no lanes, one sentence each.
    pub lanes_missing: Vec<String>,
}

/// One arm.
#[derive(Debug, Clone, Serialize)]
pub struct ArmSummary {
    /// Arm name.
    pub name: String,
    /// Its stack.
    pub stack: String,
    /// Finished runs, and those of them that passed all gates.
    pub runs: u64,
    /// Runs that entered the figures.
    pub valid_runs: u64,
    /// Requests planned after warm-up, valid runs.
    pub requests: u64,
    /// Requests that ended in an error, valid runs, warm-up included.
    pub errors: u64,
    /// Whether any run is valid, so that the arm has figures.
    pub valid: bool,
    /// One sentence per invalid or unfinished run, with its block.
    pub why_invalid: Vec<String>,
    /// Latency percentiles of all roots with a reply; the same as `steps.all.latency`.
    pub percentiles_ns: BTreeMap<&'static str, Option<u64>>,
    /// The refused ones among them.
    pub refused: BTreeMap<&'static str, Refusal>,
    /// Shown from fewer than 50 episodes.
    pub low_confidence: Vec<&'static str>,
    /// Service-time percentiles of all roots with a reply.
    pub service_percentiles_ns: BTreeMap<&'static str, Option<u64>>,
    /// Largest latency, ns.
    pub max_ns: Option<u64>,
    /// Per root kind, and `all`.
    pub steps: BTreeMap<String, StepSummary>,
    /// What it cost.
    #[serde(flatten)]
    pub resources: Resources,
}

/// One step of one arm.
#[derive(Debug, Clone, Serialize)]
pub struct StepSummary {
    /// Planned after warm-up.
    pub requests: u64,
    /// Of these, with a right reply.
    pub replies: u64,
    /// Errors, warm-up included.
    pub errors: u64,
    /// From the planned time; `None` when the step has no reply by protocol.
    pub latency: Option<Tails>,
    /// From the real send.
    pub service: Option<Tails>,
}

/// One percentile of one arm against the base.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Arm name.
    pub arm: String,
    /// Base arm.
    pub base: String,
    /// Root kind or `all`.
    pub step: String,
    /// `p50` … `p99_99`.
    pub percentile: &'static str,
    /// Blocks in which both arms are valid.
    pub blocks: u64,
    /// q_arm ÷ q_base; `None` where refused.
    pub ratio: Option<f64>,
    /// 95 % interval of the ratio.
    pub ci_low: Option<f64>,
    /// Upper end.
    pub ci_high: Option<f64>,
    /// q_arm − q_base, ms.
    pub delta_ms: Option<f64>,
    /// 95 % interval of the difference.
    pub delta_ms_low: Option<f64>,
    /// Upper end.
    pub delta_ms_high: Option<f64>,
    /// Why there is no ratio or no interval.
    pub why_none: Option<String>,
    /// Either arm has too few independent episodes, or the driver's own lateness: of two refused arms the one that the
    /// driver owns, else the one that needs more samples.
    pub refused: Option<Refusal>,
    /// Shown from fewer than 50 episodes.
    pub low_confidence: bool,
    /// Cross-check by paired t-test on per-block log-ratios.
    pub paired_ratio: Option<f64>,
    /// Its 95 % interval.
    pub paired_low: Option<f64>,
    /// Upper end.
    pub paired_high: Option<f64>,
    /// The largest share of either arm's exceedances that one block holds.
    pub largest_block_share: Option<f64>,
    /// p-value of the exact label-swap permutation test over complete blocks, adjusted over all secondary cells of the
    /// study: maxT within the arm, times the number of arms. `None` for the primary cell and where the cell is refused.
    pub p_adjusted: Option<f64>,
}

/// Builds the analysis from what was read.
///
/// # Errors
/// A nested study of another load that is there and cannot be read.
pub fn summarise(
    study: &Study,
    source: &dyn Source,
    evidence: &[ArmEvidence],
    lanes: &StudyLanes,
    steady: SteadyState,
    check: ExactCheck,
) -> Result<Analysis, AnalysisError> {
    let arms: Vec<ArmSummary> = evidence.iter().map(|arm| summarise_arm(study, arm)).collect();
    let mut comparisons = Vec::new();
    if let Some((base, others)) = evidence.split_first() {
        for arm in others {
            comparisons.extend(compare_arm(&common_blocks(study, &arm.name, &base.name), arm, base));
        }
    }
    let lanes_of_arms = lanes.summary();
    let input = Input { study, source, evidence, arms: &arms, lanes: &lanes_of_arms, steady };
    let decision = decide(input, &mut comparisons)?;
    Ok(Analysis {
        version: ANALYSIS_VERSION,
        base: study.manifest.base.clone(),
        blocks: study.manifest.blocks,
        plan_hash: study.manifest.plan_hash.clone(),
        arms,
        comparisons,
        check,
        verdict: decision.verdict,
        verdict_why: decision.why.clone(),
        finding: decision.headline.clone(),
        decision,
        lanes: lanes_of_arms,
        lanes_missing: lanes.missing(),
    })
}

fn summarise_arm(study: &Study, arm: &ArmEvidence) -> ArmSummary {
    let stack = study.manifest.arms.iter().find(|record| record.name == arm.name).map(|record| record.stack.clone());
    let steps: BTreeMap<String, StepSummary> =
        arm.tallies.iter().map(|(step, tally)| (step.clone(), summarise_step(arm, step, tally))).collect();
    let of_all = |metric| tails(arm, ALL, metric);
    let (latency, service) = (of_all(Metric::Latency), of_all(Metric::Service));
    let total = arm.tallies.get(ALL).copied().unwrap_or_default();
    ArmSummary {
        name: arm.name.clone(),
        stack: stack.unwrap_or_default(),
        runs: study.runs_of(&arm.name).count() as u64,
        valid_runs: arm.blocks.len() as u64,
        requests: total.requests,
        errors: total.errors,
        valid: !arm.blocks.is_empty(),
        why_invalid: why_invalid(study, &arm.name),
        percentiles_ns: latency.percentiles_ns,
        refused: latency.refused,
        low_confidence: latency.low_confidence,
        service_percentiles_ns: service.percentiles_ns,
        max_ns: latency.max_ns,
        steps,
        resources: resources(study, &arm.name),
    }
}

fn summarise_step(arm: &ArmEvidence, step: &str, tally: &Tally) -> StepSummary {
    let tails_of = |metric| Some(tails(arm, step, metric)).filter(|tails| tails.samples > 0);
    StepSummary {
        requests: tally.requests,
        replies: tally.replies,
        errors: tally.errors,
        latency: tails_of(Metric::Latency),
        service: tails_of(Metric::Service),
    }
}

/// One sentence per run of an arm that entered no table.
fn why_invalid(study: &Study, arm: &str) -> Vec<String> {
    let mut why: Vec<String> = study
        .runs_of(arm)
        .filter(|run| !run.valid)
        .map(|run| {
            let reasons = if run.why_invalid.is_empty() {
                "invalid, and its record gives no reason".to_owned()
            } else {
                run.why_invalid.join("; ")
            };
            format!("block {}: {reasons}", run.block)
        })
        .collect();
    let unfinished = study.unfinished.iter().filter(|(_, name)| name == arm);
    why.extend(unfinished.map(|(block, _)| format!("block {block}: the run did not finish (it has no run.json)")));
    why
}
