//! One run: canary, fresh server, driver, stop, canary, gates.
//!
//! The order is the same for every arm, and what an arm leaves behind (its data, its unwritten pages) is gone before
//! the next canary and the next run.

use super::pace::{Pace, Phase};
use super::store::{failed, remove_dir};
use super::{Context, ExperimentError, Stopped};
use crate::canary::Canary;
use crate::drive::DriveOptions;
use crate::gates::{RunFacts, Surroundings, of_run, sentences};
use crate::host::cpu::{self, CpuTimes};
use crate::host::disk;
use crate::layout::driver_own;
use crate::process::{ChildError, DriverCall, Ended, Server, ServerCall, Stopped as ServerStopped, drive};
use regauge_runtimes::affinity::bind_thread;
use regauge_traces::study::{ArmRecord, Gate, LayoutRecord, RunRecord};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// A run that failed with less left than this, in bytes, failed for want of space: the server's last segment and the
/// driver's files are of this order.
const FREE_MIN: u64 = 16 << 20;
/// The server's stamps in a run's directory.
pub(super) const STAMPS: &str = "stamps.parquet";

/// Keeps the calling thread off the driver's own CPU while it lives: even a progress bar costs the driver some µs.
pub(super) struct KeepOff {
    before: Vec<usize>,
}

impl KeepOff {
    pub fn new(layout: &LayoutRecord) -> KeepOff {
        let before = cpu::allowed();
        if driver_own(layout).is_some() {
            // A failure costs some µs of lag at most, which the driver's gate sees.
            bind_thread(&layout.server_cpus).ok();
        }
        KeepOff { before }
    }
}

impl Drop for KeepOff {
    fn drop(&mut self) {
        bind_thread(&self.before).ok();
    }
}

/// What a run brought back from its children.
struct Outcome {
    driver: Value,
    driver_ended: Ended,
    server: ServerStopped,
}

/// Does one run and judges it. A failure of a child makes the run invalid, not the study.
pub(super) fn run(
    context: &Context<'_>,
    block: u32,
    position: u32,
    arm: &ArmRecord,
    pace: &mut Pace<'_>,
) -> Result<RunRecord, Stopped> {
    if context.config.stop.is_stopped() {
        return Err(Stopped::Interrupted);
    }
    pace.begin();
    pace.tell(block, &arm.name, Phase::Prepare, Duration::ZERO);
    let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let begun = Instant::now();
    let dir = context.store.fresh_run_dir(block, &arm.name)?;
    let data = context.store.fresh_data_dir(&format!("block={block:03}-arm={}", arm.name))?;
    let data_facts = disk::gather(&data);
    settle(context.store.root())?;

    let canary = || Canary::measure(context.layout.server_cpus.first().copied(), context.store.root());
    let canary_before = canary().map_err(failed("measure the canary in", context.store.root()))?;
    let times = CpuTimes::read();
    let outcome = children(context, block, arm, &dir, &data, pace);
    let steal_percent = times.zip(CpuTimes::read()).and_then(|(before, after)| {
        let mut used = context.layout.server_cpus.clone();
        used.extend(&context.layout.driver_cpus);
        before.steal_percent(&after, &used)
    });
    pace.tell(block, &arm.name, Phase::Check, Duration::ZERO);
    // Before the data goes, and the space comes back. A full disk is no property of the arm: judged as one, it would
    // spend all blocks one after the other.
    let full = outcome.is_err() && disk::gather(&data).free_bytes.is_some_and(|free| free < FREE_MIN);
    remove_dir(&data)?;
    if full {
        remove_dir(&dir)?;
        return Err(ExperimentError::DiskFull { path: data }.into());
    }
    if matches!(outcome, Err(ChildError::Interrupted)) {
        remove_dir(&dir)?;
        return Err(Stopped::Interrupted);
    }
    settle(context.store.root())?;
    let canary_after = canary().map_err(failed("measure the canary in", context.store.root()))?;

    let surroundings =
        Surroundings { steal_percent, canary_before: Some(canary_before), canary_after: Some(canary_after) };
    let usage = |ended: Option<&Ended>| ended.map(|e| json!(e.usage)).unwrap_or(Value::Null);
    let environment = json!({
        "steal_percent": steal_percent,
        "canary_before": canary_before,
        "canary_after": canary_after,
        "data": data_facts,
        "server_usage": usage(outcome.as_ref().ok().map(|o| &o.server.ended)),
        "driver_usage": usage(outcome.as_ref().ok().map(|o| &o.driver_ended)),
        "wall_ns": u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
    });
    let (gates, driver, server) = match outcome {
        Ok(Outcome { driver, server, .. }) => {
            let facts = RunFacts {
                arm,
                layout: &context.layout,
                plan_hash: &context.config.workload.plan_hash,
                driver: &driver,
                server: &server.record,
                dir: &dir,
                stamps: context.config.stamps,
                surroundings: &surroundings,
            };
            (of_run(&facts, &context.limits), driver, server.record)
        }
        Err(e) => {
            let gate = Gate {
                name: "completed".into(),
                passed: false,
                measured: e.to_string(),
                required: "a run to its end".into(),
            };
            (vec![gate], Value::Null, Value::Null)
        }
    };
    drop_empty_logs(&dir);
    let number = |key: &str| driver.get(key).and_then(Value::as_u64).unwrap_or(0);
    Ok(RunRecord {
        block,
        arm: arm.name.clone(),
        position,
        started,
        question: context.question.clone(),
        valid: gates.iter().all(|g| g.passed),
        why_invalid: sentences(&gates),
        gates,
        requests: number("measured"),
        errors: number("errors"),
        driver,
        server,
        environment,
    })
}

/// Server up, driver through, server down.
fn children(
    context: &Context<'_>,
    block: u32,
    arm: &ArmRecord,
    dir: &Path,
    data: &Path,
    pace: &mut Pace<'_>,
) -> Result<Outcome, ChildError> {
    let config = context.config;
    pace.tell(block, &arm.name, Phase::Start, Duration::ZERO);
    let cpus = server_cpus(&context.layout, arm);
    let log = dir.join("server.log");
    let stamps = dir.join(STAMPS);
    let call = ServerCall {
        exe: &config.exe,
        arm,
        data,
        cpus: &cpus,
        stamps: config.stamps.then_some(stamps.as_path()),
        log,
        timeouts: config.timeouts,
    };
    let mut server = Server::start(&call, &config.stop)?;
    let trace = context.store.trace();
    let options = drive_options(context);
    let call = DriverCall {
        exe: &config.exe,
        trace: &trace,
        target: server.addr(),
        meta: server.meta(),
        out: dir,
        options: &options,
        cpus: &context.layout.driver_cpus,
        log: dir.join("driver.log"),
        timeout: drive_timeout(context, config.workload.duration_ns),
    };
    let tell = |elapsed| pace.tell(block, &arm.name, Phase::Drive, elapsed);
    let (driver, driver_ended) = drive(&call, &mut server, &config.stop, tell)?;
    pace.tell(block, &arm.name, Phase::Stop, Duration::ZERO);
    let server = server.stop()?;
    Ok(Outcome { driver, driver_ended, server })
}

/// CPUs of the server's process: those of the layout, and those that the arm names beyond them.
pub(super) fn server_cpus(layout: &LayoutRecord, arm: &ArmRecord) -> Vec<usize> {
    let named = arm.settings.get("cpus").and_then(Value::as_array).into_iter().flatten();
    let named = named.filter_map(|cpu| usize::try_from(cpu.as_u64()?).ok());
    let mut cpus: Vec<usize> = layout.server_cpus.iter().copied().chain(named).collect();
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

/// How the driver runs in this layout: it watches the clock only on a CPU of its own.
pub(super) fn drive_options(context: &Context<'_>) -> DriveOptions {
    let own = driver_own(&context.layout);
    DriveOptions {
        cpu: own,
        spin: own.is_some(),
        warmup_ns: Some(context.config.warmup_ns),
        drain_ns: context.config.drain_ns,
        speed: context.config.speed,
    }
}

/// How long a driver may take for a plan of this length.
pub(super) fn drive_timeout(context: &Context<'_>, plan_ns: u64) -> Duration {
    Duration::from_nanos(plan_ns.saturating_add(context.config.drain_ns)) + context.config.timeouts.drive_extra
}

/// Writes out what the last run left in the page cache, so that it does not fall into this one.
fn settle(root: &Path) -> Result<(), ExperimentError> {
    let dir = std::fs::File::open(root).map_err(failed("open", root))?;
    rustix::fs::syncfs(&dir).map_err(|e| failed("sync the file system of", root)(e.into()))
}

/// Silence needs no file.
fn drop_empty_logs(dir: &Path) {
    for name in ["server.log", "driver.log"] {
        let path = dir.join(name);
        if std::fs::metadata(&path).is_ok_and(|m| m.len() == 0) {
            std::fs::remove_file(&path).ok();
        }
    }
}
