//! The meta-service on the connections' runtime and on its own: the same replies and state, and what was asked is used.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Client, Server, block_on, settings};
use regauge_runtimes::ServerRecord;
use regauge_runtimes::settings::{LastApplied, MetaStore, Placement, RaftSync, Roles, Settings, Stack};
use rumqttc::QoS;
use std::path::Path;

/// Sessions that come and go side by side, some kept, some not.
fn work(stack: Stack, settings: &Settings, data: &Path) -> ServerRecord {
    let server = Server::start(stack, settings.clone(), data);
    block_on(async {
        let connect = |n: usize| async move {
            let (mut client, ack) = Client::connect(server.addr, &format!("c{n}"), n.is_multiple_of(3)).await;
            client.subscribe(&format!("t/{n}"), QoS::AtLeastOnce).await;
            client.publish("t/x", QoS::AtLeastOnce, "x").await;
            client.disconnect().await;
            ack.session_present
        };
        let first = futures::future::join_all((0..60).map(connect)).await;
        assert!(first.iter().all(|present| !present));
        let second = futures::future::join_all((0..60).map(connect)).await;
        let kept: Vec<bool> = (0..60).map(|n: usize| !n.is_multiple_of(3)).collect();
        assert_eq!(second, kept);
    });
    server.stop()
}

#[test]
fn roles_and_placements_lead_to_the_same_state() {
    let mut base: Option<ServerRecord> = None;
    for stack in Stack::ALL {
        for (roles, placement, last_applied, raft_sync, session_batch, durable_sessions) in [
            (Roles::One, Placement::Inline, LastApplied::OwnWrite, RaftSync::None, 100, true),
            (Roles::One, Placement::OwnThread, LastApplied::Merged, RaftSync::All, 1, true),
            (Roles::MetaApart, Placement::Offload, LastApplied::NoWal, RaftSync::Log, 7, true),
            (Roles::Three, Placement::Offload, LastApplied::OwnDb, RaftSync::Log, 100, false),
            (Roles::Three, Placement::OwnThread, LastApplied::OwnWrite, RaftSync::None, 1, true),
        ] {
            let meta_store = if roles == Roles::One { MetaStore::Memory } else { MetaStore::Disk };
            let arm = Settings { roles, placement, last_applied, raft_sync, session_batch, ..settings() };
            let arm = Settings { durable_sessions, meta_store, ..arm };
            let dir = tempfile::tempdir().unwrap();
            let record = work(stack, &arm, dir.path());
            assert_eq!(record.digest.sessions, 40, "{stack} {arm:?}");
            let base = base.get_or_insert_with(|| record.clone());
            assert_eq!(
                (&record.digest.meta, record.counters.broker.meta_calls),
                (&base.digest.meta, base.counters.broker.meta_calls),
                "{stack} {arm:?}"
            );

            let attested = &record.attestation;
            assert_eq!((attested.roles, attested.placement, attested.last_applied), (roles, placement, last_applied));
            assert_eq!(
                (attested.raft_sync, attested.session_batch, attested.meta_store),
                (raft_sync, session_batch, meta_store)
            );
            assert_eq!((attested.durable_sessions, attested.nodes), (durable_sessions, 1));
            let named: Vec<&str> = attested.role_runtimes.iter().map(|runtime| runtime.role.as_str()).collect();
            let expected: &[&str] = match roles {
                Roles::One => &[],
                Roles::MetaApart => &["meta"],
                Roles::Three => &["server", "meta"],
            };
            assert_eq!(named, expected, "{stack}");
            for role in expected {
                let thread = format!("{role}-0");
                assert!(
                    attested.threads.iter().any(|t| t.name == thread),
                    "{stack}: {thread} in {:?}",
                    attested.threads
                );
            }
            if stack.needs_uring() {
                assert_eq!(attested.rings, 2 + expected.len(), "{stack}");
                assert!(attested.role_runtimes.iter().all(|runtime| runtime.iowq_bounded == Some(4)));
            }
            let own_thread = attested.threads.iter().any(|t| t.name == "meta-rocksdb");
            assert_eq!(own_thread, placement == Placement::OwnThread, "{stack}");
        }
    }
}

#[test]
fn what_only_the_shared_stack_has() {
    let dir = tempfile::tempdir().unwrap();
    let arm = Settings { roles: Roles::Three, role_threads: 2, eager_handoff: true, neighbours: 2, ..settings() };
    let record = work(Stack::TokioShared, &arm, dir.path());
    let attested = record.attestation;
    assert!(attested.eager_handoff);
    assert_eq!(attested.neighbours, 2);
    assert!(attested.role_runtimes.iter().all(|runtime| runtime.threads == 2), "{:?}", attested.role_runtimes);
    for name in ["meta-1", "server-1", "neighbour-0", "neighbour-1"] {
        assert!(attested.threads.iter().any(|thread| thread.name == name), "{name} in {:?}", attested.threads);
    }
}
