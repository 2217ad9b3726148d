//! A node made of shards, with disk, meta store and wires between shards simulated: every completion and every message
//! between shards is a step of its own, so that a test chooses their order.
//!
//! It checks what must hold at all times: at most one append and one sync of a partition in flight, appends that
//! continue the file, one meta call per client, nothing after a close, no acknowledgement of anything not durable.

use crate::packets::{self, Packet};
use bytes::Bytes;
use regauge_runtimes::broker::effect::*;
use regauge_runtimes::broker::record::{Scanned, scan};
use regauge_runtimes::broker::{Broker, BrokerConfig, Limits, PartitionState, Shard};
use regauge_runtimes::settings::{Durability, Settings};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

pub enum Engine {
    Gated(Box<Shard>),
    Raw(Box<Broker>),
}

impl Engine {
    fn handle(&mut self, input: Input<'_>, now: Now, out: &mut Vec<Effect>) {
        match self {
            Engine::Gated(s) => s.handle(input, now, out),
            Engine::Raw(b) => b.handle(input, now, out),
        }
    }
}

#[derive(Debug, Default, Clone)]
pub struct File {
    pub bytes: Vec<u8>,
    pub synced: usize,
}

#[derive(Debug)]
enum Work {
    Append { at: u64, bytes: Bytes },
    Sync { upto: usize },
    Roll,
    Read { at: u64, len: u32 },
    Meta(MetaCall),
}

#[derive(Debug)]
struct Job {
    shard: ShardId,
    op: OpId,
    place: (u32, u32),
    work: Work,
}

enum Carried {
    Peer(PeerMsg),
    Adopt(ConnId, Box<Handover>),
}

enum Held {
    Bytes(Vec<u8>),
    Closed,
}

/// A connection as its client sees it.
#[derive(Default)]
pub struct Client {
    pub v5: bool,
    home: Option<ShardId>,
    held: Vec<Held>,
    rx: Vec<u8>,
    pub packets: Vec<Packet>,
    /// The broker closed it.
    pub closed: bool,
    gone: bool,
    /// QoS 1 and 2 publishes sent, by packet id: their payloads.
    pub sent: BTreeMap<u16, Vec<u8>>,
}

pub struct Sim {
    shards: Vec<Engine>,
    pub now: Now,
    wires: BTreeMap<(ShardId, ShardId), VecDeque<Carried>>,
    jobs: Vec<Job>,
    pub files: BTreeMap<(u32, u32), File>,
    pub meta: BTreeMap<String, SessionRecord>,
    pub clients: BTreeMap<ConnId, Client>,
    pub log: String,
    pub halted: Option<String>,
    /// The next operation of this kind fails.
    pub fail: Option<&'static str>,
    durability: Durability,
}

pub struct Setup {
    pub shards: u16,
    pub partitions: u32,
    pub durability: Durability,
    pub segment_bytes: u64,
    pub limits: Limits,
    pub raw: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            shards: 1,
            partitions: 1,
            durability: Durability::Fdatasync,
            segment_bytes: 1 << 20,
            limits: Limits::default(),
            raw: false,
        }
    }
}

impl Sim {
    pub fn new(setup: Setup) -> Sim {
        Self::restart(setup, BTreeMap::new(), BTreeMap::new())
    }

    /// A node that finds files and sessions of an earlier one.
    pub fn restart(setup: Setup, files: BTreeMap<(u32, u32), File>, meta: BTreeMap<String, SessionRecord>) -> Sim {
        let mut recovered: BTreeMap<u32, PartitionState> = BTreeMap::new();
        for ((partition, segment), file) in &files {
            let next_seq = scan(&file.bytes)
                .map(|s| match s {
                    Scanned::Whole { record, .. } => record.sequence + 1,
                    Scanned::TornTail { why, .. } => panic!("{why}"),
                })
                .max();
            let before = recovered.get(partition).map_or(0, |r| r.next_seq);
            let state = PartitionState {
                partition: *partition,
                segment: *segment,
                next_at: file.bytes.len() as u64,
                next_seq: next_seq.unwrap_or(before),
            };
            recovered.insert(*partition, state);
        }
        let Setup { shards, partitions, durability, segment_bytes, limits, raw } = setup;
        let engine = |shard| {
            let settings =
                Settings { threads: shards.into(), partitions, durability, segment_bytes, ..Settings::default() };
            let config = BrokerConfig { limits: limits.clone(), ..BrokerConfig::new(shard, &settings) };
            let mine = recovered.values().copied().filter(|p| p.partition % u32::from(shards) == u32::from(shard));
            if raw {
                Engine::Raw(Box::new(Broker::new(config, mine.collect())))
            } else {
                Engine::Gated(Box::new(Shard::new(config, mine.collect())))
            }
        };
        Sim {
            shards: (0..shards).map(engine).collect(),
            now: Now { mono_ns: 1_000_000_000, unix_s: 1_700_000_000 },
            wires: BTreeMap::new(),
            jobs: Vec::new(),
            files,
            meta,
            clients: BTreeMap::new(),
            log: String::new(),
            halted: None,
            fail: None,
            durability,
        }
    }

    pub fn accept(&mut self, conn: u64, v5: bool, at: ShardId) {
        let conn = ConnId(conn);
        self.clients.insert(conn, Client { v5, home: Some(at), ..Client::default() });
        self.handle(at, Input::Accepted { conn });
    }

    /// Accepts and sends CONNECT in one go.
    pub fn connect(&mut self, conn: u64, v5: bool, packet: &[u8]) {
        self.accept(conn, v5, (conn % self.shards.len() as u64) as ShardId);
        self.send(conn, packet);
    }

    pub fn send(&mut self, conn: u64, bytes: &[u8]) {
        let id = ConnId(conn);
        let client = self.clients.get_mut(&id).unwrap();
        if client.gone {
            return;
        }
        match client.home {
            Some(home) => self.handle(home, Input::Received { conn: id, bytes }),
            None => client.held.push(Held::Bytes(bytes.to_vec())),
        }
    }

    /// Publishes, and remembers what is in which packet.
    pub fn publish(&mut self, conn: u64, p: &packets::Pub<'_>) {
        let client = self.clients.get_mut(&ConnId(conn)).unwrap();
        client.sent.insert(p.id, p.payload.to_vec());
        let v5 = client.v5;
        self.send(conn, &p.bytes(v5));
    }

    /// The client's side of the connection ends.
    pub fn hang_up(&mut self, conn: u64) {
        let id = ConnId(conn);
        let client = self.clients.get_mut(&id).unwrap();
        if std::mem::replace(&mut client.gone, true) {
            return;
        }
        match client.home {
            Some(home) => self.handle(home, Input::Closed { conn: id }),
            None => client.held.push(Held::Closed),
        }
    }

    pub fn pass(&mut self, ns: u64) {
        self.now.mono_ns += ns;
        self.now.unix_s += ns / 1_000_000_000;
        for shard in 0..self.shards.len() {
            self.handle(shard as ShardId, Input::Tick);
        }
    }

    /// Steps that could be next.
    pub fn choices(&self) -> usize {
        self.jobs.len() + self.wires.values().filter(|w| !w.is_empty()).count()
    }

    /// Completes a job or carries a message.
    pub fn step(&mut self, choice: usize) {
        if choice < self.jobs.len() {
            let job = self.jobs.remove(choice);
            return self.complete(job);
        }
        let wire = self.wires.iter().filter(|(_, w)| !w.is_empty()).nth(choice - self.jobs.len());
        let (&(from, to), _) = wire.unwrap();
        match self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front).unwrap() {
            Carried::Peer(msg) => self.handle(to, Input::Peer { from, msg }),
            Carried::Adopt(conn, handover) => {
                self.clients.get_mut(&conn).unwrap().home = Some(to);
                self.handle(to, Input::Adopt { conn, handover });
                for held in std::mem::take(&mut self.clients.get_mut(&conn).unwrap().held) {
                    match held {
                        Held::Bytes(bytes) => self.handle(to, Input::Received { conn, bytes: &bytes }),
                        Held::Closed => self.handle(to, Input::Closed { conn }),
                    }
                }
            }
        }
    }

    /// Lets everything happen that is under way, oldest first.
    pub fn settle(&mut self) {
        while self.choices() > 0 {
            self.step(0);
        }
    }

    pub fn line(&mut self, text: &str) {
        writeln!(self.log, "{text}").unwrap();
    }

    /// Payloads of the records of all partitions.
    pub fn payloads(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for file in self.files.values() {
            for s in scan(&file.bytes) {
                match s {
                    Scanned::Whole { record, .. } => all.push(record.payload.to_vec()),
                    Scanned::TornTail { why, .. } => panic!("{why}"),
                }
            }
        }
        all
    }

    /// Whether a payload stands where an acknowledgement may rely on it.
    fn is_durable(&self, payload: &[u8]) -> bool {
        self.files.values().any(|file| {
            let upto = if self.durability == Durability::Fdatasync { file.synced } else { file.bytes.len() };
            scan(&file.bytes[..upto]).any(|s| matches!(s, Scanned::Whole { record, .. } if record.payload == payload))
        })
    }

    fn handle(&mut self, shard: ShardId, input: Input<'_>) {
        if self.halted.is_some() {
            return;
        }
        let mut out = Vec::new();
        self.shards[usize::from(shard)].handle(input, self.now, &mut out);
        for effect in out {
            self.perform(shard, effect);
        }
    }

    fn perform(&mut self, shard: ShardId, effect: Effect) {
        let line = self.describe(&effect);
        self.line(&format!("  {line}"));
        match effect {
            Effect::Reply { conn, bytes, after } => {
                assert!(
                    after.is_none() || matches!(self.shards[0], Engine::Raw(_)),
                    "the gate let a waiting reply pass"
                );
                self.reach_client(conn, &bytes);
            }
            Effect::Push { conn, bytes } => self.reach_client(conn, &bytes),
            Effect::Close { conn } => {
                let client = self.clients.get_mut(&conn).unwrap();
                assert!(!std::mem::replace(&mut client.closed, true), "closed twice");
                self.hang_up(conn.0);
            }
            Effect::Append { op, partition, segment, at, bytes } => {
                let place = (partition, segment);
                assert!(self.files.contains_key(&place), "append before roll");
                assert!(!self.jobs.iter().any(|j| j.place.0 == partition && matches!(j.work, Work::Append { .. })));
                assert_eq!(self.files[&place].bytes.len() as u64, at, "an append does not continue its file");
                self.jobs.push(Job { shard, op, place, work: Work::Append { at, bytes } });
            }
            Effect::Sync { op, partition, segment, after } => {
                let place = (partition, segment);
                assert!(!self.jobs.iter().any(|j| j.place.0 == partition && matches!(j.work, Work::Sync { .. })));
                // Raw: a linked submission; the sync sees what its append wrote.
                let linked = self.jobs.iter().find_map(|j| match &j.work {
                    Work::Append { bytes, .. } if Some(j.op) == after => Some(bytes.len()),
                    _ => None,
                });
                let upto = self.files[&place].bytes.len() + linked.unwrap_or(0);
                self.jobs.push(Job { shard, op, place, work: Work::Sync { upto } });
            }
            Effect::Roll { op, partition, segment, .. } => {
                self.jobs.push(Job { shard, op, place: (partition, segment), work: Work::Roll });
            }
            Effect::Read { op, partition, segment, at, len } => {
                self.jobs.push(Job { shard, op, place: (partition, segment), work: Work::Read { at, len } });
            }
            Effect::Meta { op, call, .. } => {
                let client = |c: &MetaCall| match c {
                    MetaCall::OpenSession { record, .. } | MetaCall::PutSession { record } => record.client.clone(),
                    MetaCall::DropSession { client } => client.clone(),
                };
                let busy = self.jobs.iter().any(|j| matches!(&j.work, Work::Meta(c) if client(c) == client(&call)));
                assert!(!busy, "two meta calls of one client at once");
                self.jobs.push(Job { shard, op, place: (u32::MAX, 0), work: Work::Meta(call) });
            }
            Effect::Send { to, msg } => self.wires.entry((shard, to)).or_default().push_back(Carried::Peer(msg)),
            Effect::Migrate { conn, to, handover } => {
                self.clients.get_mut(&conn).unwrap().home = None;
                self.wires.entry((shard, to)).or_default().push_back(Carried::Adopt(conn, handover));
            }
            Effect::Halt { reason } => self.halted = Some(reason),
        }
    }

    fn reach_client(&mut self, conn: ConnId, bytes: &[u8]) {
        let client = self.clients.get_mut(&conn).unwrap();
        assert!(!client.closed, "bytes after a close");
        client.rx.extend_from_slice(bytes);
        let new = packets::take(&mut client.rx, client.v5);
        assert!(client.rx.is_empty(), "an effect must carry whole packets");
        if matches!(self.shards[0], Engine::Gated(_)) {
            for p in &new {
                if let Packet::Ack { first: packets::PUBACK | packets::PUBREC, id, .. } = p
                    && let Some(payload) = self.clients[&conn].sent.get(id)
                {
                    assert!(self.is_durable(payload), "acknowledged before it was durable: {p}");
                }
            }
        }
        self.clients.get_mut(&conn).unwrap().packets.extend(new);
    }

    fn complete(&mut self, job: Job) {
        let Job { shard, op, place, work } = job;
        let what = match &work {
            Work::Append { .. } => "append",
            Work::Sync { .. } => "sync",
            Work::Roll => "roll",
            Work::Read { .. } => "read",
            Work::Meta(_) => "meta",
        };
        self.line(&format!("< {what} op={} done", op.0));
        if self.fail == Some(what) {
            let result = Err("No space left on device (os error 28)".to_owned());
            return self.handle(shard, Input::Done { op, result });
        }
        let outcome = match work {
            Work::Append { at, bytes } => {
                let file = self.files.get_mut(&place).unwrap();
                assert_eq!(file.bytes.len() as u64, at);
                file.bytes.extend_from_slice(&bytes);
                Outcome::Appended
            }
            Work::Sync { upto } => {
                let file = self.files.get_mut(&place).unwrap();
                file.synced = file.synced.max(upto.min(file.bytes.len()));
                Outcome::Synced
            }
            Work::Roll => {
                assert!(self.files.insert(place, File::default()).is_none(), "a segment was created twice");
                Outcome::Rolled
            }
            Work::Read { at, len } => {
                let from = at as usize;
                let bytes =
                    self.files[&place].bytes.get(from..from + len as usize).expect("a read of what is not there");
                Outcome::Read(Bytes::copy_from_slice(bytes))
            }
            Work::Meta(call) => Outcome::Meta(self.meta_call(call)),
        };
        self.handle(shard, Input::Done { op, result: Ok(outcome) });
    }

    /// As the real store does.
    fn meta_call(&mut self, call: MetaCall) -> MetaReply {
        match call {
            MetaCall::OpenSession { record, clean, unix_s } => {
                let kept = self.meta.get(&record.client).cloned().filter(|old| {
                    let over = old.left_unix_s.is_some_and(|left| left + u64::from(old.expiry_s) <= unix_s);
                    !clean && old.expiry_s > 0 && (old.expiry_s == u32::MAX || !over)
                });
                let subscriptions = kept.as_ref().map_or(record.subscriptions.clone(), |k| k.subscriptions.clone());
                let now = SessionRecord { subscriptions, ..record };
                self.meta.insert(now.client.clone(), now.clone());
                MetaReply::Opened(kept.map(|_| now))
            }
            MetaCall::PutSession { record } => {
                self.meta.insert(record.client.clone(), record);
                MetaReply::Stored
            }
            MetaCall::DropSession { client } => {
                self.meta.remove(&client);
                MetaReply::Stored
            }
        }
    }

    fn describe(&self, effect: &Effect) -> String {
        let packets = |conn: &ConnId, bytes: &Bytes| {
            let all = packets::take(&mut bytes.to_vec(), self.clients[conn].v5);
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        match effect {
            Effect::Reply { conn, bytes, after } => {
                let after = after.map_or(String::new(), |op| format!(" after op={}", op.0));
                format!("Reply c{}{after}: {}", conn.0, packets(conn, bytes))
            }
            Effect::Push { conn, bytes } => format!("Push c{}: {}", conn.0, packets(conn, bytes)),
            Effect::Close { conn } => format!("Close c{}", conn.0),
            Effect::Append { op, partition, segment, at, bytes } => {
                let records: Vec<String> = scan(bytes)
                    .map(|s| match s {
                        Scanned::Whole { record: r, .. } => {
                            let payload = String::from_utf8_lossy(r.payload);
                            format!("#{} {}/{} {} {payload:?}", r.sequence, r.publisher, r.publisher_sequence, r.topic)
                        }
                        Scanned::TornTail { why, .. } => panic!("{why}"),
                    })
                    .collect();
                format!("Append op={} p{partition}/{segment} at={at} [{}]", op.0, records.join(", "))
            }
            Effect::Sync { op, partition, segment, after } => {
                let after = after.map_or(String::new(), |op| format!(" after op={}", op.0));
                format!("Sync op={} p{partition}/{segment}{after}", op.0)
            }
            Effect::Roll { op, partition, segment, durable } => {
                format!("Roll op={} p{partition}/{segment}{}", op.0, if *durable { " durable" } else { "" })
            }
            Effect::Read { op, partition, segment, at, len } => {
                format!("Read op={} p{partition}/{segment} at={at} len={len}", op.0)
            }
            Effect::Meta { op, call, sync } => {
                let session = |r: &SessionRecord| {
                    let left = if r.left_unix_s.is_some() { " left" } else { "" };
                    format!("{} expiry={}s {:?}{left}", r.client, r.expiry_s, r.subscriptions)
                };
                let text = match call {
                    MetaCall::OpenSession { record, clean, .. } => {
                        format!("OpenSession {}{}", session(record), if *clean { " clean" } else { "" })
                    }
                    MetaCall::PutSession { record } => format!("PutSession {}", session(record)),
                    MetaCall::DropSession { client } => format!("DropSession {client}"),
                };
                format!("Meta op={} {text}{}", op.0, if *sync { " sync" } else { "" })
            }
            Effect::Send { to, msg } => format!("Send to shard {to}: {msg:?}"),
            Effect::Migrate { conn, to, handover } => {
                format!("Migrate c{} to shard {to} with {} bytes", conn.0, handover.bytes.len())
            }
            Effect::Halt { reason } => format!("Halt: {reason}"),
        }
    }
}
