//! The experiment: blocks of all arms in random order, each run in fresh processes with a fresh data directory.
//!
//! Why blocks: hosts drift over minutes, so only what ran side by side may be compared, and the order within a block is
//! drawn anew each time lest one arm always inherits the same predecessor's warm disk. The unit of inference is the
//! block. See `METHODOLOGY.md`.
//!
//! A study survives its interruption: run.json is written last and atomically, so a run is there or it is not, and the
//! same command continues with the first block that is not whole, which starts anew: its runs have to lie side by side in
//! time. The same command with more blocks adds them: their order follows
//! from the seed and their numbers, so they are those that a longer study would have had. A block with a run that failed
//! a gate is followed by another whole block at the end ([`tally`]).
//!
//! [`loads`] finds how much each arm can take before several studies run at shares of it. Left out is what follows from
//! the samples: the analysis says whether the blocks suffice, and the caller asks for those of a second stage.

mod config;
mod design;
mod error;
mod loads;
mod order;
mod overall;
mod pace;
mod pilot;
mod run;
mod store;
mod summary;
mod tally;
mod trial;
mod workload;

pub use config::StudyConfig;
pub use error::ExperimentError;
pub use loads::{LoadsAsked, LoadsFound, find_loads};
pub use order::order;
pub use overall::Part;
pub use pace::{Event, Phase, Progress, Silent, run_guess};
pub use summary::{InvalidRun, StudySummary};
pub use workload::Workload;

use crate::doctor::{Report, examine};
use crate::gates::{GateLimits, block};
use crate::host::cpu;
use pace::Pace;
use regauge_traces::study::{ArmRecord, LayoutRecord, Manifest, RunRecord, STUDY_VERSION, Stage};
use serde_json::Value;
use std::time::{Duration, SystemTime};
use store::Store;
use tally::{Budget, Tally};

/// How long the doctor watches for stolen time before a study; the kernel counts it in steps of 10 ms.
const STEAL_SAMPLE: Duration = Duration::from_millis(500);

/// What all parts of a running study share.
struct Context<'a> {
    config: &'a StudyConfig,
    store: &'a Store,
    arms: Vec<ArmRecord>,
    layout: LayoutRecord,
    limits: GateLimits,
    budget: Budget,
    /// Hash of what the study asks, for the records of its runs.
    question: Option<String>,
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
    if earlier.is_none() && config.settled.is_none() && store.loads::<Value>()?.is_some() {
        let (path, differs) = (config.out.clone(), "loads (it was begun with several)".to_owned());
        return Err(ExperimentError::OtherStudy { path, differs });
    }
    store.keep_inputs(&config.trace, config.arms.text())?;

    let mut pace = Pace::new(&config, progress);
    let decided = earlier.as_ref().map(|manifest| &manifest.layout).or(config.settled.as_ref());
    let layout = match pilot::decide(&config, decided, &store, &host, &mut pace) {
        Err(Stopped::Interrupted) => return Ok(summary::nothing_yet(&config, &store)),
        Err(Stopped::Error(e)) => return Err(*e),
        Ok(layout) => layout,
    };
    let limits = config.gates.unwrap_or_else(|| GateLimits::for_layout(&layout));
    let arms = config.arms.resolve(&cpu::allowed(), &layout.server_cpus, crate::layout::driver_own(&layout))?;
    let mut manifest = manifest(&config, &arms, &layout, &limits, &host)?;
    let unwritten = match &earlier {
        None => true,
        Some(earlier) => store.goes_on(earlier, &mut manifest)?,
    };
    let budget = Budget::new(manifest.blocks, manifest.design.as_ref());
    pace.budget(budget);
    let question = Some(manifest.question_hash());
    let context = Context { config: &config, store: &store, arms, layout, limits, budget, question };
    if earlier.is_some() && unwritten {
        store.write_manifest(&manifest)?;
    }
    let interrupted = match blocks(&context, earlier.is_none().then_some(&manifest), &mut pace) {
        Ok(()) => false,
        Err(Stopped::Interrupted) => true,
        Err(Stopped::Error(e)) => return Err(*e),
    };
    summary::of(&context, &manifest, &host, pace.resumed(), interrupted)
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
        blocks: config.sized.unwrap_or(config.blocks),
        stages: [Stage { created: created.clone(), blocks: config.blocks, sized: false }]
            .into_iter()
            .chain(config.sized.map(|blocks| Stage { created, blocks, sized: true }))
            .collect(),
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
        speed: config.speed,
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
    let mut tally = Tally::default();
    while context.budget.another(&tally) {
        let block = tally.judged();
        let there =
            context.arms.iter().map(|arm| context.store.record(block, &arm.name)).collect::<Result<Vec<_>, _>>()?;
        if there.iter().any(Option::is_none) {
            // Half a block from an earlier call would be compared with a half that runs hours later.
            context.store.remove_block(block)?;
        }
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
        tally.count(&judge(context, block)?);
        pace.judged(&tally);
    }
    if tally.complete < context.budget.wanted && context.budget.reruns > 0 {
        pace.note(&format!(
            "{} of the {} blocks wanted are complete, and all {} that may be run again were; --reruns N allows more",
            tally.complete, context.budget.wanted, context.budget.reruns
        ));
    }
    context.store.remove_tmp()?;
    Ok(())
}

/// Compares the arms of a block in which all have run, marks those that are wrong, and returns the records.
fn judge(context: &Context<'_>, number: u32) -> Result<Vec<RunRecord>, ExperimentError> {
    let mut runs: Vec<RunRecord> = Vec::new();
    for arm in &context.arms {
        runs.extend(context.store.record(number, &arm.name)?);
    }
    let before: Vec<Value> = runs.iter().map(|r| serde_json::to_value(r).unwrap_or(Value::Null)).collect();
    let control = context.config.design.as_ref().and_then(|design| design.control.as_deref());
    block::judge(&mut runs, context.config.arms.base(), control);
    for (run, before) in runs.iter().zip(before) {
        if serde_json::to_value(run).unwrap_or(Value::Null) != before {
            context.store.write_record(run)?;
        }
    }
    Ok(runs)
}
