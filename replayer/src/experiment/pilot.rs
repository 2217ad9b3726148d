//! Before the first block: which layout, and does every arm start at all?

use super::pace::{Pace, Phase};
use super::store::{Store, remove_dir};
use super::{Context, ExperimentError, Stopped, StudyConfig, run, workload};
use crate::doctor::Report;
use crate::drive::DriveOptions;
use crate::gates::{GateLimits, RunFacts, Surroundings, of_driver, sentences};
use crate::host::cpu;
use crate::layout::{Pilot, candidates, choose, driver_own, named};
use crate::process::{ChildError, DriverCall, Server, ServerCall, drive};
use regauge_traces::study::{ArmRecord, LayoutRecord};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Chooses the layout: by name if asked for, else by the host's CPUs and a pilot of the base arm.
pub(super) fn layout(
    config: &StudyConfig,
    store: &Store,
    host: &Report,
    pace: &mut Pace<'_>,
) -> Result<LayoutRecord, Stopped> {
    let cpus = host.facts.cpu.for_layout();
    if let Some(name) = &config.layout {
        return named(&cpus, name).ok_or_else(|| {
            let text = format!("layout `{name}` is not possible on this host; `disjoint` needs 2 CPUs, `shared` one");
            ExperimentError::Config(text).into()
        });
    }
    let chosen = choose(candidates(&cpus), |layout| pilot(config, store, layout, pace))?;
    let layout = chosen.ok_or_else(|| ExperimentError::Config("the CPUs of this process cannot be read".into()))?;
    if layout.why.starts_with("no layout") {
        pace.note(&format!("{}; many runs may be invalid", layout.why));
    }
    Ok(layout)
}

/// The first seconds of the plan against the base arm.
fn pilot(config: &StudyConfig, store: &Store, layout: &LayoutRecord, pace: &mut Pace<'_>) -> Result<Pilot, Stopped> {
    pace.tell(0, &layout.name, Phase::Pilot, Duration::ZERO);
    let arms = match config.arms.resolve(&cpu::allowed(), &layout.server_cpus, driver_own(layout)) {
        Ok(arms) => arms,
        // Arms that name their CPUs may fit one layout and not another.
        Err(e) => return Ok(Pilot { failed: vec![e.to_string()] }),
    };
    let Some(base) = arms.iter().find(|a| a.name == config.arms.base()).cloned() else {
        return Err(ExperimentError::Config("no arm has the base's name".into()).into());
    };
    let limits = config.gates.unwrap_or_else(|| GateLimits::for_layout(layout));
    let context = Context { config, store, arms, layout: layout.clone(), limits };
    let _off_the_drivers_cpu = run::KeepOff::new(layout);
    let dir = context.store.fresh_data_dir("pilot")?;
    let trace = workload::beginning(&context.store.trace(), config.pilot_ns, config.speed, &dir)?;
    let result = trial(&context, &base, &trace, &dir, pace);
    remove_dir(&dir)?;
    match result {
        Err(ChildError::Interrupted) => Err(Stopped::Interrupted),
        Ok(failed) => Ok(Pilot { failed }),
        // A server or driver that breaks in a pilot says something about this layout only; probes follow.
        Err(e) => Ok(Pilot { failed: vec![e.to_string()] }),
    }
}

fn trial(
    context: &Context<'_>,
    base: &ArmRecord,
    trace: &Path,
    dir: &Path,
    pace: &mut Pace<'_>,
) -> Result<Vec<String>, ChildError> {
    let config = context.config;
    // With stamps, as in the runs: a pilot must not find more room than they will have.
    let stamps = dir.join(run::STAMPS);
    let mut server = start(context, base, dir, config.stamps.then_some(&stamps))?;
    let options = DriveOptions { warmup_ns: None, ..run::drive_options(context) };
    let call = DriverCall {
        exe: &config.exe,
        trace,
        target: server.addr(),
        meta: server.meta(),
        out: dir,
        options: &options,
        cpus: &context.layout.driver_cpus,
        log: dir.join("driver.log"),
        timeout: run::drive_timeout(context, config.pilot_ns),
    };
    let name = context.layout.name.clone();
    let (driver, _) = drive(&call, &mut server, &config.stop, |t| pace.tell(0, &name, Phase::Pilot, t))?;
    server.stop()?;
    // Part of a plan has a hash of its own.
    let plan_hash = driver.get("plan_hash").and_then(Value::as_str).unwrap_or_default().to_owned();
    let facts = RunFacts {
        arm: base,
        layout: &context.layout,
        plan_hash: &plan_hash,
        driver: &driver,
        server: &Value::Null,
        dir,
        stamps: config.stamps,
        surroundings: &Surroundings::default(),
    };
    Ok(sentences(&of_driver(&facts, &context.limits)))
}

/// Starts and stops each arm once, so that one that cannot run (no io_uring, a CPU that is not granted) ends the study
/// before its first block instead of making every block invalid.
pub(super) fn probe(context: &Context<'_>, pace: &mut Pace<'_>) -> Result<(), Stopped> {
    let mut tried: Vec<(&str, &Value)> = Vec::new();
    for arm in &context.arms {
        // A second arm with the same settings (an A/A arm) starts as the first did.
        if tried.contains(&(arm.stack.as_str(), &arm.settings)) {
            continue;
        }
        tried.push((&arm.stack, &arm.settings));
        pace.tell(0, &arm.name, Phase::Probe, Duration::ZERO);
        let dir = context.store.fresh_data_dir("probe")?;
        let result = start(context, arm, &dir, None).and_then(Server::stop);
        remove_dir(&dir)?;
        match result {
            Ok(_) => {}
            Err(ChildError::Interrupted) => return Err(Stopped::Interrupted),
            Err(reason) => return Err(ExperimentError::ArmCannotStart { arm: arm.name.clone(), reason }.into()),
        }
    }
    Ok(())
}

fn start(context: &Context<'_>, arm: &ArmRecord, dir: &Path, stamps: Option<&PathBuf>) -> Result<Server, ChildError> {
    let config = context.config;
    let cpus = run::server_cpus(&context.layout, arm);
    let (data, log) = (dir.join("data"), dir.join("server.log"));
    std::fs::create_dir_all(&data).map_err(|source| ChildError::Spawn {
        who: "server",
        exe: config.exe.clone(),
        source,
    })?;
    let call = ServerCall {
        exe: &config.exe,
        arm,
        data: &data,
        cpus: &cpus,
        stamps: stamps.map(PathBuf::as_path),
        log,
        timeouts: config.timeouts,
    };
    Server::start(&call, &config.stop)
}
