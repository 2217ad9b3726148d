//! What a restarted node knows of the entries that openraft applies again.
//!
//! The applied id that counts after a crash may be older than the sessions, which are then those of a later moment. To
//! come to the same sessions, the entries in between are applied again, all of them and in their order: one that was left
//! out, since its answer is still kept, would be missing behind an older one that was not. What they were answered the
//! first time stays, since the sessions that they find now are not those that they found then.
//!
//! A proposal that came a second time changed nothing and has no answer of its own. The proposal that it repeated may be
//! one whose answer is gone by now, so that it has left none is what tells it: of the newest [`ANSWERS_MAX`] entries
//! every one that changed something has its answer in the database, since both are one write.

use super::answers::{ANSWERS_MAX, Answered};
use crate::broker::effect::MetaReply;
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// The entries behind the applied one whose effect is in the stored sessions already.
#[derive(Debug)]
pub struct Again {
    replies: HashMap<u64, Vec<MetaReply>>,
    /// Of these indices it is known what became of them.
    known: RangeInclusive<u64>,
}

/// What became of an entry before the restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// Nothing, or nobody knows.
    Unknown,
    /// It was applied, and answered so.
    Applied(Vec<MetaReply>),
    /// It repeated an earlier proposal, and changed nothing.
    Repeated,
}

impl Default for Again {
    fn default() -> Again {
        Again { replies: HashMap::new(), known: RangeInclusive::new(1, 0) }
    }
}

impl Again {
    /// Divides what was stored: the answers to entries up to `applied` (`None`: to none), and what is known of those
    /// behind it.
    pub fn divide(stored: Vec<Answered>, applied: Option<u64>) -> (Vec<Answered>, Again) {
        let newest = stored.iter().map(|answered| answered.index).max();
        let is_applied = |answered: &Answered| applied.is_some_and(|applied| answered.index <= applied);
        let (kept, behind): (Vec<_>, Vec<_>) = stored.into_iter().partition(is_applied);
        let replies = behind.into_iter().map(|answered| (answered.index, answered.replies)).collect();
        let Some(newest) = newest else { return (kept, Again::default()) };
        let oldest = (newest + 1).saturating_sub(ANSWERS_MAX as u64).max(applied.map_or(0, |applied| applied + 1));
        (kept, Again { replies, known: oldest..=newest })
    }

    /// Whether the place of this entry's answer in the database belongs to a later entry, which is yet to be applied again.
    pub fn has_lost_its_place(&self, index: u64) -> bool {
        !self.known.is_empty() && index < *self.known.start()
    }

    /// What became of the entry with this index, which is about to be applied.
    pub fn take(&mut self, index: u64) -> Before {
        match self.replies.remove(&index) {
            Some(replies) => Before::Applied(replies),
            None if self.known.contains(&index) => Before::Repeated,
            None => Before::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_behind_the_applied_one_was_applied_or_repeated_another() {
        let answered = |index| Answered { index, replies: vec![MetaReply::Stored], ..Answered::default() };
        let applied = Before::Applied(vec![MetaReply::Stored]);
        let (kept, mut again) = Again::divide(vec![answered(9), answered(4), answered(5), answered(7)], Some(5));
        assert_eq!(kept, [answered(4), answered(5)]);
        let before: Vec<Before> = (5..11).map(|index| again.take(index)).collect();
        let unknown = Before::Unknown;
        assert_eq!(
            before,
            [unknown.clone(), Before::Repeated, applied.clone(), Before::Repeated, applied.clone(), unknown.clone()]
        );
        // Nothing applied for sure, and the places of the oldest were taken by later ones.
        let newest = ANSWERS_MAX as u64 + 3;
        let (kept, mut again) = Again::divide(vec![answered(newest), answered(6)], None);
        assert!(again.has_lost_its_place(3) && !again.has_lost_its_place(4));
        assert_eq!((kept, again.take(3), again.take(4)), (Vec::new(), unknown, Before::Repeated));
        assert_eq!((again.take(6), again.take(newest)), (applied.clone(), applied));
        let (kept, mut again) = Again::divide(Vec::new(), Some(7));
        assert_eq!((kept, again.take(0), again.take(8)), (Vec::new(), Before::Unknown, Before::Unknown));
    }
}
