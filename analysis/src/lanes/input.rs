//! What lanes are computed from: one run's requests, connections and stamps.

use regauge_traces::stamps::{Stamp, StampsMeta};

/// A request of requests.parquet, with what joins it to stamps. Times are ns since the run's t0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Id of the root span.
    pub op_id: u64,
    /// Kind of the root.
    pub step: String,
    /// [`regauge_traces::study::sample_flags`].
    pub flags: u32,
    /// When it was due.
    pub planned_ns: u64,
    /// When its last byte was handed to the kernel.
    pub sent_ns: Option<u64>,
    /// Reply − planned.
    pub latency_ns: Option<u64>,
    /// Ordinal of its connection in the plan.
    pub connection: Option<u32>,
    /// Bytes sent on the connection up to and including it.
    pub sent_offset: Option<u64>,
    /// Bytes received on the connection up to and including its reply.
    pub reply_offset: Option<u64>,
}

/// A connection of connections.parquet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Ordinal in the plan.
    pub connection: u32,
    /// The driver's port.
    pub port: u32,
    /// When it was opened, ns since t0.
    pub opened_ns: u64,
}

/// How complete a run's stamps are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// The kernel said how long threads waited for a CPU.
    pub run_delay: bool,
    /// Rows that were left out because there were too many.
    pub left_out: u64,
    /// Of these, storage calls of the meta-service.
    pub calls_left_out: u64,
}

impl Taken {
    /// As the file's metadata says.
    pub fn of(meta: &StampsMeta) -> Self {
        let left_out = meta.thinned.saturating_add(meta.dropped);
        Taken { run_delay: meta.run_delay, left_out, calls_left_out: meta.calls_left_out }
    }

    /// Nothing was left out but short polls.
    pub fn is_whole(&self) -> bool {
        self.left_out == 0
    }
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct RunInput<'a> {
    /// Name of the stack.
    pub stack: &'a str,
    /// CLOCK_MONOTONIC of the run's t0, ns.
    pub t0_ns: u64,
    /// Its requests.
    pub requests: &'a [Request],
    /// Its connections.
    pub connections: &'a [Connection],
    /// Its stamps.
    pub stamps: &'a [Stamp],
    /// How they were taken.
    pub meta: &'a StampsMeta,
}
