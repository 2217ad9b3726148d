//! How many blocks are complete, and whether another one is due.
//!
//! A block counts when every arm's run in it is valid. One with a run that failed a gate stays as it is, flagged, and
//! another whole block is run after the last: never the run alone, because the runs of a block are compared with each
//! other. The rule sees validity only, neither which arm failed nor any latency, and it follows from the files alone, so
//! that an interrupted study goes on as it would have gone.

use regauge_traces::study::{Design, RunRecord};

/// Blocks that are judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// With a valid run of every arm.
    pub complete: u32,
    /// With a run that failed a gate.
    pub flagged: u32,
}

impl Tally {
    /// Counts one more block, in which every arm has run.
    pub fn count(&mut self, runs: &[RunRecord]) {
        match runs.iter().all(|run| run.valid) {
            true => self.complete += 1,
            false => self.flagged += 1,
        }
    }

    /// Blocks that were judged.
    pub fn judged(&self) -> u32 {
        self.complete + self.flagged
    }
}

/// What a study may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// Complete blocks wanted.
    pub wanted: u32,
    /// Further blocks in place of flagged ones, at most.
    pub reruns: u32,
}

impl Budget {
    /// An experiment without a design runs no block again.
    pub fn new(wanted: u32, design: Option<&Design>) -> Budget {
        Budget { wanted, reruns: design.map_or(0, |design| design.reruns_max) }
    }

    /// Blocks at most, complete or flagged.
    pub fn blocks_max(&self) -> u32 {
        self.wanted.saturating_add(self.reruns)
    }

    /// Whether another block is due.
    pub fn another(&self, tally: &Tally) -> bool {
        tally.complete < self.wanted && tally.judged() < self.blocks_max()
    }

    /// How many blocks are left, as far as can be told: if as many fail from here on as have failed so far (one of each
    /// kind added, lest the first block decide), and never beyond the budget.
    pub fn expected(&self, tally: &Tally) -> f64 {
        let share = f64::from(tally.complete + 1) / f64::from(tally.judged() + 1);
        let needed = f64::from(self.wanted.saturating_sub(tally.complete)) / share;
        needed.min(f64::from(self.blocks_max().saturating_sub(tally.judged())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUDGET: Budget = Budget { wanted: 10, reruns: 3 };

    #[test]
    fn flagged_blocks_are_replaced_until_the_budget_is_spent() {
        let after = |complete, flagged| BUDGET.another(&Tally { complete, flagged });
        assert!(after(0, 0) && after(9, 0) && after(9, 3) && after(0, 12));
        assert!(!after(10, 0) && !after(10, 3));
        // 13 blocks were run, 9 of them complete: nothing is left to spend.
        assert!(!after(9, 4) && !after(0, 13));
    }

    #[test]
    fn the_guess_counts_failures_that_are_to_come() {
        let left = |complete, flagged| BUDGET.expected(&Tally { complete, flagged });
        assert_eq!(left(0, 0), 10.0);
        assert_eq!(left(5, 0), 5.0);
        assert!(left(5, 1) > 5.0 && left(5, 1) < 7.0);
        assert_eq!(left(4, 4), 5.0, "the budget bounds it");
        assert_eq!(left(10, 2), 0.0);
        assert_eq!(Budget::new(4, None).expected(&Tally { complete: 1, flagged: 2 }), 1.0);
    }

    proptest! {
        #[test]
        fn it_ends_within_the_budget(wanted in 1_u32..50, reruns in 0_u32..50, fails: u64) {
            let budget = Budget { wanted, reruns };
            let mut tally = Tally::default();
            while budget.another(&tally) {
                prop_assert!(budget.expected(&tally) > 0.0);
                match fails >> (tally.judged() % 64) & 1 {
                    1 => tally.flagged += 1,
                    _ => tally.complete += 1,
                }
            }
            prop_assert!(tally.judged() <= budget.blocks_max() && tally.complete <= wanted);
            prop_assert!(tally.complete == wanted || tally.judged() == budget.blocks_max());
        }
    }
}
