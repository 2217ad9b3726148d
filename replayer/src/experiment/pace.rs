//! How far a study is, for whoever watches.

use super::StudyConfig;
use super::tally::{Budget, Tally};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Guess of what a run costs besides its plan, until one has been seen.
const RUN_EXTRA: Duration = Duration::from_secs(3);

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Trying a CPU layout.
    Pilot,
    /// Trying how fast an arm can go.
    Knee,
    /// Starting and stopping each arm once.
    Probe,
    /// Canary, and an empty data directory.
    Prepare,
    /// The server starts.
    Start,
    /// The driver sends.
    Drive,
    /// The server stops and digests its state.
    Stop,
    /// Canary and gates.
    Check,
}

/// One sign of life.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// Block from 0.
    pub block: u32,
    /// Complete blocks wanted.
    pub blocks: u32,
    /// Blocks so far in which every run is valid.
    pub complete: u32,
    /// Blocks so far in which a run failed a gate.
    pub flagged: u32,
    /// Share of the base arm's knee at which the study runs, if it has several loads.
    pub load: Option<f64>,
    /// The arm, or the layout during a pilot.
    pub arm: &'a str,
    /// What is being done.
    pub phase: Phase,
    /// Share of the whole study that is done, 0 to 1.
    pub fraction: f64,
    /// Estimated time to the end; `None` before there is anything to estimate from.
    pub eta: Option<Duration>,
}

/// Whoever watches.
pub trait Progress {
    /// Something happened; called at most about ten times a second.
    fn update(&mut self, event: &Event<'_>);

    /// Something that the person should read, as one sentence.
    fn note(&mut self, sentence: &str) {
        let _ = sentence;
    }
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn update(&mut self, _: &Event<'_>) {}
}

/// What a run takes, by its plan's length, before one has been seen.
pub fn run_guess(plan: Duration) -> Duration {
    plan + RUN_EXTRA
}

/// Counts runs and turns them into events.
pub(super) struct Pace<'a> {
    progress: &'a mut dyn Progress,
    budget: Budget,
    tally: Tally,
    load: Option<f64>,
    arms: f64,
    resumed: u64,
    done: u64,
    plan: Duration,
    begun: Option<Instant>,
    spent: Duration,
}

impl<'a> Pace<'a> {
    pub fn new(config: &StudyConfig, progress: &'a mut dyn Progress) -> Pace<'a> {
        Pace {
            progress,
            budget: Budget::new(config.blocks, None),
            tally: Tally::default(),
            load: config.design.as_ref().and_then(|design| design.load),
            arms: config.arms.names().count() as f64,
            resumed: 0,
            done: 0,
            plan: Duration::from_nanos(config.workload.duration_ns),
            begun: None,
            spent: Duration::ZERO,
        }
    }

    /// What the study may spend, once it is known.
    pub fn budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// A run that was finished earlier.
    pub fn skip(&mut self) {
        self.resumed += 1;
    }

    /// Runs that were finished earlier.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// A run begins.
    pub fn begin(&mut self) {
        self.begun = Some(Instant::now());
    }

    /// A run is finished.
    pub fn finish(&mut self) {
        self.done += 1;
        self.spent += self.begun.take().map_or(Duration::ZERO, |b| b.elapsed());
    }

    /// A block is judged.
    pub fn judged(&mut self, tally: &Tally) {
        self.tally = *tally;
    }

    /// Tells the watcher. `elapsed` is the time that the driver has run.
    pub fn tell(&mut self, block: u32, arm: &str, phase: Phase, elapsed: Duration) {
        let per_run = match u32::try_from(self.done) {
            Ok(done) if done > 0 => self.spent / done,
            _ => run_guess(self.plan),
        };
        let within = match phase {
            Phase::Pilot | Phase::Knee | Phase::Probe | Phase::Prepare | Phase::Start => 0.0,
            Phase::Drive => 0.9 * (elapsed.as_secs_f64() / self.plan.as_secs_f64().max(1e-9)).min(1.0),
            Phase::Stop => 0.95,
            Phase::Check => 0.97,
        };
        let finished = (self.resumed + self.done) as f64 + within;
        let runs = (f64::from(self.tally.judged()) + self.budget.expected(&self.tally)) * self.arms;
        let event = Event {
            block,
            blocks: self.budget.wanted,
            complete: self.tally.complete,
            flagged: self.tally.flagged,
            load: self.load,
            arm,
            phase,
            fraction: (finished / runs.max(1.0)).min(1.0),
            eta: Some(per_run.mul_f64((runs - finished).max(0.0))),
        };
        self.progress.update(&event);
    }

    /// Passes a sentence on.
    pub fn note(&mut self, sentence: &str) {
        self.progress.note(sentence);
    }
}
