//! Curves with intervals: a percentile, or a ratio of two, along the nines, with the jackknife that leaves out a block.
//!
//! The same procedure as [`crate::compare`], for a whole curve at once: the histograms without each block are merged
//! once and not again for every percentile.

use crate::compare::{jackknife_se, t_critical};
use crate::counts::Counts;

/// An arm's blocks, all together and without each.
pub struct LeftOut {
    all: Counts,
    without: Vec<Counts>,
}

/// A value with the ends of its 95 % interval, where it has one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// From all blocks pooled.
    pub value: f64,
    /// The interval.
    pub ends: Option<(f64, f64)>,
}

impl LeftOut {
    /// Merges the blocks.
    pub fn of(blocks: &[Counts]) -> Self {
        let without = |left_out: usize| {
            Counts::merged(blocks.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, counts)| counts))
        };
        LeftOut { all: Counts::merged(blocks), without: (0..blocks.len()).map(without).collect() }
    }

    /// Samples of all blocks.
    pub fn total(&self) -> u64 {
        self.all.total()
    }

    /// A percentile, ns. `None` without samples.
    pub fn quantile(&self, ppm: u64) -> Option<Point> {
        let of = |counts: &Counts| counts.quantile(ppm).filter(|&ns| ns > 0).map(|ns| (ns as f64).ln());
        Some(point(of(&self.all)?, self.without.iter().map(of).collect()))
    }

    /// The ratio of a percentile to that of `base`, whose blocks are the same in the same order.
    pub fn ratio(&self, base: &LeftOut, ppm: u64) -> Option<Point> {
        let of = |arm: &Counts, base: &Counts| {
            let (arm, base) = (arm.quantile(ppm)?, base.quantile(ppm)?);
            (arm > 0 && base > 0).then(|| (arm as f64).ln() - (base as f64).ln())
        };
        let without = self.without.iter().zip(&base.without).map(|(arm, base)| of(arm, base));
        Some(point(of(&self.all, &base.all)?, without.collect()))
    }
}

/// exp(θ ± t·se); no interval when a block cannot be left out.
fn point(theta: f64, without: Option<Vec<f64>>) -> Point {
    let half =
        without.and_then(|left_out| Some(jackknife_se(&left_out)? * t_critical(left_out.len().checked_sub(1)?)?));
    Point { value: theta.exp(), ends: half.map(|half| ((theta - half).exp(), (theta + half).exp())) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::compare::contrast;

    #[test]
    fn a_point_of_the_curve_is_the_tables_comparison() {
        let block = |scale: u64, b: u64| Counts::from_values((1..=1000).map(|i| i * scale + b * 37 % 11 * i).collect());
        let arm: Vec<Counts> = (0..5).map(|b| block(90, b)).collect();
        let base: Vec<Counts> = (0..5).map(|b| block(130, b + 3)).collect();
        let expected = contrast(&arm.iter().collect::<Vec<_>>(), &base.iter().collect::<Vec<_>>(), 990_000).unwrap();
        let found = LeftOut::of(&arm).ratio(&LeftOut::of(&base), 990_000).unwrap();
        let (low, high) = expected.ratio.ends.unwrap();
        let ends = found.ends.unwrap();
        assert!((found.value - expected.ratio.estimate).abs() < 1e-12, "{found:?}");
        assert!((ends.0 - low).abs() < 1e-12 && (ends.1 - high).abs() < 1e-12 && ends.0 < ends.1, "{found:?}");
    }

    #[test]
    fn one_block_has_no_interval() {
        let one = LeftOut::of(&[Counts::from_values(vec![1, 2, 3])]);
        assert_eq!(one.quantile(500_000), Some(Point { value: 2.0_f64.ln().exp(), ends: None }));
        assert!(LeftOut::of(&[]).quantile(500_000).is_none());
    }
}
