//! The same stamps in every shell: when a task was woken and polled, and what each effect waited for.
//!
//! [`timed`] wraps every task of every stack, [`Operation`] follows an effect from the shell to the thread that does it
//! and back, [`wire`] counts a connection's bytes, [`Call`] and [`Ran`] stand around a RocksDB call, and [`mark`] notes
//! the moments of a proposal. What they note becomes the rows of [`regauge_traces::stamps`], whose events say which
//! moments these are; there a request is put together again from what the driver saw and these rows.
//!
//! [`start`] switches them on for the process, before any runtime starts; until then each costs a branch. While they are
//! on, each thread writes to a buffer of its own, nothing runs in the background, and [`write`] collects at the end.
//! What may be left out, and why, stands in [`limits`]; what a thread's CPU time and run delay are worth, in [`usage`].
//!
//! What this leaves out: the time between an event of the kernel (a completion posted, a socket readable) and the wake
//! of the task that waits for it. It is seen from outside, as part of the wait before a read.

pub mod limits;
pub mod usage;

mod blocking;
mod call;
mod collect;
mod operation;
mod proposal;
mod slow;
mod thread;
mod timed;
mod wire;

pub use call::{Call, Ran};
pub use collect::write;
pub use operation::{Operation, RemoteAppends};
pub use proposal::{indexed, mark, mark_after};
pub use thread::this_thread;
pub use timed::{Timed, timed};
pub use wire::{Cause, Reads, Replies, wire};

use limits::Limits;
use std::sync::atomic::{AtomicBool, Ordering};

static ON: AtomicBool = AtomicBool::new(false);

/// Whether stamps are taken.
#[inline]
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Switches the stamps on. Tasks that were spawned before stay without. Takes two milliseconds for the clock's rate.
pub fn start() {
    if !is_on() {
        collect::begin(Limits::now());
        ON.store(true, Ordering::Release);
    }
}

/// Switches the stamps off; what was noted stays until [`write`].
pub fn stop() {
    ON.store(false, Ordering::Release);
}

/// What a task is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Role {
    /// Takes connections in.
    Accept,
    /// Reads one connection.
    Connection,
    /// Writes one connection's outbox.
    Write,
    /// Waits for one operation of the broker.
    Effect,
    /// Takes in what other shards say.
    Peer,
    /// Lets time pass.
    Tick,
    /// Gathers calls to the meta-service.
    Batcher,
    /// A connection or a call of the gRPC client.
    RpcClient,
    /// A connection or a call of the gRPC server.
    RpcServer,
    /// A task of openraft.
    Raft,
    /// A runtime's first task.
    Main,
}

/// A step of the meta-service that calls RocksDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Step {
    /// Appending entries to the raft log.
    RaftAppend,
    /// Writing the committed log id.
    Committed,
    /// Writing the vote.
    Vote,
    /// Applying entries: the sessions.
    Route,
    /// Applying entries: the membership.
    Membership,
    /// Writing the last applied log id.
    SetLastApplied,
    /// Anything else: truncate, purge, snapshot.
    Other,
}

/// A moment in the life of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mark {
    /// The batcher has taken its first call out of the queue and sends it.
    Sent,
    /// The gRPC handler began.
    Received,
    /// Handed to openraft.
    Proposed,
    /// openraft answered.
    Committed,
    /// The gRPC handler ended.
    Answered,
    /// The client has the answer.
    Returned,
}

impl Role {
    /// As it stands in the rows.
    pub fn name(self) -> &'static str {
        match self {
            Role::Accept => "accept",
            Role::Connection => "connection",
            Role::Write => "write",
            Role::Effect => "effect",
            Role::Peer => "peer",
            Role::Tick => "tick",
            Role::Batcher => "batcher",
            Role::RpcClient => "rpc_client",
            Role::RpcServer => "rpc_server",
            Role::Raft => "raft",
            Role::Main => "main",
        }
    }
}

impl Step {
    /// As it stands in the rows.
    pub fn name(self) -> &'static str {
        match self {
            Step::RaftAppend => "raft_append",
            Step::Committed => "committed",
            Step::Vote => "vote",
            Step::Route => "route",
            Step::Membership => "membership",
            Step::SetLastApplied => "set_last_applied",
            Step::Other => "other",
        }
    }
}
