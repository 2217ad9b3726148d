//! The way of a closed span from the thread that closed it to the writer: a bounded ring per thread.

use rtrb::Consumer;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};

use super::table::{Slot, Taken};

/// A span that is over, in ticks.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) id: u64,
    /// 0: none.
    pub(super) parent: u64,
    pub(super) start: u64,
    /// 0: it was still open when the recording ended.
    pub(super) end: u64,
    pub(super) busy: u64,
    pub(super) plan: u32,
    pub(super) thread: u32,
    pub(super) fields: Taken,
}

impl Closed {
    #[inline]
    pub(super) fn of(slot: &Slot, end: u64) -> Closed {
        Closed {
            id: slot.id.load(Relaxed),
            parent: slot.parent.load(Relaxed),
            start: slot.start.load(Relaxed),
            end,
            busy: slot.busy_own.load(Relaxed) + slot.busy_others.load(Relaxed),
            plan: slot.plan.load(Relaxed),
            thread: slot.thread.load(Relaxed),
            fields: slot.take(),
        }
    }
}

/// The writer's end of a thread's ring.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) spans: Consumer<Closed>,
    /// Spans that found it full. Written by the thread alone.
    pub(super) full: Arc<AtomicU64>,
}

impl Ring {
    /// The thread has ended and everything that it left is taken.
    pub(super) fn is_over(&self) -> bool {
        // In this order: what was pushed before the end is seen once the end is.
        self.spans.is_abandoned() && self.spans.is_empty()
    }
}
