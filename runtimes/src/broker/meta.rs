//! Calls to the meta store, one at a time per client.
//!
//! A shell may run calls at once, on several threads; calls about one client must not overtake each other. Puts that
//! wait behind each other are not merged: each may be what a SUBACK waits for, and a study counts them.

use super::broker::Broker;
use super::effect::{Effect, MetaCall, MetaReply, OpId};
use super::ops::Op;
use std::collections::VecDeque;
use std::sync::Arc;

/// What waits behind the call in flight of a client.
#[derive(Debug, Default)]
pub(super) struct Lane {
    waiting: VecDeque<(OpId, MetaCall)>,
}

impl Broker {
    /// Issues a call, or queues it behind the client's last one.
    pub(super) fn meta_call(&mut self, client: &Arc<str>, call: MetaCall) -> OpId {
        let op = self.ops.open(Op::Meta(client.clone()));
        self.counters.meta_calls += 1;
        match self.lanes.get_mut(client) {
            Some(lane) => lane.waiting.push_back((op, call)),
            None => {
                self.lanes.insert(client.clone(), Lane::default());
                self.emit_meta(op, call);
            }
        }
        op
    }

    fn emit_meta(&mut self, op: OpId, call: MetaCall) {
        self.fx.push(Effect::Meta { op, call });
    }

    /// A call was answered.
    pub(super) fn on_meta(&mut self, op: OpId, client: &Arc<str>, reply: MetaReply) {
        match self.lanes.get_mut(client).map(|lane| lane.waiting.pop_front()) {
            Some(Some((next, call))) => self.emit_meta(next, call),
            Some(None) => {
                self.lanes.remove(client);
            }
            None => {}
        }
        match (self.openings.remove(&op), reply) {
            (Some(opening), MetaReply::Opened(found)) => self.on_opened(opening, found),
            (Some(_), MetaReply::Stored) => {
                self.halt("the meta store answered the opening of a session as if it were a write".into())
            }
            (None, MetaReply::Stored) => {
                if let Some(join) = self.put_joins.remove(&op) {
                    self.join_arrived(join);
                }
            }
            (None, MetaReply::Opened(_)) => {
                self.halt("the meta store answered a write as if it were the opening of a session".into())
            }
        }
    }
}
