//! What a server is asked for, what ends it, and what it reports.
//!
//! The types of [`crate::serve`] and of the protocol between `regauge serve` and the replayer.

use crate::affinity::AffinityError;
use crate::attest::Attestation;
use crate::broker;
use crate::digest::{Digest, DigestError};
use crate::meta::StoreError;
use crate::segment::SegmentError;
use crate::settings::{Settings, Stack};
use regauge_traces::stamps::StampsError;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What to serve, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServeConfig {
    /// Which stack.
    pub stack: Stack,
    /// The arm's settings, complete.
    pub settings: Settings,
    /// Where to listen; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Where the meta-service's gRPC listens; port 0 lets the kernel choose.
    #[serde(default = "any_port")]
    pub meta_listen: SocketAddr,
    /// The data directory; created when it is missing, recovered when it is not.
    pub data: PathBuf,
    /// Where the stamps go, if they are wanted.
    #[serde(default)]
    pub stamps: Option<PathBuf>,
    /// The program whose verb `meta` runs one node of the meta-service: `regauge`. Only [`Settings::nodes`] beyond one
    /// needs it.
    #[serde(default)]
    pub program: Option<PathBuf>,
}

impl ServeConfig {
    /// On free ports of the loopback interface, without stamps.
    pub fn local(stack: Stack, settings: Settings, data: PathBuf) -> ServeConfig {
        let listen = any_port();
        ServeConfig { stack, settings, listen, meta_listen: listen, data, stamps: None, program: None }
    }
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Where a running server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// For MQTT.
    pub mqtt: SocketAddr,
    /// For the meta-service's gRPC.
    pub meta: SocketAddr,
}

/// Asks a running server to end. Clones share one flag.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Not stopped.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Asks; safe to call from a signal handler, and more than once.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was asked.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What a shell counted at its sockets. Only sums, so that shards can be added up; batching makes them differ between
/// stacks that did the same work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SocketCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Accepts that failed.
    pub accept_errors: u64,
    /// Connections closed because their client did not read.
    pub slow_consumers: u64,
    /// Reads that brought bytes.
    pub socket_reads: u64,
    /// Bytes read.
    pub socket_read_bytes: u64,
    /// Writes that took bytes.
    pub socket_writes: u64,
    /// Bytes written.
    pub socket_write_bytes: u64,
}

impl SocketCounters {
    /// Counts a read that brought `bytes`.
    pub fn count_read(&mut self, bytes: usize) {
        self.socket_reads += 1;
        self.socket_read_bytes += bytes as u64;
    }

    /// Counts a write that took `bytes`.
    pub fn count_write(&mut self, bytes: usize) {
        self.socket_writes += 1;
        self.socket_write_bytes += bytes as u64;
    }
}

impl std::ops::AddAssign for SocketCounters {
    fn add_assign(&mut self, o: Self) {
        self.accepted += o.accepted;
        self.accept_errors += o.accept_errors;
        self.slow_consumers += o.slow_consumers;
        self.socket_reads += o.socket_reads;
        self.socket_read_bytes += o.socket_read_bytes;
        self.socket_writes += o.socket_writes;
        self.socket_write_bytes += o.socket_write_bytes;
    }
}

/// What a run did, all shards together: flat in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Counted by the broker's state machine.
    #[serde(flatten)]
    pub broker: broker::Counters,
    /// Counted by the shell.
    #[serde(flatten)]
    pub sockets: SocketCounters,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, o: Self) {
        self.broker += o.broker;
        self.sockets += o.sockets;
    }
}

/// What a server reports when it has ended in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// What it really used.
    pub attestation: Attestation,
    /// The state it ended in.
    pub digest: Digest,
    /// What it did.
    pub counters: Counters,
    /// CPU time of the process in user mode, until the shards had ended, ns.
    pub cpu_user_ns: u64,
    /// CPU time of the process in the kernel, likewise, ns.
    pub cpu_system_ns: u64,
    /// Times that a thread gave its CPU up.
    pub voluntary_switches: u64,
    /// Times that a thread was taken from its CPU.
    pub involuntary_switches: u64,
    /// Largest resident set, bytes.
    pub max_rss_bytes: u64,
}

/// Why a server could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The settings contradict themselves.
    #[error("{0}")]
    Settings(String),
    /// A CPU is not to be had.
    #[error(transparent)]
    Affinity(#[from] AffinityError),
    /// A directory cannot be made or read.
    #[error("the data directory {} cannot be used: {source}; name one that this user may write", path.display())]
    Data {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Segment files cannot be recovered.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The meta store cannot be opened.
    #[error(transparent)]
    Meta(#[from] StoreError),
    /// The address is not to be had.
    #[error("cannot listen on {addr}: {source}; choose a free port, or 0 to let the kernel choose")]
    Listen {
        /// Which address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A runtime or its thread could not be started.
    #[error("stack {stack} cannot start: {reason}")]
    Runtime {
        /// Which stack.
        stack: Stack,
        /// One sentence.
        reason: String,
    },
    /// The stack did not run on what it is defined to run on.
    #[error("stack {stack} must run on {required}, but {found}; its figures would not be its own")]
    BackEnd {
        /// Which stack.
        stack: Stack,
        /// `epoll` or `io_uring`.
        required: &'static str,
        /// What was seen instead.
        found: String,
    },
    /// The broker ended the run, so that it does not acknowledge what it did not write.
    #[error("the broker halted: {0}")]
    Halted(String),
    /// The stamps could not be kept.
    #[error(transparent)]
    Stamps(#[from] StampsError),
    /// The state that it ended in cannot be read back.
    #[error(transparent)]
    Digest(#[from] DigestError),
}
