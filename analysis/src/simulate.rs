//! From samples in memory to a decision, through the code that judges a real study: for simulations with known truth.
//!
//! A simulated study has no files, and nothing of what only files have (lanes, loads, host facts, a check against raw
//! samples). Everything that decides is the same: steady state and warm-up cut, histograms of three digits, pooled
//! percentiles with the jackknife, episodes and refusal, permutation, Holm, the A/A gate, sizing, the verdict.
//!
//! ```
//! use regauge_analysis::simulate::{Experiment, SimulatedArm};
//! use regauge_traces::study::Design;
//!
//! // Two blocks of 30 s at 10 requests/s; a real experiment has ten and more.
//! let runs = |ns: u64| vec![(0..300).map(|i| (i * 100_000_000, ns + i)).collect::<Vec<(u64, u64)>>(); 2];
//! let experiment = Experiment {
//!     design: Design { control: Some("again".into()), primary_percentile: "p50".into(), ..Design::default() },
//!     arms: vec![
//!         SimulatedArm::new("base", "tokio-shared", runs(1_000_000)),
//!         SimulatedArm::new("again", "tokio-shared", runs(1_000_000)),
//!         SimulatedArm::new("compio", "compio", runs(500_000)),
//!     ],
//!     warmup_ns: 0,
//!     duration_ns: 30_000_000_000,
//!     seed: 1,
//! };
//! let decision = experiment.decide()?;
//! assert_eq!(decision.verdict, "INSUFFICIENT EVIDENCE");
//! assert!(decision.why[0].starts_with("2 complete blocks"));
//! # Ok::<(), regauge_analysis::AnalysisError>(())
//! ```

use crate::analysis::{Analysis, summarise};
use crate::check::ExactCheck;
use crate::decision::Decision;
use crate::error::AnalysisError;
use crate::lanes::StudyLanes;
use crate::load::Study;
use crate::samples::{RunSamples, Sample, StepHistogram};
use crate::settle;
use crate::source::{Recut, Source, histograms_of};
use regauge_traces::study::sample_flags::WARMUP;
use regauge_traces::study::{ArmRecord, Design, LayoutRecord, Manifest, RunRecord, STUDY_VERSION, Stage};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The only step of a simulated study; `all` is the same.
const STEP: &str = "publish";

/// (planned, ns from the run's start; latency, ns) of one request.
pub type SimulatedRequest = (u64, u64);

/// One arm with its samples.
#[derive(Debug, Clone)]
pub struct SimulatedArm {
    /// Unique name.
    pub name: String,
    /// Its stack; the family before the first `-` says which runtime it is.
    pub stack: String,
    /// Settings that are promises to clients (durability, …); `Value::Null` where all arms promise the same.
    pub settings: Value,
    /// Requests per block, in order of planned time. All arms have as many blocks; an empty one is a run without a reply.
    pub blocks: Vec<Vec<SimulatedRequest>>,
}

impl SimulatedArm {
    /// An arm that promises what all do.
    pub fn new(name: &str, stack: &str, blocks: Vec<Vec<SimulatedRequest>>) -> Self {
        SimulatedArm { name: name.to_owned(), stack: stack.to_owned(), settings: Value::Null, blocks }
    }
}

/// A study in memory: every run is valid and finished, and its question was fixed beforehand.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// The question. [`Design::control`] names the arm that repeats the base; the primary step is `all` or `publish`.
    pub design: Design,
    /// The arms, base first.
    pub arms: Vec<SimulatedArm>,
    /// The plan's warm-up, ns.
    pub warmup_ns: u64,
    /// The plan's length, ns. Steady state is judged on windows of half a second: it takes 10 s at least.
    pub duration_ns: u64,
    /// Seed of permutations that are sampled.
    pub seed: u64,
}

impl Experiment {
    /// The decision.
    ///
    /// # Errors
    /// No arm, no block, arms with different numbers of blocks.
    pub fn decide(&self) -> Result<Decision, AnalysisError> {
        Ok(self.analyse(None)?.decision)
    }

    /// The decision of a study in two stages: the first `first_stage` blocks fixed the number of all (Stein).
    ///
    /// # Errors
    /// As [`Experiment::decide`].
    pub fn decide_sized(&self, first_stage: u32) -> Result<Decision, AnalysisError> {
        Ok(self.analyse(Some(first_stage))?.decision)
    }

    /// Everything that the tables of a study would say.
    ///
    /// # Errors
    /// As [`Experiment::decide`].
    pub fn analyse(&self, first_stage: Option<u32>) -> Result<Analysis, AnalysisError> {
        let study = self.study(first_stage)?;
        let (evidence, steady) = settle(&study, self)?;
        let recut = Recut { source: self, cut_ns: steady.cut_ns };
        summarise(&study, &recut, &evidence, &StudyLanes::default(), steady, ExactCheck::default())
    }

    /// The records that a study of these runs would have.
    fn study(&self, first_stage: Option<u32>) -> Result<Study, AnalysisError> {
        let bad =
            |reason: &str| AnalysisError::BadManifest { path: PathBuf::from("simulation"), reason: reason.to_owned() };
        let base = self.arms.first().ok_or_else(|| bad("it has no arm"))?;
        let blocks = u32::try_from(base.blocks.len()).map_err(|_| bad("it has too many blocks"))?;
        if blocks == 0 || self.arms.iter().any(|arm| arm.blocks.len() != base.blocks.len()) {
            return Err(bad("its arms do not all have the same number of blocks, at least one"));
        }
        let stage = |blocks, sized| Stage { created: String::new(), blocks, sized };
        let stages = match first_stage {
            Some(first) => vec![stage(first, false), stage(blocks, true)],
            None => vec![stage(blocks, false)],
        };
        let arms = self.arms.iter().map(|arm| ArmRecord {
            name: arm.name.clone(),
            stack: arm.stack.clone(),
            settings: arm.settings.clone(),
        });
        let manifest = Manifest {
            version: STUDY_VERSION,
            regauge: String::new(),
            created: String::new(),
            command: Vec::new(),
            seed: self.seed,
            blocks,
            design: Some(self.design.clone()),
            stages,
            stamps: false,
            arms: arms.collect(),
            base: base.name.clone(),
            workload_hash: String::new(),
            plan_hash: String::new(),
            trace_source: "synthetic: samples in memory".to_owned(),
            requests: base.blocks.iter().map(|block| block.len() as u64).max().unwrap_or(0),
            duration_ns: self.duration_ns,
            warmup_ns: self.warmup_ns,
            speed: 1.0,
            layout: LayoutRecord {
                name: String::new(),
                driver_cpus: Vec::new(),
                server_cpus: Vec::new(),
                why: String::new(),
                limits: Vec::new(),
            },
            host: json!({}),
            gates: json!({}),
        };
        let run = |block: u32, (position, arm): (usize, &SimulatedArm)| RunRecord {
            block,
            arm: arm.name.clone(),
            position: u32::try_from(position).unwrap_or(u32::MAX),
            started: String::new(),
            question: None,
            valid: true,
            why_invalid: Vec::new(),
            gates: Vec::new(),
            requests: arm.blocks.get(block as usize).map_or(0, |block| block.len() as u64),
            errors: 0,
            driver: json!({}),
            server: json!({}),
            environment: json!({}),
        };
        let runs = (0..blocks).flat_map(|block| self.arms.iter().enumerate().map(move |arm| run(block, arm))).collect();
        Ok(Study { dir: PathBuf::new(), manifest, runs, unfinished: Vec::new() })
    }
}

impl Source for Experiment {
    fn requests(&self, block: u32, arm: &str) -> Result<RunSamples, AnalysisError> {
        let arm = self.arms.iter().find(|other| other.name == arm);
        let requests = arm.and_then(|arm| arm.blocks.get(block as usize)).map_or(&[][..], Vec::as_slice);
        let row = |&(planned_ns, latency_ns): &SimulatedRequest| Sample {
            step: 0,
            flags: if planned_ns < self.warmup_ns { WARMUP } else { 0 },
            planned_ns,
            latency_ns: Some(latency_ns),
            service_ns: None,
        };
        Ok(RunSamples { steps: vec![STEP.to_owned()], rows: requests.iter().map(row).collect() })
    }

    fn histograms(&self, block: u32, arm: &str) -> Result<Vec<StepHistogram>, AnalysisError> {
        histograms_of(&self.requests(block, arm)?)
    }
}
