//! Facts about a trace, in the shape of the command's JSON contract.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

use crate::meta::{Clocks, Drops, Host, Redaction, SynthRecord};
use crate::reader::{Form, Trace};
use crate::workload::workload_hash;

/// What `regauge trace info --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Requests that came from outside.
    pub roots: u64,
    /// All rows.
    pub spans: u64,
    /// Rows of each kind that occurs, by name.
    pub kinds: BTreeMap<String, u64>,
    /// Distinct sessions.
    pub sessions: u64,
    /// Distinct network connections.
    pub connections: u64,
    /// Distinct targets.
    pub targets: u64,
    /// From the first arrival to the end of the last span, ns.
    pub duration_ns: u64,
    /// First arrival, ns since origin.
    pub first_ns: u64,
    /// End of the last span, ns since origin.
    pub last_ns: u64,
    /// Roots per second over `duration_ns`; 0 for an instant.
    pub rate_per_s: f64,
    /// Sum of the roots' sizes, bytes.
    pub bytes: u64,
    /// Losses of the recording, all causes together; `null` if nobody could know.
    pub dropped: Option<u64>,
    /// Losses by cause.
    pub drops: Option<Drops>,
    /// Whether the file is of the sealed form.
    pub sealed: bool,
    /// Whether the recording ended in an orderly way.
    pub finished: bool,
    /// Bytes of a torn tail that were passed over.
    pub torn_bytes: u64,
    /// Size of the file, bytes.
    pub file_bytes: u64,
    /// Size of the file per row, bytes; 0 without rows.
    pub bytes_per_row: f64,
    /// Version of the format.
    pub schema_version: u32,
    /// Name of the workload, hex.
    pub workload_hash: String,
    /// Where it comes from, in words.
    pub source: String,
    /// Version of Regauge that wrote it.
    pub regauge: String,
    /// Both clocks at the origin.
    pub origin: Clocks,
    /// Both clocks at the end.
    pub end: Option<Clocks>,
    /// How far the wall clock ran away meanwhile, ns.
    pub clock_drift_ns: Option<i64>,
    /// Where it was recorded.
    pub host: Host,
    /// How names were hidden.
    pub redaction: Redaction,
    /// What made it, if synthetic.
    pub synth: Option<SynthRecord>,
    /// What was done to make it from other traces.
    pub derived: Vec<String>,
}

/// Counts and measures a trace.
pub fn info(trace: &Trace) -> Info {
    let spans = &trace.spans;
    let mut kinds = BTreeMap::new();
    let (mut sessions, mut connections, mut targets) = (HashSet::new(), HashSet::new(), HashSet::new());
    let (mut roots, mut bytes) = (0u64, 0u64);
    for span in spans {
        *kinds.entry(span.kind.name().to_owned()).or_insert(0) += 1;
        sessions.extend(span.session);
        connections.extend(span.connection);
        targets.extend(span.target.as_deref());
        if span.is_root() {
            roots += 1;
            bytes = bytes.saturating_add(span.bytes);
        }
    }
    let first_ns = spans.iter().map(|s| s.start_ns).min().unwrap_or(0);
    let last_ns = spans.iter().map(|s| s.end_ns()).max().unwrap_or(0);
    let duration_ns = last_ns.saturating_sub(first_ns);
    let per = |amount: u64, of: f64| if of > 0.0 { amount as f64 / of } else { 0.0 };
    let meta = &trace.meta;
    Info {
        roots,
        spans: spans.len() as u64,
        kinds,
        sessions: sessions.len() as u64,
        connections: connections.len() as u64,
        targets: targets.len() as u64,
        duration_ns,
        first_ns,
        last_ns,
        rate_per_s: per(roots, duration_ns as f64 / 1e9),
        bytes,
        dropped: meta.drops.as_ref().map(Drops::total),
        drops: meta.drops.clone(),
        sealed: trace.form == Some(Form::Sealed),
        finished: meta.finished,
        torn_bytes: trace.torn_bytes,
        file_bytes: trace.file_bytes,
        bytes_per_row: per(trace.file_bytes, spans.len() as f64),
        schema_version: meta.schema_version,
        workload_hash: workload_hash(spans),
        source: meta.source.clone(),
        regauge: meta.regauge.clone(),
        origin: meta.origin,
        end: meta.end,
        clock_drift_ns: meta.drift_ns(),
        host: meta.host.clone(),
        redaction: meta.redaction.clone(),
        synth: meta.synth.clone(),
        derived: meta.derived.clone(),
    }
}
