//! The broker's steps as `tracing` spans, for whoever records them (`regauge_recorder::Layer`).
//!
//! Their names are those of [`regauge_traces::Kind`]; the layer reads the fields `session`, `target`, `bytes`, `count`
//! and `proposal`. Without a subscriber a span costs one load of a static. What this leaves out: what travels on the
//! wire, which the tap sees.

use crate::broker::effect::MetaCall;
use crate::broker::record::Record;
use tracing::level_filters::LevelFilter;
use tracing::{Span, info_span};

/// The span of a call to the meta-service: [`session_process`] or [`meta_call`].
pub fn of_call(call: &MetaCall) -> Span {
    match call {
        MetaCall::OpenSession { record, .. } => session_process(&record.client),
        MetaCall::PutSession { record } => meta_call(&record.client),
        MetaCall::DropSession { client } => meta_call(client),
    }
}

/// The span of an append of whole records. They are looked at only when somebody records.
pub fn of_append(partition: u32, bytes: &[u8]) -> Span {
    if LevelFilter::current() < LevelFilter::INFO {
        return Span::none();
    }
    let (first, records) = Record::outline(bytes);
    segment_append(first, partition, records, bytes.len())
}

/// The session work of a CONNECT, from the call to the meta-service to its answer.
pub fn session_process(client: &str) -> Span {
    info_span!("session_process", session = client)
}

/// A call to the meta-service other than the opening of a session.
pub fn meta_call(client: &str) -> Span {
    info_span!("meta_call", session = client)
}

/// A proposal, from its RPC being sent to its answer. `parent` is the span of the first call in it.
pub fn raft_proposal(parent: &Span, proposal: u64, calls: usize, bytes: usize) -> Span {
    info_span!(parent: parent, "raft_proposal", proposal, count = calls, bytes)
}

/// An append to the raft log.
pub fn raft_append(entries: usize, bytes: usize) -> Span {
    info_span!(parent: None, "raft_append", count = entries, bytes)
}

/// The application of committed entries; current while its steps run.
pub fn apply(entries: usize) -> Span {
    info_span!(parent: None, "apply", count = entries)
}

/// Step of an apply: the sessions.
pub fn route(parent: &Span, proposal: u64, calls: usize) -> Span {
    info_span!(parent: parent, "route", proposal, count = calls)
}

/// Step of an apply: a membership change.
pub fn membership(parent: &Span) -> Span {
    info_span!(parent: parent, "membership")
}

/// Step of an apply: writing the last applied log id.
pub fn set_last_applied(parent: &Span) -> Span {
    info_span!(parent: parent, "set_last_applied")
}

/// A write to a segment file; `client` published the first record in it.
pub fn segment_append(client: &str, partition: u32, records: usize, bytes: usize) -> Span {
    info_span!(parent: None, "segment_append", session = client, target = partition, count = records, bytes)
}
