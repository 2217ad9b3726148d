//! What a shard is told at its start, and what it counts.

use super::effect::ShardId;
use crate::settings::{Durability, Settings};
use serde::{Deserialize, Serialize};

/// Settings of a shard. Everything that decides about a reply is here, so that equal configurations and equal inputs
/// give equal effects.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerConfig {
    /// Which shard this is, below `shards`.
    pub shard: ShardId,
    /// Shards of the whole broker, at least 1.
    pub shards: u16,
    /// Partitions that topics are hashed onto, at least 1.
    pub partitions: u32,
    /// When an acknowledged write is on the disk.
    pub durability: Durability,
    /// A segment is sealed when it would grow beyond this, bytes.
    pub segment_bytes: u64,
    /// Bounds on what clients can make the broker keep.
    pub limits: Limits,
}

impl BrokerConfig {
    /// The configuration of shard `shard` under an arm's settings, with default limits.
    pub fn new(shard: ShardId, settings: &Settings) -> Self {
        BrokerConfig {
            shard,
            shards: u16::try_from(settings.threads.max(1)).unwrap_or(u16::MAX),
            partitions: settings.partitions.max(1),
            durability: settings.durability,
            segment_bytes: settings.segment_bytes,
            limits: Limits::default(),
        }
    }
}

/// Bounds on what clients can make the broker keep.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Largest packet accepted, bytes (announced to MQTT 5 clients).
    pub packet_bytes: u32,
    /// QoS 1 and 2 publishes that an MQTT 5 client may have unacknowledged (announced as Receive Maximum). MQTT 3.1.1
    /// knows no such limit, and its clients are not held to it.
    pub receive_maximum: u16,
    /// Unacknowledged QoS 1 and 2 deliveries per session; an MQTT 5 client's own Receive Maximum may lower it.
    pub inflight: u16,
    /// Deliveries that may wait per session, beyond those in flight; more are dropped and counted.
    pub queue_messages: usize,
    /// Bytes of messages that may wait in memory per session; pointers into segments count nothing.
    pub queue_bytes: usize,
    /// Topic aliases per connection (announced to MQTT 5 clients).
    pub topic_alias_maximum: u16,
    /// Subscriptions per session.
    pub subscriptions: usize,
    /// Their filters together, bytes, per session: with the client id they fit into one call of the meta store.
    pub subscription_bytes: usize,
    /// From accept to a whole CONNECT packet, ns.
    pub connect_timeout_ns: u64,
    /// Bytes that a client may send behind its CONNECT before it has its CONNACK.
    pub early_bytes: usize,
    /// Largest read of queued records at once, bytes (a single larger record is read whole).
    pub read_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            packet_bytes: 16 << 20,
            receive_maximum: u16::MAX,
            inflight: 2048,
            queue_messages: 100_000,
            queue_bytes: 256 << 20,
            topic_alias_maximum: 64,
            subscriptions: 10_000,
            subscription_bytes: 768 << 10,
            connect_timeout_ns: 10_000_000_000,
            early_bytes: 32 << 20,
            read_bytes: 256 << 10,
        }
    }
}

/// Where a partition stands, as found by the scan of its segments at start ([`super::record::scan`]). A torn tail must
/// have been cut off before: `next_at` is both the file's length and where the next record goes. A partition that is
/// not mentioned has no file yet: its first append is preceded by a roll to segment 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionState {
    /// Which partition.
    pub partition: u32,
    /// Its newest segment.
    pub segment: u32,
    /// Length of that segment's file, bytes.
    pub next_at: u64,
    /// Sequence number of the next record of the partition.
    pub next_seq: u64,
}

/// What a shard has done since its start. Only sums, so that the shards' counters can be added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// CONNECT packets that were answered with success.
    pub connects: u64,
    /// CONNECT packets that were refused.
    pub refused: u64,
    /// Connections that moved to another shard.
    pub migrations: u64,
    /// PUBLISH packets received, wills included.
    pub publishes: u64,
    /// Records appended to partitions that this shard owns.
    pub records: u64,
    /// Append operations (each writes one or more records).
    pub appends: u64,
    /// Bytes of those.
    pub append_bytes: u64,
    /// Sync operations.
    pub syncs: u64,
    /// Segments created.
    pub rolls: u64,
    /// Read operations.
    pub reads: u64,
    /// Calls to the meta store.
    pub meta_calls: u64,
    /// PUBLISH packets sent to subscribers, repeats included.
    pub deliveries: u64,
    /// Deliveries dropped because a session's queue was full.
    pub dropped_deliveries: u64,
    /// Deliveries dropped because the message expired or exceeds the client's Maximum Packet Size.
    pub expired_deliveries: u64,
    /// Messages to other shards.
    pub peer_messages: u64,
    /// Connections closed for a malformed packet, a violation of the protocol or a limit.
    pub violations: u64,
    /// Connections closed because nothing came within the keep-alive or connect time.
    pub timeouts: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, o: Self) {
        self.connects += o.connects;
        self.refused += o.refused;
        self.migrations += o.migrations;
        self.publishes += o.publishes;
        self.records += o.records;
        self.appends += o.appends;
        self.append_bytes += o.append_bytes;
        self.syncs += o.syncs;
        self.rolls += o.rolls;
        self.reads += o.reads;
        self.meta_calls += o.meta_calls;
        self.deliveries += o.deliveries;
        self.dropped_deliveries += o.dropped_deliveries;
        self.expired_deliveries += o.expired_deliveries;
        self.peer_messages += o.peer_messages;
        self.violations += o.violations;
        self.timeouts += o.timeouts;
    }
}
