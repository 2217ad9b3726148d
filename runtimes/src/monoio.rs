//! The broker on monoio, one io_uring runtime per pinned shard.
//!
//! Shards own their state: `Rc<RefCell<…>>`, never borrowed across an await; they speak by flume channels, whose wakes
//! reach another runtime through monoio's `sync` feature. I/O is completion-based: each connection lends its own buffer
//! to the one read that it always has in flight, a task of its own writes an outbox that it owns meanwhile, and segment
//! files are written and synced by the same ring. Only RocksDB and the creation of files go to a pool of threads.
//!
//! The driver is named, because monoio's `FusionDriver` falls back to epoll without a word. What the ring cannot do at
//! once runs on io-wq workers, which [`crate::iowq`] makes as many as the arm says. Nothing may be in flight when the
//! runtime ends: it would free buffers that the kernel still uses.
//!
//! The functions and their order are those of `tokio_pinned`. What it leaves out: every decision.

use crate::broker::Shard;
use crate::broker::effect::{ConnId, Effect, Handover, Input, MetaCall, OpId, PeerMsg, ShardId};
use crate::drain::Progress;
use crate::iowq::{self, Ring, WorkerCpus};
use crate::meta::native::Pool;
use crate::meta::rpc::net::Monoio;
use crate::meta::service::{Seat, Service};
use crate::segment::SyncFiles;
use crate::server::{Counters, ServeError, SocketCounters};
use crate::shell::{self, ConnIds, Done, Node, PanicWatch, ShardSeed, ShellReport, ToShard};
use crate::stamps::{self, Cause, Operation, Reads, RemoteAppends, Role};
use bytes::Bytes;
use flume::{Receiver, Sender};
use monoio::blocking::DefaultThreadPool;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf};
use monoio::net::{TcpListener, TcpStream};
use monoio::task::JoinHandle;
use monoio::{IoUringDriver, RuntimeBuilder};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use std::{io, net};

mod conn;
mod files;
mod ring_files;

use conn::{Conn, Pieces};
use files::{append, read, roll, sync};
use ring_files::RingFiles;

/// A shard with its surroundings, on its own thread.
struct Local {
    node: Arc<Node>,
    id: ShardId,
    peers: Vec<Sender<Letter>>,
    files: SyncFiles,
    ring_files: Rc<RingFiles>,
    state: RefCell<State>,
    ids: RefCell<ConnIds>,
}

/// What a shard's inbox holds; `None` ends its `peer_loop`.
type Letter = Option<ToShard>;

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
    iowq::require(node)?;
    let (senders, receivers): (Vec<_>, Vec<_>) = seeds.iter().map(|_| flume::unbounded()).unzip();
    let service = Service::<Monoio>::start(node, seat)?;
    let mut threads = Vec::new();
    for ((seed, listener), inbox) in seeds.into_iter().zip(listeners).zip(receivers) {
        let (own_node, own_service, peers) = (Arc::clone(node), Arc::clone(&service), senders.clone());
        // Its threads start here, not on the shard's thread, whose CPU and name they would inherit.
        let pool = DefaultThreadPool::new(node.blocking_threads_per_shard());
        let thread = std::thread::Builder::new().name(format!("shard-{}", seed.id)).spawn(move || {
            let _watch = PanicWatch::new(&own_node);
            shard_main(&own_node, &own_service, seed, pool, listener, peers, inbox)
                .inspect_err(|error| own_node.halt(error.to_string()))
        });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => node.halt(format!("a shard's thread cannot be started: {error}")),
        }
    }
    drop(senders);
    let workers = WorkerCpus::keep(node);
    if node.wait_until_up(threads.len()) {
        ready();
    }
    let observation = node.wait();
    let mut report = ShellReport { observation, ..ShellReport::default() };
    let panicked = |_| Err(node.runtime_error("a shard's thread panicked".to_owned()));
    let shards: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect();
    let ended = service.finish();
    for shard in shards {
        let (counters, ring) = shard?;
        report.counters += counters;
        report.blocking_threads += node.blocking_threads_per_shard();
        report.iowq_bounded = Some(ring.bounded);
        report.ring_entries = Some(ring.entries);
    }
    drop(workers);
    Ok(report.with(ended?))
}

/// One shard, from its start to its report.
fn shard_main(
    node: &Arc<Node>,
    service: &Arc<Service<Monoio>>,
    seed: ShardSeed,
    pool: DefaultThreadPool,
    listener: net::TcpListener,
    peers: Vec<Sender<Letter>>,
    inbox: Receiver<Letter>,
) -> Result<(Counters, Ring), ServeError> {
    node.bind_shard(&seed)?;
    let seed_id = seed.id;
    let cannot = |error: io::Error| node.runtime_error(error.to_string());
    let builder = RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(node.settings.ring_entries)
        .attach_thread_pool(Box::new(pool))
        .enable_timer();
    let (mut runtime, ring) = iowq::build(node, || builder.build())?;
    let own_node = Arc::clone(node);
    Pool::new(node.blocking_threads_per_shard(), move || iowq::bind_pool_thread(&own_node, seed_id)).attach();
    let counters = runtime.block_on(async {
        let end_of_accepting = listener.try_clone().map_err(cannot)?;
        let listener = TcpListener::from_std(listener).map_err(cannot)?;
        let local = Rc::new(Local {
            node: Arc::clone(node),
            id: seed.id,
            peers,
            files: SyncFiles::new(node.layout.clone()),
            ring_files: Rc::new(RingFiles::new(node.layout.clone())),
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
            ids: RefCell::new(ConnIds::new(seed.id)),
        });
        spawn(&local, Role::Peer, peer_loop(Rc::clone(&local), inbox));
        spawn(&local, Role::Accept, accept_loop(Rc::clone(&local), listener));
        // Before this there is nobody to answer calls; other shards' wait in the queue.
        let meta = if seed_id == 0 { Some(service.join().await?) } else { None };
        node.shard_is_up();
        let ticks = spawn(&local, Role::Tick, tick_loop(Rc::clone(&local)));
        ticks.await;
        shell::shut(&end_of_accepting);
        shutdown(&local).await;
        if let Some(meta) = meta {
            meta.end().await;
        }
        let State { broker, sockets, .. } = &*local.state.borrow();
        Ok::<_, ServeError>(Counters { broker: broker.counters(), sockets: *sockets })
    })?;
    if node.failure().is_some() {
        // What a shard that failed may have left in flight must not lose its buffers.
        std::mem::forget(runtime);
    }
    Ok((counters, ring))
}

/// Starts a task: the one place where tasks come from.
fn spawn(local: &Rc<Local>, role: Role, task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    let watch = PanicWatch::new(&local.node);
    let task = async move {
        task.await;
        drop(watch);
    };
    monoio::spawn(stamps::timed(role, task))
}

/// Takes connections in.
async fn accept_loop(local: Rc<Local>, listener: TcpListener) {
    while !local.node.is_ending() {
        match listener.accept().await {
            Ok((stream, _)) if stream.set_nodelay(true).is_ok() => {
                let conn = local.ids.borrow_mut().next_id();
                let (c, reader, reads) = Conn::new(local.id, conn, stream, 0);
                local.state.borrow_mut().sockets.accepted += 1;
                local.state.borrow_mut().conns.insert(conn, c);
                feed(&local, Input::Accepted { conn });
                spawn(&local, Role::Connection, connection(Rc::clone(&local), conn, reader, reads));
            }
            Ok(_gone_already) => {}
            Err(_) if local.node.is_ending() => {}
            Err(_) => {
                local.state.borrow_mut().sockets.accept_errors += 1;
                monoio::time::sleep(shell::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Reads one connection until it ends or moves. One read is in flight at any time, and none is ever given up: what a
/// cancelled one had read would be lost.
async fn connection(local: Rc<Local>, conn: ConnId, mut reader: OwnedReadHalf<TcpStream>, mut reads: Reads) {
    let mut buffer = Vec::with_capacity(shell::READ_BUFFER_BYTES);
    while !local.node.is_ending() {
        let (result, lent) = reader.read(buffer).await;
        buffer = lent;
        let Ok(1..) = result else { break };
        local.state.borrow_mut().sockets.count_read(buffer.len());
        let cause = reads.got(buffer.len());
        feed(&local, Input::Received { conn, bytes: &buffer });
        drop(cause);
        buffer.clear();
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
        gone.into_iter().filter(Conn::is_writing).for_each(|c| c.shut());
    }
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
        c.shut();
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

/// Sees to it that what outboxes have got is written: by the task that writes a connection already, or by a new one. Its
/// write and the next read of the connection reach the kernel with the same system call.
fn flush(local: &Rc<Local>, state: &mut State) {
    while let Some(conn) = state.dirty.pop() {
        let Some(c) = state.conns.get_mut(&conn) else { continue };
        c.dirty = false;
        if let Some(writer) = c.writer.take() {
            spawn(local, Role::Write, write_loop(Rc::clone(local), conn, writer));
        }
    }
}

/// Writes a connection's outbox until it is empty, each time all that is pending.
async fn write_loop(local: Rc<Local>, conn: ConnId, mut writer: OwnedWriteHalf<TcpStream>) {
    loop {
        let pieces = {
            let mut state = local.state.borrow_mut();
            let Some(c) = state.conns.get_mut(&conn) else { return };
            if c.outbox.is_empty() {
                if c.closing {
                    c.shut();
                }
                c.writer = Some(writer);
                return;
            }
            c.outbox.take()
        };
        let (result, _pieces) = writer.write_vectored_all(Pieces::new(pieces)).await;
        let mut state = local.state.borrow_mut();
        match result {
            Ok(written) => {
                state.sockets.count_write(written);
                let Some(c) = state.conns.get_mut(&conn) else { return };
                c.outbox.sent(written);
            }
            Err(_client_is_gone) => {
                let Some(c) = state.conns.get_mut(&conn) else { return };
                c.outbox.clear();
                c.closing = true;
            }
        }
    }
}

/// Calls the meta-service.
fn meta(local: &Rc<Local>, state: &mut State, op: OpId, call: MetaCall) {
    let operation = Operation::queued("meta", local.id, op);
    operate(local, state, shell::ask_meta(local.node.meta.clone(), operation, call));
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
    let task = async move {
        let (result, operation) = work.await;
        feed(&own, operation.done(result));
    };
    spawn(local, Role::Effect, task);
}

/// Has a blocking call made by the runtime's pool of threads, on any of the server's CPUs.
fn offload(
    local: &Local,
    operation: Operation,
    call: impl FnOnce() -> Done + Send + 'static,
) -> impl Future<Output = (Done, Operation)> + 'static {
    let (node, shard) = (Arc::clone(&local.node), local.id);
    async move {
        let on_pool = move || {
            // A pool's panic would leave the task waiting for ever.
            let _watch = PanicWatch::new(&node);
            iowq::bind_pool_thread(&node, shard);
            operation.run(call)
        };
        let made = monoio::spawn_blocking(on_pool).await;
        made.unwrap_or_else(|error| (Err(format!("the blocking pool ended: {error:?}")), operation))
    }
}

/// Takes in what other shards say: all that is there, within a bound, with one flush.
async fn peer_loop(local: Rc<Local>, inbox: Receiver<Letter>) {
    while let Ok(Some(first)) = inbox.recv_async().await {
        let mut state = local.state.borrow_mut();
        for message in std::iter::once(first).chain(inbox.try_iter().flatten().take(shell::PEER_BATCH_MAX)) {
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
    if local.peers.get(usize::from(to)).is_none_or(|peer| peer.send(Some(message)).is_err()) {
        local.node.halt(format!("shard {to} ended before shard {}", local.id));
    }
}

/// Takes a connection's socket out of this runtime and sends it to the shard of its session. No read is in flight, since
/// the reader is here, and no write, since its other half is.
fn migrate(local: &Rc<Local>, conn: ConnId, reader: OwnedReadHalf<TcpStream>, to: ShardId, handover: Box<Handover>) {
    let mut state = local.state.borrow_mut();
    let writer = state.conns.remove(&conn).and_then(|c| c.writer);
    match writer.and_then(|writer| reader.reunite(writer).ok()) {
        Some(stream) => {
            // SAFETY: the descriptor was just taken out of its only owner.
            let stream = unsafe { net::TcpStream::from_raw_fd(stream.into_raw_fd()) };
            tell(local, &mut state, to, ToShard::Adopt { conn, stream, handover });
        }
        None => local.node.halt("a connection moved while something was written to it".to_owned()),
    }
}

/// Takes a connection over that another shard accepted.
fn adopt(local: &Rc<Local>, state: &mut State, conn: ConnId, stream: net::TcpStream, handover: Box<Handover>) {
    if local.node.is_ending() {
        shell::shut_reading(&stream);
    }
    // It fails only when the runtime is at its end.
    let Ok(stream) = TcpStream::from_std(stream) else { return };
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
        monoio::time::sleep(shell::TICK).await;
    }
}

/// Reads no more, lets operations finish on all shards, gives clients a moment to take their replies, closes, and waits
/// until the ring holds nothing of ours.
async fn shutdown(local: &Rc<Local>) {
    let started = Instant::now();
    for c in local.state.borrow().conns.values() {
        c.shut_reading();
    }
    while !local.node.is_quiet(local.id, local.state.borrow().progress) {
        if started.elapsed() > shell::DRAIN_LIMIT {
            return local.node.halt(shell::not_drained());
        }
        monoio::time::sleep(shell::DRAIN_POLL).await;
    }
    let started = Instant::now();
    while started.elapsed() < shell::FLUSH_LIMIT && local.state.borrow().conns.values().any(Conn::is_writing) {
        monoio::time::sleep(shell::DRAIN_POLL).await;
    }
    for c in local.state.borrow().conns.values() {
        c.shut();
    }
    let _peer_loop_ends = local.peers.get(usize::from(local.id)).is_some_and(|own| own.send(None).is_ok());
    // Every task holds the shard.
    let started = Instant::now();
    while Rc::strong_count(local) > 1 {
        if started.elapsed() > shell::DRAIN_LIMIT {
            return local.node.halt(shell::not_drained());
        }
        monoio::time::sleep(shell::DRAIN_POLL).await;
    }
    local.state.borrow_mut().conns.clear();
}
