//! The moments of a proposal, noted wherever it is at the time, and put together at the end.

use super::limits::Limits;
use super::{Mark, is_on, thread};
use regauge_traces::ticks;

/// What became known of a proposal.
#[derive(Debug, Clone, Copy)]
pub(super) struct MarkRow {
    pub proposal: u64,
    pub what: What,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// A moment, in ticks.
    Reached(Mark, u64),
    /// Its index in the log.
    Index(u64),
}

/// A proposal reached `mark`.
pub fn mark(proposal: u64, mark: Mark) {
    if is_on() {
        keep(MarkRow { proposal, what: What::Reached(mark, ticks::now()) });
    }
}

/// The log index that a proposal got, known when it is applied.
pub fn indexed(proposal: u64, index: u64) {
    if is_on() {
        keep(MarkRow { proposal, what: What::Index(index) });
    }
}

fn keep(row: MarkRow) {
    // By the proposal and not by the time, so that a proposal keeps all of its moments.
    let choice = Limits::keeps(row.proposal);
    thread::with_buffers(|buffers| buffers.marks.push(row, choice));
}
