//! The open spans: a table of slots that any thread reads and writes without a lock.
//!
//! tracing promises that whoever uses a span's id holds a reference to the span, and that closing comes after
//! everything else; how the id reached a thread has made the slot's contents visible to it. So plain (relaxed) stores
//! and loads suffice but for the key, which says whose the slot is. A broken promise mixes up two spans; it cannot do
//! worse, as all parts are atomics. Slots are never given back to the system, only used again.
//!
//! Two ways lead to a slot. The recorder's own subscriber chooses the ids, so an id holds its slot's index. On a
//! registry the ids are the registry's, and a few places of the table are looked at, beginning with one that its ids
//! of one thread fill densely.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::fields::{Fields, Target};

const CHUNK: usize = 1024;

/// Places where a registry's id may stand.
const PLACES: u64 = 8;

/// Their distance: far, since threads fill the table in runs.
const STRIDE: u64 = 7477;

const HAS_SESSION: u32 = 1 << 16;
const PARTITION: u32 = 1 << 17;
const PROPOSAL: u32 = 1 << 18;
const TEXT: u32 = 1 << 19;
/// The slot is filled with a span that is recorded.
const RECORDED: u32 = 1 << 20;

/// An open span.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Slot {
    /// tracing's id of the span; 0: free.
    pub(super) key: AtomicU64,
    /// Its id in the trace; of a span that is not recorded, that of its nearest recorded ancestor; 0: none.
    pub(super) id: AtomicU64,
    pub(super) parent: AtomicU64,
    pub(super) start: AtomicU64,
    /// Ticks within it on the thread that opened it, which alone writes this.
    pub(super) busy_own: AtomicU64,
    /// Ticks within it on other threads.
    pub(super) busy_others: AtomicU64,
    /// Number of the thread that opened it.
    pub(super) owner: AtomicU32,
    /// OS thread that was within it last.
    pub(super) thread: AtomicU32,
    pub(super) plan: AtomicU32,
    /// References, where the recorder counts them.
    pub(super) refs: AtomicU32,
    generation: AtomicU32,
    count: AtomicU32,
    session: AtomicU64,
    bytes: AtomicU64,
    number: AtomicU64,
    /// QoS, status, and which of the others were given.
    given: AtomicU32,
    /// The one part that is not a number; locked only where there is one, and while fields are added to an open span.
    text: Mutex<Option<Box<str>>>,
}

/// A slot's fields, taken out.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) session: Option<u64>,
    pub(super) target: Target,
    pub(super) bytes: u64,
    pub(super) count: u32,
    pub(super) qos: u8,
    pub(super) status: u8,
}

impl Slot {
    /// Fills in the fields of a new span. Last of all, since it makes the slot one of a recorded span.
    #[inline]
    pub(super) fn fill(&self, fields: Fields) {
        let mut given = RECORDED | u32::from(fields.qos.unwrap_or(0)) | u32::from(fields.status.unwrap_or(0)) << 8;
        if let Some(session) = fields.session {
            self.session.store(session, Relaxed);
            given |= HAS_SESSION;
        }
        self.bytes.store(fields.bytes.unwrap_or(0), Relaxed);
        self.count.store(fields.count.unwrap_or(1), Relaxed);
        given |= self.set_target(fields.target);
        self.given.store(given, Release);
    }

    /// Nothing of this span is recorded; it only passes on its ancestor.
    #[inline]
    pub(super) fn fill_unrecorded(&self) {
        self.given.store(0, Release);
    }

    #[inline]
    pub(super) fn is_recorded(&self) -> bool {
        self.given.load(Acquire) & RECORDED != 0
    }

    #[inline]
    fn set_target(&self, target: Target) -> u32 {
        match target {
            Target::None => 0,
            Target::Partition(number) => {
                self.number.store(number, Relaxed);
                PARTITION
            }
            Target::Proposal(number) => {
                self.number.store(number, Relaxed);
                PROPOSAL
            }
            Target::Text(text) => {
                *self.text.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                TEXT
            }
        }
    }

    /// Adds fields that became known later.
    pub(super) fn add(&self, fields: Fields) {
        // Threads that add to one span take turns.
        let turn = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let mut given = self.given.load(Acquire);
        if let Some(session) = fields.session {
            self.session.store(session, Relaxed);
            given |= HAS_SESSION;
        }
        if let Some(bytes) = fields.bytes {
            self.bytes.store(bytes, Relaxed);
        }
        if let Some(count) = fields.count {
            self.count.store(count, Relaxed);
        }
        if let Some(qos) = fields.qos {
            given = given & !0xff | u32::from(qos);
        }
        if let Some(status) = fields.status {
            given = given & !0xff00 | u32::from(status) << 8;
        }
        drop(turn);
        let weaker = matches!(fields.target, Target::Proposal(_)) && given & (PARTITION | TEXT) != 0;
        if fields.target != Target::None && !weaker {
            given = given & !(PARTITION | PROPOSAL | TEXT) | self.set_target(fields.target);
        }
        self.given.store(given, Release);
    }

    #[inline]
    pub(super) fn take(&self) -> Taken {
        let given = self.given.load(Relaxed);
        let number = self.number.load(Relaxed);
        let target = if given & TEXT != 0 {
            let text = self.text.lock().unwrap_or_else(PoisonError::into_inner).take();
            text.map_or(Target::None, Target::Text)
        } else if given & PARTITION != 0 {
            Target::Partition(number)
        } else if given & PROPOSAL != 0 {
            Target::Proposal(number)
        } else {
            Target::None
        };
        Taken {
            session: (given & HAS_SESSION != 0).then(|| self.session.load(Relaxed)),
            target,
            bytes: self.bytes.load(Relaxed),
            count: self.count.load(Relaxed),
            qos: given as u8,
            status: (given >> 8) as u8,
        }
    }

    #[inline]
    pub(super) fn free(&self) {
        self.given.store(0, Relaxed);
        self.key.store(0, Release);
    }
}

/// All slots.
#[derive(Debug)]
pub(super) struct Table {
    chunks: Box<[OnceLock<Box<[Slot]>>]>,
}

impl Table {
    pub(super) fn new(slots: usize) -> Table {
        let chunks = slots.clamp(1, u32::MAX as usize / 2).div_ceil(CHUNK).next_power_of_two();
        Table { chunks: (0..chunks).map(|_| OnceLock::new()).collect() }
    }

    #[inline]
    pub(super) fn capacity(&self) -> u32 {
        u32::try_from(self.chunks.len() * CHUNK).unwrap_or(u32::MAX)
    }

    #[inline]
    pub(super) fn slot(&self, index: u32) -> Option<&Slot> {
        self.chunks.get(index as usize / CHUNK)?.get()?.get(index as usize % CHUNK)
    }

    #[inline]
    fn slot_or_new(&self, index: u32) -> Option<&Slot> {
        let chunk = self.chunks.get(index as usize / CHUNK)?;
        chunk.get_or_init(|| (0..CHUNK).map(|_| Slot::default()).collect()).get(index as usize % CHUNK)
    }

    /// The slots that were ever used.
    pub(super) fn used(&self) -> impl Iterator<Item = &Slot> {
        self.chunks.iter().filter_map(OnceLock::get).flat_map(|chunk| chunk.iter())
    }

    /// Takes a free slot over under a new id of the recorder's own, which it gives back.
    #[inline]
    pub(super) fn claim_own(&self, index: u32) -> Option<(u64, &Slot)> {
        let slot = self.slot_or_new(index)?;
        let generation = slot.generation.load(Relaxed).wrapping_add(1);
        slot.generation.store(generation, Relaxed);
        let key = u64::from(generation) << 32 | u64::from(index + 1);
        slot.key.store(key, Relaxed);
        Some((key, slot))
    }

    /// The slot of an id of the recorder's own.
    #[inline]
    pub(super) fn find_own(&self, key: u64) -> Option<(u32, &Slot)> {
        let index = (key as u32).wrapping_sub(1);
        let slot = self.slot(index)?;
        (slot.key.load(Acquire) == key).then_some((index, slot))
    }

    /// Takes a free slot for an id of somebody else's.
    #[inline]
    pub(super) fn claim(&self, key: u64) -> Option<&Slot> {
        self.places(key).find_map(|index| {
            let slot = self.slot_or_new(index)?;
            let free = slot.key.load(Relaxed) == 0 && slot.key.compare_exchange(0, key, Acquire, Relaxed).is_ok();
            free.then_some(slot)
        })
    }

    /// The slot of an id of somebody else's.
    #[inline]
    pub(super) fn find(&self, key: u64) -> Option<(u32, &Slot)> {
        self.places(key).find_map(|index| {
            let slot = self.slot(index)?;
            (slot.key.load(Acquire) == key).then_some((index, slot))
        })
    }

    /// Where an id of somebody else's may stand. tracing-subscriber's registry packs an address that is dense per
    /// thread into the low 38 bits, the thread into the next 13, and how often the address was used into the rest;
    /// leaving the last out lets a thread use the same slot again and again. With other ids this only spreads worse.
    #[inline]
    fn places(&self, key: u64) -> impl Iterator<Item = u32> + use<> {
        let id = key.wrapping_sub(1);
        let thread = id >> 38 & 0x1fff;
        let home = (id & ((1 << 38) - 1)).wrapping_add(thread.wrapping_mul(0x9e37_79b1));
        let mask = u64::from(self.capacity()) - 1;
        (0..PLACES).map(move |place| (home.wrapping_add(place * STRIDE) & mask) as u32)
    }
}
