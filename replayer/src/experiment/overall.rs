//! Progress over several studies: each is a part of the whole, and what is told of it is told of the whole.

use super::pace::{Event, Progress};
use std::time::Duration;

/// Passes on what one part tells, with its share and its time to the end counted over all parts.
pub struct Part<'a> {
    progress: &'a mut dyn Progress,
    before: Duration,
    own: Duration,
    after: Duration,
}

impl<'a> Part<'a> {
    /// A part that is expected to take `own`, after others of `before` and ahead of others of `after`.
    pub fn new(progress: &'a mut dyn Progress, before: Duration, own: Duration, after: Duration) -> Part<'a> {
        Part { progress, before, own, after }
    }
}

impl Progress for Part<'_> {
    fn update(&mut self, event: &Event<'_>) {
        let seconds = |time: Duration| time.as_secs_f64();
        let own = seconds(self.own);
        let whole = seconds(self.before) + own + seconds(self.after);
        let fraction = (seconds(self.before) + own * event.fraction) / whole.max(1e-9);
        // As much slower or faster than expected as this part goes, so the others will go.
        let eta = event.eta.map(|eta| {
            let expected = own * (1.0 - event.fraction);
            let pace = if expected > 0.0 { (seconds(eta) / expected).clamp(0.2, 5.0) } else { 1.0 };
            eta + self.after.mul_f64(pace)
        });
        self.progress.update(&Event { fraction: fraction.min(1.0), eta, ..*event });
    }

    fn note(&mut self, sentence: &str) {
        self.progress.note(sentence);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::experiment::Phase;

    struct Last(f64, Option<Duration>);

    impl Progress for Last {
        fn update(&mut self, event: &Event<'_>) {
            (self.0, self.1) = (event.fraction, event.eta);
        }
    }

    #[test]
    fn a_part_counts_as_its_share_of_the_whole() {
        let seconds = Duration::from_secs;
        let mut last = Last(0.0, None);
        let event = |fraction: f64, eta: u64| Event {
            block: 0,
            blocks: 1,
            complete: 0,
            flagged: 0,
            load: None,
            arm: "a",
            phase: Phase::Drive,
            fraction,
            eta: Some(seconds(eta)),
        };
        // Half of 20 s, 10 s behind it and 70 s ahead, at the pace that was expected.
        Part::new(&mut last, seconds(10), seconds(20), seconds(70)).update(&event(0.5, 10));
        assert_eq!((last.0, last.1.unwrap().as_millis()), (0.2, 80_000));
        // Twice as slow.
        Part::new(&mut last, seconds(10), seconds(20), seconds(70)).update(&event(0.5, 20));
        assert_eq!((last.0, last.1.unwrap().as_millis()), (0.2, 160_000));
        Part::new(&mut last, seconds(80), seconds(20), seconds(0)).update(&event(1.0, 0));
        assert_eq!((last.0, last.1), (1.0, Some(seconds(0))));
    }
}
