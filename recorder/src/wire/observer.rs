//! One connection's spans, from both of its directions.

use super::flight::{Flight, Flights, Launch};
use super::frame::{Frame, Framer};
use super::packet::{Connect, Packet, Publish, Rules};
use super::{Malformed, Side};
use regauge_traces::redact::Redactor;
use regauge_traces::span::{Kind, Span, flags};
use std::collections::{HashMap, VecDeque};

/// PINGREQs that may wait at once. Pings have no id, so their waiting line is the one table that a hostile client could
/// grow without end; those beyond it are recorded without an end.
const PINGS_MAX: usize = 1024;

/// Bytes on their way, and when they were seen.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    /// Who sent them.
    pub from: Side,
    /// The bytes, as they were handed to the other side.
    pub bytes: &'a [u8],
    /// When they were read from the sender, CLOCK_MONOTONIC ns.
    pub read_ns: u64,
    /// When the last of them was handed to the other side's socket, CLOCK_MONOTONIC ns.
    pub written_ns: u64,
}

/// Why an observation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Either side closed the connection.
    Closed,
    /// The recording stopped; the connection may live on.
    RecordingStopped,
}

/// Watches one connection. Spans come out with `id` 0: whoever writes them numbers them.
#[derive(Debug)]
pub struct Observer {
    connection: u32,
    /// What stands for 0 in `start_ns`, CLOCK_MONOTONIC ns.
    origin_ns: u64,
    opaque: bool,
    version: Option<u8>,
    session: Option<u64>,
    client: Direction,
    broker: Direction,
    connect: Option<Flight>,
    pings: VecDeque<Flight>,
    /// The client said DISCONNECT: the end of the connection is no `close`.
    said_goodbye: bool,
    /// Reason code of the broker's DISCONNECT.
    broker_reason: u8,
}

#[derive(Debug, Default)]
struct Direction {
    framer: Framer,
    flights: Flights,
    /// Topic aliases that this side has set (MQTT 5), already redacted.
    aliases: HashMap<u16, String>,
}

impl Observer {
    /// An observer of the trace's connection number `connection`; times are counted from `origin_ns`.
    pub fn new(connection: u32, origin_ns: u64) -> Self {
        Self {
            connection,
            origin_ns,
            opaque: false,
            version: None,
            session: None,
            client: Direction::default(),
            broker: Direction::default(),
            connect: None,
            pings: VecDeque::new(),
            said_goodbye: false,
            broker_reason: 0,
        }
    }

    /// Whether the connection could not, or can no longer, be read as MQTT.
    pub fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// Looks at bytes that were passed on and gives out the spans that they complete.
    ///
    /// # Errors
    /// Once, when the connection becomes opaque. What was open is then given out as unfinished; later chunks are ignored.
    pub fn observe(
        &mut self,
        chunk: Chunk<'_>,
        redactor: &Redactor,
        out: &mut impl FnMut(Span),
    ) -> Result<(), Malformed> {
        if self.opaque {
            return Ok(());
        }
        let mut input = chunk.bytes;
        loop {
            let v5 = self.version == Some(5);
            let rules = Rules { from: chunk.from, version: self.version, v5, redactor };
            let direction = match chunk.from {
                Side::Client => &mut self.client,
                Side::Broker => &mut self.broker,
            };
            match direction.framer.next(&mut input, chunk.read_ns, &rules) {
                Ok(Some(frame)) => self.packet(chunk.from, frame, chunk.written_ns, redactor, out),
                Ok(None) => return Ok(()),
                Err(why) => {
                    self.give_up(out);
                    self.opaque = true;
                    self.client = Direction::default();
                    self.broker = Direction::default();
                    return Err(why);
                }
            }
        }
    }

    /// Ends the observation: everything that still waits is given out as unfinished, and a connection that closed
    /// without a DISCONNECT of its client gets its `close`.
    pub fn finish(&mut self, ending: Ending, at_ns: u64, out: &mut impl FnMut(Span)) {
        if self.opaque {
            return;
        }
        self.give_up(out);
        if ending == Ending::Closed && self.version.is_some() && !self.said_goodbye {
            let mut span = self.span(Flight::new(Kind::Close, at_ns, 0), None);
            span.status = self.broker_reason;
            out(span);
        }
        // Nothing may come out twice.
        self.opaque = true;
    }

    fn packet(&mut self, from: Side, frame: Frame, now_ns: u64, redactor: &Redactor, out: &mut impl FnMut(Span)) {
        let Frame { packet, start_ns, bytes } = frame;
        match packet {
            Packet::Connect(connect) => self.connect(connect, start_ns, bytes, redactor),
            Packet::Connack { status, session_present, assigned } => {
                if assigned.is_some() {
                    self.session = assigned;
                }
                if let Some(mut flight) = self.connect.take() {
                    if session_present {
                        flight.flags |= flags::SESSION_PRESENT;
                    }
                    out(self.ended(flight, status, now_ns));
                }
            }
            Packet::Publish(publish) => self.publish(from, publish, start_ns, bytes, out),
            Packet::Ack { ack, id, status } => {
                // A reply ends a request of the side that did not send it.
                let asker = match from {
                    Side::Client => &mut self.broker,
                    Side::Broker => &mut self.client,
                };
                if let Some(flight) = asker.flights.land(id, ack, status) {
                    out(self.ended(flight, status, now_ns));
                }
            }
            Packet::Subscribe { id, filters, qos, target } => {
                let flight = Flight::new(Kind::Subscribe, start_ns, bytes);
                self.launch(from, id, Flight { target: Some(target), count: filters, qos, ..flight }, out);
            }
            Packet::Unsubscribe { id, filters, target } => {
                let flight = Flight::new(Kind::Unsubscribe, start_ns, bytes);
                self.launch(from, id, Flight { target: Some(target), count: filters, ..flight }, out);
            }
            Packet::Pingreq => {
                let flight = Flight::new(Kind::Ping, start_ns, bytes);
                if self.pings.len() < PINGS_MAX {
                    self.pings.push_back(flight);
                } else {
                    out(self.unfinished(flight));
                }
            }
            Packet::Pingresp => {
                if let Some(flight) = self.pings.pop_front() {
                    out(self.ended(flight, 0, now_ns));
                }
            }
            Packet::Disconnect { status } => match from {
                Side::Client => {
                    self.said_goodbye = true;
                    let mut span = self.span(Flight::new(Kind::Disconnect, start_ns, bytes), None);
                    span.status = status;
                    out(span);
                }
                Side::Broker => self.broker_reason = status,
            },
            Packet::Pubrel | Packet::Auth => {}
        }
    }

    fn connect(&mut self, connect: Connect, start_ns: u64, bytes: u64, redactor: &Redactor) {
        self.version = Some(connect.version);
        // Clients without an id are different sessions, so they must not share the hash of the empty string. No client
        // id can be this one: U+0000 is forbidden in MQTT strings.
        let anonymous = || redactor.session(format!("\0connection {}", self.connection).as_bytes());
        self.session = Some(connect.session.unwrap_or_else(anonymous));
        self.connect = Some(Flight {
            target: connect.will_topic,
            flags: connect.flags,
            keep_alive_s: connect.keep_alive_s,
            expiry_s: connect.expiry_s,
            ..Flight::new(Kind::Connect, start_ns, bytes)
        });
    }

    fn publish(&mut self, from: Side, publish: Publish, start_ns: u64, bytes: u64, out: &mut impl FnMut(Span)) {
        let Publish { qos, flags, id, target, alias } = publish;
        let (kind, direction) = match from {
            Side::Client => (Kind::Publish, &mut self.client),
            Side::Broker => (Kind::Deliver, &mut self.broker),
        };
        let target = match (target, alias) {
            (Some(topic), Some(alias)) => {
                direction.aliases.insert(alias, topic.clone());
                Some(topic)
            }
            (None, Some(alias)) => direction.aliases.get(&alias).cloned(),
            (target, None) => target,
        };
        let flight = Flight { target, qos, flags, ..Flight::new(kind, start_ns, bytes) };
        match id {
            Some(id) => self.launch(from, id, flight, out),
            // QoS 0 has no reply: nothing is missing from such a span.
            None => out(self.span(flight, None)),
        }
    }

    fn launch(&mut self, from: Side, id: u16, flight: Flight, out: &mut impl FnMut(Span)) {
        let direction = match from {
            Side::Client => &mut self.client,
            Side::Broker => &mut self.broker,
        };
        match direction.flights.launch(id, flight) {
            Launch::Waiting => {}
            Launch::Displaced(earlier) => out(self.unfinished(earlier)),
            Launch::Repeated(again) => out(self.unfinished(again)),
        }
    }

    /// Gives out everything that waits, in the order of arrival.
    fn give_up(&mut self, out: &mut impl FnMut(Span)) {
        let mut rest: Vec<Flight> = self.connect.take().into_iter().collect();
        rest.extend(self.client.flights.take_all());
        rest.extend(self.broker.flights.take_all());
        rest.extend(self.pings.drain(..));
        rest.sort_by_key(|flight| flight.start_ns);
        for flight in rest {
            out(self.unfinished(flight));
        }
    }

    fn ended(&self, flight: Flight, status: u8, now_ns: u64) -> Span {
        let duration_ns = now_ns.saturating_sub(flight.start_ns);
        Span { status, ..self.span(flight, Some(duration_ns)) }
    }

    fn unfinished(&self, mut flight: Flight) -> Span {
        flight.flags |= flags::UNFINISHED;
        self.span(flight, None)
    }

    fn span(&self, flight: Flight, duration_ns: Option<u64>) -> Span {
        let v5 = if self.version == Some(5) { flags::V5 } else { 0 };
        Span {
            id: 0,
            parent: None,
            kind: flight.kind,
            start_ns: flight.start_ns.saturating_sub(self.origin_ns),
            duration_ns,
            busy_ns: None,
            session: self.session,
            connection: Some(self.connection),
            target: flight.target,
            bytes: flight.bytes,
            count: flight.count,
            qos: flight.qos,
            flags: flight.flags | v5,
            status: 0,
            keep_alive_s: flight.keep_alive_s,
            expiry_s: flight.expiry_s,
            thread: 0,
        }
    }
}
