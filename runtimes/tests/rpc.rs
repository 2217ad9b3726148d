//! gRPC on every runtime's own sockets, in front of a raft node that is not one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use bytes::Bytes;
use regauge_runtimes::broker::effect::{MetaCall, MetaReply, SessionRecord};
use regauge_runtimes::meta::api::{Core, ProposeError, RaftRpc, Transport};
use regauge_runtimes::meta::rpc::net::{Compio, Halt, Monoio, Net, Tasks, Tokio};
use regauge_runtimes::meta::rpc::pb::meta_client::MetaClient;
use regauge_runtimes::meta::rpc::{Client, Links, PROPOSAL_BYTES_MAX, RaftTransport, Server, pb};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::Code;

type Asked = (u64, Vec<MetaCall>);

/// Answers as told, and notes what it was asked.
#[derive(Clone, Default)]
struct Fake {
    refuses_with: Arc<Mutex<Option<ProposeError>>>,
    seen: Arc<Mutex<Vec<Asked>>>,
    callers: Arc<Mutex<Vec<u64>>>,
}

impl Core for Fake {
    async fn propose_for(&self, caller: u64, id: u64, calls: Vec<MetaCall>) -> Result<Vec<MetaReply>, ProposeError> {
        if let Some(error) = self.refuses_with.lock().unwrap().clone() {
            return Err(error);
        }
        let reply = |call: &MetaCall| match call {
            MetaCall::OpenSession { record, clean: false, .. } if record.client == "many filters" => {
                MetaReply::Opened(Some(many_filters()))
            }
            MetaCall::OpenSession { record, clean: false, .. } => MetaReply::Opened(Some(record.clone())),
            MetaCall::OpenSession { .. } => MetaReply::Opened(None),
            _ => MetaReply::Stored,
        };
        let replies = calls.iter().map(reply).collect();
        self.seen.lock().unwrap().push((id, calls));
        self.callers.lock().unwrap().push(caller);
        Ok(replies)
    }

    async fn raft(&self, rpc: RaftRpc, message: Bytes) -> Result<Bytes, ProposeError> {
        let last = Bytes::copy_from_slice(&message[message.len().saturating_sub(1)..]);
        Ok([Bytes::from(format!("{rpc:?} {} ", message.len())), last].concat().into())
    }
}

fn record(client: &str) -> SessionRecord {
    let subscriptions = vec![("a/#".to_owned(), 2), ("b".to_owned(), 0x2d)];
    SessionRecord { client: client.to_owned(), expiry_s: 7, subscriptions, left_unix_s: Some(3) }
}

/// A session that a proposal could not bring at once.
fn many_filters() -> SessionRecord {
    let filter = |n: usize| (format!("{n}/{}", "x".repeat(60_000)), 1);
    let subscriptions: Vec<_> = (0..2 * PROPOSAL_BYTES_MAX / 60_000).map(filter).collect();
    SessionRecord { client: "many filters".to_owned(), expiry_s: 7, subscriptions, left_unix_s: None }
}

fn open(client: &str, clean: bool) -> MetaCall {
    MetaCall::OpenSession { record: record(client), clean, unix_s: 9 }
}

macro_rules! on_every_runtime {
    ($($test:ident)*) => {
        mod tokio_shared {
            $(#[test] fn $test() {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
                runtime.block_on(async { tokio::spawn(super::$test::<super::Tokio>()).await.unwrap() });
            })*
        }
        mod tokio_pinned {
            $(#[test] fn $test() {
                let options = tokio::runtime::LocalOptions::default();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(options).unwrap();
                runtime.block_on(super::$test::<super::Tokio>());
            })*
        }
        mod monoio_ring {
            $(#[test] fn $test() {
                let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer();
                builder.build().unwrap().block_on(super::$test::<super::Monoio>());
                assert!(tokio::runtime::Handle::try_current().is_err());
            })*
        }
        mod compio_ring {
            $(#[test] fn $test() {
                compio::runtime::Runtime::new().unwrap().block_on(super::$test::<super::Compio>());
                assert!(tokio::runtime::Handle::try_current().is_err());
            })*
        }
    };
}

on_every_runtime! {
    a_proposal_goes_there_and_back
    beyond_a_limit_nothing_is_proposed
    a_resumed_session_may_be_larger_than_a_proposal
    statuses_are_those_of_the_contract
    the_client_follows_the_leader
    the_client_finds_a_node_that_comes_back
    the_client_gives_up_with_a_sentence
    a_node_that_cannot_write_halts
    messages_between_nodes_pass_as_they_are
}

struct Running<N> {
    addr: SocketAddr,
    core: Fake,
    server: Server<N>,
    tasks: Tasks<N>,
    halted: Arc<Mutex<Option<String>>>,
}

fn halt_into(halted: &Arc<Mutex<Option<String>>>) -> Halt {
    let halted = Arc::clone(halted);
    Arc::new(move |reason| _ = halted.lock().unwrap().get_or_insert(reason))
}

fn start_on<N: Net>(listener: TcpListener) -> Running<N> {
    let (addr, core, halted) = (listener.local_addr().unwrap(), Fake::default(), Arc::default());
    let tasks = Tasks::new(halt_into(&halted));
    let server = Server::start(tasks.clone(), listener, core.clone()).unwrap();
    Running { addr, core, server, tasks, halted }
}

fn start<N: Net>() -> Running<N> {
    start_on(TcpListener::bind("127.0.0.1:0").unwrap())
}

fn tasks<N: Net>() -> Tasks<N> {
    Tasks::new(Arc::new(|reason| panic!("{reason}")))
}

fn client<N: Net>(tasks: &Tasks<N>, nodes: &[SocketAddr]) -> Client<N> {
    Client::new(Links::new(tasks.clone()), nodes.to_vec(), Duration::from_secs(20))
}

async fn end<N: Net>(tasks: Tasks<N>, running: Running<N>) {
    tasks.end().await.unwrap();
    running.server.end().await.unwrap();
}

async fn a_proposal_goes_there_and_back<N: Net>() {
    let (running, own) = (start::<N>(), tasks::<N>());
    let client = client(&own, &[running.addr]);
    let drop_it = MetaCall::DropSession { client: "ü".into() };
    let calls = [open("kept", false), open("clean", true), MetaCall::PutSession { record: record("p") }, drop_it];
    let replies = client.propose(42, &calls).await.unwrap();
    let expected =
        [MetaReply::Opened(Some(record("kept"))), MetaReply::Opened(None), MetaReply::Stored, MetaReply::Stored];
    assert_eq!(replies, expected);
    assert_eq!(*running.core.seen.lock().unwrap(), [(42, calls.to_vec())]);

    let many = (0..200u64).map(|n| {
        let client = client.clone();
        async move { client.propose(n, &[open(&n.to_string(), false)]).await }
    });
    for (n, replies) in futures::future::join_all(many).await.into_iter().enumerate() {
        assert_eq!(replies.unwrap(), [MetaReply::Opened(Some(record(&n.to_string())))]);
    }
    // Four connections, on both sides without Nagle's algorithm.
    assert_eq!(own.connections(), (4, true));
    assert_eq!(running.tasks.connections(), (4, true));
    end(own, running).await;
}

async fn beyond_a_limit_nothing_is_proposed<N: Net>() {
    let (running, own) = (start::<N>(), tasks::<N>());
    let client = client(&own, &[running.addr]);
    let large = open(&"x".repeat(PROPOSAL_BYTES_MAX), true);
    assert!(client.propose(1, &[large]).await.unwrap_err().contains("larger than 4 MiB; propose fewer"));
    assert!(running.core.seen.lock().unwrap().is_empty());
    client.propose(4, &[open("x", true)]).await.unwrap();
    assert_eq!(*running.halted.lock().unwrap(), None, "the caller's mistake is not the node's");
    end(own, running).await;
}

async fn a_resumed_session_may_be_larger_than_a_proposal<N: Net>() {
    let (running, own) = (start::<N>(), tasks::<N>());
    let replies = client(&own, &[running.addr]).propose(1, &[open("many filters", false)]).await.unwrap();
    assert_eq!(replies, [MetaReply::Opened(Some(many_filters()))]);
    // Who proposes comes along.
    let mut raw = MetaClient::new(Links::new(own.clone()).channel(running.addr).await.unwrap());
    let call = pb::Call { call: Some(pb::call::Call::Drop("x".into())) };
    raw.propose(pb::ProposeRequest { id: 1, calls: vec![call], caller: u64::MAX - 5 }).await.unwrap();
    assert_eq!(*running.core.callers.lock().unwrap(), [0, u64::MAX - 5]);
    drop(raw);
    end(own, running).await;
}

async fn statuses_are_those_of_the_contract<N: Net>() {
    let (running, own) = (start::<N>(), tasks::<N>());
    let mut raw = MetaClient::new(Links::new(own.clone()).channel(running.addr).await.unwrap());
    let call = pb::Call { call: Some(pb::call::Call::Drop("x".into())) };
    let request = || pb::ProposeRequest { id: 1, calls: vec![call.clone()], caller: 0 };
    let leader: SocketAddr = "[::1]:7".parse().unwrap();
    for (error, code, metadata) in [
        (ProposeError::Beyond("too much".into()), Code::ResourceExhausted, None),
        (ProposeError::Failed("no space".into()), Code::Internal, None),
        (ProposeError::NotLeader { leader: None }, Code::Unavailable, None),
        (ProposeError::NotLeader { leader: Some(leader) }, Code::Unavailable, Some("[::1]:7")),
    ] {
        *running.core.refuses_with.lock().unwrap() = Some(error.clone());
        let status = raw.propose(request()).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, error.to_string().as_str()));
        assert_eq!(status.metadata().get("leader").map(|leader| leader.to_str().unwrap()), metadata);
    }
    let large = pb::Call { call: Some(pb::call::Call::Drop("x".repeat(PROPOSAL_BYTES_MAX))) };
    let status = raw.propose(pb::ProposeRequest { id: 1, calls: vec![large], caller: 0 }).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let empty = pb::ProposeRequest { id: 1, calls: vec![pb::Call { call: None }], caller: 7 };
    assert_eq!(raw.propose(empty).await.unwrap_err().code(), Code::InvalidArgument);
    drop(raw);
    end(own, running).await;
}

async fn the_client_follows_the_leader<N: Net>() {
    let (follower, leader, own) = (start::<N>(), start::<N>(), tasks::<N>());
    *follower.core.refuses_with.lock().unwrap() = Some(ProposeError::NotLeader { leader: Some(leader.addr) });
    let client = client(&own, &[follower.addr]);
    for id in 0..3 {
        client.propose(id, &[open("x", true)]).await.unwrap();
    }
    assert_eq!(leader.core.seen.lock().unwrap().len(), 3);
    // The lead goes back: what was the leader knows nobody.
    *follower.core.refuses_with.lock().unwrap() = None;
    *leader.core.refuses_with.lock().unwrap() = Some(ProposeError::NotLeader { leader: None });
    client.propose(4, &[open("x", true)]).await.unwrap();
    assert_eq!(follower.core.seen.lock().unwrap().len(), 1);
    end(own, follower).await;
    leader.server.end().await.unwrap();
}

async fn the_client_finds_a_node_that_comes_back<N: Net>() {
    let (running, own) = (start::<N>(), tasks::<N>());
    let addr = running.addr;
    let client = client(&own, &[addr]);
    client.propose(1, &[open("x", true)]).await.unwrap();
    running.server.end().await.unwrap();
    let again = async {
        N::sleep(Duration::from_millis(100)).await;
        start_on::<N>(TcpListener::bind(addr).unwrap())
    };
    let calls = [open("y", true)];
    let (replies, running) = futures::future::join(client.propose(2, &calls), again).await;
    replies.unwrap();
    assert_eq!(running.core.seen.lock().unwrap().len(), 1);
    end(own, running).await;
}

async fn the_client_gives_up_with_a_sentence<N: Net>() {
    let own = tasks::<N>();
    // Bound, so that nobody else gets the port, and not listened on.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let nobody = socket.local_addr().unwrap().as_socket().unwrap();
    let client = Client::new(Links::new(own.clone()), vec![nobody], Duration::from_secs(1));
    let error = client.propose(1, &[open("x", true)]).await.unwrap_err();
    assert!(error.contains("did not answer within 1 s") && error.contains(&nobody.to_string()), "{error}");
    assert!(error.contains("refused") && error.ends_with("check that most of its nodes run"), "{error}");
    own.end().await.unwrap();
}

async fn a_node_that_cannot_write_halts<N: Net>() {
    let (running, own) = (start::<N>(), tasks::<N>());
    *running.core.refuses_with.lock().unwrap() = Some(ProposeError::Failed("the disk is full".into()));
    let error = client(&own, &[running.addr]).propose(1, &[open("x", true)]).await.unwrap_err();
    assert_eq!(error, "the disk is full");
    assert_eq!(running.halted.lock().unwrap().as_deref(), Some("the disk is full"));
    end(own, running).await;
}

async fn messages_between_nodes_pass_as_they_are<N: Net>() {
    let (running, own) = (start::<N>(), tasks::<N>());
    let transport = RaftTransport::new(Links::new(own.clone()));
    for (rpc, name) in [
        (RaftRpc::AppendEntries, "AppendEntries"),
        (RaftRpc::Vote, "Vote"),
        (RaftRpc::InstallSnapshot, "InstallSnapshot"),
    ] {
        // More than a proposal may have.
        let message: Bytes = vec![b'm'; 2 * PROPOSAL_BYTES_MAX].into();
        let answer = transport.call(running.addr, rpc, message).await.unwrap();
        assert_eq!(answer, format!("{name} {} m", 2 * PROPOSAL_BYTES_MAX));
    }
    end(own, running).await;
}
