//! The meta-service: what a broker must remember about sessions, replicated by raft.
//!
//! A proposal goes through openraft in RobustMQ's shape: appended to the raft log, committed, and applied in the steps
//! *route*, *membership* and *set_last_applied*, all in RocksDB ([`store`], [`keys`]). openraft runs natively on each
//! runtime ([`native`]); where RocksDB's calls run is the arm's choice ([`rocks`]). What it leaves out: changes of
//! membership, and more than one raft group.

pub mod api;
pub mod keys;
pub mod log_store;
pub mod native;
pub mod network;
pub mod raft;
pub mod rocks;
mod scratch;
pub mod sessions;
pub mod snapshot;
pub mod state_machine;
mod store;
pub mod types;

pub use store::{Depth, SESSION_PREFIX, Store, StoreError};
