//! From a trace to a plan: what to send, on which connection, and exactly when.
//!
//! A plan is made before the run and never changed by it. It holds, in the order of their planned times, the requests
//! of a trace as ready-made packets ([`crate::packet`]); per connection the order in which they go out; and one hash
//! over all of that. The same trace at the same speed gives the same plan on every machine, and so the same bytes on
//! the wire: packet ids are dealt out here, not while sending.
//!
//! Three rules tie requests to each other; everything else is open loop:
//! * within a connection packets go out in the recorded order;
//! * a DISCONNECT or close waits for the replies that the recorded client had by then, as that client did;
//! * a session's next connection waits for the end of its previous one where the trace shows them one after the other
//!   ([`Connection::after`]). Where they overlapped (a session takeover) it does not.
//!
//! Requests that were in flight when the recording ended, or when their connection did, are sent, but their replies
//! are not demanded ([`Op::optional`]). A connection whose CONNECT is not in the trace (a slice, a layer's recording)
//! gets one at the moment of its first request; it is marked [`Op::setup`] and is no request of the workload.
//!
//! Raft proposals that no CONNECT caused go to the meta-service instead, by gRPC: each is a request of its own, in turn
//! on one of [`PROPOSAL_CHANNELS`] connections, sent at its time whatever happened to the ones before. Steps (spans with
//! a parent) are never replayed: they are what the broker does because of a root, and it will do so again.
//!
//! Left out: segment reads as roots, which no wire of ours carries yet, and retransmissions as such
//! (a recorded DUP is sent as a packet of its own, with its own id).

pub mod names;

mod build;
mod proposal;

pub(crate) use build::is_refusal;

use bytes::Bytes;
use regauge_traces::Kind;
use regauge_traces::Span;
use std::path::Path;

use crate::packet;

/// gRPC connections that proposals take in turn, as RobustMQ's brokers do.
pub const PROPOSAL_CHANNELS: u32 = 4;

/// How a trace becomes a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlanOptions {
    /// Planned time = recorded time / speed.
    pub speed: f64,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions { speed: 1.0 }
    }
}

/// Why no plan could be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] regauge_traces::TraceError),
    /// Nothing to replay.
    #[error(
        "the trace has no request that came from outside, so there is nothing to replay; record one with `regauge record tap`"
    )]
    Empty,
    /// Speed is not a positive number.
    #[error("speed {0} is not a positive number; 1 replays as recorded, 2 twice as fast")]
    Speed(f64),
    /// Roots that have no way onto the wire.
    #[error(
        "the trace has requests that cannot be replayed yet ({0}); cut them out or record at the broker's MQTT port"
    )]
    NotYet(String),
    /// Longer than MQTT allows.
    #[error("span {id} is a packet of {bytes} bytes, more than MQTT can carry ({max}); the trace is damaged", max = packet::PACKET_BYTES_MAX)]
    TooLong {
        /// The span.
        id: u64,
        /// Its size.
        bytes: u64,
    },
    /// A SUBSCRIBE whose options are not a byte.
    #[error(
        "span {id} subscribes with the options `{options}`, which are not a number below 256; the trace is damaged"
    )]
    Options {
        /// The span.
        id: u64,
        /// What stands behind the `@`.
        options: String,
    },
    /// A proposal that the meta-service would not take.
    #[error("span {id} is a raft proposal that cannot be replayed: {why}; the trace is damaged or of another system")]
    Proposal {
        /// The span.
        id: u64,
        /// What is wrong.
        why: String,
    },
    /// More requests than a plan counts.
    #[error("the trace has {0} requests, and a plan holds at most 2^31; replay a slice of it")]
    TooMany(usize),
}

/// The reply that ends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The protocol has none.
    None,
    /// To CONNECT.
    Connack,
    /// To PUBLISH at QoS 1.
    Puback,
    /// To PUBLISH at QoS 2, after PUBREC and PUBREL.
    Pubcomp,
    /// To SUBSCRIBE.
    Suback,
    /// To UNSUBSCRIBE.
    Unsuback,
    /// To PINGREQ.
    Pingresp,
    /// To a proposal: the gRPC status.
    Status,
}

/// One planned request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// Id of the root span in the trace; 0 for a set-up CONNECT.
    pub id: u64,
    /// When to send it, ns after the run's t0.
    pub planned_ns: u64,
    /// Index into [`Plan::connections`]; of a proposal their number and the ordinal of its channel.
    pub connection: u32,
    /// Ordinal of the session, from 0 in the order of first appearance.
    pub session: u32,
    /// Kind of the root.
    pub kind: Kind,
    /// The reply that ends it.
    pub reply: Reply,
    /// Packet identifier; 0 where there is none.
    pub packet_id: u16,
    /// The recorded broker refused it; a refusal is then a right reply too.
    pub refused: bool,
    /// No end was recorded: a missing reply is no error.
    pub optional: bool,
    /// A CONNECT that the trace does not have; no request of the workload.
    pub setup: bool,
    /// Calls of a proposal; 0 of everything else.
    pub calls: u32,
    head_at: usize,
    head_bytes: u32,
    fill_bytes: u32,
}

impl Op {
    /// Length on the wire, bytes; 0 for a close.
    pub fn bytes(&self) -> u64 {
        u64::from(self.head_bytes) + u64::from(self.fill_bytes)
    }

    /// Bytes of [`packet::filler`] after the head.
    pub fn fill_bytes(&self) -> usize {
        self.fill_bytes as usize
    }
}

/// One network connection of the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// Ordinal of its session.
    pub session: u32,
    /// MQTT 5.
    pub v5: bool,
    /// Its requests in order, as indices into [`Plan::ops`]; the first is its CONNECT.
    pub ops: Vec<u32>,
    /// Those of them that carry a packet id; the ids run on from `first_packet_id` and wrap from 65535 to 1.
    pub id_ops: Vec<u32>,
    /// Those of them that are PINGREQs.
    pub pings: Vec<u32>,
    /// Packet id of the first of `id_ops`.
    pub first_packet_id: u16,
    /// The connection of the same session that has to end before this one opens.
    pub after: Option<u32>,
}

/// What to send and when; see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// All requests in the order of their planned times.
    pub ops: Vec<Op>,
    /// All connections, in the order of their first requests.
    pub connections: Vec<Connection>,
    /// Number of sessions.
    pub sessions: u32,
    /// Packets whose recorded length could not be met.
    pub resized: u64,
    /// Set-up CONNECTs, which are in `ops` but are not requests.
    pub setup: u64,
    /// gRPC connections for proposals; 0 without any.
    pub channels: u32,
    /// Roots that were left out because their connection had already ended.
    pub skipped: u64,
    heads: Vec<u8>,
    /// gRPC messages of proposals, one behind the other.
    proposals: Bytes,
    hash: [u8; 32],
}

impl Plan {
    /// The plan of the trace in a file.
    ///
    /// # Errors
    /// If the trace cannot be read, is empty, or holds requests that cannot be replayed.
    pub fn open(trace: &Path, options: &PlanOptions) -> Result<Plan, PlanError> {
        Plan::build(&regauge_traces::open(trace)?.spans, options)
    }

    /// The plan of these spans, which may stand in any order.
    ///
    /// # Errors
    /// If there is nothing to replay or something that cannot be.
    pub fn build(spans: &[Span], options: &PlanOptions) -> Result<Plan, PlanError> {
        build::build(spans, options)
    }

    /// SHA-256 over planned times and packet bytes, hex.
    pub fn hash(&self) -> String {
        self.hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Requests of the workload.
    pub fn requests(&self) -> u64 {
        self.ops.len() as u64 - self.setup
    }

    /// Planned time of the last request, ns; the first is at 0.
    pub fn duration_ns(&self) -> u64 {
        self.ops.last().map_or(0, |op| op.planned_ns)
    }

    /// The most connections that are open at once if every end comes on time.
    pub fn connections_at_once(&self) -> usize {
        let mut open = vec![false; self.connections.len()];
        let (mut now, mut most) = (0_usize, 0);
        for op in self.ops.iter().filter(|op| op.kind != Kind::RaftProposal) {
            let is_open = &mut open[op.connection as usize];
            let opens = !*is_open;
            *is_open = !matches!(op.kind, Kind::Disconnect | Kind::Close);
            now = if opens { now + 1 } else { now };
            most = most.max(now);
            now -= usize::from(!*is_open);
        }
        most + self.channels as usize
    }

    /// The packet of `op` up to its filler.
    pub fn head(&self, op: &Op) -> &[u8] {
        let range = op.head_at..op.head_at + op.head_bytes as usize;
        if op.kind == Kind::RaftProposal { &self.proposals[range] } else { &self.heads[range] }
    }

    /// The gRPC message of a proposal as this caller sends it, prefix included. Callers are told apart by their numbers:
    /// each run of the driver is one.
    pub fn message(&self, op: &Op, caller: u64) -> Bytes {
        proposal::for_caller(self.head(op), caller)
    }

    /// The whole packet of `op` (for tests; the driver sends head and filler from where they lie).
    pub fn packet(&self, op: &Op) -> Vec<u8> {
        let mut bytes = self.head(op).to_vec();
        bytes.extend(packet::filler().iter().cycle().take(op.fill_bytes()));
        bytes
    }
}
