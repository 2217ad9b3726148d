//! The result of an analysis as others read it: the JSON contract of `regauge analyze --json` and of analysis.json.
//!
//! Fields may be added; none changes its meaning without a new [`ANALYSIS_VERSION`].

use crate::compare::{Contrast, contrast};
use crate::counts::{Counts, PERCENTILES, Percentile};
use crate::decision::Decision;
use crate::error::AnalysisError;
use crate::evidence::{ALL, ArmEvidence, Tally, common_blocks};
use crate::lanes::StudyLanes;
use crate::lanes::aggregate::ArmLanes;
use crate::load::Study;
use crate::resources::{Resources, resources};
use crate::samples::{Metric, read_exact};
use crate::tails::{Refusal, Tails, tails};
use crate::verdict::{Verdict, judge};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Version of the JSON contract.
pub const ANALYSIS_VERSION: u32 = 2;

/// Histograms of three digits may differ from exact percentiles by this share.
pub const HISTOGRAM_ERROR: f64 = 0.001;

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
    /// Either arm has too few independent episodes: the smaller number of them, the larger need.
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
    /// p-value of the exact label-swap permutation test, adjusted over all secondary cells of the study (maxT); `None`
    /// for the primary cell and where the cell is refused.
    pub p_adjusted: Option<f64>,
}

/// Histogram percentiles against exact ones, all shown cells of step `all`.
#[derive(Debug, Clone, Serialize)]
pub struct ExactCheck {
    /// Cells compared.
    pub cells: u64,
    /// The largest relative difference.
    pub largest_difference: f64,
}

/// Builds the analysis from what was read.
///
/// # Errors
/// Raw samples that cannot be read again, or that disagree with the histograms.
pub fn summarise(study: &Study, evidence: &[ArmEvidence], lanes: &StudyLanes) -> Result<Analysis, AnalysisError> {
    let arms: Vec<ArmSummary> = evidence.iter().map(|arm| summarise_arm(study, arm)).collect();
    let mut comparisons = Vec::new();
    if let Some((base, others)) = evidence.split_first() {
        for arm in others {
            comparisons.extend(compare_arm(study, arm, base));
        }
    }
    let check = check_exact(study, evidence)?;
    let Verdict { verdict, why, finding } = judge(study, &arms, &comparisons);
    Ok(Analysis {
        version: ANALYSIS_VERSION,
        base: study.manifest.base.clone(),
        blocks: study.manifest.blocks,
        plan_hash: study.manifest.plan_hash.clone(),
        arms,
        comparisons,
        check,
        verdict,
        decision: Decision::none_yet(study, verdict, &why, &finding),
        verdict_why: why,
        finding,
        lanes: lanes.summary(),
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

fn compare_arm(study: &Study, arm: &ArmEvidence, base: &ArmEvidence) -> Vec<Comparison> {
    let blocks = common_blocks(study, &arm.name, &base.name);
    let mut rows = Vec::new();
    for step in arm.steps() {
        let of_arm = arm.counts_in(step, Metric::Latency, &blocks);
        let of_base = base.counts_in(step, Metric::Latency, &blocks);
        for percentile in PERCENTILES {
            rows.push(compare_cell((arm, &of_arm), (base, &of_base), &blocks, step, percentile));
        }
    }
    rows
}

fn compare_cell(
    (arm, of_arm): (&ArmEvidence, &[Counts]),
    (base, of_base): (&ArmEvidence, &[Counts]),
    blocks: &[u32],
    step: &str,
    percentile: Percentile,
) -> Comparison {
    let supports = [arm, base].map(|side| side.support(blocks, step, Metric::Latency, percentile.ppm));
    let mut row = Comparison {
        arm: arm.name.clone(),
        base: base.name.clone(),
        step: step.to_owned(),
        percentile: percentile.key,
        blocks: blocks.len() as u64,
        ratio: None,
        ci_low: None,
        ci_high: None,
        delta_ms: None,
        delta_ms_low: None,
        delta_ms_high: None,
        why_none: None,
        refused: None,
        low_confidence: false,
        paired_ratio: None,
        paired_low: None,
        paired_high: None,
        largest_block_share: None,
        p_adjusted: None,
    };
    let [Some(of_a), Some(of_b)] = supports else {
        row.why_none = Some(match blocks.is_empty() {
            true => "the two arms have no valid block in common".to_owned(),
            false => "one of the arms has no reply of this step in their common blocks".to_owned(),
        });
        return row;
    };
    row.largest_block_share = Some(of_a.largest_block_share.max(of_b.largest_block_share));
    let weaker = if of_a.episodes <= of_b.episodes { of_a } else { of_b };
    row.refused = Refusal::of(&weaker, percentile.ppm);
    if let Some(refusal) = &mut row.refused {
        refusal.needed = of_a.samples_needed(percentile.ppm).max(of_b.samples_needed(percentile.ppm));
        row.why_none = Some("too few independent episodes".to_owned());
        return row;
    }
    row.low_confidence = weaker.confidence() == crate::episodes::Confidence::Low;
    let (of_arm, of_base): (Vec<&Counts>, Vec<&Counts>) = (of_arm.iter().collect(), of_base.iter().collect());
    match contrast(&of_arm, &of_base, percentile.ppm) {
        Some(contrast) => fill(&mut row, &contrast),
        None => {
            let why = "a percentile is 0 ns, or without one of the blocks an arm has no sample of this step";
            row.why_none = Some(why.to_owned());
        }
    }
    row
}

fn fill(row: &mut Comparison, contrast: &Contrast) {
    let ms = |ns: f64| ns / 1e6;
    row.ratio = Some(contrast.ratio.estimate);
    row.delta_ms = Some(ms(contrast.delta_ns.estimate));
    match (contrast.ratio.ends, contrast.delta_ns.ends) {
        (Some((low, high)), Some((delta_low, delta_high))) => {
            (row.ci_low, row.ci_high) = (Some(low), Some(high));
            (row.delta_ms_low, row.delta_ms_high) = (Some(ms(delta_low)), Some(ms(delta_high)));
        }
        _ => row.why_none = Some("one block in common; an interval takes at least two".to_owned()),
    }
    if let Some(paired) = contrast.paired {
        row.paired_ratio = Some(paired.estimate);
        (row.paired_low, row.paired_high) = (paired.ends.map(|ends| ends.0), paired.ends.map(|ends| ends.1));
    }
}

/// Computes the headline percentiles again from the raw samples, and compares.
fn check_exact(study: &Study, evidence: &[ArmEvidence]) -> Result<ExactCheck, AnalysisError> {
    let mut check = ExactCheck { cells: 0, largest_difference: 0.0 };
    for arm in evidence {
        let files: Vec<PathBuf> =
            arm.blocks.iter().map(|&block| study.run_file(block, &arm.name, "requests.parquet")).collect();
        for metric in Metric::BOTH {
            let exact = Counts::merged(read_exact(&files, metric)?.values());
            let pooled = arm.pooled(ALL, metric);
            for percentile in PERCENTILES {
                let (Some(exact), Some(pooled)) = (exact.quantile(percentile.ppm), pooled.quantile(percentile.ppm))
                else {
                    continue;
                };
                // A bucket of one nanosecond may round by one.
                let difference = (exact.abs_diff(pooled).saturating_sub(1)) as f64 / (exact.max(1)) as f64;
                check.cells += 1;
                check.largest_difference = check.largest_difference.max(difference);
                if difference > HISTOGRAM_ERROR {
                    let what = format!(
                        "{} of arm `{}` ({}) is {exact} ns in requests.parquet and {pooled} ns in histograms.parquet",
                        percentile.label,
                        arm.name,
                        metric.name()
                    );
                    return Err(AnalysisError::Disagreement { what });
                }
            }
        }
    }
    Ok(check)
}
