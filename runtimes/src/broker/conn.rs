//! One network connection.

use super::effect::{ConnId, OpId, ShardId};
use super::ops::Ops;
use super::output::Output;
use super::wire::connect::Will;
use std::collections::VecDeque;
use std::sync::Arc;

/// Acknowledgements that are remembered before completed ones are looked for.
const SETTLE_AT: usize = 64;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for a whole CONNECT.
    New,
    /// Waits for the meta store and, after a restart, for other shards; what comes meanwhile is kept.
    Opening,
    /// Has its CONNACK.
    Live,
    /// [`super::effect::Effect::Close`] was emitted; whatever comes is ignored.
    Closing,
}

/// A connection that this shard serves.
#[derive(Debug)]
pub(super) struct Conn {
    pub id: ConnId,
    pub phase: Phase,
    pub accepted_ns: u64,
    pub last_seen_ns: u64,
    /// When its timer fires next; an older timer that fires is ignored.
    pub timer_ns: u64,
    pub v5: bool,
    /// 1.5 times what the client said; 0: none.
    pub keep_alive_ns: u64,
    /// Largest packet that the client accepts.
    pub maximum_packet: usize,
    /// Key of its session, from CONNECT until it is left or taken over.
    pub session: Option<usize>,
    /// Whether the broker chose the client id.
    pub assigned: bool,
    pub will: Option<Will>,
    /// Bytes of an unfinished packet, or those that came while opening.
    pub kept: Vec<u8>,
    pub out: Output,
    /// Topics by alias, from 1.
    pub aliases: Vec<Option<Topic>>,
    /// The last topic published to: publishers repeat themselves.
    pub topic: Option<Topic>,
    /// QoS 1 publishes whose PUBACK waits (MQTT 5 only, for the receive maximum), and their sum.
    acks: VecDeque<(OpId, u32)>,
    unacked: u32,
}

/// A topic and its place.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub name: Arc<str>,
    pub partition: u32,
    pub owner: ShardId,
}

impl Conn {
    pub fn new(id: ConnId, accepted_ns: u64, now_ns: u64) -> Self {
        Conn {
            id,
            phase: Phase::New,
            accepted_ns,
            last_seen_ns: now_ns,
            timer_ns: 0,
            v5: false,
            keep_alive_ns: 0,
            maximum_packet: usize::MAX,
            session: None,
            assigned: false,
            will: None,
            kept: Vec::new(),
            out: Output::default(),
            aliases: Vec::new(),
            topic: None,
            acks: VecDeque::new(),
            unacked: 0,
        }
    }

    /// Notes a PUBACK that waits for `op`.
    pub fn owe(&mut self, op: OpId, ops: &Ops) {
        self.unacked += 1;
        match self.acks.back_mut() {
            Some((last, n)) if *last == op => *n += 1,
            _ => self.acks.push_back((op, 1)),
        }
        if self.acks.len() >= SETTLE_AT {
            self.settle(ops);
        }
    }

    /// Whether `limit` publishes (`others` of them QoS 2) are unacknowledged already.
    pub fn is_at(&mut self, limit: u16, others: usize, ops: &Ops) -> bool {
        if (self.unacked as usize) + others < usize::from(limit) {
            return false;
        }
        self.settle(ops);
        (self.unacked as usize) + others >= usize::from(limit)
    }

    /// Forgets acknowledgements that have left. They leave in order, so only the front can have.
    fn settle(&mut self, ops: &Ops) {
        while let Some((op, n)) = self.acks.front()
            && !ops.is_open(*op)
        {
            self.unacked -= n;
            self.acks.pop_front();
        }
    }
}
