//! What an arm sets: everything that must be equal, or differ on purpose, when stacks are compared.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A broker built on one runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stack {
    /// tokio's multi-thread runtime: work stealing, as most brokers deploy it.
    TokioShared,
    /// One current-thread tokio runtime per shard, each on its own pinned thread.
    TokioPinned,
    /// monoio on its io_uring driver (never the legacy one), one runtime per pinned shard.
    Monoio,
    /// compio on its io_uring driver, one runtime per pinned shard.
    Compio,
}

/// When an acknowledged write is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Written to the page cache (write(2) returned), never synced by the broker.
    None,
    /// fdatasync completed before the acknowledgement.
    Fdatasync,
    /// Every n-th append of a partition is synced before its acknowledgement; the others as `None`.
    Every(u32),
    /// A segment is synced when it is sealed; appends as `None`.
    OnSeal,
}

/// Where blocking work runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// On the thread that found it to do, blocking its event loop.
    Inline,
    /// On the runtime's own pool of blocking threads.
    Offload,
    /// On one thread that does nothing else, in the order of the calls.
    OwnThread,
}

/// Which runtimes the broker's roles run on. RobustMQ's roles: *broker* (connections and sessions), *server* (the gRPC
/// server), *meta* (openraft).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Roles {
    /// All on the connections' runtime; on a pinned stack server and meta on the runtime of shard 0.
    One,
    /// Server and meta on a runtime of their own.
    MetaApart,
    /// One runtime for each role, as RobustMQ deploys them.
    Three,
}

/// Which writes of the raft log are on the disk before they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RaftSync {
    /// None: they are in RocksDB's WAL and the page cache (RobustMQ until 2026-08).
    None,
    /// Log entries, vote and committed; what the state machine writes is not (RobustMQ since).
    Log,
    /// Also what the state machine writes.
    All,
}

/// How the id of the last applied log entry is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LastApplied {
    /// With a write of its own after each applied batch, through the same write queue and WAL as the log (RobustMQ).
    OwnWrite,
    /// In the same write batch as what the entries changed.
    Merged,
    /// With a write of its own that skips the WAL.
    NoWal,
    /// With a write of its own into a database of its own.
    OwnDb,
}

/// Where the meta-service's databases lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetaStore {
    /// In the data directory.
    Disk,
    /// In memory (tmpfs), to see what the disk costs. Nothing is durable.
    Memory,
}

/// How segment files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Files {
    /// As the runtime does file I/O: io_uring for monoio and compio, the blocking pool for tokio.
    Native,
    /// Plain pwrite(2)/fdatasync(2) on the shard's thread.
    Inline,
}

/// Settings of an arm, complete: after defaults and the CPU layout were applied nothing is implicit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Shards: worker threads of `tokio-shared`, pinned runtimes of the others.
    pub threads: usize,
    /// CPUs that the server's threads are bound to; one per shard for pinned stacks. Empty: not bound.
    pub cpus: Vec<usize>,
    /// When an acknowledged write is on the disk.
    pub durability: Durability,
    /// Where RocksDB calls run.
    pub placement: Placement,
    /// How segment files are written.
    pub files: Files,
    /// Threads of the blocking pools, all shards together (at least one each).
    pub blocking_threads: usize,
    /// Bounded io-wq workers per ring (IORING_REGISTER_IOWQ_MAX_WORKERS); stacks without a ring ignore it.
    pub iowq_bounded: u32,
    /// Submission queue entries per ring.
    pub ring_entries: u32,
    /// Partitions that topics are hashed onto.
    pub partitions: u32,
    /// A segment is sealed when it would grow beyond this, bytes.
    pub segment_bytes: u64,
    /// Which runtimes the roles run on.
    pub roles: Roles,
    /// Threads of each runtime besides the connections' (with `roles` other than `one`); pinned stacks have one.
    pub role_threads: usize,
    /// tokio-shared: hand epoll over before a long poll (`enable_eager_driver_handoff`, unstable in tokio).
    pub eager_handoff: bool,
    /// Threads that burn CPU beside the server's, on its CPUs, as RobustMQ's debug console did.
    pub neighbours: usize,
    /// Which writes of the raft log are on the disk before they count.
    pub raft_sync: RaftSync,
    /// How the last applied log id is written.
    pub last_applied: LastApplied,
    /// Whether sessions are written to RocksDB when applied; otherwise into memory alone, and read back from the raft
    /// log after a restart (RobustMQ's `durable_sessions_enable`).
    pub durable_sessions: bool,
    /// Where the meta-service's databases lie.
    pub meta_store: MetaStore,
    /// Most sessions that one proposal opens: what waits while a proposal is under way goes together into the next one.
    /// With 1 nothing is gathered, and every call is a proposal of its own.
    pub session_batch: u32,
    /// Nodes of the meta-service: 1, or 3 as processes of their own on loopback.
    pub nodes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            threads: 1,
            cpus: Vec::new(),
            durability: Durability::Fdatasync,
            placement: Placement::Offload,
            files: Files::Native,
            blocking_threads: 32,
            iowq_bounded: 32,
            ring_entries: 1024,
            partitions: 8,
            segment_bytes: 1 << 30,
            roles: Roles::One,
            role_threads: 1,
            eager_handoff: false,
            neighbours: 0,
            raft_sync: RaftSync::Log,
            last_applied: LastApplied::OwnWrite,
            durable_sessions: true,
            meta_store: MetaStore::Disk,
            session_batch: 100,
            nodes: 1,
        }
    }
}

impl Stack {
    /// All stacks, in the order of the factorial: scheduling first, then executor and I/O.
    pub const ALL: [Stack; 4] = [Stack::TokioShared, Stack::TokioPinned, Stack::Monoio, Stack::Compio];

    /// The name used on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Stack::TokioShared => "tokio-shared",
            Stack::TokioPinned => "tokio-pinned",
            Stack::Monoio => "monoio",
            Stack::Compio => "compio",
        }
    }

    /// Whether its shards are bound to one CPU each.
    pub fn is_pinned(self) -> bool {
        self != Stack::TokioShared
    }

    /// Whether it needs io_uring.
    pub fn needs_uring(self) -> bool {
        matches!(self, Stack::Monoio | Stack::Compio)
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Stack {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Stack::ALL.into_iter().find(|k| k.name() == s).ok_or_else(|| {
            format!("no stack is called `{s}`; choose one of {}", Stack::ALL.map(Stack::name).join(", "))
        })
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::None => f.write_str("none"),
            Durability::Fdatasync => f.write_str("fdatasync"),
            Durability::Every(n) => write!(f, "every={n}"),
            Durability::OnSeal => f.write_str("on-seal"),
        }
    }
}

impl FromStr for Durability {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "none" => return Ok(Durability::None),
            "fdatasync" => return Ok(Durability::Fdatasync),
            "on-seal" => return Ok(Durability::OnSeal),
            _ => {}
        }
        match s.strip_prefix("every=").map(str::parse::<u32>) {
            Some(Ok(n)) if n > 0 => Ok(Durability::Every(n)),
            _ => Err(format!("durability `{s}` is none of `none`, `fdatasync`, `every=N` (N ≥ 1), `on-seal`")),
        }
    }
}

impl Serialize for Durability {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Durability {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
