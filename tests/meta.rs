//! The meta-service as three processes: replication, and the loss of a node under load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Guard, STACKS, regauge};
use regauge_runtimes::broker::effect::{MetaCall, SessionRecord};
use regauge_runtimes::meta::Store;
use regauge_runtimes::meta::rpc::net::{Tasks, Tokio};
use regauge_runtimes::meta::rpc::pb::meta_client::MetaClient;
use regauge_runtimes::meta::rpc::{Client, Links, pb};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
/// More than a store needs to open, less than a few thousand sessions.
const FILE_BYTES_MAX: u64 = 256 << 10;
const SETTINGS: &str = r#"{"blocking_threads":4,"iowq_bounded":4}"#;

struct Node {
    process: Guard,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl Node {
    fn start(stack: &str, id: u64, data: &Path) -> Node {
        let mut command = regauge();
        command.args(["meta", "--machine", "--stack", stack, "--id", &id.to_string(), "--settings", SETTINGS]);
        command.arg("--data").arg(data).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Guard(command.spawn().expect("regauge starts"));
        let stdin = process.0.stdin.take().unwrap();
        let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
        let addr = said(&mut stdout)["bound"]["meta"].as_str().unwrap().parse().unwrap();
        Node { process, stdin, stdout, addr }
    }

    fn stop(self) -> Value {
        let Node { mut process, stdin, mut stdout, .. } = self;
        drop(stdin);
        let record = said(&mut stdout);
        assert!(process.0.wait().unwrap().success(), "{record}");
        record["stopped"].clone()
    }
}

fn said(stdout: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("a node said: {line}"))
}

/// Three nodes with a leader.
fn cluster(stack: &str, dir: &Path) -> BTreeMap<u64, Node> {
    let mut nodes: BTreeMap<u64, Node> =
        (1..=3).map(|id| (id, Node::start(stack, id, &dir.join(id.to_string())))).collect();
    let peers: BTreeMap<u64, SocketAddr> = nodes.iter().map(|(id, node)| (*id, node.addr)).collect();
    for node in nodes.values_mut() {
        writeln!(node.stdin, "{}", json!({ "peers": peers })).unwrap();
    }
    for node in nodes.values_mut() {
        assert_eq!(said(&mut node.stdout)["ready"]["meta"], node.addr.to_string());
    }
    nodes
}

fn session(client: &str) -> SessionRecord {
    SessionRecord { client: client.to_owned(), expiry_s: 60, subscriptions: vec![("t".into(), 1)], left_unix_s: None }
}

/// Which node takes proposals.
async fn leader(links: &Links<Tokio>, nodes: &BTreeMap<u64, Node>) -> u64 {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        for (id, node) in nodes {
            let Ok(channel) = links.channel(node.addr).await else { continue };
            let call = pb::Call { call: Some(pb::call::Call::Drop("nobody".into())) };
            if MetaClient::new(channel)
                .propose(pb::ProposeRequest { id: 1, calls: vec![call], caller: 0 })
                .await
                .is_ok()
            {
                return *id;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no node leads");
}

/// Proposes one session after the other until told to stop, and notes what was acknowledged.
async fn load(
    client: Client<Tokio>,
    name: usize,
    acknowledged: Arc<Mutex<Vec<String>>>,
    until: Arc<Mutex<Option<usize>>>,
) {
    for n in 0.. {
        let session = session(&format!("{name}-{n}"));
        let acked = session.client.clone();
        let call = if n % 2 == 0 {
            MetaCall::PutSession { record: session }
        } else {
            MetaCall::OpenSession { record: session, clean: true, unix_s: 0 }
        };
        client.propose((name * 1_000_000 + n) as u64, &[call]).await.unwrap();
        let mut acknowledged = acknowledged.lock().unwrap();
        acknowledged.push(acked);
        if until.lock().unwrap().is_some_and(|until| acknowledged.len() >= until) {
            return;
        }
    }
}

async fn reaches(acknowledged: &Mutex<Vec<String>>, count: usize) {
    let started = Instant::now();
    while acknowledged.lock().unwrap().len() < count {
        assert!(started.elapsed() < LIMIT, "{} acknowledged", acknowledged.lock().unwrap().len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn the_kill_of_the_leader_loses_nothing_that_was_acknowledged() {
    for stack in STACKS {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes = cluster(stack, dir.path());
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let tasks = Tasks::<Tokio>::new(Arc::new(|reason| panic!("{reason}")));
            let links = Links::new(tasks.clone());
            let leading = leader(&links, &nodes).await;
            let client = Client::new(links.clone(), nodes.values().map(|node| node.addr).collect(), LIMIT);
            let until = Arc::new(Mutex::new(None));
            let loads: Vec<_> = (0..8)
                .map(|name| tokio::spawn(load(client.clone(), name, acknowledged.clone(), until.clone())))
                .collect();
            reaches(&acknowledged, 200).await;
            // SIGKILL: nothing is flushed.
            drop(nodes.remove(&leading));
            let killed_at = acknowledged.lock().unwrap().len();
            *until.lock().unwrap() = Some(killed_at + 200);
            for load in loads {
                load.await.unwrap();
            }
            assert_ne!(leader(&links, &nodes).await, leading, "{stack}");
            // Two more, so that the follower knows that all before them are committed.
            client.propose(1, &[MetaCall::PutSession { record: session("last") }]).await.unwrap();
            client.propose(2, &[MetaCall::PutSession { record: session("very last") }]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            links.close();
            drop(client);
        });
        for (id, node) in nodes {
            let record = node.stop();
            let store = Store::open(&dir.path().join(id.to_string()).join("meta")).unwrap();
            let stored: Vec<String> = store.sessions().map(|session| session.unwrap().client).collect();
            assert_eq!(record["sessions"], stored.len(), "{stack} {id}");
            for client in acknowledged.lock().unwrap().iter() {
                assert!(stored.contains(client), "{stack}: node {id} has lost {client}");
            }
        }
    }
}

/// Processes whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let parent = |entry: &std::fs::DirEntry| {
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let own = processes.filter(|entry| parent(entry) == Some(pid));
    own.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[test]
fn a_server_brings_its_two_nodes_up_and_down() {
    for stack in ["tokio-shared", "compio"] {
        let dir = tempfile::tempdir().unwrap();
        let settings = r#"{"nodes":3,"blocking_threads":4,"iowq_bounded":4}"#;
        for restart in [false, true] {
            let server = common::Server::start(stack, dir.path(), settings);
            let nodes = children(server.pid());
            assert_eq!(nodes.len(), 2, "{stack}");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(connect(server.addr, restart));
            let record = server.stop();
            assert_eq!(record["attestation"]["nodes"], 3, "{stack}: {record}");
            assert_eq!(record["digest"]["sessions"], 1, "{stack}: {record}");
            assert!(nodes.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{stack}");
        }
        // Killed, it takes them along.
        let server = common::Server::start(stack, dir.path(), settings);
        let nodes = children(server.pid());
        assert_eq!(nodes.len(), 2);
        drop(server);
        let started = Instant::now();
        while nodes.iter().any(|pid| Path::new(&format!("/proc/{pid}/exe")).exists()) {
            assert!(started.elapsed() < LIMIT, "{stack}: nodes outlive their server");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Connects a session that is kept, and leaves.
async fn connect(addr: SocketAddr, known: bool) {
    let mut options = rumqttc::MqttOptions::new("kept", addr.ip().to_string(), addr.port());
    options.set_clean_session(false);
    let (client, mut events) = rumqttc::AsyncClient::new(options, 10);
    loop {
        match events.poll().await.unwrap() {
            rumqttc::Event::Incoming(rumqttc::Incoming::ConnAck(ack)) => {
                assert_eq!(ack.session_present, known);
                client.subscribe("t", rumqttc::QoS::AtLeastOnce).await.unwrap();
            }
            rumqttc::Event::Incoming(rumqttc::Incoming::SubAck(_)) => return client.disconnect().await.unwrap(),
            _ => {}
        }
    }
}

/// A CONNECT of a session that is kept; whether it was granted.
fn open_raw(addr: SocketAddr, name: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(addr) else { return false };
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut packet = vec![0x10, 12 + name.len() as u8];
    packet.extend(b"\x00\x04MQTT\x04\x00\x00\x3c");
    packet.extend([0, name.len() as u8]);
    packet.extend(name.as_bytes());
    let mut answer = [0; 4];
    stream.write_all(&packet).is_ok() && stream.read_exact(&mut answer).is_ok() && answer == [0x20, 2, 0, 0]
}

/// Waits for a process that ends by itself.
fn ended(process: &mut Child, stack: &str) -> ExitStatus {
    let started = Instant::now();
    loop {
        match process.try_wait().unwrap() {
            Some(status) => return status,
            None => assert!(started.elapsed() < LIMIT, "{stack}: it goes on"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All that is still to be read.
fn rest(from: &mut impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

/// RocksDB cannot write any more: the server says so and ends, and every CONNACK that it gave stands for a session that
/// is there.
#[test]
fn a_full_disk_stops_the_server_with_a_clear_error() {
    for (stack, placement) in
        [("tokio-shared", "inline"), ("tokio-pinned", "offload"), ("monoio", "own-thread"), ("compio", "inline")]
    {
        let dir = tempfile::tempdir().unwrap();
        let settings = format!(r#"{{"blocking_threads":4,"iowq_bounded":4,"placement":"{placement}"}}"#);
        let mut command = regauge();
        command.args(["serve", "--machine", "--stack", stack, "--listen", "127.0.0.1:0", "--settings", &settings]);
        command.arg("--data").arg(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: both calls are async-signal-safe, and nothing else is done between fork and exec. A signal that is
        // ignored stays so: the write beyond the limit then fails with EFBIG, as one to a full disk with ENOSPC.
        unsafe {
            command.pre_exec(|| {
                let limit = libc::rlimit { rlim_cur: FILE_BYTES_MAX, rlim_max: FILE_BYTES_MAX };
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let mut server = Guard(command.spawn().unwrap());
        let _stdin = server.0.stdin.take();
        let mut stdout = BufReader::new(server.0.stdout.take().unwrap());
        let mut stderr = server.0.stderr.take().unwrap();
        // Read meanwhile: a full pipe would hold the server up.
        let complaints = std::thread::spawn(move || rest(&mut stderr));
        let addr: SocketAddr = said(&mut stdout)["ready"]["addr"].as_str().unwrap().parse().unwrap();
        let granted: Vec<String> =
            (0..20_000).map(|n| format!("client-{n}")).take_while(|name| open_raw(addr, name)).collect();
        assert!((1..20_000).contains(&granted.len()), "{stack}: {} sessions", granted.len());
        let status = ended(&mut server.0, stack);
        let text = complaints.join().unwrap() + &rest(&mut stdout);
        assert!(!status.success(), "{stack}: {text}");
        assert!(text.contains("must not acknowledge what it did not write"), "{stack}: {text}");
        assert!(!text.contains("panicked"), "{stack}: {text}");
        let store = Store::open(&dir.path().join("meta")).unwrap();
        let stored: BTreeSet<String> = store.sessions().map(|session| session.unwrap().client).collect();
        let lost: Vec<&String> = granted.iter().filter(|client| !stored.contains(*client)).collect();
        assert!(lost.is_empty(), "{stack}: acknowledged and lost: {lost:?}");
    }
}

/// A session whose filters are more than one call to the meta-service may carry: the client is told, and the node serves
/// on, also whoever proposes such a thing by gRPC.
#[test]
fn a_session_beyond_limits_is_refused_and_the_server_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = common::Server::start("tokio-pinned", dir.path(), SETTINGS);
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x3c\x00\x01a").unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    let mut codes = Vec::new();
    for n in 0..24_u8 {
        let filter = format!("{n:02}/{}", "x".repeat(60_000));
        let length = filter.len() + 5;
        let mut packet = vec![0x82, length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8, 0, n + 1];
        packet.extend((filter.len() as u16).to_be_bytes());
        packet.extend(filter.as_bytes());
        packet.push(1);
        stream.write_all(&packet).unwrap();
        let mut suback = [0; 5];
        stream.read_exact(&mut suback).unwrap();
        assert_eq!(suback[..4], [0x90, 3, 0, n + 1]);
        codes.push(suback[4]);
    }
    let granted = codes.iter().take_while(|code| **code == 1).count();
    assert!((8..17).contains(&granted) && codes[granted..].iter().all(|code| *code == 0x80), "{codes:?}");
    assert!(open_raw(server.addr, "another"), "the server goes on");
    let record = server.stop();
    assert_eq!(record["digest"]["sessions"], 2, "{record}");
}
