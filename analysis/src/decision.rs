//! What a decision rests on, as plain data: the part of the JSON contract that the report, the terminal and the notebooks
//! read. The procedures that fill it stand in modules of their own, one per question.
//!
//! Every number that may be missing is an `Option` with a sentence beside it that says why.

use crate::tails::Refusal;
use regauge_traces::study::Design;
use serde::Serialize;

/// The pre-registered question, and whether it was really fixed beforehand.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Question {
    /// From study.json, or the defaults where it has none.
    #[serde(flatten)]
    pub design: Design,
    /// Whether study.json held it before the first run. Without, there is no verdict.
    pub registered: bool,
    /// Blocks were added after results could be seen, and not by the sizing rule. Then there is no verdict.
    pub peeked: bool,
    /// SHA-256 of study.json's design, arms and plan hash, hex, shortened: what a decision record quotes.
    pub hash: String,
}

/// How the blocks became figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BlockCount {
    /// Complete blocks that were asked for.
    pub wanted: u64,
    /// Blocks in which every arm's run is valid: the figures of the decision rest on these alone.
    pub complete: u64,
    /// Blocks with a run that failed a gate.
    pub flagged: u64,
    /// Blocks that lack a run (the study was stopped).
    pub unfinished: u64,
    /// How often each gate failed.
    pub failed_gates: Vec<(String, u64)>,
}

/// Warm-up and steady state, judged over all arms and blocks together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SteadyState {
    /// Requests planned before this enter no figure: the larger of the plan's warm-up and what MSER cut, ns.
    pub cut_ns: u64,
    /// The plan's own warm-up, ns.
    pub planned_ns: u64,
    /// The largest truncation point of MSER over arms and blocks, ns; `None` where runs are too short to tell.
    pub mser_ns: Option<u64>,
    /// Runs that never settled (MSER cut half of them or more), as `block 3 compio`.
    pub not_reached: Vec<String>,
    /// Runs whose level moved after the cut.
    pub moved: Vec<Step>,
    /// Why it could not be tested, if so.
    pub untested: Option<String>,
}

/// A run whose level moved after the warm-up cut.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Its block.
    pub block: u32,
    /// Its arm.
    pub arm: String,
    /// When, ns from the run's start.
    pub at_ns: u64,
    /// By how much the level changed: 0.1 is 10 % up.
    pub change: f64,
    /// p-value of the permutation test.
    pub p: f64,
}

/// An estimate with its 95 % interval; ends are `None` where there is no interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// Pooled estimate.
    pub value: f64,
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// What the primary cell says of one arm against another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// The interval lies below the bar, and the gain beyond the floor.
    MigrationEffect,
    /// The interval lies below 1, not all of it below the bar (or the gain within the floor).
    BetterBelowBar,
    /// The interval lies within the region of equivalence.
    Equivalent,
    /// The interval lies above the region of equivalence.
    Worse,
    /// The interval allows several of these.
    Inconclusive,
    /// Runs differ so much that the two procedures disagree, or one block holds the tail: no statement.
    RunHeterogeneous,
    /// Too few independent episodes, or the driver's own lateness: no number.
    Refused,
}

impl Tier {
    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Tier::MigrationEffect => "beyond the bar",
            Tier::BetterBelowBar => "better, below the bar",
            Tier::Equivalent => "equivalent",
            Tier::Worse => "worse",
            Tier::Inconclusive => "inconclusive",
            Tier::RunHeterogeneous => "runs too unlike",
            Tier::Refused => "refused",
        }
    }
}

/// The primary cell, one arm against another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrimaryCell {
    /// The arm.
    pub arm: String,
    /// What it is compared with.
    pub against: String,
    /// What follows.
    pub tier: Tier,
    /// Complete blocks behind it.
    pub blocks: u64,
    /// Ratio of the percentile, jackknife by block and t (Stein's interval in a sized study).
    pub ratio: Option<Estimate>,
    /// Difference, ms.
    pub delta_ms: Option<Estimate>,
    /// Ratio of the shares of requests above the service level objective.
    pub slo_ratio: Option<Estimate>,
    /// Why there is none: no request of an arm is slower than the objective, so the share has no logarithm.
    pub slo_why: Option<String>,
    /// Cross-check: paired t on per-block log-ratios.
    pub paired: Option<Estimate>,
    /// Two-sided p-value of "no difference", and after Holm over the candidate runtimes.
    pub p: Option<f64>,
    /// After Holm.
    pub p_holm: Option<f64>,
    /// One-sided p-value of "the ratio is the bar or more, or the gain lies within the floor": the larger of the two's.
    pub p_bar: Option<f64>,
    /// Of an arm that may win: the largest such p-value over everything that it must beat, after Holm over all that may
    /// win. A verdict for it takes 0.025 or less.
    pub p_bar_holm: Option<f64>,
    /// Why the percentile is refused.
    pub refused: Option<Refusal>,
    /// Fewer than 50 independent episodes in either arm (or refused): no verdict rests on it.
    pub low_confidence: bool,
    /// The interval excludes an effect worth a migration: the ratio is the bar or more, or the gain within the floor.
    pub excludes_worth: bool,
    /// The largest share of either arm's exceedances that one block holds.
    pub largest_block_share: Option<f64>,
    /// Blocks that it would take to decide, where more blocks can help.
    pub blocks_needed: Option<u64>,
    /// One sentence: what it says, or why it says nothing.
    pub why: String,
    /// The same with all runs that have samples, flagged blocks included: the sensitivity of the result to the gates.
    pub with_flagged: Option<Estimate>,
}

/// The A/A gate: the same code under two names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Control {
    /// The arm that repeats the base.
    pub arm: String,
    /// Ratio of the primary percentile, A′ over A.
    pub ratio: Option<Estimate>,
    /// Half-width of its interval, relative: the noise floor of every ratio beside it (0.08 is ± 8 %).
    pub floor: Option<f64>,
    /// Smallest maxT-adjusted p-value over all cells.
    pub smallest_p: Option<f64>,
    /// Passed.
    pub trusted: bool,
    /// What failed, one sentence each.
    pub why: Vec<String>,
}

/// How many blocks the wanted precision takes (Stein's two stages).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sizing {
    /// Blocks of the first stage.
    pub first_stage: u64,
    /// Standard deviation s = se·√R of the log-ratio in the first stage, the largest over all pairs of arms that a verdict
    /// may rest on, the control's included.
    pub sd: f64,
    /// The arm with that deviation.
    pub arm: String,
    /// What it was compared with.
    pub against: String,
    /// Wanted relative half-width.
    pub wanted: f64,
    /// Complete blocks that it takes.
    pub blocks: u64,
    /// More than [`Design::blocks_max`]: the study will end inconclusive.
    pub beyond_max: bool,
}

/// Where the gap between two arms' tails lies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attribution {
    /// The arm.
    pub arm: String,
    /// What it is compared with.
    pub against: String,
    /// Mean latency in the tail (P99 and above), base − arm, ns; the step is the primary's, or the busiest.
    pub gap_ns: f64,
    /// The step.
    pub step: String,
    /// Per lane: its part of the gap, ns.
    pub lanes_ns: Vec<(String, f64)>,
    /// The share of woken→polled in the gap; `None` where the gap is too small to be divided.
    pub runtime_share: Option<f64>,
    /// What it shows, in words: the runtime is not the cause (share under 20 %, even with all that is unattributed), may
    /// be, or cannot be told; and how many of the slowest requests have no stamps, where they are many.
    pub finding: String,
}

/// One arm at one load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadCell {
    /// Arm name.
    pub arm: String,
    /// Primary percentile, ns.
    pub percentile_ns: Option<u64>,
    /// Ratio to the base arm at the same load.
    pub ratio: Option<Estimate>,
    /// Why there is none.
    pub why_none: Option<String>,
    /// Two-sided p-value of "no difference", and after Holm over all alternatives and loads: a sign is told from 0.05 on.
    pub p: Option<f64>,
    /// After Holm; `None` where the cell decides nothing.
    pub p_holm: Option<f64>,
    /// Whether what a verdict takes was there at this load: ten blocks and all that were asked for, enough episodes, runs
    /// alike, a steady state, an instrument that is trusted.
    pub decided: bool,
}

/// All arms at one load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadRow {
    /// Share of the base arm's knee.
    pub share: f64,
    /// Requests planned per second.
    pub offered_per_s: f64,
    /// Complete blocks.
    pub blocks: u64,
    /// Whether this is the primary load.
    pub primary: bool,
    /// Arms, base first.
    pub cells: Vec<LoadCell>,
}

/// Ratio against load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadCurves {
    /// (arm, highest rate at which it kept up, lowest at which it did not, what ended the search).
    pub knees: Vec<(String, Option<f64>, Option<f64>, String)>,
    /// The loads, rising.
    pub loads: Vec<LoadRow>,
    /// Where an arm's ratio crosses 1, one sentence each; or that it crosses nowhere.
    pub flips: Vec<String>,
}

/// The whole decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// The question, fixed beforehand.
    pub question: Question,
    /// Blocks.
    pub blocks: BlockCount,
    /// Warm-up and steady state.
    pub steady: SteadyState,
    /// The A/A gate; `None` without a control arm.
    pub control: Option<Control>,
    /// Every arm but base and control, against the base.
    pub primary: Vec<PrimaryCell>,
    /// Every arm of another runtime against each arm of today's that promises the same: a migration must beat them all.
    pub against_today: Vec<PrimaryCell>,
    /// The arm of today's runtime with the lowest primary percentile, the base included.
    pub best_of_today: Option<String>,
    /// Arms that promise something else to clients (durability) and therefore are no alternatives, with the reason.
    pub no_alternatives: Vec<String>,
    /// Sizing, in a study with [`Design::until`].
    pub sizing: Option<Sizing>,
    /// Why there is none although it was asked for.
    pub sizing_why: Option<String>,
    /// Where the gaps lie; empty without stamps.
    pub attribution: Vec<Attribution>,
    /// Ratio against load, in a study with several.
    pub loads: Option<LoadCurves>,
    /// Median and tail move in opposite directions, or throughput pays for latency: one sentence each.
    pub trade_offs: Vec<String>,
    /// `MIGRATE`, `FIX IN PLACE`, `STAY` or `INSUFFICIENT EVIDENCE`.
    pub verdict: &'static str,
    /// The arm that the verdict names: of another runtime for MIGRATE, of today's for FIX IN PLACE; else none.
    pub chosen: Option<String>,
    /// The verdict in one sentence, with its numbers.
    pub headline: String,
    /// What it rests on or lacks, one sentence each, the weightiest first.
    pub why: Vec<String>,
    /// What would change it, one sentence each; never empty.
    pub would_change: Vec<String>,
    /// Threats to validity, one sentence each.
    pub threats: Vec<String>,
}
