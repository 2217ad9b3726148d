//! What a trace says about itself: versions, clocks, host, source, losses, redaction.
//!
//! It is stored as one JSON object under the key `regauge` of the file's own metadata (Arrow schema metadata while
//! live, Parquet key-value metadata once sealed). It names no host, no user and no path: a trace is made to be shared.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::schema::SCHEMA_VERSION;

/// The metadata of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the format; see `SPEC.md` for what a reader does with it.
    pub schema_version: u32,
    /// Version of Regauge that wrote it.
    pub regauge: String,
    /// Where the workload comes from, in words: `tap 127.0.0.1:1884 → 127.0.0.1:1883`, `synth publish-qos1`.
    pub source: String,
    /// Both clocks at the trace's origin: the moment that `start_ns` = 0 stands for.
    pub origin: Clocks,
    /// Both clocks when the recording ended; against `origin` it shows how far the wall clock drifted or was set.
    /// Of a recording that was killed: as of its last batch (`finished` is false then). `None` without any batch.
    #[serde(default)]
    pub end: Option<Clocks>,
    /// The host that recorded.
    pub host: Host,
    /// What the recording lost; `None` when nobody could know.
    #[serde(default)]
    pub drops: Option<Drops>,
    /// How names were hidden.
    pub redaction: Redaction,
    /// Whether this is the sealed (Parquet) form.
    #[serde(default)]
    pub sealed: bool,
    /// Whether the recording was ended in an orderly way (killed ones end with the last batch).
    #[serde(default)]
    pub finished: bool,
    /// What made it, when it is synthetic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synth: Option<SynthRecord>,
    /// What was done to other traces to make this one, oldest first, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub derived: Vec<String>,
}

/// A pair of clock readings taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Clocks {
    /// CLOCK_MONOTONIC, ns.
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME, ns since the Unix epoch.
    pub realtime_ns: u64,
}

/// The recording host, as far as it matters to a reader. No host name: it would tell who recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Host {
    /// Kernel release, as `uname -r`.
    pub kernel: String,
    /// CPUs that the recording process may use.
    pub cpus: u32,
    /// Machine, as `uname -m`.
    pub arch: String,
}

/// What a recording lost, by cause. Zero is a statement: "counted, and none".
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Drops {
    /// Spans that found the queue to the writer full.
    #[serde(default)]
    pub queue_full: u64,
    /// Connections whose bytes could not (or no longer) be decoded; they were still passed through.
    #[serde(default)]
    pub undecodable_connections: u64,
    /// Any other cause, by a snake_case name.
    #[serde(flatten)]
    pub other: BTreeMap<String, u64>,
}

/// How names were hidden before they were stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Redaction {
    /// [`crate::redact::METHOD`], or `none` where there was nothing to hide.
    pub method: String,
    /// A fingerprint of the key: equal for traces whose names can be compared. The key itself is never stored.
    pub key_id: String,
}

/// What made a synthetic trace: enough to make it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynthRecord {
    /// Name of the profile.
    pub profile: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// The parameters that were used, defaults resolved.
    pub parameters: BTreeMap<String, serde_json::Value>,
}

impl Meta {
    /// The metadata of a recording that starts now.
    pub fn recording(source: impl Into<String>, redaction: Redaction) -> Meta {
        Meta {
            schema_version: SCHEMA_VERSION,
            regauge: env!("CARGO_PKG_VERSION").to_owned(),
            source: source.into(),
            origin: Clocks::now(),
            end: None,
            host: Host::here(),
            drops: None,
            redaction,
            sealed: false,
            finished: false,
            synth: None,
            derived: Vec::new(),
        }
    }

    /// How long the recording lasted, ns, when its end is known: from the monotonic clock.
    pub fn recorded_ns(&self) -> Option<u64> {
        self.end.map(|end| end.monotonic_ns.saturating_sub(self.origin.monotonic_ns))
    }

    /// How far the wall clock ran away from the monotonic clock between origin and end, ns.
    pub fn drift_ns(&self) -> Option<i64> {
        let end = self.end?;
        let monotonic = i128::from(end.monotonic_ns) - i128::from(self.origin.monotonic_ns);
        let realtime = i128::from(end.realtime_ns) - i128::from(self.origin.realtime_ns);
        i64::try_from(realtime - monotonic).ok()
    }
}

impl Clocks {
    /// Reads both clocks, the wall clock between two readings of the monotonic one, whose middle is taken.
    pub fn now() -> Clocks {
        let before = read_ns(ClockId::Monotonic);
        let realtime_ns = read_ns(ClockId::Realtime);
        let after = read_ns(ClockId::Monotonic);
        Clocks { monotonic_ns: before + (after - before) / 2, realtime_ns }
    }
}

/// CLOCK_MONOTONIC now, ns: the clock of every `start_ns` (minus the origin's reading).
pub fn monotonic_ns() -> u64 {
    read_ns(ClockId::Monotonic)
}

/// CPU time of the calling thread so far, ns.
pub fn thread_cpu_ns() -> u64 {
    read_ns(ClockId::ThreadCPUTime)
}

fn read_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

impl Host {
    /// The host that runs this process.
    pub fn here() -> Host {
        let uname = rustix::system::uname();
        Host {
            kernel: uname.release().to_string_lossy().into_owned(),
            cpus: std::thread::available_parallelism().map_or(0, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            arch: uname.machine().to_string_lossy().into_owned(),
        }
    }
}

impl Drops {
    /// All losses together. Causes count different things (spans, connections), so read it as "zero or not".
    pub fn total(&self) -> u64 {
        let other = self.other.values().fold(0u64, |sum, n| sum.saturating_add(*n));
        self.queue_full.saturating_add(self.undecodable_connections).saturating_add(other)
    }
}
