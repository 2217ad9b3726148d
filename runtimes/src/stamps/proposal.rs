//! The moments of a proposal, noted wherever it is at the time, and put together at the end.

use super::limits::Limits;
use super::{Mark, collect, is_on, slow, thread};
use regauge_traces::ticks;

/// What became known of a proposal.
#[derive(Debug, Clone, Copy)]
pub(super) struct MarkRow {
    pub proposal: u64,
    /// In ticks.
    pub at: u64,
    pub what: What,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// A moment.
    Reached(Mark),
    /// Its index in the log.
    Index(u64),
}

/// A proposal reached `mark`. When, in ticks; 0 while stamps are off.
pub fn mark(proposal: u64, mark: Mark) -> u64 {
    if !is_on() {
        return 0;
    }
    let at = ticks::now();
    keep(MarkRow { proposal, at, what: What::Reached(mark) });
    at
}

/// As [`mark`], of a moment that ends what began at the moment `since`.
pub fn mark_after(proposal: u64, mark: Mark, since: u64) {
    if since != 0
        && let Some(limits) = collect::limits()
        && is_on()
    {
        slow::is_slow(limits, since, self::mark(proposal, mark));
    }
}

/// The log index that a proposal got, known when it is applied.
pub fn indexed(proposal: u64, index: u64) {
    if is_on() {
        keep(MarkRow { proposal, at: ticks::now(), what: What::Index(index) });
    }
}

fn keep(row: MarkRow) {
    // By the proposal and not by the time, so that a proposal keeps all of its moments.
    let choice = Limits::keeps(row.proposal);
    thread::with_buffers(|buffers| buffers.marks.push(row, choice));
}
