//! What each thread knows about itself: the poll it is in, its last reading, and the buffer of its rows.
//!
//! What every poll touches are plain cells of the thread. Only a row that is kept takes the buffer's lock, which nobody
//! else wants before the run is over.

use super::limits::{COMPLETE_MARKS, COMPLETE_ROWS, HELD_ROWS, LONG_GAP_NS, Limits, ROWS_MAX_FACTOR};
use super::usage::{Usage, UsageReader};
use super::wire::{ReadRow, ReplyRow};
use super::{Role, call::CallRow, collect, operation::OperationRow, proposal::MarkRow, slow};
use regauge_traces::ticks;
use std::cell::{Cell, OnceCell};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// A poll, in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct PollRow {
    pub role: Role,
    /// 0: unasked.
    pub woken: u64,
    pub began: u64,
    pub ended: u64,
    /// Of a long one; see [`super::usage`].
    pub usage: Option<Usage>,
}

/// A thread was between two polls, in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct GapRow {
    pub began: u64,
    pub ended: u64,
    pub run_delay_ns: u64,
}

/// Rows of one kind.
#[derive(Debug)]
pub(super) struct Rows<T> {
    pub rows: Vec<T>,
    /// To be thinned, unless they turn out to belong to something slow; oldest first.
    held: VecDeque<T>,
    /// So many are kept whole.
    complete: usize,
    pub thinned: u64,
    pub dropped: u64,
}

/// Everything that a thread has noted.
#[derive(Debug)]
pub(super) struct Buffers {
    pub polls: Rows<PollRow>,
    pub gaps: Rows<GapRow>,
    pub reads: Rows<ReadRow>,
    pub replies: Rows<ReplyRow>,
    pub operations: Rows<OperationRow>,
    pub calls: Rows<CallRow>,
    pub marks: Rows<MarkRow>,
}

/// A thread, as the collector sees it.
#[derive(Debug)]
pub(super) struct Thread {
    pub id: u32,
    pub name: String,
    pub role: Mutex<&'static str>,
    pub buffers: Mutex<Buffers>,
}

/// What polls touch.
struct Hot {
    /// Polls that this thread is in: more than one where a task polls another by itself.
    depth: Cell<u32>,
    /// Of the innermost poll that was woken, ticks.
    woken: Cell<u64>,
    /// Of the outermost poll, ticks.
    began: Cell<u64>,
    /// When the last poll ended, ticks.
    ended: Cell<u64>,
    /// When `usage` was read, ticks; 0: never.
    read_at: Cell<u64>,
    usage: Cell<Usage>,
    /// When it was last read after a poll, ticks.
    read_after: Cell<u64>,
    /// Time in polls since `read_at`, ticks.
    busy: Cell<u64>,
    /// The slice that was looked at last: its number, and whether it is kept.
    slice: Cell<(u64, bool)>,
}

/// What has to be given back when the thread ends.
struct Cold {
    thread: Arc<Thread>,
    reader: UsageReader,
}

thread_local! {
    static HOT: Hot = const {
        Hot {
            depth: Cell::new(0),
            woken: Cell::new(0),
            began: Cell::new(0),
            ended: Cell::new(0),
            read_at: Cell::new(0),
            usage: Cell::new(Usage { cpu_ns: 0, run_delay_ns: None }),
            read_after: Cell::new(0),
            busy: Cell::new(0),
            slice: Cell::new((u64::MAX, false)),
        }
    };
    static COLD: OnceCell<Cold> = const { OnceCell::new() };
}

impl Cold {
    #[cold]
    fn of_this_thread(role: &'static str) -> Cold {
        let thread = Arc::new(Thread {
            id: rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs(),
            name: own_name(),
            role: Mutex::new(role),
            buffers: Mutex::default(),
        });
        collect::register(Arc::clone(&thread));
        Cold { thread, reader: UsageReader::of_this_thread() }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers {
            polls: Rows::new(COMPLETE_ROWS),
            gaps: Rows::new(COMPLETE_ROWS),
            reads: Rows::new(COMPLETE_ROWS),
            replies: Rows::new(COMPLETE_ROWS),
            operations: Rows::new(COMPLETE_ROWS),
            calls: Rows::new(COMPLETE_ROWS),
            marks: Rows::new(COMPLETE_MARKS),
        }
    }
}

impl Buffers {
    /// Decides about all that is held still, by all that was slow.
    pub fn settle(&mut self, slow: &[(u64, u64)]) {
        self.polls.settle(usize::MAX, slow);
        self.gaps.settle(usize::MAX, slow);
        self.reads.settle(usize::MAX, slow);
        self.replies.settle(usize::MAX, slow);
        self.operations.settle(usize::MAX, slow);
        self.calls.settle(usize::MAX, slow);
        self.marks.settle(usize::MAX, slow);
    }
}

/// When a row was noted, in ticks.
pub(super) trait Noted {
    fn at(&self) -> u64;
}

macro_rules! noted {
    ($($row:ty: $field:ident),* $(,)?) => {
        $(impl Noted for $row {
            fn at(&self) -> u64 {
                self.$field
            }
        })*
    };
}

noted!(PollRow: ended, GapRow: ended, ReadRow: resumed, ReplyRow: queued, OperationRow: queued, CallRow: queued, MarkRow: at);

impl<T: Noted> Rows<T> {
    /// None yet, of which `complete` are kept whole.
    pub fn new(complete: usize) -> Rows<T> {
        Rows { rows: Vec::new(), held: VecDeque::new(), complete, thinned: 0, dropped: 0 }
    }

    /// Keeps a row, unless there are many already and it is neither slow nor in a kept slice (`choice`), nor beside
    /// something slow.
    pub fn push(&mut self, row: T, choice: bool) {
        if self.rows.len() < self.complete || choice {
            return self.keep(row);
        }
        self.held.push_back(row);
        if self.held.len() >= HELD_ROWS {
            self.settle(HELD_ROWS / 2, &slow::all());
        }
    }

    fn keep(&mut self, row: T) {
        if self.rows.len() >= ROWS_MAX_FACTOR * self.complete {
            self.dropped += 1;
        } else {
            self.rows.push(row);
        }
    }

    /// Decides about the oldest `count` rows that are held.
    fn settle(&mut self, count: usize, slow: &[(u64, u64)]) {
        for _ in 0..count.min(self.held.len()) {
            match self.held.pop_front() {
                Some(row) if slow::holds(slow, row.at()) => self.keep(row),
                _ => self.thinned += 1,
            }
        }
    }
}

/// Says what the calling thread is for: `broker`, `server`, `meta`, `all`, `blocking` or `own-thread`. A thread that polls
/// tasks and was not asked is a `broker`'s.
pub fn this_thread(role: &'static str) {
    if super::is_on() {
        with_thread(role, |thread, _| *thread.role.lock().unwrap_or_else(PoisonError::into_inner) = role);
    }
}

/// A thread that makes blocking calls is the pool's, unless it has said otherwise or makes them within a task.
pub(super) fn this_is_blocking() {
    let role = if current_poll() == (0, 0) { "blocking" } else { "broker" };
    with_thread(role, |_, _| {});
}

/// Calls `work` with this thread as the collector sees it; not at all while the thread ends.
#[inline]
pub(super) fn with_thread<R>(role: &'static str, work: impl FnOnce(&Thread, &UsageReader) -> R) -> Option<R> {
    COLD.try_with(|cold| {
        let cold = cold.get_or_init(|| Cold::of_this_thread(role));
        work(&cold.thread, &cold.reader)
    })
    .ok()
}

/// Calls `keep` with this thread's buffers.
pub(super) fn with_buffers(keep: impl FnOnce(&mut Buffers)) {
    with_thread("broker", |thread, _| keep(&mut thread.buffers.lock().unwrap_or_else(PoisonError::into_inner)));
}

/// As the kernel shows it: runtimes give names that Rust does not know.
fn own_name() -> String {
    let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
    name.trim_end().to_owned()
}

/// Whether what happened at `at` lies in a slice that is kept.
pub(super) fn is_sampled(limits: &Limits, at: u64) -> bool {
    HOT.with(|hot| hot.is_sampled(limits, at))
}

/// When the task that is being polled was woken and when its poll began; 0 where there is none.
pub(super) fn current_poll() -> (u64, u64) {
    HOT.with(|hot| if hot.depth.get() == 0 { (0, 0) } else { (hot.woken.get(), hot.began.get()) })
}

/// A poll of this thread begins; it ends when what this returns is dropped.
#[inline]
pub(super) fn poll(limits: &'static Limits, role: Role, woken: u64) -> Polling {
    HOT.with(|hot| {
        let depth = hot.depth.get();
        hot.depth.set(depth + 1);
        let outer_woken = hot.woken.get();
        if depth == 0 {
            let began = ticks::now();
            hot.began.set(began);
            let age = began.wrapping_sub(hot.read_at.get());
            let late = woken != 0 && began.saturating_sub(woken) > limits.late;
            if age > limits.stale || (late && age > limits.read_every) {
                hot.refresh(limits, began);
            }
            hot.woken.set(woken);
        } else if woken != 0 {
            hot.woken.set(woken);
        }
        Polling { limits, role, outer_woken, is_outermost: depth == 0 }
    })
}

/// A poll under way. A poll within a poll (a task that polls another timed one by itself) leaves no row: its time is that
/// of the outer one, which would count twice.
#[must_use]
pub(super) struct Polling {
    limits: &'static Limits,
    role: Role,
    outer_woken: u64,
    is_outermost: bool,
}

impl Drop for Polling {
    #[inline]
    fn drop(&mut self) {
        HOT.with(|hot| {
            hot.depth.set(hot.depth.get() - 1);
            if self.is_outermost {
                hot.poll_ends(self.limits, self.role);
            } else {
                hot.woken.set(self.outer_woken);
            }
        });
    }
}

impl Hot {
    #[inline]
    fn poll_ends(&self, limits: &Limits, role: Role) {
        let (woken, began, ended) = (self.woken.get(), self.began.get(), ticks::now());
        self.ended.set(ended);
        let lasted = ended.saturating_sub(began);
        let is_long = lasted >= limits.long_poll;
        let reads = is_long && lasted.max(ended.saturating_sub(self.read_after.get())) >= limits.read_every;
        if !reads {
            self.busy.set(self.busy.get() + lasted);
        }
        let is_late = woken != 0 && began.saturating_sub(woken) >= limits.long_wait;
        let is_sampled = self.is_sampled(limits, began);
        if is_long || is_late || is_sampled {
            self.keep_poll(limits, PollRow { role, woken, began, ended, usage: None }, reads, is_sampled);
        }
    }

    #[cold]
    fn keep_poll(&self, limits: &Limits, mut row: PollRow, reads: bool, is_sampled: bool) {
        let waited = if row.woken == 0 { 0 } else { row.began.saturating_sub(row.woken) };
        with_thread("broker", |thread, reader| {
            if reads {
                let before = self.usage.get();
                let (others_ns, usage) = self.read(reader, limits, row.ended);
                // A thread whose share is used up loses its CPU just now: that belongs to a poll, so it ends after it.
                row.ended = ticks::now();
                self.ended.set(row.ended);
                self.read_after.set(row.ended);
                let lasted = row.ended.saturating_sub(row.began);
                row.usage = Some(usage.since(before, others_ns, limits.ns(lasted)));
            }
            let is_slow = slow::is_slow(limits, if waited == 0 { row.began } else { row.woken }, row.ended);
            let mut buffers = thread.buffers.lock().unwrap_or_else(PoisonError::into_inner);
            buffers.polls.push(row, is_sampled || is_slow);
        });
    }

    /// Takes a new reading; returns the time in polls since the last one, ns, and the reading.
    fn read(&self, reader: &UsageReader, limits: &Limits, at: u64) -> (u64, Usage) {
        let usage = reader.read();
        self.read_at.set(at);
        self.usage.set(usage);
        (limits.ns(self.busy.replace(0)), usage)
    }

    /// Takes a new reading before a poll. What the thread waited for a CPU since the last poll becomes a gap.
    #[cold]
    fn refresh(&self, limits: &Limits, began: u64) {
        with_thread("broker", |thread, reader| {
            let (read_at, before) = (self.read_at.get(), self.usage.get());
            let (_, usage) = self.read(reader, limits, began);
            if read_at == 0 {
                return;
            }
            let gap = self.ended.get().max(read_at);
            let wall_ns = limits.ns(began.saturating_sub(gap));
            let run_delay_ns = usage.since(before, 0, wall_ns).run_delay_ns.unwrap_or(0);
            if run_delay_ns >= LONG_GAP_NS {
                let mut buffers = thread.buffers.lock().unwrap_or_else(PoisonError::into_inner);
                buffers.gaps.push(GapRow { began: gap, ended: began, run_delay_ns }, true);
            }
        });
    }

    #[inline]
    fn is_sampled(&self, limits: &Limits, at: u64) -> bool {
        let (number, kept) = self.slice.get();
        // The same slice again, nearly always: a multiplication instead of a division.
        let begin = number.wrapping_mul(limits.slice);
        if at.wrapping_sub(begin) < limits.slice {
            return kept;
        }
        let number = at / limits.slice;
        let kept = Limits::keeps(number);
        self.slice.set((number, kept));
        kept
    }
}

#[cfg(test)]
mod tests;
