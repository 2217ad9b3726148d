//! What hyper needs of a runtime, and what every task of the meta-service is spawned through.
//!
//! Everything is `Send`, as tonic wants it: what a pinned runtime has that is not lies in a `SendWrapper`, which panics
//! rather than be used on another thread, and never has to, since tasks there stay where they were spawned. What this
//! leaves out: files and RocksDB, which the raft node calls.

mod compio;
mod monoio;
mod tokio;

pub use self::compio::Compio;
pub use self::monoio::Monoio;
pub use self::tokio::Tokio;

use crate::meta::native::Native;
use crate::shell;
use crate::stamps::{self, Role};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A runtime's sockets, tasks and timers. All functions work inside that runtime only.
pub trait Net: fmt::Debug + Clone + Copy + Send + Sync + 'static {
    /// The same runtime as openraft sees it.
    type Native: Native;
    /// A connection, as hyper reads and writes it.
    type Io: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static;
    /// A listener.
    type Listener: Send + Sync + 'static;

    /// Starts a task that nobody waits for.
    fn spawn(task: impl Future<Output = ()> + Send + 'static);

    /// Waits.
    fn sleep(time: Duration) -> impl Future<Output = ()> + Send;

    /// Takes a listener over.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    fn listener(listener: TcpListener) -> io::Result<Self::Listener>;

    /// Waits for a connection.
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<(Self::Io, Handle)>> + Send;

    /// Connects.
    fn connect(to: SocketAddr) -> impl Future<Output = io::Result<(Self::Io, Handle)>> + Send;
}

/// A second descriptor of a socket that a runtime reads and writes: to shut it down from outside, which ends what is
/// pending on it, on every runtime alike.
#[derive(Debug)]
pub struct Handle(TcpStream);

impl Handle {
    /// Of a connected socket; switches Nagle's algorithm off, without which a call may wait 40 ms for a delayed
    /// acknowledgement.
    fn of(socket: &impl std::os::fd::AsFd) -> io::Result<Handle> {
        shell::set_nodelay(socket)?;
        Ok(Handle(socket.as_fd().try_clone_to_owned()?.into()))
    }

    /// Whether a segment is sent although an earlier one is not acknowledged yet.
    ///
    /// # Errors
    /// When the socket cannot be asked.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.0.nodelay()
    }
}

/// What is called when a node cannot go on, with one sentence.
pub type Halt = Arc<dyn Fn(String) + Send + Sync>;

/// The tasks and connections of one role on one runtime: they can be ended, and waited for.
pub struct Tasks<N> {
    shared: Arc<Shared>,
    net: PhantomData<fn() -> N>,
}

struct Shared {
    halt: Halt,
    live: AtomicUsize,
    ending: AtomicBool,
    next: AtomicU64,
    sockets: Mutex<HashMap<u64, Handle>>,
}

impl<N> Clone for Tasks<N> {
    fn clone(&self) -> Self {
        Tasks { shared: Arc::clone(&self.shared), net: PhantomData }
    }
}

impl<N> fmt::Debug for Tasks<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("live", &self.shared.live).finish_non_exhaustive()
    }
}

/// How long the end of a role's tasks is waited for.
const END_LIMIT: Duration = Duration::from_secs(10);
const END_POLL: Duration = Duration::from_millis(1);

impl<N: Net> Tasks<N> {
    /// `halt` is called when a task panics.
    pub fn new(halt: Halt) -> Tasks<N> {
        let shared = Shared {
            halt,
            live: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            next: AtomicU64::new(0),
            sockets: Mutex::default(),
        };
        Tasks { shared: Arc::new(shared), net: PhantomData }
    }

    /// Starts a task.
    pub fn spawn(&self, role: Role, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.live.fetch_add(1, Ordering::AcqRel);
        let alive = Alive(Arc::clone(&self.shared));
        N::spawn(stamps::timed(role, async move {
            task.await;
            drop(alive);
        }));
    }

    /// For hyper, whose tasks have `role`.
    pub fn exec(&self, role: Role) -> Exec<N> {
        Exec { tasks: self.clone(), role }
    }

    /// Whether [`Tasks::end`] was called.
    pub fn is_ending(&self) -> bool {
        self.shared.ending.load(Ordering::Acquire)
    }

    /// Calls what was given to [`Tasks::new`].
    pub fn halt(&self, reason: String) {
        (self.shared.halt)(reason);
    }

    /// Has a connection shut down at the end, unless what is returned was dropped before.
    pub fn keep(&self, socket: Handle) -> Kept {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        // Looked at with the lock held: `end` either finds the socket here or has said so before.
        let mut sockets = self.sockets();
        if self.is_ending() {
            shell::shut(&socket.0);
        }
        sockets.insert(id, socket);
        Kept { shared: Arc::clone(&self.shared), id }
    }

    /// How many connections there are, and whether all of them have Nagle's algorithm off.
    pub fn connections(&self) -> (usize, bool) {
        let sockets = self.sockets();
        (sockets.len(), sockets.values().all(|socket| socket.nodelay().unwrap_or(false)))
    }

    /// Shuts all connections down and waits until the tasks have ended.
    ///
    /// # Errors
    /// One sentence, when they do not within 10 s.
    pub async fn end(&self) -> Result<(), String> {
        {
            let sockets = self.sockets();
            self.shared.ending.store(true, Ordering::Release);
            sockets.values().for_each(|socket| shell::shut(&socket.0));
        }
        let mut waited = Duration::ZERO;
        while self.shared.live.load(Ordering::Acquire) > 0 {
            if waited > END_LIMIT {
                return Err(format!("tasks of the meta-service had not ended after {} s", END_LIMIT.as_secs()));
            }
            N::sleep(END_POLL).await;
            waited += END_POLL;
        }
        Ok(())
    }

    fn sockets(&self) -> MutexGuard<'_, HashMap<u64, Handle>> {
        self.shared.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task, as long as it lives.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0.halt)("a task of the meta-service panicked; please report it with the message above".to_owned());
        }
        self.0.live.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection that is shut down at the end.
#[must_use = "dropped, the connection is left alone at the end"]
pub struct Kept {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.shared.sockets.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Spawns hyper's tasks.
pub struct Exec<N> {
    tasks: Tasks<N>,
    role: Role,
}

impl<N> Clone for Exec<N> {
    fn clone(&self) -> Self {
        Exec { tasks: self.tasks.clone(), role: self.role }
    }
}

impl<N: Net, F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Exec<N> {
    fn execute(&self, task: F) {
        self.tasks.spawn(self.role, task);
    }
}

/// Waits for `work`, but not longer than `limit`.
pub(crate) async fn within<N: Net, T>(limit: Duration, work: impl Future<Output = T> + Send) -> Option<T> {
    match futures::future::select(pin!(work), pin!(N::sleep(limit))).await {
        futures::future::Either::Left((done, _)) => Some(done),
        futures::future::Either::Right(_) => None,
    }
}
