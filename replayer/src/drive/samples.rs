//! What became of every request of a plan.
//!
//! One slot per request, allocated and touched before the run, so that recording a time is a store and never a page
//! fault. After the run the slots are judged once ([`Samples::judge`]) and turned into rows, rates and a digest.

use super::link::Link;
use crate::plan::{Op, Plan, Reply};
use regauge_traces::study::sample_flags;
use sha2::{Digest, Sha256};

/// Not (yet) happened.
pub(super) const NEVER: u64 = u64::MAX;

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not wholly sent.
    Planned,
    /// Sent, reply due.
    InFlight,
    /// QoS 2: PUBREC came and PUBREL is on its way.
    Received,
    /// Its reply came and was right, or it is sent and has none.
    Right,
    /// A reply came that was not the one due.
    Wrong,
    /// Its connection ended first.
    Abandoned,
}

impl State {
    /// Nothing more can happen to it.
    pub(super) fn is_final(self) -> bool {
        matches!(self, State::Right | State::Wrong | State::Abandoned)
    }
}

/// The slots; all vectors are indexed as [`Plan::ops`].
#[derive(Debug)]
pub struct Samples {
    /// When the last byte was handed to the kernel, ns since t0.
    pub(super) sent_ns: Vec<u64>,
    /// When the reply was read, ns since t0.
    pub(super) replied_ns: Vec<u64>,
    /// How late the driver itself was: first attempt to write − the latest of planned time and the end of the last
    /// hindrance (see [`Link::unhindered_ns`]), ns.
    pub(super) driver_lag_ns: Vec<u64>,
    /// How long the reply may have waited in the socket before it was read, at most, ns.
    pub(super) read_lag_ns: Vec<u64>,
    /// Bytes sent on the connection up to and including the request.
    pub(super) sent_offset: Vec<u64>,
    /// Bytes received on it up to and including the reply.
    pub(super) reply_offset: Vec<u64>,
    pub(super) status: Vec<u8>,
    pub(super) state: Vec<State>,
}

/// A row of requests.parquet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Id of the root span.
    pub op_id: u64,
    /// Kind of the root.
    pub step: &'static str,
    /// Ordinal.
    pub session: u32,
    /// Ns since t0.
    pub planned_ns: u64,
    /// Ns since t0; `None` if never sent.
    pub sent_ns: Option<u64>,
    /// Right reply − planned, ns.
    pub latency_ns: Option<u64>,
    /// Right reply − sent, ns.
    pub service_ns: Option<u64>,
    /// Of the reply; 0 without one.
    pub status: u8,
    /// See [`sample_flags`].
    pub flags: u32,
    /// Ordinal in the plan.
    pub connection: u32,
    /// Bytes sent on the connection up to and including the request.
    pub sent_offset: Option<u64>,
    /// Bytes received on it up to and including the reply.
    pub reply_offset: Option<u64>,
    /// The driver's own lateness in sending, ns.
    pub driver_lag_ns: Option<u64>,
    /// Its lateness in reading the reply, at most, ns.
    pub read_lag_ns: Option<u64>,
}

impl Row {
    /// Whether it ended in an error.
    pub fn is_error(&self) -> bool {
        self.flags & (sample_flags::LOST | sample_flags::WRONG | sample_flags::UNSENT) != 0
    }

    /// Whether it counts: planned after the warm-up.
    pub fn is_measured(&self) -> bool {
        self.flags & sample_flags::WARMUP == 0
    }
}

impl Samples {
    pub(super) fn new(ops: usize) -> Samples {
        // NEVER is not zero, so these pages are written now, not lent lazily.
        Samples {
            sent_ns: vec![NEVER; ops],
            replied_ns: vec![NEVER; ops],
            driver_lag_ns: vec![NEVER; ops],
            read_lag_ns: vec![NEVER; ops],
            sent_offset: vec![NEVER; ops],
            reply_offset: vec![NEVER; ops],
            status: vec![u8::MAX; ops],
            state: vec![State::Planned; ops],
        }
    }

    /// The rows of the workload's requests in planned order (set-up CONNECTs have none).
    ///
    /// A connection that got replies to nothing has as many of its missing replies counted as wrong instead of lost:
    /// something was said, and it was not what was due.
    pub(super) fn judge(&self, plan: &Plan, links: &[Link], warmup_ns: u64) -> Vec<Row> {
        let mut strays: Vec<u64> = links.iter().map(|link| link.strays).collect();
        // Channels have none.
        strays.resize(strays.len() + plan.channels as usize, 0);
        let judged = plan.ops.iter().enumerate().filter(|(_, op)| !op.setup);
        judged.map(|(index, op)| self.row(index, op, warmup_ns, &mut strays[op.connection as usize])).collect()
    }

    fn row(&self, index: usize, op: &Op, warmup_ns: u64, strays: &mut u64) -> Row {
        let known = |values: &[u64]| Some(values[index]).filter(|value| *value != NEVER);
        let sent_ns = known(&self.sent_ns);
        let mut row = Row {
            op_id: op.id,
            step: op.kind.name(),
            session: op.session,
            planned_ns: op.planned_ns,
            sent_ns,
            latency_ns: None,
            service_ns: None,
            status: 0,
            flags: if op.planned_ns < warmup_ns { sample_flags::WARMUP } else { 0 },
            connection: op.connection,
            sent_offset: known(&self.sent_offset),
            reply_offset: known(&self.reply_offset),
            driver_lag_ns: known(&self.driver_lag_ns),
            read_lag_ns: known(&self.read_lag_ns),
        };
        let Some(sent_ns) = sent_ns else {
            row.flags |= sample_flags::UNSENT;
            return row;
        };
        let replied_ns = self.replied_ns[index];
        if op.reply == Reply::None {
            row.flags |= sample_flags::NO_REPLY;
        } else if replied_ns != NEVER {
            row.status = self.status[index];
            if self.state[index] == State::Right {
                row.latency_ns = Some(replied_ns.saturating_sub(op.planned_ns));
                row.service_ns = Some(replied_ns.saturating_sub(sent_ns));
            } else {
                row.flags |= sample_flags::WRONG;
            }
        } else if *strays > 0 {
            *strays -= 1;
            row.flags |= sample_flags::WRONG;
        } else if op.optional {
            row.flags |= sample_flags::NO_REPLY;
        } else {
            row.flags |= sample_flags::LOST;
        }
        row
    }

    /// SHA-256 over, per session in the order of ordinals, the sequence of (kind, status) of its requests as they were
    /// asked, hex. However the sessions' replies interleaved, the digest is the same. Requests whose replies are not
    /// demanded take no part: whether they come depends on who closes first.
    pub(super) fn replies_digest(&self, plan: &Plan) -> String {
        let mut sessions: Vec<Vec<u32>> = vec![Vec::new(); plan.sessions as usize];
        for (index, op) in plan.ops.iter().enumerate() {
            if !op.setup && !op.optional {
                sessions[op.session as usize].push(index as u32);
            }
        }
        let mut digest = Sha256::new();
        for (session, ops) in sessions.iter().enumerate() {
            digest.update((session as u64).to_le_bytes());
            digest.update((ops.len() as u64).to_le_bytes());
            for &index in ops {
                let index = index as usize;
                // What has no reply, or got none, is told apart from every status.
                let status = match self.replied_ns[index] {
                    NEVER => u16::MAX,
                    _ => u16::from(self.status[index]),
                };
                digest.update(plan.ops[index].kind.name());
                digest.update(status.to_le_bytes());
            }
        }
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
