//! Finds the stamps of a request: by its connection's port and byte offsets, by operation, by proposal and log index.
//!
//! Ports are used again, so a port alone says little: a connection has what was stamped on its port from its opening to
//! the next one's. What cannot be found is absent from the timeline, and its time shows as unattributed.

use super::input::{Connection, Request, RunInput, Taken};
use super::threads::{Sorted, Threads};
use regauge_traces::stamps::{Event, Stamp};
use std::collections::HashMap;

/// A connection is opened by the driver before the server reads from it; clocks are the same, their reading is not.
const OPENED_SLACK_NS: u64 = 1_000_000;

/// The stamps of one run, by what they belong to.
pub(super) struct Run<'a> {
    pub input: &'a RunInput<'a>,
    pub taken: Taken,
    pub threads: Threads,
    reads: HashMap<u32, Vec<&'a Stamp>>,
    replies: HashMap<u32, Vec<&'a Stamp>>,
    ops: HashMap<(Option<u32>, u64), &'a Stamp>,
    caused: HashMap<(u64, u64), Vec<&'a Stamp>>,
    proposals: HashMap<u64, &'a Stamp>,
    calls: HashMap<&'static str, Vec<&'a Stamp>>,
    /// Proposals between their sending and their return, by id.
    pub flights: Sorted<u64>,
    /// Storage calls of the meta-service.
    pub calling: Sorted<&'a Stamp>,
    /// Appends and syncs between hand-off and result, with shard and operation.
    pub files: Sorted<(Option<u32>, u64)>,
    /// Threads of the broker, and those of the gRPC server and of the raft node.
    pub broker: Vec<u32>,
    pub server: Vec<u32>,
    pub meta: Vec<u32>,
}

impl<'a> Run<'a> {
    pub fn new(input: &'a RunInput<'a>) -> Self {
        let threads = Threads::new(input.stamps);
        let by_port = windows(input.connections, input.t0_ns);
        let of = |event| input.stamps.iter().filter(move |stamp| stamp.event == event);
        let mut run = Run {
            reads: by_connection(of(Event::Read), &by_port, |stamp| stamp.resumed_ns.or(stamp.started_ns)),
            replies: by_connection(of(Event::Reply), &by_port, |stamp| stamp.queued_ns.or(stamp.finished_ns)),
            ops: HashMap::new(),
            caused: HashMap::new(),
            proposals: of(Event::Proposal).filter_map(|stamp| Some((stamp.proposal?, stamp))).collect(),
            calls: HashMap::new(),
            flights: spans(of(Event::Proposal), |p| Some((p.sent_ns?, p.returned_ns?, p.proposal?))),
            calling: spans(of(Event::Call), |c| Some((c.started_ns?, c.finished_ns?, c))),
            files: spans(of(Event::Op).filter(|op| is_file(op)), |op| {
                Some((op.queued_ns?, op.resumed_ns.or(op.woken_ns)?, (op.shard, op.op?)))
            }),
            broker: with_role(input, &["broker", "all"], &threads, "connection"),
            server: with_role(input, &["server", "all"], &threads, "rpc_server"),
            meta: with_role(input, &["meta", "all"], &threads, "raft"),
            threads,
            taken: Taken::of(input.meta),
            input,
        };
        for stamp in of(Event::Op) {
            if let Some(op) = stamp.op {
                run.ops.insert((stamp.shard, op), stamp);
            }
            if let Some(cause) = stamp.conn.zip(stamp.offset) {
                run.caused.entry(cause).or_default().push(stamp);
            }
        }
        for stamp in of(Event::Call).filter(|stamp| stamp.first.is_some()) {
            run.calls.entry(stamp.name).or_default().push(stamp);
        }
        run.calls.values_mut().for_each(|calls| calls.sort_by_key(|call| (call.first, call.started_ns)));
        run
    }

    /// The read that brought the request's last byte.
    pub fn read_of(&self, request: &Request) -> Option<&'a Stamp> {
        self.holding(self.reads.get(&request.connection?)?, request.sent_offset?)
    }

    /// The write that took the reply's last byte.
    pub fn reply_of(&self, request: &Request) -> Option<&'a Stamp> {
        self.holding(self.replies.get(&request.connection?)?, request.reply_offset?)
    }

    /// The row that holds this byte of its connection. Where rows were left out, the next one may be another request's.
    fn holding(&self, list: &[&'a Stamp], byte: u64) -> Option<&'a Stamp> {
        let stamp = *list.get(list.partition_point(|stamp| stamp.offset.is_none_or(|offset| offset < byte)))?;
        let holds = match stamp.offset.zip(stamp.count) {
            Some((offset, bytes)) => offset.saturating_sub(u64::from(bytes)) < byte,
            None => self.taken.is_whole(),
        };
        holds.then_some(stamp)
    }

    /// An operation of a shard.
    pub fn op(&self, shard: Option<u32>, op: u64) -> Option<&'a Stamp> {
        self.ops.get(&(shard, op)).copied()
    }

    /// Operations that a read caused, of this name.
    pub fn caused(&self, read: &Stamp, name: &str) -> impl Iterator<Item = &'a Stamp> {
        let cause = read.conn.zip(read.offset);
        let all = cause.and_then(|cause| self.caused.get(&cause)).map(Vec::as_slice).unwrap_or(&[]);
        all.iter().copied().filter(move |op| op.name == name)
    }

    /// A proposal by its id.
    pub fn proposal(&self, id: u64) -> Option<&'a Stamp> {
        self.proposals.get(&id).copied()
    }

    /// The calls that a log index went through, in the order of their begin.
    pub fn calls_of(&self, index: u64) -> Vec<&'a Stamp> {
        let covering = |name: &'static str, later: bool| {
            let calls = self.calls.get(name)?;
            // A batch begins at or before the index. Batches hold at most some hundred entries, so this ends soon.
            let after = calls.partition_point(|call| call.first.is_some_and(|first| first <= index));
            let covers = |call: &&&Stamp| {
                call.first.is_some_and(|first| index < first.saturating_add(u64::from(call.count.unwrap_or(1).max(1))))
            };
            let before = calls.get(..after)?.iter().rev().take(BATCH_MAX).find(covers);
            // The committed id and the last applied id may name only the last entry of several.
            before.or_else(|| calls.get(after).filter(|_| later)).copied()
        };
        let names = [
            ("raft_append", false),
            ("committed", true),
            ("route", false),
            ("membership", false),
            ("set_last_applied", true),
        ];
        let mut found: Vec<&Stamp> = names.into_iter().filter_map(|(name, later)| covering(name, later)).collect();
        found.sort_by_key(|call| call.started_ns);
        found
    }

    /// The calls of a proposal that openraft answered after them: those of later entries may be all that is left of a
    /// step whose own rows were left out.
    pub fn calls_before_answer(&self, proposal: &Stamp) -> Vec<&'a Stamp> {
        let mut calls = proposal.first.map(|index| self.calls_of(index)).unwrap_or_default();
        calls.retain(|call| proposal.committed_ns.is_none_or(|committed| call.started_ns <= Some(committed)));
        calls
    }

    /// All calls of a step, by log index.
    pub fn calls_named(&self, name: &str) -> &[&'a Stamp] {
        self.calls.get(name).map(Vec::as_slice).unwrap_or(&[])
    }

    /// Whether several threads take tasks of one runtime from each other.
    pub fn is_stealing(&self) -> bool {
        self.input.stack == "tokio-shared"
    }
}

/// More calls than this are not looked through for one that covers an index.
const BATCH_MAX: usize = 64;

fn is_file(op: &Stamp) -> bool {
    op.name == "append" || op.name == "sync"
}

/// When each connection held its port: (from, to, connection), by port.
fn windows(connections: &[Connection], t0_ns: u64) -> HashMap<u32, Vec<(u64, u32)>> {
    let mut by_port: HashMap<u32, Vec<(u64, u32)>> = HashMap::new();
    for connection in connections {
        let opened = t0_ns.saturating_add(connection.opened_ns).saturating_sub(OPENED_SLACK_NS);
        by_port.entry(connection.port).or_default().push((opened, connection.connection));
    }
    by_port.values_mut().for_each(|list| list.sort_unstable());
    by_port
}

fn by_connection<'a>(
    stamps: impl Iterator<Item = &'a Stamp>,
    by_port: &HashMap<u32, Vec<(u64, u32)>>,
    when: impl Fn(&Stamp) -> Option<u64>,
) -> HashMap<u32, Vec<&'a Stamp>> {
    let mut found: HashMap<u32, Vec<&Stamp>> = HashMap::new();
    for stamp in stamps {
        let holder = || {
            let (list, at) = (by_port.get(&stamp.port?)?, when(stamp)?);
            list.get(list.partition_point(|(opened, _)| *opened <= at).checked_sub(1)?)
        };
        if let Some((_, connection)) = holder() {
            found.entry(*connection).or_default().push(stamp);
        }
    }
    found.values_mut().for_each(|list| list.sort_by_key(|stamp| stamp.offset));
    found
}

fn spans<'a, T>(stamps: impl Iterator<Item = &'a Stamp>, of: impl Fn(&'a Stamp) -> Option<(u64, u64, T)>) -> Sorted<T> {
    Sorted::new(stamps.filter_map(of).collect())
}

/// Threads of the runtimes with one of these roles, narrowed to those that polled such tasks when any poll was kept.
fn with_role(input: &RunInput<'_>, roles: &[&str], threads: &Threads, task: &str) -> Vec<u32> {
    let listed = input.meta.threads.iter().filter(|(_, _, role)| roles.contains(&role.as_str()));
    let mut listed: Vec<u32> = listed.map(|(thread, _, _)| *thread).collect();
    let polled = threads.of_role(task);
    if listed.is_empty() {
        return polled;
    }
    if listed.iter().any(|thread| polled.contains(thread)) {
        listed.retain(|thread| polled.contains(thread));
    }
    listed
}
