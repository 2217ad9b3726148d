//! Before the first block: which layout, and does every arm start at all?

use super::pace::{Pace, Phase};
use super::store::{Store, remove_dir};
use super::tally::Budget;
use super::trial::{self, Trial};
use super::{Context, ExperimentError, Stopped, StudyConfig, run};
use crate::doctor::Report;
use crate::gates::GateLimits;
use crate::host::cpu;
use crate::layout::{Pilot, candidates, choose, driver_own, named};
use crate::process::{ChildError, Server};
use regauge_traces::study::LayoutRecord;
use serde_json::Value;
use std::time::Duration;

/// The layout: the one that was decided before the first run, whatever the host looks like now; else [`layout`]'s.
pub(super) fn decide(
    config: &StudyConfig,
    decided: Option<&LayoutRecord>,
    store: &Store,
    host: &Report,
    pace: &mut Pace<'_>,
) -> Result<LayoutRecord, Stopped> {
    let layout = match decided {
        Some(decided) if config.layout.as_ref().is_none_or(|name| *name == decided.name) => decided.clone(),
        Some(_) => {
            let path = config.out.clone();
            return Err(ExperimentError::OtherStudy { path, differs: "layout".to_owned() }.into());
        }
        None => layout(config, store, host, pace)?,
    };
    if let Some(missing) = layout.driver_cpus.iter().find(|c| !cpu::allowed().contains(c)) {
        let text = format!("the study's driver runs on CPU {missing}, which this process may no longer use");
        return Err(ExperimentError::Config(text).into());
    }
    Ok(layout)
}

/// Chooses the layout: by name if asked for, else by the host's CPUs and a pilot of the base arm.
fn layout(config: &StudyConfig, store: &Store, host: &Report, pace: &mut Pace<'_>) -> Result<LayoutRecord, Stopped> {
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
    let budget = Budget::new(config.blocks, None);
    let context = Context { config, store, arms, layout: layout.clone(), limits, budget, question: None };
    let _off_the_drivers_cpu = run::KeepOff::new(layout);
    let dir = context.store.fresh_data_dir("pilot")?;
    let trial = Trial { arm: &base, speed: config.speed, plan_ns: config.pilot_ns, dir: &dir };
    let result = trial.run(&context, |elapsed| pace.tell(0, &layout.name, Phase::Pilot, elapsed))?;
    let failed = match result {
        Ok(driver) => trial.failed(&context, &driver),
        // A server or driver that breaks in a pilot says something about this layout only; probes follow.
        Err(e) => vec![e.to_string()],
    };
    remove_dir(&dir)?;
    Ok(Pilot { failed })
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
        let result = trial::start(context, arm, &dir, None).and_then(Server::stop);
        remove_dir(&dir)?;
        match result {
            Ok(_) => {}
            Err(ChildError::Interrupted) => return Err(Stopped::Interrupted),
            Err(reason) => return Err(ExperimentError::ArmCannotStart { arm: arm.name.clone(), reason }.into()),
        }
    }
    Ok(())
}
