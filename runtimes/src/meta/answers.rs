//! What the last proposals were answered, so that one that is sent twice is applied once.
//!
//! A client that gets no answer sends its proposal again, with the same id, and the first one may have been applied all
//! the same. Applied twice, it could undo what came in between, and an opening would find the session that it made
//! itself. So each node keeps the answers to the last [`ANSWERS_MAX`] entries, as part of the state: written together
//! with what a proposal changes, and sent along in a snapshot, so that all nodes come to the same decision.
//!
//! What this leaves out: a proposal that comes again after so many others is applied again.

use crate::broker::effect::{MetaCall, MetaReply, SessionRecord};
use serde::{Deserialize, Serialize};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// So many answers are kept: those of several times the five seconds after which a client asks again, at the rates of a
/// study.
pub const ANSWERS_MAX: usize = 16_384;
/// Fewer, when they would take more than about this, bytes.
const BYTES_MAX: usize = 32 << 20;

/// A proposal that was applied, and its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Of its entry in the log.
    pub index: u64,
    /// The proposal's id, chosen by who proposed it.
    pub id: u64,
    /// [`digest`] of its calls.
    pub digest: u32,
    /// One for each call.
    pub replies: Vec<MetaReply>,
}

impl Answered {
    /// Where it is stored: its place is taken by a later one.
    pub fn slot(&self) -> u64 {
        self.index % ANSWERS_MAX as u64
    }

    fn bytes(&self) -> usize {
        const FIXED: usize = 64;
        let of = |record: &SessionRecord| {
            let filters = record.subscriptions.iter().map(|(filter, _)| filter.len() + 32);
            record.client.len() + filters.sum::<usize>()
        };
        let reply = |reply: &MetaReply| match reply {
            MetaReply::Opened(Some(record)) => FIXED + of(record),
            MetaReply::Opened(None) | MetaReply::Stored => FIXED,
        };
        FIXED + self.replies.iter().map(reply).sum::<usize>()
    }
}

/// Tells proposals apart that have one id: of other callers, or by mistake.
///
/// # Errors
/// One sentence, when the calls cannot be encoded.
pub fn digest(caller: u64, calls: &[MetaCall]) -> Result<u32, String> {
    let bytes =
        postcard::to_stdvec(&(caller, calls)).map_err(|error| format!("a proposal cannot be encoded: {error}"))?;
    Ok(crc32fast::hash(&bytes))
}

/// The answers that are kept. Which these are depends on the log alone.
#[derive(Debug, Default)]
pub struct Answers {
    /// By index.
    order: VecDeque<Arc<Answered>>,
    by_id: HashMap<(u64, u32), Arc<Answered>>,
    bytes: usize,
}

impl Answers {
    /// Those that were stored, in any order.
    pub fn of(mut stored: Vec<Answered>) -> Answers {
        stored.sort_by_key(|answered| answered.index);
        let mut answers = Answers::default();
        stored.into_iter().for_each(|answered| answers.add(answered));
        answers
    }

    /// What this proposal was answered when it was applied.
    pub fn find(&self, id: u64, digest: u32) -> Option<Vec<MetaReply>> {
        self.by_id.get(&(id, digest)).map(|answered| answered.replies.clone())
    }

    /// A proposal was applied, later than all others.
    pub fn add(&mut self, answered: Answered) {
        let oldest_kept = (answered.index + 1).saturating_sub(ANSWERS_MAX as u64);
        let answered = Arc::new(answered);
        self.bytes += answered.bytes();
        self.by_id.insert((answered.id, answered.digest), Arc::clone(&answered));
        self.order.push_back(answered);
        // What a later one's place on the disk was is forgotten too.
        let is_over = |oldest: &Arc<Answered>, bytes| oldest.index < oldest_kept || bytes > BYTES_MAX;
        while let Some(oldest) = self.order.pop_front_if(|oldest| is_over(oldest, self.bytes)) {
            self.bytes -= oldest.bytes();
            // One that came again when the first had been forgotten has taken its place.
            if let Entry::Occupied(entry) = self.by_id.entry((oldest.id, oldest.digest))
                && Arc::ptr_eq(entry.get(), &oldest)
            {
                entry.remove();
            }
        }
    }

    /// All of them as they are now, oldest first.
    pub fn view(&self) -> Vec<Arc<Answered>> {
        self.order.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answered(index: u64, filters: usize) -> Answered {
        let subscriptions = (0..filters).map(|_| ("t".repeat(1000), 0)).collect();
        let record = SessionRecord { client: "a".into(), expiry_s: 1, subscriptions, left_unix_s: None };
        Answered { index, id: index + 7, digest: 1, replies: vec![MetaReply::Opened(Some(record))] }
    }

    #[test]
    fn the_oldest_are_forgotten_by_number_and_by_size() {
        let mut answers = Answers::default();
        (0..ANSWERS_MAX as u64 + 5).for_each(|index| answers.add(answered(index, 0)));
        assert_eq!((answers.find(11, 1), answers.order.len()), (None, ANSWERS_MAX));
        assert_eq!(answers.find(12, 1).unwrap(), answered(5, 0).replies);
        assert_eq!(answers.find(12, 2), None, "other calls under the same id");
        (20_000..20_100).for_each(|index| answers.add(answered(index, 1000)));
        assert!(answers.bytes <= BYTES_MAX && answers.order.len() < 40, "{}", answers.order.len());
        assert_eq!(answers.by_id.len(), answers.order.len());
    }

    #[test]
    fn the_older_of_two_with_one_id_goes_alone() {
        let mut answers = Answers::default();
        for index in [0, 5] {
            answers.add(Answered { id: 7, ..answered(index, index as usize) });
        }
        // The place of the first is needed, and not that of the second.
        answers.add(answered(ANSWERS_MAX as u64 + 2, 0));
        assert_eq!(answers.order.len(), 2);
        assert_eq!(answers.find(7, 1).unwrap(), answered(5, 5).replies);
    }

    #[test]
    fn what_was_stored_leads_to_the_same_answers() {
        let all: Vec<Answered> = (0..40_000).step_by(3).map(|index| answered(index, (index % 7) as usize)).collect();
        let mut grown = Answers::default();
        all.iter().cloned().for_each(|answered| grown.add(answered));
        // As on the disk: later ones have taken the places of earlier ones.
        let mut slots: HashMap<u64, Answered> = HashMap::new();
        all.into_iter().for_each(|answered| drop(slots.insert(answered.slot(), answered)));
        assert_eq!(Answers::of(slots.into_values().collect()).view(), grown.view());
    }
}
