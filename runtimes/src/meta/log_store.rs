//! The raft log in RocksDB, written as RobustMQ writes it: each append is one write batch, the committed id a write of
//! its own for each commit, all in the database that the state machine writes to, too.
//!
//! Nothing counts before its write has come as deep as the arm says. A write that fails is reported to openraft, which
//! stops the node for good. What it leaves out: a cache of entries; openraft reads committed entries back to apply
//! them, as in RobustMQ.

use super::keys::{self, State};
use super::native::Native;
use super::rocks::{Rocks, What};
use super::store::{Store, StoreError};
use super::types::{Entry, LogId, Types, Vote};
use crate::spans;
use crate::stamps::Step;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use rocksdb::WriteBatch;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use tracing::Span;

/// Most bytes of entries in one message to another node, unless a single entry has more.
pub const READ_BYTES_MAX: usize = 2 << 20;

/// The log of one node.
#[derive(Debug)]
pub struct LogStore<N> {
    rocks: Rocks<N>,
    purged: Option<LogId>,
    last: Option<LogId>,
}

/// Reads the log while others append to it.
#[derive(Debug)]
pub struct LogReader<N> {
    rocks: Rocks<N>,
}

impl<N: Native> LogStore<N> {
    /// Opens the log in a store, after reading all of it. Blocking: to be called before the node serves.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when an entry cannot be decoded, lies under a wrong key or is missing.
    pub fn open(rocks: Rocks<N>) -> Result<LogStore<N>, StoreError> {
        let store = rocks.store();
        let path = store.path().to_path_buf();
        let (purged, last) = check(store).map_err(|reason| StoreError::Corrupt { path, reason })?;
        Ok(LogStore { rocks, purged, last })
    }

    fn reader(&self) -> LogReader<N> {
        LogReader { rocks: self.rocks.clone() }
    }

    async fn put_state(&self, step: Step, index: u64, state: State, value: Vec<u8>) -> io::Result<()> {
        let depth = self.rocks.log_depth();
        let what = What { step, first: index, count: 1 };
        self.rocks.call(what, Span::none(), move |store| store.put_state(state, &value, depth)).await
    }

    /// Writes a batch that deletes entries.
    async fn write(
        &self,
        first: u64,
        fill: impl FnOnce(&Store, &mut WriteBatch) -> Result<(), String> + Send + 'static,
    ) -> io::Result<()> {
        let depth = self.rocks.log_depth();
        let work = move |store: &Arc<Store>| {
            let mut batch = WriteBatch::default();
            fill(store, &mut batch)?;
            store.write(batch, depth)
        };
        self.rocks.call(What { step: Step::Other, first, count: 0 }, Span::none(), work).await
    }
}

impl<N: Native> RaftLogStorage<Types<N>> for LogStore<N> {
    type LogReader = LogReader<N>;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<N>>> {
        Ok(LogState { last_purged_log_id: self.purged, last_log_id: self.last })
    }

    async fn get_log_reader(&mut self) -> LogReader<N> {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.put_state(Step::Vote, 0, State::Vote, encode(vote)?).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // openraft never takes a committed id back.
        let Some(committed) = committed else { return Ok(()) };
        let value = keys::log_id_bytes(&committed).to_vec();
        self.put_state(Step::Committed, committed.index, State::Committed, value).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let what = What { step: Step::Other, first: 0, count: 0 };
        self.rocks.call(what, Span::none(), |store| log_id_of(store, State::Committed)).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<N>>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut encoded = Vec::new();
        let (mut last, mut bytes) = (self.last, 0);
        for entry in entries {
            last = Some(entry.log_id);
            encoded.push((entry.log_id.index, encode(&entry)?));
            bytes += encoded.last().map_or(0, |(_, value)| value.len());
        }
        let first = encoded.first().map_or(0, |(index, _)| *index);
        let count = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
        let (span, depth) = (spans::raft_append(encoded.len(), bytes), self.rocks.log_depth());
        let work = move |store: &Arc<Store>| {
            let family = store.family(keys::RAFT)?;
            let mut batch = WriteBatch::default();
            encoded.iter().for_each(|(index, value)| batch.put_cf(&family, keys::log(*index), value));
            store.write(batch, depth)
        };
        self.rocks.call(What { step: Step::RaftAppend, first, count }, span, work).await?;
        self.last = last;
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        self.write(from, move |store, batch| {
            batch.delete_range_cf(&store.family(keys::RAFT)?, keys::log(from), keys::log(u64::MAX));
            Ok(())
        })
        .await?;
        // What was purged counts as the last entry of an empty log.
        self.last = self.last.min(last.or(self.purged));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.write(upto.index, move |store, batch| {
            let family = store.family(keys::RAFT)?;
            batch.put_cf(&family, keys::state(State::Purged), keys::log_id_bytes(&upto));
            batch.delete_range_cf(&family, keys::log(0), keys::log(upto.index + 1));
            Ok(())
        })
        .await?;
        self.purged = Some(upto);
        self.last = self.last.max(Some(upto));
        Ok(())
    }
}

impl<N: Native> LogReader<N> {
    async fn read(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        if start >= end {
            return Ok(Vec::new());
        }
        let count = u32::try_from(end - start).unwrap_or(u32::MAX);
        let what = What { step: Step::Other, first: start, count };
        let values = self.rocks.call(what, Span::none(), move |store| store.log(start..end, bytes_max)).await?;
        let decoded = values.iter().map(|(index, value)| decode_entry(*index, value));
        decoded.collect::<Result<_, _>>().map_err(io::Error::other)
    }
}

impl<N: Native> RaftLogReader<Types<N>> for LogReader<N> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.read(range, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, READ_BYTES_MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let what = What { step: Step::Other, first: 0, count: 0 };
        let work = |store: &Arc<Store>| {
            let vote = store.state(State::Vote)?;
            vote.map(|vote| postcard::from_bytes(&vote).map_err(|error| format!("the vote cannot be decoded: {error}")))
                .transpose()
        };
        self.rocks.call(what, Span::none(), work).await
    }
}

/// Reads the log as a whole: what was purged, and the last entry.
fn check(store: &Store) -> Result<(Option<LogId>, Option<LogId>), String> {
    let purged = log_id_of(store, State::Purged)?;
    log_id_of(store, State::Committed)?;
    let mut last = purged;
    let mut previous = None;
    for entry in store.whole_log()? {
        let (key, value) = entry?;
        let index = keys::index_of(&key).ok_or("the raft log holds an entry under a key that is none")?;
        let expected = previous.map_or(index, |previous| previous + 1);
        if index != expected {
            return Err(format!("the raft log lacks the entries from {expected} to {}", index - 1));
        }
        if previous.is_none() && index > purged.map_or(0, |purged| purged.index + 1) {
            return Err(format!("the raft log begins with entry {index}, and what was before it was not purged"));
        }
        last = last.max(Some(decode_entry(index, &value)?.log_id));
        previous = Some(index);
    }
    Ok((purged, last))
}

fn decode_entry(index: u64, value: &[u8]) -> Result<Entry, String> {
    let entry: Entry = postcard::from_bytes(value)
        .map_err(|error| format!("entry {index} of the raft log cannot be decoded: {error}"))?;
    match entry.index() == index {
        true => Ok(entry),
        false => Err(format!("entry {} of the raft log lies under the key of entry {index}", entry.index())),
    }
}

fn log_id_of(store: &Store, state: State) -> Result<Option<LogId>, String> {
    let value = store.state(state)?;
    value.map(|value| keys::log_id(&value).ok_or(format!("the log id {state:?} cannot be decoded"))).transpose()
}

fn encode(value: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|error| io::Error::other(format!("the raft log cannot be encoded: {error}")))
}
