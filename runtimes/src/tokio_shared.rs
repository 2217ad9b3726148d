//! The broker on tokio's multi-thread runtime with work stealing, as most brokers deploy it.
//!
//! Any worker may run any task, so state lies behind mutexes: one broker shard per worker, so that the lock is not what
//! is measured. A task locks one shard at a time and never across an await; what goes to another shard waits in that
//! shard's inbox until this one is released. Replies enter outboxes under the shard's lock, which keeps their order, and
//! are written outside of it. Files and RocksDB go to the runtime's blocking pool. A connection that moves changes the
//! shard that it belongs to, and nothing else.
//!
//! The functions, in their order, are those of [`crate::tokio_pinned`]. What it leaves out: every decision.

use crate::broker::Shard;
use crate::broker::effect::{ConnId, Effect, Handover, Input, MetaCall, OpId, PeerMsg, ShardId};
use crate::drain::Progress;
use crate::meta::rpc::net::Tokio;
use crate::meta::service::{Seat, Service};
use crate::segment::SyncFiles;
use crate::server::{Counters, ServeError, SocketCounters};
use crate::shell::{self, ConnIds, Done, Node, PanicWatch, ShardSeed, ShellReport};
use crate::stamps::{self, Cause, Operation, Reads, RemoteAppends, Role};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::net;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpListener;
use tokio::net::tcp::OwnedReadHalf;
use tokio::runtime::Builder;
use tokio::task::JoinHandle;

mod conn;
mod files;

use conn::Conn;
use files::{append, read, roll, sync};

/// All shards with their surroundings.
struct Shared {
    node: Arc<Node>,
    shards: Vec<Mutex<State>>,
    /// Locked while the sender's shard is, or the owner's: always after a shard's lock, never before one.
    inboxes: Vec<Mutex<VecDeque<(ShardId, PeerMsg)>>>,
    /// What connections counted that are gone.
    sockets: Mutex<SocketCounters>,
}

/// One shard, behind its lock.
struct State {
    id: ShardId,
    broker: Shard,
    effects: Vec<Effect>,
    conns: HashMap<ConnId, Arc<Conn>>,
    files: SyncFiles,
    remote: RemoteAppends,
    progress: Progress,
}

/// What one call of `feed` still has to do, once the shard is released.
#[derive(Default)]
struct Turn {
    work: VecDeque<Work>,
    /// Connections whose outbox has got something.
    dirty: Vec<Arc<Conn>>,
}

enum Work {
    /// A shard's inbox has got something.
    Inbox(ShardId),
    /// A connection moves to a shard.
    Adopt(ShardId, Arc<Conn>, Box<Handover>),
    /// A blocking operation of a shard is to be done inline.
    Call(ShardId, Operation, Box<dyn FnOnce() -> Done + Send>),
}

thread_local! {
    /// Between two reads nobody needs the bytes, so a worker has one buffer for all connections.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; shell::READ_BUFFER_BYTES].into());
}

/// Starts the runtime, and ends with what all shards counted.
pub(crate) fn run(
    node: &Arc<Node>,
    seeds: Vec<ShardSeed>,
    listeners: Vec<net::TcpListener>,
    seat: Seat,
    ready: Box<dyn FnOnce() + '_>,
) -> Result<ShellReport, ServeError> {
    let cannot = |error: io::Error| node.runtime_error(error.to_string());
    // Workers and blocking threads inherit the CPUs of the process.
    let mut builder = Builder::new_multi_thread();
    builder.enable_all().worker_threads(node.settings.threads).max_blocking_threads(node.settings.blocking_threads);
    if node.settings.eager_handoff {
        builder.enable_eager_driver_handoff();
    }
    let runtime = builder.thread_name("tokio-worker").build().map_err(cannot)?;
    let service = Service::<Tokio>::start(node, seat)?;
    let main =
        runtime.spawn(stamps::timed(Role::Main, shard_main(Arc::clone(node), Arc::clone(&service), seeds, listeners)));
    if node.wait_until_up(1) {
        ready();
    }
    let observation = node.wait();
    let counters = runtime.block_on(main).map_err(|error| node.runtime_error(error.to_string()));
    let ended = service.finish();
    let (counters, blocking_threads) = (counters??, node.settings.blocking_threads);
    Ok(ShellReport { counters, observation, blocking_threads, ..ShellReport::default() }.with(ended?))
}

/// All shards, from their start to their report.
async fn shard_main(
    node: Arc<Node>,
    service: Arc<Service<Tokio>>,
    seeds: Vec<ShardSeed>,
    listeners: Vec<net::TcpListener>,
) -> Result<Counters, ServeError> {
    let _watch = PanicWatch::new(&node);
    let shared = Arc::new(Shared {
        inboxes: seeds.iter().map(|_| Mutex::default()).collect(),
        shards: seeds.into_iter().map(|seed| Mutex::new(State::new(seed, &node))).collect(),
        sockets: Mutex::default(),
        node,
    });
    let node = &shared.node;
    let mut acceptors = Vec::new();
    for listener in listeners {
        let cannot = |error: io::Error| {
            node.halt(error.to_string());
            node.runtime_error(error.to_string())
        };
        listener.set_nonblocking(true).map_err(cannot)?;
        let listener = TcpListener::from_std(listener).map_err(cannot)?;
        acceptors.push(spawn(&shared, Role::Accept, accept_loop(Arc::clone(&shared), listener)));
    }
    let meta = service.join().await.inspect_err(|error| node.halt(error.to_string()))?;
    node.shard_is_up();
    let ticks = spawn(&shared, Role::Tick, tick_loop(Arc::clone(&shared)));
    ticks.await.map_err(|error| node.runtime_error(error.to_string()))?;
    for acceptor in acceptors {
        acceptor.abort();
    }
    shutdown(&shared).await;
    meta.end().await;
    let mut counters = Counters { sockets: *lock(&shared.sockets), ..Counters::default() };
    for shard in &shared.shards {
        counters.broker += lock(shard).broker.counters();
    }
    Ok(counters)
}

/// Starts a task; every task of the node starts here.
fn spawn(shared: &Arc<Shared>, role: Role, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let watch = PanicWatch::new(&shared.node);
    let task = async move {
        task.await;
        drop(watch);
    };
    tokio::spawn(stamps::timed(role, task))
}

/// Takes connections in, for one shard after the other.
async fn accept_loop(shared: Arc<Shared>, listener: TcpListener) {
    let mut ids: Vec<ConnIds> = (0..shared.shards.len()).map(|shard| ConnIds::new(shard as ShardId)).collect();
    for shard in (0..ids.len()).cycle() {
        match listener.accept().await {
            Ok((stream, _)) if shell::set_nodelay(&stream).is_ok() => {
                let id = ids[shard].next_id();
                let (conn, reader, reads) = Conn::new(id, stream, shard as ShardId);
                lock(&shared.sockets).accepted += 1;
                lock(&shared.shards[shard]).admit(&shared, &conn);
                feed(&shared, conn.home(), Input::Accepted { conn: id });
                spawn(&shared, Role::Connection, connection(Arc::clone(&shared), conn, reader, reads));
            }
            Ok(_gone_already) => {}
            Err(_) => {
                // Out of descriptors, or a connection that was gone at once: the count is in the record.
                lock(&shared.sockets).accept_errors += 1;
                tokio::time::sleep(shell::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Reads one connection until it ends.
async fn connection(shared: Arc<Shared>, conn: Arc<Conn>, mut reader: OwnedReadHalf, mut reads: Reads) {
    while let Ok(1..) = poll_fn(|cx| poll_read(&shared, &conn, &mut reader, &mut reads, cx)).await {}
    // At the end of the run all reading is ended, but clients are still to get their replies.
    if !shared.node.is_ending() {
        feed(&shared, conn.home(), Input::Closed { conn: conn.id });
        lock(&shared.shards[usize::from(conn.home())]).conns.remove(&conn.id);
        let mut out = lock(&conn.out);
        *lock(&shared.sockets) += std::mem::take(&mut out.sockets);
        // A write that the client does not take ends with this.
        if out.writing {
            shell::shut(conn.socket.as_ref());
        }
    }
}

/// One read, into the buffer of this worker, and straight on to the broker.
fn poll_read(
    shared: &Arc<Shared>,
    conn: &Arc<Conn>,
    reader: &mut OwnedReadHalf,
    reads: &mut Reads,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    READ_BUFFER.with_borrow_mut(|buffer| {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(reader).poll_read(cx, &mut read))?;
        if shared.node.is_ending() {
            return Poll::Ready(Ok(0));
        }
        let bytes = read.filled();
        if !bytes.is_empty() {
            lock(&conn.out).sockets.count_read(bytes.len());
            reads.moved_to(conn.home());
            let _cause = reads.got(bytes.len());
            feed(shared, conn.home(), Input::Received { conn: conn.id, bytes });
        }
        Poll::Ready(Ok(bytes.len()))
    })
}

/// Gives one input to a shard's broker and performs what it, and then other shards, ask for.
fn feed(shared: &Arc<Shared>, at: ShardId, input: Input<'_>) {
    let mut turn = Turn::default();
    handle(shared, &mut lock(&shared.shards[usize::from(at)]), &mut turn, input);
    while let Some(work) = turn.work.pop_front() {
        match work {
            Work::Inbox(at) => peer_loop(shared, at, &mut turn),
            Work::Adopt(at, conn, handover) => adopt(shared, at, &mut turn, conn, handover),
            Work::Call(at, operation, call) => {
                let (result, operation) = operation.run(call);
                let mut state = lock(&shared.shards[usize::from(at)]);
                handle(shared, &mut state, &mut turn, operation.done(result));
            }
        }
    }
    flush(shared, turn);
}

fn handle(shared: &Arc<Shared>, state: &mut State, turn: &mut Turn, input: Input<'_>) {
    let mut effects = std::mem::take(&mut state.effects);
    state.progress.in_flight -= usize::from(matches!(input, Input::Done { .. }));
    let _released = Cause::input(&input);
    state.broker.handle(input, shell::now(), &mut effects);
    for effect in effects.drain(..) {
        perform(shared, state, turn, effect);
    }
    state.effects = effects;
}

/// Performs one effect. The broker holds an effect back until what it depends on has completed.
fn perform(shared: &Arc<Shared>, state: &mut State, turn: &mut Turn, effect: Effect) {
    match effect {
        Effect::Reply { conn, bytes, after: _ } => send(state, turn, conn, bytes),
        Effect::Push { conn, bytes } => send(state, turn, conn, bytes),
        Effect::Close { conn } => close(state, turn, conn),
        Effect::Append { op, partition, segment, at, bytes } => {
            append(shared, state, turn, op, partition, segment, at, bytes)
        }
        Effect::Sync { op, partition, segment, after: _ } => sync(shared, state, turn, op, partition, segment),
        Effect::Roll { op, partition, segment, durable } => roll(shared, state, turn, op, partition, segment, durable),
        Effect::Read { op, partition, segment, at, len } => read(shared, state, turn, op, partition, segment, at, len),
        Effect::Meta { op, call } => meta(shared, state, op, call),
        Effect::Send { to, msg } => send_peer(shared, state, turn, to, msg),
        Effect::Migrate { conn, to, handover } => migrate(state, turn, conn, to, handover),
        Effect::Halt { reason } => shared.node.halt(reason),
    }
}

/// Puts bytes into a connection's outbox; they leave with the next flush. Of a connection that is gone they are dropped.
fn send(state: &mut State, turn: &mut Turn, conn: ConnId, bytes: Bytes) {
    let Some(c) = state.conns.get(&conn) else { return };
    let mut out = lock(&c.out);
    if out.outbox.push(bytes).is_err() {
        out.sockets.slow_consumers += 1;
        out.outbox.clear();
        shell::shut(c.socket.as_ref());
    } else if !out.dirty {
        out.dirty = true;
        turn.dirty.push(Arc::clone(c));
    }
}

/// Closes a connection once its outbox is written; its reader then ends.
fn close(state: &mut State, turn: &mut Turn, conn: ConnId) {
    let Some(c) = state.conns.get(&conn) else { return };
    let mut out = lock(&c.out);
    out.closing = true;
    if !out.dirty {
        out.dirty = true;
        turn.dirty.push(Arc::clone(c));
    }
}

/// Writes what outboxes have got, at once as far as the sockets take it.
fn flush(shared: &Arc<Shared>, turn: Turn) {
    for conn in turn.dirty {
        let mut out = lock(&conn.out);
        out.dirty = false;
        if !out.writing && !out.write(&conn.socket) {
            out.writing = true;
            drop(out);
            spawn(shared, Role::Write, write_loop(conn));
        }
    }
}

/// Goes on writing a connection's outbox whenever its socket takes more.
async fn write_loop(conn: Arc<Conn>) {
    while conn.socket.writable().await.is_ok() {
        let mut out = lock(&conn.out);
        if out.write(&conn.socket) {
            out.writing = false;
            return;
        }
    }
}

/// Calls the meta-service.
fn meta(shared: &Arc<Shared>, state: &mut State, op: OpId, call: MetaCall) {
    let operation = Operation::queued("meta", state.id, op);
    operate(shared, state, shell::ask_meta(shared.node.meta.clone(), operation, call));
}

/// Makes a blocking call, on this worker once the shard is released or on the blocking pool, and tells the broker what
/// came of it.
fn block(
    shared: &Arc<Shared>,
    state: &mut State,
    turn: &mut Turn,
    operation: Operation,
    inline: bool,
    call: impl FnOnce() -> Done + Send + 'static,
) {
    if inline { complete(state, turn, operation, call) } else { operate(shared, state, offload(operation, call)) }
}

/// Makes a blocking call on this worker once the shard is released.
fn complete(state: &mut State, turn: &mut Turn, operation: Operation, call: impl FnOnce() -> Done + Send + 'static) {
    state.progress.in_flight += 1;
    turn.work.push_back(Work::Call(state.id, operation, Box::new(call)));
}

/// Waits for an operation in a task of its own, and tells the broker what came of it.
fn operate(shared: &Arc<Shared>, state: &mut State, work: impl Future<Output = (Done, Operation)> + Send + 'static) {
    state.progress.in_flight += 1;
    let (own, at) = (Arc::clone(shared), state.id);
    spawn(shared, Role::Effect, async move {
        let (result, operation) = work.await;
        feed(&own, at, operation.done(result));
    });
}

/// Has a blocking call made by the runtime's pool of threads.
fn offload(
    operation: Operation,
    call: impl FnOnce() -> Done + Send + 'static,
) -> impl Future<Output = (Done, Operation)> + Send + 'static {
    let task = tokio::task::spawn_blocking(move || operation.run(call));
    async move { task.await.unwrap_or_else(|error| (Err(error.to_string()), operation)) }
}

/// Takes in what other shards said to shard `at`. No loop of its own: who said it comes along and does it.
fn peer_loop(shared: &Arc<Shared>, at: ShardId, turn: &mut Turn) {
    let mut state = lock(&shared.shards[usize::from(at)]);
    loop {
        let next = lock(&shared.inboxes[usize::from(at)]).pop_front();
        let Some((from, msg)) = next else { return };
        state.progress.handled += 1;
        state.remote.received(&msg);
        handle(shared, &mut state, turn, Input::Peer { from, msg });
    }
}

/// Says something to another shard.
fn send_peer(shared: &Arc<Shared>, state: &mut State, turn: &mut Turn, to: ShardId, msg: PeerMsg) {
    state.progress.sent += 1;
    state.remote.sent(state.id, &msg);
    lock(&shared.inboxes[usize::from(to)]).push_back((state.id, msg));
    turn.work.push_back(Work::Inbox(to));
}

/// Lets a connection go to the shard of its session.
fn migrate(state: &mut State, turn: &mut Turn, conn: ConnId, to: ShardId, handover: Box<Handover>) {
    if let Some(c) = state.conns.remove(&conn) {
        state.progress.sent += 1;
        turn.work.push_back(Work::Adopt(to, c, handover));
    }
}

/// Takes a connection over that another shard accepted.
fn adopt(shared: &Arc<Shared>, at: ShardId, turn: &mut Turn, conn: Arc<Conn>, handover: Box<Handover>) {
    conn.move_home(at);
    lock(&conn.out).outbox.stamps().moved_to(at);
    let mut state = lock(&shared.shards[usize::from(at)]);
    state.progress.handled += 1;
    state.admit(shared, &conn);
    let _cause = Cause::handover(conn.id, handover.bytes.len());
    handle(shared, &mut state, turn, Input::Adopt { conn: conn.id, handover });
}

/// Lets time pass for the broker, until the run ends.
async fn tick_loop(shared: Arc<Shared>) {
    while !shared.node.is_ending() {
        for shard in 0..shared.shards.len() {
            feed(&shared, shard as ShardId, Input::Tick);
        }
        tokio::time::sleep(shell::TICK).await;
    }
}

/// Reads no more, lets operations finish, gives clients a moment to take their replies, and closes.
async fn shutdown(shared: &Arc<Shared>) {
    let started = Instant::now();
    for conn in shared.conns() {
        shell::shut_reading(conn.socket.as_ref());
    }
    while !shared.node.is_quiet(0, shared.progress()) {
        if started.elapsed() > shell::DRAIN_LIMIT {
            return shared.node.halt(shell::not_drained());
        }
        tokio::time::sleep(shell::DRAIN_POLL).await;
    }
    let started = Instant::now();
    while started.elapsed() < shell::FLUSH_LIMIT && shared.conns().iter().any(|c| !lock(&c.out).outbox.is_empty()) {
        tokio::time::sleep(shell::DRAIN_POLL).await;
    }
    for conn in shared.conns() {
        shell::shut(conn.socket.as_ref());
        *lock(&shared.sockets) += std::mem::take(&mut lock(&conn.out).sockets);
    }
}

impl Shared {
    fn conns(&self) -> Vec<Arc<Conn>> {
        self.shards.iter().flat_map(|shard| lock(shard).conns.values().cloned().collect::<Vec<_>>()).collect()
    }

    fn progress(&self) -> Progress {
        self.shards.iter().fold(Progress::default(), |sum, shard| sum + lock(shard).progress)
    }
}

impl State {
    fn new(seed: ShardSeed, node: &Node) -> State {
        State {
            id: seed.id,
            broker: Shard::new(seed.config, seed.partitions),
            effects: Vec::new(),
            conns: HashMap::new(),
            files: SyncFiles::new(node.layout.clone()),
            remote: RemoteAppends::default(),
            progress: Progress::default(),
        }
    }

    fn admit(&mut self, shared: &Shared, conn: &Arc<Conn>) {
        self.conns.insert(conn.id, Arc::clone(conn));
        // `shutdown` looks at each shard once, under its lock: whoever comes later sees that the run is ending.
        if shared.node.is_ending() {
            shell::shut_reading(conn.socket.as_ref());
        }
    }
}

/// A panic elsewhere halts the run by itself, so a poisoned lock is only on its way out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
