//! An operation of the broker: from the shell that is to do it to the broker that gets its result.

use super::blocking::Around;
use super::usage::Usage;
use super::wire::{Why, current_cause};
use super::{collect, is_on, slow, thread};
use crate::broker::effect::{Input, OpId, PeerMsg, ShardId};
use crate::shell::Done;
use regauge_traces::ticks;
use std::collections::HashMap;

/// An operation under way. Copied to whatever thread does it, and back.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Operation {
    row: OperationRow,
}

/// Times in ticks; 0: not known, or not so.
#[derive(Debug, Clone, Copy)]
pub(super) struct OperationRow {
    pub name: &'static str,
    pub shard: ShardId,
    pub op: OpId,
    pub cause: Why,
    pub proposal: u64,
    pub queued: u64,
    pub started: u64,
    pub finished: u64,
    pub woken: u64,
    pub resumed: u64,
    /// The thread that made the blocking call; 0: none did.
    pub worker: u32,
    /// Of the blocking call.
    pub usage: Option<Usage>,
}

impl Operation {
    /// The shell was told to do it: `meta`, `append`, `sync`, `roll`, `read` or `peer`.
    pub fn queued(name: &'static str, shard: ShardId, op: OpId) -> Operation {
        let (queued, cause) = if is_on() { (ticks::now(), current_cause()) } else { (0, Why::default()) };
        let (started, finished, woken, resumed) = (0, 0, 0, 0);
        let row = OperationRow {
            name,
            shard,
            op,
            cause,
            proposal: 0,
            queued,
            started,
            finished,
            woken,
            resumed,
            worker: 0,
            usage: None,
        };
        Operation { row }
    }

    /// The proposal that carried a meta call.
    pub fn carried_by(mut self, proposal: u64) -> Operation {
        self.row.proposal = proposal;
        self
    }

    /// Does it by a blocking call, on the thread where that runs. What a ring does is not run so.
    pub fn run<T>(mut self, call: impl FnOnce() -> T) -> (T, Operation) {
        let Some(limits) = collect::limits().filter(|_| self.row.queued != 0) else { return (call(), self) };
        thread::this_is_blocking();
        let around = Around::begin(limits, false);
        self.row.started = ticks::now();
        let result = call();
        self.row.finished = ticks::now();
        self.row.worker = thread::with_thread("blocking", |thread, _| thread.id).unwrap_or(0);
        self.row.usage = around.and_then(|around| around.end(limits, self.row.started, self.row.finished));
        (result, self)
    }

    /// Its result goes to the broker, at once.
    #[must_use]
    pub fn done(self, result: Done) -> Input<'static> {
        let op = self.row.op;
        self.resumed();
        Input::Done { op, result }
    }

    fn resumed(mut self) {
        let row = &mut self.row;
        let Some(limits) = collect::limits().filter(|_| row.queued != 0) else { return };
        row.resumed = ticks::now();
        // The task at hand has waited for it, unless it was woken for something else before. One that was still to be polled
        // for the first time when the call ended is ready to run since then.
        row.woken = Some(thread::current_poll().0).filter(|woken| *woken > row.queued).unwrap_or(0);
        if row.woken != 0 {
            row.woken = row.woken.max(row.finished);
        }
        let choice = slow::is_slow(limits, row.queued, row.resumed) || thread::is_sampled(limits, row.queued);
        thread::with_buffers(|buffers| buffers.operations.push(self.row, choice));
    }
}

/// The appends that a shard waits for other shards to do.
#[derive(Debug, Default)]
pub struct RemoteAppends(HashMap<OpId, Operation>);

impl RemoteAppends {
    /// Shard `from` says something to another.
    pub fn sent(&mut self, from: ShardId, msg: &PeerMsg) {
        if let PeerMsg::Append { token, .. } = msg
            && is_on()
        {
            self.0.insert(*token, Operation::queued("peer", from, *token));
        }
    }

    /// Another shard's answer goes to the broker.
    pub fn received(&mut self, msg: &PeerMsg) {
        if let PeerMsg::Appended { token } = msg
            && let Some(operation) = self.0.remove(token)
        {
            operation.resumed();
        }
    }
}
