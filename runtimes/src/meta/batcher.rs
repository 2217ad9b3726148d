//! From the broker's calls to proposals, as RobustMQ's `SessionBatcher` does it.
//!
//! One consumer gathers the openings of sessions: what has come while a proposal was under way goes together into the
//! next one, and there is never a second one under way. All other calls, and every call when nothing is to be gathered,
//! become proposals of their own, at once and side by side. A caller waits while the queue is full; no call is lost: each
//! gets its reply or the sentence that says why there is none.

use super::raft::PROPOSAL_BYTES_MAX;
use super::rpc::Client;
use super::rpc::net::{Net, Tasks};
use crate::broker::effect::{MetaCall, MetaReply};
use crate::spans;
use crate::stamps::{self, Mark, Role};
use futures::future::{Either, select};
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument, Span};

/// Calls that wait; one more makes its caller wait.
pub const QUEUE_MAX: usize = 5000;
/// Ids below belong to proposers outside of this process.
const OWN_IDS: u64 = 1 << 63;
/// A gathered proposal stays this far below the limit of a proposal, since sizes are estimated.
const GATHERED_BYTES_MAX: usize = PROPOSAL_BYTES_MAX / 2;

/// Ids of this process count from a random one on: those of another process, or of this server before its restart, must
/// not be taken for the same proposals.
static NEXT_ID: LazyLock<AtomicU64> = LazyLock::new(|| {
    let from = std::hash::RandomState::new().build_hasher().finish();
    AtomicU64::new(OWN_IDS | from >> 2)
});

/// What a call is answered with: the reply, and the id of the proposal that it rode in.
pub type Answer = Result<(MetaReply, u64), String>;

/// Where the broker's shards ask; usable on any thread and runtime.
#[derive(Debug, Clone)]
pub struct MetaClient {
    opens: mpsc::Sender<Waiting>,
    singles: mpsc::Sender<Waiting>,
    gathers: bool,
}

/// Where the calls arrive; taken by [`run`].
#[derive(Debug)]
pub struct Inbox {
    opens: mpsc::Receiver<Waiting>,
    singles: mpsc::Receiver<Waiting>,
    batch: usize,
}

#[derive(Debug)]
struct Waiting {
    call: MetaCall,
    span: Span,
    answer: oneshot::Sender<Answer>,
}

/// Both ends; `batch` is the most openings of one proposal, and with 1 nothing is gathered.
pub fn channel(batch: u32) -> (MetaClient, Inbox) {
    let (open_in, opens) = mpsc::channel(QUEUE_MAX);
    let (single_in, singles) = mpsc::channel(QUEUE_MAX);
    let client = MetaClient { opens: open_in, singles: single_in, gathers: batch > 1 };
    (client, Inbox { opens, singles, batch: batch.max(1) as usize })
}

impl MetaClient {
    /// Has a call performed by the meta-service. The span that is current at the first poll becomes the parent of the
    /// proposal, if this call is its first.
    ///
    /// # Errors
    /// One sentence; the write may or may not have been done.
    pub async fn call(&self, call: MetaCall) -> Answer {
        let ended = || "the way to the meta-service has ended".to_owned();
        let gathered = self.gathers && matches!(call, MetaCall::OpenSession { .. });
        let queue = if gathered { &self.opens } else { &self.singles };
        let (answer, answered) = oneshot::channel();
        queue.send(Waiting { call, span: Span::current(), answer }).await.map_err(|_closed| ended())?;
        answered.await.unwrap_or_else(|_dropped| Err(ended()))
    }
}

/// Where proposals go.
pub trait Proposer: Clone + Send + Sync + 'static {
    /// Proposes calls as one entry: one reply for each, or one sentence.
    fn propose(&self, id: u64, calls: &[MetaCall]) -> impl Future<Output = Result<Vec<MetaReply>, String>> + Send;
}

impl<N: Net> Proposer for Client<N> {
    fn propose(&self, id: u64, calls: &[MetaCall]) -> impl Future<Output = Result<Vec<MetaReply>, String>> + Send {
        Client::propose(self, id, calls)
    }
}

/// Starts both consumers. They take no more calls once what is returned was dropped, and end when those they have are
/// answered.
pub fn run<N: Net, P: Proposer>(tasks: &Tasks<N>, inbox: Inbox, proposer: P) -> Open {
    let Inbox { opens, singles, batch } = inbox;
    let (opens_end, opens_ends) = oneshot::channel();
    let (singles_end, singles_ends) = oneshot::channel();
    let opens = Queue { calls: opens, ends: Some(opens_ends) };
    let singles = Queue { calls: singles, ends: Some(singles_ends) };
    tasks.spawn(Role::Batcher, gather(opens, batch, proposer.clone()));
    let own = tasks.clone();
    tasks.spawn(Role::Batcher, async move { each(&own, singles, proposer).await });
    Open { _ends: [opens_end, singles_end] }
}

/// As long as it lives the batcher takes calls.
#[derive(Debug)]
#[must_use = "dropped, the batcher takes no more calls"]
pub struct Open {
    _ends: [oneshot::Sender<()>; 2],
}

struct Queue {
    calls: mpsc::Receiver<Waiting>,
    /// None once it has come.
    ends: Option<oneshot::Receiver<()>>,
}

impl Queue {
    /// The next call. None when no more are taken and none is left.
    async fn next(&mut self) -> Option<Waiting> {
        if let Some(ends) = &mut self.ends {
            match select(pin!(self.calls.recv()), ends).await {
                Either::Left((received, _)) => return received,
                Either::Right(_) => {}
            }
            self.ends = None;
            self.calls.close();
        }
        self.calls.recv().await
    }
}

async fn gather(mut opens: Queue, batch: usize, proposer: impl Proposer) {
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(first) => first,
            None => match opens.next().await {
                Some(first) => first,
                None => return,
            },
        };
        let mut bytes = estimate(&first.call);
        let mut waiting = vec![first];
        while waiting.len() < batch && left_over.is_none() {
            let Ok(more) = opens.calls.try_recv() else { break };
            bytes += estimate(&more.call);
            if bytes > GATHERED_BYTES_MAX {
                left_over = Some(more);
            } else {
                waiting.push(more);
            }
        }
        flush(&proposer, waiting).await;
    }
}

async fn each<N: Net, P: Proposer>(tasks: &Tasks<N>, mut singles: Queue, proposer: P) {
    while let Some(waiting) = singles.next().await {
        let proposer = proposer.clone();
        tasks.spawn(Role::RpcClient, async move { flush(&proposer, vec![waiting]).await });
    }
}

/// Proposes what waits, and answers everyone.
async fn flush(proposer: &impl Proposer, waiting: Vec<Waiting>) {
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let sent = stamps::mark(id, Mark::Sent);
    let bytes = waiting.iter().map(|w| estimate(&w.call)).sum();
    let Some(first) = waiting.first() else { return };
    let span = spans::raft_proposal(&first.span, id, waiting.len(), bytes);
    let (calls, answers): (Vec<_>, Vec<_>) = waiting.into_iter().map(|w| (w.call, w.answer)).unzip();
    let outcome = proposer.propose(id, &calls).instrument(span).await;
    stamps::mark_after(id, Mark::Returned, sent);
    // A caller that waits no more has ended.
    match outcome {
        Ok(replies) if replies.len() == answers.len() => {
            for (reply, answer) in replies.into_iter().zip(answers) {
                let _caller_has_ended = answer.send(Ok((reply, id)));
            }
        }
        other => {
            let reason = other.err().unwrap_or_else(|| "the meta-service answered another number of calls".to_owned());
            for answer in answers {
                let _caller_has_ended = answer.send(Err(reason.clone()));
            }
        }
    }
}

/// About what a call takes as encoded, bytes.
fn estimate(call: &MetaCall) -> usize {
    const FIXED: usize = 40;
    match call {
        MetaCall::OpenSession { record, .. } | MetaCall::PutSession { record } => {
            let filters: usize = record.subscriptions.iter().map(|(filter, _)| filter.len() + 12).sum();
            FIXED + record.client.len() + filters
        }
        MetaCall::DropSession { client } => FIXED + client.len(),
    }
}

#[cfg(test)]
mod tests;
