//! A RocksDB call of the meta-service: how long it waited for its thread, and what that thread did in it.

use super::limits::COMPLETE_ROWS;
use super::thread::{self, Buffers};
use super::usage::{self, Switches, Usage};
use super::{Step, collect, is_on};
use regauge_traces::ticks;
use rocksdb::perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats};

/// RocksDB counts the time of waiting in its write queue where only a printed report shows it, which takes some
/// microseconds; a shorter call has waited for less than this, ns.
const REPORT_NS: u64 = 20_000;

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
            resumed: 0,
            detail: None,
        };
        Call { row: is_on().then(row) }
    }

    /// Makes the call, on the thread where it runs.
    pub fn run<T>(self, call: impl FnOnce() -> T) -> (T, Ran) {
        let Some(mut row) = self.row else { return (call(), Ran { row: None }) };
        thread::this_is_blocking();
        // Beyond the rows that are kept whole, readings are taken for those alone that are sampled.
        let mut is_detailed = collect::limits().is_some_and(|limits| thread::is_sampled(limits, row.queued));
        thread::with_buffers(|buffers| is_detailed |= buffers.calls.rows.len() < COMPLETE_ROWS);
        let before = is_detailed.then(Before::now);
        row.started = ticks::now();
        let result = call();
        row.finished = ticks::now();
        row.detail = before.and_then(|before| before.detail(&row));
        row.thread = thread::with_thread("blocking", |thread, _| thread.id).unwrap_or(0);
        (result, Ran { row: Some(row) })
    }
}

impl Ran {
    /// The task that waited for the call goes on.
    pub fn resumed(mut self) {
        if let Some(row) = &mut self.row {
            row.resumed = ticks::now();
        }
    }
}

impl Drop for Ran {
    fn drop(&mut self) {
        let (Some(row), Some(limits)) = (self.row, collect::limits()) else { return };
        let is_slow = row.resumed.max(row.finished).saturating_sub(row.queued) >= limits.slow;
        let choice = is_slow || thread::is_sampled(limits, row.queued);
        thread::with_buffers(|buffers: &mut Buffers| buffers.calls.push(row, choice));
    }
}

/// The thread's counters before a call.
struct Before {
    usage: Usage,
    switches: Switches,
    perf: PerfContext,
}

impl Before {
    fn now() -> Before {
        // The binding counts these levels without one that RocksDB has since put before them, so each stands for the one
        // below it: this is RocksDB's `kEnableTimeExceptForMutex`, all that a row needs.
        set_perf_stats(PerfStatsLevel::EnableTimeAndCPUTimeExceptForMutex);
        let mut perf = PerfContext::default();
        perf.reset();
        let usage = thread::with_thread("blocking", |_, reader| reader.read()).unwrap_or_default();
        Before { usage, switches: usage::switches(), perf }
    }

    fn detail(self, row: &CallRow) -> Option<Detail> {
        let wall_ns = collect::limits()?.ns(row.finished.saturating_sub(row.started));
        let after = thread::with_thread("blocking", |_, reader| reader.read())?;
        set_perf_stats(PerfStatsLevel::Disable);
        Some(Detail {
            usage: after.since(self.usage, 0, wall_ns),
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
