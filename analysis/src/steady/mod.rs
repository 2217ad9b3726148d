//! Whether and from when the runs of a study are in a steady state, judged over all arms and blocks together.
//!
//! The median latency of every half second, on the log scale, is a run's level over time. MSER ([`mser`]) says from where
//! the level is steady; the cut is the largest over all runs, the same for every arm, so that it cannot favour one. After
//! the cut each run is tested for a step ([`step`]).
//!
//! MSER always finds some minimum, and noise alone moves it: in 40 windows of pure noise it lies at the middle of the run
//! in 0.4 % of runs, so that among 60 runs one study in five would be refused for nothing, and the median study would lose
//! 45 % of its samples. So the cut is walked back from MSER's minimum, two seconds at a time, while these two seconds lie
//! within 5 % (or within three standard errors) of the level after the minimum. A run has no steady state when its minimum
//! lies at its middle and nothing of it can be walked back, or when the cut lies beyond its first quarter and the halves
//! of what follows differ: of a slow drift some is walked back, and its minimum lies near the middle more often than at it.

pub mod mser;
pub mod step;

use crate::counts::Counts;
use crate::decision::{SteadyState, Step};
use crate::error::AnalysisError;
use crate::evidence::ALL;
use crate::load::Study;
use crate::samples::RunSamples;
use crate::source::Source;

/// Length of a window, ns.
pub const WINDOW_NS: u64 = 500_000_000;
/// Fewer windows than this are too short a run for the test for a step.
const WINDOWS_MIN: usize = 20;
/// A level that holds from within the first quarter of a run on is one; from later on it has to be tested.
const SETTLED_BY: usize = 4;
/// Standard errors by which the halves of a settled run may differ.
const MOVING_ERRORS: f64 = 4.5;

/// A run's level over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// Its block.
    pub block: u32,
    /// Its arm.
    pub arm: String,
    /// (begin of the window, ns; ln of its median latency); windows without a reply are left out.
    pub windows: Vec<(u64, f64)>,
}

impl Level {
    /// The level of one run's replies to a step (or to all), warm-up included. A last window that the plan does not fill
    /// is left out.
    pub fn of(block: u32, arm: &str, samples: &RunSamples, step: &str, duration_ns: u64) -> Self {
        let number = usize::try_from(duration_ns / WINDOW_NS).unwrap_or(usize::MAX).min(1 << 20);
        let mut values: Vec<Vec<u64>> = vec![Vec::new(); number];
        let wanted = samples.steps.iter().position(|name| name == step);
        for sample in samples.rows.iter().filter(|sample| step == ALL || Some(sample.step) == wanted) {
            let at = usize::try_from(sample.planned_ns / WINDOW_NS).unwrap_or(usize::MAX);
            if let (Some(latency), Some(window)) = (sample.latency_ns, values.get_mut(at)) {
                window.push(latency);
            }
        }
        let median = |values| Counts::from_values(values).quantile(500_000).map(|ns| (ns.max(1) as f64).ln());
        let windows = (0_u64..).zip(values).filter_map(|(i, values)| Some((i * WINDOW_NS, median(values)?)));
        Level { block, arm: arm.to_owned(), windows: windows.collect() }
    }

    fn values(&self) -> Vec<f64> {
        self.windows.iter().map(|(_, z)| *z).collect()
    }

    fn name(&self) -> String {
        format!("block {} {}", self.block, self.arm)
    }

    /// Tests and seeds by the run's name, so that the p-value of a run does not depend on the others.
    fn seed(&self, seed: u64) -> u64 {
        self.arm
            .bytes()
            .fold(seed ^ u64::from(self.block), |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
    }
}

/// The levels of all valid runs.
///
/// # Errors
/// A run's samples cannot be read.
pub fn levels(study: &Study, source: &dyn Source, step: &str) -> Result<Vec<Level>, AnalysisError> {
    let valid = study.runs.iter().filter(|run| run.valid);
    valid
        .map(|run| {
            let samples = source.requests(run.block, &run.arm)?;
            Ok(Level::of(run.block, &run.arm, &samples, step, study.manifest.duration_ns))
        })
        .collect()
}

/// Judges the levels of all runs; `planned_ns` is the plan's own warm-up.
pub fn judge(levels: &[Level], planned_ns: u64, seed: u64) -> SteadyState {
    let mut steady = SteadyState { cut_ns: planned_ns, planned_ns, ..SteadyState::default() };
    let shortest = levels.iter().map(|level| level.windows.len()).min().unwrap_or(0);
    if shortest < WINDOWS_MIN {
        steady.untested = Some(format!(
            "Steady state was not tested: it takes replies in {WINDOWS_MIN} windows of half a second, and the shortest run \
             has them in {shortest}."
        ));
        return steady;
    }
    let mut largest = 0;
    for level in levels {
        let z = level.values();
        let (minimum, at_last) = mser::truncation(&z);
        let d = walk_back(&z, minimum);
        if !is_settled(&z, d, (minimum, at_last)) {
            steady.not_reached.push(level.name());
        } else {
            largest = largest.max(level.windows.get(d).map_or(0, |(start, _)| *start));
        }
    }
    steady.mser_ns = Some(largest);
    // A run that never settled has no cut: the planned one stands, and there will be no verdict.
    if steady.not_reached.is_empty() {
        steady.cut_ns = planned_ns.max(largest);
    }
    steady.moved = levels.iter().filter_map(|level| step_after(level, steady.cut_ns, seed)).collect();
    steady
}

/// The first value that is kept: `d`, or earlier by as many groups of windows as lie at the level after it.
fn walk_back(z: &[f64], mut d: usize) -> usize {
    let after = z.get(d..).unwrap_or(&[]);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let level = mean(after);
    let variance = after.iter().map(|x| (x - level).powi(2)).sum::<f64>() / after.len().saturating_sub(1) as f64;
    while d > 0 {
        let from = d.saturating_sub(step::TOGETHER);
        let group = z.get(from..d).unwrap_or(&[]);
        let noise = 3.0 * (variance / group.len() as f64).sqrt();
        let tolerance = (1.0 + step::CHANGE_LEAST).ln().max(noise);
        // False too when the level has no value, since nothing lies after the cut.
        let at_level = (mean(group) - level).abs() <= tolerance;
        if !at_level {
            break;
        }
        d = from;
    }
    d
}

/// Whether a run that is cut at `d` has a level from there on: surely when that is within its first quarter, later when
/// it is the same in both halves of what is left. A minimum at the middle of which nothing was walked back is none.
fn is_settled(z: &[f64], d: usize, (minimum, at_last): (usize, bool)) -> bool {
    let after = z.get(d..).unwrap_or(&[]);
    d <= z.len() / SETTLED_BY || !(at_last && d == minimum || is_moving(after))
}

/// Whether the means of a series' two halves differ by more than half of what counts as a change, and beyond chance: a
/// study has many runs, and each of them may refuse it.
fn is_moving(z: &[f64]) -> bool {
    let (first, second) = z.split_at(z.len() / 2);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let squares = |values: &[f64]| {
        let mean = mean(values);
        values.iter().map(|x| (x - mean).powi(2)).sum::<f64>()
    };
    let variance = (squares(first) + squares(second)) / z.len().saturating_sub(2) as f64;
    let error = (variance * (1.0 / first.len() as f64 + 1.0 / second.len() as f64)).sqrt();
    let least = (1.0 + step::CHANGE_LEAST).ln() / 2.0;
    (mean(first) - mean(second)).abs() > least.max(MOVING_ERRORS * error)
}

/// A step of a run's level after the cut, if it is flagged.
fn step_after(level: &Level, cut_ns: u64, seed: u64) -> Option<Step> {
    let after: Vec<(u64, f64)> = level.windows.iter().filter(|(start, _)| *start >= cut_ns).copied().collect();
    let z: Vec<f64> = after.iter().map(|(_, z)| *z).collect();
    let shift = step::largest(&z, level.seed(seed)).filter(step::Shift::is_flagged)?;
    Some(Step {
        block: level.block,
        arm: level.arm.clone(),
        at_ns: after.get(shift.at)?.0,
        change: shift.by.exp() - 1.0,
        p: shift.p,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Random;
    use crate::samples::Sample;

    fn level(block: u32, random: &mut Random, of: impl Fn(f64) -> f64) -> Level {
        let window = |i: u64| {
            let noise = (random.below(1_000) as f64 / 1_000.0 - 0.5) * 0.05;
            (i * WINDOW_NS, of(i as f64) + noise)
        };
        Level { block, arm: "a".into(), windows: (0..60).map(window).collect() }
    }

    #[test]
    fn windows_hold_the_median_of_their_step() {
        let row = |step, planned_ns, latency_ns| Sample { step, flags: 0, planned_ns, latency_ns, service_ns: None };
        let rows = vec![
            row(0, 0, Some(10)),
            row(1, 1, Some(99)),
            row(0, 2, Some(30)),
            row(0, 3, Some(20)),
            row(0, WINDOW_NS * 2, Some(7)),
            row(0, WINDOW_NS * 3, Some(1)),
        ];
        let samples = RunSamples { steps: vec!["publish".into(), "connect".into()], rows };
        // The third window and a half: what lies in the half is left out, and the second has no reply.
        let level = Level::of(0, "a", &samples, "publish", WINDOW_NS * 7 / 2);
        assert_eq!(level.windows, [(0, 20.0_f64.ln()), (2 * WINDOW_NS, 7.0_f64.ln())]);
        assert_eq!(Level::of(0, "a", &samples, ALL, WINDOW_NS).windows, [(0, 20.0_f64.ln())]);
    }

    #[test]
    fn noise_is_not_cut() {
        let mut random = Random(5);
        let levels: Vec<Level> = (0..60).map(|block| level(block, &mut random, |_| 12.0)).collect();
        let steady = judge(&levels, 1_000_000_000, 1);
        assert_eq!((steady.mser_ns, steady.cut_ns), (Some(0), 1_000_000_000));
        assert!(steady.not_reached.is_empty() && steady.moved.is_empty() && steady.untested.is_none(), "{steady:?}");
    }

    #[test]
    fn a_decaying_start_of_one_run_moves_the_cut_of_all() {
        let mut random = Random(6);
        let mut levels: Vec<Level> = (0..9).map(|block| level(block, &mut random, |_| 12.0)).collect();
        // τ = 3 s, from three times the level.
        levels.push(level(9, &mut random, |i| 12.0 + 1.1 * (-i / 6.0).exp()));
        let steady = judge(&levels, 1_000_000_000, 1);
        assert!((5_000_000_000..=14_000_000_000).contains(&steady.cut_ns), "{steady:?}");
        assert!(steady.not_reached.is_empty() && steady.moved.is_empty(), "{steady:?}");
    }

    #[test]
    fn a_run_that_never_settles_is_named() {
        let mut random = Random(7);
        let levels = [level(3, &mut random, |i| 12.0 + 0.02 * i), level(4, &mut random, |_| 12.0)];
        let steady = judge(&levels, 0, 1);
        assert_eq!(steady.not_reached, ["block 3 a"]);
        assert_eq!(steady.cut_ns, 0);
    }

    #[test]
    fn a_slow_drift_is_no_steady_state() {
        // 15 % over 60 windows: no two neighbouring groups differ by 5 %, and the runs never settle.
        let mut random = Random(9);
        let runs: Vec<Level> =
            (0..20).map(|block| level(block, &mut random, |i| 12.0 + 1.15_f64.ln() * i / 60.0)).collect();
        let steady = judge(&runs, 0, 1);
        assert!(steady.not_reached.len() >= 15, "{:?}", steady.not_reached);
    }

    #[test]
    fn a_step_after_the_cut_is_a_moved_run() {
        let mut random = Random(8);
        let run =
            level(1, &mut random, |i| 12.0 + if i < 12.0 { 0.5 } else { 0.0 } + if i < 45.0 { 0.0 } else { 0.12 });
        let steady = judge(&[run], 0, 1);
        assert_eq!(steady.moved.len(), 1, "{steady:?}");
        assert!((steady.moved[0].change - 0.127).abs() < 0.03 && steady.moved[0].at_ns == 45 * WINDOW_NS, "{steady:?}");
    }

    #[test]
    fn short_runs_say_so() {
        let short = Level { block: 0, arm: "a".into(), windows: vec![(0, 1.0); 6] };
        let steady = judge(&[short], 5, 1);
        assert!(steady.untested.unwrap().contains("the shortest run has them in 6"));
        assert_eq!((steady.mser_ns, steady.cut_ns), (None, 5));
    }

    #[test]
    fn a_cut_is_walked_back_to_where_the_level_begins() {
        // Four windows at 1, then the level 0; a minimum that noise put at 20 is given back to 4.
        let z: Vec<f64> = (0..40).map(|i| if i < 4 { 1.0 } else { f64::from(i % 2) * 0.01 }).collect();
        assert_eq!([20, 6, 4].map(|d| walk_back(&z, d)), [4, 6, 4]);
        assert_eq!(walk_back(&[0.0; 40], 20), 0);
        assert_eq!(walk_back(&[], 0), 0);
    }
}
