//! When something slow was under way, so that what belongs to it is kept too.
//!
//! That a request was slow is known at its end, when what it did before has been noted already. So a row that would be
//! thinned is held for a while ([`super::thread::Rows`]), and is kept if its time lies within, or just beside, that of
//! anything slow on any thread.

use super::limits::Limits;
use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

/// From, to, in ticks.
static SLOW: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

thread_local! {
    /// What this thread has said last.
    static SAID: Cell<(u64, u64)> = const { Cell::new((1, 0)) };
}

/// Something took from `from` to `to`, ticks. Whether that is slow.
#[inline]
pub(super) fn is_slow(limits: &Limits, from: u64, to: u64) -> bool {
    let is_slow = to.saturating_sub(from) >= limits.slow;
    if is_slow {
        note(limits, from, to);
    }
    is_slow
}

#[cold]
fn note(limits: &Limits, from: u64, to: u64) {
    let said = SAID.get();
    // Where everything is slow, little is new: the margin keeps the lock rare.
    if said.0 <= from && to <= said.1 {
        return;
    }
    let span = (from.saturating_sub(limits.beside), to.saturating_add(limits.beside));
    SAID.set(span);
    let mut all = SLOW.lock().unwrap_or_else(PoisonError::into_inner);
    match all.last_mut() {
        Some(last) if last.0 <= span.1 && span.0 <= last.1 => *last = (last.0.min(span.0), last.1.max(span.1)),
        _ => all.push(span),
    }
}

/// Everything slow so far, in order and without overlaps.
pub(super) fn all() -> Vec<(u64, u64)> {
    let mut all = SLOW.lock().unwrap_or_else(PoisonError::into_inner);
    all.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(all.len());
    for span in all.iter() {
        match merged.last_mut() {
            Some(last) if span.0 <= last.1 => last.1 = last.1.max(span.1),
            _ => merged.push(*span),
        }
    }
    all.clone_from(&merged);
    merged
}

/// Whether `at` lies in one of these.
pub(super) fn holds(all: &[(u64, u64)], at: u64) -> bool {
    let next = all.partition_point(|span| span.0 <= at);
    next.checked_sub(1).and_then(|i| all.get(i)).is_some_and(|span| at <= span.1)
}

/// Forgets everything: another run begins.
pub(super) fn clear() {
    SLOW.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_within_the_last_span_that_began_before_it() {
        let all = [(10, 20), (30, 30), (40, 50)];
        let within: Vec<u64> = (0..60).filter(|at| holds(&all, *at)).collect();
        let expected: Vec<u64> = (10..=20).chain([30]).chain(40..=50).collect();
        assert_eq!(within, expected);
    }
}
