//! The decision: every procedure of METHODOLOGY.md in order, each in a module of its own, put together here.
//!
//! It reads no file but a study's nested ones (loads): evidence, levels and lanes are handed in, so that a simulation in
//! memory passes through the same code.

mod attribution;
mod blockers;
mod conclude;
mod control;
mod faults;
mod frame;
mod loads;
pub mod primary;
pub mod promises;
mod secondary;
pub mod sizing;
mod threats;
pub mod tier;
mod trade_offs;
pub mod verdict;
pub(crate) mod words;

pub use frame::{Frame, Roles};

use crate::analysis::{ArmSummary, Comparison};
use crate::decision::{Decision, SteadyState};
use crate::error::AnalysisError;
use crate::evidence::ArmEvidence;
use crate::lanes::aggregate::ArmLanes;
use crate::load::Study;
use crate::source::Source;
use primary::Primary;
use verdict::Cells;

/// What a decision is made of.
pub struct Input<'a> {
    /// The study's records.
    pub study: &'a Study,
    /// Its samples, after the warm-up cut.
    pub source: &'a dyn Source,
    /// What they hold, base first.
    pub evidence: &'a [ArmEvidence],
    /// The arms' figures.
    pub arms: &'a [ArmSummary],
    /// Where the time went; empty without stamps.
    pub lanes: &'a [ArmLanes],
    /// Warm-up and steady state.
    pub steady: SteadyState,
}

/// Decides. Fills `p_adjusted` of the comparisons on the way.
///
/// # Errors
/// A nested study of another load that is there and cannot be read.
pub fn decide(input: Input<'_>, comparisons: &mut [Comparison]) -> Result<Decision, AnalysisError> {
    let frame = Frame::of(input.study, input.evidence);
    let flagged = frame.flagged_samples(input.source, input.evidence);
    let primary = Primary::new(input.study, &frame.design, input.evidence, &frame.complete, flagged);
    let cells = cells(&frame, &primary);
    let family = secondary::Family {
        evidence: input.evidence,
        blocks: &frame.complete,
        primary: frame.registered.then_some((&frame.design.primary_step, &frame.design.primary_percentile)),
        control: frame.design.control.as_deref(),
        seed: input.study.manifest.seed,
    };
    let smallest_p = secondary::adjust(&family, comparisons);
    let control = frame.roles.control.map(|arm| control::judge(&primary, arm, smallest_p));
    let (sizing, sizing_why) = match sizing::size(&primary, &frame.pairs(&primary)) {
        Ok(sizing) => (sizing, None),
        Err(why) => (None, Some(why)),
    };
    let blockers = blockers::blockers(&frame, &primary, control.as_ref(), &input.steady, sizing.as_ref());
    let verdict = conclude::conclude(&frame, &primary, &cells, &blockers);
    let best_of_today = frame.best_of_today(&primary);
    Ok(Decision {
        question: frame.question(input.study),
        blocks: frame.count(input.study),
        attribution: attribution::attribute(&frame, input.lanes, best_of_today.as_deref()),
        loads: loads::curves(
            input.study,
            &frame,
            &primary,
            loads::Own { control: control.as_ref(), steady: &input.steady },
        )?,
        trade_offs: trade_offs::trade_offs(&frame, &primary, input.arms),
        threats: threats::threats(input.study, &frame, &input.steady, &primary, input.arms),
        steady: input.steady,
        control,
        primary: cells.against_base,
        against_today: cells.against_today,
        best_of_today,
        no_alternatives: frame.roles.no_alternatives.clone(),
        sizing,
        sizing_why,
        verdict: verdict.verdict,
        headline: verdict.headline,
        why: verdict.why,
        would_change: verdict.would_change,
        chosen: verdict.chosen,
    })
}

/// Every comparison of the primary cell that a verdict may rest on.
fn cells(frame: &Frame<'_>, primary: &Primary<'_>) -> Cells {
    let roles = &frame.roles;
    let index = |names: &[String]| -> Vec<usize> { names.iter().filter_map(|name| frame.index(name)).collect() };
    let today = index(&roles.today);
    let against_today = index(&roles.others).into_iter().flat_map(|arm| {
        let today = &today;
        today.iter().map(move |&against| primary.cell(arm, against))
    });
    let mut cells = Cells {
        against_base: primary.compared().into_iter().map(|arm| primary.cell(arm, 0)).collect(),
        against_today: against_today.collect(),
    };
    cells.adjust(roles);
    cells
}
