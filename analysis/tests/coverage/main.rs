//! Intervals cover the truth as often as they say, and verdicts are as rarely wrong: simulations with known truth.
//!
//! The short versions run with all other tests; their bounds are those of a few dozen experiments, and a gross fault (the
//! request as the unit of inference, a missing factor of R) falls far outside them, which is itself tested. The full
//! tables of METHODOLOGY.md come from `just coverage`, which runs what is ignored here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod generator;
mod scenario;
mod tally;
mod truth;

use generator::{Random, Source, block_effect};
use scenario::{Outcome, PPM, SAMPLES, SEED, Scenario, experiment, histogram, support};
use tally::{Share, median, repeat};

/// Experiments per scenario in the short version.
const SHORT: u64 = 60;

/// Experiments per scenario in the full one.
fn repetitions() -> u64 {
    std::env::var("COVERAGE_REPETITIONS").map_or(500, |text| text.parse().expect("COVERAGE_REPETITIONS is a number"))
}

fn covers(interval: &regauge_analysis::compare::Interval, truth: f64) -> bool {
    interval.ends.is_some_and(|(low, high)| low <= truth && truth <= high)
}

#[test]
fn the_truth_by_integration_is_that_of_many_runs() {
    // 400 runs of 60,000: the percentile's own error is about 1 % from the runs' effects, 3 % is three of them.
    for source in [Source::pareto(), Source::stalls()] {
        let counts = repeat(400, |run| {
            let mut random = Random::of(&[SEED, run]);
            let effect = block_effect(&mut random);
            histogram(&source.run(effect, SAMPLES, &mut random))
        });
        let pooled = regauge_analysis::counts::Counts::merged(&counts);
        for ppm in [500_000, 990_000, PPM] {
            let (seen, truth) = (pooled.quantile(ppm).unwrap() as f64, truth::percentile_ns(&source, ppm));
            assert!((seen / truth).ln().abs() < 0.03, "{ppm} ppm of {source:?}: {seen} ns seen, {truth} ns by integral");
        }
    }
}

#[test]
fn intervals_cover_the_truth() {
    for scenario in Scenario::coverage() {
        let truth = scenario.truth(PPM);
        let outcomes = repeat(SHORT, |repetition| experiment(&scenario, repetition));
        let pooled = Share::of(&outcomes, |outcome| covers(&outcome.pooled, truth));
        // Of 60 experiments at 95 %, fewer than 51 cover in one of 1,500 series.
        assert!(pooled.hits >= 51, "{}: {pooled} of intervals cover {truth:.3}", scenario.name);
        let naive = Share::of(&outcomes, |outcome| covers(&outcome.naive, truth));
        assert!(naive.hits < 51, "{}: {naive} with the request as unit, so this test cannot fail", scenario.name);
    }
}

#[test]
#[ignore = "the full simulation takes a quarter of an hour: `just coverage`"]
fn full_coverage_of_the_interval() {
    let repetitions = repetitions();
    println!("P99.9 ratio B/A, {repetitions} experiments each of 10 blocks × {SAMPLES} requests, seed {SEED}.\n");
    println!("| scenario | truth | 95 % interval covers | hi/lo | bias | paired t covers | requests as unit cover |");
    println!("|---|---|---|---|---|---|---|");
    for scenario in Scenario::coverage() {
        let truth = scenario.truth(PPM);
        let outcomes = repeat(repetitions, |repetition| experiment(&scenario, repetition));
        println!("{}", row(&scenario, truth, &outcomes));
    }
}

fn row(scenario: &Scenario, truth: f64, outcomes: &[Outcome]) -> String {
    let width = median(outcomes.iter().filter_map(|outcome| outcome.pooled.ends).map(|(low, high)| high / low));
    let bias = outcomes.iter().map(|outcome| (outcome.pooled.estimate / truth).ln()).sum::<f64>() / outcomes.len() as f64;
    let share = |of: fn(&Outcome) -> &regauge_analysis::compare::Interval| Share::of(outcomes, |o| covers(of(o), truth));
    format!(
        "| {}: {} | {truth:.3} | {} | {width:.2} | {:+.1} % | {} | {} |  {:.0}",
        scenario.name,
        scenario.what,
        share(|outcome| &outcome.pooled),
        100.0 * bias.exp_m1(),
        share(|outcome| &outcome.paired),
        share(|outcome| &outcome.naive),
        median(outcomes.iter().map(|outcome| outcome.episodes)),
    )
}
