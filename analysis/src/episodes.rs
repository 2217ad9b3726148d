//! How many independent episodes stand behind a percentile, and whether it may be shown at all.
//!
//! One stall slows many neighbouring requests, so a hundred exceedances may be eight events. The extremal index of
//! Ferro and Segers (2003, "Inference for clusters of extreme values", J. R. Statist. Soc. B 65) estimates the share
//! of independent events among them from the gaps between exceedances: 1 for independent samples, 1/12 for bursts of
//! twelve. Gaps are counted in requests of the same step, in order of planned time (ties by operation id).
//!
//! The episodes of an arm are Σ θ_b·m_b over its blocks. Within one block the estimator is blind in one case: when all
//! exceedances are neighbours there is no gap between clusters to learn from, and it answers 1. Ten blocks with one
//! stall each then look like sixty episodes (simulated: 59.9 against a truth of 3). So the same estimator is also
//! applied to the blocks laid end to end, where gaps between blocks show, and the smaller count stands: a percentile
//! is refused rather than trusted for want of a gap.

use serde::Serialize;

/// Below this many episodes a percentile is refused.
pub const EPISODES_REFUSED: f64 = 20.0;
/// From this many episodes on a percentile is eligible for a verdict; below, it is shown with low confidence.
pub const EPISODES_FINE: f64 = 50.0;

/// Running sums over the gaps between exceedances: all that the extremal index needs, without keeping positions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct GapSums {
    gaps: u64,
    longest: u64,
    sum: u128,
    sum_of_squares: u128,
    sum_less_one: u128,
    sum_of_products: u128,
}

impl GapSums {
    fn add(&mut self, gap: u64) {
        let t = u128::from(gap);
        self.gaps += 1;
        self.longest = self.longest.max(gap);
        self.sum += t;
        self.sum_of_squares += t * t;
        self.sum_less_one += t.saturating_sub(1);
        self.sum_of_products += t.saturating_sub(1) * t.saturating_sub(2);
    }

    fn join(&mut self, other: &GapSums) {
        self.gaps += other.gaps;
        self.longest = self.longest.max(other.longest);
        self.sum += other.sum;
        self.sum_of_squares += other.sum_of_squares;
        self.sum_less_one += other.sum_less_one;
        self.sum_of_products += other.sum_of_products;
    }

    /// θ: with max T ≤ 2 it is 2(ΣT)²/((m−1)ΣT²), else 2(Σ(T−1))²/((m−1)Σ(T−1)(T−2)); at most 1. A single exceedance
    /// (no gap) is one episode.
    fn extremal_index(&self) -> f64 {
        if self.gaps == 0 {
            return 1.0;
        }
        let (numerator, products) = if self.longest <= 2 {
            (self.sum as f64, self.sum_of_squares as f64)
        } else {
            (self.sum_less_one as f64, self.sum_of_products as f64)
        };
        (2.0 * numerator * numerator / (self.gaps as f64 * products)).min(1.0)
    }
}

/// The exceedances of one threshold in one block, fed in order of planned time.
#[derive(Debug, Clone, Copy, Default)]
pub struct BlockTail {
    samples: u64,
    exceedances: u64,
    first: u64,
    last: u64,
    gaps: GapSums,
}

impl BlockTail {
    /// The next sample beyond the threshold; `position` counts the block's samples from 0 and rises from call to call.
    pub fn exceed(&mut self, position: u64) {
        if self.exceedances == 0 {
            self.first = position;
        } else {
            self.gaps.add(position.saturating_sub(self.last));
        }
        self.last = position;
        self.exceedances += 1;
    }

    /// The block is over and held `samples` samples, on either side of the threshold.
    pub fn finish(&mut self, samples: u64) {
        self.samples = samples;
    }

    /// θ_b.
    pub fn extremal_index(&self) -> f64 {
        self.gaps.extremal_index()
    }
}

/// What stands behind one percentile of one arm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Support {
    /// Samples of the arm in this step, all blocks.
    pub samples: u64,
    /// Samples beyond the percentile.
    pub exceedances: u64,
    /// Independent episodes among them.
    pub episodes: f64,
    /// The largest share of exceedances that one block holds; 0 without exceedances.
    pub largest_block_share: f64,
    /// Without the driver's own lateness the percentile would be lower by more than a tenth in some block (the driver's
    /// `lag_refuses_above`): whatever its episodes, it is refused.
    pub driver_owned: bool,
}

/// How far a percentile may be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// At least [`EPISODES_FINE`] episodes.
    Fine,
    /// Shown, with a warning.
    Low,
    /// Fewer than [`EPISODES_REFUSED`] episodes, or the driver's own lateness: no number.
    Refused,
}

impl Support {
    /// Counts episodes over the blocks of one arm.
    pub fn of(blocks: &[BlockTail]) -> Self {
        let samples = blocks.iter().map(|block| block.samples).sum();
        let exceedances: u64 = blocks.iter().map(|block| block.exceedances).sum();
        let largest = blocks.iter().map(|block| block.exceedances).max().unwrap_or(0);
        let by_block: f64 = blocks.iter().map(|block| block.extremal_index() * block.exceedances as f64).sum();
        let chained = chain(blocks).extremal_index() * exceedances as f64;
        Support {
            samples,
            exceedances,
            episodes: by_block.min(chained),
            largest_block_share: if exceedances == 0 { 0.0 } else { largest as f64 / exceedances as f64 },
            driver_owned: false,
        }
    }

    /// Fine, low or refused.
    pub fn confidence(&self) -> Confidence {
        if self.driver_owned || self.episodes < EPISODES_REFUSED {
            Confidence::Refused
        } else if self.episodes < EPISODES_FINE {
            Confidence::Low
        } else {
            Confidence::Fine
        }
    }

    /// Samples that would give [`EPISODES_FINE`] episodes beyond the percentile: ≈ N·50/c at the rate seen. Where no
    /// episode was seen there is no rate, and it is what independent samples would take at least: 50/(1−p).
    pub fn samples_needed(&self, ppm: u64) -> u64 {
        let at_least = EPISODES_FINE * 1e6 / 1_000_000_u64.saturating_sub(ppm).max(1) as f64;
        let at_rate = if self.episodes > 0.0 { self.samples as f64 * EPISODES_FINE / self.episodes } else { 0.0 };
        at_rate.max(at_least).ceil() as u64
    }
}

/// The gaps of all blocks laid end to end.
fn chain(blocks: &[BlockTail]) -> GapSums {
    let mut all = GapSums::default();
    // Samples since the last exceedance before the current block, once there was one.
    let mut since_last: Option<u64> = None;
    for block in blocks {
        if block.exceedances == 0 {
            since_last = since_last.map(|gap| gap + block.samples);
            continue;
        }
        if let Some(gap) = since_last {
            all.add(gap + block.first);
        }
        all.join(&block.gaps);
        since_last = Some(block.samples.saturating_sub(block.last));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(beyond: impl IntoIterator<Item = bool>) -> BlockTail {
        let mut tail = BlockTail::default();
        let mut samples = 0;
        for beyond in beyond {
            if beyond {
                tail.exceed(samples);
            }
            samples += 1;
        }
        tail.finish(samples);
        tail
    }

    /// A small deterministic generator (SplitMix64), uniform in [0, 1).
    fn uniform(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    #[test]
    fn by_hand_with_long_gaps() {
        // Exceedances at 0, 1, 2 and 12: T = 1, 1, 10. Σ(T−1) = 9, Σ(T−1)(T−2) = 72, so θ = 2·81/(3·72) = 0.75.
        let block = tail((0..13).map(|i| [0, 1, 2, 12].contains(&i)));
        assert!((block.extremal_index() - 0.75).abs() < 1e-12);
    }

    #[test]
    fn by_hand_with_short_gaps() {
        // T = 1, 2, 2: ΣT = 5, ΣT² = 9, θ = min(1, 2·25/(3·9)) = 1.
        assert_eq!(tail([true, true, false, true, false, true]).extremal_index(), 1.0);
        // One exceedance is one episode; none is none.
        assert_eq!(tail([false, true, false]).extremal_index(), 1.0);
        assert_eq!(Support::of(&[tail([false; 9])]).episodes, 0.0);
        assert_eq!(Support::of(&[tail([false; 9])]).samples_needed(999_900), 500_000);
    }

    #[test]
    fn independent_samples_give_one() {
        let mut state = 7;
        let block = tail((0..200_000).map(|_| uniform(&mut state) < 0.01));
        assert!((block.extremal_index() - 1.0).abs() < 0.1, "θ = {}", block.extremal_index());
    }

    #[test]
    fn bursts_of_twelve_give_a_twelfth() {
        let mut state = 11;
        let mut left = 0;
        let block = tail((0..400_000).map(|_| {
            if left == 0 && uniform(&mut state) < 0.001 {
                left = 12;
            }
            let beyond = left > 0;
            left -= i32::from(beyond);
            beyond
        }));
        assert!((block.extremal_index() - 1.0 / 12.0).abs() < 0.015, "θ = {}", block.extremal_index());
        let support = Support::of(&[block]);
        let bursts = support.exceedances as f64 / 12.0;
        assert!((support.episodes / bursts - 1.0).abs() < 0.15, "{} episodes of {bursts}", support.episodes);
    }

    #[test]
    fn one_stall_per_block_is_not_sixty_episodes() {
        // Ten blocks, each with one burst of six: block by block the estimator answers 60, laid end to end about 10.
        let blocks: Vec<BlockTail> =
            (0..10_u64).map(|b| tail((0..60_000_u64).map(move |i| (b * 5_000..b * 5_000 + 6).contains(&i)))).collect();
        assert!(blocks.iter().all(|block| block.extremal_index() == 1.0));
        let support = Support::of(&blocks);
        assert!(support.episodes < EPISODES_REFUSED, "{}", support.episodes);
        assert_eq!(support.confidence(), Confidence::Refused);
        assert_eq!(support.exceedances, 60);
        assert_eq!(support.samples, 600_000);
        assert!((support.largest_block_share - 0.1).abs() < 1e-12);
    }

    #[test]
    fn gaps_cross_blocks_and_empty_blocks() {
        // Positions 1 of 4, none of 5, 2 of 4: laid end to end the gap is 3 + 5 + 2 = 10.
        let blocks = [tail([false, true, false, false]), tail([false; 5]), tail([false, false, true, false])];
        let gaps = chain(&blocks);
        assert_eq!((gaps.gaps, gaps.sum), (1, 10));
    }

    #[test]
    fn needed_samples_follow_the_rate() {
        let support = Support {
            samples: 600_000,
            exceedances: 60,
            episodes: 11.0,
            largest_block_share: 0.2,
            driver_owned: false,
        };
        assert_eq!(support.confidence(), Confidence::Refused);
        assert_eq!(support.samples_needed(999_900), 2_727_273);
        assert_eq!(Support { episodes: 20.0, ..support }.confidence(), Confidence::Low);
        assert_eq!(Support { episodes: 50.0, ..support }.confidence(), Confidence::Fine);
        assert_eq!(Support { episodes: 50.0, driver_owned: true, ..support }.confidence(), Confidence::Refused);
    }
}
