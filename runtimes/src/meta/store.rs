//! Sessions in RocksDB, with blocking calls: the shell decides on which thread they run.
//!
//! Column family `broker`, one entry per session:
//!
//! | part | format |
//! |---|---|
//! | key | [`SESSION_PREFIX`] and the client id, UTF-8 |
//! | value | [`SessionRecord`] as JSON with its fields in declaration order, so that `ldb` shows what is stored |
//!
//! Calls of one session must not run at the same time: opening reads and then writes. The broker has at most one meta
//! call of a session in flight. What it leaves out: indexes (sessions are looked up by id alone) and sweeping of expired
//! entries (they count as absent when their client returns).

use crate::broker::effect::{MetaCall, MetaReply, SessionRecord};
use rocksdb::{BoundColumnFamily, DBWithThreadMode, ErrorKind, IteratorMode, MultiThreaded, Options, WriteOptions};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What session keys begin with.
pub const SESSION_PREFIX: &[u8] = b"session/";
const FAMILY: &str = "broker";
/// Large enough that a study's sessions do not flush it, small enough for a laptop.
const MEMTABLE_BYTES: usize = 32 << 20;
const MEMTABLES_MAX: i32 = 4;
/// As RobustMQ sets it: flushes and compactions together.
const BACKGROUND_JOBS: i32 = 4;

/// The store of sessions. Calls may come from any thread.
pub struct Store {
    db: DBWithThreadMode<MultiThreaded>,
    path: PathBuf,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the meta store {} is open in another process; stop that server or name another data directory", path.display())]
    Locked {
        /// Directory of the store.
        path: PathBuf,
    },
    /// Its files do not hold together.
    #[error("the meta store {} is corrupt: {reason}; restore the data directory or start with an empty one", path.display())]
    Corrupt {
        /// Directory of the store.
        path: PathBuf,
        /// What RocksDB or the decoder said.
        reason: String,
    },
    /// It cannot be opened or read for another reason: permissions, disk full.
    #[error("the meta store {} cannot be used: {reason}; check that this user may write there and that the disk has space", path.display())]
    Unusable {
        /// Directory of the store.
        path: PathBuf,
        /// What RocksDB said.
        reason: String,
    },
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in directory `path`, or creates it. RocksDB's own threads start here, so they run on the CPUs
    /// that the caller is bound to.
    ///
    /// # Errors
    /// When another process has it open, when it is corrupt, or when the directory cannot be written.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_write_buffer_size(MEMTABLE_BYTES);
        options.set_max_write_buffer_number(MEMTABLES_MAX);
        options.set_max_background_jobs(BACKGROUND_JOBS);
        options.set_enable_pipelined_write(true);
        options.set_keep_log_file_num(2);
        let db = DBWithThreadMode::open_cf(&options, path, [FAMILY]).map_err(|error| explain(path, &error))?;
        let store = Store { db, path: path.to_path_buf() };
        store.family().map_err(|reason| StoreError::Corrupt { path: store.path.clone(), reason })?;
        Ok(store)
    }

    /// Performs one call, blocking. With `sync` its write is on the disk before this returns (RocksDB merges the syncs
    /// of concurrent callers).
    ///
    /// # Errors
    /// One sentence, when RocksDB fails or a stored record cannot be decoded.
    pub fn call(&self, call: MetaCall, sync: bool) -> Result<MetaReply, String> {
        match call {
            MetaCall::OpenSession { record, clean, unix_s } => {
                let kept = if clean { None } else { self.get(&record.client)? };
                match kept.filter(|old| lives_on(old, unix_s)) {
                    Some(old) => {
                        let record = SessionRecord { subscriptions: old.subscriptions, ..record };
                        self.put(&record, sync)?;
                        Ok(MetaReply::Opened(Some(record)))
                    }
                    None => {
                        self.put(&record, sync)?;
                        Ok(MetaReply::Opened(None))
                    }
                }
            }
            MetaCall::PutSession { record } => {
                self.put(&record, sync)?;
                Ok(MetaReply::Stored)
            }
            MetaCall::DropSession { client } => {
                self.db
                    .delete_cf_opt(&self.family()?, key(&client), &write_options(sync))
                    .map_err(|error| format!("deleting a session from {} failed: {error}", self.path.display()))?;
                Ok(MetaReply::Stored)
            }
        }
    }

    /// The sessions, in the order of their keys.
    ///
    /// # Errors
    /// When RocksDB fails or an entry is not a session.
    pub fn sessions(&self) -> impl Iterator<Item = Result<SessionRecord, StoreError>> + '_ {
        let corrupt = |reason: String| StoreError::Corrupt { path: self.path.clone(), reason };
        let (entries, missing) = match self.family() {
            Ok(family) => (Some(self.db.full_iterator_cf(&family, IteratorMode::Start)), None),
            Err(reason) => (None, Some(Err(corrupt(reason)))),
        };
        missing.into_iter().chain(entries.into_iter().flatten().map(move |entry| {
            let (key, value) = entry.map_err(|error| explain(&self.path, &error))?;
            let record = decode(&value).map_err(corrupt)?;
            if key.strip_prefix(SESSION_PREFIX) != Some(record.client.as_bytes()) {
                return Err(corrupt(format!("the entry of client `{}` lies under another key", record.client)));
            }
            Ok(record)
        }))
    }

    fn get(&self, client: &str) -> Result<Option<SessionRecord>, String> {
        let value = self
            .db
            .get_pinned_cf(&self.family()?, key(client))
            .map_err(|error| format!("reading a session from {} failed: {error}", self.path.display()))?;
        value.map(|value| decode(&value)).transpose()
    }

    fn put(&self, record: &SessionRecord, sync: bool) -> Result<(), String> {
        let value = serde_json::to_vec(record).map_err(|error| format!("a session cannot be encoded: {error}"))?;
        self.db
            .put_cf_opt(&self.family()?, key(&record.client), value, &write_options(sync))
            .map_err(|error| format!("writing a session to {} failed: {error}", self.path.display()))
    }

    fn family(&self) -> Result<Arc<BoundColumnFamily<'_>>, String> {
        self.db.cf_handle(FAMILY).ok_or_else(|| format!("column family `{FAMILY}` is missing"))
    }
}

/// Whether a stored session still exists at `unix_s`. A session that ends with its connection (expiry 0) never does. One
/// without a time of leaving was connected when the node ended; when its client left is unknown, so it lives on.
fn lives_on(record: &SessionRecord, unix_s: u64) -> bool {
    match (record.expiry_s, record.left_unix_s) {
        (0, _) => false,
        (u32::MAX, _) | (_, None) => true,
        (expiry_s, Some(left)) => left.saturating_add(u64::from(expiry_s)) > unix_s,
    }
}

fn key(client: &str) -> Vec<u8> {
    [SESSION_PREFIX, client.as_bytes()].concat()
}

fn decode(value: &[u8]) -> Result<SessionRecord, String> {
    serde_json::from_slice(value).map_err(|error| format!("a stored session cannot be decoded: {error}"))
}

fn write_options(sync: bool) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(sync);
    options
}

fn explain(path: &Path, error: &rocksdb::Error) -> StoreError {
    let (path, reason) = (path.to_path_buf(), error.to_string());
    match error.kind() {
        // RocksDB reports a lock held by another process, or by this one, as an I/O error.
        ErrorKind::IOError if reason.contains("lock ") || reason.contains("LOCK: Resource") => {
            StoreError::Locked { path }
        }
        ErrorKind::Corruption => StoreError::Corrupt { path, reason },
        _ => StoreError::Unusable { path, reason },
    }
}

#[cfg(test)]
mod tests {
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
        store.db.put_cf(&store.family().unwrap(), key("a"), b"{").unwrap();
        let call = MetaCall::OpenSession { record: record("a", 60), clean: false, unix_s: 0 };
        assert!(store.call(call, false).unwrap_err().contains("cannot be decoded"));
        assert!(store.sessions().any(|entry| entry.is_err()));
    }
}
