//! Whether the stamps that a request needs are all there, where some were left out because there were too many.
//!
//! Of a run whose rows are complete, what is missing never happened, and its time shows as unattributed. Where rows were
//! thinned or lost, a gap may be a row that was left out: such a request counts as one without stamps.

use super::join::Run;
use regauge_traces::stamps::Stamp;

/// Whether nothing that a client's request went through is missing for the number of rows.
pub(super) fn has_all(run: &Run<'_>, read: Option<&Stamp>, reply: Option<&Stamp>, ops: &[&Stamp]) -> bool {
    if run.taken.is_whole() {
        return true;
    }
    let (Some(_), Some(reply)) = (read, reply) else { return false };
    // What released the reply is the last of its operations, and a sync stands behind what it synced.
    let released = reply.op.is_none_or(|op| ops.last().is_some_and(|last| last.op == Some(op)));
    let synced = ops.last().is_none_or(|last| last.name != "sync" || ops.len() > 1);
    // A mark of the client that is lost would make the batcher's time the network's.
    let sent = |proposal: &Stamp| proposal.sent_ns.is_some() && proposal.returned_ns.is_some();
    let there = |id| run.proposal(id).is_some_and(|proposal| sent(proposal) && has_all_of(run, proposal));
    let proposed = |op: &&Stamp| op.proposal.is_none_or(there);
    released && synced && ops.iter().all(proposed)
}

/// Whether all of the server's moments of a proposal are there, and its entry's way into the log. Those of its client are
/// none of a proposal that the driver sent.
pub(super) fn has_all_of(run: &Run<'_>, proposal: &Stamp) -> bool {
    let moments = [proposal.received_ns, proposal.proposed_ns, proposal.committed_ns, proposal.answered_ns];
    let appended = || run.calls_before_answer(proposal).iter().any(|call| call.name == "raft_append");
    run.taken.is_whole() || (moments.iter().all(Option::is_some) && appended())
}
