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
