//! Wraps a task: when it was woken, when it was polled.
//!
//! The wrapper hands the task a waker of its own. Its first wake after a poll notes the time and wakes the runtime's
//! waker; the next poll takes the time away. Spawning counts as a wake. All of it is the same on every runtime, and says
//! the same as tokio's own schedule latency (a test compares them).
//!
//! The runtime's waker hardly ever changes, so the first one is read without a lock, and others lie behind one. A slot
//! holds the runtime's waker as long as the task lives, and the task holds the slot: a task that never ends is freed
//! only by a runtime that drops its tasks at its end (tokio, compio), not by one that counts references (monoio).

use super::Role;
use super::limits::Limits;
use super::thread::{self, Polling};
use super::{collect, is_on};
use regauge_traces::ticks;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Wraps a task: every task of every stack is spawned through this.
pub fn timed<F: Future>(role: Role, task: F) -> Timed<F> {
    let watch = if is_on() { collect::limits().map(|limits| Watch::new(role, limits)) } else { None };
    Timed { watch, task }
}

/// A task that notes when it was woken and polled; see [`timed`].
#[derive(Debug)]
#[must_use = "a task does nothing until it is spawned"]
pub struct Timed<F> {
    /// `None` when stamps were off as it was spawned.
    watch: Option<Watch>,
    task: F,
}

#[derive(Debug)]
struct Watch {
    slot: Arc<Slot>,
    /// Wakes the slot; kept, because tasks compare wakers and keep one that stays.
    waker: Waker,
    /// The runtime's waker that the slot has.
    inner: Option<Waker>,
    role: Role,
    limits: &'static Limits,
}

impl Watch {
    fn new(role: Role, limits: &'static Limits) -> Watch {
        let slot = Arc::new(Slot::default());
        slot.woken.store(ticks::now(), Ordering::Relaxed);
        Watch { waker: Waker::from(Arc::clone(&slot)), slot, inner: None, role, limits }
    }
}

impl<F: Future> Future for Timed<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `task` is pinned whenever `self` is: nothing moves it out or gives a `&mut` to it, `Timed` has no
        // `Drop`, and the auto trait `Unpin` of `Timed<F>` asks for `F: Unpin`. `watch` is not pinned.
        let (watch, task) = unsafe {
            let this = self.get_unchecked_mut();
            (&mut this.watch, Pin::new_unchecked(&mut this.task))
        };
        let Some(watch) = watch else { return task.poll(cx) };
        if !watch.inner.as_ref().is_some_and(|inner| inner.will_wake(cx.waker())) {
            watch.slot.register(cx.waker());
            watch.inner = Some(cx.waker().clone());
        }
        // The waker is in its place before the time is taken away: who wakes from here on wakes the runtime too.
        let woken = watch.slot.woken.swap(0, Ordering::AcqRel);
        let _polling: Polling = thread::poll(watch.limits, watch.role, woken);
        task.poll(&mut Context::from_waker(&watch.waker))
    }
}

/// What the wakers of one task share.
#[derive(Debug, Default)]
struct Slot {
    /// When it was first woken since its last poll, in ticks; 0: not yet.
    woken: AtomicU64,
    first: OnceLock<Waker>,
    /// Whether `later` holds the waker now.
    moved: AtomicBool,
    later: Mutex<Option<Waker>>,
}

impl Slot {
    /// The task is now polled by way of this waker.
    #[cold]
    fn register(&self, waker: &Waker) {
        if self.first.set(waker.clone()).is_err() {
            *self.later.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
            self.moved.store(true, Ordering::Release);
        }
    }
}

impl Wake for Slot {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let first = self.woken.load(Ordering::Relaxed) == 0
            && self.woken.compare_exchange(0, ticks::now(), Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if !first {
            // Changes nothing, but is ordered with the swap of a poll at the same time: either that poll sees what this
            // wake is about, or this wake sees the waker that the poll came with.
            self.woken.fetch_or(0, Ordering::AcqRel);
        }
        if !self.moved.load(Ordering::Acquire) {
            if let Some(inner) = self.first.get() {
                inner.wake_by_ref();
            }
        } else {
            let inner = self.later.lock().unwrap_or_else(PoisonError::into_inner).clone();
            inner.into_iter().for_each(Waker::wake);
        }
    }
}
