//! What tests of the meta-service share: single nodes, and clusters in one process.
#![allow(dead_code, reason = "each test takes what it needs")]

use bytes::Bytes;
use regauge_runtimes::broker::effect::{MetaCall, SessionRecord};
use regauge_runtimes::meta::api::{Core, RaftRpc, Transport};
use regauge_runtimes::meta::native::Native;
use regauge_runtimes::meta::network::Alone;
use regauge_runtimes::meta::raft::{Membership, RaftNode};
use regauge_runtimes::meta::{Store, StoreError};
use regauge_runtimes::settings::Settings;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Long enough for a loaded machine; reached only by what hangs.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A session without subscriptions.
pub fn record(client: &str, expiry_s: u32) -> SessionRecord {
    SessionRecord { client: client.into(), expiry_s, subscriptions: Vec::new(), left_unix_s: None }
}

/// Opens a session.
pub fn open(client: &str, unix_s: u64) -> MetaCall {
    MetaCall::OpenSession { record: record(client, 60), clean: false, unix_s }
}

/// Writes a session.
pub fn put(record: SessionRecord) -> MetaCall {
    MetaCall::PutSession { record }
}

/// Node 1 without others.
pub fn member_alone() -> Membership {
    Membership { id: 1, peers: [(1, addr(1))].into() }
}

/// One of three nodes.
pub fn member(id: u64) -> Membership {
    Membership { id, peers: (1..=3).map(|id| (id, addr(id))).collect() }
}

fn addr(id: u64) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], id as u16))
}

/// Starts a node that is alone, in `dir`, and waits until it leads.
pub async fn alone<N: Native>(settings: &Settings, dir: &Path) -> RaftNode<N> {
    let store = Arc::new(Store::open_for(&dir.join("meta"), settings).unwrap());
    let node = RaftNode::<N>::start(&member_alone(), settings, store, Alone, || {}).await.unwrap();
    assert_eq!(node.wait_for_leader(LIMIT).await.unwrap(), 1);
    node
}

/// Three nodes in one process. A node that is not on the board neither sends nor receives.
#[derive(Debug)]
pub struct Switchboard<N: Native> {
    nodes: Arc<Mutex<BTreeMap<u64, RaftNode<N>>>>,
}

impl<N: Native> Default for Switchboard<N> {
    fn default() -> Self {
        Switchboard { nodes: Arc::default() }
    }
}

/// The way of one node to the others.
#[derive(Debug)]
pub struct Line<N: Native> {
    nodes: Arc<Mutex<BTreeMap<u64, RaftNode<N>>>>,
    from: u64,
}

impl<N: Native> Clone for Line<N> {
    fn clone(&self) -> Self {
        Line { nodes: Arc::clone(&self.nodes), from: self.from }
    }
}

impl<N: Native> Transport for Line<N> {
    async fn call(&self, to: SocketAddr, rpc: RaftRpc, message: Bytes) -> Result<Bytes, String> {
        let node = {
            let nodes = self.nodes.lock().unwrap();
            let dead = || format!("{to} is dead");
            nodes.get(&self.from).and(nodes.get(&u64::from(to.port()))).cloned().ok_or_else(dead)?
        };
        node.raft(rpc, message).await.map_err(|error| error.to_string())
    }
}

impl<N: Native> Switchboard<N> {
    /// Starts a node.
    pub async fn start(&self, id: u64, settings: &Settings, dir: &Path) {
        // A message to the node that was here before may still be ending.
        let store = loop {
            match Store::open_for(&dir.join("meta"), settings) {
                Err(StoreError::Locked { .. }) => N::sleep(Duration::from_millis(10)).await,
                opened => break Arc::new(opened.unwrap()),
            }
        };
        let line = Line { nodes: Arc::clone(&self.nodes), from: id };
        let node = RaftNode::<N>::start(&member(id), settings, store, line, || {}).await.unwrap();
        self.nodes.lock().unwrap().insert(id, node);
    }

    /// Cuts a node off and ends it.
    pub async fn kill(&self, id: u64) {
        let node = self.nodes.lock().unwrap().remove(&id).unwrap();
        node.shutdown().await.unwrap();
    }

    /// A running node.
    pub fn node(&self, id: u64) -> RaftNode<N> {
        self.nodes.lock().unwrap()[&id].clone()
    }

    /// All running nodes.
    pub fn nodes(&self) -> Vec<RaftNode<N>> {
        self.nodes.lock().unwrap().values().cloned().collect()
    }

    /// All running nodes but one.
    pub fn others(&self, id: u64) -> Vec<RaftNode<N>> {
        self.nodes.lock().unwrap().iter().filter(|(other, _)| **other != id).map(|(_, node)| node.clone()).collect()
    }

    /// Opens a session, by whichever node leads; tries again while none does. Returns who did.
    pub async fn propose(&self, client: &str) -> u64 {
        for _ in 0..600 {
            let ids: Vec<_> = self.nodes.lock().unwrap().keys().copied().collect();
            for id in ids {
                if self.node(id).propose(id, vec![open(client, 0)]).await.is_ok() {
                    return id;
                }
            }
            N::sleep(Duration::from_millis(100)).await;
        }
        panic!("no node leads");
    }
}
