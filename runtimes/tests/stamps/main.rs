//! The stamps: planted causes show where they belong, on every runtime, and what shells note fits what went over the wire.
//!
//! Stamps are the process's, so the tests take turns. Nothing is compared with a clock: lanes are compared with each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod agreement;
mod causes;
mod recorded;
mod stacks;

use regauge_runtimes::affinity;
use regauge_runtimes::settings::Stack;
use regauge_runtimes::stamps::{self, Role, timed};
use regauge_traces::stamps::{Event, Stamp, StampsMeta, read_stamps};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Spawns onto the runtime of a stack, which runs on this thread.
#[derive(Clone, Copy)]
struct Spawner(Stack);

impl Spawner {
    fn spawn(self, role: Role, task: impl Future<Output = ()> + Send + 'static) {
        let task = timed(role, Box::pin(task) as Task);
        match self.0 {
            Stack::TokioShared | Stack::TokioPinned => drop(tokio::spawn(task)),
            Stack::Monoio => drop(monoio::spawn(task)),
            Stack::Compio => compio::runtime::spawn(task).detach(),
        }
    }

    /// Has a blocking call made by the runtime's pool.
    async fn blocking<T: Send + 'static>(self, call: impl FnOnce() -> T + Send + 'static) -> T {
        match self.0 {
            Stack::TokioShared | Stack::TokioPinned => tokio::task::spawn_blocking(call).await.unwrap(),
            Stack::Monoio => monoio::spawn_blocking(call).await.unwrap(),
            Stack::Compio => compio::runtime::spawn_blocking(call).await.unwrap(),
        }
    }
}

static TURN: Mutex<()> = Mutex::new(());

/// Holds the stamps for one test.
struct Turn {
    _held: MutexGuard<'static, ()>,
}

impl Turn {
    fn take() -> Turn {
        Turn { _held: TURN.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// As [`run_in`], in a turn of its own.
fn run<F>(stack: Stack, cpu: Option<usize>, main: impl FnOnce(Spawner) -> F + Send) -> (StampsMeta, Vec<Stamp>)
where
    F: Future<Output = ()> + Send + 'static,
{
    run_in(&Turn::take(), stack, cpu, main)
}

/// Runs `main` as a task of a runtime with one thread, bound to `cpu` if one is named, and returns what was stamped.
fn run_in<F>(
    _turn: &Turn,
    stack: Stack,
    cpu: Option<usize>,
    main: impl FnOnce(Spawner) -> F + Send,
) -> (StampsMeta, Vec<Stamp>)
where
    F: Future<Output = ()> + Send + 'static,
{
    stamps::start();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            affinity::bind_thread(cpu.as_slice()).unwrap();
            let spawner = Spawner(stack);
            let (done, finished) = tokio::sync::oneshot::channel();
            let task = main(spawner);
            let whole = async move {
                spawner.spawn(Role::Main, async move {
                    task.await;
                    done.send(()).unwrap();
                });
                finished.await.unwrap();
            };
            match stack {
                Stack::TokioShared => {
                    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
                    // The thread that calls `block_on` is no worker.
                    runtime.block_on(async move { tokio::spawn(whole).await.unwrap() });
                }
                Stack::TokioPinned => tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(whole),
                Stack::Monoio => monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
                    .attach_thread_pool(Box::new(monoio::blocking::DefaultThreadPool::new(1)))
                    .build()
                    .unwrap()
                    .block_on(whole),
                Stack::Compio => compio::runtime::Runtime::new().unwrap().block_on(whole),
            }
        });
        thread.join().unwrap();
    });
    written()
}

/// Ends the stamping and reads what was written.
fn written() -> (StampsMeta, Vec<Stamp>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stamps.parquet");
    stamps::write(&path).unwrap();
    let (meta, rows) = read_stamps(&path).unwrap();
    assert_eq!(meta.dropped, 0);
    for row in &rows {
        check(row, &meta);
    }
    (meta, rows)
}

/// What must hold of every row.
fn check(row: &Stamp, meta: &StampsMeta) {
    let moments = match row.event {
        Event::Read => [row.woken_ns, row.started_ns, row.resumed_ns, None, None],
        // Of an operation that is done inline the poll began before it was queued.
        Event::Op | Event::Call => [row.queued_ns, row.started_ns, row.finished_ns, row.woken_ns, row.resumed_ns],
        Event::Reply => [row.queued_ns, row.finished_ns, None, None, None],
        Event::Poll | Event::Gap => [row.woken_ns, row.started_ns, row.finished_ns, None, None],
        Event::Proposal => [row.sent_ns, row.received_ns, row.committed_ns, row.answered_ns, row.returned_ns],
    };
    let known: Vec<u64> = moments.into_iter().flatten().collect();
    assert!(known.is_sorted(), "moments out of order: {row:?}");
    if let Some((from, to)) = row.started_ns.zip(row.finished_ns)
        && (row.cpu_ns.is_some() || row.run_delay_ns.is_some())
    {
        assert!(row.cpu_ns.unwrap_or(0) + row.run_delay_ns.unwrap_or(0) <= to - from, "more than the wall: {row:?}");
    }
    assert!(meta.threads.iter().any(|(id, ..)| *id == row.thread), "an unknown thread: {row:?}");
    if !meta.run_delay {
        assert_eq!(row.run_delay_ns, None, "unknown is not zero");
    }
}

/// Polls of one role, in the order of their begin.
fn polls<'a>(rows: &'a [Stamp], role: &'a str) -> Vec<&'a Stamp> {
    let mut polls: Vec<_> = rows.iter().filter(|s| s.event == Event::Poll && s.name == role).collect();
    polls.sort_by_key(|s| s.started_ns);
    polls
}

/// From wake to poll, ns.
fn wait(poll: &Stamp) -> u64 {
    poll.started_ns.unwrap() - poll.woken_ns.unwrap()
}

fn wall(stamp: &Stamp) -> u64 {
    stamp.finished_ns.unwrap() - stamp.started_ns.unwrap()
}

/// Keeps the thread for this long.
fn spin(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Lets other tasks run first.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
