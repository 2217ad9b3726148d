//! One client's session: subscriptions, and what is on its way to the client and from it.

use super::effect::{Message, OpId, SessionRecord, Stored};
use super::trie::Options;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A session that lives on this shard.
#[derive(Debug)]
pub(super) struct Session {
    pub client: Arc<str>,
    /// Tells it from an earlier session with the same key.
    pub serial: u64,
    /// Key of its connection, while there is one.
    pub conn: Option<usize>,
    /// Whether that connection has its CONNACK, so that messages may be sent.
    pub online: bool,
    /// Calls of OpenSession that have not been answered.
    pub opening: u32,
    /// Nothing was known of it in memory: the store's answer may bring its subscriptions.
    pub fresh: bool,
    pub expiry_s: u32,
    /// When it ends, ns monotonic, once its client has left for a limited time.
    pub expires_ns: Option<u64>,
    /// When its client left, s of wall clock.
    pub left_unix_s: Option<u64>,
    pub subscriptions: BTreeMap<Arc<str>, Subscription>,
    pub outgoing: Outgoing,
    /// QoS 2 publishes from the client that wait for PUBREL, and the operations that their PUBREC waits for.
    pub incoming: BTreeMap<u16, OpId>,
    /// Ordinal of its next appended message.
    pub next_sequence: u64,
}

/// What the client asked for with a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subscription {
    pub options: Options,
    /// Identifier; 0: none. Not stored: a session that returns after a restart has lost it.
    pub id: u32,
}

impl Session {
    pub fn new(client: Arc<str>, serial: u64, expiry_s: u32) -> Self {
        Session {
            client,
            serial,
            conn: None,
            online: false,
            opening: 0,
            fresh: true,
            expiry_s,
            expires_ns: None,
            left_unix_s: None,
            subscriptions: BTreeMap::new(),
            outgoing: Outgoing::default(),
            incoming: BTreeMap::new(),
            next_sequence: 0,
        }
    }

    /// As it is stored.
    pub fn record(&self) -> SessionRecord {
        SessionRecord {
            client: self.client.to_string(),
            expiry_s: self.expiry_s,
            subscriptions: self.subscriptions.iter().map(|(f, s)| (f.to_string(), s.options.0)).collect(),
            left_unix_s: self.left_unix_s,
        }
    }
}

/// A delivery that is not sent yet, or must be sent again.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub body: Body,
    pub qos: u8,
    pub retain: bool,
    /// Subscription identifiers.
    pub ids: Box<[u32]>,
    /// When it came, ns monotonic: its expiry counts from then.
    pub since_ns: u64,
}

/// Where its message is.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Memory(Message),
    Segment(Stored),
}

impl Delivery {
    /// Bytes that it keeps in memory.
    pub fn memory(&self) -> usize {
        match &self.body {
            Body::Memory(m) => m.payload.len() + m.topic.len() + m.properties.len(),
            Body::Segment(_) => 0,
        }
    }
}

/// QoS 1 and 2 deliveries: a window of those in flight, and the queue behind it.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// In flight, by packet id − 1.
    slots: Vec<Option<InFlight>>,
    /// Packet ids given back, used again in that order.
    free: VecDeque<u16>,
    used: usize,
    next_order: u64,
    /// How many may be in flight.
    pub window: usize,
    pub queue: VecDeque<Delivery>,
    /// Bytes that the queue keeps in memory.
    pub queue_bytes: usize,
    /// The read that fetches the front of the queue, and what it fetches.
    pub reading: Option<(OpId, Vec<Delivery>)>,
}

#[derive(Debug)]
struct InFlight {
    order: u64,
    /// `None`: the client has it (PUBREC came), and owes PUBCOMP.
    delivery: Option<Delivery>,
}

/// What a client's acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acked {
    /// It ends the delivery; a place in the window is free.
    Ended,
    /// PUBREC: answer with PUBREL.
    Received,
    /// No such delivery, or not in that state.
    Unknown,
}

impl Outgoing {
    /// Whether the window has room.
    pub fn has_room(&self) -> bool {
        self.used < self.window
    }

    /// Takes a packet id, if the window has room.
    pub fn take_id(&mut self) -> Option<u16> {
        if !self.has_room() {
            return None;
        }
        let id = match self.free.pop_front() {
            Some(id) => id,
            None => {
                self.slots.push(None);
                u16::try_from(self.slots.len()).ok()?
            }
        };
        self.used += 1;
        Some(id)
    }

    /// Remembers what was sent under an id, until it is acknowledged.
    pub fn sent(&mut self, id: u16, delivery: Delivery) {
        let order = self.next_order;
        self.next_order += 1;
        if let Some(slot) = self.slots.get_mut(usize::from(id).wrapping_sub(1)) {
            *slot = Some(InFlight { order, delivery: Some(delivery) });
        }
    }

    fn end(&mut self, id: u16) -> Acked {
        match self.slots.get_mut(usize::from(id).wrapping_sub(1)).and_then(Option::take) {
            Some(_) => {
                self.used -= 1;
                self.free.push_back(id);
                Acked::Ended
            }
            None => Acked::Unknown,
        }
    }

    fn delivery(&self, id: u16) -> Option<&InFlight> {
        self.slots.get(usize::from(id).wrapping_sub(1))?.as_ref()
    }

    /// PUBACK.
    pub fn puback(&mut self, id: u16) -> Acked {
        match self.delivery(id) {
            Some(InFlight { delivery: Some(d), .. }) if d.qos == 1 => self.end(id),
            _ => Acked::Unknown,
        }
    }

    /// PUBREC; with an error as its reason it ends the delivery.
    pub fn pubrec(&mut self, id: u16, reason: u8) -> Acked {
        match self.delivery(id) {
            Some(InFlight { delivery: Some(d), .. }) if d.qos == 2 => {
                if reason >= 0x80 {
                    return self.end(id);
                }
                if let Some(Some(slot)) = self.slots.get_mut(usize::from(id).wrapping_sub(1)) {
                    slot.delivery = None;
                }
                Acked::Received
            }
            // Again: PUBREL was lost with a connection.
            Some(InFlight { delivery: None, .. }) => Acked::Received,
            _ => Acked::Unknown,
        }
    }

    /// PUBCOMP.
    pub fn pubcomp(&mut self, id: u16) -> Acked {
        match self.delivery(id) {
            Some(InFlight { delivery: None, .. }) => self.end(id),
            _ => Acked::Unknown,
        }
    }

    /// What a client that returns must be sent again, in the order in which it was sent: the packet id, and the
    /// delivery, or `None` for a PUBREL.
    pub fn again(&self) -> Vec<(u16, Option<Delivery>)> {
        let mut all: Vec<(u64, u16, Option<Delivery>)> = self
            .slots
            .iter()
            .zip(1u16..)
            .filter_map(|(slot, id)| slot.as_ref().map(|s| (s.order, id, s.delivery.clone())))
            .collect();
        all.sort_unstable_by_key(|(order, ..)| *order);
        all.into_iter().map(|(_, id, delivery)| (id, delivery)).collect()
    }

    /// Puts a delivery at the end of the queue. False when the queue is full.
    pub fn enqueue(&mut self, delivery: Delivery, messages_max: usize, bytes_max: usize) -> bool {
        let bytes = self.queue_bytes + delivery.memory();
        let reading = self.reading.as_ref().map_or(0, |(_, r)| r.len());
        if self.queue.len() + reading >= messages_max || (bytes > bytes_max && delivery.memory() > 0) {
            return false;
        }
        self.queue_bytes = bytes;
        self.queue.push_back(delivery);
        true
    }

    /// Takes the front of the queue.
    pub fn dequeue(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        self.queue_bytes -= delivery.memory();
        Some(delivery)
    }

    /// Puts deliveries back to the front of the queue, in their order.
    pub fn put_back(&mut self, deliveries: Vec<Delivery>) {
        for d in deliveries.into_iter().rev() {
            self.queue_bytes += d.memory();
            self.queue.push_front(d);
        }
    }
}
