//! From a cause's two predictions and what was seen, to supported, refuted, or cannot tell.
//!
//! The rule, also in METHODOLOGY.md:
//!
//! - *share*: the part of the base arm's slowest 1 % that lies in the cause's lanes (calls of `set_last_applied`; for
//!   batching, the stage in the batcher of CONNECTs, from their planned time).
//! - *ratio*: the step's P99 in the arm without the cause over that of the base, pooled over common blocks, with a
//!   jackknife-by-block interval ([`crate::compare`]).
//! - **supported**: share ≥ ½ and the interval of one of its arms lies below 1.
//! - **refuted**: share ≤ 1/10 and the intervals of all its arms exclude an improvement of more than 20 %.
//! - **cannot tell**: all else, with the number of samples or blocks that it would take where more of them can help.
//!
//! Without run delay in the base arm's stamps (a kernel without schedstat) nothing can be told of what rests on `runnable`
//! or on storage, and nothing else can be supported: preemption would look the same. Nor can anything be told of calls of
//! which some were left out, nor of a tail of which more than a tenth has no stamps.
//!
//! Several causes can be supported: they may act together. Intervals are not adjusted for the number of hypotheses,
//! since a verdict needs two predictions that are measured apart.

use super::hypotheses::Hypothesis;
use crate::compare::{contrast, t_critical};
use crate::counts::{Counts, rank};
use crate::lanes::Lanes;
use crate::lanes::aggregate::{CONNECT, REQUESTS_MIN, RunTimes, SET_LAST_APPLIED, Timed, too_few};
use crate::lanes::lane::share;
use crate::lanes::study::ArmTimes;
use crate::units::ratio_with_interval;
use serde::Serialize;

/// From this share on a lane holds the tail.
pub const SHARE_MOST: f64 = 0.5;
/// Up to this share it holds next to nothing of it.
pub const SHARE_LITTLE: f64 = 0.1;
/// An improvement down to this ratio still counts as none.
pub const RATIO_NONE: f64 = 0.8;
/// The tail: the slowest 1 %.
const TAIL_PPM: u64 = 990_000;
/// More blocks than this are no advice.
const BLOCKS_MOST: u64 = 200;

/// What became of a hypothesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Both predictions hold.
    Supported,
    /// Neither does, clearly.
    Refuted,
    /// The data leave it open, or the predictions contradict each other.
    CannotTell,
}

impl Verdict {
    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Verdict::Supported => "supported",
            Verdict::Refuted => "refuted",
            Verdict::CannotTell => "cannot tell",
        }
    }
}

/// One arm against the base.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmSeen {
    /// The arm.
    pub arm: String,
    /// Blocks in which both have figures.
    pub blocks: u64,
    /// P99 of the step over the base's.
    pub ratio: Option<f64>,
    /// Its 95 % interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// A hypothesis with its verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// [`Hypothesis::name`].
    pub name: &'static str,
    /// [`Hypothesis::title`].
    pub title: &'static str,
    /// [`Hypothesis::predicts`].
    pub predicts: &'static str,
    /// What was seen, for people.
    pub seen: String,
    /// What follows.
    pub verdict: Verdict,
    /// Why it cannot be told, and what it would take.
    pub why: Option<String>,
    /// Share of the matching lanes in the base's slowest 1 %.
    pub share: Option<f64>,
    /// Calls or requests in that slowest 1 %.
    pub tail_samples: u64,
    /// The arms without the cause.
    pub arms: Vec<ArmSeen>,
}

/// Judges one hypothesis. `of` finds an arm's times; `None` when the study has no such arm.
pub fn judge<'a>(hypothesis: &Hypothesis, base: &ArmTimes, of: impl Fn(&str) -> Option<&'a ArmTimes>) -> Judged {
    let tail = Tail::of(base, hypothesis);
    let arms: Vec<ArmSeen> =
        hypothesis.arms.iter().filter_map(|name| Some(compare(of(name)?, base, hypothesis.step))).collect();
    let compared = hypothesis.arms.iter().filter_map(|name| of(name)).chain([base]);
    let (verdict, why) = match (unseen(hypothesis, base, compared), decide(&tail, &arms, hypothesis)) {
        (Unseen::Lane(why), _) | (Unseen::Rival(why), (Verdict::Supported, _)) => (Verdict::CannotTell, Some(why)),
        (_, decided) => decided,
    };
    Judged {
        name: hypothesis.name,
        title: hypothesis.title,
        predicts: hypothesis.predicts,
        seen: seen(hypothesis, &tail, &arms),
        verdict,
        why,
        share: tail.share.ok(),
        tail_samples: tail.with,
        arms,
    }
}

/// What the stamps cannot show.
enum Unseen {
    Nothing,
    /// What is in the hypothesis' lanes.
    Lane(String),
    /// Whether another cause looks the same.
    Rival(String),
}

fn unseen<'a>(hypothesis: &Hypothesis, base: &ArmTimes, compared: impl Iterator<Item = &'a ArmTimes>) -> Unseen {
    let left_out: u64 = compared.flat_map(|arm| &arm.runs).map(|run| run.taken.calls_left_out).sum();
    if hypothesis.step == SET_LAST_APPLIED && left_out > 0 {
        return Unseen::Lane(format!(
            "{left_out} calls were too many to be kept, so the figures are not of all of them"
        ));
    }
    if base.runs.iter().all(|run| run.taken.run_delay) {
        return Unseen::Nothing;
    }
    let why = "the kernel did not say how long threads waited for a CPU (no schedstat)";
    match hypothesis.needs_run_delay() {
        true => Unseen::Lane(format!("{why}, and without that preemption looks like storage")),
        false => Unseen::Rival(format!("{why}, and without that preemption may look the same")),
    }
}

/// The times of a step with the lanes that may speak for a hypothesis.
fn times_of<'a>(run: &'a RunTimes, step: &str) -> &'a [Timed] {
    let whole = || run.steps.get(step).map(Vec::as_slice).unwrap_or(&[]);
    if step == CONNECT { &run.batched } else { whole() }
}

/// The slowest 1 % of the base arm.
struct Tail {
    /// The share of the hypothesis' lanes in it, or why nothing can be said of that.
    share: Result<f64, String>,
    /// How many are in it, and how many of them have stamps.
    all: u64,
    with: u64,
}

impl Tail {
    fn of(base: &ArmTimes, hypothesis: &Hypothesis) -> Tail {
        let mut times: Vec<&Timed> = base.runs.iter().flat_map(|run| times_of(run, hypothesis.step)).collect();
        times.sort_by_key(|(ns, _)| *ns);
        let samples = times.len() as u64;
        let from = usize::try_from(rank(samples, TAIL_PPM)).unwrap_or(usize::MAX).saturating_sub(1);
        let tail = times.get(from..).unwrap_or(&[]);
        let (mut with, mut whole, mut sum) = (0, 0_u64, Lanes::default());
        for (ns, lanes) in tail.iter().filter_map(|(ns, lanes)| Some((ns, lanes.as_ref()?))) {
            with += 1;
            whole = whole.saturating_add(*ns);
            sum.extend(lanes);
        }
        let all = tail.len() as u64;
        let matching = hypothesis.lanes.iter().map(|lane| sum.get(*lane)).sum();
        let share = match too_few(with, all) {
            None => Ok(share(matching, whole)),
            Some(_) if all < REQUESTS_MIN => {
                let needed = (REQUESTS_MIN - 1) * 100;
                Err(format!("{samples} samples in the base arm; it takes more than {needed}"))
            }
            Some(why) => Err(format!("of the base arm's slowest 1 %, {why}; what they went through is not known")),
        };
        Tail { share, all, with }
    }
}

fn compare(arm: &ArmTimes, base: &ArmTimes, step: &str) -> ArmSeen {
    let counts = |times: &ArmTimes, block: u32| {
        let run = times.runs.iter().find(|run| run.block == block)?;
        let values: Vec<u64> = run.steps.get(step)?.iter().map(|(ns, _)| *ns).collect();
        Some(Counts::from_values(values)).filter(|counts| !counts.is_empty())
    };
    let pairs: Vec<(Counts, Counts)> =
        base.runs.iter().filter_map(|run| Some((counts(arm, run.block)?, counts(base, run.block)?))).collect();
    let (of_arm, of_base): (Vec<&Counts>, Vec<&Counts>) = pairs.iter().map(|(a, b)| (a, b)).unzip();
    let found = contrast(&of_arm, &of_base, TAIL_PPM).map(|contrast| contrast.ratio);
    let ends = found.and_then(|ratio| ratio.ends);
    ArmSeen {
        arm: arm.arm.clone(),
        blocks: pairs.len() as u64,
        ratio: found.map(|ratio| ratio.estimate),
        low: ends.map(|(low, _)| low),
        high: ends.map(|(_, high)| high),
    }
}

fn decide(tail: &Tail, arms: &[ArmSeen], hypothesis: &Hypothesis) -> (Verdict, Option<String>) {
    let cannot = |why: String| (Verdict::CannotTell, Some(why));
    let share = match &tail.share {
        Ok(share) => *share,
        Err(why) => return cannot(why.clone()),
    };
    if arms.is_empty() {
        return cannot(format!("no run of {}", hypothesis.arms.join(", ")));
    }
    let helps = |arm: &ArmSeen| arm.high.is_some_and(|high| high < 1.0);
    let idle = |arm: &ArmSeen| arm.low.is_some_and(|low| low >= RATIO_NONE);
    if share >= SHARE_MOST {
        if arms.iter().any(helps) {
            return (Verdict::Supported, None);
        }
        if arms.iter().all(idle) {
            return cannot(
                "its lane holds the tail, yet removing it does not help: something upstream fills it".into(),
            );
        }
        let best = arms.iter().filter(|arm| arm.ratio.is_none_or(|ratio| ratio < 1.0)).map(|arm| blocks_for(arm, 1.0));
        return cannot(takes(best.min_by_key(|blocks| blocks.unwrap_or(u64::MAX)).flatten()));
    }
    if share <= SHARE_LITTLE {
        if arms.iter().all(idle) {
            return (Verdict::Refuted, None);
        }
        if let Some(arm) = arms.iter().find(|arm| helps(arm)) {
            return cannot(format!("{} helps, yet the lane holds little: it changes something else too", arm.arm));
        }
        let open = arms.iter().filter(|arm| !idle(arm)).map(|arm| blocks_for(arm, RATIO_NONE));
        return cannot(takes(open.max_by_key(|blocks| blocks.unwrap_or(u64::MAX)).flatten()));
    }
    cannot("its lane holds a part of the tail, neither most nor next to nothing of it".into())
}

fn takes(blocks: Option<u64>) -> String {
    match blocks {
        Some(blocks) => format!("it would take about {blocks} blocks"),
        None => format!("more than {BLOCKS_MOST} blocks would not settle it"),
    }
}

/// Blocks with which an interval of the spread seen would lie on its estimate's side of `bound`. `None`: out of reach.
fn blocks_for(arm: &ArmSeen, bound: f64) -> Option<u64> {
    let two = 2.max(arm.blocks + 1);
    let (Some(ratio), Some(low), Some(high)) = (arm.ratio, arm.low, arm.high) else { return Some(two.max(5)) };
    let degrees = usize::try_from(arm.blocks).ok()?.checked_sub(1)?;
    let one_block = (high.ln() - low.ln()) / 2.0 / t_critical(degrees)? * (arm.blocks as f64).sqrt();
    let distance = (ratio.ln() - bound.ln()).abs();
    (two..=BLOCKS_MOST).find(|&blocks| {
        let half =
            usize::try_from(blocks - 1).ok().and_then(t_critical).map(|t| t * one_block / (blocks as f64).sqrt());
        half.is_some_and(|half| half < distance)
    })
}

fn seen(hypothesis: &Hypothesis, tail: &Tail, arms: &[ArmSeen]) -> String {
    let lanes: Vec<&str> = hypothesis.lanes.iter().map(|lane| lane.label()).collect();
    let unit = if hypothesis.step == CONNECT { "CONNECTs" } else { "calls" };
    let Tail { all, with, .. } = tail;
    let mut parts = vec![match &tail.share {
        Ok(share) => format!("{} {:.0} % of the slowest {with} {unit}", lanes.join(" + "), share * 100.0),
        Err(_) if all == with => format!("only {all} {unit} in the slowest 1 %"),
        Err(_) => format!("stamps of {with} of {all} {unit} in the slowest 1 %"),
    }];
    parts.extend(arms.iter().map(|arm| match arm.ratio {
        Some(ratio) => format!("{} {}", arm.arm, ratio_with_interval(ratio, arm.low.zip(arm.high))),
        None => format!("{} without figures", arm.arm),
    }));
    parts.join("; ")
}
