//! The meta-service's databases, with blocking calls: [`super::rocks`] decides on which thread they run.
//!
//! One RocksDB in RobustMQ's shape holds the raft log, its state and the sessions (keys and values: [`super::keys`]).
//! With [`LastApplied::OwnDb`] a second one beside it holds the last applied log id alone. After a write that failed
//! every further one is refused: what comes later must not be acknowledged either.
//!
//! What it leaves out: secondary indexes, and sweeping of expired sessions (they count as absent when their client
//! returns).

use super::answers::Answered;
use super::keys::{self, State};
use super::scratch::Scratch;
use super::sessions::{self, Changes};
use super::types::LogId;
use crate::broker::effect::{MetaCall, MetaReply, SessionRecord};
use crate::settings::{LastApplied, MetaStore, Settings};
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode,
    DBWithThreadMode, Direction, ErrorKind, IteratorMode, MultiThreaded, Options, ReadOptions, SliceTransform,
    WriteBatch, WriteOptions,
};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// What session keys begin with.
pub const SESSION_PREFIX: &[u8] = b"session/";

// RobustMQ's settings (its config/server.toml and rocksdb-engine, 8bd49dc59).
const MEMTABLE_BYTES: usize = 128 << 20;
const MEMTABLES_MAX: i32 = 4;
const MEMTABLES_MERGED: i32 = 2;
const L0_COMPACTION: i32 = 8;
const L0_SLOWDOWN: i32 = 16;
const L0_STOP: i32 = 32;
const SST_BYTES: u64 = 128 << 20;
/// A cap: it fills with what is read from SST files, which a study hardly makes.
const CACHE_BYTES: usize = 512 << 20;
const BACKGROUND_JOBS: i32 = 4;
/// Ours, not RobustMQ's: by RocksDB's default, four times all memtables, the WAL could grow to 10 GiB on a laptop's
/// disk or tmpfs, because families that hardly change keep it alive.
const WAL_BYTES_MAX: u64 = 1 << 30;
const LOG_FILES: usize = 2;

pub(super) type Db = DBWithThreadMode<MultiThreaded>;
type KeyValue = (Box<[u8]>, Box<[u8]>);
type IndexValue = (u64, Box<[u8]>);

/// The databases. Calls may come from any thread.
pub struct Store {
    db: Db,
    own_db: Option<Db>,
    path: PathBuf,
    failed: OnceLock<String>,
    /// Held while the snapshot is replaced: a newer one must not be replaced by an older.
    pub(super) snapshot_turn: Mutex<()>,
    /// Goes last: the databases lie in it.
    _scratch: Option<Scratch>,
}

/// How far a write must have come before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// In the memtable alone; lost with the process.
    Memtable,
    /// In the WAL and the page cache; lost with the machine.
    Wal,
    /// On the disk.
    Disk,
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
    /// It is to be in memory, and cannot be.
    #[error("the meta store cannot be kept in memory: {}: {reason}; mount a tmpfs there or set meta_store to disk", path.display())]
    NoMemory {
        /// Where it would have been.
        path: PathBuf,
        /// What is wrong there.
        reason: String,
    },
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in directory `path`, or creates it, with the default settings.
    ///
    /// # Errors
    /// As [`Store::open_for`].
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        Store::open_for(path, &Settings::default())
    }

    /// Opens the store in directory `path`, or creates it; with [`MetaStore::Memory`] in a fresh directory in memory
    /// instead. RocksDB's own threads start here, so they run on the CPUs that the caller is bound to.
    ///
    /// # Errors
    /// When another process has it open, when it is corrupt, or when the directory cannot be written.
    pub fn open_for(path: &Path, settings: &Settings) -> Result<Store, StoreError> {
        let scratch = match settings.meta_store {
            MetaStore::Disk => None,
            MetaStore::Memory => Some(Scratch::make()?),
        };
        let path = scratch.as_ref().map_or(path.to_path_buf(), |scratch| scratch.path().join("meta"));
        let db = open_db(&path, &keys::FAMILIES)?;
        let own_db = match settings.last_applied {
            LastApplied::OwnDb => Some(open_db(&own_db_path(&path), &[keys::RAFT])?),
            _ => None,
        };
        Ok(Store { db, own_db, path, failed: OnceLock::new(), snapshot_turn: Mutex::new(()), _scratch: scratch })
    }

    /// Performs one call, blocking. With `sync` its write is on the disk before this returns (RocksDB merges the syncs
    /// of concurrent callers). Calls of one session must not run at the same time: opening reads and then writes.
    ///
    /// # Errors
    /// One sentence, when RocksDB fails or a stored record cannot be decoded.
    pub fn call(&self, call: MetaCall, sync: bool) -> Result<MetaReply, String> {
        let depth = if sync { Depth::Disk } else { Depth::Wal };
        let mut replies = self.route(vec![call], None, None, depth)?.replies;
        replies.pop().ok_or_else(|| "a call got no reply; please report it".to_owned())
    }

    /// Performs the calls of one entry, in one write, together with `applied` when that is given, and with the answer
    /// when it is to be kept (`answered`, whose replies are filled in unless they are there: those of the first time, of
    /// an entry that is applied again).
    pub(super) fn route(
        &self,
        calls: Vec<MetaCall>,
        applied: Option<&LogId>,
        answered: Option<Answered>,
        depth: Depth,
    ) -> Result<Answered, String> {
        let (changes, replies) = sessions::decide(calls, |client| self.session(client))?;
        let mut batch = WriteBatch::default();
        self.add_sessions(&mut batch, changes)?;
        if let Some(applied) = applied {
            batch.put_cf(&self.family(keys::RAFT)?, keys::state(State::Applied), keys::log_id_bytes(applied));
        }
        let is_kept = answered.is_some();
        let mut answered = answered.unwrap_or_default();
        if answered.replies.is_empty() {
            answered.replies = replies;
        }
        if is_kept {
            self.add_answer(&mut batch, &answered)?;
        }
        self.write(batch, depth)?;
        Ok(answered)
    }

    /// Adds an answer to a write.
    pub(super) fn add_answer(&self, batch: &mut WriteBatch, answered: &Answered) -> Result<(), String> {
        let value = postcard::to_stdvec(answered).map_err(|error| format!("an answer cannot be encoded: {error}"))?;
        batch.put_cf(&self.family(keys::RAFT)?, keys::answer(answered.slot()), value);
        Ok(())
    }

    /// The answers that were stored, in no order.
    pub(super) fn answers(&self) -> Result<Vec<Answered>, String> {
        let (from, to) = keys::ANSWER_RANGE;
        let entries = self.db.iterator_cf_opt(&self.family(keys::RAFT)?, ordered_upto(to), from_key(from));
        entries
            .map(|entry| {
                let (_, value) = entry.map_err(|error| self.describe("reading from", &error))?;
                decode_answer(&value)
            })
            .collect()
    }

    /// The sessions, in the order of their keys.
    ///
    /// # Errors
    /// When RocksDB fails or an entry is not a session.
    pub fn sessions(&self) -> impl Iterator<Item = Result<SessionRecord, StoreError>> + '_ {
        let corrupt = |reason: String| StoreError::Corrupt { path: self.path.clone(), reason };
        let (entries, missing) = match self.family(keys::BROKER) {
            Ok(family) => (Some(self.db.full_iterator_cf(&family, IteratorMode::Start)), None),
            Err(reason) => (None, Some(Err(corrupt(reason)))),
        };
        missing.into_iter().chain(entries.into_iter().flatten().map(move |entry| {
            let (key, value) = entry.map_err(|error| explain(&self.path, &error))?;
            decode_session(&key, &value).map_err(corrupt)
        }))
    }

    /// Why the store refuses to write, if it does: the first write that failed.
    pub fn failure(&self) -> Option<String> {
        self.failed.get().cloned()
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    /// Replaces a piece of the raft state.
    pub(super) fn put_state(&self, state: State, value: &[u8], depth: Depth) -> Result<(), String> {
        let mut batch = WriteBatch::default();
        batch.put_cf(&self.family(keys::RAFT)?, keys::state(state), value);
        self.write(batch, depth)
    }

    /// A piece of the raft state.
    pub(super) fn state(&self, state: State) -> Result<Option<Vec<u8>>, String> {
        self.get(&self.db, keys::RAFT, &keys::state(state))
    }

    /// As [`Store::put_state`], in the database of its own.
    pub(super) fn put_own_state(&self, state: State, value: &[u8], depth: Depth) -> Result<(), String> {
        let own_db = self.own_db()?;
        let family = own_db.cf_handle(keys::RAFT).ok_or_else(|| missing(keys::RAFT))?;
        let mut batch = WriteBatch::default();
        batch.put_cf(&family, keys::state(state), value);
        self.write_to(own_db, batch, depth)
    }

    /// As [`Store::state`], in the database of its own.
    pub(super) fn own_state(&self, state: State) -> Result<Option<Vec<u8>>, String> {
        self.get(self.own_db()?, keys::RAFT, &keys::state(state))
    }

    /// Entries of the raft log, undecoded: those of `range` that were not purged, in order; fewer once they would have
    /// more than `bytes_max`, but at least one.
    pub(super) fn log(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<IndexValue>, String> {
        let (options, start) = (ordered_upto(keys::log(range.end)), keys::log(range.start));
        let from = from_key(&start);
        let (mut entries, mut bytes) = (Vec::<IndexValue>::new(), 0);
        for entry in self.db.iterator_cf_opt(&self.family(keys::RAFT)?, options, from) {
            let (key, value) = entry.map_err(|error| self.describe("reading from", &error))?;
            let index = keys::index_of(&key).filter(|index| entries.last().is_none_or(|(last, _)| last + 1 == *index));
            let index = index.ok_or_else(|| format!("the raft log in {} has a gap", self.path.display()))?;
            bytes += value.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push((index, value));
        }
        Ok(entries)
    }

    /// All that lies where the raft log is, in the order of the keys.
    pub(super) fn whole_log(&self) -> Result<impl Iterator<Item = Result<KeyValue, String>> + '_, String> {
        let (from, to) = keys::LOG_RANGE;
        let entries = self.db.iterator_cf_opt(&self.family(keys::RAFT)?, ordered_upto(to), from_key(from));
        Ok(entries.map(|entry| entry.map_err(|error| self.describe("reading from", &error))))
    }

    /// Adds changes of sessions to a write.
    pub(super) fn add_sessions(&self, batch: &mut WriteBatch, changes: Changes) -> Result<(), String> {
        let family = self.family(keys::BROKER)?;
        for (client, record) in changes {
            match record {
                Some(record) => {
                    let value = serde_json::to_vec(&record);
                    let value = value.map_err(|error| format!("a session cannot be encoded: {error}"))?;
                    batch.put_cf(&family, session_key(&client), value);
                }
                None => batch.delete_cf(&family, session_key(&client)),
            }
        }
        Ok(())
    }

    /// Writes all of `batch` or nothing.
    ///
    /// # Errors
    /// One sentence; it is also the error of every further write.
    pub(super) fn write(&self, batch: WriteBatch, depth: Depth) -> Result<(), String> {
        self.write_to(&self.db, batch, depth)
    }

    pub(super) fn family(&self, name: &str) -> Result<Arc<BoundColumnFamily<'_>>, String> {
        self.db.cf_handle(name).ok_or_else(|| missing(name))
    }

    pub(super) fn value(&self, family: &str, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.get(&self.db, family, key)
    }

    fn session(&self, client: &str) -> Result<Option<SessionRecord>, String> {
        let key = session_key(client);
        let value = self.value(keys::BROKER, &key)?;
        value.map(|value| decode_session(&key, &value)).transpose()
    }

    fn own_db(&self) -> Result<&Db, String> {
        self.own_db.as_ref().ok_or_else(|| "the store was not opened with a database for last_applied".to_owned())
    }

    fn get(&self, db: &Db, family: &str, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let family = db.cf_handle(family).ok_or_else(|| missing(family))?;
        db.get_cf(&family, key).map_err(|error| self.describe("reading from", &error))
    }

    fn write_to(&self, db: &Db, batch: WriteBatch, depth: Depth) -> Result<(), String> {
        let mut options = WriteOptions::default();
        options.set_sync(depth == Depth::Disk);
        options.disable_wal(depth == Depth::Memtable);
        self.write_with(db, batch, &options)
    }

    fn write_with(&self, db: &Db, batch: WriteBatch, options: &WriteOptions) -> Result<(), String> {
        if let Some(reason) = self.failed.get() {
            return Err(reason.clone());
        }
        db.write_opt(batch, options).map_err(|error| {
            let reason = format!(
                "{}; the node stops, since it must not acknowledge what it did not write: see that the disk has space and \
                 that this user may write there, and start it again",
                self.describe("writing to", &error)
            );
            self.failed.get_or_init(|| reason).clone()
        })
    }

    fn describe(&self, doing: &str, error: &rocksdb::Error) -> String {
        format!("{doing} the meta store {} failed: {error}", self.path.display())
    }
}

/// To read keys in their order, whatever their prefix, up to but without `end`.
pub(super) fn ordered_upto(end: impl Into<Vec<u8>>) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_total_order_seek(true);
    options.set_iterate_upper_bound(end);
    options
}

/// To read from this key on.
pub(super) fn from_key(key: &[u8]) -> IteratorMode<'_> {
    IteratorMode::From(key, Direction::Forward)
}

/// An answer from its value.
pub(super) fn decode_answer(value: &[u8]) -> Result<Answered, String> {
    postcard::from_bytes(value).map_err(|error| format!("a kept answer cannot be decoded: {error}"))
}

fn open_db(path: &Path, families: &[&str]) -> Result<Db, StoreError> {
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_enable_pipelined_write(true);
    // RocksDB's default ends the replay of a damaged WAL where the damage is and opens without what follows: whatever was
    // acknowledged there would be lost in silence. A write that a crash cut off at the very end is still forgiven.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_keep_log_file_num(LOG_FILES);
    let families = families.iter().map(|family| ColumnFamilyDescriptor::new(*family, family_options(&cache)));
    let db = Db::open_cf_descriptors(&options, path, families).map_err(|error| explain(path, &error))?;
    Ok(db)
}

fn family_options(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(MEMTABLES_MAX);
    options.set_min_write_buffer_number_to_merge(MEMTABLES_MERGED);
    options.set_level_zero_file_num_compaction_trigger(L0_COMPACTION);
    options.set_level_zero_slowdown_writes_trigger(L0_SLOWDOWN);
    options.set_level_zero_stop_writes_trigger(L0_STOP);
    options.set_target_file_size_base(SST_BYTES);
    options.set_prefix_extractor(SliceTransform::create_fixed_prefix(keys::PREFIX_BYTES));
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options
}

/// Beside the store's directory.
fn own_db_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push("-last-applied");
    path.with_file_name(name)
}

fn missing(family: &str) -> String {
    format!("column family `{family}` is missing")
}

pub(super) fn session_key(client: &str) -> Vec<u8> {
    [SESSION_PREFIX, client.as_bytes()].concat()
}

pub(super) fn decode_session(key: &[u8], value: &[u8]) -> Result<SessionRecord, String> {
    let record: SessionRecord =
        serde_json::from_slice(value).map_err(|error| format!("a stored session cannot be decoded: {error}"))?;
    if key.strip_prefix(SESSION_PREFIX) != Some(record.client.as_bytes()) {
        return Err(format!("the entry of client `{}` lies under another key", record.client));
    }
    Ok(record)
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
mod tests;
