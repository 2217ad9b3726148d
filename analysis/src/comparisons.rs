//! The table of ratios: every step and percentile of an arm against the base, with its interval or why there is none.
//!
//! Rows rest on the blocks that both arms have, and their intervals on the spread seen. The verdict rests on the primary
//! cell ([`crate::decide`]), over blocks in which every arm is valid.

use crate::analysis::Comparison;
use crate::compare::{Contrast, contrast_in};
use crate::counts::{PERCENTILES, Percentile};
use crate::episodes::Confidence;
use crate::evidence::ArmEvidence;
use crate::grid::Grid;
use crate::samples::Metric;
use crate::tails::Refusal;

/// Every step and percentile of an arm against the base, over the blocks that both have.
pub fn compare_arm(blocks: &[u32], arm: &ArmEvidence, base: &ArmEvidence) -> Vec<Comparison> {
    let mut rows = Vec::new();
    for step in arm.steps() {
        let counts = [arm, base].map(|side| side.counts_in(step, Metric::Latency, blocks));
        let grid = Grid::new(&counts.each_ref().map(|blocks| blocks.iter().collect()));
        for percentile in PERCENTILES {
            rows.push(compare_cell(arm, base, &grid, blocks, step, percentile));
        }
    }
    rows
}

fn compare_cell(
    arm: &ArmEvidence,
    base: &ArmEvidence,
    grid: &Grid,
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
    row.refused = Refusal::of_any([of_a, of_b].iter(), percentile.ppm);
    if let Some(refusal) = &row.refused {
        let why = match refusal.driver_owned {
            true => "the driver's own lateness may own it",
            false => "too few independent episodes",
        };
        row.why_none = Some(why.to_owned());
        return row;
    }
    row.low_confidence = [of_a, of_b].iter().any(|support| support.confidence() == Confidence::Low);
    match contrast_in(grid, 0, 1, percentile.ppm) {
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
