//! Of the store.

#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;

fn record(client: &str, expiry_s: u32) -> SessionRecord {
    SessionRecord { client: client.into(), expiry_s, subscriptions: Vec::new(), left_unix_s: None }
}

fn open(store: &Store, record: SessionRecord, clean: bool, unix_s: u64) -> Option<SessionRecord> {
    match store.call(MetaCall::OpenSession { record, clean, unix_s }, false).unwrap() {
        MetaReply::Opened(kept) => kept,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_survives_reopening_with_its_subscriptions() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(open(&store, record("a", 60), false, 100), None);
    let subscribed = SessionRecord { subscriptions: vec![("t/#".into(), 1)], ..record("a", 60) };
    store.call(MetaCall::PutSession { record: subscribed.clone() }, true).unwrap();
    drop(store);

    let store = Store::open(dir.path()).unwrap();
    let kept = open(&store, record("a", 3600), false, 100).unwrap();
    assert_eq!(kept, SessionRecord { expiry_s: 3600, ..subscribed });
    assert_eq!(store.sessions().collect::<Result<Vec<_>, _>>().unwrap(), [kept], "the merged record is stored");
}

#[test]
fn clean_start_and_expiry_forget() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let left = |expiry_s, left| SessionRecord { left_unix_s: left, ..record("a", expiry_s) };
    let put = |record| store.call(MetaCall::PutSession { record }, false).unwrap();
    for (stored, clean, unix_s, lives) in [
        (left(60, Some(100)), false, 159, true),
        (left(60, Some(100)), false, 160, false),
        (left(60, Some(100)), true, 101, false),
        (left(u32::MAX, Some(100)), false, u64::MAX, true),
        (left(60, None), false, u64::MAX, true),
        (left(0, None), false, 0, false),
    ] {
        put(stored.clone());
        assert_eq!(open(&store, record("a", 60), clean, unix_s).is_some(), lives, "{stored:?} {clean} {unix_s}");
    }
}

#[test]
fn a_dropped_session_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    open(&store, record("a", 60), false, 0);
    store.call(MetaCall::DropSession { client: "a".into() }, true).unwrap();
    assert_eq!(store.sessions().count(), 0);
    assert_eq!(open(&store, record("a", 60), false, 0), None);
}

#[test]
fn a_store_in_use_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
}

#[test]
fn a_damaged_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    std::fs::write(dir.path().join("CURRENT"), "nonsense").unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[test]
fn a_foreign_value_is_an_error_of_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.db.put_cf(&store.family(keys::BROKER).unwrap(), session_key("a"), b"{").unwrap();
    let call = MetaCall::OpenSession { record: record("a", 60), clean: false, unix_s: 0 };
    assert!(store.call(call, false).unwrap_err().contains("cannot be decoded"));
    assert!(store.sessions().any(|entry| entry.is_err()));
}

#[test]
fn a_write_that_failed_refuses_all_that_follow() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.failure(), None);
    // RocksDB refuses a sync without a WAL: an error of a write that needs no broken disk.
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options.disable_wal(true);
    let error = store.write_with(&store.db, WriteBatch::default(), &options).unwrap_err();
    assert!(error.contains("the node stops"), "{error}");
    let put = MetaCall::PutSession { record: record("a", 1) };
    assert_eq!(store.call(put, false).unwrap_err(), error);
    assert_eq!(store.failure(), Some(error));
    assert_eq!(store.sessions().count(), 0);
}

#[test]
fn a_store_in_memory_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        meta_store: MetaStore::Memory,
        last_applied: crate::settings::LastApplied::OwnDb,
        ..Settings::default()
    };
    let store = Store::open_for(&dir.path().join("meta"), &settings).unwrap();
    let path = store.path().to_owned();
    assert!(path.starts_with("/dev/shm") && path.join("CURRENT").exists());
    drop(store);
    assert!(!path.parent().unwrap().exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A store of 200 sessions whose WAL was not flushed, with what `damage` does to that file.
fn damaged(damage: impl Fn(&mut Vec<u8>)) -> (tempfile::TempDir, Result<Store, StoreError>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for n in 0..200 {
        store.call(MetaCall::PutSession { record: record(&format!("client-{n:03}"), 60) }, false).unwrap();
    }
    drop(store);
    let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let wals = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let wal = wals.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&wal).unwrap();
    assert!(bytes.len() > 10_000, "the sessions lie in the WAL");
    damage(&mut bytes);
    std::fs::write(&wal, bytes).unwrap();
    let opened = Store::open(dir.path());
    (dir, opened)
}

#[test]
fn a_flipped_byte_in_the_wal_is_an_error_and_no_silent_loss() {
    for at in [0.1, 0.5, 0.9] {
        let (_dir, opened) = damaged(|bytes| {
            let byte = (bytes.len() as f64 * at) as usize;
            bytes[byte] ^= 0x40;
        });
        let error = opened.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{at}: {error}");
        assert!(error.to_string().contains("restore the data directory"), "{error}");
    }
}

#[test]
fn a_wal_that_was_cut_off_keeps_all_before_the_cut() {
    let (_dir, opened) = damaged(|bytes| bytes.truncate(bytes.len() - 7));
    let sessions: Vec<_> = opened.unwrap().sessions().map(|session| session.unwrap().client).collect();
    assert_eq!(sessions, (0..199).map(|n| format!("client-{n:03}")).collect::<Vec<_>>(), "but for the torn write");
}
