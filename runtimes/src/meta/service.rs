//! The meta-service inside a running node: which role runs where, what starts first, and what ends last.
//!
//! A role is a *client* (batcher and gRPC client: the broker's), a *server* (gRPC) or a *raft* node. They start raft,
//! server, client, and end the other way round, wherever they run; each waits for the one before it. Starting and ending
//! are waited for with short sleeps: they happen once, and are not measured. What this leaves out: the shards, and
//! runtimes ([`super::host`]).

use super::batcher::{self, Inbox, Open};
use super::host::{Host, Hosted};
use super::raft::{Membership, RaftNode};
use super::rpc::net::{Halt, Tasks};
use super::rpc::{Client, Links, RaftTransport, Server};
use super::store::Store;
use crate::attest::RoleRecord;
use crate::broker::effect::SessionRecord;
use crate::server::ServeError;
use crate::settings::Roles;
use crate::shell::{self, Node};
use crate::stamps::Role;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long the broker tries to get an answer: longer than elections, shorter than [`shell::DRAIN_LIMIT`].
const GIVE_UP: Duration = Duration::from_secs(20);
/// How long a cluster may take to choose its first leader.
const LEADER_LIMIT: Duration = Duration::from_secs(60);
const LEADER_STEP: Duration = Duration::from_millis(500);
/// Of [`shell::TICK`]: three heartbeats.
const SETTLED_STEPS: usize = 6;
const SETTLE_STEPS_MAX: usize = 100;
const POLL: Duration = Duration::from_millis(1);

/// What the roles start from: bound and opened before any runtime.
#[derive(Debug)]
pub(crate) struct Seat {
    /// The batcher's end of [`Node::meta`]; none when the node has no broker.
    pub inbox: Option<Inbox>,
    /// Of the gRPC server.
    pub listener: TcpListener,
    /// Of the raft node.
    pub store: Arc<Store>,
    /// This node and the others.
    pub membership: Membership,
}

/// The meta-service of a node whose connections run on `N`.
pub(crate) struct Service<N: Host> {
    node: Arc<Node>,
    raft: OnceLock<RaftNode<N::Native>>,
    inbox: Mutex<Option<Inbox>>,
    listener: Mutex<Option<TcpListener>>,
    store: Arc<Store>,
    membership: Membership,
    phase: AtomicU8,
    hosts: Mutex<Vec<Hosted>>,
}

/// How far the start and then the end have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Phase {
    Starting,
    /// There is a leader.
    Led,
    ClientEnded,
    ServerEnded,
}

/// Roles that run on one runtime.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Parts {
    client: bool,
    server: bool,
    raft: bool,
}

impl Parts {
    const CLIENT: Parts = Parts { client: true, server: false, raft: false };
    const SERVER: Parts = Parts { client: false, server: true, raft: false };
    const RAFT: Parts = Parts { client: false, server: false, raft: true };
    const SERVER_AND_RAFT: Parts = Parts { client: false, server: true, raft: true };
    const ALL: Parts = Parts { client: true, server: true, raft: true };
}

/// What has become of a service, known when all of it has ended.
pub(crate) struct Ended {
    /// Its own runtimes.
    pub roles: Vec<RoleRecord>,
    /// What it has stored.
    pub sessions: Vec<SessionRecord>,
}

impl<N: Host> fmt::Debug for Service<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("membership", &self.membership).finish_non_exhaustive()
    }
}

impl<N: Host> Service<N> {
    /// Starts the runtimes that the roles have besides the connections'.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start(node: &Arc<Node>, seat: Seat) -> Result<Arc<Service<N>>, ServeError> {
        let own: &[(&'static str, Parts)] = match (seat.inbox.is_some(), node.settings.roles) {
            (true, Roles::One) => &[],
            (false, Roles::One) | (_, Roles::MetaApart) => &[("meta", Parts::SERVER_AND_RAFT)],
            (_, Roles::Three) => &[("server", Parts::SERVER), ("meta", Parts::RAFT)],
        };
        let Seat { inbox, listener, store, membership } = seat;
        let service = Arc::new(Service {
            node: Arc::clone(node),
            raft: OnceLock::new(),
            inbox: Mutex::new(inbox),
            listener: Mutex::new(Some(listener)),
            store,
            membership,
            phase: AtomicU8::new(Phase::Starting as u8),
            hosts: Mutex::default(),
        });
        for (nth, &(name, parts)) in own.iter().enumerate() {
            let main = Box::pin(Arc::clone(&service).host(parts));
            match N::start(node, name, nth, main) {
                Ok(hosted) => lock(&service.hosts).push(hosted),
                Err(error) => {
                    node.halt(error.to_string());
                    service.finish()?;
                    return Err(error);
                }
            }
        }
        Ok(service)
    }

    async fn host(self: Arc<Self>, parts: Parts) {
        match self.bring_up(parts).await {
            Ok(up) => up.end().await,
            Err(reason) => self.node.halt(reason),
        }
    }

    /// Starts the roles that run with the connections; to be called on their runtime. Returns once there is a leader.
    ///
    /// # Errors
    /// One sentence.
    pub async fn join(self: &Arc<Self>) -> Result<Up<N>, ServeError> {
        let parts = if self.node.settings.roles == Roles::One { Parts::ALL } else { Parts::CLIENT };
        self.bring_up(parts).await.map_err(|reason| self.node.runtime_error(reason))
    }

    async fn bring_up(self: &Arc<Self>, parts: Parts) -> Result<Up<N>, String> {
        let mut up = Up { service: Arc::clone(self), client: None, server: None, raft: None };
        if parts.raft {
            up.raft = Some(self.start_raft().await?);
        }
        if parts.server {
            self.until(|| self.raft.get().is_some()).await?;
            let listener = lock(&self.listener).take();
            let (Some(raft), Some(listener)) = (self.raft.get(), listener) else {
                return Err("the gRPC server was started twice".to_owned());
            };
            let server = Server::start(Tasks::new(self.halt()), listener, raft.clone());
            up.server = Some(server.map_err(|error| format!("the gRPC server cannot start: {error}"))?);
        }
        if let Some((raft, tasks)) = &up.raft {
            self.wait_for_leader(raft).await?;
            tasks.spawn(Role::Raft, watch(Arc::clone(&self.node), raft.clone(), tasks.clone()));
            self.reach(Phase::Led);
        }
        if parts.client {
            self.until(|| self.phase() >= Phase::Led).await?;
            let Some(inbox) = lock(&self.inbox).take() else { return Err("the batcher was started twice".to_owned()) };
            let tasks = Tasks::new(self.halt());
            let links = Links::new(tasks.clone());
            let nodes = self.addresses();
            if let Some(&own) = nodes.first() {
                links.warm(own).await?;
            }
            let client = Client::new(links.clone(), nodes, GIVE_UP);
            up.client = Some(Running { open: batcher::run(&tasks, inbox, client), links, tasks });
        }
        Ok(up)
    }

    async fn start_raft(&self) -> Result<(RaftNode<N::Native>, Tasks<N>), String> {
        let tasks = Tasks::<N>::new(self.halt());
        let transport = RaftTransport::new(Links::new(tasks.clone()));
        let binding = Arc::clone(&self.node);
        let on_thread = move || binding.bind_blocking_thread();
        let store = Arc::clone(&self.store);
        let raft = RaftNode::start(&self.membership, &self.node.settings, store, transport, on_thread).await;
        let raft = raft.map_err(|error| error.to_string())?;
        let _first = self.raft.set(raft.clone());
        Ok((raft, tasks))
    }

    async fn wait_for_leader(&self, raft: &RaftNode<N::Native>) -> Result<(), String> {
        let started = Instant::now();
        loop {
            // In short steps, so that a run that ends before it began does not wait for them.
            match raft.wait_for_leader(LEADER_STEP).await {
                Ok(_) => return Ok(()),
                Err(reason) => {
                    if self.node.is_ending() || raft.failure().is_some() || started.elapsed() > LEADER_LIMIT {
                        return Err(self.node.failure().or(raft.failure()).unwrap_or(reason));
                    }
                }
            }
        }
    }

    /// Where the nodes listen: this one first.
    fn addresses(&self) -> Vec<SocketAddr> {
        let Membership { id, peers } = &self.membership;
        let others = peers.iter().filter(|(other, _)| *other != id);
        peers.get(id).into_iter().chain(others.map(|(_, addr)| addr)).copied().collect()
    }

    /// Whether there is a leader.
    pub fn is_led(&self) -> bool {
        self.phase() >= Phase::Led
    }

    /// To be called when the connections' runtimes have ended, however they did: waits until the service's own have.
    ///
    /// # Errors
    /// When a runtime was not as asked for, or what is stored cannot be read back.
    pub fn finish(&self) -> Result<Ended, ServeError> {
        self.reach(Phase::ClientEnded);
        let mut roles = Vec::new();
        // In the order in which they were started: the server, then the raft node.
        for hosted in std::mem::take(&mut *lock(&self.hosts)) {
            let name = hosted.name;
            let ended = hosted.join();
            if name == "server" {
                self.reach(Phase::ServerEnded);
            }
            roles.push(ended);
        }
        let roles = roles.into_iter().collect::<Result<_, _>>()?;
        let sessions = match self.raft.get() {
            Some(raft) => raft.sessions().map_err(crate::digest::DigestError::from)?,
            None => Vec::new(),
        };
        Ok(Ended { roles, sessions })
    }

    fn halt(&self) -> Halt {
        let node = Arc::clone(&self.node);
        Arc::new(move |reason| node.halt(reason))
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Led,
            2 => Phase::ClientEnded,
            _ => Phase::ServerEnded,
        }
    }

    fn reach(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// Waits for another role to start.
    async fn until(&self, is_so: impl Fn() -> bool + Send) -> Result<(), String> {
        while !is_so() {
            if self.node.is_ending() {
                return Err(self.node.failure().unwrap_or_else(|| "the run ended before it began".to_owned()));
            }
            N::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits for the roles before to end.
    async fn until_ended(&self, phase: Phase) {
        while self.phase() < phase {
            N::sleep(POLL).await;
        }
    }
}

/// Roles that run on this runtime.
#[must_use = "they must be ended"]
pub(crate) struct Up<N: Host> {
    service: Arc<Service<N>>,
    client: Option<Running<N>>,
    server: Option<Server<N>>,
    raft: Option<(RaftNode<N::Native>, Tasks<N>)>,
}

struct Running<N> {
    open: Open,
    links: Links<N>,
    tasks: Tasks<N>,
}

impl<N: Host> Up<N> {
    /// Ends them in order: the client is idle when this is called where it runs.
    pub async fn end(self) {
        let Up { service, client, server, raft } = self;
        let halt_on = |ended: Result<(), String>| match ended {
            Ok(()) => {}
            Err(reason) => service.node.halt(reason),
        };
        if let Some(Running { open, links, tasks }) = client {
            drop(open);
            links.close();
            halt_on(tasks.end().await);
            service.reach(Phase::ClientEnded);
        }
        if let Some(server) = server {
            service.until_ended(Phase::ClientEnded).await;
            halt_on(server.end().await);
            service.reach(Phase::ServerEnded);
        }
        if let Some((raft, tasks)) = raft {
            service.until_ended(Phase::ServerEnded).await;
            if service.membership.peers.len() > 1 {
                settle::<N>(&raft).await;
            }
            let failed = raft.failure();
            let stopped = raft.shutdown().await;
            // A node that failed has said why.
            halt_on(failed.map_or(stopped, Err));
            halt_on(tasks.end().await);
        }
    }
}

/// Lets a node of several, which may be a follower, learn of and apply what was acknowledged, so that what it has stored
/// is the state at the end. Longer than some heartbeats; a node that cannot get there ends as it is.
async fn settle<N: Host>(raft: &RaftNode<N::Native>) {
    let mut looks = 0;
    for _ in 0..SETTLE_STEPS_MAX {
        looks = if raft.has_applied_its_log() { looks + 1 } else { 0 };
        if looks > SETTLED_STEPS {
            return;
        }
        N::sleep(shell::TICK).await;
    }
}

/// Halts the run when the raft node stops by itself.
async fn watch<N: Host>(node: Arc<Node>, raft: RaftNode<N::Native>, tasks: Tasks<N>) {
    while !tasks.is_ending() {
        if let Some(reason) = raft.failure() {
            return node.halt(reason);
        }
        N::sleep(shell::TICK).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
