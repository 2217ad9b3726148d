//! Puts together, at the end of the run, what all threads have noted.

use super::call::CallRow;
use super::limits::{self, Limits};
use super::operation::OperationRow;
use super::proposal::What;
use super::thread::{Buffers, GapRow, PollRow, Rows, Thread};
use super::usage::{Usage, has_run_delay};
use super::wire::{ReadRow, ReplyRow};
use super::{Mark, slow, stop};
use regauge_traces::stamps::{Event, Stamp, StampsError, StampsMeta, write_stamps};
use regauge_traces::ticks::{self, Anchor, Calibration};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

static LIMITS: OnceLock<Limits> = OnceLock::new();
static BEGIN: Mutex<Option<Anchor>> = Mutex::new(None);
static THREADS: Mutex<Vec<Arc<Thread>>> = Mutex::new(Vec::new());

/// The limits, once stamps have been switched on.
#[inline]
pub(super) fn limits() -> Option<&'static Limits> {
    LIMITS.get()
}

/// Stamps are about to be switched on.
pub(super) fn begin(limits: Limits) {
    let _the_first_stay = LIMITS.set(limits);
    let mut begin = BEGIN.lock().unwrap_or_else(PoisonError::into_inner);
    begin.get_or_insert_with(Anchor::take);
}

pub(super) fn register(thread: Arc<Thread>) {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
}

/// Switches the stamps off and writes what has been noted since they were switched on. To be called when the runtimes
/// have ended: what a thread notes meanwhile may be missing.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path) -> Result<(), StampsError> {
    stop();
    let begin = BEGIN.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_else(Anchor::take);
    let mut threads: Vec<(Arc<Thread>, Buffers)> = Vec::new();
    let slow = slow::all();
    {
        let mut all = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in all.iter() {
            let mut buffers = std::mem::take(&mut *thread.buffers.lock().unwrap_or_else(PoisonError::into_inner));
            buffers.settle(&slow);
            threads.push((Arc::clone(thread), buffers));
        }
        // Those that have ended will note nothing any more; this list and `threads` alone hold them.
        all.retain(|thread| Arc::strong_count(thread) > 2);
    }
    slow::clear();
    let clock = Clock(Calibration::between(begin, Anchor::take()));
    let meta = meta(&clock, &threads);
    let proposals = proposals(&clock, &threads);
    let rows = threads.iter().flat_map(|(thread, buffers)| rows(&clock, thread.id, buffers));
    write_stamps(path, &meta, rows.chain(proposals))
}

fn meta(clock: &Clock, threads: &[(Arc<Thread>, Buffers)]) -> StampsMeta {
    let (mut thinned, mut dropped) = (0, 0);
    for (_, b) in threads {
        for (t, d) in [
            b.polls.left_out(),
            b.gaps.left_out(),
            b.reads.left_out(),
            b.replies.left_out(),
            b.operations.left_out(),
            b.calls.left_out(),
            b.marks.left_out(),
        ] {
            thinned += t;
            dropped += d;
        }
    }
    let of_calls = threads.iter().map(|(_, b)| b.calls.thinned + b.calls.dropped);
    let calls_left_out = of_calls.sum();
    let role = |thread: &Thread| *thread.role.lock().unwrap_or_else(PoisonError::into_inner);
    StampsMeta {
        clock: ticks::clock().to_owned(),
        clock_error_ns: clock.0.error_ns(),
        slice_ns: limits::SLICE_NS,
        slice_every: limits::SLICE_EVERY,
        long_wait_ns: limits::LONG_WAIT_NS,
        long_poll_ns: limits::LONG_POLL_NS,
        long_gap_ns: limits::LONG_GAP_NS,
        slow_ns: limits::SLOW_NS,
        complete_rows: limits::COMPLETE_ROWS as u64,
        thinned,
        calls_left_out,
        run_delay: has_run_delay(),
        dropped,
        threads: threads.iter().map(|(t, _)| (t.id, t.name.clone(), role(t).to_owned())).collect(),
    }
}

impl<T> Rows<T> {
    fn left_out(&self) -> (u64, u64) {
        (self.thinned, self.dropped)
    }
}

/// All rows of one thread.
fn rows<'a>(clock: &'a Clock, thread: u32, buffers: &'a Buffers) -> impl Iterator<Item = Stamp> + 'a {
    let polls = buffers.polls.rows.iter().map(move |row| clock.poll(thread, row));
    let gaps = buffers.gaps.rows.iter().map(move |row| clock.gap(thread, row));
    let reads = buffers.reads.rows.iter().map(move |row| clock.read(thread, row));
    let replies = buffers.replies.rows.iter().map(move |row| clock.reply(thread, row));
    let operations = buffers.operations.rows.iter().map(move |row| clock.operation(thread, row));
    let calls = buffers.calls.rows.iter().map(move |row| clock.call(row));
    polls.chain(gaps).chain(reads).chain(replies).chain(operations).chain(calls)
}

/// The proposals, in the order of their ids, each with all of its moments.
fn proposals(clock: &Clock, threads: &[(Arc<Thread>, Buffers)]) -> Vec<Stamp> {
    let mut queued: HashMap<u64, u64> = HashMap::new();
    for operation in threads.iter().flat_map(|(_, buffers)| &buffers.operations.rows).filter(|o| o.proposal != 0) {
        let first = queued.entry(operation.proposal).or_insert(operation.queued);
        *first = operation.queued.min(*first);
    }
    let mut proposals: BTreeMap<u64, Vec<(u64, What, u32)>> = BTreeMap::new();
    for (thread, row) in threads.iter().flat_map(|(thread, b)| b.marks.rows.iter().map(|row| (thread.id, row))) {
        proposals.entry(row.proposal).or_default().push((row.at, row.what, thread));
    }
    let stamp = |(proposal, mut marks): (u64, Vec<(u64, What, u32)>)| {
        marks.sort_by_key(|(at, ..)| *at);
        let thread = marks.first().map_or(0, |(.., thread)| *thread);
        let mut stamp = Stamp { proposal: Some(proposal), ..Stamp::new(Event::Proposal, "", thread) };
        stamp.queued_ns = queued.get(&proposal).and_then(|at| clock.at(*at));
        for (at, what, _) in marks {
            // A proposal that got no answer in time is sent again: what it went through before, nobody waited for.
            if matches!(what, What::Reached(Mark::Received)) {
                stamp = Stamp { first: None, proposed_ns: None, committed_ns: None, answered_ns: None, ..stamp };
            }
            match what {
                What::Index(index) => stamp.first = Some(index),
                What::Reached(mark) => *moment(&mut stamp, mark) = clock.at(at),
            }
        }
        stamp
    };
    proposals.into_iter().map(stamp).collect()
}

fn moment(stamp: &mut Stamp, mark: Mark) -> &mut Option<u64> {
    match mark {
        Mark::Sent => &mut stamp.sent_ns,
        Mark::Received => &mut stamp.received_ns,
        Mark::Proposed => &mut stamp.proposed_ns,
        Mark::Committed => &mut stamp.committed_ns,
        Mark::Answered => &mut stamp.answered_ns,
        Mark::Returned => &mut stamp.returned_ns,
    }
}

struct Clock(Calibration);

impl Clock {
    fn at(&self, ticks: u64) -> Option<u64> {
        (ticks != 0).then(|| self.0.monotonic_ns(ticks))
    }

    fn poll(&self, thread: u32, row: &PollRow) -> Stamp {
        let stamp = Stamp {
            woken_ns: self.at(row.woken),
            started_ns: self.at(row.began),
            finished_ns: self.at(row.ended),
            ..Stamp::new(Event::Poll, row.role.name(), thread)
        };
        with_usage(stamp, row.usage)
    }

    fn gap(&self, thread: u32, row: &GapRow) -> Stamp {
        let stamp = Stamp {
            started_ns: self.at(row.began),
            finished_ns: self.at(row.ended),
            ..Stamp::new(Event::Gap, "", thread)
        };
        let usage = Usage { cpu_ns: 0, run_delay_ns: Some(row.run_delay_ns) };
        Stamp { cpu_ns: None, ..with_usage(stamp, Some(usage)) }
    }

    fn read(&self, thread: u32, row: &ReadRow) -> Stamp {
        Stamp {
            shard: Some(u32::from(row.shard)),
            conn: Some(row.conn),
            port: Some(row.port),
            offset: Some(row.offset),
            count: u32::try_from(row.bytes).ok(),
            woken_ns: self.at(row.woken),
            started_ns: self.at(row.started),
            resumed_ns: self.at(row.resumed),
            ..Stamp::new(Event::Read, "", thread)
        }
    }

    fn reply(&self, thread: u32, row: &ReplyRow) -> Stamp {
        Stamp {
            shard: Some(u32::from(row.shard)),
            conn: Some(row.conn),
            port: Some(row.port),
            offset: Some(row.offset),
            count: u32::try_from(row.bytes).ok(),
            op: row.op.map(|op| op.0),
            queued_ns: self.at(row.queued),
            finished_ns: self.at(row.finished),
            ..Stamp::new(Event::Reply, "", thread)
        }
    }

    fn operation(&self, thread: u32, row: &OperationRow) -> Stamp {
        let stamp = Stamp {
            worker: (row.worker != 0).then_some(row.worker),
            shard: Some(u32::from(row.shard)),
            conn: row.cause.read.map(|(conn, _)| conn),
            offset: row.cause.read.map(|(_, offset)| offset),
            op: Some(row.op.0),
            after: row.cause.op.map(|op| op.0),
            proposal: (row.proposal != 0).then_some(row.proposal),
            queued_ns: self.at(row.queued),
            started_ns: self.at(row.started),
            finished_ns: self.at(row.finished),
            woken_ns: self.at(row.woken),
            resumed_ns: self.at(row.resumed),
            ..Stamp::new(Event::Op, row.name, thread)
        };
        with_usage(stamp, row.usage)
    }

    fn call(&self, row: &CallRow) -> Stamp {
        let stamp = Stamp {
            first: Some(row.first),
            count: Some(row.count),
            queued_ns: self.at(row.queued),
            started_ns: self.at(row.started),
            finished_ns: self.at(row.finished),
            woken_ns: self.at(row.woken),
            resumed_ns: self.at(row.resumed),
            ..Stamp::new(Event::Call, row.step.name(), row.thread)
        };
        let Some(detail) = row.detail else { return stamp };
        let stamp = Stamp {
            voluntary: Some(detail.switches.voluntary),
            involuntary: Some(detail.switches.involuntary),
            wal_ns: Some(detail.wal_ns),
            memtable_ns: Some(detail.memtable_ns),
            delay_ns: Some(detail.delay_ns),
            thread_wait_ns: detail.thread_wait_ns,
            ..stamp
        };
        with_usage(stamp, Some(detail.usage))
    }
}

/// The usage was cut to a wall time by the clock's rough rate; here, by the exact one.
fn with_usage(stamp: Stamp, usage: Option<Usage>) -> Stamp {
    let Some((usage, (from, to))) = usage.zip(stamp.started_ns.zip(stamp.finished_ns)) else { return stamp };
    let wall_ns = to.saturating_sub(from);
    let run_delay_ns = usage.run_delay_ns.map(|delay| delay.min(wall_ns));
    let cpu_ns = usage.cpu_ns.min(wall_ns - run_delay_ns.unwrap_or(0));
    Stamp { cpu_ns: Some(cpu_ns), run_delay_ns, ..stamp }
}
