//! One row of a trace: a span, its kind and its flags.
//!
//! A *root* is a request that came from outside (CONNECT, PUBLISH, a raft proposal, a segment append or read); its
//! children, found by `parent`, are the steps that the broker did because of it. The words here are the words of the
//! file: `SPEC.md` defines them for readers in other languages.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a span is. Roots come first, steps after.
///
/// The name in the file is the snake_case name that [`Kind::name`] gives. A name that is not here is an error to a
/// reader: a newer writer raises the schema version when it adds a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Kind {
    /// MQTT CONNECT, from its arrival to its CONNACK.
    Connect,
    /// MQTT PUBLISH from a client, to its PUBACK (QoS 1) or PUBCOMP (QoS 2); QoS 0 has no end.
    Publish,
    /// MQTT SUBSCRIBE to SUBACK.
    Subscribe,
    /// MQTT UNSUBSCRIBE to UNSUBACK.
    Unsubscribe,
    /// MQTT PINGREQ to PINGRESP.
    Ping,
    /// MQTT DISCONNECT from a client; has no reply.
    Disconnect,
    /// The connection ended without a DISCONNECT (either side closed the socket).
    Close,
    /// A proposal to the raft meta-service.
    RaftProposal,
    /// An append to a segment file.
    SegmentAppend,
    /// A read from a segment file.
    SegmentRead,
    /// A PUBLISH from the broker to a subscriber, to the client's PUBACK or PUBCOMP. Never replayed: it is a consequence.
    Deliver,
    /// Step: the session work of a CONNECT.
    SessionProcess,
    /// Step: a call to the meta-service.
    MetaCall,
    /// Step: raft log append.
    RaftAppend,
    /// Step: raft apply of a batch.
    Apply,
    /// Step of apply: the business logic.
    Route,
    /// Step of apply: a membership change.
    Membership,
    /// Step of apply: writing the last applied log id.
    SetLastApplied,
    /// Step: any other storage work.
    Storage,
    /// Step: anything else that a broker was seen to do; its name stands in `target`. Since version 2.
    Step,
}

impl Kind {
    /// All kinds, in the order of declaration.
    pub const ALL: [Kind; 20] = [
        Kind::Connect,
        Kind::Publish,
        Kind::Subscribe,
        Kind::Unsubscribe,
        Kind::Ping,
        Kind::Disconnect,
        Kind::Close,
        Kind::RaftProposal,
        Kind::SegmentAppend,
        Kind::SegmentRead,
        Kind::Deliver,
        Kind::SessionProcess,
        Kind::MetaCall,
        Kind::RaftAppend,
        Kind::Apply,
        Kind::Route,
        Kind::Membership,
        Kind::SetLastApplied,
        Kind::Storage,
        Kind::Step,
    ];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Connect => "connect",
            Kind::Publish => "publish",
            Kind::Subscribe => "subscribe",
            Kind::Unsubscribe => "unsubscribe",
            Kind::Ping => "ping",
            Kind::Disconnect => "disconnect",
            Kind::Close => "close",
            Kind::RaftProposal => "raft_proposal",
            Kind::SegmentAppend => "segment_append",
            Kind::SegmentRead => "segment_read",
            Kind::Deliver => "deliver",
            Kind::SessionProcess => "session_process",
            Kind::MetaCall => "meta_call",
            Kind::RaftAppend => "raft_append",
            Kind::Apply => "apply",
            Kind::Route => "route",
            Kind::Membership => "membership",
            Kind::SetLastApplied => "set_last_applied",
            Kind::Storage => "storage",
            Kind::Step => "step",
        }
    }

    /// Whether a span of this kind can come from outside. The raft and segment kinds can also be steps (with a parent).
    pub fn can_be_root(self) -> bool {
        match self {
            Kind::Connect
            | Kind::Publish
            | Kind::Subscribe
            | Kind::Unsubscribe
            | Kind::Ping
            | Kind::Disconnect
            | Kind::Close
            | Kind::RaftProposal
            | Kind::SegmentAppend
            | Kind::SegmentRead => true,
            Kind::Deliver
            | Kind::SessionProcess
            | Kind::MetaCall
            | Kind::RaftAppend
            | Kind::Apply
            | Kind::Route
            | Kind::Membership
            | Kind::SetLastApplied
            | Kind::Storage
            | Kind::Step => false,
        }
    }

    /// Whether it is seen on an MQTT connection, so that it carries a `connection`.
    pub fn is_on_wire(self) -> bool {
        matches!(
            self,
            Kind::Connect
                | Kind::Publish
                | Kind::Subscribe
                | Kind::Unsubscribe
                | Kind::Ping
                | Kind::Disconnect
                | Kind::Close
                | Kind::Deliver
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Kind::ALL.into_iter().find(|k| k.name() == s).ok_or_else(|| {
            format!("no kind of span is called `{s}`; choose one of {}", Kind::ALL.map(Kind::name).join(", "))
        })
    }
}

/// Bits of the `flags` column.
pub mod flags {
    /// MQTT 5 (otherwise 3.1.1). Set on every wire span of such a connection.
    pub const V5: u32 = 1 << 0;
    /// CONNECT: clean session (3.1.1) or clean start (5).
    pub const CLEAN_START: u32 = 1 << 1;
    /// CONNECT carried a user name (dropped before storing).
    pub const USERNAME: u32 = 1 << 2;
    /// CONNECT carried a password (dropped before storing).
    pub const PASSWORD: u32 = 1 << 3;
    /// CONNECT carried a will (its payload dropped; `target` is then the redacted will topic).
    pub const WILL: u32 = 1 << 4;
    /// PUBLISH with RETAIN.
    pub const RETAIN: u32 = 1 << 5;
    /// PUBLISH with DUP.
    pub const DUP: u32 = 1 << 6;
    /// No end was seen: the recording stopped, or the connection closed first.
    pub const UNFINISHED: u32 = 1 << 7;
    /// CONNACK with session present = 1.
    pub const SESSION_PRESENT: u32 = 1 << 8;

    /// The bits that say what was asked; the others say how it went. Only these enter the workload hash.
    pub const WORKLOAD: u32 = V5 | CLEAN_START | USERNAME | PASSWORD | WILL | RETAIN | DUP;
}

/// One span. Times are nanoseconds since the trace's origin (see `Meta` for the clock anchors).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Unique within the trace. Rows ascend by it, except where spans name parents that end after them: a layer numbers
    /// spans when they begin, and writes them when they end.
    pub id: u64,
    /// The span that caused this one; `None` for a root.
    pub parent: Option<u64>,
    /// What it is.
    pub kind: Kind,
    /// Arrival (first byte read), ns since origin, CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// From arrival to the reply's last byte handed to the kernel, ns; `None` when there is no end.
    pub duration_ns: Option<u64>,
    /// Time within polls (layer) or on CPU; `None` when the way of recording cannot see it (the tap cannot).
    pub busy_ns: Option<u64>,
    /// Keyed hash of the client id (equality preserved); `None` for spans without one.
    pub session: Option<u64>,
    /// Ordinal of the network connection within the trace, from 0; `None` off the wire.
    pub connection: Option<u32>,
    /// Redacted topic, filter list or partition (see `redact`), a proposal (`proposal=7`), or the name of a step.
    pub target: Option<String>,
    /// Size on the wire (whole MQTT packet) or on disk, bytes.
    pub bytes: u64,
    /// Messages in a batch, filters in a SUBSCRIBE, entries in a proposal; 1 otherwise.
    pub count: u32,
    /// MQTT QoS 0..=2; 0 where it means nothing.
    pub qos: u8,
    /// See [`flags`].
    pub flags: u32,
    /// Reason code of the reply (MQTT 5 values; 3.1.1 return codes as they are); 0 = success.
    pub status: u8,
    /// CONNECT: keep-alive in seconds; 0 otherwise. (With `expiry_s`, what a replay needs beyond the flags.)
    pub keep_alive_s: u16,
    /// CONNECT: session expiry interval in seconds (MQTT 5 property; 3.1.1 without clean session: u32::MAX).
    pub expiry_s: u32,
    /// OS thread that ran it; 0 when unknown.
    pub thread: u32,
}

impl Span {
    /// A span of `kind` at `start_ns` with nothing else known: count 1, everything optional absent, the rest zero.
    pub fn new(id: u64, kind: Kind, start_ns: u64) -> Span {
        Span {
            id,
            parent: None,
            kind,
            start_ns,
            duration_ns: None,
            busy_ns: None,
            session: None,
            connection: None,
            target: None,
            bytes: 0,
            count: 1,
            qos: 0,
            flags: 0,
            status: 0,
            keep_alive_s: 0,
            expiry_s: 0,
            thread: 0,
        }
    }

    /// A request that came from outside: no parent, and of a kind that can be a root (a delivery is a consequence).
    pub fn is_root(&self) -> bool {
        self.parent.is_none() && self.kind.can_be_root()
    }

    /// When it ended, ns since origin; its start when there is no end. Saturates on absurd durations.
    pub fn end_ns(&self) -> u64 {
        self.start_ns.saturating_add(self.duration_ns.unwrap_or(0))
    }

    /// Whether all bits of `bits` (see [`flags`]) are set.
    pub fn has(&self, bits: u32) -> bool {
        self.flags & bits == bits
    }
}
