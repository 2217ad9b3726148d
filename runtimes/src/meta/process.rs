//! One node of the meta-service as a process of its own: raft and gRPC without a broker.

use super::batcher;
use super::host::Host;
use super::raft::Membership;
use super::rpc::net::{Compio, Monoio, Tokio};
use super::service::{Ended, Seat, Service};
use super::store::Store;
use crate::attest::{self, RoleRecord};
use crate::iowq::{self, WorkerCpus};
use crate::segment::Layout;
use crate::server::{ServeError, Stop};
use crate::settings::{Settings, Stack};
use crate::shell::{self, Node};
use crate::{affinity, check};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Which node to run, and where.
#[derive(Debug, Clone)]
pub struct MetaConfig {
    /// Which runtime.
    pub stack: Stack,
    /// Those of an arm; what concerns connections and segments is not used.
    pub settings: Settings,
    /// Its number, from 1.
    pub id: u64,
    /// Where gRPC listens; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Its directory.
    pub data: PathBuf,
}

/// What a node reports when it has ended in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaRecord {
    /// Its number.
    pub id: u64,
    /// Sessions that it has stored.
    pub sessions: u64,
    /// Its runtimes.
    pub roles: Vec<RoleRecord>,
}

/// Runs a node until `stop` is asked for, and blocks until then. `peers` is asked for the addresses of all nodes once this
/// one is bound to its own, so that none has to be known before; `ready` is called once there is a leader.
///
/// # Errors
/// When the node cannot start as asked for, when `peers` fails, or when the node stopped because it could not write.
pub fn serve_meta(
    config: MetaConfig,
    stop: Stop,
    peers: impl FnOnce(SocketAddr) -> Result<BTreeMap<u64, SocketAddr>, String>,
    ready: impl FnOnce(SocketAddr),
) -> Result<MetaRecord, ServeError> {
    // As in `serve`: compiled once.
    serve_until(config, stop, Box::new(peers), Box::new(ready))
}

type Peers<'a> = Box<dyn FnOnce(SocketAddr) -> Result<BTreeMap<u64, SocketAddr>, String> + 'a>;

fn serve_until(
    config: MetaConfig,
    stop: Stop,
    peers: Peers<'_>,
    ready: Box<dyn FnOnce(SocketAddr) + '_>,
) -> Result<MetaRecord, ServeError> {
    let MetaConfig { stack, settings, id, listen, data } = config;
    check::check(stack, &settings)?;
    attest::raise_open_files();
    affinity::bind_process(&settings.cpus)?;
    let unusable = |source| ServeError::Data { path: data.clone(), source };
    std::fs::create_dir_all(&data).map_err(unusable)?;
    let store = Arc::new(Store::open_for(&data.join("meta"), &settings)?);
    let (listener, addr) = shell::listen_once(listen)?;
    let mut peers = peers(addr).map_err(ServeError::Settings)?;
    peers.insert(id, addr);

    let (no_broker, _nobody_asks) = batcher::channel(1);
    let node = Arc::new(Node::new(stack, settings, Layout::new(&data), no_broker, stop));
    let seat = Seat { inbox: None, listener, store, membership: Membership { id, peers } };
    let ready = Box::new(|| ready(addr));
    let ended = match stack {
        Stack::TokioShared | Stack::TokioPinned => run::<Tokio>(&node, seat, ready),
        Stack::Monoio => run::<Monoio>(&node, seat, ready),
        Stack::Compio => run::<Compio>(&node, seat, ready),
    };
    if let Some(reason) = node.failure() {
        return Err(ServeError::Halted(reason));
    }
    let Ended { roles, sessions } = ended?;
    Ok(MetaRecord { id, sessions: sessions.len() as u64, roles })
}

fn run<N: Host>(node: &Arc<Node>, seat: Seat, ready: Box<dyn FnOnce() + '_>) -> Result<Ended, ServeError> {
    let workers = match node.stack.needs_uring() {
        true => {
            iowq::require(node)?;
            Some(WorkerCpus::keep(node))
        }
        false => None,
    };
    let service = Service::<N>::start(node, seat)?;
    if node.wait_until(|| service.is_led()) {
        ready();
    }
    let _threads = node.wait();
    let ended = service.finish();
    drop(workers);
    ended
}
