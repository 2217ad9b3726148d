//! Whether a run's level moved: the largest |t| of a step in the mean, judged by permuting blocks of windows.
//!
//! Neighbouring windows resemble each other, so four of them move together. A step counts when p ≤ 0.01 and the level
//! changed by more than 5 %: on a long run a test finds differences that nobody would mind.

use crate::random::Random;

/// Windows that are moved together.
pub const TOGETHER: usize = 4;
/// Permutations; with the order seen they make 200.
const PERMUTATIONS: u32 = 199;
/// A step is flagged at this p-value or below.
pub const P_MOST: f64 = 0.01;
/// And when the level changed by more than this, relative.
pub const CHANGE_LEAST: f64 = 0.05;
/// Values on either side of a step, at least.
const SIDE: usize = 2;

/// The largest step in a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// The first value after it.
    pub at: usize,
    /// Mean after it less mean before it.
    pub by: f64,
    /// p-value of "no step".
    pub p: f64,
}

impl Shift {
    /// Significant, and large enough to matter. `by` is on the log scale.
    pub fn is_flagged(&self) -> bool {
        self.p <= P_MOST && self.by.abs() > (1.0 + CHANGE_LEAST).ln()
    }
}

/// Tests a series; `None` when it is too short for a permutation to differ from it.
pub fn largest(z: &[f64], seed: u64) -> Option<Shift> {
    let groups = z.len() / TOGETHER;
    // Fewer than five groups have fewer than 100 orders that differ, so p ≤ 0.01 cannot be reached.
    if groups < 5 {
        return None;
    }
    let (at, by, t) = strongest(z)?;
    let mut random = Random(seed);
    let mut order: Vec<&[f64]> = z.chunks(TOGETHER).collect();
    let mut shuffled = Vec::with_capacity(z.len());
    let mut as_large = 1;
    for _ in 0..PERMUTATIONS {
        random.shuffle(&mut order);
        shuffled.clear();
        order.iter().for_each(|group| shuffled.extend_from_slice(group));
        as_large += u32::from(strongest(&shuffled).is_some_and(|(_, _, other)| other >= t));
    }
    Some(Shift { at, by, p: f64::from(as_large) / f64::from(PERMUTATIONS + 1) })
}

/// (first value after the step, its height, |t|) of the split with the largest |t| of two means with a common variance.
fn strongest(z: &[f64]) -> Option<(usize, f64, f64)> {
    let n = z.len() as f64;
    let (sum, squares) = z.iter().fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
    let mut before = 0.0;
    let mut best: Option<(usize, f64, f64)> = None;
    for (k, value) in z.iter().enumerate() {
        if k >= SIDE && z.len() - k >= SIDE {
            let (a, b) = (k as f64, n - k as f64);
            let by = (sum - before) / b - before / a;
            let within = squares - before * before / a - (sum - before).powi(2) / b;
            let error = (within.max(0.0) / (n - 2.0) * (1.0 / a + 1.0 / b)).sqrt();
            let t = match by == 0.0 {
                true => 0.0,
                false => by.abs() / error,
            };
            if best.is_none_or(|(_, _, other)| t > other) {
                best = Some((k, by, t));
            }
        }
        before += value;
    }
    best
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn noise(random: &mut Random) -> f64 {
        // Uniform sums are normal enough, and have a standard deviation of 1/√12 each.
        (0..3).map(|_| random.below(1_000) as f64 / 1_000.0 - 0.5).sum::<f64>() * 0.06
    }

    #[test]
    fn the_split_by_hand() {
        // [0, 0, 3, 5]: k = 2: means 0 and 4, within 2, error √(2/2·(1/2+1/2)) = 1, t = 4.
        assert_eq!(strongest(&[0.0, 0.0, 3.0, 5.0]), Some((2, 4.0, 4.0)));
    }

    #[test]
    fn a_step_of_ten_percent_is_found_and_noise_is_not() {
        let mut random = Random(3);
        let (mut found, mut false_alarms) = (0, 0);
        for seed in 0..60 {
            let mut z: Vec<f64> = (0..80).map(|_| noise(&mut random)).collect();
            false_alarms += u32::from(largest(&z, seed).unwrap().is_flagged());
            z[50..].iter_mut().for_each(|value| *value += 1.1_f64.ln());
            let shift = largest(&z, seed).unwrap();
            found += u32::from(shift.is_flagged() && shift.at.abs_diff(50) <= 2);
        }
        assert_eq!(false_alarms, 0);
        assert!(found >= 58, "{found} of 60");
    }

    #[test]
    fn a_step_that_nobody_would_mind_is_none() {
        let z: Vec<f64> = (0..80).map(|i| if i < 40 { 0.0 } else { 0.04 } + f64::from(i % 2) * 1e-3).collect();
        let shift = largest(&z, 1).unwrap();
        assert!(shift.p <= P_MOST && !shift.is_flagged(), "{shift:?}");
    }

    #[test]
    fn short_series_cannot_tell() {
        assert_eq!(largest(&[1.0; 19], 1), None);
        assert!(!largest(&[1.0; 20], 1).unwrap().is_flagged());
    }
}
