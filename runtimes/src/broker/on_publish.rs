//! PUBLISH from clients, wills, and their way to the shard that owns the topic.

use super::broker::Broker;
use super::conn::{Conn, Topic};
use super::deliver::Fan;
use super::effect::{Message, OpId, PeerMsg, ShardId};
use super::ops::Op;
use super::placing::{partition_of_topic, shard_of_partition};
use super::record::Record;
use super::session::Acked;
use super::wire::connect::Will;
use super::wire::publish::{self, Publish};
use super::wire::{Fault, acks};
use bytes::Bytes;
use std::sync::Arc;

/// A message on its way to the shard that owns its topic.
struct Submission<'a> {
    topic: &'a Topic,
    qos: u8,
    retain: bool,
    properties: &'a [u8],
    payload: &'a [u8],
    publisher: &'a Arc<str>,
    sequence: u64,
}

impl Submission<'_> {
    fn message(&self) -> Message {
        Message {
            topic: self.topic.name.clone(),
            payload: Bytes::copy_from_slice(self.payload),
            qos: self.qos,
            retain: self.retain,
            properties: Bytes::copy_from_slice(self.properties),
            publisher: self.publisher.clone(),
            sequence: self.sequence,
        }
    }
}

impl Broker {
    /// A PUBLISH. Its acknowledgement waits for the operation that makes it as durable as required.
    pub(super) fn on_publish(&mut self, key: usize, first: u8, body: &[u8]) -> Result<(), Fault> {
        let (partitions, shards) = (self.config.partitions, self.config.shards);
        let Some(conn) = self.conns.get_mut(key) else { return Ok(()) };
        let Some(s) = conn.session.and_then(|session| self.sessions.get_mut(session)) else { return Ok(()) };
        let p = publish::decode(first, body, conn.v5)?;
        let topic = topic_of(conn, &p, self.config.limits.topic_alias_maximum, |name| place(name, partitions, shards))?;
        self.counters.publishes += 1;
        let id = p.packet_id;
        if p.qos == 2
            && let Some(&op) = s.incoming.get(&id)
        {
            // Again, because the PUBREC was lost or waits: it is the same message.
            self.reply(key, Some(op), |out| acks::encode(acks::PUBREC, id, 0, out));
            return Ok(());
        }
        if p.qos > 0 && conn.v5 && conn.is_at(self.config.limits.receive_maximum.max(1), s.incoming.len(), &self.ops) {
            return Err(Fault::RECEIVE_MAXIMUM);
        }
        let publisher = s.client.clone();
        let sequence = s.next_sequence;
        s.next_sequence += u64::from(p.qos > 0);
        let submission = Submission {
            topic: &topic,
            qos: p.qos,
            retain: p.retain,
            properties: &p.properties,
            payload: p.payload,
            publisher: &publisher,
            sequence,
        };
        let Some(op) = self.submit(&submission) else { return Ok(()) };
        if p.qos == 1 {
            self.reply(key, Some(op), |out| acks::encode(acks::PUBACK, id, 0, out));
            if let Some(conn) = self.conns.get_mut(key)
                && conn.v5
            {
                conn.owe(op, &self.ops);
            }
        } else {
            if let Some(s) = self.session_of(key) {
                s.incoming.insert(id, op);
            }
            self.reply(key, Some(op), |out| acks::encode(acks::PUBREC, id, 0, out));
        }
        Ok(())
    }

    /// Publishes the will of a session whose connection ended without DISCONNECT.
    pub(super) fn publish_will(&mut self, session: usize, will: Will) {
        let topic = place(&will.topic, self.config.partitions, self.config.shards);
        let Some(s) = self.sessions.get_mut(session) else { return };
        let publisher = s.client.clone();
        let sequence = s.next_sequence;
        s.next_sequence += u64::from(will.qos > 0);
        self.counters.publishes += 1;
        self.submit(&Submission {
            topic: &topic,
            qos: will.qos,
            retain: will.retain,
            properties: &will.properties,
            payload: &will.payload,
            publisher: &publisher,
            sequence,
        });
    }

    /// Hands a message to the owner of its topic. Returns what its acknowledgement waits for (none with QoS 0).
    fn submit(&mut self, s: &Submission<'_>) -> Option<OpId> {
        match (s.topic.owner == self.config.shard, s.qos) {
            (true, 0) => {
                self.publish_now(Fan::of_parts(&s.topic.name, s.properties, s.payload, s.publisher, s.retain));
                None
            }
            (true, _) => self.append(
                s.topic.partition,
                Record {
                    sequence: 0,
                    publisher_sequence: s.sequence,
                    qos: s.qos,
                    retain: s.retain,
                    publisher: s.publisher,
                    topic: &s.topic.name,
                    properties: s.properties,
                    payload: s.payload,
                },
            ),
            (false, 0) => {
                self.send(s.topic.owner, PeerMsg::Publish { msg: s.message() });
                None
            }
            (false, _) => {
                let token = self.ops.open(Op::Remote);
                self.send(s.topic.owner, PeerMsg::Append { token, msg: s.message() });
                Some(token)
            }
        }
    }

    /// Adds a record to a partition of this shard.
    fn append(&mut self, partition: u32, record: Record<'_>) -> Option<OpId> {
        let Some(Some(log)) = self.logs.get_mut(partition as usize) else {
            self.halt(format!(
                "a message for partition {partition} came to shard {}, which does not own it",
                self.config.shard
            ));
            return None;
        };
        self.counters.records += 1;
        let turn = record.retain.then(|| self.retained.draw());
        let op = log.join(record, turn, &mut self.ops);
        self.touch_log(partition);
        Some(op)
    }

    /// Another shard's append.
    pub(super) fn on_peer_append(&mut self, from: ShardId, token: OpId, msg: &Message) {
        let partition = partition_of_topic(&msg.topic, self.config.partitions);
        let record = Record {
            sequence: 0,
            publisher_sequence: msg.sequence,
            qos: msg.qos,
            retain: msg.retain,
            publisher: &msg.publisher,
            topic: &msg.topic,
            properties: &msg.properties,
            payload: &msg.payload,
        };
        if let Some(op) = self.append(partition, record) {
            self.promises.entry(op).or_default().push((from, token));
        }
    }

    /// PUBACK, PUBREC, PUBREL, PUBCOMP. What answers them is sent at once: it waits for nothing, and no order with other
    /// replies is asked for (MQTT 4.6).
    pub(super) fn on_ack(&mut self, key: usize, first: u8, id: u16, reason: u8) {
        let Some(conn) = self.conns.get(key) else { return };
        let (v5, Some(session)) = (conn.v5, conn.session) else { return };
        let Some(s) = self.sessions.get_mut(session) else { return };
        // Only MQTT 5 has a way to say it.
        let unknown = if v5 { acks::PACKET_ID_NOT_FOUND } else { 0 };
        let acked = match first {
            acks::PUBACK => s.outgoing.puback(id),
            acks::PUBCOMP => s.outgoing.pubcomp(id),
            acks::PUBREC => {
                let acked = s.outgoing.pubrec(id, reason);
                let code = if acked == Acked::Unknown { unknown } else { 0 };
                if acked != Acked::Ended {
                    self.push(key, |out| acks::encode(acks::PUBREL, id, code, out));
                }
                acked
            }
            _ => {
                let code = if s.incoming.remove(&id).is_some() { 0 } else { unknown };
                return self.push(key, |out| acks::encode(acks::PUBCOMP, id, code, out));
            }
        };
        if acked == Acked::Ended {
            self.pump_session(session);
        }
    }
}

/// A topic with its partition and owner.
fn place(name: &str, partitions: u32, shards: u16) -> Topic {
    let partition = partition_of_topic(name, partitions);
    Topic { name: name.into(), partition, owner: shard_of_partition(partition, shards) }
}

/// The topic of a PUBLISH, through its alias if it has one.
fn topic_of(conn: &mut Conn, p: &Publish<'_>, aliases: u16, place: impl Fn(&str) -> Topic) -> Result<Topic, Fault> {
    if let Some(alias) = p.alias
        && p.topic.is_empty()
    {
        return conn.aliases.get(usize::from(alias) - 1).cloned().flatten().ok_or(Fault::PROTOCOL);
    }
    let topic = match &conn.topic {
        Some(last) if *last.name == *p.topic => last.clone(),
        _ => {
            let topic = place(p.topic);
            conn.topic = Some(topic.clone());
            topic
        }
    };
    if let Some(alias) = p.alias {
        if alias > aliases {
            return Err(Fault::TOPIC_ALIAS);
        }
        let slot = usize::from(alias) - 1;
        if conn.aliases.len() <= slot {
            conn.aliases.resize(slot + 1, None);
        }
        conn.aliases[slot] = Some(topic.clone());
    }
    Ok(topic)
}
