//! openraft's messages to other nodes, over whatever [`Transport`] there is: postcard in, postcard out.
//!
//! A snapshot goes in one message of at most [`SNAPSHOT_BYTES_MAX`] bytes of sessions. What it leaves out: connections,
//! which are the transport's.

use super::api::{RaftRpc, Transport};
use super::log_store::READ_BYTES_MAX;
use super::native::Native;
use super::raft::PROPOSAL_BYTES_MAX;
use super::snapshot::{self, SNAPSHOT_BYTES_MAX};
use super::types::{NodeId, Snapshot, SnapshotMeta, Types, Vote};
use bytes::Bytes;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::BasicNode;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

/// The largest message between nodes, bytes; a transport must let it pass.
pub const MESSAGE_BYTES_MAX: usize = SNAPSHOT_BYTES_MAX + READ_BYTES_MAX + PROPOSAL_BYTES_MAX;

/// How long an answer may take at least. openraft asks for less (a heartbeat's interval), and a follower that syncs to
/// a slow disk would then be sent the same entries again and again.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Makes the ways to other nodes.
#[derive(Debug, Clone)]
pub struct Network<N, T> {
    transport: T,
    peers: BTreeMap<NodeId, SocketAddr>,
    native: PhantomData<fn() -> N>,
}

impl<N, T> Network<N, T> {
    /// Over `transport`. `peers` are where nodes listen in this run, which may be elsewhere than when the cluster was
    /// formed; what is not in it listens where the membership says.
    pub fn new(transport: T, peers: BTreeMap<NodeId, SocketAddr>) -> Network<N, T> {
        Network { transport, peers, native: PhantomData }
    }
}

/// The way to one other node.
pub struct Peer<N, T> {
    transport: T,
    node: BasicNode,
    native: PhantomData<fn() -> N>,
}

impl<N, T> fmt::Debug for Peer<N, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("node", &self.node).finish_non_exhaustive()
    }
}

impl<N: Native, T: Transport> RaftNetworkFactory<Types<N>> for Network<N, T> {
    type Network = Peer<N, T>;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Peer<N, T> {
        let node = self.peers.get(&target).map_or(node.clone(), |addr| BasicNode { addr: addr.to_string() });
        Peer { transport: self.transport.clone(), node, native: PhantomData }
    }
}

impl<N: Native, T: Transport> Peer<N, T> {
    async fn call<A: DeserializeOwned>(
        &self,
        rpc: RaftRpc,
        message: Result<Vec<u8>, String>,
        limit: Duration,
    ) -> Result<A, RPCError<Types<N>>> {
        let unreachable = |reason: String| RPCError::Unreachable(Unreachable::from_string(reason));
        let addr: SocketAddr =
            self.node.addr.parse().map_err(|_| unreachable(format!("`{}` is no address", self.node.addr)))?;
        let message = Bytes::from(message.map_err(unreachable)?);
        let answer = N::timeout(limit, self.transport.call(addr, rpc, message)).await;
        let answer = answer.map_err(|_| unreachable(format!("node {addr} did not answer within {limit:?}")))?;
        let answer = answer.map_err(unreachable)?;
        postcard::from_bytes(&answer)
            .map_err(|error| unreachable(format!("the answer of node {addr} cannot be decoded: {error}")))
    }
}

impl<N: Native, T: Transport> RaftNetworkV2<Types<N>> for Peer<N, T> {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types<N>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<N>>, RPCError<Types<N>>> {
        self.call(RaftRpc::AppendEntries, encode(&request), option.soft_ttl().max(ANSWER_LIMIT)).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types<N>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<N>>, RPCError<Types<N>>> {
        self.call(RaftRpc::Vote, encode(&request), option.soft_ttl().max(ANSWER_LIMIT)).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types<N>>, StreamingError<Types<N>>> {
        let message = encode_snapshot(vote, &snapshot);
        let answer = self.call(RaftRpc::InstallSnapshot, message, option.soft_ttl().max(ANSWER_LIMIT));
        match N::select2(answer, cancel).await {
            openraft::async_runtime::Select2::First(answer) => Ok(answer?),
            openraft::async_runtime::Select2::Second(closed) => Err(closed.into()),
        }
    }
}

/// A vote and a snapshot as one message.
fn encode_snapshot(vote: Vote, snapshot: &Snapshot) -> Result<Vec<u8>, String> {
    snapshot::encode(&(vote, &snapshot.meta), &snapshot.snapshot)
}

/// What [`encode_snapshot`] made.
///
/// # Errors
/// When it is something else.
pub fn decode_snapshot(message: &[u8]) -> Result<(Vote, Snapshot), String> {
    let ((vote, meta), data) = snapshot::decode::<(Vote, SnapshotMeta)>(message)?;
    Ok((vote, Snapshot { meta, snapshot: data.to_vec() }))
}

/// A message as postcard.
///
/// # Errors
/// When it cannot be encoded.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, String> {
    postcard::to_stdvec(message).map_err(|error| format!("a raft message cannot be encoded: {error}"))
}

/// The transport of a node that is alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Transport for Alone {
    async fn call(&self, to: SocketAddr, _rpc: RaftRpc, _message: Bytes) -> Result<Bytes, String> {
        Err(format!("there is no way to node {to}: this node was started alone"))
    }
}
