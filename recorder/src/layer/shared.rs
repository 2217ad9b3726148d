//! What all threads of a recording share, and the four things that happen to a span: opened, entered, left, closed.

use regauge_traces::{Redactor, ticks};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tracing_core::{Metadata, span};

use super::fields::{Fields, Reading};
use super::options::LayerOptions;
use super::plan::Plan;
use super::ring::{Closed, Ring};
use super::table::{Slot, Table};
use super::thread::{Entered, Local, Unable, with_local};

/// Callsites that a recording can tell apart; a program with more spans in its source loses those of the rest.
const PLANS: usize = 8192;

/// Slots that a thread takes from the common ones, or gives back, at a time.
const SLOTS: usize = 64;

/// Ids that a thread takes at a time.
const IDS: u64 = 1024;

static RECORDINGS: AtomicU64 = AtomicU64::new(0);

/// One recording.
#[derive(Debug)]
pub(super) struct Shared {
    /// Tells recordings of one process apart.
    pub(super) number: u64,
    pub(super) options: LayerOptions,
    pub(super) redactor: Redactor,
    pub(super) table: Table,
    plans: Box<[OnceLock<Plan>]>,
    plan_of: Mutex<HashMap<usize, u32>>,
    free_slots: Mutex<Vec<u32>>,
    fresh_slots: AtomicU32,
    ids: AtomicU64,
    threads: AtomicU32,
    new_rings: Mutex<Vec<Ring>>,
    /// Nothing is recorded any more.
    pub(super) ended: AtomicBool,
    pub(super) lost: Lost,
}

/// Spans that were lost for rare reasons; those that found a ring full are counted at the ring.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// More were open at once than the table holds.
    pub(super) open_spans: AtomicU64,
    /// Closed by a thread after its thread-local storage was gone.
    pub(super) thread_ended: AtomicU64,
    /// Opened while a field of another span was being formatted.
    pub(super) nested: AtomicU64,
}

impl Lost {
    fn count(&self, why: Unable) -> u64 {
        match why {
            Unable::Nested => self.nested.fetch_add(1, Relaxed),
            Unable::Ended => self.thread_ended.fetch_add(1, Relaxed),
        }
    }
}

/// Where a recording's ids come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ids {
    /// The recorder is the subscriber.
    Own,
    /// The subscriber is somebody else's.
    Foreign,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(options: LayerOptions, redactor: Redactor) -> Shared {
        Shared {
            number: RECORDINGS.fetch_add(1, Relaxed) + 1,
            table: Table::new(options.open_spans),
            options,
            redactor,
            plans: (0..PLANS).map(|_| OnceLock::new()).collect(),
            plan_of: Mutex::default(),
            free_slots: Mutex::default(),
            fresh_slots: AtomicU32::new(0),
            // 0 stands for no parent.
            ids: AtomicU64::new(1),
            threads: AtomicU32::new(0),
            new_rings: Mutex::default(),
            ended: AtomicBool::new(false),
            lost: Lost::default(),
        }
    }

    #[inline]
    pub(super) fn plan(&self, index: u32) -> Option<&Plan> {
        self.plans.get(index as usize)?.get()
    }

    /// The plan of a callsite, made when it is first seen. Threads remember what this says.
    pub(super) fn plan_of(&self, metadata: &'static Metadata<'static>) -> u32 {
        let mut known = lock(&self.plan_of);
        let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
        let index = *known.entry(std::ptr::from_ref(metadata) as usize).or_insert(next);
        if let Some(plan) = self.plans.get(index as usize) {
            plan.get_or_init(|| Plan::of(metadata, self.options.wants(metadata)));
        }
        index
    }

    /// A thread that was not here before.
    pub(super) fn join(self: &Arc<Shared>) -> Local {
        let (ring, local) = Local::new(self, self.threads.fetch_add(1, Relaxed));
        lock(&self.new_rings).push(ring);
        local
    }

    pub(super) fn take_new_rings(&self) -> Vec<Ring> {
        std::mem::take(&mut *lock(&self.new_rings))
    }

    pub(super) fn take_ids(&self) -> (u64, u64) {
        let first = self.ids.fetch_add(IDS, Relaxed);
        (first, first + IDS)
    }

    fn take_slots(&self, slots: &mut Vec<u32>) {
        let mut free = lock(&self.free_slots);
        let from = free.len().saturating_sub(SLOTS);
        slots.extend(free.drain(from..));
        if slots.is_empty() {
            let taken = self
                .fresh_slots
                .fetch_update(Relaxed, Relaxed, |next| (next < self.table.capacity()).then(|| next + SLOTS as u32));
            if let Ok(first) = taken {
                slots.extend((first..first + SLOTS as u32).rev());
            }
        }
    }

    pub(super) fn give_slots(&self, slots: impl IntoIterator<Item = u32>) {
        lock(&self.free_slots).extend(slots);
    }

    #[inline]
    fn find(&self, ids: Ids, key: u64) -> Option<(u32, &Slot)> {
        match ids {
            Ids::Own => self.table.find_own(key),
            Ids::Foreign => self.table.find(key),
        }
    }

    /// A span was made. With ids of the recorder's own, says which it got; `None`: it is lost.
    #[inline]
    pub(super) fn open(self: &Arc<Shared>, ids: Ids, attrs: &span::Attributes<'_>, key: Option<u64>) -> Option<u64> {
        if self.ended.load(Relaxed) {
            return None;
        }
        let start = ticks::now();
        let opened = with_local(self, |local| {
            let plan_index = local.plan_of(self, attrs.metadata());
            let plan = self.plan(plan_index)?;
            let fields = match plan.has_fields {
                true => self.read(plan, |reading| attrs.record(reading)),
                false => Fields::default(),
            };
            let parent = if attrs.is_root() {
                0
            } else if attrs.is_contextual() {
                local.stack.last().map_or(0, |entered| entered.id)
            } else {
                let parent = attrs.parent().and_then(|parent| self.find(ids, parent.into_u64()));
                parent.map_or(0, |(_, parent)| parent.id.load(Relaxed))
            };
            let (key, slot) = match key {
                None => {
                    if local.free_slots.is_empty() {
                        self.take_slots(&mut local.free_slots);
                    }
                    self.table.claim_own(local.free_slots.pop()?)?
                }
                Some(key) => (key, self.table.claim(key)?),
            };
            slot.parent.store(parent, Relaxed);
            slot.start.store(start, Relaxed);
            slot.busy_own.store(0, Relaxed);
            slot.busy_others.store(0, Relaxed);
            slot.owner.store(local.number, Relaxed);
            slot.thread.store(local.thread, Relaxed);
            slot.plan.store(plan_index, Relaxed);
            slot.refs.store(1, Relaxed);
            if plan.kind.is_some() {
                slot.id.store(local.next_id(self), Relaxed);
                slot.fill(fields);
            } else {
                slot.id.store(parent, Relaxed);
                slot.fill_unrecorded();
            }
            Some(key)
        });
        match opened {
            Ok(Some(key)) => return Some(key),
            Ok(None) => self.lost.open_spans.fetch_add(1, Relaxed),
            Err(why) => self.lost.count(why),
        };
        None
    }

    #[inline]
    fn read(&self, plan: &Plan, record: impl FnOnce(&mut Reading<'_>)) -> Fields {
        let mut reading = Reading::new(plan, &self.redactor);
        record(&mut reading);
        reading.fields
    }

    /// Fields of an open span became known.
    pub(super) fn record(&self, ids: Ids, key: u64, values: &span::Record<'_>) {
        let Some((_, slot)) = self.find(ids, key) else { return };
        if let Some(plan) = self.plan(slot.plan.load(Relaxed)).filter(|plan| plan.has_fields) {
            slot.add(self.read(plan, |reading| values.record(reading)));
        }
    }

    /// This thread works on a span from now on.
    #[inline]
    pub(super) fn enter(self: &Arc<Shared>, ids: Ids, key: u64) {
        let entered = with_local(self, |local| {
            let Some((index, slot)) = self.find(ids, key) else { return };
            let again = local.stack.iter().any(|entered| entered.key == key);
            // The clock last: what came before is not the span's own time.
            local.stack.push(Entered { key, index, again, id: slot.id.load(Relaxed), ticks: ticks::now() });
        });
        // Whatever keeps the thread from it keeps it from the exit too.
        let _ = entered;
    }

    /// This thread works on it no longer.
    #[inline]
    pub(super) fn exit(self: &Arc<Shared>, key: u64) {
        let now = ticks::now();
        let left = with_local(self, |local| {
            let Some(entered) = local.leave(key) else { return };
            let Some(slot) = self.table.slot(entered.index).filter(|slot| slot.key.load(Relaxed) == key) else {
                return;
            };
            if entered.again {
                return;
            }
            let busy = now.saturating_sub(entered.ticks);
            slot.thread.store(local.thread, Relaxed);
            if slot.owner.load(Relaxed) == local.number {
                slot.busy_own.store(slot.busy_own.load(Relaxed) + busy, Relaxed);
            } else {
                slot.busy_others.fetch_add(busy, Relaxed);
            }
        });
        let _ = left;
    }

    /// A span's last reference is gone.
    #[inline]
    pub(super) fn close(self: &Arc<Shared>, ids: Ids, key: u64) {
        let Some((index, slot)) = self.find(ids, key) else { return };
        let recorded = slot.is_recorded() && !self.ended.load(Relaxed);
        let end = if recorded { ticks::now() } else { 0 };
        let kept = with_local(self, |local| {
            if recorded {
                local.push(Closed::of(slot, end));
            }
            slot.free();
            if ids == Ids::Own {
                local.free_slots.push(index);
                if local.free_slots.len() >= 4 * SLOTS {
                    self.give_slots(local.free_slots.drain(..2 * SLOTS));
                }
            }
        });
        if let Err(why) = kept {
            slot.free();
            if ids == Ids::Own {
                self.give_slots([index]);
            }
            if recorded {
                self.lost.count(why);
            }
        }
    }

    /// The innermost span that this thread is in, and its callsite.
    pub(super) fn current(self: &Arc<Shared>) -> Option<(u64, &'static Metadata<'static>)> {
        let (key, index) =
            with_local(self, |local| local.stack.last().map(|entered| (entered.key, entered.index))).ok()??;
        let slot = self.table.slot(index)?;
        Some((key, self.plan(slot.plan.load(Relaxed))?.metadata))
    }

    /// Spans that are open now, without an end.
    pub(super) fn still_open(&self) -> Vec<Closed> {
        let open = self.table.used().filter(|slot| slot.is_recorded() && slot.key.load(Acquire) != 0);
        open.map(|slot| Closed::of(slot, 0)).collect()
    }
}
