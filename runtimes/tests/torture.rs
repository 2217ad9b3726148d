//! kill -9 while proposals are under way, and a disk that is full: what was acknowledged is there after a restart.
//!
//! The node that dies is a process of its own: this test's executable, started again for [`child`] alone. It opens
//! sessions, drops every second one of them, and writes one per client again and again; it prints what was acknowledged; the parent kills it at some moment, opens the store and looks. `TORTURE_ROUNDS` says how
//! often per stack (`just torture-raft`: 50). A kill leaves the page cache: what a loss of power would take is not
//! tested here.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod meta;

use meta::{LIMIT, alone, member_alone, open, put, record};
use openraft::AsyncRuntime;
use regauge_runtimes::broker::effect::MetaCall;
use regauge_runtimes::meta::Store;
use regauge_runtimes::meta::api::{Core, ProposeError};
use regauge_runtimes::meta::native::{CompioNative, MonoioNative, Native, TokioNative};
use regauge_runtimes::meta::network::Alone;
use regauge_runtimes::meta::raft::RaftNode;
use regauge_runtimes::settings::{LastApplied, Placement, RaftSync, Settings};
use regauge_runtimes::stamps::Role;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

const CLIENTS: usize = 16;
const FULL_AT_BYTES: u64 = 256 << 10;

/// Another combination in each round: a store must stand changes between them, too.
fn settings(round: usize) -> Settings {
    let modes = [LastApplied::OwnWrite, LastApplied::Merged, LastApplied::NoWal, LastApplied::OwnDb];
    Settings {
        placement: [Placement::Offload, Placement::Inline, Placement::OwnThread][round % 3],
        raft_sync: [RaftSync::Log, RaftSync::All][round % 2],
        last_applied: modes[round / 2 % 4],
        durable_sessions: round % 5 != 4,
        ..Settings::default()
    }
}

fn say(line: &str) {
    // Not println!, which the test's harness would keep to itself.
    std::io::stdout().write_all(format!("\n> {line}\n").as_bytes()).unwrap();
}

#[test]
#[ignore = "the process that the other tests start and kill"]
fn child() {
    let var = |name: &str| std::env::var(name).unwrap();
    let (dir, round) = (var("TORTURE_DIR"), var("TORTURE_ROUND").parse().unwrap());
    if var("TORTURE_FULL") == "yes" {
        let limit = rustix::process::Rlimit { current: Some(FULL_AT_BYTES), maximum: Some(FULL_AT_BYTES) };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
        // SAFETY: ignoring a signal has no preconditions. It turns the signal at the limit into the error EFBIG.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    }
    let dir = Path::new(&dir);
    match var("TORTURE_STACK").as_str() {
        "tokio-shared" => TokioNative.block_on(load::<TokioNative>(dir, round)),
        "tokio-pinned" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, load::<TokioNative>(dir, round));
        }
        "monoio" => MonoioNative.block_on(load::<MonoioNative>(dir, round)),
        "compio" => CompioNative.block_on(load::<CompioNative>(dir, round)),
        other => panic!("{other}"),
    }
}

/// Proposes for as long as it is let, or until the node fails.
async fn load<N: Native>(dir: &Path, round: usize) {
    let node = alone::<N>(&settings(round), dir).await;
    let (failed, failures) = flume::unbounded();
    for client in 0..CLIENTS {
        let (node, failed) = (node.clone(), failed.clone());
        N::start(Role::Raft, async move {
            for n in 0_u64.. {
                let opened = |n: u64| format!("{round}-{client}-{n}");
                // Versions grow from round to round.
                let (kept, version) = (format!("kept-{client}"), (round as u64) << 20 | n);
                let (call, done) = match n % 4 {
                    0 | 1 => (open(&opened(n), n), format!("acknowledged {}", opened(n))),
                    2 => {
                        say(&format!("dropping {}", opened(n - 1)));
                        (MetaCall::DropSession { client: opened(n - 1) }, format!("dropped {}", opened(n - 1)))
                    }
                    _ => (put(record(&kept, version as u32)), format!("written {kept} {version}")),
                };
                match node.propose(n, vec![call]).await {
                    Ok(_) => say(&done),
                    Err(ProposeError::Failed(error)) => return failed.send(error).unwrap(),
                    Err(other) => panic!("{other}"),
                }
            }
        });
    }
    for _ in 0..CLIENTS {
        let error = failures.recv_async().await.unwrap();
        assert_eq!(Some(&error), node.failure().as_ref(), "its owner is told the same");
        say(&format!("failed {error}"));
    }
}

struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    fn start(stack: &str, dir: &Path, round: usize, full: &str) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env("TORTURE_STACK", stack)
            .env("TORTURE_DIR", dir)
            .env("TORTURE_ROUND", round.to_string())
            .env("TORTURE_FULL", full)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let said =
                stdout.lines().map_while(Result::ok).filter_map(|line| Some(line.strip_prefix("> ")?.to_owned()));
            said.for_each(|line| sender.send(line).unwrap_or(()));
        });
        Process { child, lines }
    }
}

/// What a process said of what became of its proposals.
#[derive(Default)]
struct Acknowledged {
    opened: BTreeSet<String>,
    /// Proposed: they may be there or not.
    dropping: BTreeSet<String>,
    dropped: BTreeSet<String>,
    /// The last version of each.
    written: BTreeMap<String, u32>,
}

impl Acknowledged {
    fn hear(&mut self, line: &str) {
        let (what, name) = line.split_once(' ').unwrap();
        match what {
            "acknowledged" => _ = self.opened.insert(name.to_owned()),
            "dropping" => _ = self.dropping.insert(name.to_owned()),
            "dropped" => _ = self.dropped.insert(name.to_owned()),
            "written" => {
                let (name, version) = name.split_once(' ').unwrap();
                self.written.insert(name.to_owned(), version.parse().unwrap());
            }
            other => panic!("{other}"),
        }
    }
}

/// Opens the store and compares. What was under way at the kill may be there or not.
fn look(dir: &Path, round: usize, acknowledged: &Acknowledged) {
    TokioNative.block_on(async {
        let store = Arc::new(Store::open_for(&dir.join("meta"), &settings(round)).unwrap());
        let node =
            RaftNode::<TokioNative>::start(&member_alone(), &settings(round), store, Alone, || {}).await.unwrap();
        node.wait_for_leader(LIMIT).await.unwrap();
        // All that the log holds is applied before this is.
        node.propose(0, vec![open("afterwards", 0)]).await.unwrap();
        let sessions: BTreeMap<_, _> =
            node.sessions().unwrap().into_iter().map(|session| (session.client, session.expiry_s)).collect();
        let Acknowledged { opened, dropping, dropped, written } = acknowledged;
        let lost: Vec<_> = opened.difference(dropping).filter(|name| !sessions.contains_key(*name)).collect();
        assert!(lost.is_empty(), "round {round}: {} of {} are lost: {lost:?}", lost.len(), opened.len());
        let back: Vec<_> = dropped.iter().filter(|name| sessions.contains_key(*name)).collect();
        assert!(back.is_empty(), "round {round}: {} of {} came back: {back:?}", back.len(), dropped.len());
        let is_old = |(name, version): &(&String, &u32)| sessions.get(*name).is_none_or(|stored| stored < version);
        let old: Vec<_> = written.iter().filter(is_old).collect();
        assert!(old.is_empty(), "round {round}: older than acknowledged: {old:?}");
        node.shutdown().await.unwrap();
    });
}

fn torture(stack: &str) {
    let rounds = std::env::var("TORTURE_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut all = Acknowledged::default();
    for round in 0..rounds {
        let Process { mut child, lines } = Process::start(stack, dir.path(), round, "no");
        all.hear(&lines.recv_timeout(LIMIT).unwrap());
        let more = RandomState::new().hash_one(round) % 500;
        std::thread::sleep(Duration::from_millis(more));
        child.kill().unwrap();
        child.wait().unwrap();
        lines.iter().for_each(|line| all.hear(&line));
        look(dir.path(), round, &all);
    }
    let Acknowledged { opened, dropped, written, .. } = &all;
    println!("{stack}: killed {rounds} times, {} opened, {} dropped, none lost", opened.len(), dropped.len());
    assert!(opened.len() > rounds && !dropped.is_empty() && !written.is_empty(), "hardly anything was under way");
}

#[test]
fn what_tokio_shared_acknowledged_survives_a_kill() {
    torture("tokio-shared");
}

#[test]
fn what_tokio_pinned_acknowledged_survives_a_kill() {
    torture("tokio-pinned");
}

#[test]
fn what_monoio_acknowledged_survives_a_kill() {
    torture("monoio");
}

#[test]
fn what_compio_acknowledged_survives_a_kill() {
    torture("compio");
}

/// The limit of a file's size stands in for the disk's: both fail RocksDB's write(2).
#[test]
fn a_full_disk_stops_the_node_and_loses_nothing() {
    for (round, stack) in ["tokio-shared", "monoio", "compio"].into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let Process { mut child, lines } = Process::start(stack, dir.path(), round, "yes");
        let (mut all, mut failures) = (Acknowledged::default(), Vec::new());
        for line in lines {
            match line.strip_prefix("failed ") {
                Some(failure) => failures.push(failure.to_owned()),
                None => all.hear(&line),
            }
        }
        assert!(child.wait().unwrap().success());
        assert_eq!(failures.len(), CLIENTS, "every client is told: {failures:?}");
        for failure in &failures {
            let says = ["File too large", "the node stops", "see that the disk has space", "meta"];
            assert!(says.iter().all(|part| failure.contains(part)), "{failure}");
        }
        assert!(!all.opened.is_empty());
        look(dir.path(), round, &all);
    }
}
