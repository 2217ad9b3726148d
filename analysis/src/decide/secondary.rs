//! Every other cell: all steps and percentiles of every arm against the base, with p-values adjusted for looking at all.
//!
//! Within an arm the adjustment is by maxT over all its cells that are not refused ([`crate::permute`]). Over the arms it
//! is Bonferroni's factor, the number of arms: Holm's smaller factors for the later ones would need every cell of the
//! earlier ones to differ. The control arm is a family of its own, since it is a gate and not a question.

use crate::analysis::Comparison;
use crate::counts::{Counts, PERCENTILES};
use crate::evidence::ArmEvidence;
use crate::grid::Grid;
use crate::permute::{CellOf, max_t};
use crate::samples::Metric;
use std::collections::BTreeMap;

/// What is adjusted over.
pub struct Family<'a> {
    /// Arms, base first.
    pub evidence: &'a [ArmEvidence],
    /// Complete blocks.
    pub blocks: &'a [u32],
    /// (step, percentile) of the primary cell, which is no secondary one; `None` where nothing was fixed beforehand.
    pub primary: Option<(&'a str, &'a str)>,
    /// The control arm.
    pub control: Option<&'a str>,
    /// Seed of sampled relabelings.
    pub seed: u64,
}

/// Fills `p_adjusted`, and returns the smallest of the control's over all its cells, the primary one included.
pub fn adjust(family: &Family<'_>, comparisons: &mut [Comparison]) -> Option<f64> {
    let steps: Vec<&str> = family.evidence.first()?.steps();
    let grids: BTreeMap<&str, Grid> = steps.iter().map(|&step| (step, grid(family, step))).collect();
    let is_control = |name: &str| family.control == Some(name);
    let arms = family.evidence.iter().skip(1).filter(|arm| !is_control(&arm.name)).count();
    let mut smallest = None;
    for (at, arm) in family.evidence.iter().enumerate().skip(1) {
        let of_control = is_control(&arm.name);
        let is_primary = |row: &Comparison| family.primary == Some((row.step.as_str(), row.percentile));
        let asked = |row: &Comparison| row.arm == arm.name && row.ratio.is_some() && (of_control || !is_primary(row));
        let rows: Vec<&mut Comparison> = comparisons.iter_mut().filter(|row| asked(row)).collect();
        let cells = rows.iter().filter_map(|row| {
            let percentile = PERCENTILES.into_iter().find(|percentile| percentile.key == row.percentile)?;
            Some(CellOf { grid: grids.get(row.step.as_str())?, ppm: percentile.ppm })
        });
        let cells: Vec<CellOf<'_>> = cells.collect();
        if cells.len() != rows.len() {
            continue;
        }
        let factor = if of_control { 1.0 } else { arms as f64 };
        for (row, p) in rows.into_iter().zip(max_t(&cells, at, 0, family.seed)) {
            let p = p.map(|p| (p * factor).min(1.0));
            if of_control {
                smallest = [smallest, p].into_iter().flatten().min_by(f64::total_cmp);
            }
            row.p_adjusted = p.filter(|_| !is_primary(row));
        }
    }
    smallest
}

fn grid(family: &Family<'_>, step: &str) -> Grid {
    let counts = |arm: &ArmEvidence| arm.counts_in(step, Metric::Latency, family.blocks);
    let counts: Vec<Vec<Counts>> = family.evidence.iter().map(counts).collect();
    Grid::new(&counts.iter().map(|blocks| blocks.iter().collect()).collect::<Vec<_>>())
}
