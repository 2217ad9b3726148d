//! What the server's threads did, in order: stretches of polls, storage calls and gaps, and the waits of tasks.
//!
//! Polls and calls overlap when a call is made inline, so a poll's CPU time and run delay are first reduced by those of
//! the calls within it; what is left belongs to the rest of the poll. It knows no request.

use super::lane::{Lane, Lanes};
use super::overlay::{Claim, Rank};
use regauge_traces::stamps::{Event, Stamp};
use std::collections::HashMap;

/// What one thread did for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    from: u64,
    to: u64,
    rank: Rank,
    /// At most its length in all; what is missing nobody claims.
    lanes: Lanes,
}

/// A poll of a task, as far as somebody waited for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Polled {
    woken: Option<u64>,
    started: u64,
    finished: u64,
    thread: u32,
}

/// Intervals sorted by their begin, of which the overlapping ones are found quickly even if some are long.
#[derive(Debug, Clone)]
pub(super) struct Sorted<T> {
    items: Vec<(u64, u64, T)>,
    /// The latest end among the items up to here.
    ends: Vec<u64>,
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Sorted { items: Vec::new(), ends: Vec::new() }
    }
}

impl<T> Sorted<T> {
    pub(super) fn new(mut items: Vec<(u64, u64, T)>) -> Self {
        items.sort_by_key(|item| (item.0, item.1));
        let ends = items
            .iter()
            .scan(0, |latest, item| {
                *latest = item.1.max(*latest);
                Some(*latest)
            })
            .collect();
        Sorted { items, ends }
    }

    /// Items that have time in common with `from..to`, by their begin.
    pub(super) fn within(&self, from: u64, to: u64) -> impl Iterator<Item = &(u64, u64, T)> {
        let first = self.ends.partition_point(|end| *end <= from);
        let last = self.items.partition_point(|item| item.0 < to);
        self.items.get(first..last.max(first)).unwrap_or(&[]).iter().filter(move |item| item.1 > from)
    }
}

/// Who is in charge of a request between two stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Charge<'a> {
    /// The threads that may carry it on.
    pub threads: &'a [u32],
    /// The roles of its tasks there.
    pub roles: &'a [&'static str],
}

impl Charge<'_> {
    pub const NOBODY: Charge<'static> = Charge { threads: &[], roles: &[] };
}

/// All threads of a run.
#[derive(Debug, Default)]
pub(super) struct Threads {
    stretches: HashMap<u32, Sorted<Stretch>>,
    polls: HashMap<&'static str, Sorted<Polled>>,
}

impl Threads {
    pub(super) fn new(stamps: &[Stamp]) -> Self {
        let mut calls: HashMap<u32, Vec<(u64, u64, Lanes)>> = HashMap::new();
        let mut polls: HashMap<&'static str, Vec<(u64, u64, Polled)>> = HashMap::new();
        for stamp in stamps {
            let Some((from, to)) = run_time(stamp) else { continue };
            match stamp.event {
                Event::Call => calls.entry(stamp.thread).or_default().push((from, to, of_call(stamp))),
                Event::Op if stamp.cpu_ns.is_some() => {
                    let thread = stamp.worker.unwrap_or(stamp.thread);
                    calls.entry(thread).or_default().push((from, to, of_call(stamp)));
                }
                Event::Poll => {
                    let woken = stamp.woken_ns.filter(|woken| *woken <= from);
                    let polled = Polled { woken, started: from, finished: to, thread: stamp.thread };
                    polls.entry(stamp.name).or_default().push((woken.unwrap_or(from), to, polled));
                }
                _ => {}
            }
        }
        let calls: HashMap<u32, Sorted<Lanes>> = calls.into_iter().map(|(t, list)| (t, Sorted::new(list))).collect();
        let mut stretches: HashMap<u32, Vec<(u64, u64, Stretch)>> = HashMap::new();
        for stamp in stamps.iter().filter(|stamp| matches!(stamp.event, Event::Poll | Event::Gap)) {
            let Some((from, to)) = run_time(stamp) else { continue };
            let into = stretches.entry(stamp.thread).or_default();
            around_calls(stamp, from, to, calls.get(&stamp.thread), into);
        }
        for (thread, list) in &calls {
            let into = stretches.entry(*thread).or_default();
            let stretch = |&(from, to, lanes): &_| (from, to, Stretch { from, to, rank: Rank::Call, lanes });
            into.extend(list.items.iter().map(stretch));
        }
        Threads {
            stretches: stretches.into_iter().map(|(thread, list)| (thread, Sorted::new(list))).collect(),
            polls: polls.into_iter().map(|(role, list)| (role, Sorted::new(list))).collect(),
        }
    }

    /// Threads that polled tasks of a role.
    pub(super) fn of_role(&self, role: &str) -> Vec<u32> {
        let polls = self.polls.get(role).map(|polls| polls.items.as_slice()).unwrap_or(&[]);
        let mut threads: Vec<u32> = polls.iter().map(|poll| poll.2.thread).collect();
        threads.sort_unstable();
        threads.dedup();
        threads
    }

    /// The claims of whoever is in charge between `from` and `to`.
    ///
    /// One thread in charge explains its time with all that it did. Of several workers only the one counts that ran the
    /// next poll of the request's own tasks, and only until that poll: what the others did hindered nobody.
    pub(super) fn claims(&self, from: u64, to: u64, charge: Charge<'_>, claims: &mut Vec<Claim>) {
        let mut polls: Vec<&Polled> = Vec::new();
        for role in charge.roles {
            let of_role = self.polls.get(role).into_iter().flat_map(|polls| polls.within(from, to));
            polls.extend(of_role.map(|poll| &poll.2).filter(|poll| charge.threads.contains(&poll.thread)));
        }
        for poll in &polls {
            if let Some(woken) = poll.woken {
                claims.push(Claim::whole(Rank::Wait, woken, poll.started, Lane::WokenPolled));
            }
        }
        match charge.threads {
            [] => {}
            [thread] => self.of_thread(*thread, from, to, claims),
            _ => {
                polls.sort_by_key(|poll| poll.started);
                let mut done = from;
                for poll in polls {
                    let end = poll.finished.min(to);
                    self.of_thread(poll.thread, done, end, claims);
                    done = done.max(end);
                }
            }
        }
    }

    fn of_thread(&self, thread: u32, from: u64, to: u64, claims: &mut Vec<Claim>) {
        let stretches = self.stretches.get(&thread).into_iter().flat_map(|list| list.within(from, to));
        for (_, _, stretch) in stretches {
            let (low, high) = (stretch.from.max(from), stretch.to.min(to));
            for lane in Lane::ALL {
                let ns = stretch.lanes.get(lane);
                if ns > 0 && low < high {
                    let rank = if lane == Lane::Runnable { Rank::RunDelay } else { stretch.rank };
                    let part = u128::from(ns) * u128::from(high - low) / u128::from(stretch.to - stretch.from);
                    claims.push(Claim { rank, from: low, to: high, lane, ns: u64::try_from(part).unwrap_or(ns) });
                }
            }
        }
    }
}

/// started → finished, if it took any time.
fn run_time(stamp: &Stamp) -> Option<(u64, u64)> {
    let (from, to) = stamp.started_ns.zip(stamp.finished_ns)?;
    (from < to).then_some((from, to))
}

/// What the rest of a storage call is: storage, unless nobody has looked at the counters of the thread that made a RocksDB
/// call. That was slow for a reason that is not known, and on a busy thread preemption is as likely as the disk.
pub(super) fn rest_of(stamp: &Stamp) -> Lane {
    let is_unread = stamp.event == Event::Call && stamp.cpu_ns.is_none();
    if is_unread { Lane::Unattributed } else { Lane::OtherStorage }
}

/// The wall time of a storage call by lane. Storage is what is neither CPU time nor run delay. RocksDB's own times are
/// wall times that hold both, so they divide the blocked time in the order in which a thread sleeps in them: delays and
/// other writers first, then the WAL; a memtable is written on the CPU.
pub(super) fn of_call(stamp: &Stamp) -> Lanes {
    let mut lanes = Lanes::default();
    let mut left = run_time(stamp).map_or(0, |(from, to)| to - from);
    let parts = [
        (Lane::Runnable, stamp.run_delay_ns),
        (Lane::OnCpu, stamp.cpu_ns),
        (Lane::Delay, stamp.delay_ns),
        (Lane::ThreadWait, stamp.thread_wait_ns),
        (Lane::Wal, stamp.wal_ns),
        (Lane::Memtable, stamp.memtable_ns),
    ];
    for (lane, ns) in parts {
        let taken = ns.unwrap_or(0).min(left);
        lanes.add(lane, taken);
        left -= taken;
    }
    lanes.add(rest_of(stamp), left);
    lanes
}

/// Adds what is left of a poll or gap beside the calls made within it.
fn around_calls(stamp: &Stamp, from: u64, to: u64, calls: Option<&Sorted<Lanes>>, into: &mut Vec<(u64, u64, Stretch)>) {
    let (mut delay, mut cpu) = (stamp.run_delay_ns.unwrap_or(0), stamp.cpu_ns);
    let mut holes: Vec<(u64, u64)> = Vec::new();
    let mut at = from;
    for (low, high, lanes) in calls.into_iter().flat_map(|calls| calls.within(from, to)) {
        // A call that reaches beyond the poll is no part of it: contradictory stamps, or another clock.
        if *low < at || *high > to {
            continue;
        }
        delay = delay.saturating_sub(lanes.get(Lane::Runnable));
        cpu = cpu.map(|cpu| cpu.saturating_sub(lanes.get(Lane::OnCpu)));
        holes.push((at, *low));
        at = *high;
    }
    holes.push((at, to));
    let length: u64 = holes.iter().map(|(low, high)| high - low).sum();
    let delay = delay.min(length);
    // A poll too short to be looked at closely had its CPU.
    let cpu = cpu.unwrap_or(length).min(length - delay);
    for (low, high) in holes.into_iter().filter(|(low, high)| low < high) {
        let part = |ns: u64| u64::try_from(u128::from(ns) * u128::from(high - low) / u128::from(length)).unwrap_or(0);
        let mut lanes = Lanes::only(Lane::Runnable, part(delay));
        if stamp.event == Event::Poll {
            lanes.add(Lane::OnCpu, part(cpu));
            // Asleep in a poll, in no call that was stamped.
            lanes.add(Lane::Unattributed, (high - low).saturating_sub(part(delay) + part(cpu)));
        }
        into.push((low, high, Stretch { from: low, to: high, rank: Rank::Poll, lanes }));
    }
}
