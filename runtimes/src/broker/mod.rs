//! The broker as a pure state machine: packets and completions in, effects out.
//!
//! No I/O, no clock, no async. A broker is split into *shards*; each shard owns the sessions whose client id hashes
//! to it, and the partitions whose number falls to it. Shards speak only by [`effect::PeerMsg`].
//!
//! ```text
//!                        ┌──────────────────────────────────────────────────────┐
//!   Accepted, Received   │ receive → wire (packets)                             │  Reply after op
//!   Closed, Tick   ────▶ │   on_connect  on_subscribe  on_publish  on_tick      │ ──▶ gate ──▶ Reply, Push, Close
//!   Done(op)             │   session · trie · retained · log · deliver          │      Append, Sync, Roll, Read, Meta
//!   Peer, Adopt          │   meta (one call per client)          Broker         │      Send, Migrate, Halt
//!                        └──────────────────────────────────────────────────────┘
//! ```
//!
//! [`Broker`] names with each effect what it depends on; [`Shard`] is the same behind a gate that holds effects back
//! until they can be performed. Equal inputs give equal effects: no iteration over a hash map reaches an effect.
//!
//! What is left out: shared subscriptions (refused), enhanced authentication (refused), authorisation (everybody may do
//! everything), will delay (counts as 0), outgoing topic aliases. Retained messages, messages queued for clients that
//! are away, packet ids in flight and subscription identifiers live in memory; of a session its subscriptions and expiry
//! survive a restart, in force again once its client returns.

pub mod effect;
pub mod record;

#[allow(clippy::module_inception)]
mod broker;
mod config;
mod conn;
mod deliver;
mod filter;
mod gate;
mod log;
mod meta;
mod on_connect;
mod on_peer;
mod on_publish;
mod on_subscribe;
mod on_tick;
mod ops;
mod output;
mod placing;
mod receive;
mod retained;
mod session;
mod shard;
mod trie;
mod wire;

pub use broker::Broker;
pub use config::{BrokerConfig, Counters, Limits, PartitionState};
pub use placing::{partition_of_topic, shard_of_client, shard_of_partition};
pub use shard::Shard;
