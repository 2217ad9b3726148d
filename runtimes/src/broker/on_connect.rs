//! CONNECT, and the ways in which a connection leaves its session.

use super::broker::Broker;
use super::conn::Phase;
use super::effect::{ConnId, Effect, Handover, MetaCall, PeerMsg, SessionRecord, ShardId};
use super::on_subscribe::{Join, JoinKind};
use super::on_tick::Timer;
use super::ops::Op;
use super::placing::shard_of_client;
use super::session::{Session, Subscription};
use super::trie::{Match, Options};
use super::wire::{Fault, acks, connect, replies};
use bytes::Bytes;
use std::sync::Arc;

/// A call of OpenSession that has not been answered: for which session and connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    session: usize,
    serial: u64,
    conn: ConnId,
    /// The session was in memory already and goes on.
    resumed: bool,
}

impl Broker {
    /// A CONNECT. `bytes` is everything read and not handled, the CONNECT first: what a migration takes along.
    pub(super) fn on_connect(&mut self, key: usize, body: &[u8], bytes: &[u8]) -> Result<(), Fault> {
        let Some(conn) = self.conns.get_mut(key) else { return Ok(()) };
        if conn.phase != Phase::New {
            return Err(Fault::PROTOCOL);
        }
        let mut asked = match connect::decode(body) {
            Ok(asked) => asked,
            Err(connect::Refusal(answer)) => {
                self.counters.refused += 1;
                if let Some((v5, code)) = answer {
                    self.reply(key, None, |out| replies::refusal(v5, code, out));
                }
                self.close(key, false);
                return Ok(());
            }
        };
        conn.v5 = asked.v5;
        if asked.client.is_empty() {
            conn.assigned = true;
            asked.client = self.assign_id();
            // Whoever once had this id, it is a new client now.
            asked.clean = true;
        }
        let home = shard_of_client(&asked.client, self.config.shards);
        if home == self.config.shard {
            self.open_session(key, asked);
        } else {
            self.migrate(key, home, bytes);
        }
        Ok(())
    }

    /// A client id that hashes to this shard: so its connection stays here.
    fn assign_id(&mut self) -> String {
        loop {
            let id = format!("regauge-{}-{}", self.config.shard, self.assigned);
            self.assigned += 1;
            if shard_of_client(&id, self.config.shards) == self.config.shard && !self.clients.contains_key(id.as_str())
            {
                return id;
            }
        }
    }

    fn migrate(&mut self, key: usize, to: ShardId, bytes: &[u8]) {
        let Some(conn) = self.conns.try_remove(key) else { return };
        self.conn_keys.remove(&conn.id);
        self.counters.migrations += 1;
        let handover = Box::new(Handover { bytes: Bytes::copy_from_slice(bytes), accepted_ns: conn.accepted_ns });
        self.fx.push(Effect::Migrate { conn: conn.id, to, handover });
    }

    /// Finds or makes the session, ends what used it before, and asks the meta store.
    fn open_session(&mut self, key: usize, asked: connect::Connect) {
        let client: Arc<str> = asked.client.as_str().into();
        let known = self.clients.get(&client).copied();
        if let Some(old) = known {
            if let Some(other) = self.sessions.get(old).and_then(|s| s.conn) {
                self.take_over(other);
            }
            let over = self
                .sessions
                .get(old)
                .is_some_and(|s| s.expiry_s == 0 || s.expires_ns.is_some_and(|at| at <= self.now.mono_ns));
            if asked.clean || over {
                self.forget(old);
            }
        }
        let resumed = self.clients.contains_key(&client);
        // The store must forget what memory has just forgotten, even before it is told.
        let clean = asked.clean || (known.is_some() && !resumed);
        let session = match self.clients.get(&client) {
            Some(&session) => session,
            None => {
                self.serial += 1;
                let mut new = Session::new(client.clone(), self.serial, asked.expiry_s);
                new.fresh = !clean;
                let session = self.sessions.insert(new);
                self.clients.insert(client.clone(), session);
                session
            }
        };
        let limits = &self.config.limits;
        let Some((s, conn)) = self.sessions.get_mut(session).zip(self.conns.get_mut(key)) else { return };
        if let Some(at) = s.expires_ns.take() {
            self.timers.remove(&(at, Timer::Session(session, s.serial)));
        }
        s.conn = Some(key);
        s.online = false;
        s.opening += 1;
        s.expiry_s = asked.expiry_s;
        s.left_unix_s = None;
        s.outgoing.window = usize::from(limits.inflight.min(asked.receive_maximum));
        let serial = s.serial;
        let record = s.record();
        conn.phase = Phase::Opening;
        conn.session = Some(session);
        conn.keep_alive_ns = u64::from(asked.keep_alive_s) * 1_500_000_000;
        conn.maximum_packet = asked.maximum_packet as usize;
        conn.will = asked.will;
        let opening = Opening { session, serial, conn: conn.id, resumed };
        let op = self.meta_call(&client, MetaCall::OpenSession { record, clean, unix_s: self.now.unix_s });
        self.openings.insert(op, opening);
    }

    /// Ends a connection whose client has connected anew. Its session stays.
    fn take_over(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let will = conn.will.take().filter(|_| conn.phase == Phase::Live);
        if let Some(session) = conn.session
            && let Some(will) = will
        {
            self.publish_will(session, will);
        }
        if let Some(conn) = self.conns.get_mut(key)
            && let Some(session) = conn.session
        {
            if conn.v5 && conn.phase == Phase::Live {
                self.reply(key, None, |out| replies::disconnect(Fault::TAKEN_OVER, out));
            }
            if let Some(conn) = self.conns.get_mut(key) {
                conn.session = None;
            }
            if let Some(s) = self.sessions.get_mut(session) {
                s.conn = None;
                s.online = false;
            }
        }
        self.close(key, false);
    }

    /// The meta store has answered.
    pub(super) fn on_opened(&mut self, opening: Opening, found: Option<SessionRecord>) {
        let Opening { session, serial, conn: id, resumed } = opening;
        let Some(s) = self.sessions.get_mut(session).filter(|s| s.serial == serial) else { return };
        s.opening -= 1;
        let present = resumed || found.is_some();
        let restore = std::mem::replace(&mut s.fresh, false);
        let mut waiting = 0;
        let join = self.joins.vacant_key();
        if restore && let Some(record) = found {
            waiting = self.restore(session, record, join);
        }
        let Some(key) = self.conn_keys.get(&id).copied().filter(|key| {
            self.conns.get(*key).is_some_and(|c| c.phase == Phase::Opening && c.session == Some(session))
        }) else {
            // The client has left already, and a new connection of it has not come.
            if self.sessions.get(session).is_some_and(|s| s.opening == 0 && s.conn.is_none()) {
                self.left(session);
            }
            if waiting > 0 {
                self.joins.insert(Join { conn: id, waiting, kind: JoinKind::Nothing });
            }
            return;
        };
        if waiting > 0 {
            self.joins.insert(Join { conn: id, waiting, kind: JoinKind::Connack { present } });
        } else {
            self.go_live(key, present);
        }
    }

    /// Puts the subscriptions of a stored session in force. Returns how many answers of other shards join `join` waits
    /// for.
    fn restore(&mut self, session: usize, record: SessionRecord, join: usize) -> usize {
        let mut waiting = 0;
        for (filter, options) in record.subscriptions {
            let (filter, options): (Arc<str>, _) = (filter.into(), Options(options));
            if let Some(s) = self.sessions.get_mut(session) {
                s.subscriptions.insert(filter.clone(), Subscription { options, id: 0 });
            }
            self.trie.subscribe(&filter, Match { session, options, id: 0 });
            waiting += self.tell_peers(&filter, join, false);
        }
        waiting
    }

    /// Asks the other shards for what matches; join `join` waits for their answers. Returns how many there will be.
    pub(super) fn tell_peers(&mut self, filter: &Arc<str>, join: usize, retained: bool) -> usize {
        let mut told = 0;
        for to in self.peers() {
            let token = self.ops.open(Op::Subscription { join, filter: filter.clone(), retained });
            self.send(to, PeerMsg::Subscribe { token, filter: filter.to_string() });
            told += 1;
        }
        told
    }

    /// Answers CONNECT, sends what was under way, and handles what the client has sent since.
    pub(super) fn go_live(&mut self, key: usize, present: bool) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(session) = conn.session else { return };
        conn.phase = Phase::Live;
        conn.last_seen_ns = self.now.mono_ns;
        let (v5, assigned, keep_alive_ns) = (conn.v5, conn.assigned, conn.keep_alive_ns);
        self.counters.connects += 1;
        if keep_alive_ns > 0 {
            self.arm(key, self.now.mono_ns.saturating_add(keep_alive_ns));
        }
        let Some(s) = self.sessions.get_mut(session) else { return };
        s.online = true;
        let client = s.client.clone();
        let again = s.outgoing.again();
        if let Some(conn) = self.conns.get_mut(key) {
            let out = conn.out.reply(conn.id, None, &mut self.fx);
            replies::connack(v5, present, assigned.then_some(&*client), &self.config.limits, out);
            self.touch_conn(key);
        }
        for (id, delivery) in again {
            match delivery {
                Some(delivery) => self.send_again(key, id, delivery),
                None => self.push(key, |out| acks::encode(acks::PUBREL, id, 0, out)),
            }
        }
        self.pump_session(session);
        self.resume(key);
    }

    /// A connection lets go of its session: the client has left.
    pub(super) fn leave(&mut self, key: usize, will: bool) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(session) = conn.session.take() else { return };
        let will = conn.will.take().filter(|_| will && conn.phase == Phase::Live);
        if let Some(s) = self.sessions.get_mut(session) {
            s.conn = None;
            s.online = false;
        }
        if let Some(will) = will {
            self.publish_will(session, will);
        }
        // While the store is still to say what the session had, nothing may be written over it.
        if self.sessions.get(session).is_some_and(|s| s.opening == 0) {
            self.left(session);
        }
    }

    /// A session without a client: ended, or kept for as long as it asked.
    fn left(&mut self, session: usize) {
        let Some(s) = self.sessions.get_mut(session) else { return };
        if s.expiry_s == 0 {
            let client = s.client.clone();
            self.forget(session);
            self.meta_call(&client, MetaCall::DropSession { client: client.to_string() });
            return;
        }
        s.left_unix_s = Some(self.now.unix_s);
        if s.expiry_s != u32::MAX {
            let at = self.now.mono_ns.saturating_add(u64::from(s.expiry_s) * 1_000_000_000);
            s.expires_ns = Some(at);
            self.timers.insert((at, Timer::Session(session, s.serial)));
        }
        let (client, record) = (s.client.clone(), s.record());
        self.meta_call(&client, MetaCall::PutSession { record });
    }

    /// Removes a session from memory, with its subscriptions.
    pub(super) fn forget(&mut self, session: usize) {
        let Some(s) = self.sessions.try_remove(session) else { return };
        self.clients.remove(&s.client);
        if let Some(at) = s.expires_ns {
            self.timers.remove(&(at, Timer::Session(session, s.serial)));
        }
        for filter in s.subscriptions.keys() {
            self.unsubscribe(session, filter);
        }
    }

    /// The session of a connection.
    pub(super) fn session_of(&mut self, key: usize) -> Option<&mut Session> {
        let session = self.conns.get(key)?.session?;
        self.sessions.get_mut(session)
    }
}
