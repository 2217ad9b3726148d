//! A RocksDB call of the meta-service: how long it waited for its thread, and what that thread did in it.

use super::blocking::{self, Around};
use super::limits::{COMPLETE_ROWS, Limits};
use super::thread::{self, Buffers};
use super::usage::{self, Switches, Usage};
use super::{Step, collect, is_on, slow};
use regauge_traces::ticks;
use rocksdb::perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats};
use std::cell::Cell;

/// RocksDB counts the time of waiting in its write queue where only a printed report shows it, which takes some
/// microseconds; a shorter call has waited for less than this, ns.
const REPORT_NS: u64 = 20_000;

thread_local! {
    /// Calls around which this thread has taken readings.
    static DETAILED: Cell<usize> = const { Cell::new(0) };
}

/// A RocksDB call that is on its way to the thread that makes it.
#[derive(Debug)]
#[must_use]
pub struct Call {
    /// `None` while stamps are off.
    row: Option<CallRow>,
}

/// A RocksDB call that was made. Its row is kept when this is dropped, also by a task that was given up.
#[derive(Debug)]
#[must_use]
pub struct Ran {
    row: Option<CallRow>,
}

/// Times in ticks; 0: not known.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallRow {
    pub step: Step,
    pub first: u64,
    pub count: u32,
    pub thread: u32,
    pub queued: u64,
    pub started: u64,
    pub finished: u64,
    /// The readings after the call were taken.
    pub measured: u64,
    /// The task that waits was woken; 0: nobody waited.
    pub woken: u64,
    pub resumed: u64,
    pub detail: Option<Detail>,
}

/// What the thread did in the call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Detail {
    pub usage: Usage,
    pub switches: Switches,
    pub wal_ns: u64,
    pub memtable_ns: u64,
    pub delay_ns: u64,
    pub thread_wait_ns: Option<u64>,
}

impl Call {
    /// `step` for the log entries `first..first + count`.
    pub fn queued(step: Step, first: u64, count: u32) -> Call {
        let row = || CallRow {
            step,
            first,
            count,
            thread: 0,
            queued: ticks::now(),
            started: 0,
            finished: 0,
            measured: 0,
            woken: 0,
            resumed: 0,
            detail: None,
        };
        Call { row: is_on().then(row) }
    }

    /// Makes the call, on the thread where it runs.
    pub fn run<T>(self, call: impl FnOnce() -> T) -> (T, Ran) {
        let Some((mut row, limits)) = self.row.zip(collect::limits()) else { return (call(), Ran { row: None }) };
        thread::this_is_blocking();
        // Beyond so many of this thread, readings are taken for those alone that are sampled. Counted here, since a row
        // lies with the thread of the task that waits.
        let is_detailed = DETAILED.get() < COMPLETE_ROWS || thread::is_sampled(limits, row.queued);
        DETAILED.set(DETAILED.get() + usize::from(is_detailed));
        let before = if is_detailed { Before::now(limits) } else { None };
        if before.is_none() {
            blocking::unread();
        }
        row.started = ticks::now();
        let result = call();
        row.finished = ticks::now();
        row.detail = before.and_then(|before| before.detail(limits, &row));
        // The readings take a few microseconds, for which nobody waited but because of the stamps.
        row.measured = ticks::now();
        row.thread = thread::with_thread("blocking", |thread, _| thread.id).unwrap_or(0);
        (result, Ran { row: Some(row) })
    }
}

impl Ran {
    /// The task that waited for the call goes on.
    pub fn resumed(mut self) {
        if let Some(row) = &mut self.row {
            row.resumed = ticks::now();
            // As of an operation: who made the call itself, within one poll, was not woken for it.
            let woken = Some(thread::current_poll().0).filter(|woken| *woken > row.queued);
            row.woken = woken.map_or(0, |woken| woken.max(row.measured));
        }
    }
}

impl Drop for Ran {
    fn drop(&mut self) {
        let (Some(row), Some(limits)) = (self.row, collect::limits()) else { return };
        let is_slow = slow::is_slow(limits, row.queued, row.resumed.max(row.finished));
        let choice = is_slow || thread::is_sampled(limits, row.queued);
        thread::with_buffers(|buffers: &mut Buffers| buffers.calls.push(row, choice));
    }
}

/// The thread's counters before a call.
struct Before {
    around: Around,
    switches: Switches,
    perf: PerfContext,
}

impl Before {
    fn now(limits: &Limits) -> Option<Before> {
        // The binding counts these levels without one that RocksDB has since put before them, so each stands for the one
        // below it: this is RocksDB's `kEnableTimeExceptForMutex`, all that a row needs.
        set_perf_stats(PerfStatsLevel::EnableTimeAndCPUTimeExceptForMutex);
        let mut perf = PerfContext::default();
        perf.reset();
        let around = Around::begin(limits, true)?;
        Some(Before { around, switches: usage::switches(), perf })
    }

    fn detail(self, limits: &Limits, row: &CallRow) -> Option<Detail> {
        let wall_ns = limits.ns(row.finished.saturating_sub(row.started));
        let usage = self.around.end(limits, row.started, row.finished)?;
        set_perf_stats(PerfStatsLevel::Disable);
        Some(Detail {
            usage,
            switches: usage::switches().since(self.switches),
            wal_ns: self.perf.metric(PerfMetric::WriteWalTime),
            memtable_ns: self.perf.metric(PerfMetric::WriteMemtableTime),
            delay_ns: self.perf.metric(PerfMetric::WriteDelayTime),
            thread_wait_ns: (wall_ns >= REPORT_NS)
                .then(|| in_report(&self.perf.report(true), "write_thread_wait_nanos")),
        })
    }
}

/// A counter in `name = value, name = value`; one that is 0 is not listed.
fn in_report(report: &str, name: &str) -> u64 {
    let counters = report.split(',').filter_map(|counter| counter.split_once('='));
    counters.into_iter().find(|(n, _)| n.trim() == name).and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let report = "user_key_comparison_count = 3, write_thread_wait_nanos = 2500, write_wal_time = 7, ";
        assert_eq!(in_report(report, "write_thread_wait_nanos"), 2500);
        assert_eq!(in_report(report, "thread_wait_nanos"), 0);
        assert_eq!(in_report("", "write_wal_time"), 0);
    }
}
