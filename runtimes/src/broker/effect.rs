//! The language between the broker and its shells: inputs, effects, and what completes them.
//!
//! Every effect names what it depends on (`after`), not only its order, so that a shell on a completion runtime may
//! submit in parallel. [`super::Shard`] holds effects back until what they depend on has completed, for shells that
//! want only what can be done now.

use bytes::Bytes;

/// A network connection, unique in the process: the accepting shard in the high 16 bits, a counter below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// A shard of the broker, from 0.
pub type ShardId = u16;

/// An operation of this shard that completes later. A reply may name one (`after`) before the effect that carries it is
/// emitted: what comes while a write of a partition is in flight is merged into the next one, whose id is known already.
/// Some operations are done by another shard: they complete with [`PeerMsg::Appended`] instead of [`Input::Done`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// The time, given with every input: the broker has no clock of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_MONOTONIC, ns.
    pub mono_ns: u64,
    /// Wall clock, s since the epoch; only session expiry across restarts needs it.
    pub unix_s: u64,
}

/// What happens to a shard.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection was accepted by this shard.
    Accepted {
        /// Its id, chosen by the shell.
        conn: ConnId,
    },
    /// Bytes came from a client.
    Received {
        /// From which connection.
        conn: ConnId,
        /// As read; the broker keeps what it needs of an unfinished packet.
        bytes: &'a [u8],
    },
    /// The connection is gone (end of stream or error). Comes once per connection, also after [`Effect::Close`].
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// An operation finished. Every op of an effect gets exactly one.
    Done {
        /// Which.
        op: OpId,
        /// What came of it, or one sentence on why it failed.
        result: Result<Outcome, String>,
    },
    /// Another shard speaks.
    Peer {
        /// Which shard.
        from: ShardId,
        /// What it says.
        msg: PeerMsg,
    },
    /// A connection that another shard accepted comes here, because its session lives here.
    Adopt {
        /// Its id (unchanged).
        conn: ConnId,
        /// What the accepting shard had read so far.
        handover: Box<Handover>,
    },
    /// Time passes (at least every 100 ms): keep-alive, session expiry.
    Tick,
}

/// What a shell must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send `bytes` to a client. Replies of one connection leave in the order in which they were emitted, each once
    /// its `after` has completed.
    Reply {
        /// To whom.
        conn: ConnId,
        /// One or more whole packets.
        bytes: Bytes,
        /// The operation that must have completed.
        after: Option<OpId>,
    },
    /// Send `bytes` to a client now; overtakes replies that wait.
    Push {
        /// To whom.
        conn: ConnId,
        /// One or more whole packets.
        bytes: Bytes,
    },
    /// Close the connection once everything emitted for it has been written.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Write `bytes` at offset `at` of a partition's segment file. At most one append of a partition is in flight.
    Append {
        /// Completes with [`Outcome::Appended`] when write has completed, never at a hand-off.
        op: OpId,
        /// Which partition.
        partition: u32,
        /// Which segment file of it.
        segment: u32,
        /// Offset in the file.
        at: u64,
        /// Whole records.
        bytes: Bytes,
    },
    /// fdatasync of a segment file, which need not be the partition's newest. At most one sync of a partition is in
    /// flight.
    Sync {
        /// Completes with [`Outcome::Synced`].
        op: OpId,
        /// Which partition.
        partition: u32,
        /// Which segment file of it.
        segment: u32,
        /// The append that must have completed.
        after: Option<OpId>,
    },
    /// Create the segment file `segment` of a partition, and make its directory entry durable when `durable`.
    Roll {
        /// Completes with [`Outcome::Rolled`].
        op: OpId,
        /// Which partition.
        partition: u32,
        /// The new segment's number.
        segment: u32,
        /// Whether the directory must be synced too.
        durable: bool,
    },
    /// Read from a segment file (records queued for a client that was away). May name a partition that another shard
    /// owns; what is read has been written completely.
    Read {
        /// Completes with [`Outcome::Read`].
        op: OpId,
        /// Which partition.
        partition: u32,
        /// Which segment file of it.
        segment: u32,
        /// Offset in the file.
        at: u64,
        /// Bytes to read.
        len: u32,
    },
    /// A call to the meta store.
    Meta {
        /// Completes with [`Outcome::Meta`].
        op: OpId,
        /// What to do there.
        call: MetaCall,
        /// Whether its write must be on the disk before it completes.
        sync: bool,
    },
    /// Say something to another shard.
    Send {
        /// Which shard.
        to: ShardId,
        /// What.
        msg: PeerMsg,
    },
    /// Move a connection, its socket included, to the shard where its session lives (as [`Input::Adopt`]).
    Migrate {
        /// Which connection.
        conn: ConnId,
        /// Where to.
        to: ShardId,
        /// What has been read so far.
        handover: Box<Handover>,
    },
    /// Stop the node: it must not acknowledge what it did not write.
    Halt {
        /// One sentence for the run's record and for the user.
        reason: String,
    },
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Of an append.
    Appended,
    /// Of a sync.
    Synced,
    /// Of a roll.
    Rolled,
    /// Of a read: exactly the bytes asked for.
    Read(Bytes),
    /// Of a meta call.
    Meta(MetaReply),
}

/// Calls to the meta store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaCall {
    /// Open a session at CONNECT: read what is there and, in the same call, write the new record.
    OpenSession {
        /// The record as it is to be from now on.
        record: SessionRecord,
        /// Forget what was there (clean start).
        clean: bool,
        /// Wall clock, s: a stored session whose expiry has passed counts as absent.
        unix_s: u64,
    },
    /// Write a session's record (subscriptions or expiry changed, or the client left).
    PutSession {
        /// The whole record.
        record: SessionRecord,
    },
    /// Delete a session.
    DropSession {
        /// Its client id.
        client: String,
    },
}

/// Replies of the meta store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaReply {
    /// Of `OpenSession`: the stored record that lives on (subscriptions kept), if any.
    Opened(Option<SessionRecord>),
    /// Of the others.
    Stored,
}

/// A session as stored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SessionRecord {
    /// Client id.
    pub client: String,
    /// Session expiry interval, s; `u32::MAX` = never.
    pub expiry_s: u32,
    /// Subscriptions: filter and its MQTT 5 options byte (for 3.1.1 the QoS), sorted by filter.
    pub subscriptions: Vec<(String, u8)>,
    /// Wall clock when the client left, s; `None` while it is connected. Not part of the state digest.
    pub left_unix_s: Option<u64>,
}

/// What a migrating connection takes along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// All bytes read so far, the CONNECT packet included.
    pub bytes: Bytes,
    /// When the connection was accepted, ns monotonic.
    pub accepted_ns: u64,
}

/// A message that is published, in its form between shards. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic name.
    pub topic: std::sync::Arc<str>,
    /// Payload.
    pub payload: Bytes,
    /// QoS of the publish.
    pub qos: u8,
    /// RETAIN as published.
    pub retain: bool,
    /// MQTT 5 properties that are passed on, encoded (without their length); empty otherwise.
    pub properties: Bytes,
    /// The publisher's client id: for No Local, and for the record.
    pub publisher: std::sync::Arc<str>,
    /// Its ordinal among the publisher's appended messages, from 0: what the state digest orders by.
    pub sequence: u64,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Which partition.
    pub partition: u32,
    /// Which segment file of it.
    pub segment: u32,
    /// Offset in the file.
    pub at: u64,
    /// Length of the record, bytes.
    pub len: u32,
}

/// What shards say to each other. A shard sends to itself nothing: it acts at once. What one shard says to another must
/// arrive in the order in which it was said.
#[derive(Debug, Clone, PartialEq)]
pub enum PeerMsg {
    /// Append to a partition that you own; answer with `Appended { token }` once it is as durable as required.
    Append {
        /// The sender's op, echoed.
        token: OpId,
        /// The message.
        msg: Message,
    },
    /// The append is as durable as required.
    Appended {
        /// Echo.
        token: OpId,
    },
    /// A QoS 0 message on a topic that you own: deliver it and, when it says so, retain it. No answer.
    Publish {
        /// The message.
        msg: Message,
    },
    /// Deliver to your sessions that subscribe to its topic. Comes from the shard that owns the topic.
    Deliver {
        /// The message.
        msg: Message,
        /// Where its record has been written; `None` for QoS 0.
        stored: Option<Stored>,
    },
    /// A session of mine subscribed to `filter`; deliver matches to me, and answer with `Subscribed`. Comes again for
    /// each further session, for the sake of the retained messages.
    Subscribe {
        /// The sender's op, echoed.
        token: OpId,
        /// The filter.
        filter: String,
    },
    /// I deliver matches to you from now on; here are my retained messages that match.
    Subscribed {
        /// Echo.
        token: OpId,
        /// Retained messages of topics that I own.
        retained: Vec<Message>,
    },
    /// The last session on my shard with this filter is gone.
    Unsubscribe {
        /// The filter.
        filter: String,
    },
}
