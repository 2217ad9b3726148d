//! Percentiles straight from raw samples, however many there are: what histograms.parquet says can be had again, and
//! exactly, without holding the samples.
//!
//! The first pass puts every measured time into the histogram that the replayer writes (three digits), per group and
//! step: percentiles within 0.05 %. The second knows from it in which bucket each wanted rank lies, keeps the values of
//! these buckets alone, and so has the sample of that rank: exact. Files are read column by column on all CPUs, and
//! memory holds one row group per thread and the histograms, not the samples. What a group is, arms say or blocks, is
//! the caller's.
//!
//! It leaves out everything that needs the order of requests (episodes, steady state): those read one run at a time.

mod scan;
mod select;

use crate::counts::Counts;
use crate::error::AnalysisError;
use crate::samples::Metric;
use hdrhistogram::{CreationError, Histogram};
use select::Wanted;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The largest time that a histogram tells apart, ns: an hour, as in the replayer's.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Significant digits, as in the replayer's.
const DIGITS: u8 = 3;

/// Which samples of a run count, and whether by step.
#[derive(Debug, Clone, Copy)]
pub struct Selection {
    /// Which clock.
    pub metric: Metric,
    /// Requests planned before this count as warm-up too, ns from the run's start; 0 where the driver's own mark stands.
    pub from_ns: u64,
    /// One row for each step, or a single one, [`crate::evidence::ALL`], of all of them pooled.
    pub by_step: bool,
}

impl Selection {
    /// All that the driver measured, by step.
    pub fn by_step(metric: Metric) -> Self {
        Selection { metric, from_ns: 0, by_step: true }
    }
}

/// Something for every step of every group.
type PerStep<T> = Vec<BTreeMap<String, T>>;

/// The measured times, in the buckets of histograms.parquet: per group of requests.parquet files, per step.
/// Warm-up and requests without a right reply are left out.
///
/// # Errors
/// Unreadable file, missing column or column of another type, each named.
pub fn bucketed(groups: &[Vec<PathBuf>], selection: &Selection) -> Result<PerStep<Counts>, AnalysisError> {
    let histograms = first_pass(groups, selection)?;
    let counts = |steps: BTreeMap<String, Histogram<u64>>| {
        steps.into_iter().map(|(step, histogram)| (step, Counts::from_histogram(&histogram))).collect()
    };
    Ok(histograms.into_iter().map(counts).collect())
}

/// The sample of integer rank ⌈N·ppm/10⁶⌉ for each of `ppms`, exact, ns: per group of requests.parquet files, per step
/// that has any measured time.
///
/// # Errors
/// As [`bucketed`].
pub fn exact(groups: &[Vec<PathBuf>], selection: &Selection, ppms: &[u64]) -> Result<PerStep<Vec<u64>>, AnalysisError> {
    let histograms = first_pass(groups, selection)?;
    let blank: PerStep<Vec<Wanted>> = histograms
        .iter()
        .map(|steps| {
            steps.iter().map(|(step, histogram)| (step.clone(), Wanted::in_histogram(histogram, ppms))).collect()
        })
        .collect();
    let wanted = |group: usize, step: &str| {
        blank.get(group).and_then(|steps: &BTreeMap<String, Vec<Wanted>>| steps.get(step)).cloned().unwrap_or_default()
    };
    let offer = |wanted: &mut Vec<Wanted>, value| wanted.iter_mut().for_each(|one| one.offer(value));
    let parts = scan::all(groups, selection, wanted, offer)?;
    let mut merged = blank;
    for (group, step, part) in parts {
        let whole = merged.get_mut(group).and_then(|steps| steps.get_mut(&step));
        for (whole, part) in whole.into_iter().flatten().zip(part) {
            whole.join(part);
        }
    }
    let answer = |steps: BTreeMap<String, Vec<Wanted>>| {
        let of_step = |(step, wanted): (String, Vec<Wanted>)| {
            Some((step, wanted.into_iter().map(Wanted::answer).collect::<Option<Vec<u64>>>()?))
        };
        steps.into_iter().filter_map(of_step).collect()
    };
    Ok(merged.into_iter().map(answer).collect())
}

fn new_histogram() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)
}

fn first_pass(groups: &[Vec<PathBuf>], selection: &Selection) -> Result<PerStep<Histogram<u64>>, AnalysisError> {
    let failed = |reason: String| AnalysisError::Output { what: "a histogram", reason };
    // The bounds are constants, so that creation fails on the first call or never.
    let blank = new_histogram().map_err(|error| failed(error.to_string()))?;
    let parts =
        scan::all(groups, selection, |_, _| blank.clone(), |histogram, value| histogram.saturating_record(value))?;
    let mut merged: PerStep<Histogram<u64>> = vec![BTreeMap::new(); groups.len()];
    for (group, step, part) in parts {
        let Some(steps) = merged.get_mut(group) else { continue };
        if part.is_empty() {
            continue;
        }
        match steps.get_mut(&step) {
            Some(whole) => whole.add(&part).map_err(|error| failed(error.to_string()))?,
            None => {
                steps.insert(step, part);
            }
        }
    }
    Ok(merged)
}
