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
    /// The runtime's waker that the slot has, and the address of the table that it came with.
    inner: Option<(Waker, usize)>,
    role: Role,
    limits: &'static Limits,
}

impl Watch {
    fn new(role: Role, limits: &'static Limits) -> Watch {
        let slot = Arc::new(Slot::default());
        slot.woken.store(ticks::now(), Ordering::Relaxed);
        Watch { waker: Waker::from(Arc::clone(&slot)), slot, inner: None, role, limits }
    }

    /// Sees to it that the slot has this waker of the runtime.
    #[inline]
    fn register(&mut self, waker: &Waker) {
        // As `Waker::will_wake`, but with the table of the waker that was seen and not of its clone: a compiler may have
        // made two of monoio's one table, and then each poll would find another waker. The clone keeps the data alive, so
        // that nothing else has come to lie at its address.
        let table = std::ptr::from_ref(waker.vtable()).addr();
        if !self.inner.as_ref().is_some_and(|(inner, seen)| inner.data() == waker.data() && *seen == table) {
            self.slot.register(waker);
            self.inner = Some((waker.clone(), table));
        }
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
        watch.register(cx.waker());
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    /// Counts its wakes.
    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn watched<F: Future>(task: F) -> Pin<Box<Timed<F>>> {
        collect::begin(Limits::now());
        Box::pin(Timed { watch: Some(Watch::new(Role::Effect, collect::limits().unwrap())), task })
    }

    #[test]
    fn the_first_wake_counts_and_the_waker_of_the_last_poll_is_woken() {
        let counters: [Arc<Counter>; 3] = Default::default();
        let kept: Arc<Mutex<Option<Waker>>> = Arc::default();
        let keep = Arc::clone(&kept);
        let mut task = watched(poll_fn(move |cx| {
            *keep.lock().unwrap() = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        let slot = Arc::clone(&task.watch.as_ref().unwrap().slot);
        assert_ne!(slot.woken.load(Ordering::SeqCst), 0, "spawning is a wake");
        for (n, counter) in counters.iter().enumerate() {
            let waker = Waker::from(Arc::clone(counter));
            for _ in 0..2 {
                assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                assert_eq!(slot.woken.load(Ordering::SeqCst), 0, "a poll takes the time away");
                let inner = kept.lock().unwrap().clone().unwrap();
                inner.wake_by_ref();
                let first = slot.woken.load(Ordering::SeqCst);
                inner.wake();
                assert_eq!(slot.woken.load(Ordering::SeqCst), first, "the second wake is none");
            }
            let woken: Vec<usize> = counters.iter().map(|c| c.0.load(Ordering::SeqCst)).collect();
            assert!(woken.iter().enumerate().all(|(i, count)| *count == if i <= n { 4 } else { 0 }), "{woken:?}");
        }
        let waker = task.watch.as_ref().unwrap().waker.clone();
        drop(task);
        waker.wake();
    }

    #[test]
    fn no_wake_is_lost_when_every_poll_comes_with_another_waker() {
        const ROUNDS: usize = 20_000;
        let (value, kept) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None::<Waker>)));
        let (reads, keep) = (Arc::clone(&value), Arc::clone(&kept));
        let mut last = 0;
        let mut task = watched(poll_fn(move |cx| {
            *keep.lock().unwrap() = Some(cx.waker().clone());
            last = reads.load(Ordering::Relaxed).max(last);
            if last == ROUNDS { Poll::Ready(()) } else { Poll::Pending }
        }));
        let counters: [Arc<Counter>; 2] = Default::default();
        let mut wakers = counters.iter().map(|c| Waker::from(Arc::clone(c))).cycle();
        let mut poll = |task: &mut Pin<Box<Timed<_>>>| {
            task.as_mut().poll(&mut Context::from_waker(wakers.next().as_ref().unwrap_or(Waker::noop())))
        };
        assert!(poll(&mut task).is_pending());
        let waking = std::thread::spawn(move || {
            for n in 1..=ROUNDS {
                value.store(n, Ordering::Relaxed);
                let waker = kept.lock().unwrap().clone().unwrap();
                waker.wake();
            }
        });
        // Each wake that a poll has not seen must be followed by a wake of the waker that this poll came with.
        let all = || counters.iter().map(|c| c.0.load(Ordering::SeqCst)).sum::<usize>();
        loop {
            let before = all();
            if poll(&mut task).is_ready() {
                break;
            }
            let begin = std::time::Instant::now();
            while all() == before {
                assert!(begin.elapsed().as_secs() < 30, "a wake was lost");
                std::thread::yield_now();
            }
        }
        waking.join().unwrap();
    }
}
