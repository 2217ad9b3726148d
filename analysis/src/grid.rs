//! The latencies of one step, all arms and blocks over one common list of values: what every estimate is computed from.
//!
//! Each run is a column of cumulative counts, so that a sum of runs needs no merging: the number of samples up to a value
//! is a sum over runs, and a percentile of any choice of runs is a binary search. Leaving each block out in turn, and
//! swapping labels thousands of times, then costs next to nothing. Percentiles are those of [`Counts::quantile`], sample
//! for sample.

use crate::counts::{Counts, rank};

/// Cumulative counts of runs over a common rising list of values.
#[derive(Debug, Clone)]
pub struct Grid {
    values: Vec<u64>,
    /// Per arm and block, samples up to and including each value.
    arms: Vec<Vec<Vec<u64>>>,
}

/// A run in a [`Grid`]: its cumulative counts.
pub type Column<'a> = &'a [u64];

impl Grid {
    /// `arms[a][b]` are the samples of arm `a` in block `b`; arms may have different numbers of blocks.
    pub fn new(arms: &[Vec<&Counts>]) -> Self {
        let mut values: Vec<u64> =
            arms.iter().flatten().flat_map(|counts| counts.cumulative().map(|(value, _)| value)).collect();
        values.sort_unstable();
        values.dedup();
        let column = |counts: &&Counts| {
            let mut run = counts.cumulative().peekable();
            let mut seen = 0;
            let upto = |value: &u64| {
                while let Some((_, total)) = run.next_if(|(found, _)| found <= value) {
                    seen = total;
                }
                seen
            };
            values.iter().map(upto).collect()
        };
        let arms = arms.iter().map(|blocks| blocks.iter().map(column).collect()).collect();
        Grid { values, arms }
    }

    /// The blocks of an arm; none for an arm that is not there.
    pub fn blocks(&self, arm: usize) -> &[Vec<u64>] {
        self.arms.get(arm).map_or(&[], Vec::as_slice)
    }

    /// The columns of an arm, without one block where `without` names one.
    pub fn columns(&self, arm: usize, without: Option<usize>) -> Vec<Column<'_>> {
        let kept = self.blocks(arm).iter().enumerate().filter(|&(block, _)| Some(block) != without);
        kept.map(|(_, column)| column.as_slice()).collect()
    }

    /// The percentile of these runs pooled, as a sample of integer rank; `None` without samples.
    pub fn quantile(&self, runs: &[Column<'_>], ppm: u64) -> Option<u64> {
        let total = total(runs);
        if total == 0 {
            return None;
        }
        let wanted = rank(total, ppm);
        let upto = |at: usize| -> u64 { runs.iter().map(|run| run.get(at).copied().unwrap_or(0)).sum() };
        // The first value up to which there are enough samples. A rank beyond the total cannot be reached.
        let (mut low, mut high) = (0, self.values.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if upto(middle) >= wanted { high = middle } else { low = middle + 1 }
        }
        self.values.get(low).copied()
    }

    /// Samples of these runs greater than `value`.
    pub fn above(&self, runs: &[Column<'_>], value: u64) -> u64 {
        let upto = match self.values.partition_point(|&found| found <= value).checked_sub(1) {
            Some(at) => runs.iter().map(|run| run.get(at).copied().unwrap_or(0)).sum(),
            None => 0,
        };
        total(runs) - upto
    }
}

/// Samples of these runs.
pub fn total(runs: &[Column<'_>]) -> u64 {
    runs.iter().map(|run| run.last().copied().unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hand_counted_pool() {
        let (a, b) = (Counts::from_values(vec![10, 10, 30]), Counts::from_values(vec![20, 40]));
        let grid = Grid::new(&[vec![&a, &b], vec![]]);
        let both = grid.columns(0, None);
        assert_eq!(grid.quantile(&both, 500_000), Some(20));
        assert_eq!(grid.quantile(&grid.columns(0, Some(1)), 500_000), Some(10));
        assert_eq!(grid.quantile(&grid.columns(1, None), 500_000), None);
        assert_eq!([5, 10, 25, 40].map(|value| grid.above(&both, value)), [5, 3, 2, 0]);
    }

    proptest! {
        #[test]
        fn any_pool_is_that_of_merged_counts(runs in prop::collection::vec(prop::collection::vec(0_u64..300, 0..60), 1..6),
                                             without in 0_usize..6, ppm in 0_u64..=1_000_000, at in 0_u64..300) {
            let counts: Vec<Counts> = runs.iter().map(|run| Counts::from_values(run.clone())).collect();
            let grid = Grid::new(&[counts.iter().collect()]);
            let kept: Vec<&Counts> = counts.iter().enumerate().filter(|&(b, _)| b != without).map(|(_, c)| c).collect();
            let merged = Counts::merged(kept);
            let columns = grid.columns(0, Some(without));
            prop_assert_eq!(grid.quantile(&columns, ppm), merged.quantile(ppm));
            let above = runs.iter().enumerate().filter(|&(b, _)| b != without).flat_map(|(_, run)| run);
            prop_assert_eq!(grid.above(&columns, at), above.filter(|&&value| value > at).count() as u64);
        }
    }
}
