//! Joining: a broker's run of which all is known is split into what a tap and what a layer would have seen, and joined.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::meta;
use proptest::prelude::*;
use regauge_traces::ops::{CLOCK_ERROR_NS, check, join, join_files};
use regauge_traces::*;
use std::collections::{BTreeMap, HashMap};

const US: u64 = 1000;

/// A run with its true parents, which `bytes` names: every span has its own.
#[derive(Default)]
struct Run {
    /// Span, its true parent, and the parent that the layer recorded.
    spans: Vec<(Span, Option<u64>, Option<u64>)>,
}

impl Run {
    fn add(&mut self, kind: Kind, start: u64, end: u64, truth: Option<u64>, recorded: Option<u64>) -> u64 {
        let mark = self.spans.len() as u64;
        let span = Span { duration_ns: Some(end - start), bytes: mark, ..Span::new(0, kind, start) };
        self.spans.push((span, truth, recorded));
        mark
    }

    fn at(&mut self, mark: u64) -> &mut Span {
        &mut self.spans[mark as usize].0
    }

    /// What the tap or the layer saw, its clock so much off, its origin at `origin`.
    fn seen(&self, wire: bool, origin: u64, off_ns: i64) -> Trace {
        let mut seen: Vec<_> = self.spans.iter().filter(|(span, ..)| span.kind.is_on_wire() == wire).collect();
        seen.sort_by_key(|(span, ..)| span.end_ns());
        let ids: HashMap<u64, u64> = seen.iter().zip(3..).map(|((span, ..), id)| (span.bytes, id)).collect();
        let spans = seen.iter().map(|(span, _, recorded)| Span {
            id: ids[&span.bytes],
            parent: recorded.map(|mark| ids[&mark]),
            start_ns: (span.start_ns - origin).saturating_add_signed(off_ns),
            ..span.clone()
        });
        let spans = spans.collect();
        trace(spans, origin)
    }

    fn truth(&self) -> BTreeMap<u64, Option<u64>> {
        self.spans.iter().map(|(span, truth, _)| (span.bytes, *truth)).collect()
    }
}

fn trace(spans: Vec<Span>, origin: u64) -> Trace {
    let clocks = |ns| Clocks { monotonic_ns: 1_000_000 + ns, realtime_ns: 1_700_000_000_000_000_000 + ns };
    let end = Some(clocks(100_000_000_000));
    let meta = Meta { origin: clocks(origin), end, drops: Some(Drops::default()), finished: true, ..meta() };
    Trace { meta, spans, form: None, file_bytes: 0, torn_bytes: 0 }
}

fn parents(trace: &Trace) -> BTreeMap<u64, Option<u64>> {
    let marks: HashMap<u64, u64> = trace.spans.iter().map(|span| (span.id, span.bytes)).collect();
    trace.spans.iter().map(|span| (span.bytes, span.parent.map(|id| marks[&id]))).collect()
}

#[derive(Debug, Clone)]
struct Load {
    /// Gaps between CONNECTs, µs; how long each proposal's append and apply take, µs; how many calls one gathers.
    connects: Vec<(u64, u64, u64)>,
    batch: usize,
    /// Gaps between PUBLISHes, µs, and of which of three sessions.
    publishes: Vec<(u64, u64)>,
    write_us: u64,
}

fn loads() -> impl Strategy<Value = Load> {
    (
        prop::collection::vec((0u64..600, 30u64..300, 30u64..300), 1..40),
        1usize..6,
        prop::collection::vec((0u64..300, 0u64..3), 0..60),
        60u64..500,
    )
        .prop_map(|(connects, batch, publishes, write_us)| Load { connects, batch, publishes, write_us })
}

/// CONNECTs gathered into proposals, one at a time; each is appended to the log, applied, answered.
fn connects(run: &mut Run, load: &Load) {
    let mut arrivals = Vec::new();
    let mut now = 1000 * US;
    for (client, (gap, ..)) in load.connects.iter().enumerate() {
        now += gap * US;
        // A client comes back now and then.
        arrivals.push((now, 100 + client as u64 % 7, client as u32));
    }
    let (mut free, mut next, mut proposal) = (0, 0, 0);
    while next < arrivals.len() {
        let begin = free.max(arrivals[next].0 + 25 * US);
        let calls = arrivals[next..].iter().take_while(|(at, ..)| at + 25 * US <= begin).count().clamp(1, load.batch);
        let (_, append_us, apply_us) = load.connects[next];
        let appended = begin + 30 * US + append_us * US;
        let applied = appended + 20 * US + apply_us * US;
        let answered = applied + 30 * US;
        let mut first = None;
        for (at, session, connection) in &arrivals[next..next + calls] {
            let connect = run.add(Kind::Connect, *at, answered + 40 * US, None, None);
            *run.at(connect) =
                Span { connection: Some(*connection), session: Some(*session), ..run.at(connect).clone() };
            let process = run.add(Kind::SessionProcess, at + 20 * US, answered + 10 * US, Some(connect), None);
            run.at(process).session = Some(*session);
            first.get_or_insert(process);
        }
        let raft = run.add(Kind::RaftProposal, begin, answered, first, first);
        run.at(raft).target = Some(format!("proposal={proposal}"));
        run.at(raft).count = calls as u32;
        run.add(Kind::RaftAppend, begin + 20 * US, appended, Some(raft), None);
        let apply = run.add(Kind::Apply, appended + 10 * US, applied, Some(raft), None);
        let middle = appended + 10 * US + (applied - appended) / 2;
        let route = run.add(Kind::Route, appended + 15 * US, middle, Some(apply), Some(apply));
        run.at(route).target = Some(format!("proposal={proposal}"));
        run.add(Kind::SetLastApplied, middle, applied, Some(apply), Some(apply));
        (free, next, proposal) = (answered + US, next + calls, proposal + 1);
    }
}

/// PUBLISHes of QoS 1, appended in batches, one at a time, and acknowledged after.
fn publishes(run: &mut Run, load: &Load) {
    let mut now = 2_000_000 * US;
    let arrivals: Vec<(u64, u64)> = load
        .publishes
        .iter()
        .map(|(gap, session)| {
            now += gap * US + 1;
            (now, *session)
        })
        .collect();
    let (mut free, mut next) = (0, 0);
    while next < arrivals.len() {
        let begin = free.max(arrivals[next].0 + 20 * US);
        let records = arrivals[next..].iter().take_while(|(at, _)| at + 20 * US <= begin).count().max(1);
        let end = begin + load.write_us * US;
        let mut first = None;
        for (at, session) in &arrivals[next..next + records] {
            let publish = run.add(Kind::Publish, *at, end + 15 * US, None, None);
            let wire = Span { qos: 1, session: Some(*session), target: Some("t".into()), ..run.at(publish).clone() };
            *run.at(publish) = Span { connection: Some(1000 + *session as u32), ..wire };
            first.get_or_insert(publish);
        }
        let append = run.add(Kind::SegmentAppend, begin, end, first, None);
        run.at(append).session = Some(arrivals[next].1);
        run.at(append).count = records as u32;
        (free, next) = (end + 2 * US, next + records);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Of a broker that works as ours does, every step finds its true parent, clocks a little off or not.
    #[test]
    fn every_step_finds_its_parent(load in loads(), off_ns in -3000i64..=3000, early in any::<bool>()) {
        let mut run = Run::default();
        connects(&mut run, &load);
        publishes(&mut run, &load);
        let (tap, layer) = if early { (500, 900) } else { (900, 500) };
        let (tap, layer) = (run.seen(true, tap * US, 0), run.seen(false, layer * US, off_ns));
        let (trace, joined) = join(&tap, &layer).unwrap();
        prop_assert_eq!(parents(&trace), run.truth());
        prop_assert_eq!(joined.lost_parents, 0);
        prop_assert!(joined.kinds.values().all(|counts| counts.unjoined == 0), "{:?}", joined);
        prop_assert!(trace.spans.iter().all(|span| !span.is_root() || span.kind.is_on_wire()));
        // Times are those of the recordings, from the earlier origin on.
        let origin = trace.meta.origin.monotonic_ns;
        prop_assert_eq!(origin, 1_000_000 + 500 * US);
        for span in &trace.spans {
            let (was, ..) = &run.spans[span.bytes as usize];
            let off = if span.kind.is_on_wire() { 0 } else { off_ns };
            prop_assert_eq!(span.start_ns, (was.start_ns - 500 * US).saturating_add_signed(off));
        }
    }

    /// Whatever two recordings hold: nothing is lost, nothing goes round, and no step begins before its parent by more
    /// than the clocks are off.
    #[test]
    fn any_recordings_join_into_a_forest(
        wire in prop::collection::vec((0usize..8, 0u64..2000, 0u64..900, 0u64..4), 0..30),
        steps in prop::collection::vec((0usize..12, 0u64..2000, prop::option::of(0u64..900), 0u64..4, prop::option::of(0usize..60)), 0..60),
    ) {
        let of = |on_wire: bool, kind: usize| {
            let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.is_on_wire() == on_wire).collect();
            kinds[kind % kinds.len()]
        };
        let tap = wire.iter().zip(0u64..).map(|((kind, start, length, session), id)| Span {
            duration_ns: (length % 3 > 0).then_some(length * US),
            session: Some(*session),
            bytes: id,
            ..Span::new(id, of(true, *kind), start * US)
        });
        let layer = steps.iter().zip(0u64..).map(|((kind, start, length, number, parent), id)| Span {
            duration_ns: length.map(|length| length * US),
            session: (number % 2 == 0).then_some(*number),
            target: (number % 3 == 0).then(|| format!("proposal={number}")),
            bytes: 1000 + id,
            // Some name one that begins before; some name one that was lost.
            parent: parent.filter(|p| steps.get(*p).is_none_or(|p| p.1 < *start)).map(|p| p as u64),
            ..Span::new(id, of(false, *kind), start * US)
        });
        let (tap, layer) = (trace(tap.collect(), 0), trace(layer.collect(), 0));
        let (joined, report) = join(&tap, &layer).unwrap();
        let mut marks: Vec<u64> = joined.spans.iter().map(|span| span.bytes).collect();
        marks.sort();
        let all: Vec<u64> = (0..wire.len() as u64).chain(1000..1000 + steps.len() as u64).collect();
        prop_assert_eq!(marks, all);
        let lost = steps.iter().filter(|(.., parent)| parent.is_some_and(|parent| parent >= steps.len())).count();
        prop_assert_eq!(report.lost_parents, lost as u64);
        prop_assert_eq!(report.kinds.values().map(|c| c.recorded + c.joined + c.unjoined).sum::<u64>(), steps.len() as u64);
        let by_id: HashMap<u64, &Span> = joined.spans.iter().map(|span| (span.id, span)).collect();
        for span in &joined.spans {
            let mut at = span;
            let mut depth = 0;
            while let Some(parent) = at.parent.map(|id| by_id[&id]) {
                prop_assert!(parent.start_ns <= at.start_ns + CLOCK_ERROR_NS);
                (at, depth) = (parent, depth + 1);
                prop_assert!(depth <= joined.spans.len(), "a ring");
            }
        }
    }
}

#[test]
fn calls_at_the_end_of_a_session_belong_to_its_end() {
    let mut run = Run::default();
    let session = Some(9);
    let wire = |run: &mut Run, kind, start, end| {
        let mark = run.add(kind, start * US, end * US, None, None);
        run.at(mark).session = session;
        mark
    };
    let call = |run: &mut Run, start, parent| {
        let mark = run.add(Kind::MetaCall, start * US, (start + 50) * US, parent, None);
        run.at(mark).session = session;
    };
    let first = wire(&mut run, Kind::Connect, 100, 300);
    call(&mut run, 150, Some(first));
    // Nothing asked for this one.
    call(&mut run, 400, None);
    let end = wire(&mut run, Kind::Disconnect, 500, 500);
    call(&mut run, 530, Some(end));
    wire(&mut run, Kind::Connect, 700, 800);
    call(&mut run, 900, None);
    let close = wire(&mut run, Kind::Close, 1000, 1000);
    call(&mut run, 5000, Some(close));
    let (trace, joined) = join(&run.seen(true, 0, 0), &run.seen(false, 0, 0)).unwrap();
    assert_eq!(parents(&trace), run.truth());
    assert_eq!((joined.kinds[&Kind::MetaCall].joined, joined.kinds[&Kind::MetaCall].unjoined), (3, 2));
}

#[test]
fn an_unasked_proposal_or_append_stays_a_root() {
    let mut run = Run::default();
    let raft = run.add(Kind::RaftProposal, 100 * US, 400 * US, None, None);
    run.add(Kind::RaftAppend, 120 * US, 200 * US, Some(raft), None);
    let apply = run.add(Kind::Apply, 220 * US, 300 * US, Some(raft), None);
    // Without names, by time; steps by what they lie in.
    run.add(Kind::SetLastApplied, 240 * US, 280 * US, Some(apply), None);
    let append = run.add(Kind::SegmentAppend, 500 * US, 600 * US, None, None);
    run.at(append).session = Some(5);
    // A leader's own entries are nobody's proposal, even while one waits.
    let waiting = run.add(Kind::RaftProposal, 700 * US, 900 * US, None, None);
    let own = run.add(Kind::Apply, 750 * US, 800 * US, None, None);
    run.add(Kind::Membership, 760 * US, 790 * US, Some(own), Some(own));
    let (trace, joined) = join(&run.seen(true, 0, 0), &run.seen(false, 0, 0)).unwrap();
    assert_eq!(parents(&trace), run.truth());
    let roots: Vec<u64> = trace.spans.iter().filter(|span| span.is_root()).map(|span| span.bytes).collect();
    assert_eq!(roots, [raft, append, waiting]);
    assert_eq!(joined.kinds[&Kind::Apply].unjoined, 1);
}

#[test]
fn files_are_joined_and_the_counts_are_in_the_metadata() {
    let mut run = Run::default();
    let load = Load { connects: vec![(10, 50, 50); 8], batch: 3, publishes: vec![(40, 1); 10], write_us: 80 };
    connects(&mut run, &load);
    publishes(&mut run, &load);
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    let (tap, mut layer) = (run.seen(true, 0, 0), run.seen(false, 0, 0));
    layer.meta.drops = Some(Drops { queue_full: 4, ..Drops::default() });
    // A layer writes spans as they end.
    let mut writer = LiveWriter::create(path("layer"), &layer.meta, LiveOptions::default()).unwrap();
    layer.spans.iter().rev().for_each(|span| writer.push_unordered(span.clone()).unwrap());
    writer.finish(layer.meta.drops.clone().unwrap()).unwrap();
    write_sealed(path("tap"), &tap.meta, &tap.spans).unwrap();
    let (report, joined) = join_files(path("tap"), path("layer"), path("joined")).unwrap();
    let trace = open(path("joined")).unwrap();
    assert_eq!(report.rows as usize, run.spans.len());
    assert_eq!(parents(&trace), run.truth());
    let told = trace.meta.derived.last().unwrap();
    assert!(told.contains("session_process 0 with a recorded parent, 8 joined, 0 without"), "{told}");
    assert_eq!(joined.kinds[&Kind::SessionProcess].joined, 8);
    assert_eq!(trace.meta.drops.as_ref().unwrap().queue_full, 4);
    let wrong: Vec<_> = check(&trace).into_iter().map(|problem| problem.sentence).collect();
    assert!(
        wrong.iter().all(|sentence| sentence.contains("lost 4")
            || sentence.contains("before its CONNECT")
            || sentence.contains("ends after")),
        "{wrong:?}"
    );
}

#[test]
fn recordings_of_different_brokers_are_refused() {
    let run = Run::default();
    let (tap, layer) = (run.seen(true, 0, 0), run.seen(false, 0, 0));
    let refused = |tap: &Trace, layer: &Trace| join(tap, layer).unwrap_err().to_string();
    let mut other = layer.clone();
    other.meta.redaction.key_id = "deadbeef".into();
    assert!(refused(&tap, &other).contains("record both with the same --key"));
    let mut other = layer.clone();
    other.meta.origin.realtime_ns += 3_600_000_000_000;
    assert!(refused(&tap, &other).contains("different hosts or boots"));
    let mut other = layer.clone();
    other.spans.push(Span::new(0, Kind::Publish, 0));
    assert!(refused(&tap, &other).contains("give the tap's recording first"));
    let mut other = tap.clone();
    other.meta.origin = Clocks::default();
    assert!(refused(&other, &layer).contains("has no clock"));
}
