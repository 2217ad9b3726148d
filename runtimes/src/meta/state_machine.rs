//! The state machine: applies committed entries in production's steps, each awaited on its own.
//!
//! For each batch of entries that openraft hands over: *route* for each proposal (the sessions, one write batch),
//! *membership* for each membership entry, and *set_last_applied* once, as RobustMQ does it; then all callers get their
//! answers. [`LastApplied`] says how that last step writes. After a crash the id on the disk may be older than the
//! sessions: the entries after it are then applied again, to the same effect ([`super::sessions`], [`super::again`]). A
//! proposal that comes a second time is answered as the first time, and changes nothing ([`super::answers`]).
//!
//! What it leaves out: the raft log, and what calls do to sessions.

use super::again::{Again, Before};
use super::answers::{self, Answered, Answers};
use super::keys::{self, State};
use super::native::Native;
use super::rocks::{Rocks, What};
use super::sessions::InMemory;
use super::snapshot::{self, SnapshotBuilder, StoredView, View};
use super::store::{Depth, Store, StoreError};
use super::types::{LogId, NodeId, Payload, Proposal, Replies, Snapshot, SnapshotMeta, StoredMembership, Types};
use crate::broker::effect::SessionRecord;
use crate::settings::LastApplied;
use crate::spans;
use crate::stamps::{self, Step};
use futures::{Stream, TryStreamExt};
use openraft::Membership;
use openraft::impls::BasicNode;
use openraft::storage::{EntryResponder, RaftStateMachine};
use std::io;
use std::sync::Arc;
use tracing::{Instrument, Span};

/// Where a node's sessions are. Cheap to clone; readable also when the node has ended.
#[derive(Debug, Clone)]
pub enum Sessions {
    /// In RocksDB.
    Stored(Arc<Store>),
    /// In memory alone.
    InMemory(Arc<InMemory>),
}

impl Sessions {
    /// All of them, in the order of their client ids.
    ///
    /// # Errors
    /// As [`Store::sessions`].
    pub fn all(&self) -> Result<Vec<SessionRecord>, StoreError> {
        match self {
            Sessions::Stored(store) => store.sessions().collect(),
            Sessions::InMemory(memory) => Ok(memory.sorted()),
        }
    }

    fn view(&self, answers: &Answers) -> View {
        match self {
            Sessions::Stored(store) => View::Stored(StoredView::new(store)),
            Sessions::InMemory(memory) => View::InMemory(memory.view(), answers.view()),
        }
    }
}

/// The state machine of one node.
#[derive(Debug)]
pub struct StateMachine<N> {
    rocks: Rocks<N>,
    sessions: Sessions,
    answers: Answers,
    again: Again,
    applied: Option<LogId>,
    /// What a write of sessions has stored as applied.
    merged: Option<LogId>,
    membership: StoredMembership,
}

impl<N: Native> StateMachine<N> {
    /// Opens the state machine in a store. Blocking: to be called before the node serves. With sessions in memory alone
    /// it begins with those of the last snapshot, and openraft applies what came after.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when what is stored cannot be decoded.
    pub fn open(rocks: Rocks<N>, durable_sessions: bool) -> Result<StateMachine<N>, StoreError> {
        let store = Arc::clone(rocks.store());
        let corrupt = |reason| StoreError::Corrupt { path: store.path().to_path_buf(), reason };
        let snapshot = snapshot::load(&store).map_err(corrupt)?;
        let mut machine = if durable_sessions {
            let covered = snapshot.as_ref().and_then(|snapshot| snapshot.meta.last_log_id);
            let membership = membership_of(&store).map_err(corrupt)?;
            let applied = applied_of(&rocks, covered).map_err(corrupt)?;
            let stored = store.answers().map_err(corrupt)?;
            let (kept, again) = Again::divide(stored, applied.map(|id| id.index));
            let (answers, sessions) = (Answers::of(kept), Sessions::Stored(store.clone()));
            StateMachine { rocks, sessions, answers, again, applied, merged: None, membership }
        } else {
            let (meta, (sessions, answers)) = match snapshot {
                Some(Snapshot { meta, snapshot: data }) => (meta, snapshot::contents(&data).map_err(corrupt)?),
                None => Default::default(),
            };
            let sessions = Sessions::InMemory(Arc::new(InMemory::new(sessions)));
            let (applied, membership) = (meta.last_log_id, meta.last_membership);
            let (answers, again) = (Answers::of(answers), Again::default());
            StateMachine { rocks, sessions, answers, again, applied, merged: None, membership }
        };
        machine.merged = machine.applied;
        Ok(machine)
    }

    /// Where the sessions are.
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    async fn apply_all(&mut self, entries: Vec<EntryResponder<Types<N>>>, span: &Span) -> io::Result<()> {
        let Some((first, last)) =
            entries.first().map(|(e, _)| e.log_id.index).zip(entries.last().map(|(e, _)| e.log_id))
        else {
            return Ok(());
        };
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let mut answers = Vec::with_capacity(entries.len());
        for (entry, responder) in entries {
            let replies = match entry.payload {
                Payload::Blank => Replies::default(),
                Payload::Normal(proposal) => self.route(span, entry.log_id, proposal).await?,
                Payload::Membership(membership) => self.set_membership(span, entry.log_id, membership).await?,
            };
            answers.extend(responder.map(|responder| (responder, replies)));
        }
        self.set_last_applied(span, What { step: Step::SetLastApplied, first, count }, last).await?;
        self.applied = Some(last);
        answers.into_iter().for_each(|(responder, replies)| responder.send(replies));
        Ok(())
    }

    async fn route(&mut self, apply: &Span, id: LogId, proposal: Proposal) -> io::Result<Replies> {
        let Proposal { id: name, caller, calls } = proposal;
        stamps::indexed(name, id.index);
        let digest = answers::digest(caller, &calls).map_err(io::Error::other)?;
        let first_time = || self.answers.find(name, digest);
        let replies = match self.again.take(id.index) {
            Before::Applied(replies) => replies,
            // Nobody waits for an answer since before the restart; it may be gone.
            Before::Repeated => return Ok(Replies(first_time().unwrap_or_default())),
            Before::Unknown => match first_time() {
                // Sent again by a client that got no answer, and applied already.
                Some(replies) => return Ok(Replies(replies)),
                None => Vec::new(),
            },
        };
        let answered = Answered { index: id.index, id: name, digest, replies };
        let span = spans::route(apply, name, calls.len());
        let answered = match &self.sessions {
            Sessions::Stored(_) => {
                let stored = (!self.again.has_lost_its_place(id.index)).then(|| answered.clone());
                let applied = (self.rocks.last_applied() == LastApplied::Merged).then_some(id);
                let (depth, what) = (self.rocks.state_depth(), What { step: Step::Route, first: id.index, count: 1 });
                let work = move |store: &Arc<Store>| store.route(calls, applied.as_ref(), stored, depth);
                let replies = self.rocks.call(what, span, work).await?.replies;
                self.merged = applied.or(self.merged);
                Answered { replies, ..answered }
            }
            // As in RobustMQ this makes no call to RocksDB.
            Sessions::InMemory(memory) => {
                let replies = span.in_scope(|| memory.route(calls)).map_err(io::Error::other)?;
                Answered { replies, ..answered }
            }
        };
        let replies = Replies(answered.replies.clone());
        self.answers.add(answered);
        Ok(replies)
    }

    async fn set_membership(
        &mut self,
        apply: &Span,
        id: LogId,
        membership: Membership<NodeId, BasicNode>,
    ) -> io::Result<Replies> {
        let span = spans::membership(apply);
        let membership = StoredMembership::new(Some(id), membership);
        let value = postcard::to_stdvec(&membership)
            .map_err(|error| io::Error::other(format!("a membership cannot be encoded: {error}")))?;
        let (depth, what) = (self.rocks.state_depth(), What { step: Step::Membership, first: id.index, count: 1 });
        let work = move |store: &Arc<Store>| store.put_state(State::Membership, &value, depth);
        self.rocks.call(what, span, work).await?;
        self.membership = membership;
        Ok(Replies::default())
    }

    async fn set_last_applied(&mut self, apply: &Span, what: What, id: LogId) -> io::Result<()> {
        let (mode, depth) = (self.rocks.last_applied(), self.rocks.state_depth());
        let state = match self.sessions {
            Sessions::Stored(_) => State::Applied,
            Sessions::InMemory(_) => State::AppliedInMemory,
        };
        // Merged into the last write of sessions already; entries that changed none need a write of their own.
        if mode == LastApplied::Merged && self.merged == Some(id) {
            return Ok(());
        }
        let (span, value) = (spans::set_last_applied(apply), keys::log_id_bytes(&id));
        let work = move |store: &Arc<Store>| match mode {
            LastApplied::OwnWrite | LastApplied::Merged => store.put_state(state, &value, depth),
            LastApplied::NoWal => store.put_state(state, &value, Depth::Memtable),
            LastApplied::OwnDb => store.put_own_state(state, &value, depth),
        };
        self.rocks.call(what, span, work).await
    }

    async fn load_snapshot(&self) -> io::Result<Option<Snapshot>> {
        let what = What { step: Step::Other, first: 0, count: 0 };
        self.rocks.call(what, Span::none(), |store| snapshot::load(store)).await
    }
}

impl<N: Native> RaftStateMachine<Types<N>> for StateMachine<N> {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = SnapshotBuilder<N>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<Types<N>>, io::Error>> + Unpin + Send,
    {
        let entries: Vec<_> = entries.try_collect().await?;
        let span = spans::apply(entries.len());
        self.apply_all(entries, &span).instrument(span.clone()).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<N> {
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        SnapshotBuilder::new(self.rocks.clone(), meta, self.sessions.view(&self.answers))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> io::Result<()> {
        let (own, depth, kept) = (meta.clone(), self.rocks.state_depth(), self.sessions.clone());
        let work = move |store: &Arc<Store>| {
            let (sessions, answers) = snapshot::contents(&data)?;
            match kept {
                Sessions::Stored(_) => {
                    let replaced = (sessions, answers.clone());
                    snapshot::install(store, &own, &data, Some(replaced), depth)?;
                }
                Sessions::InMemory(memory) => {
                    snapshot::install(store, &own, &data, None, depth)?;
                    memory.replace(sessions);
                }
            }
            Ok(answers)
        };
        let answers = self.rocks.call(What { step: Step::Other, first: 0, count: 0 }, Span::none(), work).await?;
        (self.answers, self.again) = (Answers::of(answers), Again::default());
        self.applied = meta.last_log_id;
        self.merged = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.load_snapshot().await
    }
}

/// The last applied id that the stored sessions are sure to hold; `covered` is the stored snapshot's.
fn applied_of<N: Native>(rocks: &Rocks<N>, covered: Option<LogId>) -> Result<Option<LogId>, String> {
    let decode = |value: Option<Vec<u8>>| {
        value.map(|value| keys::log_id(&value).ok_or("the last applied log id cannot be decoded")).transpose()
    };
    let with_sessions = decode(rocks.store().state(State::Applied)?)?;
    if rocks.last_applied() != LastApplied::OwnDb {
        return Ok(with_sessions);
    }
    let own = decode(rocks.store().own_state(State::Applied)?)?;
    // Unsynced, the two databases may have come differently far when the machine lost power: then only what the
    // snapshot covers is sure, and the entries after it are applied again.
    let sure = if rocks.state_depth() == Depth::Disk { own } else { own.min(covered) };
    Ok(sure.max(with_sessions))
}

fn membership_of(store: &Store) -> Result<StoredMembership, String> {
    let Some(value) = store.state(State::Membership)? else { return Ok(StoredMembership::default()) };
    postcard::from_bytes(&value).map_err(|error| format!("the membership cannot be decoded: {error}"))
}
