//! What the broker itself costs: publishes per second through `Shard::handle`, without any I/O.
//!
//! `cargo run --release -p regauge-runtimes --example broker_rate [seconds per line]`
//!
//! Clients publish 256 B at QoS 1, each sending `window` publishes at once, over eight partitions. Every operation that
//! the shard asks for completes at once, through `handle` too, so a line counts everything that the broker does for a
//! publish, and nothing that a shell or a kernel does. The last line reads the same packets with `mqtt-protocol-core`
//! alone: what its parsing would add to each.

use mqtt_protocol_core::mqtt::packet::v3_1_1;
use regauge_runtimes::broker::effect::{ConnId, Effect, Input, MetaCall, MetaReply, Now, Outcome};
use regauge_runtimes::broker::{BrokerConfig, Shard};
use regauge_runtimes::settings::{Durability, Settings};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const CLIENTS: u64 = 64;
const PAYLOAD_BYTES: usize = 256;

/// A shard whose operations complete as soon as they are asked for.
struct Bench {
    shard: Shard,
    todo: VecDeque<Effect>,
    fresh: Vec<Effect>,
    acks: u64,
    delivered_bytes: u64,
}

impl Bench {
    fn new(durability: Durability) -> Bench {
        let settings = Settings { durability, ..Settings::default() };
        let shard = Shard::new(BrokerConfig::new(0, &settings), Vec::new());
        Bench { shard, todo: VecDeque::new(), fresh: Vec::new(), acks: 0, delivered_bytes: 0 }
    }

    fn feed(&mut self, input: Input<'_>) {
        self.shard.handle(input, Now::default(), &mut self.fresh);
        self.todo.extend(self.fresh.drain(..));
        while let Some(effect) = self.todo.pop_front() {
            let (op, outcome) = match effect {
                Effect::Reply { bytes, .. } => {
                    self.acks += bytes.len() as u64 / 4;
                    continue;
                }
                Effect::Push { bytes, .. } => {
                    self.delivered_bytes += bytes.len() as u64;
                    continue;
                }
                Effect::Append { op, .. } => (op, Outcome::Appended),
                Effect::Sync { op, .. } => (op, Outcome::Synced),
                Effect::Roll { op, .. } => (op, Outcome::Rolled),
                Effect::Meta { op, call: MetaCall::OpenSession { .. }, .. } => {
                    (op, Outcome::Meta(MetaReply::Opened(None)))
                }
                Effect::Meta { op, .. } => (op, Outcome::Meta(MetaReply::Stored)),
                other => {
                    eprintln!("the broker asked for something that this workload never needs: {other:?}");
                    std::process::exit(1);
                }
            };
            self.shard.handle(Input::Done { op, result: Ok(outcome) }, Now::default(), &mut self.fresh);
            self.todo.extend(self.fresh.drain(..));
        }
    }

    fn connect(&mut self, id: u64) {
        let client = format!("client-{id}");
        let mut packet = vec![0x10, (12 + client.len()) as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0];
        packet.extend((client.len() as u16).to_be_bytes());
        packet.extend(client.as_bytes());
        self.feed(Input::Accepted { conn: ConnId(id) });
        self.feed(Input::Received { conn: ConnId(id), bytes: &packet });
    }
}

/// `window` publishes of one client on its own topic.
fn publishes(client: u64, window: u16) -> Vec<u8> {
    let topic = format!("bench/{client}/data");
    let mut all = Vec::new();
    for id in 1..=window {
        let body = 2 + topic.len() + 2 + PAYLOAD_BYTES;
        all.extend([0x32, (body & 0x7f) as u8 | 0x80, (body >> 7) as u8]);
        all.extend((topic.len() as u16).to_be_bytes());
        all.extend(topic.as_bytes());
        all.extend(id.to_be_bytes());
        all.extend([7u8; PAYLOAD_BYTES]);
    }
    all
}

fn line(durability: Durability, window: u16, subscriber: bool, length: Duration) {
    let mut bench = Bench::new(durability);
    for id in 0..CLIENTS {
        bench.connect(id);
    }
    if subscriber {
        bench.connect(CLIENTS);
        let packet = [0x82, 12, 0, 1, 0, 7, b'b', b'e', b'n', b'c', b'h', b'/', b'#', 0];
        bench.feed(Input::Received { conn: ConnId(CLIENTS), bytes: &packet });
    }
    let chunks: Vec<Vec<u8>> = (0..CLIENTS).map(|c| publishes(c, window)).collect();
    bench.acks = 0;
    let start = Instant::now();
    let mut sent = 0u64;
    while start.elapsed() < length {
        for (id, chunk) in chunks.iter().enumerate() {
            bench.feed(Input::Received { conn: ConnId(id as u64), bytes: chunk });
            sent += u64::from(window);
        }
    }
    let spent = start.elapsed();
    let per_s = sent as f64 / spent.as_secs_f64();
    let note = if bench.acks == sent { "" } else { "  NOT ALL ACKNOWLEDGED" };
    println!(
        "{:<10} window {window:>3}  {}  {:>6.0} k publishes/s  {:>5.0} ns each{note}",
        durability.to_string(),
        if subscriber { "1 subscriber (QoS 0)" } else { "no subscriber       " },
        per_s / 1e3,
        1e9 / per_s,
    );
}

fn library(length: Duration) {
    let chunk = publishes(0, 1);
    let body = &chunk[3..];
    let start = Instant::now();
    let mut parsed = 0u64;
    while start.elapsed() < length {
        for _ in 0..1000 {
            // As its framing hands packets over: in an allocation of their own.
            match v3_1_1::Publish::parse(2, body.into()) {
                Ok((packet, _)) => parsed += u64::from(!packet.payload().as_slice().is_empty()),
                Err(error) => {
                    eprintln!("mqtt-protocol-core does not read this PUBLISH: {error}");
                    std::process::exit(1);
                }
            }
        }
    }
    let per_s = parsed as f64 / start.elapsed().as_secs_f64();
    println!(
        "mqtt-protocol-core, PUBLISH parsed only      {:>6.0} k publishes/s  {:>5.0} ns each",
        per_s / 1e3,
        1e9 / per_s
    );
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1.0);
    let length = Duration::from_secs_f64(seconds);
    for durability in [Durability::None, Durability::Fdatasync] {
        for window in [1, 10, 100] {
            for subscriber in [false, true] {
                line(durability, window, subscriber, length);
            }
        }
    }
    library(length);
}
