//! The experiment: blocks of all arms in random order, each run in fresh processes with a fresh data directory.
//!
//! Why blocks: hosts drift over minutes, so only what ran side by side may be compared, and the order within a block is
//! drawn anew each time lest one arm always inherits the same predecessor's warm disk. The unit of inference is the
//! block. See `METHODOLOGY.md`.
//!
//! A study survives its interruption: run.json is written last and atomically, so a run is there or it is not, and the
//! same command continues at the first that is missing. The same command with more blocks adds them: their order follows
//! from the seed and their numbers, so they are those that a longer study would have had. It leaves out what follows from the samples (the analysis) and
//! running invalid blocks again.

mod config;
mod error;
mod order;
mod pace;
mod pilot;
mod run;
mod store;
mod workload;

pub use config::StudyConfig;
pub use error::ExperimentError;
pub use order::order;
pub use pace::{Event, Phase, Progress, Silent};
pub use workload::Workload;

use crate::arms::{Difference, differences};
use crate::doctor::{Level, Report, examine};
use crate::gates::{GateLimits, block, sentences};
use crate::host::cpu;
use pace::Pace;
use regauge_traces::study::{ArmRecord, LayoutRecord, Manifest, RunRecord, STUDY_VERSION, Stage};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use store::Store;

/// How long the doctor watches for stolen time before a study; the kernel counts it in steps of 10 ms.
const STEAL_SAMPLE: Duration = Duration::from_millis(500);

/// A run that enters no table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InvalidRun {
    /// Its block.
    pub block: u32,
    /// Its arm.
    pub arm: String,
    /// One sentence per reason.
    pub why: Vec<String>,
}

/// What a study came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StudySummary {
    /// Its directory.
    pub study: PathBuf,
    /// Arms × blocks.
    pub runs_planned: u64,
    /// Runs that are finished, valid or not.
    pub runs_finished: u64,
    /// Those of them that were finished before this call.
    pub runs_resumed: u64,
    /// Finished runs that enter no table.
    pub invalid: Vec<InvalidRun>,
    /// The CPU layout.
    pub layout: LayoutRecord,
    /// Settings, besides the stack, in which arms differ.
    pub differences: Vec<Difference>,
    /// What the person should know before trusting the figures.
    pub warnings: Vec<String>,
    /// The stop flag ended it; the same command continues it.
    pub interrupted: bool,
}

/// What all parts of a running study share.
struct Context<'a> {
    config: &'a StudyConfig,
    store: &'a Store,
    arms: Vec<ArmRecord>,
    layout: LayoutRecord,
    limits: GateLimits,
}

/// Does the study, or what is missing of it.
///
/// # Errors
/// When the study as a whole cannot go on: see [`ExperimentError`]. Finished runs are kept in every case.
pub fn run_study(config: StudyConfig, progress: &mut dyn Progress) -> Result<StudySummary, ExperimentError> {
    config.check()?;
    let store = Store::open(&config.out)?;
    let host = examine(&config.out, STEAL_SAMPLE);
    let earlier = store.manifest()?;
    store.keep_inputs(&config.trace, config.arms.text())?;

    let mut pace = Pace::new(&config, progress);
    let layout = match &earlier {
        // What was decided before the first run stays decided.
        Some(manifest) if config.layout.as_ref().is_none_or(|name| *name == manifest.layout.name) => {
            manifest.layout.clone()
        }
        Some(_) => {
            let path = config.out.clone();
            return Err(ExperimentError::OtherStudy { path, differs: "layout".to_owned() });
        }
        None => match pilot::layout(&config, &store, &host, &mut pace) {
            Err(Stopped::Interrupted) => return Ok(nothing_yet(&config, &store)),
            Err(Stopped::Error(e)) => return Err(*e),
            Ok(layout) => layout,
        },
    };
    let limits = config.gates.unwrap_or_else(|| GateLimits::for_layout(&layout));
    let allowed = cpu::allowed();
    if let Some(missing) = layout.driver_cpus.iter().find(|c| !allowed.contains(c)) {
        let text = format!("the study's driver runs on CPU {missing}, which this process may no longer use");
        return Err(ExperimentError::Config(text));
    }
    let arms = config.arms.resolve(&allowed, &layout.server_cpus, crate::layout::driver_own(&layout))?;
    let mut manifest = manifest(&config, &arms, &layout, &limits, &host)?;
    let unwritten = match &earlier {
        None => true,
        Some(earlier) => store.goes_on(earlier, &mut manifest)?,
    };
    let context = Context { config: &config, store: &store, arms, layout, limits };
    if earlier.is_some() && unwritten {
        store.write_manifest(&manifest)?;
    }
    let interrupted = match blocks(&context, earlier.is_none().then_some(&manifest), &mut pace) {
        Ok(()) => false,
        Err(Stopped::Interrupted) => true,
        Err(Stopped::Error(e)) => return Err(*e),
    };
    summary(&context, &host, pace.resumed(), interrupted)
}

/// Why a part of the study ended before its end.
enum Stopped {
    Interrupted,
    Error(Box<ExperimentError>),
}

impl<E: Into<ExperimentError>> From<E> for Stopped {
    fn from(e: E) -> Stopped {
        Stopped::Error(Box::new(e.into()))
    }
}

fn manifest(
    config: &StudyConfig,
    arms: &[ArmRecord],
    layout: &LayoutRecord,
    limits: &GateLimits,
    host: &Report,
) -> Result<Manifest, ExperimentError> {
    let json = |e: serde_json::Error| ExperimentError::Config(format!("the manifest cannot be written as JSON ({e})"));
    let workload = &config.workload;
    let created = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    Ok(Manifest {
        version: STUDY_VERSION,
        // The binary is the system under test: another build is another study.
        regauge: format!("{}, binary {}", config.version, store::file_hash(&config.exe)?),
        created: created.clone(),
        command: config.command.clone(),
        seed: config.seed,
        blocks: config.blocks,
        stages: vec![Stage { created, blocks: config.blocks, sized: false }],
        design: config.design.clone(),
        stamps: config.stamps,
        arms: arms.to_vec(),
        base: config.arms.base().to_owned(),
        workload_hash: workload.workload_hash.clone(),
        plan_hash: workload.plan_hash.clone(),
        trace_source: workload.trace_source.clone(),
        requests: workload.requests,
        duration_ns: workload.duration_ns,
        warmup_ns: config.warmup_ns,
        layout: layout.clone(),
        host: serde_json::to_value(host).map_err(json)?,
        gates: serde_json::to_value(limits).map_err(json)?,
    })
}

/// Runs what is missing, block by block. `new` is the manifest of a study that begins now.
fn blocks(context: &Context<'_>, new: Option<&Manifest>, pace: &mut Pace<'_>) -> Result<(), Stopped> {
    let _off_the_drivers_cpu = run::KeepOff::new(&context.layout);
    if let Some(manifest) = new {
        pilot::probe(context, pace)?;
        context.store.write_manifest(manifest)?;
    }
    let names: Vec<&str> = context.arms.iter().map(|a| a.name.as_str()).collect();
    for block in 0..context.config.blocks {
        for (position, index) in (0_u32..).zip(order(context.config.seed, block, &names)) {
            let Some(arm) = context.arms.get(index) else { continue };
            if context.store.record(block, &arm.name)?.is_some() {
                pace.skip();
                continue;
            }
            let record = run::run(context, block, position, arm, pace)?;
            context.store.write_record(&record)?;
            pace.finish();
        }
        judge(context, block)?;
    }
    context.store.remove_tmp()?;
    Ok(())
}

/// Compares the arms of a complete block and marks those that are wrong.
fn judge(context: &Context<'_>, number: u32) -> Result<(), ExperimentError> {
    let mut runs: Vec<RunRecord> = Vec::new();
    for arm in &context.arms {
        runs.extend(context.store.record(number, &arm.name)?);
    }
    let before: Vec<Value> = runs.iter().map(|r| serde_json::to_value(r).unwrap_or(Value::Null)).collect();
    block::judge(&mut runs, context.config.arms.base());
    for (run, before) in runs.iter().zip(before) {
        if serde_json::to_value(run).unwrap_or(Value::Null) != before {
            context.store.write_record(run)?;
        }
    }
    Ok(())
}

fn summary(
    context: &Context<'_>,
    host: &Report,
    resumed: u64,
    interrupted: bool,
) -> Result<StudySummary, ExperimentError> {
    let mut finished = 0;
    let mut invalid = Vec::new();
    for block in 0..context.config.blocks {
        for arm in &context.arms {
            let Some(record) = context.store.record(block, &arm.name)? else { continue };
            finished += 1;
            if !record.valid {
                let why = if record.why_invalid.is_empty() { sentences(&record.gates) } else { record.why_invalid };
                invalid.push(InvalidRun { block, arm: record.arm, why });
            }
        }
    }
    let bad = host.findings.iter().filter(|f| f.level == Level::Bad);
    Ok(StudySummary {
        study: context.config.out.clone(),
        runs_planned: u64::from(context.config.blocks) * context.arms.len() as u64,
        runs_finished: finished,
        runs_resumed: resumed,
        invalid,
        layout: context.layout.clone(),
        differences: differences(&context.arms),
        warnings: bad.map(|f| format!("{} ({}): {}", f.name, f.value, f.means)).collect(),
        interrupted,
    })
}

/// Interrupted before anything was decided: nothing is kept but the inputs.
fn nothing_yet(config: &StudyConfig, store: &Store) -> StudySummary {
    store.remove_tmp().ok();
    StudySummary {
        study: config.out.clone(),
        runs_planned: u64::from(config.blocks) * config.arms.names().count() as u64,
        runs_finished: 0,
        runs_resumed: 0,
        invalid: Vec::new(),
        layout: LayoutRecord {
            name: "undecided".into(),
            driver_cpus: Vec::new(),
            server_cpus: Vec::new(),
            why: "the study was interrupted before a layout was chosen".into(),
            limits: Vec::new(),
        },
        differences: Vec::new(),
        warnings: Vec::new(),
        interrupted: true,
    }
}
