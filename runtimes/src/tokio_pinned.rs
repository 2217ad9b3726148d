//! The broker on tokio, one current-thread runtime per pinned shard.
//!
//! Shards own their state: `Rc<RefCell<…>>`, never borrowed across an await; they speak by tokio's channels. Sockets are
//! readiness-based: one read buffer serves all connections of a shard, and replies are written by whoever produced them,
//! with a task of their own only while a socket is full. Files and RocksDB go to the runtime's blocking pool.
//!
//! Every shell has these functions, in this order:
//!
//! | function | does |
//! |---|---|
//! | `run` | starts the runtimes and threads, reports ready, waits for the end, adds up |
//! | `shard_main` | one shard from its start to its report |
//! | `spawn` | starts a task: the one place where tasks come from |
//! | `accept_loop` | takes connections in |
//! | `connection` | reads one connection until it ends or moves |
//! | `feed` | gives inputs to the broker and performs what it asks for |
//! | `perform` | one effect, spelled out |
//! | `send` | puts bytes into a connection's outbox |
//! | `flush`, `write_loop` | write outboxes to sockets |
//! | `append`, `sync`, `roll`, `read` | segment files (`files.rs`) |
//! | `meta` | the meta-service |
//! | `peer_loop`, `send_peer` | messages between shards |
//! | `migrate`, `adopt` | a connection moves to the shard of its session |
//! | `tick_loop` | time passes, and the end is noticed |
//! | `shutdown` | lets operations finish, flushes, closes |
//!
//! What it leaves out: every decision.

use crate::broker::Shard;
use crate::broker::effect::{ConnId, Effect, Handover, Input, MetaCall, OpId, PeerMsg, ShardId};
use crate::drain::Progress;
use crate::meta::rpc::net::Tokio;
use crate::meta::service::{Seat, Service};
use crate::segment::SyncFiles;
use crate::server::{Counters, ServeError, SocketCounters};
use crate::shell::{self, ConnIds, Done, Node, PanicWatch, ShardSeed, ShellReport, ToShard};
use crate::stamps::{self, Cause, Operation, Reads, RemoteAppends, Role};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::net;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

mod conn;
mod files;

use conn::Conn;
use files::{append, read, roll, sync};

/// A shard with its surroundings, on its own thread.
struct Local {
    node: Arc<Node>,
    id: ShardId,
    peers: Vec<UnboundedSender<ToShard>>,
    files: SyncFiles,
    state: RefCell<State>,
    read_buffer: RefCell<Box<[u8]>>,
    ids: RefCell<ConnIds>,
}

struct State {
    broker: Shard,
    effects: Vec<Effect>,
    conns: HashMap<ConnId, Conn>,
    /// Connections whose outbox has got something since the last flush.
    dirty: Vec<ConnId>,
    /// Completions of what was done inline.
    done: VecDeque<(Operation, Done)>,
    remote: RemoteAppends,
    sockets: SocketCounters,
    progress: Progress,
}

/// Starts a thread and runtime per shard, and ends with what all of them counted.
pub(crate) fn run(
    node: &Arc<Node>,
    seeds: Vec<ShardSeed>,
    listeners: Vec<net::TcpListener>,
    seat: Seat,
    ready: Box<dyn FnOnce() + '_>,
) -> Result<ShellReport, ServeError> {
    let (senders, receivers): (Vec<_>, Vec<_>) = seeds.iter().map(|_| unbounded_channel()).unzip();
    let service = Service::<Tokio>::start(node, seat)?;
    let mut threads = Vec::new();
    for ((seed, listener), inbox) in seeds.into_iter().zip(listeners).zip(receivers) {
        let (own_node, own_service, peers) = (Arc::clone(node), Arc::clone(&service), senders.clone());
        let thread = std::thread::Builder::new().name(format!("shard-{}", seed.id)).spawn(move || {
            let _watch = PanicWatch::new(&own_node);
            shard_main(&own_node, &own_service, seed, listener, peers, inbox)
                .inspect_err(|error| own_node.halt(error.to_string()))
        });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => node.halt(format!("a shard's thread cannot be started: {error}")),
        }
    }
    drop(senders);
    if node.wait_until_up(threads.len()) {
        ready();
    }
    let observation = node.wait();
    let mut report = ShellReport { observation, ..ShellReport::default() };
    let panicked = |_| Err(node.runtime_error("a shard's thread panicked".to_owned()));
    let shards: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect();
    let ended = service.finish();
    for counters in shards {
        report.counters += counters?;
        report.blocking_threads += node.blocking_threads_per_shard();
    }
    Ok(report.with(ended?))
}

/// One shard, from its start to its report.
fn shard_main(
    node: &Arc<Node>,
    service: &Arc<Service<Tokio>>,
    seed: ShardSeed,
    listener: net::TcpListener,
    peers: Vec<UnboundedSender<ToShard>>,
    inbox: UnboundedReceiver<ToShard>,
) -> Result<Counters, ServeError> {
    node.bind_shard(&seed)?;
    let seed_id = seed.id;
    let cannot = |error: io::Error| node.runtime_error(error.to_string());
    let blocking_node = Arc::clone(node);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(node.blocking_threads_per_shard())
        .thread_name(format!("blocking-{}", seed.id))
        // On this kind of runtime the hook runs on blocking threads only; they would inherit the shard's CPU.
        .on_thread_start(move || blocking_node.bind_blocking_thread())
        .build_local(LocalOptions::default())
        .map_err(cannot)?;
    runtime.block_on(async {
        listener.set_nonblocking(true).map_err(cannot)?;
        let listener = TcpListener::from_std(listener).map_err(cannot)?;
        let local = Rc::new(Local {
            node: Arc::clone(node),
            id: seed.id,
            peers,
            files: SyncFiles::new(node.layout.clone()),
            state: RefCell::new(State {
                broker: Shard::new(seed.config, seed.partitions),
                effects: Vec::new(),
                conns: HashMap::new(),
                dirty: Vec::new(),
                done: VecDeque::new(),
                remote: RemoteAppends::default(),
                sockets: SocketCounters::default(),
                progress: Progress::default(),
            }),
            read_buffer: RefCell::new(vec![0; shell::READ_BUFFER_BYTES].into()),
            ids: RefCell::new(ConnIds::new(seed.id)),
        });
        let _peers = spawn(&local, Role::Peer, peer_loop(Rc::clone(&local), inbox));
        let acceptor = spawn(&local, Role::Accept, accept_loop(Rc::clone(&local), listener));
        // Before this there is nobody to answer calls; other shards' wait in the queue.
        let meta = if seed_id == 0 { Some(service.join().await?) } else { None };
        node.shard_is_up();
        let ticks = spawn(&local, Role::Tick, tick_loop(Rc::clone(&local)));
        ticks.await.map_err(|error| node.runtime_error(error.to_string()))?;
        acceptor.abort();
        shutdown(&local).await;
        if let Some(meta) = meta {
            meta.end().await;
        }
        let state = local.state.borrow();
        Ok(Counters { broker: state.broker.counters(), sockets: state.sockets })
    })
}

/// Starts a task; every task of the shard starts here.
fn spawn(local: &Rc<Local>, role: Role, task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    let watch = PanicWatch::new(&local.node);
    let task = async move {
        task.await;
        drop(watch);
    };
    tokio::task::spawn_local(stamps::timed(role, task))
}

/// Takes connections in.
async fn accept_loop(local: Rc<Local>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if shell::set_nodelay(&stream).is_ok() => {
                let conn = local.ids.borrow_mut().next_id();
                let (c, reader, reads) = Conn::new(local.id, conn, stream, 0);
                local.state.borrow_mut().sockets.accepted += 1;
                local.state.borrow_mut().conns.insert(conn, c);
                feed(&local, Input::Accepted { conn });
                spawn(&local, Role::Connection, connection(Rc::clone(&local), conn, reader, reads));
            }
            Ok(_gone_already) => {}
            Err(_) => {
                // Out of descriptors, or a connection that was gone at once: the count is in the record.
                local.state.borrow_mut().sockets.accept_errors += 1;
                tokio::time::sleep(shell::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Reads one connection until it ends or moves.
async fn connection(local: Rc<Local>, conn: ConnId, mut reader: OwnedReadHalf, mut reads: Reads) {
    while let Ok(1..) = poll_fn(|cx| poll_read(&local, conn, &mut reader, &mut reads, cx)).await {
        let moving = local.state.borrow_mut().conns.get_mut(&conn).and_then(|c| c.moving.take());
        if let Some((to, handover)) = moving {
            return migrate(&local, conn, reader, to, handover);
        }
    }
    // At the end of the run all reading is ended, but clients are still to get their replies.
    if !local.node.is_ending() {
        feed(&local, Input::Closed { conn });
        let gone = local.state.borrow_mut().conns.remove(&conn);
        // A write that the client does not take ends with this.
        gone.into_iter().filter(|c| c.writing).for_each(|c| shell::shut((*c.socket).as_ref()));
    }
}

/// One read, into the buffer that all connections share, and straight on to the broker.
fn poll_read(
    local: &Rc<Local>,
    conn: ConnId,
    reader: &mut OwnedReadHalf,
    reads: &mut Reads,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut buffer = local.read_buffer.borrow_mut();
    let mut read = ReadBuf::new(&mut buffer);
    ready!(Pin::new(reader).poll_read(cx, &mut read))?;
    if local.node.is_ending() {
        return Poll::Ready(Ok(0));
    }
    let bytes = read.filled();
    if !bytes.is_empty() {
        local.state.borrow_mut().sockets.count_read(bytes.len());
        let _cause = reads.got(bytes.len());
        feed(local, Input::Received { conn, bytes });
    }
    Poll::Ready(Ok(bytes.len()))
}

/// Gives one input to the broker and performs what it asks for.
fn feed(local: &Rc<Local>, input: Input<'_>) {
    let mut state = local.state.borrow_mut();
    handle(local, &mut state, input);
    flush(local, &mut state);
}

fn handle(local: &Rc<Local>, state: &mut State, input: Input<'_>) {
    let mut effects = std::mem::take(&mut state.effects);
    let mut next = Some(input);
    while let Some(input) = next {
        state.progress.in_flight -= usize::from(matches!(input, Input::Done { .. }));
        let _released = Cause::input(&input);
        state.broker.handle(input, shell::now(), &mut effects);
        for effect in effects.drain(..) {
            perform(local, state, effect);
        }
        next = state.done.pop_front().map(|(operation, result)| operation.done(result));
    }
    state.effects = effects;
}

/// Performs one effect. The broker holds an effect back until what it depends on has completed.
fn perform(local: &Rc<Local>, state: &mut State, effect: Effect) {
    match effect {
        Effect::Reply { conn, bytes, after: _ } => send(state, conn, bytes),
        Effect::Push { conn, bytes } => send(state, conn, bytes),
        Effect::Close { conn } => close(state, conn),
        Effect::Append { op, partition, segment, at, bytes } => append(local, state, op, partition, segment, at, bytes),
        Effect::Sync { op, partition, segment, after: _ } => sync(local, state, op, partition, segment),
        Effect::Roll { op, partition, segment, durable } => roll(local, state, op, partition, segment, durable),
        Effect::Read { op, partition, segment, at, len } => read(local, state, op, partition, segment, at, len),
        Effect::Meta { op, call } => meta(local, state, op, call),
        Effect::Send { to, msg } => send_peer(local, state, to, msg),
        Effect::Migrate { conn, to, handover } => {
            if let Some(c) = state.conns.get_mut(&conn) {
                c.moving = Some((to, handover));
            }
        }
        Effect::Halt { reason } => local.node.halt(reason),
    }
}

/// Puts bytes into a connection's outbox; they leave with the next flush. Of a connection that is gone they are dropped.
fn send(state: &mut State, conn: ConnId, bytes: Bytes) {
    let Some(c) = state.conns.get_mut(&conn) else { return };
    if c.outbox.push(bytes).is_err() {
        state.sockets.slow_consumers += 1;
        c.outbox.clear();
        shell::shut((*c.socket).as_ref());
    } else if !c.dirty {
        c.dirty = true;
        state.dirty.push(conn);
    }
}

/// Closes a connection once its outbox is written; its reader then ends.
fn close(state: &mut State, conn: ConnId) {
    let Some(c) = state.conns.get_mut(&conn) else { return };
    c.closing = true;
    if !c.dirty {
        c.dirty = true;
        state.dirty.push(conn);
    }
}

/// Writes what outboxes have got, at once as far as the sockets take it.
fn flush(local: &Rc<Local>, state: &mut State) {
    while let Some(conn) = state.dirty.pop() {
        let Some(c) = state.conns.get_mut(&conn) else { continue };
        c.dirty = false;
        if !c.writing && !c.write(&mut state.sockets) {
            c.writing = true;
            spawn(local, Role::Write, write_loop(Rc::clone(local), conn, Rc::clone(&c.socket)));
        }
    }
}

/// Goes on writing a connection's outbox whenever its socket takes more.
async fn write_loop(local: Rc<Local>, conn: ConnId, socket: Rc<OwnedWriteHalf>) {
    while socket.writable().await.is_ok() {
        let mut state = local.state.borrow_mut();
        let state = &mut *state;
        let Some(c) = state.conns.get_mut(&conn) else { return };
        if c.write(&mut state.sockets) {
            c.writing = false;
            return;
        }
    }
}

/// Calls the meta-service.
fn meta(local: &Rc<Local>, state: &mut State, op: OpId, call: MetaCall) {
    let operation = Operation::queued("meta", local.id, op);
    operate(local, state, shell::ask_meta(local.node.meta.clone(), operation, call));
}

/// Makes a blocking call, here or on the blocking pool, and tells the broker what came of it.
fn block(
    local: &Rc<Local>,
    state: &mut State,
    operation: Operation,
    inline: bool,
    call: impl FnOnce() -> Done + Send + 'static,
) {
    if inline { complete(state, operation, call) } else { operate(local, state, offload(operation, call)) }
}

/// Makes a blocking call at once; the broker is told what came of it when it has done with its present input.
fn complete(state: &mut State, operation: Operation, call: impl FnOnce() -> Done) {
    let (result, operation) = operation.run(call);
    state.progress.in_flight += 1;
    state.done.push_back((operation, result));
}

/// Waits for an operation in a task of its own, and tells the broker what came of it.
fn operate(local: &Rc<Local>, state: &mut State, work: impl Future<Output = (Done, Operation)> + 'static) {
    state.progress.in_flight += 1;
    let own = Rc::clone(local);
    spawn(local, Role::Effect, async move {
        let (result, operation) = work.await;
        feed(&own, operation.done(result));
    });
}

/// Has a blocking call made by the runtime's pool of threads.
fn offload(
    operation: Operation,
    call: impl FnOnce() -> Done + Send + 'static,
) -> impl Future<Output = (Done, Operation)> + 'static {
    let task = tokio::task::spawn_blocking(move || operation.run(call));
    async move { task.await.unwrap_or_else(|error| (Err(error.to_string()), operation)) }
}

/// Takes in what other shards say: all that is there, within a bound, with one flush.
async fn peer_loop(local: Rc<Local>, mut inbox: UnboundedReceiver<ToShard>) {
    while let Some(first) = inbox.recv().await {
        let mut state = local.state.borrow_mut();
        let more = std::iter::from_fn(|| inbox.try_recv().ok()).take(shell::PEER_BATCH_MAX);
        for message in std::iter::once(first).chain(more) {
            state.progress.handled += 1;
            match message {
                ToShard::Peer { from, msg } => {
                    state.remote.received(&msg);
                    handle(&local, &mut state, Input::Peer { from, msg });
                }
                ToShard::Adopt { conn, stream, handover } => adopt(&local, &mut state, conn, stream, handover),
            }
        }
        flush(&local, &mut state);
    }
}

/// Says something to another shard.
fn send_peer(local: &Rc<Local>, state: &mut State, to: ShardId, msg: PeerMsg) {
    state.remote.sent(local.id, &msg);
    tell(local, state, to, ToShard::Peer { from: local.id, msg });
}

fn tell(local: &Rc<Local>, state: &mut State, to: ShardId, message: ToShard) {
    state.progress.sent += 1;
    if local.peers.get(usize::from(to)).is_none_or(|peer| peer.send(message).is_err()) {
        local.node.halt(format!("shard {to} ended before shard {}", local.id));
    }
}

/// Takes a connection's socket out of this runtime and sends it to the shard of its session.
fn migrate(local: &Rc<Local>, conn: ConnId, reader: OwnedReadHalf, to: ShardId, handover: Box<Handover>) {
    let mut state = local.state.borrow_mut();
    let writer = state.conns.remove(&conn).and_then(|c| Rc::into_inner(c.socket));
    let stream = writer.and_then(|writer| reader.reunite(writer).ok()).and_then(|stream| stream.into_std().ok());
    match stream {
        Some(stream) => tell(local, &mut state, to, ToShard::Adopt { conn, stream, handover }),
        None => local.node.halt("a connection moved while something was written to it".to_owned()),
    }
}

/// Takes a connection over that another shard accepted.
fn adopt(local: &Rc<Local>, state: &mut State, conn: ConnId, stream: net::TcpStream, handover: Box<Handover>) {
    // It fails only when the runtime is at its end.
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    if local.node.is_ending() {
        shell::shut_reading(&stream);
    }
    let (c, reader, reads) = Conn::new(local.id, conn, stream, handover.bytes.len());
    state.conns.insert(conn, c);
    let _cause = Cause::handover(conn, handover.bytes.len());
    handle(local, state, Input::Adopt { conn, handover });
    spawn(local, Role::Connection, connection(Rc::clone(local), conn, reader, reads));
}

/// Lets time pass for the broker, until the run ends.
async fn tick_loop(local: Rc<Local>) {
    while !local.node.is_ending() {
        feed(&local, Input::Tick);
        tokio::time::sleep(shell::TICK).await;
    }
}

/// Reads no more, lets operations finish on all shards, gives clients a moment to take their replies, and closes.
async fn shutdown(local: &Rc<Local>) {
    let started = Instant::now();
    for c in local.state.borrow().conns.values() {
        shell::shut_reading((*c.socket).as_ref());
    }
    while !local.node.is_quiet(local.id, local.state.borrow().progress) {
        if started.elapsed() > shell::DRAIN_LIMIT {
            return local.node.halt(shell::not_drained());
        }
        tokio::time::sleep(shell::DRAIN_POLL).await;
    }
    let started = Instant::now();
    while started.elapsed() < shell::FLUSH_LIMIT && local.state.borrow().conns.values().any(|c| !c.outbox.is_empty()) {
        tokio::time::sleep(shell::DRAIN_POLL).await;
    }
    for (_, c) in local.state.borrow_mut().conns.drain() {
        shell::shut((*c.socket).as_ref());
    }
}
