//! Latencies as sorted (value, count) pairs: what percentiles, comparisons and curves are computed from.
//!
//! An HdrHistogram of one run becomes a sparse list of its non-empty buckets, so that merging runs is adding counts:
//! exact, and cheap enough to leave each block out in turn. The same type holds raw samples (every value its own
//! bucket), which lets tests compare the two with one code path. It leaves out interpolation on purpose: a percentile
//! here is a value that was recorded (to the histogram's resolution), never a mix of two.

use hdrhistogram::Histogram;

/// A percentile in parts per million, so that its rank is computed in integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percentile {
    /// 999 000 for P99.9.
    pub ppm: u64,
    /// Name in files: `p99_9`.
    pub key: &'static str,
    /// Name for people: `P99.9`.
    pub label: &'static str,
}

/// The percentiles of every table, in rising order.
pub const PERCENTILES: [Percentile; 5] = [
    Percentile { ppm: 500_000, key: "p50", label: "P50" },
    Percentile { ppm: 900_000, key: "p90", label: "P90" },
    Percentile { ppm: 990_000, key: "p99", label: "P99" },
    Percentile { ppm: 999_000, key: "p99_9", label: "P99.9" },
    Percentile { ppm: 999_900, key: "p99_99", label: "P99.99" },
];

/// Rank (from 1) of a quantile among `total` sorted samples: ⌈total·ppm/10⁶⌉, at least 1, in integers.
///
/// Floating point would be wrong: `(99.9_f64 / 100.0 * 60_000.0).ceil()` is 59 941, and the rank is 59 940.
pub fn rank(total: u64, ppm: u64) -> u64 {
    let product = u128::from(total) * u128::from(ppm);
    // total·ppm/10⁶ ≤ total for ppm ≤ 10⁶, so the conversion back cannot overflow; saturate for any other ppm.
    u64::try_from(product.div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

/// Sorted distinct values with how often each occurred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pairs: Vec<(u64, u64)>,
    total: u64,
}

impl Counts {
    /// The non-empty buckets of a histogram, each represented by its middle, which halves the largest error
    /// (0.05 % at three digits) against taking either end.
    pub fn from_histogram(histogram: &Histogram<u64>) -> Self {
        let pairs: Vec<(u64, u64)> = histogram
            .iter_recorded()
            .map(|bucket| (histogram.median_equivalent(bucket.value_iterated_to()), bucket.count_at_value()))
            .collect();
        let total = pairs.iter().map(|&(_, count)| count).sum();
        Counts { pairs, total }
    }

    /// Raw samples, each value exact.
    pub fn from_values(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let total = values.len() as u64;
        let mut pairs: Vec<(u64, u64)> = Vec::new();
        for value in values {
            match pairs.last_mut() {
                Some((last, count)) if *last == value => *count += 1,
                _ => pairs.push((value, 1)),
            }
        }
        Counts { pairs, total }
    }

    /// The sum of several: what merging the histograms gives.
    pub fn merged<'a>(parts: impl IntoIterator<Item = &'a Counts>) -> Self {
        let mut all: Vec<(u64, u64)> = Vec::new();
        let mut total = 0;
        for part in parts {
            all.extend_from_slice(&part.pairs);
            total += part.total;
        }
        all.sort_unstable_by_key(|&(value, _)| value);
        let mut pairs: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (value, count) in all {
            match pairs.last_mut() {
                Some((last, sum)) if *last == value => *sum += count,
                _ => pairs.push((value, count)),
            }
        }
        Counts { pairs, total }
    }

    /// Number of samples.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The largest value, `None` without samples.
    pub fn max(&self) -> Option<u64> {
        self.pairs.last().map(|&(value, _)| value)
    }

    /// The smallest value, `None` without samples.
    pub fn min(&self) -> Option<u64> {
        self.pairs.first().map(|&(value, _)| value)
    }

    /// The `r`-th smallest sample (r from 1), `None` when there are fewer.
    pub fn at_rank(&self, r: u64) -> Option<u64> {
        let mut seen = 0;
        self.pairs.iter().find_map(|&(value, count)| {
            seen += count;
            (r >= 1 && seen >= r).then_some(value)
        })
    }

    /// The percentile as a sample of integer rank, `None` without samples.
    pub fn quantile(&self, ppm: u64) -> Option<u64> {
        if self.is_empty() { None } else { self.at_rank(rank(self.total, ppm)) }
    }

    /// (value, samples up to and including it), rising: the staircase that curves are drawn from.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.pairs.iter().scan(0, |seen, &(value, count)| {
            *seen += count;
            Some((value, *seen))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranks_are_integers() {
        // The example of the procedure: floating point gives 59 941 here.
        assert_eq!(rank(60_000, 999_000), 59_940);
        assert_eq!(rank(1, 500_000), 1);
        assert_eq!(rank(2, 500_000), 1);
        assert_eq!(rank(3, 500_000), 2);
        assert_eq!(rank(10, 990_000), 10);
        assert_eq!(rank(600_000, 999_900), 599_940);
        assert_eq!(rank(u64::MAX, 999_900), 18_444_899_399_302_180_660);
    }

    #[test]
    fn a_hand_counted_quantile() {
        let counts = Counts::from_values(vec![50, 10, 30, 20, 40]);
        assert_eq!(counts.quantile(500_000), Some(30));
        assert_eq!(counts.quantile(600_000), Some(30));
        assert_eq!(counts.quantile(600_001), Some(40));
        assert_eq!(counts.quantile(900_000), Some(50));
        assert_eq!(Counts::default().quantile(500_000), None);
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_list(mut values in prop::collection::vec(0_u64..5_000, 1..400),
                                                  ppm in 0_u64..=1_000_000) {
            let counts = Counts::from_values(values.clone());
            values.sort_unstable();
            let r = rank(values.len() as u64, ppm) as usize;
            prop_assert_eq!(counts.quantile(ppm), Some(values[r - 1]));
        }

        #[test]
        fn merging_is_pooling(a in prop::collection::vec(0_u64..500, 0..100),
                              b in prop::collection::vec(0_u64..500, 0..100)) {
            let merged = Counts::merged([&Counts::from_values(a.clone()), &Counts::from_values(b.clone())]);
            prop_assert_eq!(merged, Counts::from_values(a.into_iter().chain(b).collect()));
        }

        #[test]
        fn a_histogram_is_within_half_a_bucket(values in prop::collection::vec(1_u64..60_000_000_000, 1..300),
                                               ppm in 0_u64..=1_000_000) {
            let mut histogram = Histogram::<u64>::new_with_max(120_000_000_000, 3).unwrap();
            for &value in &values {
                histogram.record(value).unwrap();
            }
            let exact = Counts::from_values(values).quantile(ppm).unwrap() as f64;
            let bucketed = Counts::from_histogram(&histogram).quantile(ppm).unwrap() as f64;
            prop_assert!((bucketed - exact).abs() <= exact * 0.0005 + 1.0, "{} is not {}", bucketed, exact);
        }
    }
}
