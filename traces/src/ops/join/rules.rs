//! How a step finds its parent: the rules of SPEC.md, section 14, one function per group of kinds.
//!
//! All go by time: candidates stand sorted by start, and since the steps that look for a parent come sorted too, what was
//! over before one began is passed for good.

use std::collections::{HashMap, HashSet};

use super::CLOCK_ERROR_NS;
use crate::span::{Kind, Span};

/// Spans by time, and who is whose parent. Ids are places in `spans`.
struct Forest<'a> {
    spans: &'a mut [Span],
    /// Places of the layer's spans without a parent, by start.
    lone: Vec<usize>,
}

/// Gives parents to the layer's spans, which stand from `layer` on.
pub(super) fn join(spans: &mut [Span], layer: usize) {
    let mut lone: Vec<usize> =
        (layer..spans.len()).filter(|at| of(spans, *at).is_some_and(|s| s.parent.is_none())).collect();
    lone.sort_by_key(|at| of(spans, *at).map(|span| (span.start_ns, span.id)));
    let mut forest = Forest { spans, lone };
    forest.sessions(layer);
    forest.appends(layer);
    forest.steps_of_applies();
    forest.proposals();
}

fn of(spans: &[Span], at: usize) -> Option<&Span> {
    spans.get(at)
}

/// When it was surely over; a span without an end never is.
fn over_ns(span: &Span) -> u64 {
    span.duration_ns.map_or(u64::MAX, |_| span.end_ns().saturating_add(CLOCK_ERROR_NS))
}

/// Whether `parent` had begun when `child` did.
fn began_before(parent: &Span, child: &Span) -> bool {
    parent.start_ns <= child.start_ns.saturating_add(CLOCK_ERROR_NS)
}

fn proposal(span: &Span) -> Option<u64> {
    span.target.as_deref()?.strip_prefix("proposal=")?.parse().ok()
}

impl Forest<'_> {
    /// Lone spans of these kinds, by start.
    fn lone(&self, kinds: &[Kind]) -> Vec<usize> {
        let wanted = |at: &usize| of(self.spans, *at).is_some_and(|s| s.parent.is_none() && kinds.contains(&s.kind));
        self.lone.iter().copied().filter(wanted).collect()
    }

    /// Spans of these kinds among the places from `from` to `to`, by start.
    fn all(&self, kinds: &[Kind], places: std::ops::Range<usize>) -> Vec<usize> {
        let mut all: Vec<usize> =
            places.filter(|at| of(self.spans, *at).is_some_and(|span| kinds.contains(&span.kind))).collect();
        all.sort_by_key(|at| of(self.spans, *at).map(|span| (span.start_ns, span.id)));
        all
    }

    fn by_session(&self, places: &[usize]) -> HashMap<u64, Vec<usize>> {
        let mut sessions: HashMap<u64, Vec<usize>> = HashMap::new();
        for at in places {
            if let Some(session) = of(self.spans, *at).and_then(|span| span.session) {
                sessions.entry(session).or_default().push(*at);
            }
        }
        sessions
    }

    /// Makes `parent` the parent of `child`, unless it descends from it.
    fn adopt(&mut self, child: usize, parent: usize) {
        let mut at = Some(parent);
        while let Some(here) = at {
            if here == child {
                return;
            }
            at = of(self.spans, here).and_then(|span| span.parent).and_then(|id| usize::try_from(id).ok());
        }
        if let Some(span) = self.spans.get_mut(child) {
            span.parent = Some(parent as u64);
        }
    }

    fn sessions(&mut self, layer: usize) {
        let ends = [Kind::Disconnect, Kind::Close];
        let wire = self.by_session(&self.all(&[Kind::Connect, Kind::Disconnect, Kind::Close], 0..layer));
        for at in self.lone(&[Kind::SessionProcess, Kind::MetaCall]) {
            let Some(step) = of(self.spans, at) else { continue };
            let Some(packets) = step.session.and_then(|session| wire.get(&session)) else { continue };
            let mut earlier = packets.iter().rev().filter_map(|place| of(self.spans, *place));
            let waits = |p: &&Span| p.kind == Kind::Connect && began_before(p, step) && step.start_ns <= over_ns(p);
            let parent = earlier.clone().find(waits).or_else(|| {
                let last = earlier.find(|packet| began_before(packet, step))?;
                (step.kind == Kind::MetaCall && ends.contains(&last.kind)).then_some(last)
            });
            if let Some(parent) = parent.map(|parent| parent.id as usize) {
                self.adopt(at, parent);
            }
        }
    }

    fn appends(&mut self, layer: usize) {
        let publishes = self.by_session(&self.all(&[Kind::Publish], 0..layer));
        // Per session: publishes below this place in its list are over, and when its append before this one began.
        let mut passed: HashMap<u64, (usize, u64)> = HashMap::new();
        let mut taken: HashSet<usize> = HashSet::new();
        for at in self.lone(&[Kind::SegmentAppend]) {
            let Some(append) = of(self.spans, at) else { continue };
            let Some((session, list)) = append.session.and_then(|s| Some((s, publishes.get(&s)?))) else { continue };
            let (from, before_ns) = passed.entry(session).or_default();
            // Appends come by start, so what was acknowledged before this one began is over for good.
            while list.get(*from).and_then(|p| of(self.spans, *p)).is_some_and(|publish| {
                publish.duration_ns.is_some() && over_ns(publish) < append.start_ns
                    || publish.duration_ns.is_none() && publish.start_ns <= *before_ns
            }) {
                *from += 1;
            }
            let candidates = list.iter().skip(*from).copied();
            let open =
                candidates.map_while(|p| of(self.spans, p).filter(|span| began_before(span, append)).map(|s| (p, s)));
            let parent =
                open.filter(|(place, _)| !taken.contains(place)).find(|(_, publish)| match publish.duration_ns {
                    Some(_) => append.end_ns() <= over_ns(publish),
                    None => publish.start_ns > *before_ns,
                });
            *before_ns = append.start_ns;
            if let Some((parent, _)) = parent {
                taken.insert(parent);
                self.adopt(at, parent);
            }
        }
    }

    fn steps_of_applies(&mut self) {
        let applies = self.all(&[Kind::Apply], 0..self.spans.len());
        for at in self.lone(&[Kind::Route, Kind::Membership, Kind::SetLastApplied]) {
            let Some(step) = of(self.spans, at) else { continue };
            let begun = applies.partition_point(|a| of(self.spans, *a).is_some_and(|apply| began_before(apply, step)));
            let last = begun.checked_sub(1).and_then(|last| applies.get(last)).copied();
            let within = |apply: &usize| of(self.spans, *apply).is_some_and(|apply| step.end_ns() <= over_ns(apply));
            if let Some(apply) = last.filter(within) {
                self.adopt(at, apply);
            }
        }
    }

    fn proposals(&mut self) {
        let proposals = self.all(&[Kind::RaftProposal], 0..self.spans.len());
        let numbered: HashMap<u64, usize> =
            proposals.iter().rev().filter_map(|at| Some((proposal(of(self.spans, *at)?)?, *at))).collect();
        let named = |spans: &[Span], at: usize| -> Option<usize> {
            let step = of(spans, at)?;
            let proposal = *numbered.get(&proposal(step)?)?;
            began_before(of(spans, proposal)?, step).then_some(proposal)
        };
        // What the steps of each apply say.
        let mut first_named: HashMap<u64, usize> = HashMap::new();
        let mut not_by_time: HashSet<u64> = HashSet::new();
        for at in self.all(&[Kind::Route, Kind::Membership], 0..self.spans.len()) {
            let Some(step) = of(self.spans, at) else { continue };
            let Some(apply) = step.parent else { continue };
            if step.kind == Kind::Membership || proposal(step).is_some() {
                not_by_time.insert(apply);
            }
            if let Some(proposal) = named(self.spans, at) {
                first_named.entry(apply).or_insert(proposal);
            }
        }
        for at in self.lone(&[Kind::Route]) {
            if let Some(parent) = named(self.spans, at) {
                self.adopt(at, parent);
            }
        }
        let mut waiting = Waiting::new(&proposals);
        for at in self.lone(&[Kind::Apply]) {
            let parent = match first_named.get(&(at as u64)) {
                Some(proposal) => Some(*proposal),
                None if not_by_time.contains(&(at as u64)) => None,
                None => waiting.first(self.spans, at, &HashSet::new()),
            };
            let begun = |parent: &usize| {
                of(self.spans, *parent)
                    .zip(of(self.spans, at))
                    .is_some_and(|(parent, apply)| began_before(parent, apply))
            };
            if let Some(parent) = parent.filter(begun) {
                self.adopt(at, parent);
            }
        }
        let mut waiting = Waiting::new(&proposals);
        let mut taken = HashSet::new();
        for at in self.lone(&[Kind::RaftAppend]) {
            let entries = of(self.spans, at).map_or(1, |append| append.count.max(1));
            if let Some(parent) = waiting.first(self.spans, at, &taken) {
                self.adopt(at, parent);
                // The other entries of the batch are the proposals after it that had been made.
                for _ in 0..entries {
                    if let Some(next) = waiting.first(self.spans, at, &taken) {
                        taken.insert(next);
                    }
                }
            }
        }
    }
}

/// Proposals by start, looked through by steps that come by start too.
struct Waiting<'a> {
    proposals: &'a [usize],
    over: usize,
}

impl<'a> Waiting<'a> {
    fn new(proposals: &'a [usize]) -> Waiting<'a> {
        Waiting { proposals, over: 0 }
    }

    /// The first that had been made when `step` began, was not answered before it ended, and is not `taken`.
    fn first(&mut self, spans: &[Span], step: usize, taken: &HashSet<usize>) -> Option<usize> {
        let step = of(spans, step)?;
        while self.proposals.get(self.over).and_then(|p| of(spans, *p)).is_some_and(|p| over_ns(p) < step.start_ns) {
            self.over += 1;
        }
        let made = self.proposals.iter().skip(self.over).copied();
        let mut made = made.take_while(|p| of(spans, *p).is_some_and(|proposal| began_before(proposal, step)));
        made.find(|p| !taken.contains(p) && of(spans, *p).is_some_and(|proposal| step.end_ns() <= over_ns(proposal)))
    }
}
