//! What every shell shares: plain, synchronous, free of any runtime.
//!
//! [`crate::serve`] prepares a [`Node`] (directories recovered, store open, CPUs bound) and one [`ShardSeed`] and
//! listener per shard; a shell's `run` starts its threads, reports that it is ready, calls [`Node::wait`] on the main
//! thread, and joins. Shards look at [`Node::is_ending`] in their tick loop. What this leaves out: everything that a
//! runtime does in its own idiom, which is what Regauge compares.

use crate::affinity::{self, AffinityError};
use crate::attest::{self, Observation, RoleRecord};
use crate::broker::effect::{ConnId, Handover, MetaCall, Now, Outcome, PeerMsg, SessionRecord, ShardId};
use crate::broker::{BrokerConfig, PartitionState};
use crate::drain::{Drain, Progress};
use crate::meta::batcher::MetaClient;
use crate::meta::service::Ended;
use crate::segment::Layout;
use crate::server::{Counters, ServeError, Stop};
use crate::settings::{Settings, Stack};
use crate::spans;
use crate::stamps::{self, Operation};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::Instrument;

/// Bytes asked for with one read of a connection.
pub const READ_BUFFER_BYTES: usize = 64 << 10;
/// Messages of other shards that are handled with one flush.
pub const PEER_BATCH_MAX: usize = 256;
/// Between two ticks of a shard: keep-alive and the end of the run are looked at this often.
pub const TICK: Duration = Duration::from_millis(50);
/// How long a shard waits for operations in flight before it ends without them, and the run fails.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// How long, after that, clients may take to read what was sent to them.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// Between two looks of a shard that is ending at what is still to do.
pub const DRAIN_POLL: Duration = Duration::from_millis(1);
/// After an accept that failed: out of descriptors is not over at once.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 8192;
/// How often the main thread looks whether it must stop.
const STOP_POLL: Duration = Duration::from_millis(20);

/// What all shards of one running broker share.
#[derive(Debug)]
pub struct Node {
    /// Which stack this is.
    pub stack: Stack,
    /// The arm's settings.
    pub settings: Settings,
    /// Where segment files lie.
    pub layout: Layout,
    /// The way to the meta-service.
    pub meta: MetaClient,
    stop: Stop,
    ending: AtomicBool,
    shards_up: AtomicUsize,
    failure: Mutex<Option<String>>,
    drain: Mutex<Drain>,
}

/// What one shard starts from.
#[derive(Debug)]
pub struct ShardSeed {
    /// Its number.
    pub id: ShardId,
    /// The CPU that a pinned shard binds to; `None` when the settings name no CPUs or the stack is not pinned.
    pub cpu: Option<usize>,
    /// For [`crate::broker::Shard::new`].
    pub config: BrokerConfig,
    /// The partitions it owns, as recovered.
    pub partitions: Vec<PartitionState>,
}

/// What a shell hands back when its threads have ended.
#[derive(Debug, Default)]
pub struct ShellReport {
    /// Sum over the shards.
    pub counters: Counters,
    /// Threads that the blocking pools were really given, all shards together.
    pub blocking_threads: usize,
    /// What the kernel confirmed for bounded io-wq workers per ring; `None` without a ring.
    pub iowq_bounded: Option<u32>,
    /// Submission queue entries per ring; `None` without a ring.
    pub ring_entries: Option<u32>,
    /// Runtimes of roles besides the connections'.
    pub roles: Vec<RoleRecord>,
    /// What the meta-service has stored, read back after its end.
    pub sessions: Vec<SessionRecord>,
    /// Threads and descriptors, seen while the shards still ran: what [`Node::wait`] returned.
    pub observation: Observation,
}

impl ShellReport {
    /// Adds what the meta-service leaves behind.
    pub(crate) fn with(self, ended: Ended) -> ShellReport {
        ShellReport { roles: ended.roles, sessions: ended.sessions, ..self }
    }
}

/// What came of an operation, or one sentence on why it failed.
pub type Done = Result<Outcome, String>;

/// A meta call as every shell makes it: within its span, with the proposal that carried it noted.
pub(crate) async fn ask_meta(client: MetaClient, operation: Operation, call: MetaCall) -> (Done, Operation) {
    let span = spans::of_call(&call);
    match client.call(call).instrument(span).await {
        Ok((reply, proposal)) => (Ok(Outcome::Meta(reply)), operation.carried_by(proposal)),
        Err(why) => (Err(why), operation),
    }
}

/// What travels between shards that own their state: the channel's element on every pinned stack.
#[derive(Debug)]
pub enum ToShard {
    /// For [`crate::broker::effect::Input::Peer`].
    Peer {
        /// The sender.
        from: ShardId,
        /// What it says.
        msg: PeerMsg,
    },
    /// For [`crate::broker::effect::Input::Adopt`].
    Adopt {
        /// The connection's id, unchanged.
        conn: ConnId,
        /// Its socket, taken out of the other runtime.
        stream: TcpStream,
        /// What had been read.
        handover: Box<Handover>,
    },
}

impl Node {
    /// Of `serve`, once everything that may fail early has not.
    pub(crate) fn new(stack: Stack, settings: Settings, layout: Layout, meta: MetaClient, stop: Stop) -> Node {
        // The shards of a pinned stack report one by one, those of a shared one together.
        let reporters = if stack.is_pinned() { settings.threads } else { 1 };
        Node {
            stack,
            settings,
            layout,
            meta,
            stop,
            ending: AtomicBool::new(false),
            shards_up: AtomicUsize::new(0),
            failure: Mutex::new(None),
            drain: Mutex::new(Drain::new(reporters)),
        }
    }

    /// Whether shards must end: stop accepting, let operations finish, flush, close.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// A shard says that it accepts connections. Once all have, `run` reports that the stack is ready.
    pub fn shard_is_up(&self) {
        self.shards_up.fetch_add(1, Ordering::AcqRel);
    }

    /// Performs [`Effect::Halt`]: the run fails with `reason` (the first one given) and all shards end.
    pub fn halt(&self, reason: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.ending.store(true, Ordering::Release);
    }

    /// Waits until `shards` shards are up or one has failed. True when they are.
    pub fn wait_until_up(&self, shards: usize) -> bool {
        self.wait_until(|| self.shards_up.load(Ordering::Acquire) >= shards)
    }

    /// Waits, on the main thread, until the run must end (asked to stop, or halted), looks at threads and descriptors
    /// while all shards still run, and then lets them end.
    pub fn wait(&self) -> Observation {
        while !self.stop.is_stopped() && !self.is_ending() {
            std::thread::sleep(STOP_POLL);
        }
        let observation = attest::observe();
        self.ending.store(true, Ordering::Release);
        observation
    }

    /// A shard that reads no more reports what it still has to do (every millisecond or so); true when no shard has
    /// anything left to do. A node of a shared stack reports as shard 0.
    pub fn is_quiet(&self, shard: ShardId, progress: Progress) -> bool {
        self.drain.lock().unwrap_or_else(PoisonError::into_inner).report(usize::from(shard), progress)
    }

    /// The error of a runtime or thread that cannot go on.
    pub fn runtime_error(&self, reason: String) -> ServeError {
        ServeError::Runtime { stack: self.stack, reason }
    }

    /// Why the run failed, if it did.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Binds the calling thread, a shard's, to its CPU.
    ///
    /// # Errors
    /// As [`affinity::bind_thread`].
    pub fn bind_shard(&self, seed: &ShardSeed) -> Result<(), AffinityError> {
        // Before its first RocksDB call, which is made outside of any task and would name it after a pool.
        stamps::this_thread("broker");
        affinity::bind_thread(seed.cpu.as_slice())
    }

    /// Lets the calling thread, one of a blocking pool, run on all CPUs of the server: a pool that is started from a
    /// pinned shard would inherit the pin, on some runtimes and not on others. A failure halts the run.
    pub fn bind_blocking_thread(&self) {
        if let Err(error) = affinity::bind_thread(&self.settings.cpus) {
            self.halt(format!("a blocking thread could not be bound to the server's CPUs: {error}"));
        }
    }

    /// Waits on the calling thread until `is_so`. False when the run ends before.
    pub fn wait_until(&self, is_so: impl Fn() -> bool) -> bool {
        while !self.is_ending() {
            if is_so() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    /// Blocking threads of each shard's own pool: an equal share, at least one.
    pub fn blocking_threads_per_shard(&self) -> usize {
        (self.settings.blocking_threads / self.settings.threads.max(1)).max(1)
    }
}

/// Halts the run when the task that owns it panics: runtimes keep a task's panic to themselves, and a broker that goes
/// on without one of its tasks must not be measured.
#[derive(Debug)]
pub struct PanicWatch(Arc<Node>);

impl PanicWatch {
    /// To be moved into a task.
    pub fn new(node: &Arc<Node>) -> PanicWatch {
        PanicWatch(Arc::clone(node))
    }
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.halt("a task panicked; please report it with the message above".to_owned());
        }
    }
}

/// Ids of the connections that one shard accepts: the shard in the high 16 bits, a counter below.
#[derive(Debug)]
pub struct ConnIds {
    next: u64,
}

impl ConnIds {
    /// For `shard`.
    pub fn new(shard: ShardId) -> ConnIds {
        ConnIds { next: u64::from(shard) << 48 }
    }

    /// The next id.
    pub fn next_id(&mut self) -> ConnId {
        let id = ConnId(self.next);
        self.next += 1;
        id
    }
}

/// The time now, for an input of the broker.
pub fn now() -> Now {
    use rustix::time::{ClockId, clock_gettime};
    let mono = clock_gettime(ClockId::Monotonic);
    // Whole seconds are enough for session expiry, and the coarse clock costs a third of the exact one.
    let wall = clock_gettime(ClockId::RealtimeCoarse);
    Now {
        mono_ns: (mono.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(mono.tv_nsec as u64),
        unix_s: wall.tv_sec as u64,
    }
}

/// Ends both directions of a socket, so that a read that is pending on it ends too, on every runtime alike. The
/// descriptor stays open until its owner drops it. An error means that the peer was faster.
pub fn shut(socket: &impl AsFd) {
    let _peer_was_faster = socket2::SockRef::from(socket).shutdown(Shutdown::Both);
}

/// Ends a read that is pending on a socket; what must still be sent can be. Linux goes on to deliver what a client sends
/// after this, so readers also look at [`Node::is_ending`].
pub fn shut_reading(socket: &impl AsFd) {
    let _peer_was_faster = socket2::SockRef::from(socket).shutdown(Shutdown::Read);
}

/// Switches Nagle's algorithm off: with it a reply may wait 40 ms for a delayed acknowledgement.
///
/// # Errors
/// When the connection is gone already.
pub fn set_nodelay(socket: &impl AsFd) -> std::io::Result<()> {
    socket2::SockRef::from(socket).set_tcp_nodelay(true)
}

/// Why a run halts when operations do not finish.
pub fn not_drained() -> String {
    format!("operations were still in flight {} s after the end of the run", DRAIN_LIMIT.as_secs())
}

/// Binds `count` blocking listeners to one address: a single plain one, or several that share the port by SO_REUSEPORT
/// so that the kernel spreads connections over the shards. With port 0 the first chooses the port.
///
/// # Errors
/// [`ServeError::Listen`], also when another process holds the port (SO_REUSEPORT alone would share it silently).
pub fn listen(addr: SocketAddr, count: usize) -> Result<(Vec<TcpListener>, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen { addr, source };
    if addr.port() != 0 && count > 1 {
        drop(bind(addr, false).map_err(failed)?);
    }
    let first = bind(addr, count > 1).map_err(failed)?;
    let addr = first.local_addr().map_err(failed)?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(bind(addr, true).map_err(failed)?);
    }
    Ok((listeners, addr))
}

/// Binds one listener.
///
/// # Errors
/// [`ServeError::Listen`].
pub fn listen_once(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen { addr, source };
    let listener = bind(addr, false).map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

fn bind(addr: SocketAddr, share_port: bool) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last run in TIME_WAIT; a port that is listened on stays busy.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share_port)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
