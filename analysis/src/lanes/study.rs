//! The lanes of a study, read run by run, so that memory holds the stamps of one run and not of all.

use super::RunLanes;
use super::aggregate::{ArmLanes, RunTimes, arm_lanes};
use super::load::{LoadedRun, load};
use super::slow::{SlowLine, slow_lines};
use crate::error::AnalysisError;
use crate::load::Study;
use crate::units::plural;
use regauge_traces::study::RunRecord;

/// What is kept of one arm.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ArmTimes {
    /// Arm name.
    pub arm: String,
    /// Its runs with stamps, by block.
    pub runs: Vec<RunTimes>,
    /// Runs without lanes, and why: (block, sentence).
    pub without: Vec<(u32, String)>,
    /// The slowest of each run.
    pub slow: Vec<SlowLine>,
}

/// The lanes of a study.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StudyLanes {
    /// Per arm, base first.
    pub arms: Vec<ArmTimes>,
}

impl StudyLanes {
    /// Reads the valid runs, or all finished ones.
    ///
    /// # Errors
    /// A file of stamps, samples or connections that is there and cannot be read.
    pub fn of(study: &Study, with_invalid: bool) -> Result<Self, AnalysisError> {
        let mut arms = Vec::new();
        for arm in study.arms() {
            let mut times = ArmTimes { arm: arm.name.clone(), ..ArmTimes::default() };
            for run in study.runs_of(&arm.name).filter(|run| run.valid || with_invalid) {
                match load(study, run)? {
                    Ok(loaded) => times.add(run, &loaded),
                    Err(why) => times.without.push((run.block, why)),
                }
            }
            arms.push(times);
        }
        Ok(StudyLanes { arms })
    }

    /// Mean lanes per arm; empty when no run of the study has stamps.
    pub fn summary(&self) -> Vec<ArmLanes> {
        if self.arms.iter().all(|arm| arm.runs.is_empty()) {
            return Vec::new();
        }
        self.arms.iter().map(|arm| arm_lanes(&arm.arm, &arm.runs, arm.without.len() as u64)).collect()
    }

    /// Why runs have no lanes, each reason once, and what is missing from those that have.
    pub fn missing(&self) -> Vec<String> {
        let mut reasons: Vec<(&str, u64)> = Vec::new();
        for (_, why) in self.arms.iter().flat_map(|arm| &arm.without) {
            match reasons.iter_mut().find(|(reason, _)| reason == why) {
                Some((_, n)) => *n += 1,
                None => reasons.push((why, 1)),
            }
        }
        let sentence = |(why, n): (&str, u64)| match n {
            1 => format!("1 run has no lanes: {why}."),
            n => format!("{n} runs have no lanes: {why}."),
        };
        let mut sentences: Vec<String> = reasons.into_iter().map(sentence).collect();
        sentences.extend(self.left_out());
        sentences.extend(self.without_run_delay());
        sentences
    }

    fn left_out(&self) -> Option<String> {
        let thinned: Vec<u64> = self.runs().map(|run| run.taken.left_out).filter(|rows| *rows > 0).collect();
        let rows: u64 = thinned.iter().sum();
        let runs = plural(thinned.len() as u64, "run");
        (rows > 0).then(|| {
            format!(
                "In {runs} there were more stamps than are kept: {} left out, and requests that lack one count as \
                 without stamps.",
                plural(rows, "row")
            )
        })
    }

    fn without_run_delay(&self) -> Option<String> {
        let runs = self.runs().filter(|run| !run.taken.run_delay).count() as u64;
        (runs > 0).then(|| {
            format!(
                "In {} the kernel did not say how long threads waited for a CPU (no schedstat): such waits show in other \
                 lanes, most of them in storage.",
                plural(runs, "run")
            )
        })
    }

    fn runs(&self) -> impl Iterator<Item = &RunTimes> {
        self.arms.iter().flat_map(|arm| &arm.runs)
    }
}

impl ArmTimes {
    fn add(&mut self, run: &RunRecord, loaded: &LoadedRun) {
        let lanes = RunLanes::of(&loaded.input());
        self.runs.push(RunTimes::of(run.block, &lanes));
        self.slow.extend(slow_lines(run.block, &run.arm, &lanes));
    }
}
