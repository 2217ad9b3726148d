//! What is kept of the stamps, so that the tail is complete and the body cheap.
//!
//! A poll is worth a row when it was long or waited long; of the others, those of some slices of time are kept, the same
//! slices on all threads, so that within them everything that happened stands together. Reads, replies, operations and
//! calls are kept whole as long as there are few, which at the rates of a study is to the end of the run; at the rates
//! of a bench they are thinned to what is slow, what happened beside it, and what lies in a kept slice.

use regauge_traces::ticks::{self, Anchor};
use std::time::Duration;

/// Length of a slice, ns. Longer than nearly every request, so that most of one that begins in a slice lies within it;
/// short enough that a run of seconds has hundreds.
pub const SLICE_NS: u64 = 8_000_000;
/// One slice in so many is kept. At 16, rows of some 40 ns each for all polls cost less than the two readings of the
/// clock that every poll has.
pub const SLICE_EVERY: u32 = 16;
/// A poll of at least this is kept, ns: an event loop that is held up for longer shows in the tail of others.
pub const LONG_POLL_NS: u64 = 50_000;
/// A poll that was waited for at least this long is kept, ns: several times a quick wake through a loop that is idle.
pub const LONG_WAIT_NS: u64 = 10_000;
/// A gap with at least so much run delay is kept, ns: above what a thread waits when an idle CPU takes it up.
pub const LONG_GAP_NS: u64 = 20_000;
/// Reads, replies, operations, calls and polls of at least this are kept however many there are, ns: the tail that a
/// study asks about begins below it on no host.
pub const SLOW_NS: u64 = 1_000_000;
/// Rows of each event that a thread keeps whole, before it thins them.
pub const COMPLETE_ROWS: usize = 200_000;
/// As [`COMPLETE_ROWS`], of the moments of proposals: each has seven.
pub const COMPLETE_MARKS: usize = 4 * COMPLETE_ROWS;
/// Twice as many rows of each event are the most that a thread keeps at all; the newest are dropped, and counted. With it,
/// and [`HELD_ROWS`], a thread's buffers stay below some 220 MB.
pub const ROWS_MAX_FACTOR: usize = 2;
/// Rows of each event that a thread holds before it thins them, in case they turn out to belong to something slow. The
/// older half is decided about when there are so many: what belongs to something that takes longer than half of them is
/// lost, at 100,000 rows a second two thirds of a second.
pub const HELD_ROWS: usize = 1 << 17;
/// What happened so shortly before or after something slow is kept with it, ns: a packet is read before the operation
/// that is slow, and answered after it.
pub const BESIDE_SLOW_NS: u64 = 2_000_000;
/// A reading of a thread's CPU time that is older is taken again before a poll, and before a blocking operation on
/// files, ns. A reading takes some microseconds, so this bounds its cost to some 0.3 % of a thread, and to twice that
/// where a thread of a pool reads after the operation too.
pub const STALE_NS: u64 = 1_000_000;
/// Between two readings of a busy thread before polls that waited longer than [`LATE_NS`], and between two after long
/// polls that are shorter than this themselves, ns. At the rates of a bench nearly every poll is long and late; with this,
/// readings take some 0.5 % of a busy thread's time.
pub const READ_EVERY_NS: u64 = 500_000;
/// What a thread was off its CPU since the last reading of its run delay is not worth another one below this, ns: the
/// lanes of a request need not add up any closer.
pub const OFF_CPU_NS: u64 = 5_000;
/// See [`READ_EVERY_NS`].
pub const LATE_NS: u64 = 100_000;

/// The limits in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    ticks_per_ns: f64,
    pub(super) slice: u64,
    pub(super) long_poll: u64,
    pub(super) long_wait: u64,
    pub(super) slow: u64,
    pub(super) stale: u64,
    pub(super) read_every: u64,
    pub(super) late: u64,
    pub(super) beside: u64,
}

impl Limits {
    /// By the clock's rate over two milliseconds: good to some 0.1 %, which is enough for thresholds.
    pub(super) fn now() -> Limits {
        let first = Anchor::take();
        std::thread::sleep(Duration::from_millis(2));
        let last = Anchor::take();
        let passed = last.monotonic_ns.saturating_sub(first.monotonic_ns).max(1);
        let rate = if ticks::is_tsc() { (last.ticks - first.ticks) as f64 / passed as f64 } else { 1.0 };
        let in_ticks = |ns: u64| (ns as f64 * rate) as u64;
        Limits {
            ticks_per_ns: rate,
            slice: in_ticks(SLICE_NS).max(1),
            long_poll: in_ticks(LONG_POLL_NS),
            long_wait: in_ticks(LONG_WAIT_NS),
            slow: in_ticks(SLOW_NS),
            stale: in_ticks(STALE_NS),
            read_every: in_ticks(READ_EVERY_NS),
            late: in_ticks(LATE_NS),
            beside: in_ticks(BESIDE_SLOW_NS),
        }
    }

    /// A time span in ns, as exact as a threshold needs it.
    pub(super) fn ns(&self, ticks: u64) -> u64 {
        (ticks as f64 / self.ticks_per_ns) as u64
    }

    /// The reverse of [`Limits::ns`].
    pub(super) fn ticks(&self, ns: u64) -> u64 {
        (ns as f64 * self.ticks_per_ns) as u64
    }

    /// Whether the slice with this number is kept: chosen by a hash, since what happens in a broker may have a period.
    pub(super) fn keeps(slice: u64) -> bool {
        mix(slice).is_multiple_of(u64::from(SLICE_EVERY))
    }
}

/// The finaliser of SplitMix64: every bit of the input changes half of the output's.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_one_slice_in_sixteen_is_kept_and_no_period_shows() {
        for step in [1, 2, 16, 125] {
            let kept = (0..16_000).filter(|n| Limits::keeps(n * step)).count();
            assert!((850..1150).contains(&kept), "{kept} of 16000 with a step of {step}");
        }
    }
}
