//! Clocks: which source the kernel uses, and what reading it costs.

use super::read;
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::time::Instant;

/// What is known of the clocks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockFacts {
    /// Source of CLOCK_MONOTONIC: `tsc`, `kvm-clock`, `hpet`, …
    pub source: Option<String>,
    /// Other sources that the kernel could use.
    pub available: Vec<String>,
    /// Cost of one CLOCK_MONOTONIC reading, ns (fastest of several batches).
    pub read_cost_ns: f64,
}

pub(super) fn gather() -> ClockFacts {
    let sources = "/sys/devices/system/clocksource/clocksource0";
    ClockFacts {
        source: read(format!("{sources}/current_clocksource")),
        available: read(format!("{sources}/available_clocksource"))
            .map(|text| text.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default(),
        read_cost_ns: read_cost_ns(),
    }
}

/// The fastest batch is the one that nobody interrupted.
fn read_cost_ns() -> f64 {
    const BATCHES: usize = 9;
    const READS: u32 = 4096;
    let batch = || {
        let start = Instant::now();
        for _ in 0..READS {
            black_box(Instant::now());
        }
        start.elapsed().as_nanos() as f64 / f64::from(READS)
    };
    (0..BATCHES).map(|_| batch()).fold(f64::INFINITY, f64::min)
}
