//! Segment files: blocking calls, inline or on the runtime's pool.

use super::{Local, State, block};
use crate::broker::effect::{OpId, Outcome};
use crate::settings::Files;
use crate::spans;
use crate::stamps::Operation;
use bytes::Bytes;
use std::rc::Rc;

/// Writes to a segment file; completes when write(2) has returned.
pub(super) fn append(
    local: &Rc<Local>,
    state: &mut State,
    op: OpId,
    partition: u32,
    segment: u32,
    at: u64,
    bytes: Bytes,
) {
    let (files, span) = (local.files.clone(), spans::of_append(partition, &bytes));
    let inline = local.node.settings.files == Files::Inline;
    let call = move || span.in_scope(|| files.append(partition, segment, at, &bytes).map(|()| Outcome::Appended));
    block(local, state, Operation::queued("append", local.id, op), inline, call);
}

/// fdatasync of a segment file.
pub(super) fn sync(local: &Rc<Local>, state: &mut State, op: OpId, partition: u32, segment: u32) {
    let files = local.files.clone();
    let inline = local.node.settings.files == Files::Inline;
    let call = move || files.sync(partition, segment).map(|()| Outcome::Synced);
    block(local, state, Operation::queued("sync", local.id, op), inline, call);
}

/// Creates a segment file.
pub(super) fn roll(local: &Rc<Local>, state: &mut State, op: OpId, partition: u32, segment: u32, durable: bool) {
    let files = local.files.clone();
    let inline = local.node.settings.files == Files::Inline;
    let call = move || files.roll(partition, segment, durable).map(|()| Outcome::Rolled);
    block(local, state, Operation::queued("roll", local.id, op), inline, call);
}

/// Reads from a segment file.
pub(super) fn read(local: &Rc<Local>, state: &mut State, op: OpId, partition: u32, segment: u32, at: u64, len: u32) {
    let files = local.files.clone();
    let inline = local.node.settings.files == Files::Inline;
    let call = move || files.read(partition, segment, at, len).map(Outcome::Read);
    block(local, state, Operation::queued("read", local.id, op), inline, call);
}
