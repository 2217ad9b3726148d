//! gRPC on each runtime's own sockets: the meta-service's server and its client.
//!
//! tonic gives the codec and the generated code, hyper HTTP/2; what is below them (sockets, tasks, timers) is
//! [`net::Net`], the runtime's own, so that no stack has a foreign runtime inside. What this leaves out against tonic's
//! own transport: TLS, and deadlines that a caller sends along (`grpc-timeout`).

mod client;
mod convert;
mod link;
pub mod net;
mod server;
mod status;

pub use client::{Client, RaftTransport};
pub use link::{Channel, Links};
pub use server::Server;

use super::network::MESSAGE_BYTES_MAX;

/// The generated code.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod pb {
    tonic::include_proto!("regauge.meta.v1");
}

/// Largest proposal, bytes as encoded. tonic's own default for a message, which RobustMQ keeps.
pub const PROPOSAL_BYTES_MAX: usize = 4 << 20;
/// Largest message between nodes, bytes as encoded: with room for what protobuf adds.
pub const RAFT_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 1024;
