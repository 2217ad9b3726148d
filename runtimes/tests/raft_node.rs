//! Nodes of the meta-service as a whole: the same proposals give the same sessions with every setting on every runtime,
//! also after a restart; and a cluster loses nothing that it acknowledged when its leader dies.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod meta;

use meta::{LIMIT, Switchboard, alone, member, open, put, record};
use openraft::AsyncRuntime;
use proptest::prelude::*;
use regauge_runtimes::broker::effect::{MetaCall, MetaReply, SessionRecord};
use regauge_runtimes::meta::api::{Core, ProposeError, RaftRpc};
use regauge_runtimes::meta::keys;
use regauge_runtimes::meta::native::{CompioNative, MonoioNative, Native, TokioNative};
use regauge_runtimes::meta::network::Alone;
use regauge_runtimes::meta::raft::{CALLS_MAX, PROPOSAL_BYTES_MAX, RaftNode, StartError};
use regauge_runtimes::meta::sessions::InMemory;
use regauge_runtimes::meta::types::{Entry, LeaderId, LogId, Payload, Proposal};
use regauge_runtimes::meta::{Store, StoreError};
use regauge_runtimes::settings::{LastApplied, MetaStore, Placement, RaftSync, Settings};
use std::path::Path;
use std::sync::Arc;

/// Proposals that touch the same sessions again and again, alone and in batches.
fn proposals() -> Vec<Vec<MetaCall>> {
    let left = |client: &str, unix_s| SessionRecord { left_unix_s: Some(unix_s), ..record(client, 60) };
    vec![
        vec![open("a", 100), open("b", 100), open("c", 100)],
        vec![put(SessionRecord { subscriptions: vec![("t/#".into(), 1)], ..left("a", 110) })],
        vec![put(left("b", 110)), MetaCall::DropSession { client: "c".into() }, open("c", 120)],
        vec![open("a", 130)],
        vec![open("b", 1000), MetaCall::DropSession { client: "gone".into() }],
    ]
}

/// What those must lead to, by the rules alone.
fn expected() -> (Vec<Vec<MetaReply>>, Vec<SessionRecord>) {
    let memory = InMemory::new(Vec::new());
    let replies = proposals().into_iter().map(|calls| memory.route(calls).unwrap()).collect();
    (replies, memory.sorted())
}

/// Proposes, restarts, proposes the rest, restarts, and compares.
async fn survives_restarts<N: Native>(settings: Settings) {
    let dir = tempfile::tempdir().unwrap();
    let mut replies = Vec::new();
    for (start, part) in proposals().chunks(3).enumerate() {
        let node = alone::<N>(&settings, dir.path()).await;
        for (n, calls) in part.iter().enumerate() {
            replies.push(node.propose((start * 3 + n) as u64, calls.clone()).await.unwrap());
        }
        if start == 0 {
            // What lives in memory alone must come back from a snapshot and from the log after it.
            node.openraft().trigger().snapshot().await.unwrap();
            let wait = node.openraft().wait(Some(LIMIT));
            wait.metrics(|metrics| metrics.snapshot.is_some(), "a snapshot").await.unwrap();
            let late = vec![put(record("late", 7))];
            assert_eq!(node.propose(99, late).await.unwrap(), [MetaReply::Stored]);
        }
        node.shutdown().await.unwrap();
    }
    let node = alone::<N>(&settings, dir.path()).await;
    node.propose(100, vec![MetaCall::DropSession { client: "late".into() }]).await.unwrap();
    assert_eq!(replies, expected().0, "{settings:?}");
    assert_eq!(node.sessions().unwrap(), expected().1, "{settings:?}");
    node.shutdown().await.unwrap();
    assert_eq!(node.sessions().unwrap(), expected().1, "also after its end");
    assert_eq!(node.failure(), None, "to be shut down is no failure");
}

fn every_setting_survives_restarts<N: Native>() {
    for placement in [Placement::Inline, Placement::Offload, Placement::OwnThread] {
        for raft_sync in [RaftSync::None, RaftSync::Log, RaftSync::All] {
            for last_applied in [LastApplied::OwnWrite, LastApplied::Merged, LastApplied::NoWal, LastApplied::OwnDb] {
                for durable_sessions in [true, false] {
                    let settings =
                        Settings { placement, raft_sync, last_applied, durable_sessions, ..Settings::default() };
                    N::default().block_on(survives_restarts::<N>(settings));
                }
            }
        }
    }
}

#[test]
fn every_setting_survives_restarts_on_tokio() {
    every_setting_survives_restarts::<TokioNative>();
}

#[test]
fn every_setting_survives_restarts_on_monoio() {
    every_setting_survives_restarts::<MonoioNative>();
}

#[test]
fn every_setting_survives_restarts_on_compio() {
    every_setting_survives_restarts::<CompioNative>();
}

/// A client that got no answer proposes again, with the same id: it is applied once, also after a restart.
async fn a_repeated_proposal_is_applied_once<N: Native>(durable_sessions: bool) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { durable_sessions, raft_sync: RaftSync::None, ..Settings::default() };
    let node = alone::<N>(&settings, dir.path()).await;
    let again = |node: RaftNode<N>| async move { node.propose(5, vec![open("a", 0)]).await.unwrap() };
    assert_eq!(again(node.clone()).await, [MetaReply::Opened(None)]);
    assert_eq!(again(node.clone()).await, [MetaReply::Opened(None)], "as the first time: it opened the session itself");
    assert_eq!(node.propose(5, vec![open("b", 0)]).await.unwrap(), [MetaReply::Opened(None)], "other calls");
    assert!(matches!(node.propose(6, vec![open("a", 0)]).await.unwrap()[..], [MetaReply::Opened(Some(_))]));
    // What came in between stays.
    node.propose(7, vec![MetaCall::DropSession { client: "a".into() }]).await.unwrap();
    assert_eq!(again(node.clone()).await, [MetaReply::Opened(None)]);
    let clients = |node: &RaftNode<N>| node.sessions().unwrap().into_iter().map(|s| s.client).collect::<Vec<_>>();
    assert_eq!(clients(&node), ["b"]);
    // What lives in memory alone comes back from the snapshot.
    node.openraft().trigger().snapshot().await.unwrap();
    let wait = node.openraft().wait(Some(LIMIT));
    wait.metrics(|metrics| metrics.snapshot.is_some(), "a snapshot").await.unwrap();
    node.shutdown().await.unwrap();
    drop(node);
    let node = alone::<N>(&settings, dir.path()).await;
    assert_eq!(again(node.clone()).await, [MetaReply::Opened(None)]);
    assert_eq!(clients(&node), ["b"], "durable sessions: {durable_sessions}");
    node.shutdown().await.unwrap();
}

#[test]
fn a_proposal_that_comes_again_is_answered_as_the_first_time() {
    for durable_sessions in [true, false] {
        TokioNative.block_on(a_repeated_proposal_is_applied_once::<TokioNative>(durable_sessions));
        MonoioNative.block_on(a_repeated_proposal_is_applied_once::<MonoioNative>(durable_sessions));
        CompioNative.block_on(a_repeated_proposal_is_applied_once::<CompioNative>(durable_sessions));
    }
}

/// The same calls under the same id by another caller are another proposal.
#[test]
fn callers_that_number_alike_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    TokioNative.block_on(async {
        let node = alone::<TokioNative>(&Settings::default(), dir.path()).await;
        let mut resumed = Vec::new();
        for caller in [1, 1, 2, 2, 0] {
            let replies = node.propose_for(caller, 5, vec![open("a", 0)]).await.unwrap();
            resumed.push(matches!(replies[..], [MetaReply::Opened(Some(_))]));
        }
        assert_eq!(resumed, [false, false, true, true, true]);
        node.shutdown().await.unwrap();
    });
}

/// A restarted node that knows for sure of no applied entry applies all of them again, also those whose answers it has
/// forgotten: what was acknowledged last is what is there.
async fn what_came_last_stays<N: Native>() {
    let dir = tempfile::tempdir().unwrap();
    // Of two databases that may have come differently far, only what a snapshot covers is sure; there is none yet.
    let settings = Settings { last_applied: LastApplied::OwnDb, raft_sync: RaftSync::None, ..Settings::default() };
    let version = |n: u32| put(record("a", n));
    let large = SessionRecord { subscriptions: vec![("x".repeat(900_000), 1)], ..record("large", u32::MAX) };
    let node = alone::<N>(&settings, dir.path()).await;
    node.propose(0, vec![version(1)]).await.unwrap();
    node.propose(1, vec![open("opened", 0)]).await.unwrap();
    node.propose(2, vec![put(large)]).await.unwrap();
    // Answers of 36 MB, so that those to the first entries are forgotten.
    for n in 3..43 {
        assert!(matches!(node.propose(n, vec![open("large", n)]).await.unwrap()[..], [MetaReply::Opened(Some(_))]));
    }
    node.propose(43, vec![version(2)]).await.unwrap();
    node.propose(44, vec![MetaCall::DropSession { client: "opened".into() }]).await.unwrap();
    assert_eq!(node.propose(45, vec![open("late", 0)]).await.unwrap(), [MetaReply::Opened(None)]);
    let before = node.sessions().unwrap();
    node.shutdown().await.unwrap();
    drop(node);
    let node = alone::<N>(&settings, dir.path()).await;
    node.propose(46, vec![open("after", 0)]).await.unwrap();
    let mut after = node.sessions().unwrap();
    after.retain(|session| session.client != "after");
    let names = |sessions: &[SessionRecord]| -> Vec<_> {
        sessions.iter().map(|session| (session.client.clone(), session.expiry_s)).collect()
    };
    assert_eq!(names(&after), [("a".to_owned(), 2), ("large".to_owned(), 60), ("late".to_owned(), 60)]);
    assert!(after == before, "filters are there too");
    // Answered as the first time, though it found its own session when it was applied again.
    assert_eq!(node.propose(45, vec![open("late", 0)]).await.unwrap(), [MetaReply::Opened(None)]);
    node.shutdown().await.unwrap();
}

#[test]
fn what_is_applied_again_ends_as_it_did() {
    TokioNative.block_on(what_came_last_stays::<TokioNative>());
    MonoioNative.block_on(what_came_last_stays::<MonoioNative>());
    CompioNative.block_on(what_came_last_stays::<CompioNative>());
}

/// What was written with one setting is read with another.
#[test]
fn settings_may_change_between_runs() {
    let modes = [LastApplied::OwnDb, LastApplied::NoWal, LastApplied::Merged, LastApplied::OwnWrite];
    let dir = tempfile::tempdir().unwrap();
    TokioNative.block_on(async {
        for (run, durable_sessions) in [true, false, true, false, true].into_iter().enumerate() {
            let settings = Settings { durable_sessions, last_applied: modes[run % 4], ..Settings::default() };
            let node = alone::<TokioNative>(&settings, dir.path()).await;
            node.propose(run as u64, vec![open(&format!("client-{run}"), 0)]).await.unwrap();
            let clients: Vec<_> = node.sessions().unwrap().into_iter().map(|session| session.client).collect();
            assert_eq!(clients, (0..=run).map(|run| format!("client-{run}")).collect::<Vec<_>>());
            node.shutdown().await.unwrap();
        }
    });
}

/// Three nodes on one runtime; the leader dies, twice; then a node without a log is given a snapshot.
async fn keeps_what_it_acknowledged<N: Native>() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let settings = Settings { raft_sync: RaftSync::None, ..Settings::default() };
    let board = Switchboard::<N>::default();
    for id in [1, 2] {
        board.start(id, &settings, dirs[id as usize - 1].path()).await;
    }
    // Node 3 comes late: two of three are enough. What they purge meanwhile it must get as a snapshot.
    let leader = board.propose("before").await;
    let covered = {
        let node = board.node(leader);
        node.openraft().trigger().snapshot().await.unwrap();
        let wait = node.openraft().wait(Some(LIMIT));
        let built = wait.metrics(|metrics| metrics.snapshot.is_some(), "a snapshot").await.unwrap();
        let covered = built.snapshot.unwrap().index;
        node.openraft().trigger().purge_log(covered).await.unwrap();
        wait.metrics(|metrics| metrics.purged.is_some(), "a purge").await.unwrap();
        covered
    };
    board.start(3, &settings, dirs[2].path()).await;
    board
        .node(3)
        .openraft()
        .wait(Some(LIMIT))
        .metrics(|m| m.last_applied.is_some_and(|id| id.index >= covered), "it")
        .await
        .unwrap();
    assert_eq!(board.node(3).sessions().unwrap(), [record("before", 60)]);

    let mut acknowledged = vec!["before".to_owned()];
    for death in 0..2 {
        for n in 0..20 {
            let client = format!("death-{death}-{n}");
            board.propose(&client).await;
            acknowledged.push(client);
        }
        let leader = board.propose("last words").await;
        // One that was just started again may not have heard from the leader yet.
        let other = board.others(leader).remove(0);
        let wait = other.openraft().wait(Some(LIMIT));
        wait.metrics(|metrics| metrics.current_leader == Some(leader), "the leader").await.unwrap();
        let refused = other.propose(1, vec![open("refused", 0)]).await.unwrap_err();
        assert_eq!(refused, ProposeError::NotLeader { leader: Some(member(leader).peers[&leader]) });
        board.kill(leader).await;
        let successor = board.propose("successor").await;
        assert_ne!(successor, leader);
        board.start(leader, &settings, dirs[leader as usize - 1].path()).await;
    }
    acknowledged.extend(["last words", "successor"].map(String::from));
    acknowledged.sort();
    let (leader, last) = (board.propose("last words").await, "last words");
    let applied = board.node(leader).openraft().metrics();
    let index = openraft::async_runtime::WatchReceiver::borrow_watched(&applied).last_applied.unwrap().index;
    for node in board.nodes() {
        let wait = node.openraft().wait(Some(LIMIT));
        wait.metrics(|m| m.last_applied.is_some_and(|id| id.index >= index), last).await.unwrap();
        let clients: Vec<_> = node.sessions().unwrap().into_iter().map(|session| session.client).collect();
        assert_eq!(clients, acknowledged);
        node.shutdown().await.unwrap();
    }
}

#[test]
fn a_cluster_keeps_what_it_acknowledged_on_tokio() {
    TokioNative.block_on(keeps_what_it_acknowledged::<TokioNative>());
}

#[test]
fn a_cluster_keeps_what_it_acknowledged_on_monoio() {
    MonoioNative.block_on(keeps_what_it_acknowledged::<MonoioNative>());
}

#[test]
fn a_cluster_keeps_what_it_acknowledged_on_compio() {
    CompioNative.block_on(keeps_what_it_acknowledged::<CompioNative>());
}

#[test]
fn beyond_a_limit_nothing_is_proposed() {
    let dir = tempfile::tempdir().unwrap();
    TokioNative.block_on(async {
        let node = alone::<TokioNative>(&Settings::default(), dir.path()).await;
        let long = put(SessionRecord { subscriptions: vec![("x".repeat(PROPOSAL_BYTES_MAX), 0)], ..record("a", 1) });
        for (calls, says) in [
            (vec![], "from 1 to 10000 calls, and not 0"),
            (vec![open("a", 0); CALLS_MAX + 1], "not 10001; set session_batch lower"),
            (vec![long], "bytes of client ids and filters, and not 1048577"),
        ] {
            match node.propose(1, calls).await {
                Err(ProposeError::Beyond(error)) => assert!(error.contains(says), "{error}"),
                other => panic!("{other:?}"),
            }
        }
        match node.raft(RaftRpc::Vote, vec![0xff; 30].into()).await {
            Err(ProposeError::Beyond(error)) => assert!(error.contains("cannot be decoded"), "{error}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(node.sessions().unwrap(), []);
        node.shutdown().await.unwrap();
        let stopped = node.propose(1, vec![open("a", 0)]).await.unwrap_err();
        assert_eq!(stopped, ProposeError::Failed("the node of the meta-service has stopped".into()));
    });
}

#[test]
fn a_store_in_memory_serves_and_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { meta_store: MetaStore::Memory, ..Settings::default() };
    TokioNative.block_on(async {
        let node = alone::<TokioNative>(&settings, dir.path()).await;
        node.propose(1, vec![open("a", 0)]).await.unwrap();
        assert_eq!(node.sessions().unwrap(), [record("a", 60)]);
        node.shutdown().await.unwrap();
    });
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Writes a log of three entries, damages it by `damage`, and returns what starting on it says.
fn start_damaged(damage: impl FnOnce(&rocksdb::DBWithThreadMode<rocksdb::MultiThreaded>, &Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    TokioNative.block_on(async {
        let node = alone::<TokioNative>(&Settings::default(), dir.path()).await;
        for n in 0..3 {
            node.propose(n, vec![open("a", n)]).await.unwrap();
        }
        node.shutdown().await.unwrap();
    });
    let path = dir.path().join("meta");
    let options = rocksdb::Options::default();
    let db = rocksdb::DBWithThreadMode::open_cf(&options, &path, keys::FAMILIES).unwrap();
    damage(&db, &path);
    drop(db);
    let store = Arc::new(Store::open(&path).unwrap());
    let error = TokioNative.block_on(async {
        let settings = Settings::default();
        RaftNode::<TokioNative>::start(&member(1), &settings, store, Alone, || {}).await.unwrap_err()
    });
    assert!(matches!(error, StartError::Store(StoreError::Corrupt { .. })), "{error:?}");
    let error = error.to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("restore the data directory"), "{error}");
    error
}

#[test]
fn a_corrupt_log_says_where_and_what_to_do() {
    let raft = |db: &rocksdb::DBWithThreadMode<rocksdb::MultiThreaded>, key: &[u8], value: Option<&[u8]>| {
        let family = db.cf_handle(keys::RAFT).unwrap();
        match value {
            Some(value) => db.put_cf(&family, key, value).unwrap(),
            None => db.delete_cf(&family, key).unwrap(),
        }
    };
    let error = start_damaged(|db, _| raft(db, &keys::log(2), Some(b"\xff\xff")));
    assert!(error.contains("entry 2 of the raft log cannot be decoded"), "{error}");
    let error = start_damaged(|db, _| raft(db, &keys::log(2), None));
    assert!(error.contains("lacks the entries from 2 to 2"), "{error}");
    let error = start_damaged(|db, _| raft(db, &keys::log(0), None));
    assert!(error.contains("begins with entry 1"), "{error}");
    let error = start_damaged(|db, _| raft(db, b"Lother", Some(b"")));
    assert!(error.contains("under a key that is none"), "{error}");
    let error = start_damaged(|db, _| {
        let entry = db.get_cf(&db.cf_handle(keys::RAFT).unwrap(), keys::log(2)).unwrap().unwrap();
        raft(db, &keys::log(3), Some(&entry));
    });
    assert!(error.contains("entry 2 of the raft log lies under the key of entry 3"), "{error}");
    let error = start_damaged(|db, _| raft(db, &keys::state(keys::State::Applied), Some(b"short")));
    assert!(error.contains("last applied log id cannot be decoded"), "{error}");
}

proptest! {
    #[test]
    fn entries_come_back_from_postcard(
        (id, index, term) in any::<(u64, u64, u64)>(),
        client in ".*",
        filters in prop::collection::vec((".*", any::<u8>()), 0..4),
        (expiry_s, left_unix_s) in any::<(u32, Option<u64>)>(),
        (clean, unix_s) in any::<(bool, u64)>(),
    ) {
        let record = SessionRecord { client: client.clone(), expiry_s, subscriptions: filters, left_unix_s };
        let calls = vec![
            MetaCall::OpenSession { record: record.clone(), clean, unix_s },
            MetaCall::PutSession { record },
            MetaCall::DropSession { client },
        ];
        let log_id = LogId { leader_id: LeaderId { term, node_id: id }, index };
        let proposal = Proposal { id, caller: unix_s, calls };
        let entry = Entry { log_id, payload: Payload::Normal(proposal.clone()) };
        let decoded: Entry = postcard::from_bytes(&postcard::to_stdvec(&entry).unwrap()).unwrap();
        prop_assert_eq!(decoded.log_id, log_id);
        match decoded.payload {
            Payload::Normal(decoded) => prop_assert_eq!(decoded, proposal),
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
