//! Lays the timeline of a request: which stamps follow each other, who is in charge between them, and which lane a
//! stretch belongs to when nothing explains it.
//!
//! ```text
//! CONNECT      read → op queued → sent → received → proposed → calls of its log index → committed → answered
//!              → returned → op resumed → reply
//! QoS 1, 2     read → append → (sync) → reply
//! proposal     sent → received → … → answered → reply
//! others       read → reply
//! ```

use super::chain::{Busy, Chain, Stage};
use super::input::Request;
use super::join::Run;
use super::lane::{Lane, Lanes};
use super::threads::Charge;
use super::whole::{has_all, has_all_of};
use regauge_traces::stamps::Stamp;

/// A request with its lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// Planned, CLOCK_MONOTONIC ns.
    pub planned_ns: u64,
    /// Planned → reply, ns.
    pub latency_ns: u64,
    /// Its stages without a break, from the planned time to the reply.
    pub stages: Vec<Stage>,
    /// All stages together; they add up to the latency.
    pub lanes: Lanes,
    /// By how much stamps contradicted each other or the driver's times, ns.
    pub disagreement_ns: u64,
    /// The server's id of the connection, where known.
    pub conn: Option<u64>,
    /// Read → reply written out, as the server sees the request, ns.
    pub server_ns: Option<u64>,
    /// Operation handed over → its result, ns: RobustMQ's `session_process` of a CONNECT.
    pub session_ns: Option<u64>,
}

/// The stage in which a call waits to be sent to the meta-service.
const IN_THE_BATCHER: &str = "in the batcher";

const CONNECTION: [&str; 3] = ["accept", "connection", "peer"];
const FREE: fn(u64, u64) -> Busy = |_, _| Vec::new();

impl Timeline {
    /// The lanes of the time that it waited for other calls to be sent to the meta-service.
    pub fn in_the_batcher(&self) -> Lanes {
        let mut lanes = Lanes::default();
        self.stages.iter().filter(|stage| stage.name == IN_THE_BATCHER).for_each(|stage| lanes.extend(&stage.lanes));
        lanes
    }
}

/// The timeline of a request; `None` without a latency or without stamps, also when some were left out for their number.
pub(super) fn timeline(run: &Run<'_>, request: &Request) -> Option<Timeline> {
    let latency_ns = request.latency_ns?;
    let planned_ns = run.input.t0_ns.checked_add(request.planned_ns)?;
    let end = planned_ns.checked_add(latency_ns)?;
    let sent = request.sent_ns.and_then(|sent| run.input.t0_ns.checked_add(sent));
    let mut chain = Chain::new(&run.threads, planned_ns, end);
    let mut seen = Seen::default();
    if request.step == "raft_proposal" {
        let proposal = run.proposal(request.op_id).filter(|proposal| has_all_of(run, proposal))?;
        chain.plain("waiting to be sent", no_later(sent, proposal.received_ns), Lane::DriverLag);
        seen.server = proposal.received_ns.zip(proposal.answered_ns);
        raft(run, &mut chain, proposal, &run.server);
        chain.finish("reply", Charge { threads: &run.server, roles: &["rpc_server"] }, Lane::Network);
    } else {
        let (read, reply) = (run.read_of(request), run.reply_of(request));
        let ops = operations(run, request, read, reply);
        if (read.is_none() && reply.is_none()) || !has_all(run, read, reply, &ops) {
            return None;
        }
        let read_ns = read.and_then(|read| read.woken_ns.or(read.started_ns).or(read.resumed_ns));
        chain.plain("waiting to be sent", no_later(sent, read_ns), Lane::DriverLag);
        client(run, &mut chain, request, (read, reply, &ops), &mut seen);
    }
    let mut lanes = Lanes::default();
    chain.stages.iter().for_each(|stage| lanes.extend(&stage.lanes));
    let length = |span: Option<(u64, u64)>| span.map(|(from, to)| to.saturating_sub(from));
    Some(Timeline {
        planned_ns,
        latency_ns,
        stages: chain.stages,
        lanes,
        disagreement_ns: chain.disagreement_ns,
        conn: seen.conn,
        server_ns: length(seen.server),
        session_ns: length(seen.session),
    })
}

/// When a request was sent. The driver looks at its clock after the system call, and may lose its CPU in between: then
/// the server has the bytes before the driver says that they were sent, and the server's word is nearer the truth.
fn no_later(sent: Option<u64>, arrived: Option<u64>) -> Option<u64> {
    sent.map(|sent| arrived.map_or(sent, |arrived| sent.min(arrived)))
}

/// What is noted on the way.
#[derive(Default)]
struct Seen {
    conn: Option<u64>,
    server: Option<(u64, u64)>,
    session: Option<(u64, u64)>,
}

fn client(
    run: &Run<'_>,
    chain: &mut Chain<'_>,
    request: &Request,
    (read, reply, ops): (Option<&Stamp>, Option<&Stamp>, &[&Stamp]),
    seen: &mut Seen,
) {
    let shard_thread = read.or(reply).map(|stamp| stamp.thread);
    if let Some(read) = read {
        arrive(run, chain, read);
    }
    for (i, op) in ops.iter().enumerate() {
        // The first is queued by the very poll that read the packet, unless the session lives on another shard.
        operation(run, chain, op, i == 0 && read.is_some_and(|read| read.shard == op.shard));
    }
    if let Some(reply) = reply {
        let by = [reply.thread];
        let charge = Charge { threads: &by, roles: &[] };
        let same = ops.last().copied().or(read).is_some_and(|last| last.thread == reply.thread);
        chain.must(reply.queued_ns);
        let rest = within_poll(run, chain, same, reply.queued_ns, Lane::Unattributed);
        chain.gap("making the reply", reply.queued_ns, Some(reply.thread), charge, FREE, rest);
        let charge = Charge { threads: &by, roles: &["write"] };
        chain.gap("writing it out", reply.finished_ns, Some(reply.thread), charge, FREE, Lane::Unattributed);
        chain.finish("reply on its way", Charge::NOBODY, Lane::Network);
    } else {
        let by: Vec<u32> = shard_thread.into_iter().collect();
        chain.finish("until the reply", Charge { threads: &by, roles: &["write"] }, Lane::Unattributed);
    }
    seen.conn = read.or(reply).and_then(|stamp| stamp.conn);
    let began = read.and_then(|read| read.woken_ns.or(read.resumed_ns)).map(|at| at.max(chain_sent(run, request)));
    seen.server = began.zip(reply.and_then(|reply| reply.finished_ns.or(reply.queued_ns)));
    seen.session = ops.first().and_then(|op| op.queued_ns).zip(ops.last().and_then(|op| op.resumed_ns));
}

fn chain_sent(run: &Run<'_>, request: &Request) -> u64 {
    run.input.t0_ns.saturating_add(request.sent_ns.unwrap_or(request.planned_ns))
}

/// Over the socket, woken, polled, read.
fn arrive(run: &Run<'_>, chain: &mut Chain<'_>, read: &Stamp) {
    let by = [read.thread];
    // What one of several workers did hindered nobody; what the only one did, everybody.
    let alone = !run.is_stealing() || run.broker.len() < 2;
    let charge = match alone {
        true => Charge { threads: &by, roles: &[] },
        false => Charge { threads: &run.broker, roles: &CONNECTION },
    };
    let arrived = read.woken_ns.or(read.started_ns).or(read.resumed_ns);
    chain.must(read.resumed_ns);
    chain.gap("request on its way", arrived, None, charge, FREE, Lane::Network);
    let charge = Charge { threads: &by, roles: &[] };
    chain.wait("woken", read.started_ns, Some(read.thread), charge, Lane::WokenPolled);
    let rest = within_poll(run, chain, true, read.resumed_ns, Lane::Unattributed);
    chain.gap("reading", read.resumed_ns, Some(read.thread), charge, FREE, rest);
}

/// What the rest of a stage is when both its ends may lie within one poll: on the CPU if that poll is too short to have
/// been kept. A longer one is there to speak for itself, and if it is not, there was none.
fn within_poll(run: &Run<'_>, chain: &Chain<'_>, one_poll: bool, to: Option<u64>, other: Lane) -> Lane {
    let is_short = to.is_some_and(|to| to.saturating_sub(chain.at()) <= run.input.meta.long_poll_ns);
    if one_poll && is_short { Lane::OnCpu } else { other }
}

/// The operations that the reply waited for, first to last.
fn operations<'a>(run: &Run<'a>, request: &Request, read: Option<&Stamp>, reply: Option<&Stamp>) -> Vec<&'a Stamp> {
    let released = reply.and_then(|reply| run.op(reply.shard, reply.op?));
    if request.step == "connect" {
        let caused = || run.caused(read?, "meta").next();
        return released.filter(|op| op.name == "meta").or_else(caused).into_iter().collect();
    }
    let Some(last) = released else { return Vec::new() };
    if last.name != "sync" {
        return vec![last];
    }
    // The sync may serve many appends; ours is the one of our read, else the one that the sync waited for.
    let done = |op: &&Stamp| op.resumed_ns.or(op.woken_ns) <= last.queued_ns;
    let own = read.and_then(|read| run.caused(read, "append").filter(done).max_by_key(|op| op.resumed_ns));
    let append = own.or_else(|| last.after.and_then(|after| run.op(last.shard, after)));
    append.into_iter().chain([last]).collect()
}

fn operation(run: &Run<'_>, chain: &mut Chain<'_>, op: &Stamp, in_one_poll: bool) {
    let by = [op.thread];
    let charge = Charge { threads: &by, roles: &[] };
    let other_files = |from, to| {
        let others = run.files.within(from, to).filter(|(_, _, (shard, id))| *shard == op.shard && Some(*id) != op.op);
        others.map(|(from, to, _)| (*from, *to)).collect()
    };
    chain.must(op.queued_ns);
    let thread = Some(op.thread);
    if op.name == "meta" {
        let rest = within_poll(run, chain, in_one_poll, op.queued_ns, Lane::Unattributed);
        chain.gap("handling the packet", op.queued_ns, thread, charge, FREE, rest);
    } else {
        let rest = within_poll(run, chain, in_one_poll, op.queued_ns, Lane::Queued);
        chain.gap("behind other writes", op.queued_ns, thread, charge, other_files, rest);
    }
    let broker = if run.is_stealing() { run.broker.as_slice() } else { &by };
    if let Some(proposal) = op.proposal.and_then(|id| run.proposal(id)) {
        let in_flight = |from, to| {
            let others = run.flights.within(from, to).filter(|(_, _, id)| Some(*id) != op.proposal);
            others.map(|(from, to, _)| (*from, *to)).collect()
        };
        let charge = Charge { threads: broker, roles: &["batcher"] };
        chain.must(proposal.sent_ns);
        chain.gap(IN_THE_BATCHER, proposal.sent_ns, None, charge, in_flight, Lane::Queued);
        raft(run, chain, proposal, broker);
    } else if op.started_ns.is_some() {
        let by: Vec<u32> = op.worker.into_iter().collect();
        let charge = Charge { threads: &by, roles: &[] };
        chain.wait("waiting for a thread", op.started_ns, op.worker, charge, Lane::Queued);
        chain.call(file_stage(op.name), op);
    } else if op.name != "meta" {
        // A ring does it: nobody knows more than when it was submitted and when the task was woken.
        chain.plain(file_stage(op.name), op.woken_ns, Lane::OtherStorage);
    }
    let on_its_way = Charge { threads: broker, roles: &["batcher", "rpc_client"] };
    chain.gap("result on its way", op.woken_ns, None, on_its_way, FREE, Lane::Unattributed);
    if op.woken_ns.is_some() {
        chain.wait("woken with the result", op.resumed_ns, thread, charge, Lane::WokenPolled);
    } else {
        // Done inline: nobody was woken.
        let rest = within_poll(run, chain, true, op.resumed_ns, Lane::Unattributed);
        chain.gap("taking the result", op.resumed_ns, thread, charge, FREE, rest);
    }
}

fn file_stage(name: &str) -> &'static str {
    match name {
        "append" => "append",
        "sync" => "sync",
        "roll" => "segment roll",
        "read" => "read",
        "meta" => "session store",
        _ => "operation",
    }
}

/// A proposal from the client's sending to its return.
fn raft(run: &Run<'_>, chain: &mut Chain<'_>, proposal: &Stamp, client: &[u32]) {
    let mut both: Vec<u32> = client.iter().chain(&run.server).copied().collect();
    both.sort_unstable();
    both.dedup();
    let rpc = Charge { threads: &both, roles: &["rpc_client", "rpc_server"] };
    chain.gap("gRPC request", proposal.received_ns, None, rpc, FREE, Lane::Network);
    let server = Charge { threads: &run.server, roles: &["rpc_server"] };
    chain.gap("gRPC handler", proposal.proposed_ns, None, server, FREE, Lane::Unattributed);
    let raft = Charge { threads: &run.meta, roles: &["raft"] };
    let calls = run.calls_before_answer(proposal);
    for (i, call) in calls.iter().enumerate() {
        let others = |from, to| {
            let others = run.calling.within(from, to).filter(|(_, _, of)| !calls.iter().any(|c| std::ptr::eq(*c, *of)));
            others.map(|(from, to, _)| (*from, *to)).collect()
        };
        let rest = if i == 0 { Lane::Queued } else { Lane::Unattributed };
        chain.gap("in openraft", call.queued_ns.or(call.started_ns), None, raft, others, rest);
        step(run, chain, call);
    }
    let done = Charge { threads: &run.meta, roles: &["raft", "rpc_server"] };
    chain.must(proposal.committed_ns);
    chain.gap("openraft answers", proposal.committed_ns, None, done, FREE, Lane::Unattributed);
    chain.gap("gRPC handler", proposal.answered_ns, None, server, FREE, Lane::Unattributed);
    chain.gap("gRPC reply", proposal.returned_ns, None, rpc, FREE, Lane::Network);
}

/// A storage call of the meta-service: handed over, made, awaited.
pub(super) fn step(run: &Run<'_>, chain: &mut Chain<'_>, call: &Stamp) {
    let by = [call.thread];
    let charge = Charge { threads: &by, roles: &[] };
    // Who makes the call itself waits for nothing, and is woken by nobody: what lies around it are the readings of the
    // thread's counters, as behind a call that another thread made.
    let (before, after) = match call.woken_ns {
        Some(_) => (Lane::Queued, Lane::WokenPolled),
        None => (Lane::Unattributed, Lane::Unattributed),
    };
    chain.wait("waiting for a thread", call.started_ns, Some(call.thread), charge, before);
    chain.call(call_stage(call.name), call);
    chain.wait("readings of the stamps", call.woken_ns, Some(call.thread), charge, Lane::Unattributed);
    let charge = Charge { threads: &run.meta, roles: &["raft"] };
    let name = if call.woken_ns.is_some() { "woken with the result" } else { "taking the result" };
    chain.wait(name, call.resumed_ns, None, charge, after);
}

fn call_stage(name: &str) -> &'static str {
    match name {
        "raft_append" => "raft_append",
        "committed" => "committed",
        "vote" => "vote",
        "route" => "route",
        "membership" => "membership",
        "set_last_applied" => "set_last_applied",
        _ => "storage call",
    }
}
