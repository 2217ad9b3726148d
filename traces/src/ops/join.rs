//! One causal trace from two recordings of one broker: the tap's, which saw what was asked, and the layer's, which saw
//! what the broker did because of it.
//!
//! The two share a redaction key, so a client is the same session in both, and a host, so their times are of one
//! CLOCK_MONOTONIC. A span of the layer that has a parent there keeps it. The others find theirs by the rules in
//! [`rules`]; each demands that the parent began before its child, within [`CLOCK_ERROR_NS`]. What finds none stays
//! as it is: a proposal or an append is then a root of its own, any other step stands alone. No span is lost, and the
//! counts are in the result and in the new trace's metadata.
//!
//! What cannot be known is not guessed at: of an append of several records, or a raft batch of several proposals, the
//! first one is the parent of all.

mod rules;

use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::renumber;
use crate::error::TraceError;
use crate::meta::{Clocks, Drops, Meta};
use crate::reader::{Trace, open};
use crate::seal::{SealReport, write_sealed};
use crate::span::{Kind, Span};

/// How far the two recordings' clocks may be apart, ns: many times what a layer's calibration states.
pub const CLOCK_ERROR_NS: u64 = 10_000;

/// Recordings of one boot agree on when it was, but for how far the wall clock was set meanwhile, ns.
const BOOT_ERROR_NS: u64 = 60_000_000_000;

/// How many spans of the layer have a parent now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Joined {
    /// By kind, of the layer's spans.
    pub kinds: BTreeMap<Kind, Counts>,
    /// Spans whose parent was lost in the recording (dropped, or still open when it was killed); they were treated like
    /// spans without one.
    pub lost_parents: u64,
}

/// Of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Had a parent in the layer's recording.
    pub recorded: u64,
    /// Found one by joining.
    pub joined: u64,
    /// Have none.
    pub unjoined: u64,
}

/// Joins two recordings.
///
/// # Errors
/// [`TraceError::Parameter`], when they are not of one broker: other keys, other hosts, other boots; or when the
/// second one is not a layer's.
pub fn join(tap: &Trace, layer: &Trace) -> Result<(Trace, Joined), TraceError> {
    comparable(tap, layer)?;
    let origin = earlier(tap.meta.origin, layer.meta.origin);
    let shift = |trace: &Trace| trace.meta.origin.monotonic_ns - origin.monotonic_ns;
    let mut spans = Vec::with_capacity(tap.spans.len() + layer.spans.len());
    // From here on an id is a span's place in `spans`.
    place(&tap.spans, shift(tap), &mut spans);
    let lost_parents = place(&layer.spans, shift(layer), &mut spans);
    let recorded: Vec<bool> = spans.iter().map(|span| span.parent.is_some()).collect();
    rules::join(&mut spans, tap.spans.len());

    let mut joined = Joined { lost_parents, ..Joined::default() };
    for (span, recorded) in spans.iter().zip(recorded).skip(tap.spans.len()) {
        let counts = joined.kinds.entry(span.kind).or_default();
        match (span.parent, recorded) {
            (Some(_), true) => counts.recorded += 1,
            (Some(_), false) => counts.joined += 1,
            (None, _) => counts.unjoined += 1,
        }
    }
    renumber(&mut spans);
    let meta = meta(&tap.meta, &layer.meta, origin, &joined);
    let trace = Trace { meta, spans, form: None, file_bytes: 0, torn_bytes: tap.torn_bytes + layer.torn_bytes };
    Ok((trace, joined))
}

/// Joins two recordings in files into a third, which is sealed.
///
/// # Errors
/// As [`join`], or when a file cannot be read or written.
pub fn join_files(
    tap: impl AsRef<Path>,
    layer: impl AsRef<Path>,
    out: impl AsRef<Path>,
) -> Result<(SealReport, Joined), TraceError> {
    let (trace, joined) = join(&open(tap)?, &open(layer)?)?;
    Ok((write_sealed(out, &trace.meta, &trace.spans)?, joined))
}

fn comparable(tap: &Trace, layer: &Trace) -> Result<(), TraceError> {
    let refuse = |why: String| Err(TraceError::Parameter(why));
    let boot = |trace: &Trace| trace.meta.origin.realtime_ns.saturating_sub(trace.meta.origin.monotonic_ns);
    if let Some(span) = layer.spans.iter().find(|span| span.kind.is_on_wire()) {
        return refuse(format!(
            "the second trace has packets ({}): give the tap's recording first and the layer's second",
            span.kind
        ));
    }
    if tap.meta.origin.monotonic_ns == 0 || layer.meta.origin.monotonic_ns == 0 {
        return refuse("a synthetic trace has no clock: join two recordings of one broker".to_owned());
    }
    if tap.meta.redaction != layer.meta.redaction {
        let (tap, layer) = (&tap.meta.redaction.key_id, &layer.meta.redaction.key_id);
        return refuse(format!(
            "the recordings hide names under different keys ({tap} and {layer}): record both with the same --key"
        ));
    }
    if tap.meta.host != layer.meta.host || boot(tap).abs_diff(boot(layer)) > BOOT_ERROR_NS {
        return refuse("the recordings are of different hosts or boots, so their times cannot be compared".to_owned());
    }
    Ok(())
}

/// Appends spans with their places as ids; says how many name a parent that is not there.
fn place(from: &[Span], shift_ns: u64, to: &mut Vec<Span>) -> u64 {
    let places: HashMap<u64, u64> = from.iter().zip(to.len() as u64..).map(|(span, place)| (span.id, place)).collect();
    let mut lost = 0;
    for span in from {
        let parent = span.parent.and_then(|parent| places.get(&parent).copied());
        lost += u64::from(span.parent.is_some() && parent.is_none());
        let start_ns = span.start_ns.saturating_add(shift_ns);
        to.push(Span { id: to.len() as u64, parent, start_ns, ..span.clone() });
    }
    lost
}

fn earlier(one: Clocks, other: Clocks) -> Clocks {
    if other.monotonic_ns < one.monotonic_ns { other } else { one }
}

fn meta(tap: &Meta, layer: &Meta, origin: Clocks, joined: &Joined) -> Meta {
    let end = match (tap.end, layer.end) {
        (Some(tap), Some(layer)) if layer.monotonic_ns > tap.monotonic_ns => Some(layer),
        (tap, layer) => tap.or(layer),
    };
    let drops = tap.drops.as_ref().zip(layer.drops.as_ref()).map(|(tap, layer)| sum(tap, layer));
    let mut derived = tap.derived.clone();
    derived.extend(layer.derived.iter().cloned());
    derived.push(words(joined));
    Meta {
        source: format!("{} joined with {}", tap.source, layer.source),
        origin,
        end,
        drops,
        finished: tap.finished && layer.finished,
        sealed: false,
        derived,
        ..tap.clone()
    }
}

fn sum(tap: &Drops, layer: &Drops) -> Drops {
    let mut other = tap.other.clone();
    for (cause, count) in &layer.other {
        *other.entry(cause.clone()).or_default() += count;
    }
    Drops {
        queue_full: tap.queue_full + layer.queue_full,
        undecodable_connections: tap.undecodable_connections + layer.undecodable_connections,
        other,
    }
}

fn words(joined: &Joined) -> String {
    let kind = |(kind, counts): (&Kind, &Counts)| {
        let Counts { recorded, joined, unjoined } = counts;
        format!("{kind} {recorded} with a recorded parent, {joined} joined, {unjoined} without")
    };
    let kinds: Vec<String> = joined.kinds.iter().map(kind).collect();
    format!("join of a tap's and a layer's recording: {}; {} parents lost", kinds.join("; "), joined.lost_parents)
}
