//! Segment files: written, synced and read by the ring, or by blocking calls inline.

use super::{Local, State, complete, offload, operate};
use crate::broker::effect::{OpId, Outcome};
use crate::segment::create_segment;
use crate::settings::Files;
use crate::spans;
use crate::stamps::Operation;
use bytes::Bytes;
use std::rc::Rc;
use tracing::Instrument;

/// Writes to a segment file; completes when the ring says that all of it is written.
pub(super) fn append(
    local: &Rc<Local>,
    state: &mut State,
    op: OpId,
    partition: u32,
    segment: u32,
    at: u64,
    bytes: Bytes,
) {
    let (operation, span) = (Operation::queued("append", local.id, op), spans::of_append(partition, &bytes));
    if local.node.settings.files == Files::Inline {
        let call = || local.files.append(partition, segment, at, &bytes).map(|()| Outcome::Appended);
        return complete(state, operation, || span.in_scope(call));
    }
    let files = Rc::clone(&local.ring_files);
    let work = async move {
        let appended = files.append(partition, segment, at, bytes).instrument(span).await;
        (appended.map(|()| Outcome::Appended), operation)
    };
    operate(local, state, work);
}

/// fdatasync of a segment file; completes when the ring says so.
pub(super) fn sync(local: &Rc<Local>, state: &mut State, op: OpId, partition: u32, segment: u32) {
    let operation = Operation::queued("sync", local.id, op);
    if local.node.settings.files == Files::Inline {
        return complete(state, operation, || local.files.sync(partition, segment).map(|()| Outcome::Synced));
    }
    let files = Rc::clone(&local.ring_files);
    let work = async move { (files.sync(partition, segment).await.map(|()| Outcome::Synced), operation) };
    operate(local, state, work);
}

/// Creates a segment file, on the pool: a ring has no such operation for directories. It is opened with its first append.
pub(super) fn roll(local: &Rc<Local>, state: &mut State, op: OpId, partition: u32, segment: u32, durable: bool) {
    let operation = Operation::queued("roll", local.id, op);
    if local.node.settings.files == Files::Inline {
        return complete(state, operation, || local.files.roll(partition, segment, durable).map(|()| Outcome::Rolled));
    }
    local.ring_files.close_before(partition, segment);
    let layout = local.node.layout.clone();
    let call = move || create_segment(&layout, partition, segment, durable).map(|_file| Outcome::Rolled);
    operate(local, state, offload(local, operation, call));
}

/// Reads from a segment file.
pub(super) fn read(local: &Rc<Local>, state: &mut State, op: OpId, partition: u32, segment: u32, at: u64, len: u32) {
    let operation = Operation::queued("read", local.id, op);
    if local.node.settings.files == Files::Inline {
        return complete(state, operation, || local.files.read(partition, segment, at, len).map(Outcome::Read));
    }
    let files = Rc::clone(&local.ring_files);
    let work = async move { (files.read(partition, segment, at, len).await.map(Outcome::Read), operation) };
    operate(local, state, work);
}
