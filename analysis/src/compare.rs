//! One arm against the base: the ratio of a pooled percentile, with an interval over blocks.
//!
//! The unit of inference is the block. θ̂ = ln q_arm − ln q_base from all blocks pooled; θ₋b is the same without block b
//! in both arms; se² = (R−1)/R · Σ(θ₋b − θ̄₋)²; the interval is exp(θ̂ ± t(R−1, 0.975)·se). Whole blocks are left out
//! because the jackknife that leaves out single samples is inconsistent for quantiles (Shao and Wu 1989, "A general
//! theory for jackknife variance estimation", Ann. Statist. 17). Intervals of the difference in ms come from the same
//! jackknife. The paired t-test on per-block log-ratios stands beside it as a cross-check, never as the answer.
//!
//! What comes later: adjusted p-values over all cells, the A/A gate, and the rule on heterogeneous runs.

use crate::counts::Counts;
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
    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Interval { estimate: f(self.estimate), ends: self.ends.map(|(low, high)| (f(low), f(high))) }
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

/// estimate ± t·se over `blocks` blocks.
fn interval(estimate: f64, se: Option<f64>, blocks: usize) -> Interval {
    let half = se.and_then(|se| Some(t_critical(blocks.checked_sub(1)?)? * se));
    Interval { estimate, ends: half.map(|half| (estimate - half, estimate + half)) }
}

/// Compares one percentile over blocks that both arms have. `arm[i]` and `base[i]` are of the same block. `None` when
/// either arm has no sample, in all blocks together or once one is left out, or when a percentile is 0 ns.
pub fn contrast(arm: &[&Counts], base: &[&Counts], ppm: u64) -> Option<Contrast> {
    if arm.len() != base.len() {
        return None;
    }
    let blocks = arm.len();
    let pooled = pair(arm, base, None, ppm)?;
    let mut left_out = Vec::with_capacity(blocks);
    if blocks >= 2 {
        for b in 0..blocks {
            left_out.push(pair(arm, base, Some(b), ppm)?);
        }
    }
    let log_ratios: Vec<f64> = left_out.iter().map(|&(a, b)| a.ln() - b.ln()).collect();
    let deltas: Vec<f64> = left_out.iter().map(|&(a, b)| a - b).collect();
    Some(Contrast {
        ratio: interval(pooled.0.ln() - pooled.1.ln(), jackknife_se(&log_ratios), blocks).map(f64::exp),
        delta_ns: interval(pooled.0 - pooled.1, jackknife_se(&deltas), blocks),
        paired: paired(arm, base, ppm),
    })
}

/// (q_arm, q_base) pooled over all blocks but `without`, both above zero.
fn pair(arm: &[&Counts], base: &[&Counts], without: Option<usize>, ppm: u64) -> Option<(f64, f64)> {
    let pooled = |blocks: &[&Counts]| {
        let kept = blocks.iter().enumerate().filter(|&(b, _)| Some(b) != without).map(|(_, &counts)| counts);
        Counts::merged(kept).quantile(ppm).filter(|&q| q > 0)
    };
    Some((pooled(arm)? as f64, pooled(base)? as f64))
}

/// exp of mean ± t·sd/√R of the per-block log-ratios; `None` with fewer than two blocks or a block without samples.
fn paired(arm: &[&Counts], base: &[&Counts], ppm: u64) -> Option<Interval> {
    let d: Vec<f64> = arm
        .iter()
        .zip(base)
        .map(|(a, b)| {
            let (a, b) = (a.quantile(ppm)?, b.quantile(ppm)?);
            (a > 0 && b > 0).then(|| (a as f64).ln() - (b as f64).ln())
        })
        .collect::<Option<_>>()?;
    let r = d.len() as f64;
    if d.len() < 2 {
        return None;
    }
    let mean = d.iter().sum::<f64>() / r;
    let variance = d.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (r - 1.0);
    Some(interval(mean, Some((variance / r).sqrt()), d.len()).map(f64::exp))
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
}
