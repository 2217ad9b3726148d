//! Latencies with known truth: what the coverage simulations draw from.
//!
//! A run is `samples` requests, one per millisecond. Each takes its own time: log-normal, neighbours correlated (AR(1),
//! ρ = 0.95), above its P99 Pareto-distributed where the scenario says so. Beside that the server stalls now and then,
//! and a request that is due meanwhile takes what is left of the stall, if that is longer than its own time. Everything
//! is multiplied by an effect of the block, which all its runs share, and by one of the run; stalls are more frequent in
//! some runs than in others. Every distribution's survival function has a closed form given these effects, so that the
//! true percentile is an integral and not a simulation ([`super::truth`]).
//!
//! The sizes of the effects are assumptions, fixed before the first figure was seen: nobody's measurements of a broker.

/// Correlation of neighbouring requests' own times, as normal scores.
const RHO: f64 = 0.95;
/// Requests are due one per millisecond.
pub const SPACING_NS: u64 = 1_000_000;
/// Standard deviation of the logarithm of the block's effect.
pub const BLOCK_SD: f64 = 0.15;
/// The same of the run's effect.
pub const RUN_SD: f64 = 0.15;
/// The same of the run's stall rate, whose mean is the source's.
pub const STALL_RATE_SD: f64 = 0.2;
/// Above this quantile of their own time requests are Pareto-distributed, if at all.
pub const KNEE: f64 = 0.99;
/// Its normal score.
pub const KNEE_SCORE: f64 = 2.326_347_874_040_841;

/// What one arm's requests are drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// Median of a request's own time, ms.
    pub median_ms: f64,
    /// Standard deviation of its logarithm.
    pub sigma: f64,
    /// Pareto index above [`KNEE`]; log-normal all the way without.
    pub tail_index: Option<f64>,
    /// Stalls per request that is due outside one; 0 for none.
    pub stall_rate: f64,
    /// Median length of a stall, ms. At one request per millisecond it is also the number of requests that it holds up.
    pub stall_ms: f64,
    /// Standard deviation of the logarithm of its length.
    pub stall_sigma: f64,
}

impl Source {
    /// Correlated, with a Pareto tail, no stalls.
    pub fn pareto() -> Source {
        Source { median_ms: 1.0, sigma: 0.5, tail_index: Some(3.0), stall_rate: 0.0, stall_ms: 5.0, stall_sigma: 0.5 }
    }

    /// Correlated, with stalls of about five requests, so many that P99.9 is an episode's and, with a third of them, the
    /// knee between body and stalls.
    pub fn stalls() -> Source {
        Source { median_ms: 0.12, sigma: 0.4, tail_index: None, stall_rate: 8.6e-4, ..Source::pareto() }
    }

    /// The same with every time multiplied.
    pub fn scaled(self, by: f64) -> Source {
        Source { median_ms: self.median_ms * by, stall_ms: self.stall_ms * by, ..self }
    }

    /// The same with the rate of stalls multiplied.
    pub fn stalling(self, by: f64) -> Source {
        Source { stall_rate: self.stall_rate * by, ..self }
    }

    /// One run: (planned, latency) of each request, ns. `block` is the block's effect, a factor.
    pub fn run(&self, block: f64, samples: u64, random: &mut Random) -> Vec<(u64, u64)> {
        let effect = block * (RUN_SD * random.normal()).exp() * 1e6;
        let rate_effect = (STALL_RATE_SD * random.normal() - STALL_RATE_SD * STALL_RATE_SD / 2.0).exp();
        let rate = self.stall_rate * rate_effect;
        let fresh = (1.0 - RHO * RHO).sqrt();
        let mut score = random.normal();
        let mut left = 0.0;
        (0..samples)
            .map(|request| {
                score = RHO * score + fresh * random.normal();
                if left <= 0.0 && rate > 0.0 && random.uniform() < rate {
                    // The first request comes anywhere within its interval after the stall's begin.
                    let length = self.stall_ms * (self.stall_sigma * random.normal()).exp();
                    left = length - random.uniform() * SPACING_NS as f64 / 1e6;
                }
                let own = self.own_time(score);
                let time = if left > own { left } else { own };
                left -= SPACING_NS as f64 / 1e6;
                (request * SPACING_NS, (effect * time) as u64)
            })
            .collect()
    }

    /// A request's own time, ms, from its normal score.
    fn own_time(&self, score: f64) -> f64 {
        match self.tail_index {
            Some(index) if score > KNEE_SCORE => {
                let beyond = super::truth::normal_survival(score) / (1.0 - KNEE);
                self.knee_ms() * beyond.powf(-1.0 / index)
            }
            _ => self.median_ms * (self.sigma * score).exp(),
        }
    }

    /// Where the Pareto tail begins, ms.
    pub fn knee_ms(&self) -> f64 {
        self.median_ms * (self.sigma * KNEE_SCORE).exp()
    }
}

/// The effect of a block on all its runs, a factor.
pub fn block_effect(random: &mut Random) -> f64 {
    (BLOCK_SD * random.normal()).exp()
}

/// SplitMix64 with normal variates in pairs (Box and Muller): small, seeded, the same everywhere.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
    spare: Option<f64>,
}

impl Random {
    /// A generator of its own for every combination of `parts`.
    pub fn of(parts: &[u64]) -> Random {
        let mut random = Random { state: 0, spare: None };
        for part in parts {
            random.state ^= part.wrapping_mul(0xD6E8_FEB8_6659_FD93);
            random.state = random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1].
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }
}
