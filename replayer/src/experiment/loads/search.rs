//! The search for a knee: which speed to try next, given what was tried so far.
//!
//! Speeds double until the arm does not keep up (or halve until it does), then the interval is halved on the log scale
//! until its ends are 5 % apart. A speed counts as missed when it was missed twice: one stolen moment must not move a
//! knee, and a server beyond its knee misses every time. That leans to the higher rate, in every arm alike.
//!
//! Everything follows from the list of trials, so an interrupted search goes on where it was. It knows nothing of
//! servers, and so it can be tried on planted knees.

use regauge_traces::study::KneeProbe;

/// Ends of the interval may differ by so much.
pub const PRECISION: f64 = 0.05;
/// Factor between speeds while the knee is not yet enclosed.
const GROWTH: f64 = 2.0;
/// So often a speed is missed before it counts.
const MISSES: usize = 2;
/// So often if the driver was late each time, as it is whenever its CPU is stolen.
const DRIVER_MISSES: usize = 3;

/// What a trial's sentence begins with when the driver, not the server, was too slow.
pub const DRIVER: &str = "the driver";

/// Bounds of the speeds that are tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The first speed.
    pub start: f64,
    /// The slowest.
    pub min: f64,
    /// The fastest.
    pub max: f64,
}

/// What ended a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The server did not keep up.
    Server,
    /// The driver was late first.
    Driver,
    /// The fastest speed was kept, or the slowest missed.
    Bounds,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// Try this speed.
    Try(f64),
    /// The knee lies between these speeds.
    Found {
        /// The highest that was kept.
        kept: Option<f64>,
        /// The lowest above it that was missed.
        missed: Option<f64>,
        /// Why there is no higher one.
        limit: Limit,
    },
}

/// The next speed, or the knee.
pub fn next(probes: &[KneeProbe], bounds: &Bounds) -> Next {
    let (min, max) = (round(bounds.min), round(bounds.max));
    let kept = probes.iter().filter(|p| p.kept).map(|p| p.speed).max_by(f64::total_cmp);
    let above = |speed: f64| kept.is_none_or(|kept| speed > kept);
    let misses = |speed: f64| probes.iter().filter(move |p| !p.kept && p.speed == speed);
    let missed: Vec<f64> = probes.iter().filter(|p| !p.kept && above(p.speed)).map(|p| p.speed).collect();
    let driver = |speed: f64| misses(speed).all(|p| p.why.starts_with(DRIVER));
    let enough = |speed: f64| if driver(speed) { DRIVER_MISSES } else { MISSES };
    if let Some(again) = missed.iter().copied().find(|speed| misses(*speed).count() < enough(*speed)) {
        return Next::Try(again);
    }
    let missed = missed.into_iter().min_by(f64::total_cmp);
    let limit = |missed: f64| if driver(missed) { Limit::Driver } else { Limit::Server };
    match (kept, missed) {
        (None, None) => Next::Try(round(bounds.start.max(min).min(max))),
        (Some(low), None) if low >= max => Next::Found { kept, missed, limit: Limit::Bounds },
        (Some(low), None) => Next::Try(round((low * GROWTH).min(max))),
        (None, Some(high)) if high <= min => Next::Found { kept, missed, limit: limit(high) },
        (None, Some(high)) => Next::Try(round((high / GROWTH).max(min))),
        (Some(low), Some(high)) if high <= low * (1.0 + PRECISION) => Next::Found { kept, missed, limit: limit(high) },
        (Some(low), Some(high)) => Next::Try(round((low * high).sqrt())),
    }
}

/// A number of four digits. Speeds travel as JSON between processes and calls, and a plan's hash knows every bit of
/// them: four digits come back as they went.
pub fn round(speed: f64) -> f64 {
    format!("{speed:.3e}").parse().unwrap_or(speed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { start: 1.0, min: 1.0 / 64.0, max: 200.0 };

    fn probe(speed: f64, kept: bool, why: &str) -> KneeProbe {
        let why = if kept { String::new() } else { why.to_owned() };
        KneeProbe { speed, offered_per_s: speed * 100.0, achieved_per_s: 0.0, p99_ns: None, kept, why }
    }

    /// Searches with an arm that answers as `tries` says; returns what was found and the number of trials.
    fn search(bounds: &Bounds, mut tries: impl FnMut(f64, usize) -> KneeProbe) -> (Next, usize) {
        let mut probes = Vec::new();
        loop {
            match next(&probes, bounds) {
                Next::Try(speed) => {
                    assert!(probes.len() < 60, "no end after {probes:?}");
                    assert!((bounds.min * 0.999..=bounds.max * 1.001).contains(&speed), "{speed}");
                    let at = probes.len();
                    probes.push(tries(speed, at));
                }
                found => return (found, probes.len()),
            }
        }
    }

    proptest! {
        #[test]
        fn a_planted_knee_is_found_within_five_percent(knee in 0.02_f64..190.0, start in 0.05_f64..20.0) {
            let bounds = Bounds { start, ..BOUNDS };
            let (found, trials) = search(&bounds, |speed, _| probe(speed, speed <= knee, "the server lagged"));
            let Next::Found { kept: Some(kept), missed: Some(missed), limit: Limit::Server } = found else {
                panic!("{found:?}")
            };
            prop_assert!(kept <= knee && knee < missed && missed <= kept * 1.0501, "{kept} {knee} {missed}");
            prop_assert!(trials <= 30, "{trials} trials");
        }

        #[test]
        fn one_stolen_moment_moves_no_knee(knee in 0.02_f64..190.0, stolen in 0_usize..12) {
            let tries = |speed, at| probe(speed, speed <= knee && at != stolen, "the server lagged");
            let (found, _) = search(&BOUNDS, tries);
            let Next::Found { kept: Some(kept), missed: Some(missed), .. } = found else { panic!("{found:?}") };
            prop_assert!(kept <= knee && knee < missed && missed <= kept * 1.0501, "{kept} {knee} {missed}");
        }

        #[test]
        fn rounded_speeds_survive_json(speed in 0.001_f64..1e5) {
            let speed = round(speed);
            let text = serde_json::to_string(&speed).unwrap();
            prop_assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), speed.to_bits());
        }
    }

    #[test]
    fn a_driver_that_is_late_first_is_told_from_a_server_that_is() {
        let late = |speed: f64, _| probe(speed, speed <= 7.0, "the driver was 9 ms late");
        let (found, _) = search(&BOUNDS, late);
        assert!(matches!(found, Next::Found { limit: Limit::Driver, .. }), "{found:?}");
        // Late once and on time the other time, while the server missed both: the server's knee.
        let mixed = |speed: f64, at: usize| {
            probe(
                speed,
                speed <= 7.0,
                if at.is_multiple_of(2) { "the driver was late" } else { "the last reply came late" },
            )
        };
        assert!(matches!(search(&BOUNDS, mixed).0, Next::Found { limit: Limit::Server, .. }));
    }

    #[test]
    fn bounds_end_the_search() {
        let (found, trials) = search(&BOUNDS, |speed, _| probe(speed, true, ""));
        assert_eq!(found, Next::Found { kept: Some(200.0), missed: None, limit: Limit::Bounds });
        assert_eq!(trials, 9);
        let (found, _) = search(&BOUNDS, |speed, _| probe(speed, false, "the server lagged"));
        assert!(matches!(found, Next::Found { kept: None, missed: Some(_), limit: Limit::Server }), "{found:?}");
    }

    #[test]
    fn an_interrupted_search_goes_on_where_it_was() {
        let mut probes = Vec::new();
        let mut whole = Vec::new();
        while let Next::Try(speed) = next(&whole, &BOUNDS) {
            whole.push(probe(speed, speed <= 3.3, "the server lagged"));
        }
        for done in &whole {
            // Read back from a file before every step.
            let text = serde_json::to_string(&probes).unwrap();
            probes = serde_json::from_str::<Vec<KneeProbe>>(&text).unwrap();
            assert_eq!(next(&probes, &BOUNDS), Next::Try(done.speed));
            probes.push(done.clone());
        }
        assert!(matches!(next(&probes, &BOUNDS), Next::Found { .. }));
    }
}
