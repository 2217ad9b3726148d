//! The meta-service: what a broker must remember about sessions, replicated by raft.
//!
//! A shard's call goes to the batcher ([`batcher`]), and in a proposal by gRPC ([`rpc`]) to the node that leads. There it
//! goes through openraft in RobustMQ's shape: appended to the raft log, committed, and applied in the steps *route*,
//! *membership* and *set_last_applied*, all in RocksDB ([`store`], [`keys`]). openraft runs natively on each runtime
//! ([`native`]); where RocksDB's calls run is the arm's choice ([`rocks`]), and so is which runtime has which role
//! ([`service`]). What it leaves out: changes of membership, and more than one raft group.

pub mod again;
pub mod answers;
pub mod api;
pub mod batcher;
pub(crate) mod cluster;
mod host;
pub mod keys;
pub mod log_store;
pub mod native;
pub mod network;
mod process;
pub mod raft;
pub mod rocks;
pub mod rpc;
mod scratch;
pub(crate) mod service;
pub mod sessions;
pub mod snapshot;
pub mod state_machine;
mod store;
pub mod types;

pub use process::{MetaConfig, MetaRecord, serve_meta};
pub use rpc::pb as proto;
pub use store::{Depth, SESSION_PREFIX, Store, StoreError};
