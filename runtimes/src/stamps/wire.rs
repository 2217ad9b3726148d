//! The bytes of a connection, counted, so that what the driver sent and got can be found in what the broker did.
//!
//! One row for each read, and one for each run of bytes of an outbox that was released together: never one per packet.

use super::limits::Limits;
use super::{collect, is_on, slow, thread};
use crate::broker::effect::{ConnId, Input, OpId, PeerMsg, ShardId};
use regauge_traces::ticks;
use std::cell::Cell;
use std::collections::VecDeque;
use std::os::fd::AsFd;

/// Times in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadRow {
    pub conn: u64,
    pub port: u32,
    pub shard: ShardId,
    pub offset: u64,
    pub bytes: u64,
    pub woken: u64,
    pub started: u64,
    pub resumed: u64,
}

/// Times in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplyRow {
    pub conn: u64,
    pub port: u32,
    pub shard: ShardId,
    pub offset: u64,
    pub bytes: u64,
    pub op: Option<OpId>,
    pub queued: u64,
    pub finished: u64,
}

/// The two directions of a connection that `shard` takes over, of which `read` bytes have been read already.
pub fn wire(shard: ShardId, conn: ConnId, socket: &impl AsFd, read: usize) -> (Reads, Replies) {
    let Some(limits) = collect::limits().filter(|_| is_on()) else { return (Reads(None), Replies(None)) };
    let peer = socket2::SockRef::from(socket).peer_addr().ok().and_then(|addr| addr.as_socket());
    let (conn, port) = (conn.0, peer.map_or(0, |addr| u32::from(addr.port())));
    let replies = RepliesOn { limits, conn, port, shard, pushed: 0, written: 0, noted: 0, open: VecDeque::new() };
    let reads = ReadsOn { limits, conn, port, shard, offset: read as u64 };
    (Reads(Some(reads)), Replies(Some(Box::new(replies))))
}

/// What is read from a connection.
#[derive(Debug, Default)]
pub struct Reads(Option<ReadsOn>);

#[derive(Debug)]
struct ReadsOn {
    limits: &'static Limits,
    conn: u64,
    port: u32,
    shard: ShardId,
    offset: u64,
}

impl Reads {
    /// So many bytes go to the broker now. What is queued while the result lives, is queued because of them.
    pub fn got(&mut self, bytes: usize) -> Cause {
        let Some(on) = &mut self.0 else { return Cause(None) };
        let (bytes, (woken, started)) = (bytes as u64, thread::current_poll());
        on.offset += bytes;
        let ReadsOn { limits: _, conn, port, shard, offset } = *on;
        let row = ReadRow { conn, port, shard, offset, bytes, woken, started, resumed: ticks::now() };
        let is_slow = slow::is_slow(on.limits, if woken == 0 { started } else { woken }, row.resumed);
        let choice = is_slow || thread::is_sampled(on.limits, row.resumed);
        thread::with_buffers(|buffers| buffers.reads.push(row, choice));
        Cause::is(Why { read: Some((on.conn, on.offset)), op: None })
    }

    /// The connection belongs to this shard now.
    pub fn moved_to(&mut self, shard: ShardId) {
        if let Some(on) = &mut self.0 {
            on.shard = shard;
        }
    }
}

/// Why the broker asks for something.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Why {
    /// The read that it handles: connection and offset.
    pub read: Option<(u64, u64)>,
    /// The operation whose completion it handles.
    pub op: Option<OpId>,
}

thread_local! {
    static WHY: Cell<Why> = const { Cell::new(Why { read: None, op: None }) };
}

/// That the broker handles something, as long as this lives. What it asks for meanwhile was caused, or released, by that:
/// all that waits for an operation is let go while its completion is handled.
#[derive(Debug)]
#[must_use]
pub struct Cause(Option<Why>);

impl Cause {
    fn is(why: Why) -> Cause {
        Cause(Some(WHY.replace(why)))
    }

    /// All that a connection had sent to the shard that accepted it.
    pub fn handover(conn: ConnId, bytes: usize) -> Cause {
        if is_on() { Cause::is(Why { read: Some((conn.0, bytes as u64)), op: None }) } else { Cause(None) }
    }

    /// An input: a completion, whoever completed it, or something else in the course of a read.
    pub fn input(input: &Input<'_>) -> Cause {
        if !is_on() {
            return Cause(None);
        }
        let op = match input {
            Input::Done { op, .. } | Input::Peer { msg: PeerMsg::Appended { token: op }, .. } => Some(*op),
            _ => None,
        };
        Cause::is(Why { op, ..WHY.get() })
    }
}

impl Drop for Cause {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            WHY.set(before);
        }
    }
}

pub(super) fn current_cause() -> Why {
    WHY.get()
}

/// What is written to a connection.
#[derive(Debug, Default)]
pub struct Replies(Option<Box<RepliesOn>>);

#[derive(Debug)]
struct RepliesOn {
    limits: &'static Limits,
    conn: u64,
    port: u32,
    shard: ShardId,
    pushed: u64,
    written: u64,
    /// Up to here there are rows.
    noted: u64,
    /// What has been put into the outbox and not been written, by what released it.
    open: VecDeque<Run>,
}

#[derive(Debug)]
struct Run {
    end: u64,
    op: Option<OpId>,
    queued: u64,
}

impl Replies {
    /// So many bytes enter the outbox, released by the operation whose completion is being handled.
    pub fn pushed(&mut self, bytes: usize) {
        let Some(on) = &mut self.0 else { return };
        let op = current_cause().op;
        on.pushed += bytes as u64;
        match on.open.back_mut() {
            Some(run) if run.op == op => run.end = on.pushed,
            _ => on.open.push_back(Run { end: on.pushed, op, queued: ticks::now() }),
        }
    }

    /// The kernel took so many bytes.
    pub fn wrote(&mut self, bytes: usize) {
        let Some(on) = &mut self.0 else { return };
        on.written += bytes as u64;
        let finished = ticks::now();
        while let Some(run) = on.open.pop_front_if(|run| run.end <= on.written) {
            let bytes = run.end - std::mem::replace(&mut on.noted, run.end);
            let RepliesOn { limits, conn, port, shard, .. } = **on;
            let row = ReplyRow { conn, port, shard, offset: run.end, bytes, op: run.op, queued: run.queued, finished };
            let is_slow = slow::is_slow(limits, run.queued, finished);
            let choice = is_slow || thread::is_sampled(limits, finished);
            thread::with_buffers(|buffers| buffers.replies.push(row, choice));
        }
    }

    /// The connection belongs to another shard now.
    pub fn moved_to(&mut self, shard: ShardId) {
        if let Some(on) = &mut self.0 {
            on.shard = shard;
        }
    }
}
