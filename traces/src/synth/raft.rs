//! Proposals to a raft meta-service, without the clients that caused them.
//!
//! Shaped after RobustMQ's: one proposal opens the sessions that its batcher gathered, 1 to 100 of them, each 100 to
//! 130 bytes as it encodes them, so an entry has 0.15 to 13 KB. Arrivals are a Poisson process and do not wait for each
//! other. How many sessions a proposal opens is drawn evenly on a logarithmic scale: mostly few, as between bursts, and
//! now and then a full batch.

use rand::Rng;

use super::SynthParams;
use super::forge::Forge;

/// Bytes of an entry besides its sessions.
const ENTRY_BYTES: u64 = 20;

/// The smallest session is so much of the largest, percent.
const SMALLEST_PERCENT: u32 = 77;

pub(super) fn proposals(params: &SynthParams) -> Forge {
    let mut forge = Forge::new(params.seed);
    let end_ns = (params.duration_s * 1e9) as u64;
    let mean_ns = 1e9 / params.rate();
    let (min, max) = params.batch;
    let (low, high) = (f64::from(min).ln(), f64::from(max + 1).ln());
    let smallest = (params.session_bytes * SMALLEST_PERCENT / 100).max(1);
    let mut at = 0_u64;
    loop {
        at = at.saturating_add(forge.exponential_ns(mean_ns));
        if at >= end_ns {
            return forge;
        }
        let drawn = low + forge.random.random::<f64>() * (high - low);
        let count = (drawn.exp() as u32).clamp(min, max);
        let sessions: u64 =
            (0..count).map(|_| u64::from(forge.random.random_range(smallest..=params.session_bytes))).sum();
        forge.propose(at, count, ENTRY_BYTES + sessions);
    }
}
