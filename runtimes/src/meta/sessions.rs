//! What calls do to sessions, wherever these are kept, and the sessions that are kept in memory alone.
//!
//! Calls are applied in the order of the raft log and depend on nothing else, so every node comes to the same sessions.
//! They may be applied again after a crash: [`decide`] leads to the same sessions then, too (its test says how far).

use crate::broker::effect::{MetaCall, MetaReply, SessionRecord};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What becomes of each session that calls touch; `None`: it is deleted.
pub type Changes = HashMap<String, Option<SessionRecord>>;

/// What `calls` change, one after the other, and their replies in the same order. `kept` reads what is stored.
///
/// # Errors
/// Those of `kept`.
pub fn decide(
    calls: Vec<MetaCall>,
    kept: impl Fn(&str) -> Result<Option<SessionRecord>, String>,
) -> Result<(Changes, Vec<MetaReply>), String> {
    let (mut changes, mut replies) = (Changes::with_capacity(calls.len()), Vec::with_capacity(calls.len()));
    for call in calls {
        let (client, record, reply) = match call {
            MetaCall::OpenSession { record, clean, unix_s } => {
                let old = match (clean, changes.get(&record.client)) {
                    (true, _) => None,
                    (false, Some(changed)) => changed.clone(),
                    (false, None) => kept(&record.client)?,
                };
                let old = old.filter(|old| lives_on(old, unix_s));
                let opened = old.map(|old| SessionRecord { subscriptions: old.subscriptions, ..record.clone() });
                let record = opened.clone().unwrap_or(record);
                (record.client.clone(), Some(record), MetaReply::Opened(opened))
            }
            MetaCall::PutSession { record } => (record.client.clone(), Some(record), MetaReply::Stored),
            MetaCall::DropSession { client } => (client, None, MetaReply::Stored),
        };
        changes.insert(client, record);
        replies.push(reply);
    }
    Ok((changes, replies))
}

/// Whether a stored session still exists at `unix_s`. A session that ends with its connection (expiry 0) never does.
/// One without a time of leaving was connected when the node ended; when its client left is unknown, so it lives on.
fn lives_on(record: &SessionRecord, unix_s: u64) -> bool {
    match (record.expiry_s, record.left_unix_s) {
        (0, _) => false,
        (u32::MAX, _) | (_, None) => true,
        (expiry_s, Some(left)) => left.saturating_add(u64::from(expiry_s)) > unix_s,
    }
}

/// Sessions in memory alone.
///
/// They lie in many small maps behind `Arc`s: a snapshot takes the `Arc`s, and each map is copied only when it changes
/// while the snapshot is being written. One large map would have to be copied while calls wait.
#[derive(Debug)]
pub struct InMemory {
    buckets: Mutex<Vec<Bucket>>,
}

/// Some of the sessions, by client id.
pub type Bucket = Arc<HashMap<String, SessionRecord>>;

/// Few enough to be taken in a few µs, many enough that copying one of them costs no more.
const BUCKETS: usize = 1024;

impl InMemory {
    /// Those of a snapshot.
    pub fn new(sessions: Vec<SessionRecord>) -> InMemory {
        let memory = InMemory { buckets: Mutex::new(Vec::new()) };
        memory.replace(sessions);
        memory
    }

    /// Forgets all sessions and takes these.
    pub fn replace(&self, sessions: Vec<SessionRecord>) {
        let mut maps = vec![HashMap::new(); BUCKETS];
        for session in sessions {
            maps[bucket_of(&session.client)].insert(session.client.clone(), session);
        }
        *self.lock() = maps.into_iter().map(Arc::new).collect();
    }

    /// Performs calls.
    ///
    /// # Errors
    /// None; the type is that of sessions that are stored.
    pub fn route(&self, calls: Vec<MetaCall>) -> Result<Vec<MetaReply>, String> {
        let mut buckets = self.lock();
        let (changes, replies) = decide(calls, |client| Ok(buckets[bucket_of(client)].get(client).cloned()))?;
        for (client, record) in changes {
            let bucket = Arc::make_mut(&mut buckets[bucket_of(&client)]);
            match record {
                Some(record) => drop(bucket.insert(client, record)),
                None => drop(bucket.remove(&client)),
            }
        }
        Ok(replies)
    }

    /// The sessions as they are now, in no order.
    pub fn view(&self) -> Vec<Bucket> {
        self.lock().clone()
    }

    /// The sessions, in the order of their client ids.
    pub fn sorted(&self) -> Vec<SessionRecord> {
        let mut sessions: Vec<_> = self.view().iter().flat_map(|bucket| bucket.values().cloned()).collect();
        sessions.sort_unstable_by(|a, b| a.client.cmp(&b.client));
        sessions
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bucket_of(client: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    hasher.finish() as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn calls() -> impl Strategy<Value = Vec<MetaCall>> {
        let record = ("[ab]", prop_oneof![Just(0), 1..50u32, Just(u32::MAX)], 0..3u8, prop::option::of(0..100u64));
        let record = record.prop_map(|(client, expiry_s, filters, left_unix_s)| SessionRecord {
            client,
            expiry_s,
            subscriptions: (0..filters).map(|n| (format!("t/{n}"), n)).collect(),
            left_unix_s,
        });
        // As the broker does it: a session that is opened has neither subscriptions nor a time of leaving.
        let open = (record.clone(), any::<bool>(), 0..150u64).prop_map(|(record, clean, unix_s)| {
            let record = SessionRecord { subscriptions: Vec::new(), left_unix_s: None, ..record };
            MetaCall::OpenSession { record, clean, unix_s }
        });
        let put = record.prop_map(|record| MetaCall::PutSession { record });
        let call = prop_oneof![open, put, "[ab]".prop_map(|client| MetaCall::DropSession { client })];
        prop::collection::vec(call, 0..12)
    }

    proptest! {
        #[test]
        fn calls_together_are_as_calls_one_by_one(before in calls(), calls in calls()) {
            let (together, apart) = (InMemory::new(Vec::new()), InMemory::new(Vec::new()));
            for memory in [&together, &apart] {
                memory.route(before.clone()).unwrap();
            }
            let replies = together.route(calls.clone()).unwrap();
            let one_by_one: Vec<_> = calls.into_iter().flat_map(|call| apart.route(vec![call]).unwrap()).collect();
            prop_assert_eq!(replies, one_by_one);
            prop_assert_eq!(together.sorted(), apart.sorted());
        }

        /// What is applied again from any point on leads to the same sessions. The exception: the subscriptions of a
        /// session that ends with its connection (expiry 0) may be lost. No call ever reads them, and the connection
        /// ended with the crash.
        #[test]
        fn calls_may_be_applied_again(calls in calls(), again_from in 0..12usize) {
            let memory = InMemory::new(Vec::new());
            memory.route(calls.clone()).unwrap();
            let expected = memory.sorted();
            memory.route(calls[again_from.min(calls.len())..].to_vec()).unwrap();
            let readable = |sessions: Vec<SessionRecord>| -> Vec<_> {
                let forget = |s: SessionRecord| match s.expiry_s {
                    0 => SessionRecord { subscriptions: Vec::new(), ..s },
                    _ => s,
                };
                sessions.into_iter().map(forget).collect()
            };
            prop_assert_eq!(readable(memory.sorted()), readable(expected));
        }
    }

    #[test]
    fn a_view_does_not_change() {
        let record = |client: &str| SessionRecord {
            client: client.into(),
            expiry_s: 1,
            subscriptions: Vec::new(),
            left_unix_s: None,
        };
        let memory = InMemory::new(vec![record("a")]);
        let view = memory.view();
        let calls = ["b", "c"].map(|client| MetaCall::PutSession { record: record(client) });
        memory.route(calls.to_vec()).unwrap();
        memory.route(vec![MetaCall::DropSession { client: "a".into() }]).unwrap();
        let seen: Vec<_> = view.iter().flat_map(|bucket| bucket.keys()).collect();
        assert_eq!(seen, ["a"]);
        assert_eq!(memory.sorted(), [record("b"), record("c")]);
    }
}
