//! What stands between the meta-service's parts: gRPC in front, openraft behind.

use crate::broker::effect::{MetaCall, MetaReply};
use bytes::Bytes;
use std::future::Future;
use std::net::SocketAddr;

/// Why a proposal was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Beyond a limit; nothing was proposed.
    #[error("{0}")]
    Beyond(String),
    /// This node does not lead. Whether the entry was committed is unknown when the lead was lost meanwhile.
    #[error("this node of the meta-service does not lead{}", leader.map(|l| format!("; {l} does")).unwrap_or_default())]
    NotLeader {
        /// Who does, when that is known.
        leader: Option<SocketAddr>,
    },
    /// The node could not write, and stops.
    #[error("{0}")]
    Failed(String),
}

/// A message between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RaftRpc {
    /// Entries, or a heartbeat.
    AppendEntries,
    /// A candidate asks for a vote.
    Vote,
    /// The state as a whole.
    InstallSnapshot,
}

/// A raft node as its gRPC server sees it.
pub trait Core: Clone + Send + Sync + 'static {
    /// Proposes `calls` as one entry, and answers once this node has applied it. `id` names the proposal in stamps; the
    /// same calls come again under the same id and `caller` are those that came before.
    fn propose_for(
        &self,
        caller: u64,
        id: u64,
        calls: Vec<MetaCall>,
    ) -> impl Future<Output = Result<Vec<MetaReply>, ProposeError>> + Send;

    /// [`Core::propose_for`] nobody in particular.
    fn propose(
        &self,
        id: u64,
        calls: Vec<MetaCall>,
    ) -> impl Future<Output = Result<Vec<MetaReply>, ProposeError>> + Send {
        self.propose_for(0, id, calls)
    }

    /// Hands a message of another node to openraft: postcard in, postcard out.
    fn raft(&self, rpc: RaftRpc, message: Bytes) -> impl Future<Output = Result<Bytes, ProposeError>> + Send;
}

/// The way to the other nodes, as a raft node sees it.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Sends a message and waits for its answer; an error says in one sentence why there is none.
    fn call(&self, to: SocketAddr, rpc: RaftRpc, message: Bytes) -> impl Future<Output = Result<Bytes, String>> + Send;
}
