//! What a study is asked to do.

use super::{ExperimentError, Workload, design};
use crate::arms::Arms;
use crate::gates::GateLimits;
use crate::plan::PlanError;
use crate::process::Timeouts;
use regauge_runtimes::Stop;
use regauge_traces::study::{Design, LayoutRecord};
use std::path::PathBuf;

/// Everything that decides what a study does.
#[derive(Debug, Clone)]
pub struct StudyConfig {
    /// The regauge binary, which is started as server and as driver.
    pub exe: PathBuf,
    /// The trace; the study keeps a sealed copy.
    pub trace: PathBuf,
    /// Facts about it.
    pub workload: Workload,
    /// The arms.
    pub arms: Arms,
    /// How many complete blocks; at least 1. A study that has fewer gets the others, one that has more is refused. In a
    /// study that is sized ([`Design::until`]) those of its first stage, which cannot change.
    pub blocks: u32,
    /// Complete blocks of the second stage, once the first one's variance said how many it takes.
    pub sized: Option<u32>,
    /// Seed of the order of arms.
    pub seed: u64,
    /// The study's directory; made if absent, continued if it holds the same study.
    pub out: PathBuf,
    /// Requests planned before this are warm-up, ns.
    pub warmup_ns: u64,
    /// How long a driver waits for replies after its last planned request, ns.
    pub drain_ns: u64,
    /// How much faster than recorded the trace is replayed.
    pub speed: f64,
    /// Length of the trial of each layout on hosts with few CPUs, ns of the plan.
    pub pilot_ns: u64,
    /// A layout by name (`disjoint`, `shared`) instead of a pilot.
    pub layout: Option<String>,
    /// The layout that the search for the knees was done in: no other one may follow.
    pub settled: Option<LayoutRecord>,
    /// Whether servers stamp what they do, for the lanes.
    pub stamps: bool,
    /// The question, the bar and the sizes, fixed before the first run; `None` for an experiment that ends in no verdict.
    pub design: Option<Design>,
    /// Thresholds; `None` takes those of the layout.
    pub gates: Option<GateLimits>,
    /// Limits of patience with children.
    pub timeouts: Timeouts,
    /// `regauge` version, and git commit when known.
    pub version: String,
    /// The command line, for the manifest.
    pub command: Vec<String>,
    /// Ends the study in order when set.
    pub stop: Stop,
}

impl StudyConfig {
    /// A study of a trace at a speed, everything else at its default: 10 blocks (fewer cannot reach significance under
    /// the exact permutation test of the analysis), seed 0, no warm-up, with stamps, 5 s of drain, a pilot of 3 s.
    ///
    /// # Errors
    /// If the trace cannot be read or cannot be replayed.
    pub fn new(exe: PathBuf, trace: PathBuf, out: PathBuf, arms: Arms, speed: f64) -> Result<StudyConfig, PlanError> {
        Ok(StudyConfig {
            workload: Workload::open(&trace, speed)?,
            exe,
            trace,
            arms,
            blocks: 10,
            sized: None,
            seed: 0,
            out,
            warmup_ns: 0,
            drain_ns: 5_000_000_000,
            speed,
            pilot_ns: 3_000_000_000,
            layout: None,
            settled: None,
            stamps: true,
            design: None,
            gates: None,
            timeouts: Timeouts::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: std::env::args().collect(),
            stop: Stop::new(),
        })
    }

    /// Whether the request makes sense, as far as can be told before anything is touched.
    pub(super) fn check(&self) -> Result<(), ExperimentError> {
        let wrong = |text: String| Err(ExperimentError::Config(text));
        if self.blocks == 0 {
            return wrong("0 blocks are no study; ask for 1 or more".into());
        }
        if self.workload.requests == 0 {
            return wrong("the trace plans no request; record or synthesise one with requests".into());
        }
        // At its very end one request might be left: no sample to speak of.
        if self.warmup_ns > 0 && self.warmup_ns >= self.workload.duration_ns {
            let s = |ns: u64| ns as f64 / 1e9;
            let (warmup, length) = (s(self.warmup_ns), s(self.workload.duration_ns));
            return wrong(format!(
                "a warm-up of {warmup} s leaves nothing of a plan of {length} s; shorten the warm-up"
            ));
        }
        if let Some(sized) = self.sized
            && (sized < self.blocks || self.design.as_ref().is_none_or(|design| design.until.is_none()))
        {
            return wrong(format!("a second stage of {sized} blocks does not follow from this study's first stage"));
        }
        if let Some(design) = &self.design {
            design::check(design, self.arms.names(), self.arms.base(), &self.workload.steps).or_else(wrong)?;
        }
        if !self.exe.is_file() {
            return wrong(format!("{} is no program that could be started as server and driver", self.exe.display()));
        }
        Ok(())
    }
}
