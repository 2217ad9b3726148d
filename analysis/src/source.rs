//! Where the samples of runs come from: the study's files, the same with a later warm-up cut, or memory.
//!
//! Whatever is concluded passes through one code, so that a simulation with known truth ([`crate::simulate`]) tests the
//! procedure that judges a real study, and not a copy of it.

use crate::counts::Counts;
use crate::error::AnalysisError;
use crate::load::Study;
use crate::samples::{Metric, RunSamples, StepHistogram, read_histograms, read_requests};
use hdrhistogram::Histogram;
use regauge_traces::study::sample_flags::WARMUP;
use std::collections::BTreeMap;

/// Significant digits of rebuilt histograms: those that the driver records with.
const DIGITS: u8 = 3;

/// Reads the samples of one run at a time.
pub trait Source {
    /// The run's samples in order of planned time, ties by operation id.
    ///
    /// # Errors
    /// They cannot be read.
    fn requests(&self, block: u32, arm: &str) -> Result<RunSamples, AnalysisError>;

    /// The run's histograms: one row per step and metric.
    ///
    /// # Errors
    /// They cannot be read.
    fn histograms(&self, block: u32, arm: &str) -> Result<Vec<StepHistogram>, AnalysisError>;
}

impl Source for Study {
    fn requests(&self, block: u32, arm: &str) -> Result<RunSamples, AnalysisError> {
        read_requests(&self.run_file(block, arm, "requests.parquet"))
    }

    fn histograms(&self, block: u32, arm: &str) -> Result<Vec<StepHistogram>, AnalysisError> {
        read_histograms(&self.run_file(block, arm, "histograms.parquet"))
    }
}

/// A source of which requests planned before a cut count as warm-up. Its histograms are built again from the samples, as
/// the driver's were, so that both agree.
pub struct Recut<'a> {
    /// Where the samples come from.
    pub source: &'a dyn Source,
    /// Requests planned before this are warm-up, ns from the run's start.
    pub cut_ns: u64,
}

impl Source for Recut<'_> {
    fn requests(&self, block: u32, arm: &str) -> Result<RunSamples, AnalysisError> {
        let mut samples = self.source.requests(block, arm)?;
        for sample in samples.rows.iter_mut().take_while(|sample| sample.planned_ns < self.cut_ns) {
            sample.flags |= WARMUP;
        }
        Ok(samples)
    }

    fn histograms(&self, block: u32, arm: &str) -> Result<Vec<StepHistogram>, AnalysisError> {
        histograms_of(&self.requests(block, arm)?)
    }
}

/// Histograms of a run's measured samples, in the buckets that the driver uses.
///
/// # Errors
/// The histogram refused its bounds or a value, which its own library rules out.
pub fn histograms_of(samples: &RunSamples) -> Result<Vec<StepHistogram>, AnalysisError> {
    let failed = |reason: String| AnalysisError::Output { what: "a histogram in memory", reason };
    let mut found: BTreeMap<(usize, Metric), Histogram<u64>> = BTreeMap::new();
    for sample in samples.rows.iter().filter(|sample| sample.is_measured()) {
        for metric in Metric::BOTH {
            let Some(value) = sample.time(metric) else { continue };
            let histogram = match found.entry((sample.step, metric)) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(Histogram::new(DIGITS).map_err(|error| failed(error.to_string()))?)
                }
            };
            histogram.record(value).map_err(|error| failed(error.to_string()))?;
        }
    }
    let row = |((step, metric), histogram): ((usize, Metric), Histogram<u64>)| {
        let step = samples.steps.get(step)?.clone();
        Some(StepHistogram { step, metric, counts: Counts::from_histogram(&histogram), digits: DIGITS })
    };
    Ok(found.into_iter().filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::samples::Sample;

    struct Fixed(RunSamples);

    impl Source for Fixed {
        fn requests(&self, _: u32, _: &str) -> Result<RunSamples, AnalysisError> {
            Ok(self.0.clone())
        }

        fn histograms(&self, _: u32, _: &str) -> Result<Vec<StepHistogram>, AnalysisError> {
            histograms_of(&self.0)
        }
    }

    #[test]
    fn a_later_cut_takes_samples_and_histograms_alike() {
        let row = |planned_ns: u64| Sample {
            step: 0,
            flags: if planned_ns < 2 { WARMUP } else { 0 },
            planned_ns,
            latency_ns: Some(100 + planned_ns),
            service_ns: None,
        };
        let source = Fixed(RunSamples { steps: vec!["publish".into()], rows: (0..10).map(row).collect() });
        assert_eq!(source.histograms(0, "a").unwrap()[0].counts.total(), 8);
        let recut = Recut { source: &source, cut_ns: 7 };
        let histograms = recut.histograms(0, "a").unwrap();
        assert_eq!((histograms.len(), histograms[0].counts.min(), histograms[0].counts.total()), (1, Some(107), 3));
        assert_eq!(recut.requests(0, "a").unwrap().rows.iter().filter(|sample| sample.is_measured()).count(), 3);
        // An earlier cut than the plan's does not bring warm-up back.
        let earlier = Recut { source: &source, cut_ns: 1 };
        assert_eq!(earlier.histograms(0, "a").unwrap()[0].counts.total(), 8);
    }
}
