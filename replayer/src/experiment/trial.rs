//! A trial: the first seconds of the plan against one arm, in fresh processes, before any block. Its samples enter no
//! table; it says whether the driver was on time and whether the arm kept up.

use super::{Context, Stopped, run, workload};
use crate::drive::DriveOptions;
use crate::gates::{RunFacts, Surroundings, of_driver, sentences};
use crate::process::{ChildError, DriverCall, Server, ServerCall, drive};
use regauge_traces::study::{ArmRecord, Gate};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is tried.
pub(super) struct Trial<'a> {
    /// The arm.
    pub arm: &'a ArmRecord,
    /// How many times as fast as recorded.
    pub speed: f64,
    /// Length of the plan at that speed, ns, where the trace is long enough.
    pub plan_ns: u64,
    /// An empty directory for the trace's beginning, the server's data and the driver's files.
    pub dir: &'a Path,
}

impl Trial<'_> {
    /// Does it and returns the driver's record; `elapsed` is told how long the driver has run.
    pub fn run(
        &self,
        context: &Context<'_>,
        elapsed: impl FnMut(Duration),
    ) -> Result<Result<Value, ChildError>, Stopped> {
        let store = context.store;
        let trace = workload::beginning(&store.trace(), self.plan_ns, self.speed, self.dir)?;
        match self.children(context, &trace, elapsed) {
            Err(ChildError::Interrupted) => Err(Stopped::Interrupted),
            result => Ok(result),
        }
    }

    fn children(
        &self,
        context: &Context<'_>,
        trace: &Path,
        elapsed: impl FnMut(Duration),
    ) -> Result<Value, ChildError> {
        let config = context.config;
        // With stamps, as in the runs: a trial must not find more room than they will have.
        let stamps = self.dir.join(run::STAMPS);
        let mut server = start(context, self.arm, self.dir, config.stamps.then_some(&stamps))?;
        let options = DriveOptions { warmup_ns: None, speed: self.speed, ..run::drive_options(context) };
        let call = DriverCall {
            exe: &config.exe,
            trace,
            target: server.addr(),
            meta: server.meta(),
            out: self.dir,
            options: &options,
            cpus: &context.layout.driver_cpus,
            log: self.dir.join("driver.log"),
            timeout: run::drive_timeout(context, self.plan_ns),
        };
        let (driver, _) = drive(&call, &mut server, &config.stop, elapsed)?;
        server.stop()?;
        Ok(driver)
    }

    /// The gates over the driver's record.
    pub fn gates(&self, context: &Context<'_>, driver: &Value) -> Vec<Gate> {
        // Part of a plan has a hash of its own.
        let plan_hash = driver.get("plan_hash").and_then(Value::as_str).unwrap_or_default();
        let facts = RunFacts {
            arm: self.arm,
            layout: &context.layout,
            plan_hash,
            driver,
            server: &Value::Null,
            dir: self.dir,
            stamps: context.config.stamps,
            surroundings: &Surroundings::default(),
        };
        of_driver(&facts, &context.limits)
    }

    /// One sentence per gate that failed.
    pub fn failed(&self, context: &Context<'_>, driver: &Value) -> Vec<String> {
        sentences(&self.gates(context, driver))
    }
}

/// Starts an arm's server with its data below `dir`.
pub(super) fn start(
    context: &Context<'_>,
    arm: &ArmRecord,
    dir: &Path,
    stamps: Option<&PathBuf>,
) -> Result<Server, ChildError> {
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
