//! The same stamps in every shell: when a task was woken and polled, and what each effect waited for.

use std::future::Future;

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

/// Wraps a task: every task of every stack is spawned through this.
pub fn timed<F: Future>(_role: Role, task: F) -> F {
    task
}

/// A proposal reached `mark`.
pub fn mark(_proposal: u64, _mark: Mark) {}

/// The log index that a proposal got, known when it is applied.
pub fn indexed(_proposal: u64, _index: u64) {}

/// A RocksDB call that is on its way to the thread that makes it.
#[derive(Debug)]
#[must_use]
pub struct Call {}

/// A RocksDB call that was made.
#[derive(Debug)]
#[must_use]
pub struct Ran {}

impl Call {
    /// `step` for the log entries `first..first + count`.
    pub fn queued(_step: Step, _first: u64, _count: u32) -> Call {
        Call {}
    }

    /// Makes the call, on the thread where it runs.
    pub fn run<T>(self, call: impl FnOnce() -> T) -> (T, Ran) {
        (call(), Ran {})
    }
}

impl Ran {
    /// The task that waited for the call goes on.
    pub fn resumed(self) {}
}
