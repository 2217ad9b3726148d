//! One percentile, looked for in the one bucket that must hold it.

use crate::counts::{Counts, rank};
use hdrhistogram::Histogram;

/// Values that are kept singly before they are counted: bounds memory when a bucket holds millions of equal values.
const LOOSE: usize = 1 << 16;

/// The sample of one rank, known to lie within a bucket.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    low: u64,
    high: u64,
    /// Rank (from 1) among the values of the bucket.
    rank: u64,
    loose: Vec<u64>,
    counted: Counts,
}

impl Wanted {
    /// One for each percentile of a histogram that is not empty.
    pub(super) fn in_histogram(histogram: &Histogram<u64>, ppms: &[u64]) -> Vec<Wanted> {
        ppms.iter().filter_map(|ppm| Wanted::of_rank(histogram, rank(histogram.len(), *ppm))).collect()
    }

    fn of_rank(histogram: &Histogram<u64>, rank: u64) -> Option<Wanted> {
        let mut before = 0;
        for bucket in histogram.iter_recorded() {
            let count = bucket.count_at_value();
            if before + count < rank {
                before += count;
                continue;
            }
            let value = bucket.value_iterated_to();
            let top = histogram.highest_equivalent(value);
            // The last bucket also holds what is longer than a histogram tells apart. Values above a bucket do not
            // change ranks within it, so an open end is right for any bucket.
            let high = if top >= histogram.high() { u64::MAX } else { top };
            let low = histogram.lowest_equivalent(value);
            // Below one bucket width lies 0, which the histogram counts as its lowest value.
            let low = if low <= histogram.low() { 0 } else { low };
            return Some(Wanted { low, high, rank: rank - before, loose: Vec::new(), counted: Counts::default() });
        }
        None
    }

    /// Shows it a value, which it keeps when it is of its bucket.
    #[inline]
    pub(super) fn offer(&mut self, value: u64) {
        if value >= self.low && value <= self.high {
            self.loose.push(value);
            if self.loose.len() >= LOOSE {
                self.count();
            }
        }
    }

    fn count(&mut self) {
        let loose = Counts::from_values(std::mem::take(&mut self.loose));
        self.counted = Counts::merged([&self.counted, &loose]);
    }

    /// Takes over what another one of the same bucket kept.
    pub(super) fn join(&mut self, mut other: Wanted) {
        self.count();
        other.count();
        self.counted = Counts::merged([&self.counted, &other.counted]);
    }

    /// The sample; `None` when fewer values were shown than the histogram had counted.
    pub(super) fn answer(mut self) -> Option<u64> {
        self.count();
        self.counted.at_rank(self.rank)
    }
}
