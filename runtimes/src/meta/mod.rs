//! The meta-service: what a broker must remember about sessions.
//!
//! Today one RocksDB store on the broker's own node, in the place where RobustMQ's meta-service keeps its sessions. What
//! it leaves out so far: replication.

pub mod api;
pub mod proto;
mod store;

pub use store::{SESSION_PREFIX, Store, StoreError};
