//! The driver: sends a plan to a server on time, whether or not earlier replies came, and measures every reply.
//!
//! It is one thread with its own epoll loop, built on none of the runtimes under test and the same for all of them.
//! Deadlines are absolute. It never skips a request or bunches requests to catch up: a request that is late is sent
//! late, and recorded so. Latency counts from the planned time, service time from the moment when the kernel took the
//! last byte; both are kept per request, and an error is never a latency.
//!
//! Two kinds of lateness are told apart. [`DriverRecord::send_lag_ns`] is sent − planned, whatever the reason.
//! [`DriverRecord::driver_lag_ns`] leaves out what was not the driver's fault: a server that does not read, accept or
//! close, and requests that the protocol holds back. Only the latter can make a run invalid.
//!
//! The files: [`run`](self) is the loop, `send` and `receive` the two directions of MQTT, [`frames`] the parser of
//! replies, `propose` gRPC to the meta-service, `look` the lateness of reading,
//! `samples` what became of each request, `files` the Parquet output.

pub mod frames;
pub mod poll;

mod files;
mod link;
mod look;
mod propose;
mod receive;
mod record;
mod run;
mod samples;
mod send;

pub use propose::Target;
pub use record::{DriverRecord, Held, LagRecord};
pub use samples::Row;

use crate::plan::{Plan, PlanError, PlanOptions};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// File descriptors besides the connections'.
const SPARE_FILES: u64 = 64;

/// How to run a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriveOptions {
    /// CPU to bind the driver's thread to; not bound when absent.
    pub cpu: Option<usize>,
    /// Watch the clock for the last 100 µs before a deadline instead of sleeping: only where the driver owns its CPU.
    pub spin: bool,
    /// Requests planned before this are warm-up, ns; none when absent.
    pub warmup_ns: Option<u64>,
    /// How long after the last planned time to wait for replies, ns.
    pub drain_ns: u64,
    /// Planned time = recorded time / speed.
    pub speed: f64,
}

impl Default for DriveOptions {
    fn default() -> Self {
        DriveOptions { cpu: None, spin: false, warmup_ns: None, drain_ns: 5_000_000_000, speed: 1.0 }
    }
}

/// Why the driver could not run or could not tell.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// No plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Nobody listens.
    #[error("{target} refuses connections: start the server first, and give the address that it prints")]
    Refused {
        /// The address.
        target: SocketAddr,
    },
    /// Proposals and nowhere to send them.
    #[error(
        "the trace has raft proposals, which go to the gRPC port of a meta-service: give its address with `--meta` (a server of ours prints it as `meta`)"
    )]
    NoMeta,
    /// No meta-service there.
    #[error(
        "{target} is no meta-service that proposals could be sent to ({why}): give the address that the server prints as `meta`"
    )]
    Meta {
        /// The address.
        target: SocketAddr,
        /// What happened instead.
        why: String,
    },
    /// Not enough file descriptors.
    #[error(
        "the trace has {needed} connections open at once and this process may open {limit} files: raise the hard limit (`ulimit -Hn`)"
    )]
    Files {
        /// Connections and some.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// The CPU cannot be had.
    #[error("cannot bind the driver to CPU {cpu}: {error}; choose one that `taskset -p $$` allows")]
    Cpu {
        /// The CPU.
        cpu: usize,
        /// What the system said.
        error: Errno,
    },
    /// The system refused something.
    #[error("cannot {what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: Errno,
    },
    /// The driver's thread did not start or did not end as it should.
    #[error("the driver's thread failed: {0}")]
    Thread(String),
    /// A result could not be written.
    #[error("cannot write {path}: {why}")]
    Output {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
}

impl DriveError {
    fn system(what: &'static str, error: Errno) -> DriveError {
        DriveError::System { what, error }
    }
}

/// A connection that was opened: a row of connections.parquet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Ordinal in the plan.
    pub connection: u32,
    /// The driver's port.
    pub port: u16,
    /// Ns since t0; 0 when it was opened before.
    pub opened_ns: u64,
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// One row per request, in planned order.
    pub rows: Vec<Row>,
    /// Deliveries per connection of the plan.
    pub deliveries: Vec<u64>,
    /// Connections that were opened, in the order of the plan.
    pub connections: Vec<Opened>,
    /// The figures.
    pub record: DriverRecord,
}

/// Replays a trace against `target` once and writes `requests.parquet`, `histograms.parquet` and `connections.parquet`
/// into `out`, which is made if it is not there.
///
/// # Errors
/// If the trace cannot be replayed, nobody listens at `target`, or a file cannot be written. Requests that fail are no
/// error of this function: they are in the record.
pub fn drive(
    trace: &Path,
    target: impl Into<Target>,
    out: &Path,
    options: &DriveOptions,
) -> Result<DriverRecord, DriveError> {
    let plan = Plan::open(trace, &PlanOptions { speed: options.speed })?;
    std::fs::create_dir_all(out)
        .map_err(|error| DriveError::Output { path: out.to_path_buf(), why: error.to_string() })?;
    let outcome = run(&plan, target, options)?;
    files::write(out, &outcome.rows, &outcome.connections)?;
    Ok(outcome.record)
}

/// Runs a plan against `target`, on a thread of its own so that no binding stays behind. The speed was applied when the
/// plan was made.
///
/// # Errors
/// As [`drive`], without those of files.
pub fn run(plan: &Plan, target: impl Into<Target>, options: &DriveOptions) -> Result<Outcome, DriveError> {
    let target = target.into();
    allow_files(plan.connections_at_once() as u64 + SPARE_FILES)?;
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("driver".to_owned())
            .spawn_scoped(scope, || run_here(plan, target, options))
            .map_err(|error| DriveError::Thread(error.to_string()))?
            .join()
            .map_err(|_| DriveError::Thread("it panicked".to_owned()))?
    })
}

fn run_here(plan: &Plan, target: Target, options: &DriveOptions) -> Result<Outcome, DriveError> {
    if let Some(cpu) = options.cpu {
        bind(cpu)?;
    }
    // Made before the run, so that its first packet does not wait for it.
    crate::packet::filler();
    let measured = run::Run::new(plan, target, options)?.run()?;
    let rows = measured.samples.judge(plan, &measured.links, options.warmup_ns.unwrap_or(0));
    let record = record::record(plan, &measured, &rows, options);
    let deliveries = measured.links.iter().map(|link| link.deliveries).collect();
    let links = measured.links.iter().map(|link| link.opened.as_slice());
    let channels = measured.channels.iter().map(Vec::as_slice);
    let opened = |(opened, connection): (&[(u64, u16)], u32)| -> Vec<Opened> {
        opened.iter().map(|(opened_ns, port)| Opened { connection, port: *port, opened_ns: *opened_ns }).collect()
    };
    let connections = links.chain(channels).zip(0..).flat_map(opened).collect();
    Ok(Outcome { rows, deliveries, connections, record })
}

/// Binds the calling thread.
fn bind(cpu: usize) -> Result<(), DriveError> {
    let refused = |error| DriveError::Cpu { cpu, error };
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(refused(Errno::INVAL));
    }
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(cpu);
    rustix::thread::sched_setaffinity(None, &cpus).map_err(refused)
}

/// Raises the soft limit of open files to what is needed, if the hard limit allows.
fn allow_files(needed: u64) -> Result<(), DriveError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // No limit is expressed by its absence.
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(limit) = maximum.filter(|maximum| *maximum < needed) {
        return Err(DriveError::Files { needed, limit });
    }
    // The whole of what is allowed: the process has other parts.
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(|error| DriveError::system("raise the limit of open files", error))
}
