//! One partition: which records go into which write, and which sync covers them.
//!
//! At most one append and at most one sync of a partition are in flight. Records that come meanwhile gather in the next
//! batch, whose append has its id already, so that an acknowledgement can name what it waits for at once:
//!
//! ```text
//!   records   r1 | r2 r3 | r4 r5 r6 …
//!   append    A1───▶A2──────▶A3─────▶            each starts when the one before has completed
//!   sync        S1────────────▶S2───────────▶    S1 covers A1; S2 starts when S1 is done and covers A2 and A3,
//! ```
//!
//! because a sync that is still to be emitted takes on every record that gathers until then (group commit). It is
//! emitted only once all of them stand in an emitted append, which it names as what it depends on.
//!
//! A roll begins when a record would make the segment exceed its size: the batches of the old segment are written
//! first, then the new file is created, then its batches follow. With [`Durability::OnSeal`] the old segment is synced
//! before the new one is created, and appends wait for it; with [`Durability::Every`] records of the old segment that no
//! sync covers yet get one, for which nobody waits.

use super::config::{Counters, PartitionState};
use super::effect::{Effect, OpId};
use super::ops::{Op, Ops};
use super::record::Record;
use crate::settings::Durability;
use bytes::Bytes;
use std::collections::VecDeque;

/// A partition that this shard owns.
#[derive(Debug)]
pub(super) struct Log {
    partition: u32,
    durability: Durability,
    segment_bytes: u64,
    /// Where the next record goes: segment, its length with everything gathered, sequence.
    segment: u32,
    end: u64,
    next_seq: u64,
    /// Batches that wait to be written; more than one only across a roll.
    waiting: VecDeque<Batch>,
    /// The segment whose file exists; `None` before the first roll.
    file: Option<u32>,
    /// That segment was synced for good ([`Durability::OnSeal`]).
    sealed: bool,
    step: Step,
    sync_in_flight: Option<OpId>,
    syncs: VecDeque<PendingSync>,
    /// Records since a sync was last asked for ([`Durability::Every`]).
    unsynced: u32,
    /// Size of the last batch: what the next one is given room for.
    room: usize,
    /// Whether the broker has this partition on its list of those to pump.
    pub listed: bool,
}

#[derive(Debug)]
struct Batch {
    op: OpId,
    segment: u32,
    at: u64,
    bytes: Vec<u8>,
    turns: VecDeque<u64>,
}

#[derive(Debug)]
struct PendingSync {
    op: OpId,
    segment: u32,
}

#[derive(Debug)]
enum Step {
    Idle,
    Appending(OpId, Written),
    Sealing(OpId),
    Rolling(OpId, u32),
}

/// A batch that is being written, or has been.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub segment: u32,
    pub at: u64,
    pub bytes: Bytes,
    /// Turns of the records that are to be retained ([`super::retained::Retained::draw`]).
    pub turns: VecDeque<u64>,
}

impl Log {
    pub fn new(partition: u32, durability: Durability, segment_bytes: u64, found: Option<PartitionState>) -> Self {
        let (segment, end, next_seq) = found.map_or((0, 0, 0), |f| (f.segment, f.next_at, f.next_seq));
        Log {
            partition,
            durability,
            segment_bytes,
            segment,
            end,
            next_seq,
            waiting: VecDeque::new(),
            file: found.map(|f| f.segment),
            sealed: false,
            step: Step::Idle,
            sync_in_flight: None,
            syncs: VecDeque::new(),
            unsynced: 0,
            room: 0,
            listed: false,
        }
    }

    /// Takes a record in (its sequence is set here) and returns the operation that makes it as durable as required.
    /// Nothing is emitted before [`Self::pump`]. `turn` is that of a record that is to be retained.
    pub fn join(&mut self, mut record: Record<'_>, turn: Option<u64>, ops: &mut Ops) -> OpId {
        let len = record.encoded_len() as u64;
        if self.end > 0 && self.end + len > self.segment_bytes {
            if matches!(self.durability, Durability::Every(_)) && self.unsynced > 0 {
                self.cover(ops);
            }
            self.segment += 1;
            self.end = 0;
        }
        record.sequence = self.next_seq;
        self.next_seq += 1;
        if self.waiting.back().is_none_or(|b| b.segment != self.segment) {
            self.waiting.push_back(Batch {
                op: ops.open(Op::Append(self.partition)),
                segment: self.segment,
                at: self.end,
                bytes: Vec::with_capacity(self.room.max(len as usize)),
                turns: VecDeque::new(),
            });
        }
        self.end += len;
        let mut written = OpId(0);
        if let Some(batch) = self.waiting.back_mut() {
            record.encode(&mut batch.bytes);
            batch.turns.extend(turn);
            written = batch.op;
        }
        match self.durability {
            Durability::None | Durability::OnSeal => written,
            Durability::Fdatasync => self.cover(ops),
            Durability::Every(n) => {
                self.unsynced += 1;
                if self.unsynced >= n { self.cover(ops) } else { written }
            }
        }
    }

    /// The sync, not yet emitted, that will cover what has been gathered for the current segment.
    fn cover(&mut self, ops: &mut Ops) -> OpId {
        self.unsynced = 0;
        match self.syncs.back() {
            Some(s) if s.segment == self.segment => s.op,
            _ => {
                let op = ops.open(Op::Sync(self.partition));
                self.syncs.push_back(PendingSync { op, segment: self.segment });
                op
            }
        }
    }

    /// Emits what can start now.
    pub fn pump(&mut self, ops: &mut Ops, fx: &mut Vec<Effect>, counters: &mut Counters) {
        let partition = self.partition;
        if matches!(self.step, Step::Idle)
            && let Some(front) = self.waiting.front()
        {
            if self.file == Some(front.segment) {
                if let Some(batch) = self.waiting.pop_front() {
                    self.room = batch.bytes.len();
                    counters.appends += 1;
                    counters.append_bytes += batch.bytes.len() as u64;
                    let Batch { op, segment, at, bytes, turns } = batch;
                    let bytes = Bytes::from(bytes);
                    self.step = Step::Appending(op, Written { segment, at, bytes: bytes.clone(), turns });
                    fx.push(Effect::Append { op, partition, segment, at, bytes });
                }
            } else if let (Durability::OnSeal, Some(segment), false) = (self.durability, self.file, self.sealed) {
                let op = ops.open(Op::Sync(partition));
                counters.syncs += 1;
                self.step = Step::Sealing(op);
                fx.push(Effect::Sync { op, partition, segment, after: None });
            } else {
                let segment = front.segment;
                let op = ops.open(Op::Roll(partition));
                counters.rolls += 1;
                self.step = Step::Rolling(op, segment);
                fx.push(Effect::Roll { op, partition, segment, durable: self.durability != Durability::None });
            }
        }
        if self.sync_in_flight.is_none()
            && let Some(&PendingSync { op, segment }) = self.syncs.front()
            && self.waiting.iter().all(|b| b.segment != segment)
        {
            self.syncs.pop_front();
            self.sync_in_flight = Some(op);
            counters.syncs += 1;
            let after = match &self.step {
                Step::Appending(append, w) if w.segment == segment => Some(*append),
                _ => None,
            };
            fx.push(Effect::Sync { op, partition, segment, after });
        }
    }

    /// The append in flight has completed.
    pub fn appended(&mut self, done: OpId) -> Option<Written> {
        match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Appending(op, written) if op == done => Some(written),
            other => {
                self.step = other;
                None
            }
        }
    }

    /// A sync has completed.
    pub fn synced(&mut self, done: OpId) {
        if matches!(self.step, Step::Sealing(op) if op == done) {
            self.step = Step::Idle;
            self.sealed = true;
        }
        self.sync_in_flight.take_if(|op| *op == done);
    }

    /// The new segment exists.
    pub fn rolled(&mut self, done: OpId) {
        if let Step::Rolling(op, segment) = self.step
            && op == done
        {
            self.step = Step::Idle;
            self.file = Some(segment);
            self.sealed = false;
        }
    }
}
