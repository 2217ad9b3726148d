//! The state of a shard, and the dispatch of its inputs.

use super::config::{BrokerConfig, Counters, PartitionState};
use super::conn::{Conn, Phase};
use super::effect::{ConnId, Effect, Input, Now, OpId, Outcome, PeerMsg, ShardId};
use super::log::Log;
use super::meta::Lane;
use super::on_connect::Opening;
use super::on_subscribe::Join;
use super::on_tick::Timer;
use super::ops::{ById, Op, Ops};
use super::placing::shard_of_partition;
use super::retained::Retained;
use super::session::Session;
use super::trie::{Matches, Trie};
use slab::Slab;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// A shard without the gate: its effects name what they depend on, and the shell observes it.
#[derive(Debug)]
pub struct Broker {
    pub(super) config: BrokerConfig,
    pub(super) now: Now,
    /// Effects of the input at hand.
    pub(super) fx: Vec<Effect>,
    pub(super) ops: Ops,
    pub(super) conns: Slab<Conn>,
    pub(super) conn_keys: HashMap<ConnId, usize, ById>,
    /// Connections with output to flush, in the order in which they got it.
    pub(super) dirty_conns: Vec<usize>,
    pub(super) sessions: Slab<Session>,
    pub(super) clients: HashMap<Arc<str>, usize>,
    pub(super) trie: Trie,
    pub(super) retained: Retained,
    /// By partition; `None` where another shard owns it.
    pub(super) logs: Vec<Option<Log>>,
    /// Partitions to pump, in the order in which something happened to them.
    pub(super) dirty_logs: Vec<u32>,
    /// Answers owed to other shards once an operation has completed: to whom, and their token.
    pub(super) promises: HashMap<OpId, Vec<(ShardId, OpId)>, ById>,
    pub(super) lanes: HashMap<Arc<str>, Lane>,
    pub(super) openings: HashMap<OpId, Opening, ById>,
    pub(super) joins: Slab<Join>,
    /// Joins that wait for a write of the meta store.
    pub(super) put_joins: HashMap<OpId, usize, ById>,
    pub(super) timers: BTreeSet<(u64, Timer)>,
    pub(super) matches: Matches,
    pub(super) counters: Counters,
    /// Client ids assigned so far.
    pub(super) assigned: u64,
    /// Sessions created so far.
    pub(super) serial: u64,
    pub(super) halted: bool,
}

impl Broker {
    /// A shard at its start. `recovered` says where its partitions stand; see [`PartitionState`].
    pub fn new(config: BrokerConfig, recovered: Vec<PartitionState>) -> Self {
        let log = |partition| {
            let owned = shard_of_partition(partition, config.shards) == config.shard;
            let found = recovered.iter().find(|r| r.partition == partition).copied();
            owned.then(|| Log::new(partition, config.durability, config.segment_bytes, found))
        };
        Broker {
            logs: (0..config.partitions.max(1)).map(log).collect(),
            config,
            now: Now::default(),
            fx: Vec::new(),
            ops: Ops::default(),
            conns: Slab::new(),
            conn_keys: HashMap::default(),
            dirty_conns: Vec::new(),
            sessions: Slab::new(),
            clients: HashMap::new(),
            trie: Trie::default(),
            retained: Retained::default(),
            dirty_logs: Vec::new(),
            promises: HashMap::default(),
            lanes: HashMap::new(),
            openings: HashMap::default(),
            joins: Slab::new(),
            put_joins: HashMap::default(),
            timers: BTreeSet::new(),
            matches: Matches::default(),
            counters: Counters::default(),
            assigned: 0,
            serial: 0,
            halted: false,
        }
    }

    /// Takes an input in and appends what must be done because of it.
    ///
    /// After [`Effect::Halt`] nothing is emitted any more, whatever comes.
    pub fn handle(&mut self, input: Input<'_>, now: Now, out: &mut Vec<Effect>) {
        if self.halted {
            return;
        }
        self.now = now;
        let before = out.len();
        std::mem::swap(out, &mut self.fx);
        match input {
            Input::Accepted { conn } => self.accept(conn, now.mono_ns),
            Input::Received { conn, bytes } => {
                if let Some(&key) = self.conn_keys.get(&conn) {
                    self.receive(key, bytes);
                }
            }
            Input::Closed { conn } => self.closed(conn),
            Input::Done { op, result: Ok(outcome) } => self.on_done(op, outcome),
            Input::Done { op, result: Err(why) } => self.on_failed(op, &why),
            Input::Peer { from, msg } => self.on_peer(from, msg),
            Input::Adopt { conn, handover } => {
                self.accept(conn, handover.accepted_ns);
                if let Some(&key) = self.conn_keys.get(&conn) {
                    self.receive(key, &handover.bytes);
                }
            }
            Input::Tick => self.on_tick(),
        }
        self.finish();
        std::mem::swap(out, &mut self.fx);
        if self.halted {
            // Nothing of this input may be acknowledged: it may depend on what failed.
            let halt = out.drain(before..).find(|e| matches!(e, Effect::Halt { .. }));
            out.extend(halt);
        }
    }

    /// What was done since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether an operation has been named and has not completed.
    pub(super) fn is_pending(&self, op: OpId) -> bool {
        self.ops.is_open(op)
    }

    /// Starts what was gathered during the input.
    fn finish(&mut self) {
        for i in 0..self.dirty_logs.len() {
            if let Some(Some(log)) = self.logs.get_mut(self.dirty_logs[i] as usize) {
                log.listed = false;
                log.pump(&mut self.ops, &mut self.fx, &mut self.counters);
            }
        }
        self.dirty_logs.clear();
        for key in self.dirty_conns.drain(..) {
            if let Some(conn) = self.conns.get_mut(key) {
                conn.out.listed = false;
                conn.out.flush(conn.id, &mut self.fx);
            }
        }
    }

    /// Puts a partition on the list to pump.
    pub(super) fn touch_log(&mut self, partition: u32) {
        if let Some(Some(log)) = self.logs.get_mut(partition as usize)
            && !log.listed
        {
            log.listed = true;
            self.dirty_logs.push(partition);
        }
    }

    /// Puts a connection on the list to flush.
    pub(super) fn touch_conn(&mut self, key: usize) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.out.listed
        {
            conn.out.listed = true;
            self.dirty_conns.push(key);
        }
    }

    /// Writes a reply that waits for `after` (dropped when that has completed already).
    pub(super) fn reply(&mut self, key: usize, after: Option<OpId>, write: impl FnOnce(&mut bytes::BytesMut)) {
        let after = after.filter(|op| self.ops.is_open(*op));
        if let Some(conn) = self.conns.get_mut(key) {
            write(conn.out.reply(conn.id, after, &mut self.fx));
            self.touch_conn(key);
        }
    }

    /// Writes what is sent at once.
    pub(super) fn push(&mut self, key: usize, write: impl FnOnce(&mut bytes::BytesMut)) {
        if let Some(conn) = self.conns.get_mut(key) {
            write(conn.out.push());
            self.touch_conn(key);
        }
    }

    /// Says something to another shard.
    pub(super) fn send(&mut self, to: ShardId, msg: PeerMsg) {
        self.counters.peer_messages += 1;
        self.fx.push(Effect::Send { to, msg });
    }

    /// Stops the node.
    pub(super) fn halt(&mut self, reason: String) {
        if !self.halted {
            self.halted = true;
            self.fx.push(Effect::Halt { reason });
        }
    }

    /// The other shards.
    pub(super) fn peers(&self) -> impl Iterator<Item = ShardId> + use<> {
        let me = self.config.shard;
        (0..self.config.shards).filter(move |s| *s != me)
    }

    fn on_done(&mut self, id: OpId, outcome: Outcome) {
        let Some(op) = self.ops.finish(id) else { return };
        match (op, outcome) {
            (Op::Append(partition), Outcome::Appended) => self.on_appended(id, partition),
            (Op::Sync(partition), Outcome::Synced) => {
                if let Some(Some(log)) = self.logs.get_mut(partition as usize) {
                    log.synced(id);
                }
                self.touch_log(partition);
                self.keep_promises(id);
            }
            (Op::Roll(partition), Outcome::Rolled) => {
                if let Some(Some(log)) = self.logs.get_mut(partition as usize) {
                    log.rolled(id);
                }
                self.touch_log(partition);
            }
            (Op::Read(session, serial), Outcome::Read(bytes)) => self.on_read(id, session, serial, &bytes),
            (Op::Meta(client), Outcome::Meta(reply)) => self.on_meta(id, &client, reply),
            (op, outcome) => self.halt(format!("the shell reported {} for {}", name(&outcome), describe(&op))),
        }
    }

    fn on_failed(&mut self, id: OpId, why: &str) {
        if let Some(op) = self.ops.finish(id) {
            self.halt(format!("{} failed: {why}", describe(&op)));
        }
    }

    /// Answers other shards whose appends are now as durable as required.
    pub(super) fn keep_promises(&mut self, done: OpId) {
        for (to, token) in self.promises.remove(&done).unwrap_or_default() {
            self.send(to, PeerMsg::Appended { token });
        }
    }

    fn accept(&mut self, id: ConnId, accepted_ns: u64) {
        if self.conn_keys.contains_key(&id) {
            return;
        }
        let key = self.conns.insert(Conn::new(id, accepted_ns, self.now.mono_ns));
        self.conn_keys.insert(id, key);
        self.arm(key, accepted_ns.saturating_add(self.config.limits.connect_timeout_ns));
    }

    fn closed(&mut self, id: ConnId) {
        let Some(key) = self.conn_keys.remove(&id) else { return };
        if self.conns.get(key).is_some_and(|c| c.phase != Phase::Closing) {
            self.leave(key, true);
        }
        self.conns.remove(key);
    }
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Appended => "an append",
        Outcome::Synced => "a sync",
        Outcome::Rolled => "a roll",
        Outcome::Read(_) => "a read",
        Outcome::Meta(_) => "a reply of the meta store",
    }
}

fn describe(op: &Op) -> String {
    match op {
        Op::Append(p) => format!("the append to partition {p}"),
        Op::Sync(p) => format!("the sync of partition {p}"),
        Op::Roll(p) => format!("the roll of partition {p} to its next segment"),
        Op::Read(..) => "the read of a session's queued messages".into(),
        Op::Meta(client) => format!("the meta store's call for client {client:?}"),
        Op::Remote | Op::Subscription { .. } => "an operation that another shard was to do".into(),
    }
}
