//! The layout of a study's directory, and the records in it.
//!
//! ```text
//! STUDY/
//!   study.json                              Manifest, written before the first run
//!   trace.parquet                           the sealed trace, copied
//!   arms.toml                               the arms as asked for
//!   runs/block=000/arm=NAME/requests.parquet   raw samples, one row per planned request (REQUEST_COLUMNS)
//!   runs/block=000/arm=NAME/histograms.parquet HdrHistograms: step, metric ("latency"|"service"), blob (V2 serialisation)
//!   runs/block=000/arm=NAME/connections.parquet the driver's connections, one row each (CONNECTION_COLUMNS)
//!   runs/block=000/arm=NAME/stamps.parquet     the server's stamps ([`crate::stamps`]), unless the study takes none
//!   runs/block=000/arm=NAME/run.json           RunRecord, written last: a run without it never finished
//!   runs/block=000/arm=NAME/{server,driver}.log   stderr of the two processes
//!   loads.json                              Loads, when the study was asked for several loads
//!   load=0.25/                              a study of its own per further load, same trace and arms
//!   tmp/                                    data directories of running servers, empty afterwards
//!   tables/                                 what `analyze` writes
//!   analysis.json                           the JSON contract of `analyze --json`
//!   report.html
//! ```
//! The replayer writes it and the analysis reads it; neither links the other.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Version of this layout; a reader refuses a newer one. Version 1 had neither connections.parquet nor stamps.parquet,
/// and requests.parquet ended with the column `flags`; whoever reads it does without.
pub const STUDY_VERSION: u32 = 2;

/// Bits of the `flags` column of requests.parquet.
pub mod sample_flags {
    /// Planned before the warm-up cut: in the file, in no histogram and no table.
    pub const WARMUP: u32 = 1 << 0;
    /// The protocol has no reply to this request (QoS 0, DISCONNECT): it has a send time and no latency.
    pub const NO_REPLY: u32 = 1 << 1;
    /// No reply came before the drain deadline.
    pub const LOST: u32 = 1 << 2;
    /// A reply came, but not the one that was due (wrong type, id or reason).
    pub const WRONG: u32 = 1 << 3;
    /// Never sent: the connection was gone or never came up.
    pub const UNSENT: u32 = 1 << 4;
}

/// Columns of requests.parquet, in order, with their Arrow types (all times u64 ns since the run's t0):
/// `op_id` u64, `step` utf8 (the root's kind), `session` u32 (ordinal), `planned_ns`, `sent_ns` (null if UNSENT),
/// `latency_ns` (reply − planned; null without a right reply: an error is never a latency),
/// `service_ns` (reply − sent; null likewise), `status` u32, `flags` u32 (wide types that every polars build reads; they cost nothing once encoded).
///
/// Since version 2, to join a request to what the server saw of it (all u64 but the first):
/// `connection` u32 (row of connections.parquet), `sent_offset` (bytes sent on the connection up to and including this
/// packet; null if UNSENT), `reply_offset` (bytes received on it up to and including the reply; null without one).
/// A proposal has no offsets, since HTTP/2 interleaves: its id in the gRPC request is the `op_id`.
/// And how much of the latency was the driver's own lateness: `driver_lag_ns` (first try to send − the moment from which
/// neither server nor protocol stood in the way; null if it never came to a try), `read_lag_ns` (how long the reply may
/// have lain in the socket before it was read, at most; null without a reply).
pub const REQUEST_COLUMNS: [&str; 14] = [
    "op_id",
    "step",
    "session",
    "planned_ns",
    "sent_ns",
    "latency_ns",
    "service_ns",
    "status",
    "flags",
    "connection",
    "sent_offset",
    "reply_offset",
    "driver_lag_ns",
    "read_lag_ns",
];

/// Columns of connections.parquet: `connection` u32 (the plan's MQTT connections from 0, then the gRPC channels of
/// proposals), `port` u32 (the driver's port, which is the server's peer port), `opened_ns` u64 (since t0; 0 for a
/// channel, which is opened before). A connection that was never opened has no row; a channel that was opened again
/// after the server took leave has one for each time.
pub const CONNECTION_COLUMNS: [&str; 3] = ["connection", "port", "opened_ns"];

/// An arm as it was resolved: a stack and its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmRecord {
    /// Unique name, `[a-z0-9._-]+`; also the directory name after `arm=`.
    pub name: String,
    /// `tokio-shared`, `tokio-pinned`, `monoio`, `compio`, …
    pub stack: String,
    /// Every setting after defaults and CPU layout were applied (the runtimes crate's `Settings` as JSON).
    pub settings: Value,
}

/// study.json: what was decided before the first run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// [`STUDY_VERSION`].
    pub version: u32,
    /// `regauge` version and git commit when known.
    pub regauge: String,
    /// RFC 3339 UTC.
    pub created: String,
    /// The command line that made it.
    pub command: Vec<String>,
    /// Seed of the order of arms.
    pub seed: u64,
    /// Complete blocks asked for, all stages together: those in which every arm's run is valid. A block with a run that
    /// failed a gate stays as it is, flagged, and another one is run after the last, so there may be block directories
    /// from this number on ([`Design::reruns_max`] at most).
    pub blocks: u32,
    /// What the verdict will rest on, fixed before the first run; `None` in studies of before there was a verdict.
    #[serde(default)]
    pub design: Option<Design>,
    /// How often the study was asked for more blocks than it had, oldest first; the first stage is the study's begin.
    #[serde(default)]
    pub stages: Vec<Stage>,
    /// Whether servers stamp what they do (`stamps.parquet`).
    #[serde(default)]
    pub stamps: bool,
    /// Arms in the order of arms.toml.
    pub arms: Vec<ArmRecord>,
    /// Name of the base arm of every comparison.
    pub base: String,
    /// Hash of the workload (trace) and of the plan made from it, hex.
    pub workload_hash: String,
    /// Hash of the packets and their planned times.
    pub plan_hash: String,
    /// Where the trace came from, in words.
    pub trace_source: String,
    /// Requests planned per run, and the plan's length.
    pub requests: u64,
    /// Length of the plan, ns.
    pub duration_ns: u64,
    /// Requests planned before this are warm-up, ns.
    pub warmup_ns: u64,
    /// How many times as fast as recorded the trace is replayed; studies of before it was written down read as 1.
    #[serde(default = "recorded_speed")]
    pub speed: f64,
    /// The CPU layout: which CPUs the driver and the server use, and why.
    pub layout: LayoutRecord,
    /// Facts about the host, as `regauge doctor --json` prints them.
    pub host: Value,
    /// Thresholds of the validity gates.
    pub gates: Value,
}

fn recorded_speed() -> f64 {
    1.0
}

/// A call that asked for blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// RFC 3339 UTC.
    pub created: String,
    /// Blocks of the study from this stage on.
    pub blocks: u32,
    /// The number of blocks follows from the first stage's variance and [`Design::until`] alone (Stein's second stage),
    /// not from somebody who had seen ratios.
    #[serde(default)]
    pub sized: bool,
}

/// The pre-registered part of a study: the one question, the bar, and what counts as no difference. It is written with
/// the manifest before the first run and cannot change afterwards, so that a verdict cannot be fitted to what came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Design {
    /// The primary cell's step: `all`, or a root kind such as `connect`.
    pub primary_step: String,
    /// Its percentile: `p50`, `p90`, `p99`, `p99_9` or `p99_99`.
    pub primary_percentile: String,
    /// The bar: a migration is worth its cost below this ratio to the base.
    pub worth_ratio: f64,
    /// Region of equivalence of the ratio: lower end.
    pub equivalent_low: f64,
    /// Upper end; above it an arm is worse.
    pub equivalent_high: f64,
    /// A gain below this is none, whatever the ratio, ms.
    pub floor_ms: f64,
    /// The service level objective: the share of requests above it is compared too, ms.
    pub slo_ms: f64,
    /// The arm that repeats the base under another name (A′); `None` when the study was asked for without one.
    pub control: Option<String>,
    /// The relative half-width of the primary ratio that the study is sized for (0.2 is ± 20 %), if it is.
    pub until: Option<f64>,
    /// Complete blocks that the sizing may ask for at most.
    pub blocks_max: u32,
    /// Blocks that may be run again because a run of them failed a gate, at most.
    pub reruns_max: u32,
    /// Share of the base arm's knee at which this study runs; `None` at the trace's own rate (times the speed).
    pub load: Option<f64>,
}

impl Default for Design {
    /// P99.9 of all requests, a bar of 0.80, equivalence within [0.91, 1.10], a floor of 0.5 ms, an objective of 10 ms.
    fn default() -> Self {
        Design {
            primary_step: "all".to_owned(),
            primary_percentile: "p99_9".to_owned(),
            worth_ratio: 0.80,
            equivalent_low: 0.91,
            equivalent_high: 1.10,
            floor_ms: 0.5,
            slo_ms: 10.0,
            control: None,
            until: None,
            blocks_max: 100,
            reruns_max: 10,
            load: None,
        }
    }
}

/// loads.json: the loads of a study, as shares of the base arm's knee.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loads {
    /// [`STUDY_VERSION`].
    pub version: u32,
    /// The knee of every arm, base first.
    pub knees: Vec<Knee>,
    /// The loads, rising.
    pub loads: Vec<LoadPoint>,
}

/// Up to which rate an arm keeps up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Knee {
    /// Arm name.
    pub arm: String,
    /// The highest rate tried at which the arm kept up, requests/s; `None` when it kept up at none.
    pub kept_per_s: Option<f64>,
    /// The lowest rate above it at which it did not; `None` when something else ended the search.
    pub missed_per_s: Option<f64>,
    /// What ended the search: `server`, `driver` (the driver was late first) or `limit` (the fastest speed tried).
    pub limited_by: String,
    /// Every trial, in the order tried.
    pub probes: Vec<KneeProbe>,
}

/// One trial of a rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KneeProbe {
    /// Replay speed.
    pub speed: f64,
    /// Requests planned per second.
    pub offered_per_s: f64,
    /// Requests done right per second, first planned request to last reply.
    pub achieved_per_s: f64,
    /// P99 latency from the planned time, ns.
    pub p99_ns: Option<u64>,
    /// Whether the arm kept up.
    pub kept: bool,
    /// What did not keep up, in words; empty when all did.
    pub why: String,
}

/// One load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadPoint {
    /// Share of the base arm's knee.
    pub share: f64,
    /// Replay speed.
    pub speed: f64,
    /// Requests planned per second.
    pub offered_per_s: f64,
    /// Directory of its study below this one; `.` for this study itself, the primary load.
    pub dir: String,
}

/// Which CPUs each side uses, why, and what a host like this cannot show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayoutRecord {
    /// `disjoint` or `shared`.
    pub name: String,
    /// CPUs of the driver process.
    pub driver_cpus: Vec<usize>,
    /// CPUs of the server process.
    pub server_cpus: Vec<usize>,
    /// One sentence: why this layout.
    pub why: String,
    /// Sentences: what this host cannot show.
    pub limits: Vec<String>,
}

/// One validity gate's outcome. Gates are blind to the arm and to the tail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// `offered`, `driver_lag`, `replies`, `digest`, `errors`, …
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was measured, with its unit, for a person.
    pub measured: String,
    /// What was asked for.
    pub required: String,
}

/// run.json: one run of one arm in one block.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRecord {
    /// Block number from 0.
    pub block: u32,
    /// Arm name.
    pub arm: String,
    /// Position within the block, from 0.
    pub position: u32,
    /// RFC 3339 UTC.
    pub started: String,
    /// [`Manifest::question_hash`] of the study when the run was made; `None` in studies of before it was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// All gates passed.
    pub valid: bool,
    /// One sentence per failed gate.
    pub why_invalid: Vec<String>,
    /// The gates.
    pub gates: Vec<Gate>,
    /// Requests planned after warm-up, and those among them without a right reply.
    pub requests: u64,
    /// Requests that ended in an error (LOST, WRONG, UNSENT), warm-up included.
    pub errors: u64,
    /// The driver's own record: offered and achieved rates, send lag percentiles (ns), deliveries,
    /// replies digest, `t0_ns` (CLOCK_MONOTONIC of the run's t0).
    pub driver: Value,
    /// The server's own record: attestation (what it really used), digest, CPU time, switches, memory, counters.
    pub server: Value,
    /// What surrounded the run: data directory's file system and mount, steal, canaries, children's resource usage.
    #[serde(default)]
    pub environment: Value,
}

/// Directory of one run.
pub fn run_dir(study: &Path, block: u32, arm: &str) -> PathBuf {
    study.join("runs").join(format!("block={block:03}")).join(format!("arm={arm}"))
}
