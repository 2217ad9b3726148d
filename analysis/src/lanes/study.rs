//! The lanes of a study, read run by run, so that memory holds the stamps of one run and not of all.

use super::RunLanes;
use super::aggregate::{ArmLanes, RunTimes, arm_lanes};
use super::load::{LoadedRun, load};
use super::slow::{SlowLine, slow_lines};
use crate::error::AnalysisError;
use crate::load::Study;
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

    /// Why runs have no lanes, each reason once.
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
        reasons.into_iter().map(sentence).collect()
    }
}

impl ArmTimes {
    fn add(&mut self, run: &RunRecord, loaded: &LoadedRun) {
        let lanes = RunLanes::of(&loaded.input());
        self.runs.push(RunTimes::of(run.block, &lanes));
        self.slow.extend(slow_lines(run.block, &run.arm, &lanes));
    }
}
