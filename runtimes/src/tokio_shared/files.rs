//! Segment files: blocking calls, inline or on the runtime's pool.

use super::{Shared, State, Turn, block};
use crate::broker::effect::{OpId, Outcome};
use crate::settings::Files;
use crate::spans;
use crate::stamps::Operation;
use bytes::Bytes;
use std::sync::Arc;

/// Writes to a segment file; completes when write(2) has returned.
#[expect(clippy::too_many_arguments, reason = "the fields of the effect, as in every shell")]
pub(super) fn append(
    shared: &Arc<Shared>,
    state: &mut State,
    turn: &mut Turn,
    op: OpId,
    partition: u32,
    segment: u32,
    at: u64,
    bytes: Bytes,
) {
    let (files, span) = (state.files.clone(), spans::of_append(partition, &bytes));
    let inline = shared.node.settings.files == Files::Inline;
    let call = move || span.in_scope(|| files.append(partition, segment, at, &bytes).map(|()| Outcome::Appended));
    block(shared, state, turn, Operation::queued("append", state.id, op), inline, call);
}

/// fdatasync of a segment file.
pub(super) fn sync(shared: &Arc<Shared>, state: &mut State, turn: &mut Turn, op: OpId, partition: u32, segment: u32) {
    let files = state.files.clone();
    let inline = shared.node.settings.files == Files::Inline;
    let call = move || files.sync(partition, segment).map(|()| Outcome::Synced);
    block(shared, state, turn, Operation::queued("sync", state.id, op), inline, call);
}

/// Creates a segment file.
pub(super) fn roll(
    shared: &Arc<Shared>,
    state: &mut State,
    turn: &mut Turn,
    op: OpId,
    partition: u32,
    segment: u32,
    durable: bool,
) {
    let files = state.files.clone();
    let inline = shared.node.settings.files == Files::Inline;
    let call = move || files.roll(partition, segment, durable).map(|()| Outcome::Rolled);
    block(shared, state, turn, Operation::queued("roll", state.id, op), inline, call);
}

/// Reads from a segment file.
#[expect(clippy::too_many_arguments, reason = "the fields of the effect, as in every shell")]
pub(super) fn read(
    shared: &Arc<Shared>,
    state: &mut State,
    turn: &mut Turn,
    op: OpId,
    partition: u32,
    segment: u32,
    at: u64,
    len: u32,
) {
    let files = state.files.clone();
    let inline = shared.node.settings.files == Files::Inline;
    let call = move || files.read(partition, segment, at, len).map(Outcome::Read);
    block(shared, state, turn, Operation::queued("read", state.id, op), inline, call);
}
