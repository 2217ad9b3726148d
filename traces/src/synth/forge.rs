//! What all profiles share: clients with names, redacted rows, random numbers.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::wire::{self, ConnectSize};
use crate::meta::Redaction;
use crate::redact::{RedactionKey, Redactor};
use crate::span::{Kind, Span, flags};

/// Makes rows.
pub(super) struct Forge {
    redactor: Redactor,
    /// ChaCha8, because its numbers are the same in every version and on every machine.
    pub random: ChaCha8Rng,
    spans: Vec<Span>,
    connections: u32,
}

/// How a client connects.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub id: String,
    pub v5: bool,
    pub clean: bool,
    pub keep_alive_s: u16,
    /// MQTT 5 session expiry; for 3.1.1 without clean session `u32::MAX`.
    pub expiry_s: u32,
    /// Lengths of user name and password.
    pub login: Option<(usize, usize)>,
    /// Will topic and payload length.
    pub will: Option<(String, usize)>,
}

impl Client {
    /// MQTT 5, clean start, no login: a benchmark's client.
    pub fn plain(id: String, keep_alive_s: u16) -> Client {
        Client { id, v5: true, clean: true, keep_alive_s, expiry_s: 0, login: None, will: None }
    }
}

/// An open connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connection {
    connection: u32,
    session: u64,
    v5: bool,
}

impl Forge {
    pub fn new(seed: u64) -> Forge {
        let digest = Sha256::new().chain_update(b"regauge synth key\n").chain_update(seed.to_le_bytes()).finalize();
        let mut key = [0; 16];
        key.iter_mut().zip(digest).for_each(|(byte, from)| *byte = from);
        Forge {
            redactor: Redactor::new(&RedactionKey::from_bytes(key)),
            random: ChaCha8Rng::seed_from_u64(seed),
            spans: Vec::new(),
            connections: 0,
        }
    }

    /// Rows in order of arrival with ids from 0.
    pub fn finish(mut self) -> (Vec<Span>, Redaction) {
        // Stable: what happens at one instant stays in the order of making.
        self.spans.sort_by_key(|span| span.start_ns);
        self.spans.iter_mut().zip(0..).for_each(|(span, id)| span.id = id);
        (self.spans, self.redactor.redaction())
    }

    /// A waiting time of a Poisson process, ns.
    pub fn exponential_ns(&mut self, mean_ns: f64) -> u64 {
        let uniform: f64 = self.random.random();
        (-(1.0 - uniform).ln() * mean_ns) as u64
    }

    pub fn connect(&mut self, at_ns: u64, client: &Client) -> Connection {
        let connection = Connection {
            connection: self.connections,
            session: self.redactor.session(client.id.as_bytes()),
            v5: client.v5,
        };
        self.connections += 1;
        let size = ConnectSize {
            v5: client.v5,
            client_id: client.id.len(),
            expiry: client.v5 && client.expiry_s > 0,
            username: client.login.map(|(name, _)| name),
            password: client.login.map(|(_, password)| password),
            will: client.will.as_ref().map(|(topic, payload)| (topic.len(), *payload)),
        };
        let mut span = self.row(Kind::Connect, at_ns, connection, wire::connect(size));
        span.flags |= if client.clean { flags::CLEAN_START } else { 0 };
        span.flags |= if client.login.is_some() { flags::USERNAME | flags::PASSWORD } else { 0 };
        span.flags |= if client.will.is_some() { flags::WILL } else { 0 };
        span.target = client.will.as_ref().map(|(topic, _)| self.redactor.topic(topic));
        span.keep_alive_s = client.keep_alive_s;
        span.expiry_s = client.expiry_s;
        self.spans.push(span);
        connection
    }

    pub fn publish(&mut self, at_ns: u64, on: Connection, topic: &str, qos: u8, payload: usize) -> &mut Span {
        let mut span = self.row(Kind::Publish, at_ns, on, wire::publish(on.v5, topic.len(), qos, payload));
        span.target = Some(self.redactor.topic(topic));
        span.qos = qos;
        let at = self.spans.len();
        self.spans.push(span);
        &mut self.spans[at]
    }

    /// Filters with their options bytes.
    pub fn subscribe(&mut self, at_ns: u64, on: Connection, filters: &[(&str, u8)]) {
        let mut span =
            self.row(Kind::Subscribe, at_ns, on, wire::subscribe(on.v5, filters.iter().map(|(filter, _)| *filter)));
        span.target = Some(self.redactor.subscriptions(filters.iter().copied()));
        span.count = u32::try_from(filters.len()).unwrap_or(u32::MAX);
        self.spans.push(span);
    }

    pub fn ping(&mut self, at_ns: u64, on: Connection) {
        let span = self.row(Kind::Ping, at_ns, on, wire::EMPTY);
        self.spans.push(span);
    }

    pub fn disconnect(&mut self, at_ns: u64, on: Connection) {
        let span = self.row(Kind::Disconnect, at_ns, on, wire::EMPTY);
        self.spans.push(span);
    }

    pub fn close(&mut self, at_ns: u64, on: Connection) {
        let span = self.row(Kind::Close, at_ns, on, 0);
        self.spans.push(span);
    }

    /// A proposal that nobody asked for on the wire.
    pub fn propose(&mut self, at_ns: u64, count: u32, bytes: u64) {
        let mut span = Span::new(0, Kind::RaftProposal, at_ns);
        (span.count, span.bytes) = (count, bytes);
        self.spans.push(span);
    }

    fn row(&self, kind: Kind, at_ns: u64, on: Connection, bytes: u64) -> Span {
        let mut span = Span::new(0, kind, at_ns);
        span.session = Some(on.session);
        span.connection = Some(on.connection);
        span.bytes = bytes;
        span.flags = if on.v5 { flags::V5 } else { 0 };
        span
    }
}
