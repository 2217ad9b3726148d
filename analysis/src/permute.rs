//! Exact label-swap permutation of two arms within blocks, for all secondary cells of an arm together.
//!
//! If two arms are the same, swapping their labels within any block changes nothing but chance. All 2^(R−1) ways to swap
//! (the complement of one has the same |θ|) give the distribution of every cell's log-ratio of pooled percentiles.
//! T = |θ|/sd over the relabelings makes cells comparable, and a cell's adjusted p-value is the share of relabelings
//! whose largest T over all cells reaches it (maxT; Westfall and Young 1993), which holds the family-wise error whatever
//! the cells' correlation. Beyond twelve blocks a seeded sample of relabelings takes the place of all.

use crate::grid::{Column, Grid};
use crate::random::Random;

/// Up to this many blocks every relabeling is tried.
pub const BLOCKS_EXACT: usize = 12;
/// Relabelings drawn beyond that, besides the one seen.
pub const SAMPLED: usize = 4_096;

/// One cell: a percentile of one step.
#[derive(Debug, Clone, Copy)]
pub struct CellOf<'a> {
    /// The step's latencies; all cells have the same arms and blocks in theirs.
    pub grid: &'a Grid,
    /// Percentile, parts per million.
    pub ppm: u64,
}

/// maxT-adjusted p-values of `arm` against `base`, in the order of the cells; `None` for a cell without a ratio in some
/// relabeling. Needs at least two blocks.
pub fn max_t(cells: &[CellOf<'_>], arm: usize, base: usize, seed: u64) -> Vec<Option<f64>> {
    let blocks = cells.first().map_or(0, |cell| cell.grid.blocks(arm).len().min(cell.grid.blocks(base).len()));
    if blocks < 2 {
        return vec![None; cells.len()];
    }
    let swaps = relabelings(blocks, seed);
    // θ of every cell under every relabeling, the one seen first.
    let thetas: Vec<Option<Vec<f64>>> = cells.iter().map(|cell| under(cell, arm, base, &swaps)).collect();
    let scaled: Vec<Option<Vec<f64>>> = thetas
        .into_iter()
        .map(|theta| {
            let theta = theta?;
            // Swapping everything turns θ into −θ, so the distribution over all relabelings has mean zero.
            let sd = (theta.iter().map(|x| x * x).sum::<f64>() / theta.len() as f64).sqrt();
            Some(theta.iter().map(|x| if sd > 0.0 { x.abs() / sd } else { 0.0 }).collect())
        })
        .collect();
    let mut largest = vec![0.0_f64; swaps.len()];
    for t in scaled.iter().flatten() {
        largest.iter_mut().zip(t).for_each(|(most, t)| *most = most.max(*t));
    }
    let p = |t: &Vec<f64>| {
        // Equal statistics may differ in their last bits by the order of sums.
        let seen = t.first()? * (1.0 - 1e-9);
        Some(largest.iter().filter(|&&most| most >= seen).count() as f64 / largest.len() as f64)
    };
    scaled.iter().map(|t| p(t.as_ref()?)).collect()
}

/// Which blocks are swapped, one entry per relabeling, none swapped first. The first block is never swapped where all are
/// tried.
fn relabelings(blocks: usize, seed: u64) -> Vec<Vec<bool>> {
    if blocks <= BLOCKS_EXACT {
        return (0..1_u32 << (blocks - 1))
            .map(|bits| (0..blocks).map(|b| ((bits << 1) >> b) & 1 == 1).collect())
            .collect();
    }
    let mut random = Random(seed);
    let drawn = (0..SAMPLED).map(|_| (0..blocks).map(|_| random.next() >> 63 == 1).collect());
    std::iter::once(vec![false; blocks]).chain(drawn).collect()
}

/// θ = ln q_arm − ln q_base under each relabeling.
fn under(cell: &CellOf<'_>, arm: usize, base: usize, swaps: &[Vec<bool>]) -> Option<Vec<f64>> {
    let (a, b) = (cell.grid.columns(arm, None), cell.grid.columns(base, None));
    let quantile = |runs: &[Column<'_>]| cell.grid.quantile(runs, cell.ppm).filter(|&q| q > 0).map(|q| (q as f64).ln());
    let (mut first, mut second) = (a.clone(), b.clone());
    let theta = |swapped: &Vec<bool>| {
        for (at, swap) in swapped.iter().enumerate() {
            let (x, y) = if *swap { (b.get(at)?, a.get(at)?) } else { (a.get(at)?, b.get(at)?) };
            *first.get_mut(at)? = x;
            *second.get_mut(at)? = y;
        }
        Some(quantile(&first)? - quantile(&second)?)
    };
    swaps.iter().map(theta).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::counts::Counts;

    fn grid(arm: &[Vec<u64>], base: &[Vec<u64>]) -> Grid {
        let counts = |runs: &[Vec<u64>]| runs.iter().map(|run| Counts::from_values(run.clone())).collect::<Vec<_>>();
        let (arm, base) = (counts(arm), counts(base));
        Grid::new(&[arm.iter().collect(), base.iter().collect()])
    }

    #[test]
    fn by_hand() {
        // One sample per run, maximum of both blocks (P100). Arm 8, 4; base 1, 2.
        let grid = grid(&[vec![8], vec![4]], &[vec![1], vec![2]]);
        // Seen: ln 8/2; second block swapped: arm {8, 2}, base {1, 4}: ln 8/4. T is proportional to θ, so p = 1/2.
        let cell = CellOf { grid: &grid, ppm: 1_000_000 };
        assert_eq!(max_t(&[cell], 0, 1, 0), [Some(0.5)]);
        // Minimum: 4/1 seen, 2/1 swapped: the same order, so two cells together have 1/2 too.
        let lowest = CellOf { grid: &grid, ppm: 0 };
        assert_eq!(max_t(&[cell, lowest], 0, 1, 0), [Some(0.5), Some(0.5)]);
    }

    #[test]
    fn relabelings_are_all_of_them() {
        let all = relabelings(4, 0);
        assert_eq!((all.len(), all[0].clone()), (8, vec![false; 4]));
        assert!(all.iter().all(|swap| !swap[0]));
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), 8);
        let sampled = relabelings(13, 9);
        assert_eq!((sampled.len(), sampled[0].clone()), (SAMPLED + 1, vec![false; 13]));
        assert_eq!(sampled, relabelings(13, 9));
    }

    #[test]
    fn a_clear_difference_has_the_smallest_p_and_none_has_a_large_one() {
        let run = |from: u64| (0..50).map(|i| from + i).collect::<Vec<u64>>();
        let half: Vec<Vec<u64>> = (0..10).map(|b| run(1_000 + b)).collect();
        let base: Vec<Vec<u64>> = (0..10).map(|b| run(2_000 + b)).collect();
        let clear = grid(&half, &base);
        let cells = [500_000, 990_000].map(|ppm| CellOf { grid: &clear, ppm });
        assert_eq!(max_t(&cells, 0, 1, 0), [Some(1.0 / 512.0); 2]);
        let same = grid(&base, &base);
        assert_eq!(max_t(&[CellOf { grid: &same, ppm: 500_000 }], 0, 1, 0), [Some(1.0)]);
    }

    #[test]
    fn the_family_wise_error_is_held() {
        // Two equal arms, five correlated cells, eight blocks: at 5 % about one experiment in twenty has a finding.
        let mut random = Random(17);
        let mut found = 0;
        for _ in 0..300 {
            let mut runs = || -> Vec<Vec<u64>> {
                (0..8)
                    .map(|_| {
                        let scale = 1_000 + random.below(400) as u64;
                        (0..40).map(|_| scale + random.below(800) as u64).collect()
                    })
                    .collect()
            };
            let grid = grid(&runs(), &runs());
            let cells = [250_000, 500_000, 750_000, 900_000, 970_000].map(|ppm| CellOf { grid: &grid, ppm });
            found += u32::from(max_t(&cells, 0, 1, 0).into_iter().flatten().any(|p| p <= 0.05));
        }
        assert!((3..=27).contains(&found), "{found} of 300");
    }

    #[test]
    fn nothing_to_permute() {
        let empty = grid(&[vec![]], &[vec![]]);
        assert_eq!(max_t(&[CellOf { grid: &empty, ppm: 500_000 }], 0, 1, 0), [None]);
        assert!(max_t(&[], 0, 1, 0).is_empty());
        let hole = grid(&[vec![1], vec![]], &[vec![1], vec![]]);
        let cell = CellOf { grid: &hole, ppm: 500_000 };
        assert_eq!(max_t(&[cell], 0, 1, 0), [Some(1.0)]);
    }
}
