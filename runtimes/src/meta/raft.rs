//! One node of the meta-service: openraft over this crate's log store, state machine and transport.
//!
//! It is started, used and shut down by tasks of its own runtime; [`Core::propose`] and [`Core::raft`] may be awaited
//! on any. A node that cannot write stops: proposals fail from then on, and [`RaftNode::failure`] says why. What it
//! leaves out: changes of membership, and gRPC.

use super::api::{Core, ProposeError, RaftRpc, Transport};
use super::log_store::LogStore;
use super::native::Native;
use super::network::{self, Network};
use super::rocks::{Rocks, Shared};
use super::state_machine::{Sessions, StateMachine};
use super::store::{Store, StoreError};
use super::types::{NodeId, Proposal, Types};
use crate::broker::effect::{MetaCall, MetaReply, SessionRecord};
use crate::settings::Settings;
use crate::stamps::{self, Mark};
use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader, InitializeError, RaftError};
use openraft::impls::BasicNode;
use openraft::{Config, Raft, SnapshotPolicy};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Most calls in one proposal: a hundred times what RobustMQ's batcher gathers.
pub const CALLS_MAX: usize = 10_000;
/// Most bytes of client ids and filters in one proposal, and so of an entry of the log, about.
pub const PROPOSAL_BYTES_MAX: usize = 1 << 20;

// RobustMQ at the article's time (b3f5680bd), ms.
const HEARTBEAT_MS: u64 = 100;
const ELECTION_MIN_MS: u64 = 1000;
const ELECTION_MAX_MS: u64 = 2000;
/// openraft's default, and so RobustMQ's at the article's time: a restart applies at most about as many entries again.
const SNAPSHOT_AFTER_ENTRIES: u64 = 5000;
/// openraft's default would give up a snapshot after 200 ms, which a million sessions take longer than.
const SNAPSHOT_LIMIT_MS: u64 = 60_000;
/// How long a node that shuts down waits for its last calls to the store.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
const SHUTDOWN_POLL: Duration = Duration::from_millis(1);

/// Who a node is, and who the others are.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Its number.
    pub id: NodeId,
    /// Where each node, itself included, listens for the others.
    pub peers: BTreeMap<NodeId, SocketAddr>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread.
    #[error("the thread of RocksDB calls cannot be started: {0}")]
    Thread(#[from] io::Error),
    /// openraft.
    #[error("the node of the meta-service does not start: {0}")]
    Raft(String),
}

/// A running node. Clones are the same node.
pub struct RaftNode<N: Native> {
    raft: Raft<Types<N>, StateMachine<N>>,
    store: Arc<Store>,
    sessions: Sessions,
    peers: Arc<BTreeMap<NodeId, SocketAddr>>,
    in_use: Weak<Shared>,
}

impl<N: Native> Clone for RaftNode<N> {
    fn clone(&self) -> Self {
        let RaftNode { raft, store, sessions, peers, in_use } = self;
        let (raft, store, sessions) = (raft.clone(), store.clone(), sessions.clone());
        RaftNode { raft, store, sessions, peers: peers.clone(), in_use: in_use.clone() }
    }
}

impl<N: Native> fmt::Debug for RaftNode<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftNode").field("id", self.raft.node_id()).field("store", &self.store).finish_non_exhaustive()
    }
}

impl<N: Native> RaftNode<N> {
    /// Starts a node on the calling thread's runtime, and forms the cluster when there was none: its node with the
    /// lowest number does. Reads the raft log, blocking. `on_thread` is called on the thread of
    /// [`crate::settings::Placement::OwnThread`], to bind it.
    ///
    /// # Errors
    /// When the store is corrupt, a thread cannot be started, or openraft refuses.
    pub async fn start(
        member: &Membership,
        settings: &Settings,
        store: Arc<Store>,
        transport: impl Transport,
        on_thread: impl FnOnce() + Send + 'static,
    ) -> Result<RaftNode<N>, StartError> {
        let rocks = Rocks::<N>::new(Arc::clone(&store), settings, on_thread)?;
        let in_use = rocks.in_use();
        let log = LogStore::open(rocks.clone())?;
        let machine = StateMachine::open(rocks, settings.durable_sessions)?;
        let sessions = machine.sessions();
        let config = config().map_err(|error| StartError::Raft(error.to_string()))?;
        let raft =
            Raft::new(member.id, Arc::new(config), Network::<N, _>::new(transport, member.peers.clone()), log, machine)
                .await;
        let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;
        let node = RaftNode { raft, store, sessions, peers: Arc::new(member.peers.clone()), in_use };
        node.form(member).await.map_err(StartError::Raft)?;
        Ok(node)
    }

    async fn form(&self, member: &Membership) -> Result<(), String> {
        let formed = self.raft.is_initialized().await.map_err(|error| error.to_string())?;
        if formed && member.peers.len() == 1 {
            // Nobody else can lead, so there is nobody to wait for.
            return self.raft.trigger().elect(false).await.map_err(|error| error.to_string());
        }
        if formed || member.peers.keys().next() != Some(&member.id) {
            return Ok(());
        }
        let nodes = member.peers.iter().map(|(id, addr)| (*id, BasicNode { addr: addr.to_string() }));
        match self.raft.initialize(nodes.collect::<BTreeMap<_, _>>()).await {
            // The others were faster.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Waits until some node leads, and returns its number.
    ///
    /// # Errors
    /// When none does within `limit`, or the node has stopped.
    pub async fn wait_for_leader(&self, limit: Duration) -> Result<NodeId, String> {
        let led = self.raft.wait(Some(limit)).metrics(|metrics| metrics.current_leader.is_some(), "a leader").await;
        let leader = led.map_err(|error| format!("no node of the meta-service leads: {error}"))?.current_leader;
        leader.ok_or_else(|| "no node of the meta-service leads".to_owned())
    }

    /// Why the node has stopped by itself, if it has: it could not write, or it panicked. Its owner looks here as often
    /// as it lets time pass, and halts the run.
    pub fn failure(&self) -> Option<String> {
        if let Some(failure) = self.store.failure() {
            return Some(failure);
        }
        match &self.raft.metrics().borrow_watched().running_state {
            Ok(()) | Err(Fatal::Stopped) => None,
            Err(fatal) => Some(format!("the node of the meta-service has stopped: {fatal}")),
        }
    }

    /// Whether all that is in its log has been applied. A follower learns of what it lacks within a heartbeat.
    pub fn has_applied_its_log(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.last_applied.as_ref().map(|id| id.index) == metrics.last_log_index
    }

    /// Stops the node, and returns once nothing of it calls the store any more. To be called on the node's runtime.
    ///
    /// # Errors
    /// When calls were still under way after ten seconds.
    pub async fn shutdown(&self) -> Result<(), String> {
        self.raft.shutdown().await.map_err(|error| format!("the node of the meta-service did not stop: {error}"))?;
        let (mut left, step) = (SHUTDOWN_LIMIT, SHUTDOWN_POLL);
        while self.in_use.strong_count() > 0 {
            left = left.checked_sub(step).ok_or("calls to the meta store were still under way 10 s after its end")?;
            N::sleep(step).await;
        }
        Ok(())
    }

    /// The sessions as this node has applied them, in the order of their client ids; also after its end.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        self.sessions.all()
    }

    /// openraft's own handle: its metrics, and what benches compare with.
    pub fn openraft(&self) -> &Raft<Types<N>, StateMachine<N>> {
        &self.raft
    }

    fn not_leader(&self, forward: &ForwardToLeader<Types<N>>) -> ProposeError {
        let now = forward.leader_id.and_then(|id| self.peers.get(&id).copied());
        let formed = || forward.leader_node.as_ref().and_then(|node| node.addr.parse().ok());
        ProposeError::NotLeader { leader: now.or_else(formed) }
    }

    fn stopped(&self, fatal: &Fatal<Types<N>>) -> ProposeError {
        let stopped = || match fatal {
            Fatal::Stopped => "the node of the meta-service has stopped".to_owned(),
            fatal => format!("the node of the meta-service has stopped: {fatal}"),
        };
        ProposeError::Failed(self.failure().unwrap_or_else(stopped))
    }
}

impl<N: Native> Core for RaftNode<N> {
    async fn propose_for(&self, caller: u64, id: u64, calls: Vec<MetaCall>) -> Result<Vec<MetaReply>, ProposeError> {
        check(&calls)?;
        stamps::mark(id, Mark::Proposed);
        let written = self.raft.client_write(Proposal { id, caller, calls }).await;
        stamps::mark(id, Mark::Committed);
        match written {
            Ok(response) => Ok(response.data.0),
            Err(RaftError::Fatal(fatal)) => Err(self.stopped(&fatal)),
            Err(RaftError::APIError(
                ClientWriteError::ForwardToLeader(forward) | ClientWriteError::LogEntryDiscarded(forward),
            )) => Err(self.not_leader(&forward)),
            Err(error) => Err(ProposeError::Failed(error.to_string())),
        }
    }

    async fn raft(&self, rpc: RaftRpc, message: Bytes) -> Result<Bytes, ProposeError> {
        let answer = match rpc {
            RaftRpc::AppendEntries => {
                let answer = self.raft.append_entries(decode(&message)?).await;
                network::encode(&answer.map_err(|error| self.stopped(&error.unwrap_fatal()))?)
            }
            RaftRpc::Vote => {
                let answer = self.raft.vote(decode(&message)?).await;
                network::encode(&answer.map_err(|error| self.stopped(&error.unwrap_fatal()))?)
            }
            RaftRpc::InstallSnapshot => {
                let (vote, snapshot) = network::decode_snapshot(&message).map_err(ProposeError::Beyond)?;
                let answer = self.raft.install_full_snapshot(vote, snapshot).await;
                network::encode(&answer.map_err(|fatal| self.stopped(&fatal))?)
            }
        };
        answer.map(Bytes::from).map_err(ProposeError::Failed)
    }
}

fn config() -> Result<Config, openraft::ConfigError> {
    let config = Config {
        cluster_name: "meta".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        install_snapshot_timeout: SNAPSHOT_LIMIT_MS,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_AFTER_ENTRIES),
        ..Config::default()
    };
    config.validate()
}

fn decode<M: DeserializeOwned>(message: &[u8]) -> Result<M, ProposeError> {
    postcard::from_bytes(message)
        .map_err(|error| ProposeError::Beyond(format!("a message of another node cannot be decoded: {error}")))
}

/// Whether calls may become one entry.
fn check(calls: &[MetaCall]) -> Result<(), ProposeError> {
    if calls.is_empty() || calls.len() > CALLS_MAX {
        let given = calls.len();
        return Err(ProposeError::Beyond(format!(
            "a proposal has from 1 to {CALLS_MAX} calls, and not {given}; set session_batch lower"
        )));
    }
    match calls.iter().map(size).sum::<usize>() {
        ..=PROPOSAL_BYTES_MAX => Ok(()),
        bytes => Err(ProposeError::Beyond(format!(
            "a proposal may have {PROPOSAL_BYTES_MAX} bytes of client ids and filters, and not {bytes}; set session_batch \
             lower, or subscribe to fewer filters"
        ))),
    }
}

fn size(call: &MetaCall) -> usize {
    match call {
        MetaCall::OpenSession { record, .. } | MetaCall::PutSession { record } => {
            record.client.len() + record.subscriptions.iter().map(|(filter, _)| filter.len()).sum::<usize>()
        }
        MetaCall::DropSession { client } => client.len(),
    }
}
