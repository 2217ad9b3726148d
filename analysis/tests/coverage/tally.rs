//! Counts over many experiments, in parallel, with their Monte Carlo error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

/// Threads of a simulation.
const THREADS: usize = 2;

/// `repetitions` experiments on two threads, in order of their number, so that the result does not depend on timing.
pub fn repeat<T: Send>(repetitions: u64, experiment: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let (sender, next, experiment) = (sender.clone(), &next, &experiment);
            scope.spawn(move || {
                loop {
                    let repetition = next.fetch_add(1, Ordering::Relaxed);
                    if repetition >= repetitions {
                        break;
                    }
                    sender.send((repetition, experiment(repetition))).unwrap();
                }
            });
        }
    });
    drop(sender);
    let mut outcomes: Vec<(u64, T)> = receiver.into_iter().collect();
    outcomes.sort_by_key(|(repetition, _)| *repetition);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// How often something happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Times it did.
    pub hits: u64,
    /// Times it could have.
    pub of: u64,
}

impl Share {
    /// Counts what holds.
    pub fn of<T>(outcomes: &[T], holds: impl Fn(&T) -> bool) -> Share {
        Share { hits: outcomes.iter().filter(|outcome| holds(outcome)).count() as u64, of: outcomes.len() as u64 }
    }

    /// Between 0 and 1.
    pub fn value(&self) -> f64 {
        self.hits as f64 / self.of as f64
    }

    /// Standard error of the value from the finite number of experiments.
    pub fn error(&self) -> f64 {
        let p = self.value();
        (p * (1.0 - p) / self.of as f64).sqrt()
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} ± {:.1} %", 100.0 * self.value(), 100.0 * self.error())
    }
}

/// The middle one of some numbers.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
