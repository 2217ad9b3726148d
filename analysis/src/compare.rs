//! One arm against the base: the ratio of a pooled percentile, with an interval over blocks.
//!
//! The unit of inference is the block. θ̂ = ln q_arm − ln q_base from all blocks pooled; θ₋b is the same without block b
//! in both arms; se² = (R−1)/R · Σ(θ₋b − θ̄₋)²; the interval is exp(θ̂ ± t(R−1, 0.975)·se). Whole blocks are left out
//! because the jackknife that leaves out single samples is inconsistent for quantiles (Shao and Wu 1989, "A general
//! theory for jackknife variance estimation", Ann. Statist. 17). Intervals of the difference in ms come from the same
//! jackknife, and so does the ratio of the shares of requests above a service level objective. The paired t-test on
//! per-block log-ratios stands beside it as a cross-check, never as the answer.
//!
//! In a study of two stages (Stein 1945, "A two-sample test for a linear hypothesis whose power is independent of the
//! variance", Ann. Math. Statist. 16) the spread is that of the first stage, since the second stage's length was chosen
//! by it: half-width t(R₀−1)·s/√R with s = se₀·√R₀.

use crate::counts::Counts;
use crate::grid::{Grid, total};
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// An estimate with its 95 % interval, where one exists.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The estimate from all blocks pooled.
    pub estimate: f64,
    /// Lower and upper end of the 95 % interval; `None` with fewer than two blocks.
    pub ends: Option<(f64, f64)>,
}

impl Interval {
    /// The same interval after a rising function.
    pub(crate) fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Interval { estimate: f(self.estimate), ends: self.ends.map(|(low, high)| (f(low), f(high))) }
    }
}

/// An estimate that is normal enough for t: on the log scale for ratios.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The estimate.
    pub estimate: f64,
    /// Its standard error; `None` with fewer than two blocks.
    pub se: Option<f64>,
    /// Degrees of freedom of t.
    pub df: usize,
}

impl Spread {
    /// From the estimates with each block left out.
    fn of(estimate: f64, left_out: &[f64]) -> Self {
        Spread { estimate, se: jackknife_se(left_out), df: left_out.len().saturating_sub(1) }
    }

    /// estimate ± t·se.
    pub fn interval(&self) -> Interval {
        let half = self.se.and_then(|se| Some(t_critical(self.df)? * se));
        Interval { estimate: self.estimate, ends: half.map(|half| (self.estimate - half, self.estimate + half)) }
    }

    /// Two-sided p-value of "it is `value`".
    pub fn p_two_sided(&self, value: f64) -> Option<f64> {
        let below = self.p_at_least(value)?;
        Some((2.0 * below.min(1.0 - below)).min(1.0))
    }

    /// One-sided p-value of "it is `value` or more": small when the estimate lies far below.
    pub fn p_at_least(&self, value: f64) -> Option<f64> {
        let se = self.se?;
        let distance = self.estimate - value;
        if se > 0.0 {
            return StudentsT::new(0.0, 1.0, self.df as f64).ok().map(|t| t.cdf(distance / se));
        }
        // All blocks agree to the histogram's resolution: the estimate is the value (½), or surely below (0)
        // or above it (1).
        Some(distance.total_cmp(&0.0) as i8 as f64 / 2.0 + 0.5)
    }

    /// The same estimate with the first stage's spread per block (Stein): se = s/√R with s = se₀·√R₀, and R₀−1 degrees
    /// of freedom.
    pub fn sized_by(self, first: &Spread, blocks: usize) -> Self {
        let s = first.se.map(|se| se * ((first.df + 1) as f64).sqrt());
        Spread { estimate: self.estimate, se: s.map(|s| s / (blocks as f64).sqrt()), df: first.df }
    }
}

/// One percentile of one arm against the base.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contrast {
    /// q_arm ÷ q_base.
    pub ratio: Interval,
    /// q_arm − q_base, ns.
    pub delta_ns: Interval,
    /// Cross-check: the ratio from a paired t-test on per-block log-ratios.
    pub paired: Option<Interval>,
    /// ln of the ratio, with its standard error.
    pub log_ratio: Spread,
    /// The difference, ns, with its standard error.
    pub delta: Spread,
}

impl Contrast {
    /// The contrast of a study's both stages, with the spread of the first (Stein).
    pub fn sized_by(self, first: &Contrast, blocks: usize) -> Self {
        Contrast::from(
            self.log_ratio.sized_by(&first.log_ratio, blocks),
            self.delta.sized_by(&first.delta, blocks),
            self.paired,
        )
    }

    fn from(log_ratio: Spread, delta: Spread, paired: Option<Interval>) -> Self {
        let ratio = log_ratio.interval().map(f64::exp);
        Contrast { ratio, delta_ns: delta.interval(), paired, log_ratio, delta }
    }
}

/// t(df, 0.975): half-width of a 95 % interval in standard errors. `None` for df = 0.
pub fn t_critical(df: usize) -> Option<f64> {
    StudentsT::new(0.0, 1.0, df as f64).ok().map(|t| t.inverse_cdf(0.975))
}

/// The delete-one jackknife's standard error from the estimates with each block left out; `None` with fewer than two.
pub fn jackknife_se(left_out: &[f64]) -> Option<f64> {
    let r = left_out.len() as f64;
    if left_out.len() < 2 {
        return None;
    }
    let mean = left_out.iter().sum::<f64>() / r;
    let squares: f64 = left_out.iter().map(|theta| (theta - mean).powi(2)).sum();
    Some(((r - 1.0) / r * squares).sqrt())
}

/// Compares one percentile over blocks that both arms have. `arm[i]` and `base[i]` are of the same block. `None` when
/// either arm has no sample, in all blocks together or once one is left out, or when a percentile is 0 ns.
pub fn contrast(arm: &[&Counts], base: &[&Counts], ppm: u64) -> Option<Contrast> {
    contrast_in(&Grid::new(&[arm.to_vec(), base.to_vec()]), 0, 1, ppm)
}

/// [`contrast`] of two arms of a grid that have the same blocks.
pub fn contrast_in(grid: &Grid, arm: usize, base: usize, ppm: u64) -> Option<Contrast> {
    let quantile = |arm, without| grid.quantile(&grid.columns(arm, without), ppm).filter(|&q| q > 0).map(|q| q as f64);
    let pair = |without| Some((quantile(arm, without)?, quantile(base, without)?));
    let (pooled, left_out) = jackknife(grid, arm, base, pair)?;
    let of = |f: fn(f64, f64) -> f64| {
        let left_out: Vec<f64> = left_out.iter().map(|&(a, b)| f(a, b)).collect();
        Spread::of(f(pooled.0, pooled.1), &left_out)
    };
    Some(Contrast::from(of(|a, b| a.ln() - b.ln()), of(|a, b| a - b), paired(grid, arm, base, ppm)))
}

/// A figure of all blocks, and with each one left out.
type LeftOut<T> = (T, Vec<T>);

/// Computes a pair of figures from all blocks and with each left out; none of the latter with a single block.
fn jackknife<T>(grid: &Grid, arm: usize, base: usize, of: impl Fn(Option<usize>) -> Option<T>) -> Option<LeftOut<T>> {
    let blocks = grid.blocks(arm).len();
    if blocks != grid.blocks(base).len() {
        return None;
    }
    let pooled = of(None)?;
    let each = if blocks >= 2 { 0..blocks } else { 0..0 };
    Some((pooled, each.map(|block| of(Some(block))).collect::<Option<_>>()?))
}

/// ln(x_arm ÷ x_base) of the shares of requests slower than `objective_ns`, with the same jackknife. `Err` is a sentence:
/// a share of zero has no logarithm.
///
/// # Errors
/// Why there is no ratio.
pub fn exceedance_ratio(grid: &Grid, arm: usize, base: usize, objective_ns: u64) -> Result<Spread, String> {
    let share = |arm, without| {
        let columns = grid.columns(arm, without);
        let all = total(&columns);
        (all > 0).then(|| grid.above(&columns, objective_ns) as f64 / all as f64)
    };
    let Some(pooled) = share(arm, None).zip(share(base, None)) else {
        return Err("one of the arms has no sample".to_owned());
    };
    match pooled {
        (0.0, 0.0) => return Err("no request of either arm is slower than the objective".to_owned()),
        (0.0, _) => {
            return Err("no request of the arm is slower than the objective; some of the other's are".to_owned());
        }
        (_, 0.0) => {
            return Err("no request of the other is slower than the objective; some of the arm's are".to_owned());
        }
        _ => {}
    }
    let log = |without| {
        let (a, b) = (share(arm, without)?, share(base, without)?);
        (a > 0.0 && b > 0.0).then(|| a.ln() - b.ln())
    };
    let Some((pooled, left_out)) = jackknife(grid, arm, base, log) else {
        // One block holds all that an arm has beyond the objective: an estimate, and no interval.
        return Ok(Spread { estimate: pooled.0.ln() - pooled.1.ln(), se: None, df: 0 });
    };
    Ok(Spread::of(pooled, &left_out))
}

/// exp of mean ± t·sd/√R of the per-block log-ratios; `None` with fewer than two blocks or a block without samples.
fn paired(grid: &Grid, arm: usize, base: usize, ppm: u64) -> Option<Interval> {
    let quantile = |column: &Vec<u64>| grid.quantile(&[column], ppm).filter(|&q| q > 0).map(|q| (q as f64).ln());
    let blocks = grid.blocks(arm).iter().zip(grid.blocks(base));
    let d: Vec<f64> = blocks.map(|(a, b)| Some(quantile(a)? - quantile(b)?)).collect::<Option<_>>()?;
    let r = d.len() as f64;
    if d.len() < 2 {
        return None;
    }
    let mean = d.iter().sum::<f64>() / r;
    let variance = d.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (r - 1.0);
    let spread = Spread { estimate: mean, se: Some((variance / r).sqrt()), df: d.len() - 1 };
    Some(spread.interval().map(f64::exp))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9 * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn t_is_that_of_the_tables() {
        for (df, t) in [(1, 12.706_204_736), (2, 4.302_652_730), (4, 2.776_445_105), (9, 2.262_157_163)] {
            let computed = t_critical(df).unwrap();
            assert!((computed - t).abs() < 1e-6, "t({df}) = {computed}");
        }
        assert_eq!(t_critical(0), None);
    }

    #[test]
    fn jackknife_by_hand() {
        // Of a mean, the jackknife's se is the textbook one: blocks 1, 2, 6 have mean 3, sd √7, se √(7/3).
        let left_out = [(2.0 + 6.0) / 2.0, (1.0 + 6.0) / 2.0, (1.0 + 2.0) / 2.0];
        close(jackknife_se(&left_out).unwrap(), (7.0_f64 / 3.0).sqrt());
        assert_eq!(jackknife_se(&[1.0]), None);
    }

    #[test]
    fn a_contrast_by_hand() {
        // One sample per block, median. Arm: 100, 200, 400; base: 100, 100, 100.
        let arm: Vec<Counts> = [100, 200, 400].into_iter().map(|v| Counts::from_values(vec![v])).collect();
        let base: Vec<Counts> = [100; 3].into_iter().map(|v| Counts::from_values(vec![v])).collect();
        let (arm, base): (Vec<&Counts>, Vec<&Counts>) = (arm.iter().collect(), base.iter().collect());
        let c = contrast(&arm, &base, 500_000).unwrap();
        close(c.ratio.estimate, 2.0);
        // Medians (rank 1 of 2) without each block: 200, 100, 100, so θ₋ = ln 2, 0, 0.
        let se = jackknife_se(&[2.0_f64.ln(), 0.0, 0.0]).unwrap();
        close(se, (2.0_f64 / 3.0 * 2.0_f64.ln().powi(2) * (4.0 / 9.0 + 1.0 / 9.0 + 1.0 / 9.0)).sqrt());
        let half = t_critical(2).unwrap() * se;
        let (low, high) = c.ratio.ends.unwrap();
        close(low, (2.0_f64.ln() - half).exp());
        close(high, (2.0_f64.ln() + half).exp());
        close(c.delta_ns.estimate, 100.0);
        close(c.delta_ns.ends.unwrap().1 - 100.0, t_critical(2).unwrap() * jackknife_se(&[100.0, 0.0, 0.0]).unwrap());
        // Paired: d = ln 1, ln 2, ln 4, with mean ln 2 and sd ln 2.
        let paired = c.paired.unwrap();
        close(paired.estimate, 2.0);
        close(paired.ends.unwrap().1, (2.0_f64.ln() * (1.0 + t_critical(2).unwrap() / 3.0_f64.sqrt())).exp());
    }

    #[test]
    fn one_block_has_no_interval() {
        let (a, b) = (Counts::from_values(vec![3]), Counts::from_values(vec![2]));
        let c = contrast(&[&a], &[&b], 500_000).unwrap();
        close(c.ratio.estimate, 1.5);
        assert_eq!((c.ratio.ends, c.delta_ns.ends, c.paired), (None, None, None));
    }

    #[test]
    fn nothing_to_compare() {
        let (a, none, zero) = (Counts::from_values(vec![3]), Counts::default(), Counts::from_values(vec![0]));
        assert_eq!(contrast(&[&a], &[&none], 500_000), None);
        assert_eq!(contrast(&[&a], &[&zero], 500_000), None);
        assert_eq!(contrast(&[], &[], 500_000), None);
    }

    #[test]
    fn exceedances_by_hand() {
        // Above 10: the arm 1 of 2 in both blocks, the base 1 of 2 and 2 of 2.
        let arm = [Counts::from_values(vec![5, 20]), Counts::from_values(vec![6, 30])];
        let base = [Counts::from_values(vec![5, 20]), Counts::from_values(vec![20, 30])];
        let grid = Grid::new(&[arm.iter().collect(), base.iter().collect()]);
        let spread = exceedance_ratio(&grid, 0, 1, 10).unwrap();
        close(spread.estimate, (0.5_f64 / 0.75).ln());
        close(spread.se.unwrap(), jackknife_se(&[(0.5_f64 / 1.0).ln(), 0.0]).unwrap());
        // All of the arm's are in block 1: without it there is no share, so an estimate and no interval.
        let spread = exceedance_ratio(&grid, 0, 1, 20).unwrap();
        close(spread.estimate, (0.25_f64 / 0.25).ln());
        assert_eq!(spread.se, None);
        assert!(exceedance_ratio(&grid, 0, 1, 99).unwrap_err().starts_with("no request of either"));
    }

    #[test]
    fn stein_keeps_the_first_stage_s_spread() {
        let first = Spread { estimate: 0.1, se: Some(0.2), df: 3 };
        let sized = Spread { estimate: -0.3, se: Some(0.01), df: 15 }.sized_by(&first, 16);
        // s = 0.2·√4 = 0.4, over √16.
        assert_eq!(sized, Spread { estimate: -0.3, se: Some(0.1), df: 3 });
        let (low, high) = sized.interval().ends.unwrap();
        close(high - low, 2.0 * 3.182_446_305 * 0.1);
    }

    #[test]
    fn p_values_belong_to_the_interval() {
        let spread = Spread { estimate: -0.5, se: Some(0.1), df: 9 };
        let (low, high) = spread.interval().ends.unwrap();
        close(spread.p_two_sided(high).unwrap(), 0.05);
        close(spread.p_two_sided(low).unwrap(), 0.05);
        close(spread.p_at_least(high).unwrap(), 0.025);
        close(spread.p_at_least(low).unwrap(), 0.975);
        let certain = Spread { se: Some(0.0), ..spread };
        assert_eq!((certain.p_at_least(0.0), certain.p_at_least(-0.5)), (Some(0.0), Some(0.5)));
        assert_eq!(certain.p_two_sided(-0.5), Some(1.0));
        assert_eq!(certain.p_two_sided(-0.7), Some(0.0));
    }
}
