//! Receiving: reading a connection, finding the request that a reply belongs to, and the protocol's own duties.
//!
//! A reply is stamped when the read(2) that brought its last byte returned. Right is a reply of the due type with the
//! due packet id that grants what was asked, or refuses it where the recorded broker refused it too.

use super::frames::{Ack, Incoming};
use super::link::{Phase, position_of_id};
use super::run::Run;
use super::samples::State;
use crate::plan::{Reply, is_refusal};
use regauge_traces::Kind;
use rustix::io::{self, Errno};

/// When and where a packet from the server ended.
#[derive(Debug, Clone, Copy)]
struct At {
    /// When the read that brought its last byte returned, ns since t0.
    ns: u64,
    /// Bytes received on the connection up to and including it.
    offset: u64,
}

/// Reads of one connection before others have their turn.
const READS_PER_TURN: usize = 4;

impl Run<'_> {
    /// Reads what there is. `ending`: the server is known to have closed, so read until that shows.
    pub(super) fn read(&mut self, index: usize, ending: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.read_into(index, ending, &mut buffer);
        self.buffer = buffer;
    }

    fn read_into(&mut self, index: usize, ending: bool, buffer: &mut [u8]) {
        let v5 = self.plan.connections[index].v5;
        for _ in 0..READS_PER_TURN {
            let Some(socket) = &self.links[index].socket else { return };
            match io::read(socket, &mut *buffer) {
                Ok(0) => return self.hung_up(index),
                Ok(bytes) => {
                    let now = self.clock.now();
                    self.last_input_ns = now;
                    let mut input = &buffer[..bytes];
                    let received_bytes = self.links[index].received_bytes + bytes as u64;
                    self.links[index].received_bytes = received_bytes;
                    loop {
                        match self.links[index].frames.next(v5, &mut input) {
                            Ok(Some(incoming)) => {
                                let offset = received_bytes - input.len() as u64;
                                self.arrived(index, incoming, At { ns: now, offset });
                            }
                            Ok(None) => break,
                            Err(malformed) => {
                                return self.end(index, Some(format!("connection {index}: {malformed}")));
                            }
                        }
                    }
                    if bytes < buffer.len() && !ending {
                        return;
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(error) => return self.failed(index, error),
            }
        }
        self.unread.push_back(index as u32);
    }

    /// The server closed the connection: as it should after DISCONNECT and close, else a fault if anything was still
    /// to be said.
    fn hung_up(&mut self, index: usize) {
        let ops = &self.plan.connections[index].ops;
        let open = ops.iter().any(|&op| {
            let op = op as usize;
            self.plan.ops[op].kind != Kind::Close && !self.plan.ops[op].optional && !self.samples.state[op].is_final()
        });
        self.end(
            index,
            open.then(|| format!("the server closed connection {index} while requests were open or due on it")),
        );
    }

    fn arrived(&mut self, index: usize, incoming: Incoming, at: At) {
        match incoming {
            Incoming::Connack { status, receive_max } => {
                let first = self.plan.connections[index].ops.first().map(|op| *op as usize);
                self.links[index].receive_max = receive_max;
                self.replied(index, first, Reply::Connack, status, at);
            }
            Incoming::Ack { ack, id, status } => self.acknowledged(index, ack, id, status, at),
            Incoming::Pingresp => {
                let link = &mut self.links[index];
                let op = self.plan.connections[index].pings.get(link.pings_answered).map(|op| *op as usize);
                link.pings_answered += usize::from(op.is_some_and(|op| self.samples.state[op] == State::InFlight));
                self.replied(index, op, Reply::Pingresp, 0, at);
            }
            Incoming::Delivery { qos, id } => {
                if !self.parting {
                    self.links[index].deliveries += 1;
                }
                match qos {
                    0 => {}
                    1 => self.duty(index, 0x40, id),
                    _ => self.duty(index, 0x50, id),
                }
            }
            Incoming::Pubrel { id } => self.duty(index, 0x70, id),
            // The end of the connection follows and tells the rest.
            Incoming::Disconnect { .. } => {}
        }
    }

    /// A packet that the protocol demands in answer to another: type, and the packet id of the other.
    fn duty(&mut self, index: usize, first: u8, id: u16) {
        let [high, low] = id.to_be_bytes();
        let link = &mut self.links[index];
        if link.phase == Phase::Open && !link.shut {
            link.duties.extend([first, 2, high, low]);
            self.enqueue(index);
        }
    }

    fn acknowledged(&mut self, index: usize, ack: Ack, id: u16, status: u8, at: At) {
        let connection = &self.plan.connections[index];
        let op = position_of_id(id, connection.first_packet_id, self.links[index].ids_sent)
            .map(|position| connection.id_ops[position] as usize);
        let due = op.map(|op| (self.plan.ops[op].reply, self.samples.state[op]));
        match (ack, due) {
            // Half way: QoS 2 goes on with PUBREL. A refusing PUBREC is its end instead.
            (Ack::Pubrec, Some((Reply::Pubcomp, State::InFlight))) if status < 0x80 => {
                if let Some(op) = op {
                    self.samples.state[op] = State::Received;
                }
                self.duty(index, 0x62, id);
            }
            (Ack::Pubrec, Some((Reply::Pubcomp, State::InFlight))) => {
                self.replied(index, op, Reply::Pubcomp, status, at);
            }
            (Ack::Pubcomp, Some((Reply::Pubcomp, State::InFlight))) => {
                // Out of turn: nothing was released yet.
                self.replied(index, op, Reply::None, status, at);
            }
            (Ack::Puback, _) => self.replied(index, op, Reply::Puback, status, at),
            (Ack::Pubrec, _) => self.replied(index, op, Reply::None, status, at),
            (Ack::Pubcomp, _) => self.replied(index, op, Reply::Pubcomp, status, at),
            (Ack::Suback, _) => self.replied(index, op, Reply::Suback, status, at),
            (Ack::Unsuback, _) => self.replied(index, op, Reply::Unsuback, status, at),
        }
    }

    /// A reply of type `reply` came for `op` ([`Reply::None`]: of a type that ends nothing).
    fn replied(&mut self, index: usize, op: Option<usize>, reply: Reply, status: u8, at: At) {
        if self.parting {
            return;
        }
        let in_flight = |op: &usize| matches!(self.samples.state[*op], State::InFlight | State::Received);
        let Some(op) = op.filter(in_flight) else {
            self.links[index].strays += 1;
            return;
        };
        let planned = &self.plan.ops[op];
        let v5 = self.plan.connections[index].v5;
        let granted = !is_refusal(planned.kind, v5, status) || planned.refused;
        self.samples.replied_ns[op] = at.ns;
        self.samples.reply_offset[op] = at.offset;
        self.samples.read_lag_ns[op] = self.look.replied(op, at.ns);
        self.samples.status[op] = status;
        let right = reply == planned.reply && granted;
        self.resolve(op, if right { State::Right } else { State::Wrong });
        let demanded = self.is_demanded(op);
        let link = &mut self.links[index];
        link.demanded -= u32::from(demanded);
        link.in_flight -= u32::from(matches!(planned.reply, Reply::Puback | Reply::Pubcomp));
        if link.held {
            link.held = false;
            link.unhindered_ns = at.ns;
            self.enqueue(index);
        }
    }
}
