//! Stamps: what a stack noted about its own threads, tasks and calls during a run (`stamps.parquet`).
//!
//! The driver's samples say how long a request took; stamps say where. They are joined by the connection's port and byte
//! offsets: a request whose packet ends at byte `sent_offset` of its connection was read by the [`Event::Read`]
//! that holds this byte (`offset − count < sent_offset ≤ offset`), and answered by the [`Event::Reply`] that holds the byte
//! `reply_offset`. A raft proposal is joined by its id. All times are CLOCK_MONOTONIC, ns, as the driver's are.
//!
//! Sampling: polls, gaps and quick events are kept in one time slice of several, the same slices on all threads; slow
//! ones, and what happened beside them, are always kept, so that the tail is complete and the body cheap. [`StampsMeta`] says where the limits lay.
//! [`write_stamps`] and [`read_stamps`] are the file.

use serde::{Deserialize, Serialize};

mod file;

pub use file::{StampsError, read_stamps, write_stamps};

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Bytes were read from a connection. `shard`, `conn`, `port`, `offset` (all bytes read so far), `count` (of these, the
    /// bytes of this read); `woken_ns`: the reading task was woken; `started_ns`: it was polled; `resumed_ns`: the bytes went to the broker.
    Read,
    /// Bytes were written to a connection. `conn`, `port`, `offset` (all bytes written so far), `count` (of these, the
    /// bytes of this row); `op`: the operation whose
    /// completion released them, of `shard`, if they waited for any; `queued_ns`: put into the outbox; `finished_ns`: the kernel
    /// took them.
    Reply,
    /// An operation of the broker. `name` (meta, append, sync, roll, read, peer), `shard`, `op`; `after`: the operation
    /// of the same shard whose completion released it, if it waited for any (a sync for its append, an append for the
    /// one before it); `conn`, `offset`: the read that caused it, if it waited for none; `proposal` of a meta call;
    /// `queued_ns`: handed to the shell; `started_ns`, `finished_ns`: the blocking call, or null where a ring does it;
    /// `worker`: the thread that made that call; `cpu_ns`, `run_delay_ns`: what it used in it (null of some short calls);
    /// `woken_ns`: the waiting task was woken (or, had it not been polled yet, the call was finished; null for what was
    /// done inline); `resumed_ns`: its result went to the broker.
    Op,
    /// A task was polled. `name` (role), `woken_ns` (null when it was polled unasked), `started_ns`, `finished_ns`;
    /// `cpu_ns` and `run_delay_ns` of a long one (null of those below 0.5 ms, if the thread had another within 0.5 ms).
    Poll,
    /// A thread was between two polls (asleep, or in its runtime's own code). `started_ns`, `finished_ns`,
    /// `run_delay_ns`: how much of it the thread was ready to run but had no CPU. Kept only when that is long. Of a
    /// thread that makes blocking calls: the time that it was ready to make the next one.
    Gap,
    /// A RocksDB call of the meta-service. `name` (raft_append, committed, vote, route, membership, set_last_applied,
    /// other), `first`, `count`: log indexes; `queued_ns`, `started_ns`, `finished_ns`, `resumed_ns`; `woken_ns`: the waiting task was woken
    /// (null where it made the call itself); `cpu_ns` … `thread_wait_ns`.
    Call,
    /// A proposal. `proposal`, `first` (log index), and the moments `queued_ns` (its first call was queued),
    /// `sent_ns` … `returned_ns`. Of one that was sent more than once: the last time that it was received.
    Proposal,
}

/// One row of stamps.parquet. What an event does not have is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are explained at the events that have them.
pub struct Stamp {
    pub event: Event,
    pub name: &'static str,
    /// OS thread id.
    pub thread: u32,
    /// OS thread id.
    pub worker: Option<u32>,
    pub shard: Option<u32>,
    pub conn: Option<u64>,
    pub port: Option<u32>,
    pub offset: Option<u64>,
    pub op: Option<u64>,
    pub after: Option<u64>,
    pub proposal: Option<u64>,
    pub first: Option<u64>,
    pub count: Option<u32>,
    pub woken_ns: Option<u64>,
    pub queued_ns: Option<u64>,
    pub started_ns: Option<u64>,
    pub finished_ns: Option<u64>,
    pub resumed_ns: Option<u64>,
    /// The batcher sent it.
    pub sent_ns: Option<u64>,
    /// The gRPC handler began.
    pub received_ns: Option<u64>,
    /// Handed to openraft.
    pub proposed_ns: Option<u64>,
    /// openraft answered.
    pub committed_ns: Option<u64>,
    /// The gRPC handler ended.
    pub answered_ns: Option<u64>,
    /// The client has the answer.
    pub returned_ns: Option<u64>,
    /// CPU time of the thread (CLOCK_THREAD_CPUTIME_ID).
    pub cpu_ns: Option<u64>,
    /// Time that the thread was ready to run and had no CPU (schedstat).
    pub run_delay_ns: Option<u64>,
    /// Times that it gave its CPU up.
    pub voluntary: Option<u32>,
    /// Times that it was taken from its CPU.
    pub involuntary: Option<u32>,
    /// PerfContext: writing the WAL.
    pub wal_ns: Option<u64>,
    /// PerfContext: writing the memtable.
    pub memtable_ns: Option<u64>,
    /// PerfContext: delayed by RocksDB (write stall, memtable switch).
    pub delay_ns: Option<u64>,
    /// PerfContext: waiting for other writers of the same queue. Read of calls of at least 20 µs; null for shorter ones.
    pub thread_wait_ns: Option<u64>,
}

/// What the file's metadata says about how the stamps were taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StampsMeta {
    /// `tsc` or `clock_gettime`.
    pub clock: String,
    /// Largest error of the clock's conversion to CLOCK_MONOTONIC, ns.
    pub clock_error_ns: u64,
    /// Length of a time slice, ns.
    pub slice_ns: u64,
    /// One slice in so many is kept whole.
    pub slice_every: u32,
    /// A wait from wake to poll of at least this is always kept, ns.
    pub long_wait_ns: u64,
    /// A poll of at least this is always kept, ns.
    pub long_poll_ns: u64,
    /// A gap with at least this much run delay is kept, and no other, ns.
    #[serde(default)]
    pub long_gap_ns: u64,
    /// A read, reply, operation or call that took at least this long is kept however many there are, ns.
    #[serde(default)]
    pub slow_ns: u64,
    /// So many rows of each event but Gap are kept whole on a thread (of polls: the long ones). Later ones are kept if
    /// they are slow, beside something slow, or in a slice that is kept; of proposals one in `slice_every` (and four times as
    /// many rows are kept whole).
    #[serde(default)]
    pub complete_rows: u64,
    /// Rows that were left out for the sake of `complete_rows`. With 0 the rows are complete, but for short polls.
    #[serde(default)]
    pub thinned: u64,
    /// Of the rows that were left out or lost, those of calls: with 0 the calls are complete.
    #[serde(default)]
    pub calls_left_out: u64,
    /// Whether the kernel says how long threads waited for a CPU; otherwise `run_delay_ns` is null everywhere.
    #[serde(default)]
    pub run_delay: bool,
    /// Stamps lost because a thread's buffer was full: the newest.
    pub dropped: u64,
    /// Threads: OS id, name, and the runtime's role (`broker`, `server`, `meta`, `all`, `blocking`, `own-thread`).
    pub threads: Vec<(u32, String, String)>,
}

/// The names that a row can have: those of roles, operations and steps, and none.
pub const NAMES: [&str; 24] = [
    "",
    "accept",
    "connection",
    "write",
    "effect",
    "peer",
    "tick",
    "batcher",
    "rpc_client",
    "rpc_server",
    "raft",
    "main",
    "meta",
    "append",
    "sync",
    "roll",
    "read",
    "raft_append",
    "committed",
    "vote",
    "route",
    "membership",
    "set_last_applied",
    "other",
];

impl Event {
    /// All, in the order of their declaration.
    pub const ALL: [Event; 7] =
        [Event::Read, Event::Reply, Event::Op, Event::Poll, Event::Gap, Event::Call, Event::Proposal];

    /// As it stands in the file.
    pub fn name(self) -> &'static str {
        match self {
            Event::Read => "read",
            Event::Reply => "reply",
            Event::Op => "op",
            Event::Poll => "poll",
            Event::Gap => "gap",
            Event::Call => "call",
            Event::Proposal => "proposal",
        }
    }
}

impl Stamp {
    /// A row without anything but this.
    pub fn new(event: Event, name: &'static str, thread: u32) -> Stamp {
        Stamp {
            event,
            name,
            thread,
            worker: None,
            shard: None,
            conn: None,
            port: None,
            offset: None,
            op: None,
            after: None,
            proposal: None,
            first: None,
            count: None,
            woken_ns: None,
            queued_ns: None,
            started_ns: None,
            finished_ns: None,
            resumed_ns: None,
            sent_ns: None,
            received_ns: None,
            proposed_ns: None,
            committed_ns: None,
            answered_ns: None,
            returned_ns: None,
            cpu_ns: None,
            run_delay_ns: None,
            voluntary: None,
            involuntary: None,
            wal_ns: None,
            memtable_ns: None,
            delay_ns: None,
            thread_wait_ns: None,
        }
    }
}
