//! Clients that behave, whatever happens to their connections.

use crate::packets::*;
use crate::sim::Sim;
use regauge_runtimes::broker::effect::ConnId;
use std::collections::BTreeSet;

/// Acknowledges what it gets, and remembers it.
#[derive(Debug, Default)]
pub struct Subscriber {
    pub conn: u64,
    read: usize,
    /// QoS 2 packet ids between PUBREC and PUBREL: the message counts as received once.
    held: BTreeSet<u16>,
    /// Topic, payload, QoS, in the order of receipt; repeats of QoS 2 messages left out.
    pub got: Vec<(String, Vec<u8>, u8)>,
}

impl Subscriber {
    pub fn on(conn: u64) -> Self {
        Subscriber { conn, ..Subscriber::default() }
    }

    /// Goes on with a new connection of the same session.
    pub fn moved_to(&mut self, conn: u64) {
        self.conn = conn;
        self.read = 0;
    }

    /// Answers what came since the last call.
    pub fn react(&mut self, sim: &mut Sim) {
        let new: Vec<Packet> = sim.clients[&ConnId(self.conn)].packets[self.read..].to_vec();
        self.read += new.len();
        for packet in new {
            match packet {
                Packet::Publish { topic, payload, qos, id, .. } => {
                    if qos != 2 || self.held.insert(id) {
                        self.got.push((topic, payload, qos));
                    }
                    match qos {
                        1 => sim.send(self.conn, &ack(PUBACK, id)),
                        2 => sim.send(self.conn, &ack(PUBREC, id)),
                        _ => {}
                    }
                }
                Packet::Ack { first: PUBREL, id, .. } => {
                    self.held.remove(&id);
                    sim.send(self.conn, &ack(PUBCOMP, id));
                }
                _ => {}
            }
        }
    }
}

/// Publishes each message once at QoS 2, sending again after each reconnect what it must.
#[derive(Debug)]
pub struct Publisher {
    pub conn: u64,
    read: usize,
    /// Of message i (packet id i + 1): 0 not sent, 1 PUBLISH sent, 2 PUBREL sent, 3 complete.
    pub state: Vec<u8>,
    topic: &'static str,
}

impl Publisher {
    pub fn new(conn: u64, topic: &'static str, messages: usize) -> Self {
        Publisher { conn, read: 0, state: vec![0; messages], topic }
    }

    fn packet(&self, i: usize, dup: bool) -> Vec<u8> {
        let payload = format!("m{i}");
        Pub { topic: self.topic, payload: payload.as_bytes(), qos: 2, id: i as u16 + 1, dup, ..Pub::default() }
            .bytes(false)
    }

    /// Sends the next message, if there is one.
    pub fn next(&mut self, sim: &mut Sim) {
        if let Some(i) = self.state.iter().position(|s| *s == 0) {
            self.state[i] = 1;
            let packet = self.packet(i, false);
            sim.send(self.conn, &packet);
        }
    }

    /// Sends something under way once more, as a client may after a reconnect.
    pub fn moved_to(&mut self, conn: u64, sim: &mut Sim) {
        self.conn = conn;
        self.read = 0;
        for i in 0..self.state.len() {
            match self.state[i] {
                1 => {
                    let packet = self.packet(i, true);
                    sim.send(conn, &packet);
                }
                2 => sim.send(conn, &ack(PUBREL, i as u16 + 1)),
                _ => {}
            }
        }
    }

    pub fn react(&mut self, sim: &mut Sim) {
        let new: Vec<Packet> = sim.clients[&ConnId(self.conn)].packets[self.read..].to_vec();
        self.read += new.len();
        for packet in new {
            if let Packet::Ack { first, id, .. } = packet {
                let state = &mut self.state[usize::from(id) - 1];
                match first {
                    PUBREC => {
                        *state = (*state).max(2);
                        sim.send(self.conn, &ack(PUBREL, id));
                    }
                    PUBCOMP => *state = 3,
                    _ => {}
                }
            }
        }
    }
}
