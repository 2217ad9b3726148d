//! A server that cannot do what it was asked for says so in one sentence, before it serves anyone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Server, settings};
use regauge_runtimes::settings::{LastApplied, RaftSync, Roles, Settings, Stack};
use regauge_runtimes::{ServeConfig, ServeError, Stop, serve};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

const TOKIO: [Stack; 2] = [Stack::TokioShared, Stack::TokioPinned];

fn refused(stack: Stack, settings: Settings, listen: SocketAddr, data: &Path) -> ServeError {
    let stop = Stop::new();
    let config = ServeConfig { listen, ..ServeConfig::local(stack, settings, data.to_owned()) };
    serve(config, stop, |at| panic!("it serves on {}", at.mqtt)).expect_err("it cannot serve")
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

#[test]
fn a_busy_port() {
    let holder = TcpListener::bind(any_port()).unwrap();
    for stack in TOKIO {
        let dir = tempfile::tempdir().unwrap();
        let error = refused(stack, settings(), holder.local_addr().unwrap(), dir.path());
        assert!(matches!(error, ServeError::Listen { .. }), "{error}");
        assert!(error.to_string().contains("choose a free port"), "{error}");
    }
}

/// SO_REUSEPORT would let the second server take half of the first one's connections.
#[test]
fn a_port_that_another_pinned_stack_shares_among_its_shards() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(Stack::TokioPinned, settings(), first.path());
    for threads in [1, 2] {
        let error = refused(Stack::TokioPinned, Settings { threads, ..settings() }, server.addr, second.path());
        assert!(matches!(error, ServeError::Listen { .. }), "{error}");
    }
    server.stop();
}

#[test]
fn a_cpu_that_does_not_exist() {
    for stack in TOKIO {
        let dir = tempfile::tempdir().unwrap();
        let error = refused(stack, Settings { cpus: vec![1000], ..settings() }, any_port(), dir.path());
        assert!(matches!(error, ServeError::Affinity(_)), "{error}");
        assert!(error.to_string().contains("1000"), "{error}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for stack in TOKIO {
        let error = refused(stack, settings(), any_port(), &file.join("data"));
        assert!(matches!(error, ServeError::Data { .. }), "{error}");
    }
}

#[test]
fn a_data_directory_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Stack::TokioShared, settings(), dir.path());
    let error = refused(Stack::TokioPinned, settings(), any_port(), dir.path());
    assert!(error.to_string().contains("open in another process"), "{error}");
    server.stop();
}

#[test]
fn segments_that_are_no_segments() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("segments/p0001")).unwrap();
    std::fs::write(dir.path().join("segments/p0001/notes.txt"), "x").unwrap();
    let error = refused(Stack::TokioShared, settings(), any_port(), dir.path());
    assert!(error.to_string().contains("notes.txt is no segment file"), "{error}");
}

#[test]
fn settings_that_contradict_themselves() {
    let dir = tempfile::tempdir().unwrap();
    for (settings, named) in [
        (Settings { threads: 0, ..settings() }, "threads"),
        (Settings { blocking_threads: 0, ..settings() }, "blocking_threads"),
        (Settings { partitions: 0, ..settings() }, "partitions"),
        (Settings { segment_bytes: 0, ..settings() }, "segment_bytes"),
        (Settings { role_threads: 0, ..settings() }, "role_threads"),
        (Settings { role_threads: 2, roles: Roles::One, ..settings() }, "role_threads"),
        (Settings { session_batch: 0, ..settings() }, "session_batch"),
        (Settings { nodes: 2, ..settings() }, "nodes"),
        (Settings { nodes: 3, ..settings() }, "nodes is 3, but there is no program"),
        (Settings { neighbours: 1 << 20, ..settings() }, "neighbours"),
        (Settings { last_applied: LastApplied::NoWal, raft_sync: RaftSync::All, ..settings() }, "raft_sync"),
    ] {
        let error = refused(Stack::TokioShared, settings, any_port(), dir.path());
        assert!(matches!(&error, ServeError::Settings(sentence) if sentence.starts_with(named)), "{error}");
    }
}

#[test]
fn settings_that_a_stack_does_not_have() {
    let dir = tempfile::tempdir().unwrap();
    for stack in [Stack::TokioPinned, Stack::Monoio, Stack::Compio] {
        for (settings, named) in [
            (Settings { eager_handoff: true, ..settings() }, "eager_handoff is on, but"),
            (Settings { role_threads: 2, roles: Roles::Three, ..settings() }, "role_threads is 2, but a runtime of"),
        ] {
            let error = refused(stack, settings, any_port(), dir.path());
            assert!(matches!(&error, ServeError::Settings(sentence) if sentence.starts_with(named)), "{error}");
        }
    }
}

#[test]
fn a_busy_port_of_the_meta_service() {
    let holder = TcpListener::bind(any_port()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = ServeConfig::local(Stack::TokioShared, settings(), dir.path().to_owned());
    let config = ServeConfig { meta_listen: holder.local_addr().unwrap(), ..config };
    let error = serve(config, Stop::new(), |at| panic!("it serves on {}", at.mqtt)).expect_err("it cannot serve");
    assert!(matches!(error, ServeError::Listen { .. }), "{error}");
}
