//! Holds effects back until what they depend on has completed.
//!
//! Replies of one connection leave in the order in which they were emitted: one that waits holds back those behind it,
//! and a close behind them. A sync waits for its append. Everything else passes.

use super::effect::{ConnId, Effect, OpId};
use super::ops::ById;
use bytes::{Bytes, BytesMut};
use std::collections::{HashMap, VecDeque};

/// Replies that are released together are joined up to this size, bytes; one that is larger leaves as it is.
const JOIN_BYTES: usize = 16 << 10;

/// The effects that wait.
#[derive(Debug, Default)]
pub(super) struct Gate {
    conns: HashMap<ConnId, Queue, ById>,
    /// Who looks again when an operation has completed: the connections whose first reply waits for it, and syncs.
    waiters: HashMap<OpId, Vec<Waiter>, ById>,
}

/// Kept, empty, as long as its connection: most have a reply waiting again at once.
#[derive(Debug, Default)]
struct Queue {
    replies: VecDeque<(Option<OpId>, Bytes)>,
    close: bool,
}

#[derive(Debug)]
enum Waiter {
    Conn(ConnId),
    Effect(Effect),
}

impl Gate {
    /// Lets an effect pass, or keeps it. `pending` says whether an operation is still to complete.
    pub fn admit(&mut self, effect: Effect, pending: impl Fn(OpId) -> bool, out: &mut Vec<Effect>) {
        match effect {
            Effect::Reply { conn, bytes, after } => {
                let after = after.filter(|op| pending(*op));
                match (self.conns.get_mut(&conn).filter(|q| !q.replies.is_empty()), after) {
                    (Some(queue), after) => queue.replies.push_back((after, bytes)),
                    (None, None) => out.push(Effect::Reply { conn, bytes, after: None }),
                    (None, Some(op)) => {
                        self.conns.entry(conn).or_default().replies.push_back((after, bytes));
                        self.waiters.entry(op).or_default().push(Waiter::Conn(conn));
                    }
                }
            }
            Effect::Close { conn } => match self.conns.get_mut(&conn).filter(|q| !q.replies.is_empty()) {
                Some(queue) => queue.close = true,
                None => out.push(Effect::Close { conn }),
            },
            Effect::Sync { op, partition, segment, after } => {
                let sync = Effect::Sync { op, partition, segment, after: None };
                match after.filter(|op| pending(*op)) {
                    Some(append) => self.waiters.entry(append).or_default().push(Waiter::Effect(sync)),
                    None => out.push(sync),
                }
            }
            other => out.push(other),
        }
    }

    /// An operation has completed: what waited for it passes.
    pub fn complete(&mut self, op: OpId, pending: impl Fn(OpId) -> bool, out: &mut Vec<Effect>) {
        for waiter in self.waiters.remove(&op).unwrap_or_default() {
            match waiter {
                Waiter::Effect(effect) => out.push(effect),
                Waiter::Conn(conn) => self.release(conn, &pending, out),
            }
        }
    }

    /// Lets the replies of a connection pass, up to the first that waits.
    fn release(&mut self, conn: ConnId, pending: &impl Fn(OpId) -> bool, out: &mut Vec<Effect>) {
        let Some(queue) = self.conns.get_mut(&conn) else { return };
        let mut joined = BytesMut::new();
        let mut single: Option<Bytes> = None;
        let mut flush = |joined: &mut BytesMut, single: &mut Option<Bytes>| {
            let bytes = single.take().or_else(|| (!joined.is_empty()).then(|| joined.split().freeze()));
            out.extend(bytes.map(|bytes| Effect::Reply { conn, bytes, after: None }));
        };
        while let Some((after, bytes)) = queue.replies.pop_front() {
            if let Some(op) = after.filter(|op| pending(*op)) {
                queue.replies.push_front((after, bytes));
                self.waiters.entry(op).or_default().push(Waiter::Conn(conn));
                break;
            }
            if let Some(first) = single.take_if(|s| s.len() + bytes.len() <= JOIN_BYTES) {
                joined.extend_from_slice(&first);
            }
            if !joined.is_empty() && joined.len() + bytes.len() <= JOIN_BYTES {
                joined.extend_from_slice(&bytes);
                continue;
            }
            flush(&mut joined, &mut single);
            single = Some(bytes);
        }
        flush(&mut joined, &mut single);
        if queue.replies.is_empty() && queue.close {
            out.push(Effect::Close { conn });
        }
    }

    /// A connection is gone: nothing can be sent to it any more.
    pub fn forget(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }
}
