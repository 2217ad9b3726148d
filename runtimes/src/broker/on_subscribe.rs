//! SUBSCRIBE and UNSUBSCRIBE, and what waits for several answers.

use super::broker::Broker;
use super::conn::Phase;
use super::effect::{ConnId, MetaCall, PeerMsg};
use super::filter;
use super::session::Subscription;
use super::trie::{Match, Options};
use super::wire::{Fault, replies, subscribe};
use std::sync::Arc;

/// SUBACK: the filter is not valid.
const FILTER_INVALID: u8 = 0x8f;
/// SUBACK: the session has as many subscriptions, or as long ones, as it may.
const QUOTA_EXCEEDED: u8 = 0x97;
/// SUBACK: shared subscriptions are not supported.
const SHARED_UNSUPPORTED: u8 = 0x9e;
/// UNSUBACK: there was no such subscription.
const NO_SUBSCRIPTION: u8 = 0x11;
/// SUBACK of MQTT 3.1.1 knows one way to refuse.
const REFUSED: u8 = 0x80;

/// A reply that waits for answers of other shards and of the meta store.
#[derive(Debug)]
pub(super) struct Join {
    pub conn: ConnId,
    /// How many are to come.
    pub waiting: usize,
    pub kind: JoinKind,
}

/// What to do when all have come.
#[derive(Debug)]
pub(super) enum JoinKind {
    Connack {
        present: bool,
    },
    Suback {
        id: u16,
        reasons: Vec<u8>,
    },
    Unsuback {
        id: u16,
        reasons: Vec<u8>,
    },
    /// The client left meanwhile.
    Nothing,
}

impl Broker {
    /// A SUBSCRIBE. Retained messages of this shard go out at once; SUBACK follows when the session is stored and every
    /// other shard delivers matches, so that what is published after it is always seen.
    pub(super) fn on_subscribe(&mut self, key: usize, body: &[u8]) -> Result<(), Fault> {
        let Some(conn) = self.conns.get(key) else { return Ok(()) };
        let (v5, conn_id) = (conn.v5, conn.id);
        let Some(session) = conn.session else { return Ok(()) };
        let asked = subscribe::decode(body, v5)?;
        let join = self.joins.vacant_key();
        let (mut waiting, mut changed) = (0, false);
        let mut reasons = Vec::with_capacity(asked.filters.len());
        let kept = self.sessions.get(session).map(|s| s.subscriptions.keys().map(|filter| filter.len()).sum());
        let mut bytes: usize = kept.unwrap_or(0);
        for (filter, options) in asked.filters {
            let (filter, options): (Arc<str>, _) = (filter.into(), Options(options));
            let Some(s) = self.sessions.get_mut(session) else { return Ok(()) };
            let limits = &self.config.limits;
            let full =
                s.subscriptions.len() >= limits.subscriptions || bytes + filter.len() > limits.subscription_bytes;
            let refused = match () {
                () if filter::is_shared(&filter) => Some(SHARED_UNSUPPORTED),
                () if !filter::is_valid(&filter) => Some(FILTER_INVALID),
                () if full && !s.subscriptions.contains_key(&filter) => Some(QUOTA_EXCEEDED),
                () => None,
            };
            if let Some(reason) = refused {
                reasons.push(if v5 { reason } else { REFUSED });
                continue;
            }
            let id = asked.id.unwrap_or(0);
            let old = s.subscriptions.insert(filter.clone(), Subscription { options, id });
            bytes += if old.is_none() { filter.len() } else { 0 };
            changed |= old.is_none_or(|old| old.options != options);
            self.trie.subscribe(&filter, Match { session, options, id });
            let retained = match options.retain_handling() {
                0 => true,
                1 => old.is_none(),
                _ => false,
            };
            if retained {
                self.send_retained(session, &filter);
            }
            waiting += self.tell_peers(&filter, join, retained);
            reasons.push(options.qos());
        }
        waiting += self.store_subscriptions(session, changed, join);
        self.answer_when(join, conn_id, waiting, JoinKind::Suback { id: asked.packet_id, reasons });
        Ok(())
    }

    /// An UNSUBSCRIBE.
    pub(super) fn on_unsubscribe(&mut self, key: usize, body: &[u8]) -> Result<(), Fault> {
        let Some(conn) = self.conns.get(key) else { return Ok(()) };
        let (v5, conn_id) = (conn.v5, conn.id);
        let Some(session) = conn.session else { return Ok(()) };
        let (id, filters) = subscribe::unsubscribe(body, v5)?;
        let mut changed = false;
        let mut reasons = Vec::with_capacity(filters.len());
        for filter in filters {
            let Some(s) = self.sessions.get_mut(session) else { return Ok(()) };
            if s.subscriptions.remove(filter.as_str()).is_some() {
                self.unsubscribe(session, &filter);
                changed = true;
                reasons.push(0);
            } else {
                reasons.push(NO_SUBSCRIPTION);
            }
        }
        let join = self.joins.vacant_key();
        let waiting = self.store_subscriptions(session, changed, join);
        self.answer_when(join, conn_id, waiting, JoinKind::Unsuback { id, reasons });
        Ok(())
    }

    /// Takes a subscription out of force.
    pub(super) fn unsubscribe(&mut self, session: usize, filter: &str) {
        if self.trie.unsubscribe(filter, session) {
            for to in self.peers() {
                self.send(to, PeerMsg::Unsubscribe { filter: filter.to_owned() });
            }
        }
    }

    /// Writes a session that outlives its connection. Returns how many answers join `join` waits for because of it.
    fn store_subscriptions(&mut self, session: usize, changed: bool, join: usize) -> usize {
        let Some(s) = self.sessions.get(session).filter(|s| changed && s.expiry_s > 0) else { return 0 };
        let (client, record) = (s.client.clone(), s.record());
        let op = self.meta_call(&client, MetaCall::PutSession { record });
        self.put_joins.insert(op, join);
        1
    }

    fn answer_when(&mut self, join: usize, conn: ConnId, waiting: usize, kind: JoinKind) {
        let key = self.joins.insert(Join { conn, waiting, kind });
        debug_assert_eq!(key, join);
        if waiting == 0 {
            self.complete(join);
        }
    }

    /// One of the answers that a join waits for has come.
    pub(super) fn join_arrived(&mut self, join: usize) {
        if let Some(j) = self.joins.get_mut(join) {
            j.waiting -= 1;
            if j.waiting == 0 {
                self.complete(join);
            }
        }
    }

    fn complete(&mut self, join: usize) {
        let Some(Join { conn, kind, .. }) = self.joins.try_remove(join) else { return };
        let Some(&key) = self.conn_keys.get(&conn) else { return };
        let Some(c) = self.conns.get(key) else { return };
        let (v5, phase) = (c.v5, c.phase);
        match (kind, phase) {
            (JoinKind::Connack { present }, Phase::Opening) => self.go_live(key, present),
            (JoinKind::Suback { id, reasons }, Phase::Live) => {
                self.reply(key, None, |out| replies::suback(v5, id, &reasons, out));
            }
            (JoinKind::Unsuback { id, reasons }, Phase::Live) => {
                self.reply(key, None, |out| replies::unsuback(v5, id, &reasons, out));
            }
            _ => {}
        }
    }
}
