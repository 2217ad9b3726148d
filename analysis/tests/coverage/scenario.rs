//! The scenarios, and one experiment of each: both arms over ten blocks, through the library's own histograms, interval
//! and episodes.

use super::generator::{Random, Source, block_effect};
use super::truth;
use hdrhistogram::Histogram;
use regauge_analysis::compare::{Interval, contrast};
use regauge_analysis::counts::{Counts, rank};
use regauge_analysis::episodes::{BlockTail, Support};

/// P99.9, the percentile of every claim here.
pub const PPM: u64 = 999_000;
/// Blocks of an experiment.
pub const BLOCKS: u64 = 10;
/// Requests of a run.
pub const SAMPLES: u64 = 60_000;
/// What every simulation starts from.
pub const SEED: u64 = 2026;

/// Two sources and what is asked of them.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Short name.
    pub name: &'static str,
    /// In words.
    pub what: &'static str,
    /// Arm A, and A′ where there is one.
    pub base: Source,
    /// Arm B.
    pub arm: Source,
}

impl Scenario {
    /// S1 to S4 of the published coverage table: two kinds of tail, without a difference and with one.
    pub fn coverage() -> [Scenario; 4] {
        let (pareto, stalls) = (Source::pareto(), Source::stalls());
        let of = |name, what, base, arm| Scenario { name, what, base, arm };
        [
            of("S1", "Pareto tail, no difference", pareto, pareto),
            of("S2", "Pareto tail, B faster", pareto, pareto.scaled(0.43)),
            of("S3", "stalls, B has a third of them", stalls, stalls.stalling(1.0 / 3.0)),
            of("S4", "stalls, no difference", stalls, stalls),
        ]
    }

    /// S1's tail with B faster by a known factor.
    pub fn planted(name: &'static str, factor: f64) -> Scenario {
        Scenario {
            name,
            what: "Pareto tail, B faster",
            arm: Source::pareto().scaled(factor),
            ..Scenario::coverage()[0]
        }
    }

    /// No difference, and stalls of twelve requests so rare that P99.99 stands on a handful of them.
    pub fn rare_stalls() -> Scenario {
        let rare = Source { stall_rate: 1.5e-5, stall_ms: 12.0, stall_sigma: 0.03, ..Source::stalls() };
        Scenario { name: "S0", what: "rare stalls of twelve requests, no difference", base: rare, arm: rare }
    }

    /// The true ratio of the percentile, B over A.
    pub fn truth(&self, ppm: u64) -> f64 {
        truth::ratio(&self.arm, &self.base, ppm)
    }

    /// The runs of one experiment: per source given, `blocks` runs of (planned, latency).
    pub fn runs(&self, sources: &[Source], blocks: u64, repetition: u64) -> Vec<Vec<Vec<(u64, u64)>>> {
        let name = self.name.bytes().fold(0, |sum, byte| sum * 256 + u64::from(byte));
        let mut arms = vec![Vec::new(); sources.len()];
        for block in 0..blocks {
            let effect = block_effect(&mut Random::of(&[SEED, name, repetition, block]));
            for (at, (source, runs)) in sources.iter().zip(&mut arms).enumerate() {
                let mut random = Random::of(&[SEED, name, repetition, block, at as u64 + 1]);
                runs.push(source.run(effect, SAMPLES, &mut random));
            }
        }
        arms
    }
}

/// What one experiment said of B against A.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The library's answer: pooled, jackknife by block.
    pub pooled: Interval,
    /// Its cross-check: paired t-test on per-block percentiles.
    pub paired: Interval,
    /// What a binomial interval on all requests, taken as independent, would say: the fault that the others avoid.
    pub naive: Interval,
    /// The smaller of both arms' episodes.
    pub episodes: f64,
}

/// One experiment.
pub fn experiment(scenario: &Scenario, repetition: u64) -> Outcome {
    let arms = scenario.runs(&[scenario.base, scenario.arm], BLOCKS, repetition);
    let counts: Vec<Vec<Counts>> = arms.iter().map(|runs| runs.iter().map(|run| histogram(run)).collect()).collect();
    let refer = |at: usize| counts[at].iter().collect::<Vec<&Counts>>();
    let (base, arm) = (refer(0), refer(1));
    let contrast = contrast(&arm, &base, PPM).unwrap();
    let merged = [Counts::merged(arm.iter().copied()), Counts::merged(base.iter().copied())];
    let episodes = arms.iter().zip([&merged[1], &merged[0]]).map(|(runs, counts)| support(runs, counts, PPM).episodes);
    Outcome {
        pooled: contrast.ratio,
        paired: contrast.paired.unwrap(),
        naive: naive(&merged[0], &merged[1]),
        episodes: episodes.fold(f64::INFINITY, f64::min),
    }
}

/// A run's latencies in the histogram that the replayer writes.
pub fn histogram(run: &[(u64, u64)]) -> Counts {
    let mut histogram = Histogram::<u64>::new_with_max(120_000_000_000, 3).unwrap();
    for (_, latency) in run {
        histogram.saturating_record(*latency);
    }
    Counts::from_histogram(&histogram)
}

/// The episodes behind a percentile of an arm.
pub fn support(runs: &[Vec<(u64, u64)>], counts: &Counts, ppm: u64) -> Support {
    let threshold = counts.quantile(ppm).unwrap();
    let tails: Vec<BlockTail> = runs
        .iter()
        .map(|run| {
            let mut tail = BlockTail::default();
            for (position, (_, latency)) in run.iter().enumerate() {
                if *latency > threshold {
                    tail.exceed(position as u64);
                }
            }
            tail.finish(run.len() as u64);
            tail
        })
        .collect();
    Support::of(&tails)
}

/// The ratio with an interval from ranks ± 1.96·√(N·p·(1−p)) of each arm, as if all requests were independent.
fn naive(arm: &Counts, base: &Counts) -> Interval {
    let ends = |counts: &Counts| {
        let (n, p) = (counts.total() as f64, PPM as f64 / 1e6);
        let middle = rank(counts.total(), PPM);
        let reach = (1.96 * (n * p * (1.0 - p)).sqrt()) as u64;
        let at = |rank: u64| (counts.at_rank(rank.min(counts.total())).unwrap() as f64).ln();
        (at(middle - reach), at(middle), at(middle + reach))
    };
    let (a, b) = (ends(arm), ends(base));
    let theta = a.1 - b.1;
    let half = |a: f64, b: f64| a.hypot(b);
    let low = (theta - half(a.1 - a.0, b.2 - b.1)).exp();
    let high = (theta + half(a.2 - a.1, b.1 - b.0)).exp();
    Interval { estimate: theta.exp(), ends: Some((low, high)) }
}
