//! A request's timeline: its moments in order, each stretch between two of them split into lanes.
//!
//! The chain is laid from the planned time to the reply. A moment that contradicts what is already laid (before it, or
//! after the reply) is moved to the nearest possible one, so that lanes always add up to the latency; what had to be
//! moved is kept as disagreement of the clocks.

use super::lane::{Lane, Lanes};
use super::overlay::{Claim, Rank, lay_over};
use super::threads::{Charge, Threads, of_call, rest_of};
use regauge_traces::stamps::Stamp;

/// A stretch of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// What happened, in the words of `explain`.
    pub name: &'static str,
    /// Begin, CLOCK_MONOTONIC ns.
    pub from_ns: u64,
    /// End.
    pub to_ns: u64,
    /// The thread at its end, where known.
    pub thread: Option<u32>,
    /// Its split.
    pub lanes: Lanes,
}

/// Times in which other work ran in the same queue.
pub(super) type Busy = Vec<(u64, u64)>;

/// A timeline being laid.
pub(super) struct Chain<'a> {
    threads: &'a Threads,
    at: u64,
    end: u64,
    pub stages: Vec<Stage>,
    pub disagreement_ns: u64,
}

impl<'a> Chain<'a> {
    /// An empty chain between two moments.
    pub fn new(threads: &'a Threads, from: u64, end: u64) -> Self {
        Chain { threads, at: from, end: end.max(from), stages: Vec::new(), disagreement_ns: 0 }
    }

    /// Up to where it is laid.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// A moment that must not lie before what is laid, nor after the end: contradictions are counted.
    pub fn must(&mut self, moment: Option<u64>) {
        if let Some(moment) = moment {
            self.disagreement_ns += self.at.saturating_sub(moment).saturating_add(moment.saturating_sub(self.end));
        }
    }

    /// A stretch that is all of one lane.
    pub fn plain(&mut self, name: &'static str, to: Option<u64>, lane: Lane) {
        self.lay(name, to, None, |from, to, _| Lanes::only(lane, to - from));
    }

    /// A stretch that the overlay decides: run delay, other work in the queue, waits and CPU time of whoever is in
    /// charge; `rest` gets the remainder.
    pub fn gap(
        &mut self,
        name: &'static str,
        to: Option<u64>,
        thread: Option<u32>,
        charge: Charge<'_>,
        busy: impl FnOnce(u64, u64) -> Busy,
        rest: Lane,
    ) {
        self.lay(name, to, thread, |from, to, threads| {
            let mut claims = Vec::new();
            threads.claims(from, to, charge, &mut claims);
            let whole = |(from, to)| Claim::whole(Rank::OtherWork, from, to, Lane::Queued);
            claims.extend(busy(from, to).into_iter().map(whole));
            lay_over(from, to, &claims, rest)
        });
    }

    /// A task or thread was asked to go on and has not yet: run delay of whoever goes on, all else is `rest`.
    pub fn wait(&mut self, name: &'static str, to: Option<u64>, thread: Option<u32>, charge: Charge<'_>, rest: Lane) {
        self.lay(name, to, thread, |from, to, threads| {
            let mut claims = Vec::new();
            threads.claims(from, to, charge, &mut claims);
            claims.retain(|claim| claim.rank == Rank::RunDelay);
            lay_over(from, to, &claims, rest)
        });
    }

    /// A storage call, split by its own CPU time, run delay and PerfContext.
    pub fn call(&mut self, name: &'static str, call: &Stamp) {
        let Some((started, finished)) = call.started_ns.zip(call.finished_ns) else { return };
        let split = of_call(call);
        self.lay(name, Some(finished), call.worker.or(Some(call.thread)), |from, to, _| {
            let claim = |lane| Claim { rank: Rank::Call, from: started, to: finished, lane, ns: split.get(lane) };
            lay_over(from, to, &Lane::ALL.map(claim), rest_of(call))
        });
    }

    /// What is left up to the reply.
    pub fn finish(&mut self, name: &'static str, charge: Charge<'_>, rest: Lane) {
        self.gap(name, Some(self.end), None, charge, |_, _| Vec::new(), rest);
    }

    fn lay(
        &mut self,
        name: &'static str,
        to: Option<u64>,
        thread: Option<u32>,
        split: impl FnOnce(u64, u64, &Threads) -> Lanes,
    ) {
        let Some(to) = to else { return };
        let (from, to) = (self.at, to.clamp(self.at, self.end));
        if from < to {
            let lanes = split(from, to, self.threads);
            self.stages.push(Stage { name, from_ns: from, to_ns: to, thread, lanes });
            self.at = to;
        }
    }
}
