//! Lanes: where the time of each request went, from the stamps of a run.
//!
//! A request's latency, from its planned time to its reply, is split into lanes that add up to it to the nanosecond:
//! stamps give the moments ([`timeline`]), what the threads did meanwhile decides the stretches between them
//! ([`overlay`]), and what nothing explains is the lane `unattributed`, which is always shown. [`aggregate`] compares
//! the requests around the median with those in the tail. Definitions and limits: METHODOLOGY.md, "Lanes".
//!
//! It leaves out what no stamp can see: completions that lie in a ring before they are reaped, sockets that are ready
//! before epoll returns, and short polls outside the sampled time slices.

pub mod aggregate;
mod chain;
pub mod input;
mod join;
pub mod lane;
pub mod load;
pub mod overlay;
pub mod slow;
pub mod study;
mod table;
pub mod terminal;
mod threads;
pub mod timeline;
mod whole;

pub use chain::Stage;
pub use input::{Connection, Request, RunInput, Taken};
pub use lane::{Lane, Lanes};
pub use study::StudyLanes;
pub(crate) use table::write as write_table;
pub use timeline::Timeline;

use chain::Chain;
use join::Run;
use regauge_traces::stamps::Stamp;
use regauge_traces::study::sample_flags::WARMUP;

/// Contradictions up to this are the clocks' error, ns.
pub const CLOCK_NOISE_NS: u64 = 5_000;

/// A request with its lanes, without its stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLanes {
    /// Id of the root span.
    pub op_id: u64,
    /// Kind of the root.
    pub step: String,
    /// Planned before the warm-up cut.
    pub is_warmup: bool,
    /// Planned → reply, ns.
    pub latency_ns: u64,
    /// Its lanes, which add up to the latency; `None` when it has no stamps.
    pub lanes: Option<Lanes>,
    /// The lanes of the time that it waited for other calls to be sent to the meta-service; `None` as above.
    pub batcher: Option<Lanes>,
    /// By how much stamps contradicted each other or the driver, ns.
    pub disagreement_ns: u64,
    /// Planned, CLOCK_MONOTONIC ns.
    pub planned_ns: u64,
    /// The server's id of the connection.
    pub conn: Option<u64>,
    /// Packet read → reply written, ns.
    pub server_ns: Option<u64>,
    /// First operation handed over → last one's result, ns.
    pub session_ns: Option<u64>,
}

/// One storage call of the meta-service as whoever awaits it sees it: the article's interval when it is
/// `set_last_applied`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepLanes {
    /// `set_last_applied`, `route`, …
    pub step: &'static str,
    /// First log index.
    pub first: u64,
    /// Entries.
    pub count: u32,
    /// Asked for, CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// Asked for → going on, ns.
    pub total_ns: u64,
    /// Its lanes, which add up to the total.
    pub lanes: Lanes,
    /// The thread that made the call.
    pub thread: u32,
    /// Asked for before the warm-up cut.
    pub is_warmup: bool,
}

/// The lanes of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunLanes {
    /// Requests with a latency, in the order of requests.parquet.
    pub requests: Vec<RequestLanes>,
    /// Storage calls of an apply: route, membership, set_last_applied, by log index.
    pub steps: Vec<StepLanes>,
    /// How complete the stamps are.
    pub taken: Taken,
}

impl RunLanes {
    /// Computes the lanes of a run.
    pub fn of(input: &RunInput<'_>) -> Self {
        let run = Run::new(input);
        let requests = input.requests.iter().filter_map(|request| {
            let latency_ns = request.latency_ns?;
            let timeline = timeline::timeline(&run, request);
            let found = timeline.as_ref();
            Some(RequestLanes {
                op_id: request.op_id,
                step: request.step.clone(),
                is_warmup: request.flags & WARMUP != 0,
                latency_ns,
                lanes: found.map(|timeline| timeline.lanes),
                batcher: found.map(Timeline::in_the_batcher),
                disagreement_ns: found.map_or(0, |timeline| timeline.disagreement_ns),
                planned_ns: input.t0_ns.saturating_add(request.planned_ns),
                conn: found.and_then(|timeline| timeline.conn),
                server_ns: found.and_then(|timeline| timeline.server_ns),
                session_ns: found.and_then(|timeline| timeline.session_ns),
            })
        });
        let warmup = input.requests.iter().filter(|request| request.flags & WARMUP != 0);
        let warm_ns = warmup.map(|request| input.t0_ns.saturating_add(request.planned_ns)).max().unwrap_or(0);
        let mut steps: Vec<StepLanes> = Vec::new();
        for name in ["route", "membership", "set_last_applied"] {
            steps.extend(run.calls_named(name).iter().filter_map(|call| step_lanes(&run, call, warm_ns)));
        }
        RunLanes { requests: requests.collect(), steps, taken: run.taken }
    }
}

/// The timeline of one request of a run; `None` when it has no latency or no stamps.
pub fn timeline_of(input: &RunInput<'_>, request: &Request) -> Option<Timeline> {
    timeline::timeline(&Run::new(input), request)
}

fn step_lanes(run: &Run<'_>, call: &Stamp, warm_ns: u64) -> Option<StepLanes> {
    let at_ns = call.queued_ns.or(call.started_ns)?;
    let end = call.resumed_ns.or(call.finished_ns)?;
    let mut chain = Chain::new(&run.threads, at_ns, end);
    timeline::step(run, &mut chain, call);
    chain.finish("result on its way", threads::Charge::NOBODY, Lane::Unattributed);
    let mut lanes = Lanes::default();
    chain.stages.iter().for_each(|stage| lanes.extend(&stage.lanes));
    Some(StepLanes {
        step: call.name,
        first: call.first?,
        count: call.count.unwrap_or(1),
        at_ns,
        total_ns: end.saturating_sub(at_ns),
        lanes,
        thread: call.thread,
        is_warmup: at_ns < warm_ns,
    })
}
