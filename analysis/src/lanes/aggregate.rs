//! Mean lanes of an arm's requests around the median and in the tail, per step, all valid runs together.
//!
//! Means of lanes may be added and compared, which percentiles of lanes may not: the requests are chosen by their whole
//! latency first, and then their lanes are averaged. Groups are refused that have fewer than five requests, or in which
//! more than a tenth lack stamps: what rows are left out is no matter of chance. So are the groups of `set_last_applied`
//! where calls were left out, since these are then the slow ones and a sample of the rest.

use super::lane::{Lane, Lanes, share};
use super::{CLOCK_NOISE_NS, RunLanes, Taken};
use crate::counts::rank;
use serde::Serialize;
use std::collections::BTreeMap;

/// Fewer requests than this say nothing in the mean.
pub const REQUESTS_MIN: u64 = 5;

/// In a group at most one in so many may lack stamps.
const UNSEEN_MOST: u64 = 10;

/// The step that stands for the meta-service's own write of the last applied id.
pub const SET_LAST_APPLIED: &str = "set_last_applied";

/// The step of which batching is a cause.
pub const CONNECT: &str = "connect";

/// Which requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// Latency between P45 and P55.
    Median,
    /// Latency of P99 and above.
    Tail,
}

impl At {
    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            At::Median => "around P50",
            At::Tail => "P99 and above",
        }
    }
}

/// The mean of one group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// Root kind, or `set_last_applied`.
    pub step: String,
    /// Which requests of it.
    pub at: At,
    /// Requests in the group with stamps.
    pub requests: u64,
    /// Requests in the group without: they are in no mean.
    pub without_stamps: u64,
    /// Why there is no mean.
    pub refused: Option<String>,
    /// Mean latency, ns.
    pub latency_ns: Option<u64>,
    /// Mean lanes, ns; they add up to the mean latency but for rounding.
    pub lanes_ns: Option<Lanes>,
    /// Share of each lane in the time of the group, by name.
    pub shares: Option<BTreeMap<&'static str, f64>>,
}

/// An arm's lanes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmLanes {
    /// Arm name.
    pub arm: String,
    /// Valid runs with stamps, and without.
    pub runs: u64,
    /// Runs that have no stamps, so that nothing is known of them.
    pub runs_without_stamps: u64,
    /// Per step: around the median, in the tail.
    pub groups: Vec<Group>,
    /// Share of the tail's latency that nothing explains, all steps together; `None` where the tail is refused.
    pub unattributed_tail: Option<f64>,
    /// Requests whose stamps contradict each other or the driver by more than 5 µs.
    pub disagreeing: u64,
    /// The largest such contradiction, ns.
    pub largest_disagreement_ns: u64,
    /// The largest difference between a request's latency and its lanes together, ns. Lanes add up by construction; this
    /// is the proof.
    pub largest_gap_ns: u64,
}

impl Group {
    /// All requests in it.
    pub fn all(&self) -> u64 {
        self.requests + self.without_stamps
    }

    fn refuse(&mut self, why: String) {
        self.refused = Some(why);
        (self.latency_ns, self.lanes_ns, self.shares) = (None, None, None);
    }
}

impl ArmLanes {
    /// Where requests are in no mean for want of stamps, for people; `None` when they are nowhere. Of one step, or of all.
    pub fn lacking(&self, step: Option<&str>) -> Option<String> {
        let groups = self.groups.iter().filter(|group| step.is_none_or(|step| group.step == step));
        let say = |g: &Group| format!("{} of {} {} {}", g.without_stamps, g.all(), g.step, g.at.label());
        let lacking: Vec<String> = groups.filter(|group| group.without_stamps > 0).map(say).collect();
        (!lacking.is_empty()).then(|| format!("{}: without stamps {}", self.arm, lacking.join(", ")))
    }
}

/// Why a mean of `with` requests with stamps, of `all` in the group, would say nothing; `None` when it says something.
pub fn too_few(with: u64, all: u64) -> Option<String> {
    if with < REQUESTS_MIN {
        return Some(format!("{with} of them have stamps, and a mean needs {REQUESTS_MIN}"));
    }
    let without = all.saturating_sub(with);
    let is_too_much = without.saturating_mul(UNSEEN_MOST) > all;
    is_too_much.then(|| format!("{without} of {all} lack stamps, more than a tenth"))
}

/// A time with its lanes, if any are known.
pub type Timed = (u64, Option<Lanes>);

/// What one run has per step: the root kinds, and `set_last_applied`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunTimes {
    /// Its block.
    pub block: u32,
    /// Requests after warm-up with a latency, and calls; by step.
    pub steps: BTreeMap<String, Vec<Timed>>,
    /// CONNECTs after warm-up: latency, and the lanes of the time in the batcher alone.
    pub batched: Vec<Timed>,
    /// How complete its stamps are.
    pub taken: Taken,
    /// Requests whose stamps contradict each other or the driver beyond the clocks' error.
    pub disagreeing: u64,
    /// The largest contradiction, ns.
    pub largest_disagreement_ns: u64,
}

impl RunTimes {
    /// Keeps of a run what groups and comparisons need.
    pub fn of(block: u32, run: &RunLanes) -> Self {
        let mut times = RunTimes { block, taken: run.taken, ..RunTimes::default() };
        for request in run.requests.iter().filter(|request| !request.is_warmup) {
            let timed = (request.latency_ns, request.lanes);
            match times.steps.get_mut(&request.step) {
                Some(list) => list.push(timed),
                None => drop(times.steps.insert(request.step.clone(), vec![timed])),
            }
            if request.step == CONNECT {
                times.batched.push((request.latency_ns, request.batcher));
            }
            times.disagreeing += u64::from(request.disagreement_ns > CLOCK_NOISE_NS);
            times.largest_disagreement_ns = times.largest_disagreement_ns.max(request.disagreement_ns);
        }
        let applied = run.steps.iter().filter(|step| step.step == SET_LAST_APPLIED && !step.is_warmup);
        let applied: Vec<Timed> = applied.map(|step| (step.total_ns, Some(step.lanes))).collect();
        if !applied.is_empty() {
            times.steps.insert(SET_LAST_APPLIED.to_owned(), applied);
        }
        times
    }
}

/// Aggregates an arm's runs with stamps; `without` more have none.
pub fn arm_lanes(arm: &str, runs: &[RunTimes], without: u64) -> ArmLanes {
    let mut pooled: BTreeMap<&str, Vec<Timed>> = BTreeMap::new();
    for (step, times) in runs.iter().flat_map(|run| &run.steps) {
        pooled.entry(step).or_default().extend_from_slice(times);
    }
    let all = || pooled.values().flatten();
    let gap = |(ns, lanes): &Timed| lanes.map_or(0, |lanes| lanes.total().abs_diff(*ns));
    let largest_gap_ns = all().map(gap).max().unwrap_or(0);
    let mut groups: Vec<Group> = pooled.into_iter().flat_map(|(step, times)| both(step, times)).collect();
    if runs.iter().any(|run| run.taken.calls_left_out > 0) {
        let of_calls = groups.iter_mut().filter(|group| group.step == SET_LAST_APPLIED);
        of_calls.for_each(|group| group.refuse("calls were left out".to_owned()));
    }
    let (mut unattributed, mut whole) = (0.0, 0.0);
    for group in groups.iter().filter(|group| group.at == At::Tail && group.step != SET_LAST_APPLIED) {
        if let (Some(lanes), n) = (&group.lanes_ns, group.requests as f64) {
            unattributed += lanes.get(Lane::Unattributed) as f64 * n;
            whole += lanes.total() as f64 * n;
        }
    }
    ArmLanes {
        arm: arm.to_owned(),
        runs: runs.len() as u64,
        runs_without_stamps: without,
        groups,
        unattributed_tail: (whole > 0.0).then(|| unattributed / whole),
        disagreeing: runs.iter().map(|run| run.disagreeing).sum(),
        largest_disagreement_ns: runs.iter().map(|run| run.largest_disagreement_ns).max().unwrap_or(0),
        largest_gap_ns,
    }
}

fn both(step: &str, mut timed: Vec<Timed>) -> [Group; 2] {
    timed.sort_by_key(|(ns, _)| *ns);
    let total = timed.len() as u64;
    let upto = |ppm| usize::try_from(rank(total, ppm)).unwrap_or(usize::MAX).min(timed.len());
    let slice = |from: usize, to: usize| timed.get(from.min(to)..to).unwrap_or(&[]);
    [
        group(step, At::Median, slice(upto(450_000).saturating_sub(1), upto(550_000))),
        group(step, At::Tail, slice(upto(990_000).saturating_sub(1), timed.len())),
    ]
}

/// The mean of some.
fn group(step: &str, at: At, members: &[Timed]) -> Group {
    let with: Vec<&Lanes> = members.iter().filter_map(|(_, lanes)| lanes.as_ref()).collect();
    let n = with.len() as u64;
    let mut group = Group {
        step: step.to_owned(),
        at,
        requests: n,
        without_stamps: members.len() as u64 - n,
        refused: None,
        latency_ns: None,
        lanes_ns: None,
        shares: None,
    };
    if let Some(why) = too_few(n, members.len() as u64) {
        group.refuse(why);
        return group;
    }
    let mut sum = Lanes::default();
    with.iter().for_each(|lanes| sum.extend(lanes));
    let mut mean = Lanes::default();
    for lane in Lane::ALL {
        mean.add(lane, (sum.get(lane) + n / 2) / n);
    }
    group.latency_ns = Some((sum.total() + n / 2) / n);
    group.lanes_ns = Some(mean);
    group.shares = Some(Lane::ALL.into_iter().map(|lane| (lane.name(), share(sum.get(lane), sum.total()))).collect());
    group
}
