//! The true percentile of a source, by integration: what an infinite number of blocks would show.
//!
//! Given the effects of block, run and stall rate, a request's own time and the rest of a stall are independent, so the
//! chance that neither exceeds x is a product. That is averaged over the effects (midpoints of a grid of normal scores),
//! and solved for x by bisection. The rest of a stall: with L log-normal and requests every Δ, from a random moment on,
//! E(L − x)₊/Δ requests of a stall wait longer than x; E(L − x)₊ is the formula of Black and Scholes (1973).

use super::generator::{BLOCK_SD, KNEE, RUN_SD, SPACING_NS, STALL_RATE_SD, Source};
use statrs::distribution::{ContinuousCDF, Normal};

/// P(Z > score) of a standard normal.
pub fn normal_survival(score: f64) -> f64 {
    Normal::standard().sf(score)
}

/// Standard normal scores with their weights, which sum to 1.
fn grid() -> Vec<(f64, f64)> {
    const STEPS: i32 = 60;
    const REACH: f64 = 6.0;
    let nodes: Vec<(f64, f64)> = (-STEPS..=STEPS)
        .map(|i| {
            let score = REACH * f64::from(i) / f64::from(STEPS);
            (score, (-score * score / 2.0).exp())
        })
        .collect();
    let sum: f64 = nodes.iter().map(|node| node.1).sum();
    nodes.into_iter().map(|(score, weight)| (score, weight / sum)).collect()
}

/// The share of requests above `x_ms`, without the effects of block and run; `rate` is the run's stall rate.
fn survival(source: &Source, rate: f64, x_ms: f64) -> f64 {
    let own = match source.tail_index {
        Some(index) if x_ms > source.knee_ms() => (1.0 - KNEE) * (x_ms / source.knee_ms()).powf(-index),
        _ => normal_survival((x_ms / source.median_ms).ln() / source.sigma),
    };
    1.0 - (1.0 - own) * (1.0 - stalled(source, rate, x_ms))
}

/// The share of requests that are due in a stall with more than `x_ms` of it left.
fn stalled(source: &Source, rate: f64, x_ms: f64) -> f64 {
    if rate <= 0.0 {
        return 0.0;
    }
    let sd = source.stall_sigma;
    let mean = source.stall_ms * (sd * sd / 2.0).exp();
    let score = (source.stall_ms / x_ms).ln() / sd;
    let rest = mean * normal_survival(-(score + sd)) - x_ms * normal_survival(-score);
    let spacing_ms = SPACING_NS as f64 / 1e6;
    // A cycle is one stall's requests and those until the next begins.
    (rest / spacing_ms) / ((1.0 - rate) / rate + mean / spacing_ms)
}

/// The true percentile of all requests of all runs, ns.
pub fn percentile_ns(source: &Source, ppm: u64) -> f64 {
    let sd = BLOCK_SD.hypot(RUN_SD);
    let nodes = grid();
    let above = |x_ms: f64| -> f64 {
        let given_effect = |effect: f64| -> f64 {
            let given_rate = |z: f64| {
                let rate = source.stall_rate * (STALL_RATE_SD * z - STALL_RATE_SD * STALL_RATE_SD / 2.0).exp();
                survival(source, rate, x_ms / effect)
            };
            nodes.iter().map(|(z, weight)| weight * given_rate(*z)).sum()
        };
        nodes.iter().map(|(z, weight)| weight * given_effect((sd * z).exp())).sum()
    };
    let wanted = 1.0 - ppm as f64 / 1e6;
    let (mut low, mut high) = (1e-6_f64.ln(), 1e6_f64.ln());
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if above(middle.exp()) > wanted { low = middle } else { high = middle }
    }
    f64::midpoint(low, high).exp() * 1e6
}

/// The true ratio of a percentile of two sources.
pub fn ratio(arm: &Source, base: &Source, ppm: u64) -> f64 {
    percentile_ns(arm, ppm) / percentile_ns(base, ppm)
}
