//! The gRPC client: finds the node that leads, and tries again when the way to it breaks.
//!
//! A proposal whose answer was lost is proposed again, under the same id: the nodes know it by that, apply it once and
//! answer it alike ([`crate::meta::answers`]).

use super::link::{Channel, Links};
use super::net::{Net, within};
use super::pb::meta_client::MetaClient;
use super::pb::raft_client::RaftClient;
use super::status::{Failure, failure};
use super::{RAFT_BYTES_MAX, convert, pb};
use crate::broker::effect::{MetaCall, MetaReply};
use crate::meta::api::{RaftRpc, Transport};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tonic::Status;

/// How long one attempt may take, as in RobustMQ.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// How long a message between nodes may take; a snapshot is one.
const RAFT_LIMIT: Duration = Duration::from_secs(60);
/// After an attempt that failed: an election takes longer than many attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Proposes to whichever node leads.
#[derive(Debug)]
pub struct Client<N> {
    links: Links<N>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    nodes: Vec<SocketAddr>,
    next: AtomicUsize,
    leader: Mutex<Option<SocketAddr>>,
    give_up: Duration,
}

impl<N> Clone for Client<N> {
    fn clone(&self) -> Self {
        Client { links: self.links.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<N: Net> Client<N> {
    /// `nodes` are tried in this order while the leader is unknown; after `give_up` a proposal fails.
    pub fn new(links: Links<N>, nodes: Vec<SocketAddr>, give_up: Duration) -> Client<N> {
        let shared = Shared { nodes, next: AtomicUsize::new(0), leader: Mutex::new(None), give_up };
        Client { links, shared: Arc::new(shared) }
    }

    /// Proposes calls as one entry. Proposes again until there is an answer, at most as long as given to
    /// [`Client::new`] and for the length of one attempt.
    ///
    /// # Errors
    /// One sentence: the proposal is beyond a limit, the node cannot write, or no node answered in time.
    pub async fn propose(&self, id: u64, calls: &[MetaCall]) -> Result<Vec<MetaReply>, String> {
        // The ids of this process begin at a random one, so they say who proposes.
        let calls_out = calls.iter().map(convert::call_out).collect();
        let request = pb::ProposeRequest { id, calls: calls_out, caller: 0 };
        let started = Instant::now();
        loop {
            let Some(to) = self.target() else { return Err("no node of the meta-service is known".to_owned()) };
            let answer = within::<N, _>(ATTEMPT_LIMIT, self.attempt(to, request.clone())).await;
            let late = || Failure::Broken(format!("no answer within {} s", ATTEMPT_LIMIT.as_secs()));
            let why = match answer.unwrap_or_else(|| Err(late())) {
                Ok(reply) => return replies(reply, calls),
                Err(Failure::Final(reason)) => return Err(reason),
                Err(Failure::Elsewhere(leader)) => {
                    self.turn_to(to, leader);
                    format!("{to} does not lead")
                }
                Err(Failure::Broken(reason)) => {
                    self.turn_to(to, None);
                    format!("{to}: {reason}")
                }
            };
            if self.links.are_ending() {
                return Err("this node ends".to_owned());
            }
            if started.elapsed() >= self.shared.give_up {
                return Err(format!(
                    "the meta-service did not answer within {} s (last: {why}); check that most of its nodes run",
                    self.shared.give_up.as_secs()
                ));
            }
            N::sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt(&self, to: SocketAddr, request: pb::ProposeRequest) -> Result<pb::ProposeReply, Failure> {
        let channel = self.links.channel(to).await.map_err(Failure::Broken)?;
        // The sessions that are opened again come with all their filters, which no proposal brought at once.
        let mut client = MetaClient::new(channel).max_decoding_message_size(RAFT_BYTES_MAX);
        let answer = client.propose(request).await;
        Ok(answer.map_err(|status| failure(&status))?.into_inner())
    }

    fn target(&self) -> Option<SocketAddr> {
        let leader = *self.shared.leader.lock().unwrap_or_else(PoisonError::into_inner);
        let Shared { nodes, next, .. } = &*self.shared;
        leader.or_else(|| nodes.get(next.load(Ordering::Relaxed) % nodes.len().max(1)).copied())
    }

    /// After an attempt at `failed` that brought no answer: goes to `leader`, or to the next node in turn.
    fn turn_to(&self, failed: SocketAddr, leader: Option<SocketAddr>) {
        let mut known = self.shared.leader.lock().unwrap_or_else(PoisonError::into_inner);
        match leader {
            Some(leader) if leader != failed => *known = Some(leader),
            // Of many proposals that fail together only the first turns.
            _ if known.is_none_or(|known| known == failed) => {
                *known = None;
                self.shared.next.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

fn replies(reply: pb::ProposeReply, calls: &[MetaCall]) -> Result<Vec<MetaReply>, String> {
    if reply.replies.len() != calls.len() {
        return Err(format!("the meta-service gave {} replies to {} calls", reply.replies.len(), calls.len()));
    }
    let of_open = |call: &MetaCall| matches!(call, MetaCall::OpenSession { .. });
    let read = |(reply, call)| convert::reply_in(reply, of_open(call));
    let replies: Result<Vec<_>, String> = reply.replies.into_iter().zip(calls).map(read).collect();
    replies.map_err(|what| format!("the meta-service answered with {what}"))
}

/// The way to the other nodes. They are asked once: openraft repeats what it still needs.
#[derive(Debug)]
pub struct RaftTransport<N> {
    links: Links<N>,
}

impl<N> Clone for RaftTransport<N> {
    fn clone(&self) -> Self {
        RaftTransport { links: self.links.clone() }
    }
}

impl<N: Net> RaftTransport<N> {
    /// Over connections of its own.
    pub fn new(links: Links<N>) -> RaftTransport<N> {
        RaftTransport { links }
    }

    async fn send(&self, to: SocketAddr, rpc: RaftRpc, postcard: Bytes) -> Result<Bytes, String> {
        let said = |status: Status| match failure(&status) {
            Failure::Final(reason) | Failure::Broken(reason) => format!("{to}: {reason}"),
            Failure::Elsewhere(_) => format!("{to}: {}", status.message()),
        };
        let channel: Channel = self.links.channel(to).await?;
        let mut client = RaftClient::new(channel).max_decoding_message_size(RAFT_BYTES_MAX);
        let blob = pb::Blob { postcard: postcard.into() };
        let answer = match rpc {
            RaftRpc::AppendEntries => client.append_entries(blob).await,
            RaftRpc::Vote => client.vote(blob).await,
            RaftRpc::InstallSnapshot => client.install_snapshot(blob).await,
        };
        Ok(answer.map_err(said)?.into_inner().postcard.into())
    }
}

impl<N: Net> Transport for RaftTransport<N> {
    async fn call(&self, to: SocketAddr, rpc: RaftRpc, message: Bytes) -> Result<Bytes, String> {
        let late = || Err(format!("{to} gave no answer within {} s", RAFT_LIMIT.as_secs()));
        within::<N, _>(RAFT_LIMIT, self.send(to, rpc, message)).await.unwrap_or_else(late)
    }
}
