//! Requests that are waiting for their reply, one table per sending side.
//!
//! MQTT gives every sender its own packet ids, shared by its PUBLISH, SUBSCRIBE and UNSUBSCRIBE packets; so one map per
//! side holds them all. An id that is used again before its reply came, a retransmission and a reply to nothing are all
//! legal enough to be seen in the field, and each has one rule here:
//!
//! * retransmission (DUP, same id still open): the first keeps its start and gets the reply; the repeated packet is a
//!   span of its own without an end, because the broker had to read it too;
//! * same id without DUP: the earlier request is over, unfinished;
//! * a reply of another kind than the request waits for, or to no request: ignored.

use super::packet::Ack;
use regauge_traces::span::{Kind, flags};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A request as it was seen, before its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) kind: Kind,
    pub(super) start_ns: u64,
    pub(super) bytes: u64,
    pub(super) target: Option<String>,
    pub(super) count: u32,
    pub(super) qos: u8,
    pub(super) flags: u32,
    pub(super) keep_alive_s: u16,
    pub(super) expiry_s: u32,
}

impl Flight {
    pub(super) fn new(kind: Kind, start_ns: u64, bytes: u64) -> Self {
        Self { kind, start_ns, bytes, target: None, count: 1, qos: 0, flags: 0, keep_alive_s: 0, expiry_s: 0 }
    }

    /// Whether a reply of this kind ends it. A PUBREC does so only by refusing.
    fn ends_by(&self, ack: Ack, status: u8) -> bool {
        match ack {
            Ack::Puback => self.is_message() && self.qos == 1,
            Ack::Pubrec => self.is_message() && self.qos == 2 && status >= 0x80,
            Ack::Pubcomp => self.is_message() && self.qos == 2,
            Ack::Suback => self.kind == Kind::Subscribe,
            Ack::Unsuback => self.kind == Kind::Unsubscribe,
        }
    }

    fn is_message(&self) -> bool {
        matches!(self.kind, Kind::Publish | Kind::Deliver)
    }
}

/// What a new request does to the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Launch {
    /// It waits for its reply.
    Waiting,
    /// It waits, and this earlier one with the same id never got its reply.
    Displaced(Flight),
    /// It repeats one that still waits; here it is back, to be recorded without an end.
    Repeated(Flight),
}

/// The open requests of one side.
#[derive(Debug, Default)]
pub(super) struct Flights {
    open: HashMap<u16, Flight>,
}

impl Flights {
    pub(super) fn launch(&mut self, id: u16, flight: Flight) -> Launch {
        match self.open.entry(id) {
            Entry::Vacant(free) => {
                free.insert(flight);
                Launch::Waiting
            }
            Entry::Occupied(taken) if flight.flags & flags::DUP != 0 && taken.get().kind == flight.kind => {
                Launch::Repeated(flight)
            }
            Entry::Occupied(mut taken) => Launch::Displaced(taken.insert(flight)),
        }
    }

    /// The request that this reply ends, if it ends one.
    pub(super) fn land(&mut self, id: u16, ack: Ack, status: u8) -> Option<Flight> {
        match self.open.entry(id) {
            Entry::Occupied(waiting) if waiting.get().ends_by(ack, status) => Some(waiting.remove()),
            _ => None,
        }
    }

    /// All that never got a reply, in the order of their arrival.
    pub(super) fn take_all(&mut self) -> Vec<Flight> {
        let mut rest: Vec<(u16, Flight)> = self.open.drain().collect();
        rest.sort_by_key(|(id, flight)| (flight.start_ns, *id));
        rest.into_iter().map(|(_, flight)| flight).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn publish(start_ns: u64, qos: u8, flags: u32) -> Flight {
        Flight { qos, flags, ..Flight::new(Kind::Publish, start_ns, 10) }
    }

    #[test]
    fn a_retransmission_leaves_the_first_waiting() {
        let mut flights = Flights::default();
        assert_eq!(flights.launch(7, publish(1, 1, 0)), Launch::Waiting);
        let again = publish(2, 1, flags::DUP);
        assert_eq!(flights.launch(7, again.clone()), Launch::Repeated(again));
        assert_eq!(flights.land(7, Ack::Puback, 0).unwrap().start_ns, 1);
        assert_eq!(flights.land(7, Ack::Puback, 0), None);
    }

    #[test]
    fn a_reused_id_ends_the_earlier_request() {
        let mut flights = Flights::default();
        flights.launch(7, publish(1, 1, 0));
        assert_eq!(flights.launch(7, publish(2, 1, 0)), Launch::Displaced(publish(1, 1, 0)));
        assert_eq!(flights.take_all(), [publish(2, 1, 0)]);
    }

    #[test]
    fn replies_of_the_wrong_kind_end_nothing() {
        let mut flights = Flights::default();
        flights.launch(1, publish(1, 1, 0));
        flights.launch(2, publish(2, 2, 0));
        for (id, ack, status) in [
            (1, Ack::Pubcomp, 0),
            (1, Ack::Suback, 0),
            (2, Ack::Puback, 0),
            (2, Ack::Pubrec, 0x10),
            (3, Ack::Puback, 0),
        ] {
            assert_eq!(flights.land(id, ack, status), None, "{id} {ack:?}");
        }
        assert!(flights.land(2, Ack::Pubrec, 0x97).is_some(), "a refusing PUBREC is the last word");
        assert_eq!(flights.take_all().len(), 1);
    }
}
