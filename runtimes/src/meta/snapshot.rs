//! Snapshots of the sessions: built from a view that later calls do not change, kept in the database, one at a time.
//!
//! A snapshot's data is the sessions in the order of their client ids and the answers that are kept, as postcard. It is stored, and sent to other
//! nodes, in one piece behind what it covers ([`encode`]). What it leaves out: sending in pieces, and building from
//! changes alone.

use super::answers::Answered;
use super::keys::{self, State};
use super::native::Native;
use super::rocks::{Rocks, What};
use super::sessions::Bucket;
use super::store::{Db, Depth, SESSION_PREFIX, Store, decode_answer, decode_session, from_key, ordered_upto};
use super::types::{Snapshot, SnapshotMeta, Types};
use crate::broker::effect::SessionRecord;
use crate::stamps::Step;
use openraft::storage::RaftSnapshotBuilder;
use rocksdb::{SnapshotWithThreadMode, WriteBatch};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError};
use tracing::Span;

/// A snapshot that would be larger is not built, since it could not be sent in one message either. About a million
/// sessions with a few subscriptions each.
pub const SNAPSHOT_BYTES_MAX: usize = 256 << 20;

/// Where the keys of sessions end.
const SESSIONS_END: &[u8] = b"session0";

/// The sessions at one moment.
pub enum View {
    /// In RocksDB.
    Stored(StoredView),
    /// In memory alone.
    InMemory(Vec<Bucket>, Vec<Arc<Answered>>),
}

/// A RocksDB snapshot that keeps its database open.
pub struct StoredView {
    /// Goes first: it refers to `store`.
    snapshot: SnapshotWithThreadMode<'static, Db>,
    store: Arc<Store>,
}

impl StoredView {
    /// The sessions as they are now.
    pub fn new(store: &Arc<Store>) -> StoredView {
        let store = Arc::clone(store);
        // SAFETY: the database lives in the allocation that `store` keeps alive, never moves in it, and is dropped
        // after the snapshot, whose field comes first. The reference does not leave this type.
        let db: &'static Db = unsafe { &*std::ptr::from_ref(store.db()) };
        StoredView { snapshot: db.snapshot(), store }
    }

    fn sessions(&self) -> Result<Vec<SessionRecord>, String> {
        self.decoded(keys::BROKER, (SESSION_PREFIX, SESSIONS_END), decode_session)
    }

    fn answers(&self) -> Result<Vec<Answered>, String> {
        self.decoded(keys::RAFT, keys::ANSWER_RANGE, |_, value| decode_answer(value))
    }

    fn decoded<T>(
        &self,
        family: &str,
        (from, to): (&[u8], &[u8]),
        decode: impl Fn(&[u8], &[u8]) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let family = self.store.family(family)?;
        let entries = self.snapshot.iterator_cf_opt(&family, ordered_upto(to), from_key(from));
        let decoded = entries.map(|entry| {
            let (key, value) = entry.map_err(|error| format!("reading the state for a snapshot failed: {error}"))?;
            decode(&key, &value)
        });
        decoded.collect()
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            View::Stored(_) => "View::Stored",
            View::InMemory(..) => "View::InMemory",
        })
    }
}

impl View {
    fn encode(&self) -> Result<Vec<u8>, String> {
        let data = match self {
            View::Stored(stored) => postcard::to_stdvec(&(stored.sessions()?, stored.answers()?)),
            View::InMemory(buckets, answers) => {
                let mut sessions: Vec<_> = buckets.iter().flat_map(|bucket| bucket.values()).collect();
                sessions.sort_unstable_by(|a, b| a.client.cmp(&b.client));
                let answers: Vec<&Answered> = answers.iter().map(Arc::as_ref).collect();
                postcard::to_stdvec(&(sessions, answers))
            }
        };
        let data = data.map_err(|error| format!("a snapshot cannot be encoded: {error}"))?;
        match data.len() {
            ..=SNAPSHOT_BYTES_MAX => Ok(data),
            bytes => Err(format!(
                "a snapshot of the sessions would have {bytes} bytes, and may have {SNAPSHOT_BYTES_MAX}; keep fewer \
                 sessions"
            )),
        }
    }
}

/// Builds one snapshot.
#[derive(Debug)]
pub struct SnapshotBuilder<N> {
    rocks: Rocks<N>,
    meta: SnapshotMeta,
    view: Option<View>,
}

impl<N> SnapshotBuilder<N> {
    /// Of what `view` shows, which is what `meta` says.
    pub fn new(rocks: Rocks<N>, meta: SnapshotMeta, view: View) -> SnapshotBuilder<N> {
        SnapshotBuilder { rocks, meta, view: Some(view) }
    }
}

impl<N: Native> RaftSnapshotBuilder<Types<N>> for SnapshotBuilder<N> {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (meta, depth) = (self.meta.clone(), self.rocks.state_depth());
        let view = self.view.take().ok_or_else(|| io::Error::other("a snapshot is built once"))?;
        let work = move |store: &Arc<Store>| {
            let data = view.encode()?;
            let _turn = store.snapshot_turn.lock().unwrap_or_else(PoisonError::into_inner);
            // Another node's snapshot may have been installed meanwhile.
            if load(store)?.is_none_or(|stored| stored.meta.last_log_id <= meta.last_log_id) {
                let mut batch = WriteBatch::default();
                batch.put_cf(&store.family(keys::DATA)?, keys::SNAPSHOT, encode(&meta, &data)?);
                store.write(batch, depth)?;
            }
            Ok(Snapshot { meta, snapshot: data })
        };
        self.rocks.call(What { step: Step::Other, first: 0, count: 0 }, Span::none(), work).await
    }
}

/// The stored snapshot.
///
/// # Errors
/// When it cannot be read or decoded.
pub fn load(store: &Store) -> Result<Option<Snapshot>, String> {
    let Some(value) = store.value(keys::DATA, keys::SNAPSHOT)? else { return Ok(None) };
    let (meta, data) = decode(&value)?;
    Ok(Some(Snapshot { meta, snapshot: data.to_vec() }))
}

/// What a snapshot's data holds.
pub type Contents = (Vec<SessionRecord>, Vec<Answered>);

/// The sessions in a snapshot's data, and the answers that are kept.
///
/// # Errors
/// When it is something else.
pub fn contents(data: &[u8]) -> Result<Contents, String> {
    postcard::from_bytes(data).map_err(|error| format!("the sessions of a snapshot cannot be decoded: {error}"))
}

/// Stores a snapshot of another node. With `replaced` these become the stored sessions and answers, with what is applied,
/// all in one write.
///
/// # Errors
/// When it cannot be written.
pub fn install(
    store: &Store,
    meta: &SnapshotMeta,
    data: &[u8],
    replaced: Option<Contents>,
    depth: Depth,
) -> Result<(), String> {
    let _turn = store.snapshot_turn.lock().unwrap_or_else(PoisonError::into_inner);
    let mut batch = WriteBatch::default();
    batch.put_cf(&store.family(keys::DATA)?, keys::SNAPSHOT, encode(meta, data)?);
    if let Some((sessions, answers)) = replaced {
        let raft = store.family(keys::RAFT)?;
        batch.delete_range_cf(&store.family(keys::BROKER)?, SESSION_PREFIX, SESSIONS_END);
        store.add_sessions(&mut batch, sessions.into_iter().map(|s| (s.client.clone(), Some(s))).collect())?;
        batch.delete_range_cf(&raft, keys::ANSWER_RANGE.0, keys::ANSWER_RANGE.1);
        answers.iter().try_for_each(|answered| store.add_answer(&mut batch, answered))?;
        let membership = postcard::to_stdvec(&meta.last_membership);
        let membership = membership.map_err(|error| format!("a membership cannot be encoded: {error}"))?;
        batch.put_cf(&raft, keys::state(State::Membership), membership);
        if let Some(applied) = &meta.last_log_id {
            batch.put_cf(&raft, keys::state(State::Applied), keys::log_id_bytes(applied));
        }
    }
    store.write(batch, depth)
}

/// `head` as postcard, and `data` behind it as it is: postcard itself would go through it byte by byte.
///
/// # Errors
/// When `head` cannot be encoded.
pub fn encode(head: &impl Serialize, data: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = postcard::to_stdvec(head).map_err(|error| format!("a snapshot cannot be encoded: {error}"))?;
    bytes.extend_from_slice(data);
    Ok(bytes)
}

/// What [`encode`] made of head and data.
///
/// # Errors
/// When it is something else.
pub fn decode<H: DeserializeOwned>(bytes: &[u8]) -> Result<(H, &[u8]), String> {
    postcard::take_from_bytes(bytes).map_err(|error| format!("a snapshot cannot be decoded: {error}"))
}
