//! The way to RocksDB: every call passes here, is stamped, carries its span, and runs where the arm says.
//!
//! What it leaves out: what is called, which is [`Store`]'s.

use super::native::Native;
use super::store::{Depth, Store};
use crate::settings::{LastApplied, Placement, RaftSync, Settings};
use crate::stamps::{self, Step};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use tokio::sync::oneshot;
use tracing::Span;

/// Calls to a store from tasks of runtime `N`. Cheap to clone.
pub struct Rocks<N> {
    shared: Arc<Shared>,
    native: PhantomData<fn() -> N>,
}

/// What all that call one store share.
#[derive(Debug)]
pub(super) struct Shared {
    store: Arc<Store>,
    caller: Caller,
    raft_sync: RaftSync,
    last_applied: LastApplied,
}

#[derive(Debug)]
enum Caller {
    Inline,
    Offload,
    /// The thread ends with the sender.
    OwnThread(mpsc::Sender<Job>),
}

type Job = Box<dyn FnOnce() + Send>;

/// Which calls, for stamps: `count` log entries from `first` on.
#[derive(Debug, Clone, Copy)]
pub struct What {
    /// The step that they are part of.
    pub step: Step,
    /// Index of the first entry; 0 where there is none.
    pub first: u64,
    /// How many entries.
    pub count: u32,
}

impl<N> Clone for Rocks<N> {
    fn clone(&self) -> Self {
        Rocks { shared: Arc::clone(&self.shared), native: PhantomData }
    }
}

impl<N> fmt::Debug for Rocks<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl<N: Native> Rocks<N> {
    /// Calls `store` as `settings` say. `on_thread` is called once on the thread of [`Placement::OwnThread`]: it binds
    /// it to the server's CPUs, which it would not inherit from a pinned thread.
    ///
    /// # Errors
    /// When that thread cannot be started.
    pub fn new(
        store: Arc<Store>,
        settings: &Settings,
        on_thread: impl FnOnce() + Send + 'static,
    ) -> Result<Rocks<N>, io::Error> {
        let caller = match settings.placement {
            Placement::Inline => Caller::Inline,
            Placement::Offload => Caller::Offload,
            Placement::OwnThread => {
                let (sender, jobs) = mpsc::channel::<Job>();
                thread::Builder::new().name("meta-rocksdb".to_owned()).spawn(move || {
                    on_thread();
                    stamps::this_thread("own-thread");
                    jobs.into_iter().for_each(|job| job());
                })?;
                Caller::OwnThread(sender)
            }
        };
        let (raft_sync, last_applied) = (settings.raft_sync, settings.last_applied);
        let shared = Arc::new(Shared { store, caller, raft_sync, last_applied });
        Ok(Rocks { shared, native: PhantomData })
    }

    /// Makes a blocking call. `span` is entered on the thread that makes it, and ends when the waiting task goes on.
    ///
    /// # Errors
    /// The call's own, or that its thread is gone.
    pub async fn call<T: Send + 'static>(
        &self,
        what: What,
        span: Span,
        work: impl FnOnce(&Arc<Store>) -> Result<T, String> + Send + 'static,
    ) -> io::Result<T> {
        let call = stamps::Call::queued(what.step, what.first, what.count);
        let (store, entered) = (Arc::clone(&self.shared.store), span.clone());
        let make = move || {
            let made = entered.in_scope(|| call.run(|| work(&store)));
            // Whoever shuts the node down waits until nobody holds the store.
            drop(store);
            made
        };
        let (result, ran) = match &self.shared.caller {
            Caller::Inline => make(),
            Caller::Offload => N::offload(make).await.map_err(io::Error::other)?,
            Caller::OwnThread(jobs) => {
                let ended = || io::Error::other("the thread of RocksDB calls has ended; see the message above");
                let (sender, made) = oneshot::channel();
                let job = move || {
                    let _the_task_may_be_gone = sender.send(make());
                };
                jobs.send(Box::new(job)).map_err(|_| ended())?;
                made.await.map_err(|_| ended())?
            }
        };
        ran.resumed();
        drop(span);
        result.map_err(io::Error::other)
    }

    /// The store itself, for what happens before and after the runtime.
    pub fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    /// How deep writes of the raft log, the vote and the committed id go.
    pub fn log_depth(&self) -> Depth {
        match self.shared.raft_sync {
            RaftSync::None => Depth::Wal,
            RaftSync::Log | RaftSync::All => Depth::Disk,
        }
    }

    /// How deep writes of the state machine go.
    pub fn state_depth(&self) -> Depth {
        match self.shared.raft_sync {
            RaftSync::None | RaftSync::Log => Depth::Wal,
            RaftSync::All => Depth::Disk,
        }
    }

    /// How the last applied log id is written.
    pub fn last_applied(&self) -> LastApplied {
        self.shared.last_applied
    }

    /// Tells, from outside, whether any part of the node still calls the store.
    pub(super) fn in_use(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }
}
