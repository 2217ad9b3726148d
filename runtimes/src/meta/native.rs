//! The runtimes as openraft sees them: one trait over its `AsyncRuntime`, implemented natively for each.
//!
//! openraft's own adapters for monoio and compio force its feature `single-threaded` on the whole build, and with it
//! tokio would lose work stealing. So openraft runs in its Send mode here. Channels and locks are those of
//! `tokio::sync`, which any executor can drive; tasks, timers and blocking calls are each runtime's own. What a
//! thread-per-core runtime hands out stays on its thread: [`SendWrapper`] says so to the compiler and checks it.
//!
//! What this leaves out: sockets and files.

use crate::stamps::{self, Role};
use openraft::AsyncRuntime;
use openraft_rt_tokio::{TokioInstant, TokioMpsc, TokioMutex, TokioOneshot, TokioRuntime, TokioWatch};
use send_wrapper::SendWrapper;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A runtime that the meta-service runs on. Its functions are called on a thread of that runtime.
pub trait Native: AsyncRuntime + Copy + Default + Ord + Send + Sync {
    /// Has a blocking call made by the runtime's own pool of threads.
    ///
    /// # Errors
    /// One sentence, when the call panicked or the pool has ended.
    fn offload<T: Send + 'static>(
        call: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, String>> + Send;

    /// Starts a task that nobody waits for.
    fn start(role: Role, task: impl Future<Output = ()> + Send + 'static);
}

/// tokio, of either kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokioNative;

/// monoio.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonoioNative;

/// compio.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CompioNative;

/// What a runtime without a hook at the start of pool threads is told about its pool.
#[derive(Clone)]
pub struct Pool {
    /// Called on a pool's thread before each call that it makes: binds and names the thread.
    pub on_thread: Arc<dyn Fn() + Send + Sync>,
    /// One token for each thread of the pool that has nothing to do. compio's pool does not queue what is too much for
    /// it, but spins on the runtime's thread, so a call waits for a token first. Not used elsewhere.
    pub idle: (flume::Sender<()>, flume::Receiver<()>),
}

/// Threads of compio's pool unless its builder says otherwise.
const COMPIO_POOL_DEFAULT: usize = 256;

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::new(COMPIO_POOL_DEFAULT, || {}));
}

impl Pool {
    /// Of `threads` threads.
    pub fn new(threads: usize, on_thread: impl Fn() + Send + Sync + 'static) -> Pool {
        let idle = flume::bounded(threads.max(1));
        while idle.0.try_send(()).is_ok() {}
        Pool { on_thread: Arc::new(on_thread), idle }
    }

    /// Holds for the runtime of the calling thread from now on.
    pub fn attach(self) {
        POOL.set(self);
    }

    fn of_this_thread() -> Pool {
        POOL.with_borrow(Clone::clone)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle.1.len()).finish_non_exhaustive()
    }
}

/// An idle thread that is in use.
struct Taken(flume::Sender<()>);

impl Drop for Taken {
    fn drop(&mut self) {
        let _there_is_room = self.0.try_send(());
    }
}

/// Waits for the result of a task; dropped, it lets the task go on.
#[derive(Debug)]
pub struct Handle<T>(oneshot::Receiver<T>);

/// A task ended without a result: it panicked, or its runtime ended.
#[derive(Debug, thiserror::Error)]
#[error("the task panicked or its runtime ended")]
pub struct Lost;

impl<T> Future for Handle<T> {
    type Output = Result<T, Lost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| Lost)
    }
}

/// A native timer.
pub type Sleep = SendWrapper<Pin<Box<dyn Future<Output = ()>>>>;

/// A future and the time it has.
pub struct Limited<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

/// The time was over before the future.
#[derive(Debug, thiserror::Error)]
#[error("the time is over")]
pub struct Elapsed;

impl<F: Future> Future for Limited<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut self.sleep).poll(cx).map(|()| Err(Elapsed))
    }
}

impl Native for TokioNative {
    async fn offload<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        // The runtime's builder has a hook for new threads, and its pool queues.
        tokio::task::spawn_blocking(call).await.map_err(|error| error.to_string())
    }

    fn start(role: Role, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(stamps::timed(role, task));
    }
}

impl Native for MonoioNative {
    fn offload<T: Send + 'static>(
        call: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, String>> + Send {
        let pool = Pool::of_this_thread();
        SendWrapper::new(async move {
            let on_pool = monoio::spawn_blocking(move || {
                (pool.on_thread)();
                caught(call)
            });
            on_pool.await.unwrap_or_else(|error| Err(format!("the blocking pool ended: {error:?}")))
        })
    }

    fn start(role: Role, task: impl Future<Output = ()> + Send + 'static) {
        drop(monoio::spawn(stamps::timed(role, task)));
    }
}

impl Native for CompioNative {
    fn offload<T: Send + 'static>(
        call: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, String>> + Send {
        let pool = Pool::of_this_thread();
        SendWrapper::new(async move {
            let _the_pool_holds_both_ends = pool.idle.1.recv_async().await;
            let _taken = Taken(pool.idle.0);
            let on_pool = compio::runtime::spawn_blocking(move || {
                (pool.on_thread)();
                caught(call)
            });
            on_pool.await.unwrap_or_else(|error| Err(error.to_string()))
        })
    }

    fn start(role: Role, task: impl Future<Output = ()> + Send + 'static) {
        compio::runtime::spawn(stamps::timed(role, task)).detach();
    }
}

/// Makes a call on a thread of a pool whose runtime does not report panics.
fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| "a blocking call panicked; see the message above".to_owned())
}

impl AsyncRuntime for TokioNative {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: Send + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = tokio::time::Timeout<T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = TokioMpsc;
    type Watch = TokioWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: Send + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        tokio::spawn(stamps::timed(Role::Raft, future))
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn new(_threads: usize) -> Self {
        TokioNative
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        TokioRuntime::new(2).block_on(future)
    }
}

/// openraft's view of a thread-per-core runtime: everything but the spawning, the timer and the runtime itself is
/// equal.
macro_rules! thread_per_core {
    ($native:ty, spawn: $spawn:expr, sleep: $sleep:expr, run: $run:expr) => {
        impl AsyncRuntime for $native {
            type JoinError = Lost;
            type JoinHandle<T: Send + 'static> = Handle<T>;
            type Sleep = Sleep;
            type Instant = Instant;
            type TimeoutError = Elapsed;
            type Timeout<R, T: Future<Output = R> + Send> = Limited<T>;
            type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
            type Mpsc = TokioMpsc;
            type Watch = TokioWatch;
            type Oneshot = TokioOneshot;
            type Mutex<T: Send + 'static> = TokioMutex<T>;

            fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
            where
                T: Future + Send + 'static,
                T::Output: Send + 'static,
            {
                let (sender, receiver) = oneshot::channel();
                let task = async move {
                    let _nobody_may_wait = sender.send(future.await);
                };
                $spawn(stamps::timed(Role::Raft, task));
                Handle(receiver)
            }

            fn sleep(duration: Duration) -> Self::Sleep {
                SendWrapper::new(Box::pin($sleep(duration)))
            }

            fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
                Self::sleep(deadline.saturating_duration_since(Instant::now()))
            }

            fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Self::Timeout<R, F> {
                Limited { future: Box::pin(future), sleep: Self::sleep(duration) }
            }

            fn timeout_at<R, F: Future<Output = R> + Send>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
                Limited { future: Box::pin(future), sleep: Self::sleep_until(deadline) }
            }

            fn is_panic(_error: &Self::JoinError) -> bool {
                true
            }

            fn thread_rng() -> Self::ThreadLocalRng {
                TokioRuntime::thread_rng()
            }

            fn new(_threads: usize) -> Self {
                Self::default()
            }

            fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
                $run(future)
            }
        }
    };
}

thread_per_core!(MonoioNative, spawn: |task| drop(monoio::spawn(task)), sleep: monoio::time::sleep, run: run_monoio);
thread_per_core!(
    CompioNative,
    spawn: |task| compio::runtime::spawn(task).detach(),
    sleep: compio::time::sleep,
    run: run_compio
);

/// Runs `future` on a monoio runtime of its own, with io_uring. For tests and benches: shells build their own runtimes.
#[expect(clippy::expect_used, reason = "openraft's trait, which only tests and benches call, has no way to fail")]
fn run_monoio<F: Future>(future: F) -> F::Output {
    monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .attach_thread_pool(Box::new(monoio::blocking::DefaultThreadPool::new(32)))
        .enable_timer()
        .build()
        .expect("monoio's runtime")
        .block_on(future)
}

/// As [`run_monoio`], with compio.
#[expect(clippy::expect_used, reason = "openraft's trait, which only tests and benches call, has no way to fail")]
fn run_compio<F: Future>(future: F) -> F::Output {
    compio::runtime::Runtime::new().expect("compio's runtime").block_on(future)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use openraft::testing::runtime::Suite;

    #[test]
    fn tokio_is_a_runtime_for_openraft() {
        Suite::<TokioNative>::test_all();
    }

    #[test]
    fn monoio_is_a_runtime_for_openraft() {
        Suite::<MonoioNative>::test_all();
    }

    #[test]
    fn compio_is_a_runtime_for_openraft() {
        Suite::<CompioNative>::test_all();
    }

    fn offloads<N: Native>() {
        N::default().block_on(async {
            let here = std::thread::current().id();
            assert_ne!(N::offload(std::thread::current).await.unwrap().id(), here);
            let panicked: Result<(), String> = N::offload(|| panic!("on purpose")).await;
            assert!(panicked.unwrap_err().contains("panicked"));
        });
    }

    #[test]
    fn blocking_calls_leave_the_thread_and_their_panics_are_errors() {
        offloads::<TokioNative>();
        offloads::<MonoioNative>();
        offloads::<CompioNative>();
    }

    #[test]
    fn compio_waits_for_an_idle_thread() {
        CompioNative.block_on(async {
            Pool::new(1, || {}).attach();
            let pool = Pool::of_this_thread();
            let first = CompioNative::offload(|| ());
            let mut first = Box::pin(first);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(first.as_mut().poll(&mut cx).is_pending());
            assert_eq!(pool.idle.1.len(), 0, "the thread is in use");
            first.await.unwrap();
            assert_eq!(pool.idle.1.len(), 1, "and idle again");
        });
    }
}
