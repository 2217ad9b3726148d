//! What a thread reads of itself around a blocking call, and what a pool's thread waited for a CPU before one.
//!
//! A reading costs one or two microseconds, and a busy pool makes a call every few of them. So a thread keeps its last
//! reading: before a call it is taken again when it is older than [`limits::STALE_NS`], and after a call when it was
//! taken anew before it or the call was long. Of the others nothing is said.
//!
//! A thread of a pool sleeps between its calls, so what it has waited for a CPU since the last one, it has waited just
//! before this one: that becomes a gap which ends where the call begins.
//!
//! [`limits::STALE_NS`]: super::limits::STALE_NS

use super::limits::{LONG_GAP_NS, Limits};
use super::thread::{self, GapRow};
use super::usage::Usage;
use regauge_traces::ticks;
use std::cell::Cell;

/// What this thread last read of itself.
#[derive(Debug, Clone, Copy)]
struct Last {
    /// In ticks; 0: never.
    at: u64,
    /// `None`: calls were made since that nobody looked at.
    usage: Option<Usage>,
    /// Time in calls since, ticks.
    busy: u64,
    /// When the last call that was looked at ended, read or not; ticks.
    ended: u64,
}

thread_local! {
    // A new thread has used nothing yet.
    static LAST: Cell<Last> =
        const { Cell::new(Last { at: 0, usage: Some(Usage { cpu_ns: 0, run_delay_ns: Some(0) }), busy: 0, ended: 0 }) };
}

/// A blocking call that is about to be made.
#[derive(Debug)]
#[must_use]
pub(super) struct Around {
    before: Usage,
    others_ns: u64,
    is_fresh: bool,
}

impl Around {
    /// Reads, if the last reading is too old for this call or `always`. `None` while the thread ends.
    pub(super) fn begin(limits: &Limits, always: bool) -> Option<Around> {
        let (last, now) = (LAST.get(), ticks::now());
        if let Some(before) = last.usage
            && !always
            && last.at != 0
            && now.saturating_sub(last.at) < limits.stale
        {
            return Some(Around { before, others_ns: limits.ns(last.busy), is_fresh: false });
        }
        let usage = read()?;
        if let Some(before) = last.usage
            && thread::current_poll() == (0, 0)
        {
            waited(limits, last.at.max(last.ended), now, before, usage);
        }
        LAST.set(Last { at: now, usage: Some(usage), busy: 0, ended: last.ended });
        Some(Around { before: usage, others_ns: 0, is_fresh: true })
    }

    /// The call has been made, from `started` to `finished` in ticks. What it used, if that is known.
    pub(super) fn end(self, limits: &Limits, started: u64, finished: u64) -> Option<Usage> {
        let lasted = finished.saturating_sub(started);
        if !self.is_fresh && lasted < limits.read_every {
            let last = LAST.get();
            LAST.set(Last { busy: last.busy + lasted, ended: finished, ..last });
            return None;
        }
        let after = read()?;
        LAST.set(Last { at: ticks::now(), usage: Some(after), busy: 0, ended: finished });
        Some(after.since(self.before, self.others_ns, limits.ns(lasted)))
    }
}

/// A call is made without a look at the counters: what the thread uses from here on is not the next call's.
pub(super) fn unread() {
    LAST.set(Last { usage: None, ..LAST.get() });
}

fn read() -> Option<Usage> {
    thread::with_thread("blocking", |_, reader| reader.read())
}

/// The thread was idle since `idle`, and is at its next call.
fn waited(limits: &Limits, idle: u64, now: u64, before: Usage, usage: Usage) {
    let delay_ns = usage.run_delay_ns.zip(before.run_delay_ns).map_or(0, |(now, then)| now.saturating_sub(then));
    if delay_ns < LONG_GAP_NS {
        return;
    }
    let began = now.saturating_sub(limits.ticks(delay_ns)).max(idle);
    let run_delay_ns = delay_ns.min(limits.ns(now.saturating_sub(began)));
    thread::with_buffers(|buffers| buffers.gaps.push(GapRow { began, ended: now, run_delay_ns }, true));
}
