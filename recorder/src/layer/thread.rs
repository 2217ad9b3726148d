//! A thread's own part of a recording: what it is in, and its end of a ring. No other thread touches it.

use rtrb::{Producer, RingBuffer};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Arc, Weak};
use tracing_core::Metadata;

use super::ring::{Closed, Ring};
use super::shared::Shared;

/// Callsites that a thread remembers without looking them up.
const REMEMBERED: usize = 64;

thread_local! {
    /// One entry per recording that this thread has taken part in; the one in use stands first.
    static LOCALS: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) };
}

/// A span that this thread is in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entered {
    pub(super) key: u64,
    pub(super) index: u32,
    /// It was in it already, so this adds no time.
    pub(super) again: bool,
    /// The parent of what is opened here.
    pub(super) id: u64,
    pub(super) ticks: u64,
}

#[derive(Debug)]
pub(super) struct Local {
    recording: u64,
    shared: Weak<Shared>,
    /// Unlike the system's ids of threads, never used again.
    pub(super) number: u32,
    /// The system's id.
    pub(super) thread: u32,
    pub(super) stack: Vec<Entered>,
    pub(super) free_slots: Vec<u32>,
    ids: (u64, u64),
    plans: [(usize, u32); REMEMBERED],
    ring: Producer<Closed>,
    full: Arc<AtomicU64>,
}

/// Why a thread cannot act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unable {
    /// It is about to format a field of a span, and that opens a span itself.
    Nested,
    /// It is at its end, its own storage gone.
    Ended,
}

/// Acts on this thread's part of a recording.
#[inline]
pub(super) fn with_local<T>(shared: &Arc<Shared>, act: impl FnOnce(&mut Local) -> T) -> Result<T, Unable> {
    let acted = LOCALS.try_with(|locals| {
        let mut locals = locals.try_borrow_mut().map_err(|_| Unable::Nested)?;
        if locals.first().is_none_or(|local| local.recording != shared.number) {
            put_first(&mut locals, shared);
        }
        locals.first_mut().map(act).ok_or(Unable::Ended)
    });
    acted.unwrap_or(Err(Unable::Ended))
}

#[cold]
fn put_first(locals: &mut Vec<Local>, shared: &Arc<Shared>) {
    match locals.iter().position(|local| local.recording == shared.number) {
        Some(at) => locals.swap(0, at),
        None => {
            locals.retain(|local| local.shared.upgrade().is_some_and(|other| !other.ended.load(Relaxed)));
            locals.insert(0, shared.join());
        }
    }
}

impl Local {
    pub(super) fn new(shared: &Arc<Shared>, number: u32) -> (Ring, Local) {
        let (ring, spans) = RingBuffer::new(shared.options.ring.max(1));
        let full = Arc::new(AtomicU64::new(0));
        let local = Local {
            recording: shared.number,
            shared: Arc::downgrade(shared),
            number,
            thread: u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap_or(0),
            stack: Vec::with_capacity(16),
            free_slots: Vec::new(),
            ids: (0, 0),
            plans: [(0, 0); REMEMBERED],
            ring,
            full: Arc::clone(&full),
        };
        (Ring { spans, full }, local)
    }

    #[inline]
    pub(super) fn next_id(&mut self, shared: &Shared) -> u64 {
        if self.ids.0 == self.ids.1 {
            self.ids = shared.take_ids();
        }
        self.ids.0 += 1;
        self.ids.0 - 1
    }

    #[inline]
    pub(super) fn plan_of(&mut self, shared: &Shared, metadata: &'static Metadata<'static>) -> u32 {
        let address = std::ptr::from_ref(metadata) as usize;
        // Callsites are statics of some hundred bytes.
        let Some(remembered) = self.plans.get_mut((address >> 5) % REMEMBERED) else { return u32::MAX };
        if remembered.0 != address {
            *remembered = (address, shared.plan_of(metadata));
        }
        remembered.1
    }

    /// Takes a span off the stack; it need not be the innermost.
    #[inline]
    pub(super) fn leave(&mut self, key: u64) -> Option<Entered> {
        match self.stack.last() {
            Some(last) if last.key == key => self.stack.pop(),
            _ => {
                let at = self.stack.iter().rposition(|entered| entered.key == key)?;
                Some(self.stack.remove(at))
            }
        }
    }

    #[inline]
    pub(super) fn push(&mut self, closed: Closed) {
        if self.ring.push(closed).is_err() {
            // Only this thread writes it.
            self.full.store(self.full.load(Relaxed) + 1, Relaxed);
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.give_slots(self.free_slots.drain(..));
        }
    }
}
