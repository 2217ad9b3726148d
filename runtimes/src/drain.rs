//! When a node that takes no more input has finished what it had begun.
//!
//! A shard that is idle may still get a message from another one that is not, so no shard can tell by itself. Each
//! reports its sums of messages sent and handled, and its operations in flight; the node is quiet when nothing is in
//! flight and the sums agree, in two rounds of reports with the same sums. One round is not enough, since reports are
//! not of one moment (F. Mattern, "Algorithms for distributed termination detection", Distributed Computing 2, 1987:
//! the four-counter method). What it leaves out: waiting, which each runtime does its own way.

/// What one shard reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages that it has sent to other shards since its start.
    pub sent: u64,
    /// Messages of other shards that it has handled since its start.
    pub handled: u64,
    /// Its operations that have not completed.
    pub in_flight: usize,
}

impl std::ops::Add for Progress {
    type Output = Progress;
    fn add(self, o: Progress) -> Progress {
        Progress {
            sent: self.sent + o.sent,
            handled: self.handled + o.handled,
            in_flight: self.in_flight + o.in_flight,
        }
    }
}

/// The reports of all shards.
#[derive(Debug)]
pub struct Drain {
    reports: Vec<Option<Progress>>,
    heard: Vec<bool>,
    last_round: Option<(u64, u64)>,
    quiet: bool,
}

impl Drain {
    /// For `shards` reporters.
    pub fn new(shards: usize) -> Drain {
        Drain { reports: vec![None; shards], heard: vec![false; shards], last_round: None, quiet: false }
    }

    /// Takes one report; true when the node is quiet, from then on for every reporter.
    pub fn report(&mut self, shard: usize, progress: Progress) -> bool {
        if let (Some(report), Some(heard)) = (self.reports.get_mut(shard), self.heard.get_mut(shard)) {
            (*report, *heard) = (Some(progress), true);
        }
        if self.quiet || !self.heard.iter().all(|&heard| heard) {
            return self.quiet;
        }
        // A round is complete: everyone has reported since the last one.
        self.heard.fill(false);
        let reports = || self.reports.iter().flatten();
        let sums = (reports().map(|r| r.sent).sum::<u64>(), reports().map(|r| r.handled).sum::<u64>());
        let idle = reports().all(|r| r.in_flight == 0) && sums.0 == sums.1;
        self.quiet = idle && self.last_round == Some(sums);
        self.last_round = idle.then_some(sums);
        self.quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(sent: u64, handled: u64, in_flight: usize) -> Progress {
        Progress { sent, handled, in_flight }
    }

    #[test]
    fn one_reporter_is_quiet_after_two_idle_rounds() {
        let mut drain = Drain::new(1);
        assert!(!drain.report(0, progress(5, 5, 1)), "an operation is in flight");
        assert!(!drain.report(0, progress(5, 5, 0)), "the first idle round");
        assert!(drain.report(0, progress(5, 5, 0)));
    }

    #[test]
    fn a_message_on_its_way_keeps_the_node_awake() {
        let mut drain = Drain::new(2);
        for _ in 0..5 {
            assert!(!drain.report(0, progress(1, 0, 0)));
            assert!(!drain.report(1, progress(0, 0, 0)));
        }
        drain.report(1, progress(0, 1, 0));
        drain.report(0, progress(1, 0, 0));
        drain.report(0, progress(1, 0, 0));
        assert!(drain.report(1, progress(0, 1, 0)));
    }

    #[test]
    fn reports_of_different_moments_do_not_deceive() {
        // Shard 1 reports, then handles a message and answers it; shard 0 reports after it has handled the answer of
        // an earlier one: the sums agree by chance, and the second round finds them changed.
        let mut drain = Drain::new(2);
        assert!(!drain.report(1, progress(1, 0, 0)));
        assert!(!drain.report(0, progress(0, 1, 0)));
        assert!(!drain.report(1, progress(2, 0, 0)));
        assert!(!drain.report(0, progress(0, 2, 0)));
        assert!(!drain.report(0, progress(0, 2, 0)), "a shard that reports twice makes no round");
        assert!(drain.report(1, progress(2, 0, 0)));
    }
}
