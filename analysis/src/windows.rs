//! Latency over the run's time: P50 and P99 per window of planned time, all valid blocks of an arm pooled.
//!
//! A picture of drift, warm-up and stalls, not an estimate: windows carry no interval and enter no comparison. Warm-up
//! is included, since it is what the picture should show.

use crate::counts::Counts;
use crate::samples::RunSamples;

/// Samples that a window should hold on average, so that its P99 is more than its largest value.
const WANTED_SAMPLES: u64 = 500;
/// Below this a window's P99 is its maximum by another name, and is left out.
const P99_SAMPLES: u64 = 100;
const WINDOWS_MIN: u64 = 8;
const WINDOWS_MAX: u64 = 60;

/// One window of planned time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Where it begins, ns from the run's start.
    pub start_ns: u64,
    /// Replies to requests planned in it.
    pub samples: u64,
    /// Their median latency, ns.
    pub p50_ns: Option<u64>,
    /// Their P99, ns; `None` below 100 samples.
    pub p99_ns: Option<u64>,
}

/// The windows of one arm.
#[derive(Debug, Clone)]
pub struct Windows {
    /// Length of each, ns.
    pub width_ns: u64,
    /// Rising; complete after [`Windows::close`].
    pub windows: Vec<Window>,
    open: Vec<Vec<u64>>,
}

impl Windows {
    /// Windows for a plan of this length from which this many samples are expected.
    pub fn new(duration_ns: u64, samples: u64) -> Self {
        let number = (samples / WANTED_SAMPLES).clamp(WINDOWS_MIN, WINDOWS_MAX);
        let width_ns = (duration_ns / number + 1).max(1);
        Windows { width_ns, windows: Vec::new(), open: vec![Vec::new(); number as usize] }
    }

    /// Adds the latencies of one run. A request planned after the stated end counts into the last window.
    pub fn add(&mut self, samples: &RunSamples) {
        let Some(last) = self.open.len().checked_sub(1) else { return };
        for sample in &samples.rows {
            let at = usize::try_from(sample.planned_ns / self.width_ns).unwrap_or(usize::MAX).min(last);
            if let (Some(latency), Some(window)) = (sample.latency_ns, self.open.get_mut(at)) {
                window.push(latency);
            }
        }
    }

    /// Computes the percentiles and lets the samples go.
    pub fn close(&mut self) {
        for (i, values) in std::mem::take(&mut self.open).into_iter().enumerate() {
            let counts = Counts::from_values(values);
            self.windows.push(Window {
                start_ns: i as u64 * self.width_ns,
                samples: counts.total(),
                p50_ns: counts.quantile(500_000),
                p99_ns: counts.quantile(990_000).filter(|_| counts.total() >= P99_SAMPLES),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Sample;

    #[test]
    fn windows_hold_what_was_planned_in_them() {
        let mut windows = Windows::new(8_000, 0);
        assert_eq!(windows.width_ns, 1_001);
        let row = |planned_ns, latency_ns| Sample { step: 0, flags: 0, planned_ns, latency_ns, service_ns: None };
        let mut rows: Vec<Sample> = (0..100).map(|i| row(1_500, Some(i + 1))).collect();
        rows.extend([row(0, Some(7)), row(0, Some(9)), row(0, None), row(99_999, Some(5))]);
        windows.add(&RunSamples { steps: vec!["publish".into()], rows });
        windows.close();
        assert_eq!(windows.windows.len(), 8);
        let seen: Vec<_> = windows.windows.iter().map(|w| (w.samples, w.p50_ns, w.p99_ns)).collect();
        assert_eq!(seen[0], (2, Some(7), None));
        assert_eq!(seen[1], (100, Some(50), Some(99)));
        assert_eq!(seen[2], (0, None, None));
        assert_eq!(seen[7], (1, Some(5), None));
    }
}
