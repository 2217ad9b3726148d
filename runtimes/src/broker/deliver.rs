//! From the owner of a topic to the sessions that subscribe.
//!
//! A QoS 1 or 2 message is delivered once its record has been written (not synced): so nobody sees a message that the
//! broker failed to write, and a pointer to it can be read by every shard. Messages of one topic all pass through the
//! topic's owner, so that subscribers agree on their order.
//!
//! Small packets are encoded straight into the connection's buffer, next to what else goes there. Large ones are encoded
//! once per (version, QoS, RETAIN, packet id) and shared.

use super::broker::Broker;
use super::effect::{Effect, Message, OpId, PeerMsg, Stored};
use super::ops::Op;
use super::record::Record;
use super::session::{Body, Delivery};
use super::trie::Match;
use super::wire::publish::{self, Outgoing};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// From this packet size on an encoded packet is shared rather than copied. Below it, copying costs less than one more
/// piece in the shell's queue.
const SHARE_BYTES: usize = 2048;
/// Encoded forms that are remembered of one message.
const SHARED_MAX: usize = 8;

/// A message that goes out to subscribers.
pub(super) struct Fan<'a> {
    topic: &'a str,
    properties: &'a [u8],
    payload: &'a [u8],
    publisher: &'a str,
    sequence: u64,
    qos: u8,
    retain: bool,
    /// What `payload` and `properties` are slices of, so that they can be kept without a copy.
    owner: Option<&'a Bytes>,
    stored: Option<Stored>,
    /// Made when somebody must keep it.
    message: Option<Message>,
    shared: Vec<(Form, Bytes)>,
}

type Form = (bool, u8, bool, u16);

impl<'a> Fan<'a> {
    /// A QoS 0 message from its parts.
    pub fn of_parts(topic: &'a str, properties: &'a [u8], payload: &'a [u8], publisher: &'a str, retain: bool) -> Self {
        Fan {
            topic,
            properties,
            payload,
            publisher,
            sequence: 0,
            qos: 0,
            retain,
            owner: None,
            stored: None,
            message: None,
            shared: Vec::new(),
        }
    }

    /// A message of another shard.
    pub fn of_message(m: &'a Message, stored: Option<Stored>) -> Self {
        Fan {
            sequence: m.sequence,
            qos: m.qos,
            stored,
            message: Some(m.clone()),
            ..Self::of_parts(&m.topic, &m.properties, &m.payload, &m.publisher, m.retain)
        }
    }

    fn of_record(r: &Record<'a>, owner: &'a Bytes, stored: Stored) -> Self {
        Fan {
            sequence: r.publisher_sequence,
            qos: r.qos,
            owner: Some(owner),
            stored: Some(stored),
            ..Self::of_parts(r.topic, r.properties, r.payload, r.publisher, r.retain)
        }
    }

    fn message(&mut self) -> &Message {
        let keep = |part: &[u8]| match self.owner {
            Some(owner) if !part.is_empty() => owner.slice_ref(part),
            _ => Bytes::copy_from_slice(part),
        };
        self.message.get_or_insert_with(|| Message {
            topic: self.topic.into(),
            payload: keep(self.payload),
            qos: self.qos,
            retain: self.retain,
            properties: keep(self.properties),
            publisher: self.publisher.into(),
            sequence: self.sequence,
        })
    }
}

impl Broker {
    /// Retains a QoS 0 message if it says so, and delivers it.
    pub(super) fn publish_now(&mut self, mut fan: Fan<'_>) {
        if fan.retain {
            let message = fan.message().clone();
            self.retained.keep(message, self.now.mono_ns);
        }
        self.fan_out(&mut fan, true);
    }

    /// A batch has been written: its messages go out.
    pub(super) fn on_appended(&mut self, op: OpId, partition: u32) {
        let Some(Some(log)) = self.logs.get_mut(partition as usize) else { return };
        let written = log.appended(op);
        self.touch_log(partition);
        self.keep_promises(op);
        let Some(mut written) = written.filter(|w| !w.turns.is_empty() || !self.trie.is_empty()) else { return };
        let mut at = 0;
        while let Some(Ok((record, len))) = written.bytes.get(at..).map(Record::decode_unchecked) {
            let stored = Stored { partition, segment: written.segment, at: written.at + at as u64, len: len as u32 };
            let mut fan = Fan::of_record(&record, &written.bytes, stored);
            if record.retain
                && let Some(turn) = written.turns.pop_front()
            {
                // Copied: a retained message lives long, and would keep the whole batch in memory.
                let m = fan.message();
                let mine = Message {
                    payload: Bytes::copy_from_slice(&m.payload),
                    properties: Bytes::copy_from_slice(&m.properties),
                    ..m.clone()
                };
                self.retained.written(turn, mine, self.now.mono_ns);
            }
            self.fan_out(&mut fan, true);
            at += len;
        }
    }

    /// Delivers to the sessions of this shard, and, where this shard owns the topic, tells the others that want it.
    pub(super) fn fan_out(&mut self, fan: &mut Fan<'_>, owned: bool) {
        if self.trie.is_empty() {
            return;
        }
        let mut found = std::mem::take(&mut self.matches);
        self.trie.matches(fan.topic, &mut found);
        if owned {
            for &to in &found.shards {
                let (msg, stored) = (fan.message().clone(), fan.stored);
                self.send(to, PeerMsg::Deliver { msg, stored });
            }
        }
        for group in found.local.chunk_by(|a, b| a.session == b.session) {
            self.deliver(fan, group);
        }
        self.matches = found;
    }

    /// Delivers once to a session whose subscriptions `group` matched: at their highest QoS, with all their identifiers.
    fn deliver(&mut self, fan: &mut Fan<'_>, group: &[Match]) {
        let Some(session) = group.first().map(|m| m.session) else { return };
        let Some(s) = self.sessions.get(session) else { return };
        let own = *s.client == *fan.publisher;
        let wanted = || group.iter().filter(|m| !(own && m.options.no_local()));
        let Some(granted) = wanted().map(|m| m.options.qos()).max() else { return };
        let qos = granted.min(fan.qos);
        let retain = fan.retain && wanted().any(|m| m.options.retain_as_published());
        let ids: Box<[u32]> = wanted().map(|m| m.id).filter(|id| *id > 0).collect();
        match (s.online, qos, s.conn) {
            (true, 0, Some(key)) => self.send_out(key, fan, 0, 0, retain, &ids),
            (true, ..) => {
                let delivery = Delivery {
                    body: Body::Memory(fan.message().clone()),
                    qos,
                    retain,
                    ids,
                    since_ns: self.now.mono_ns,
                };
                self.deliver_kept(session, delivery, Some(fan));
            }
            (false, 1.., _) => {
                let body = match fan.stored {
                    Some(stored) => Body::Segment(stored),
                    None => Body::Memory(fan.message().clone()),
                };
                self.enqueue(session, Delivery { body, qos, retain, ids, since_ns: self.now.mono_ns });
            }
            (false, 0, _) => {}
        }
    }

    /// Sends a QoS 1 or 2 delivery to a session that is online, or queues it behind others.
    fn deliver_kept(&mut self, session: usize, delivery: Delivery, fan: Option<&mut Fan<'_>>) {
        let Some(s) = self.sessions.get_mut(session) else { return };
        let Some(key) = s.conn else { return };
        if !s.outgoing.queue.is_empty() || s.outgoing.reading.is_some() || !s.outgoing.has_room() {
            return self.enqueue(session, delivery);
        }
        self.send_in_window(session, key, delivery, fan);
    }

    fn enqueue(&mut self, session: usize, delivery: Delivery) {
        let limits = &self.config.limits;
        if let Some(s) = self.sessions.get_mut(session)
            && !s.outgoing.enqueue(delivery, limits.queue_messages, limits.queue_bytes)
        {
            self.counters.dropped_deliveries += 1;
        }
    }

    /// Takes a place in the window and sends. Only where the window has room.
    fn send_in_window(&mut self, session: usize, key: usize, mut delivery: Delivery, fan: Option<&mut Fan<'_>>) {
        if !self.refresh(&mut delivery) {
            return;
        }
        let Body::Memory(message) = &delivery.body else { return };
        let (v5, maximum) = match self.conns.get(key) {
            Some(conn) => (conn.v5, conn.maximum_packet),
            None => return,
        };
        let whole = packet(v5, message, &delivery, 1, false).len();
        if whole > maximum {
            self.counters.expired_deliveries += 1;
            return;
        }
        let Some(id) = self.sessions.get_mut(session).and_then(|s| s.outgoing.take_id()) else { return };
        match fan {
            Some(fan) => self.send_out(key, fan, delivery.qos, id, delivery.retain, &delivery.ids),
            None => {
                self.counters.deliveries += 1;
                let p = packet(v5, message, &delivery, id, false);
                self.push(key, |out| p.encode(out));
            }
        }
        if let Some(s) = self.sessions.get_mut(session) {
            s.outgoing.sent(id, delivery);
        }
    }

    /// Sends again what a client that has returned did not acknowledge.
    pub(super) fn send_again(&mut self, key: usize, id: u16, mut delivery: Delivery) {
        let Some(v5) = self.conns.get(key).map(|c| c.v5) else { return };
        // What has begun is brought to its end (MQTT 4.4), expired or not; only the interval is brought up to date.
        self.refresh(&mut delivery);
        if let Body::Memory(message) = &delivery.body {
            self.counters.deliveries += 1;
            let p = packet(v5, message, &delivery, id, true);
            self.push(key, |out| p.encode(out));
        }
    }

    /// Writes a PUBLISH to a connection, encoded for it or shared.
    fn send_out(&mut self, key: usize, fan: &mut Fan<'_>, qos: u8, packet_id: u16, retain: bool, ids: &[u32]) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let p = Outgoing {
            v5: conn.v5,
            dup: false,
            qos,
            retain,
            packet_id,
            topic: fan.topic,
            properties: fan.properties,
            ids,
            payload: fan.payload,
        };
        let len = p.len();
        if len > conn.maximum_packet {
            self.counters.expired_deliveries += 1;
            return;
        }
        self.counters.deliveries += 1;
        if len < SHARE_BYTES || !ids.is_empty() {
            return self.push(key, |out| p.encode(out));
        }
        let form = (p.v5, qos, retain, packet_id);
        let bytes = match fan.shared.iter().find(|(f, _)| *f == form) {
            Some((_, bytes)) => bytes.clone(),
            None => {
                let mut out = BytesMut::with_capacity(len);
                p.encode(&mut out);
                let bytes = out.freeze();
                if fan.shared.len() < SHARED_MAX {
                    fan.shared.push((form, bytes.clone()));
                }
                bytes
            }
        };
        conn.out.push_shared(conn.id, bytes, &mut self.fx);
    }

    /// Brings a waiting message's expiry up to date. False when it has expired.
    fn refresh(&mut self, delivery: &mut Delivery) -> bool {
        let Body::Memory(message) = &mut delivery.body else { return true };
        let waited_s = self.now.mono_ns.saturating_sub(delivery.since_ns) / 1_000_000_000;
        if waited_s == 0 || message.properties.is_empty() {
            return true;
        }
        let Some((at, expiry_s)) = publish::expiry(&message.properties) else { return true };
        let left_s = u64::from(expiry_s).saturating_sub(waited_s);
        let mut properties = message.properties.to_vec();
        properties[at..at + 4].copy_from_slice(&(left_s as u32).to_be_bytes());
        message.properties = properties.into();
        delivery.since_ns += waited_s * 1_000_000_000;
        if left_s == 0 {
            self.counters.expired_deliveries += 1;
        }
        left_s > 0
    }

    /// Sends the retained messages of this shard that a new subscription matches.
    pub(super) fn send_retained(&mut self, session: usize, filter: &str) {
        let found: Vec<(Message, u64)> =
            self.retained.matching(filter).map(|kept| (kept.message.clone(), kept.since_ns)).collect();
        for (message, since_ns) in found {
            self.deliver_retained(session, filter, message, since_ns);
        }
    }

    /// Sends one retained message to a session because of its subscription to `filter`, if it still has it.
    pub(super) fn deliver_retained(&mut self, session: usize, filter: &str, message: Message, since_ns: u64) {
        let Some(s) = self.sessions.get(session) else { return };
        let (Some(key), true, Some(sub)) = (s.conn, s.online, s.subscriptions.get(filter).copied()) else { return };
        if sub.options.no_local() && *s.client == *message.publisher {
            return;
        }
        let qos = sub.options.qos().min(message.qos);
        let ids = if sub.id > 0 { Box::from([sub.id]) } else { Box::default() };
        let mut delivery = Delivery { body: Body::Memory(message), qos, retain: true, ids, since_ns };
        if qos > 0 {
            return self.deliver_kept(session, delivery, None);
        }
        if self.refresh(&mut delivery)
            && let Body::Memory(message) = &delivery.body
        {
            let mut fan = Fan::of_message(message, None);
            self.send_out(key, &mut fan, 0, 0, true, &delivery.ids);
        }
    }

    /// Sends what is queued for a session, as far as its window has room; reads back what stands in segments, one read
    /// at a time, so that the order is kept.
    pub(super) fn pump_session(&mut self, session: usize) {
        loop {
            let Some(s) = self.sessions.get_mut(session).filter(|s| s.online) else { return };
            let Some(key) = s.conn else { return };
            if s.outgoing.reading.is_some() || !s.outgoing.has_room() {
                return;
            }
            match s.outgoing.queue.front() {
                None => return,
                Some(Delivery { body: Body::Memory(_), .. }) => {
                    if let Some(delivery) = s.outgoing.dequeue() {
                        self.send_in_window(session, key, delivery, None);
                    }
                }
                Some(Delivery { body: Body::Segment(_), .. }) => return self.read_queued(session),
            }
        }
    }

    /// Reads the records at the front of a session's queue, as many as follow each other in their segment.
    fn read_queued(&mut self, session: usize) {
        let limit = self.config.limits.read_bytes;
        let Some(s) = self.sessions.get_mut(session) else { return };
        let mut run: Vec<Delivery> = Vec::new();
        let mut span: Option<Stored> = None;
        while let Some(Delivery { body: Body::Segment(next), .. }) = s.outgoing.queue.front() {
            let joined = match span {
                None => Some(*next),
                Some(r)
                    if (r.partition, r.segment, r.at + u64::from(r.len)) == (next.partition, next.segment, next.at) =>
                {
                    r.len.checked_add(next.len).filter(|len| *len <= limit).map(|len| Stored { len, ..r })
                }
                Some(_) => None,
            };
            if joined.is_none() {
                break;
            }
            span = joined;
            run.extend(s.outgoing.dequeue());
        }
        let Some(Stored { partition, segment, at, len }) = span else { return };
        let op = self.ops.open(Op::Read(session, s.serial));
        s.outgoing.reading = Some((op, run));
        self.counters.reads += 1;
        self.fx.push(Effect::Read { op, partition, segment, at, len });
    }

    /// Queued records have been read. They go to the front of the queue again, with their messages.
    pub(super) fn on_read(&mut self, op: OpId, session: usize, serial: u64, bytes: &Bytes) {
        let Some(s) = self.sessions.get_mut(session).filter(|s| s.serial == serial) else { return };
        let Some((_, mut run)) = s.outgoing.reading.take_if(|(reading, _)| *reading == op) else { return };
        let mut at = 0;
        for delivery in &mut run {
            let (record, len) = match Record::decode(bytes.get(at..).unwrap_or_default()) {
                Ok(whole) => whole,
                Err(why) => {
                    let where_ = match &delivery.body {
                        Body::Segment(w) => {
                            format!("partition {}, segment {}, offset {}", w.partition, w.segment, w.at)
                        }
                        Body::Memory(_) => "memory".into(),
                    };
                    return self.halt(format!("a queued record cannot be read back ({where_}): {why}"));
                }
            };
            delivery.body = Body::Memory(Message {
                topic: record.topic.into(),
                payload: bytes.slice_ref(record.payload),
                qos: record.qos,
                retain: record.retain,
                properties: bytes.slice_ref(record.properties),
                publisher: Arc::from(record.publisher),
                sequence: record.publisher_sequence,
            });
            at += len;
        }
        s.outgoing.put_back(run);
        self.pump_session(session);
    }
}

/// A delivery as a packet.
fn packet<'a>(v5: bool, m: &'a Message, d: &'a Delivery, packet_id: u16, dup: bool) -> Outgoing<'a> {
    Outgoing {
        v5,
        dup,
        qos: d.qos,
        retain: d.retain,
        packet_id,
        topic: &m.topic,
        properties: &m.properties,
        ids: &d.ids,
        payload: &m.payload,
    }
}
