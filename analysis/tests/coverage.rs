//! The interval covers the truth about as often as it says. A small simulation with a seed: the bounds are generous, the
//! point is that a gross fault (single samples as the unit of inference, a missing factor of R) falls far outside them.
//! The formulas themselves are checked against examples by hand, beside their code.

#![allow(clippy::unwrap_used)]

mod common;

use common::Random;
use regauge_analysis::compare::contrast;
use regauge_analysis::counts::Counts;

const BLOCKS: usize = 10;
const REPETITIONS: u64 = 150;

/// Blocks of log-normal samples with stalls of twelve requests; run effects of 12 %, `scale` on everything.
fn blocks(random: &mut Random, scale: f64, samples: usize) -> Vec<Counts> {
    (0..BLOCKS)
        .map(|_| {
            let run = random.log_normal(scale, 0.12);
            let mut left = 0;
            let values = (0..samples).map(|_| {
                if left == 0 && random.uniform() < 2e-3 {
                    left = 12;
                }
                let stall = if left > 0 { 20.0 } else { 1.0 };
                left -= i32::from(left > 0);
                random.log_normal(100_000.0 * run * stall, 0.3) as u64
            });
            Counts::from_values(values.collect())
        })
        .collect()
}

/// The share of intervals that cover the true ratio.
fn coverage(ppm: u64, truth: f64) -> f64 {
    let mut random = Random(2026);
    let covered = (0..REPETITIONS).filter(|_| {
        let (arm, base) = (blocks(&mut random, truth, 1_000), blocks(&mut random, 1.0, 1_000));
        let (arm, base): (Vec<&Counts>, Vec<&Counts>) = (arm.iter().collect(), base.iter().collect());
        let (low, high) = contrast(&arm, &base, ppm).unwrap().ratio.ends.unwrap();
        low <= truth && truth <= high
    });
    covered.count() as f64 / REPETITIONS as f64
}

#[test]
fn intervals_cover_at_the_median_and_in_the_tail() {
    for (ppm, truth) in [(500_000, 1.0), (500_000, 0.43), (990_000, 1.0), (990_000, 0.43)] {
        let share = coverage(ppm, truth);
        assert!((0.88..=0.995).contains(&share), "{share} at {ppm} ppm, truth {truth}");
    }
}
