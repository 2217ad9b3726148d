//! Facts, invariants, and traces made from traces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use regauge_traces::ops::{Problem, Scale, Slice, check, info, scale, slice};
use regauge_traces::redact::parse_subscriptions;
use regauge_traces::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};

const S: u64 = 1_000_000_000;

fn fleet() -> Trace {
    synth(&SynthParams { duration_s: 10.0, rate_per_s: 200.0, clients: 40, ..SynthParams::new(Profile::Production) })
        .unwrap()
}

fn wire(id: u64, kind: Kind, at: u64, connection: u32) -> Span {
    Span { session: Some(u64::from(connection) + 100), connection: Some(connection), ..Span::new(id, kind, at) }
}

fn publish(id: u64, at: u64, connection: u32, target: &str) -> Span {
    Span { target: Some(target.into()), ..wire(id, Kind::Publish, at, connection) }
}

fn trace(spans: Vec<Span>) -> Trace {
    Trace { spans, ..synth(&SynthParams { clients: 1, ..SynthParams::new(Profile::ConnectBurst) }).unwrap() }
}

fn long(mut trace: Trace) -> Trace {
    trace.meta.end = None;
    trace
}

fn sentences(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|p| p.sentence.as_str()).collect()
}

#[test]
fn info_counts_what_is_there() {
    let mut step = Span::new(2, Kind::Apply, 30);
    step.parent = Some(1);
    step.duration_ns = Some(500);
    let mut delivery = wire(3, Kind::Deliver, 40, 1);
    delivery.target = Some("t".into());
    let spans = vec![
        Span { bytes: 20, ..wire(0, Kind::Connect, 10, 0) },
        Span { bytes: 30, ..publish(1, 20, 0, "t") },
        step,
        delivery,
    ];
    let facts = info(&trace(spans));
    assert_eq!((facts.roots, facts.spans, facts.sessions, facts.connections, facts.targets), (2, 4, 2, 2, 1));
    let kinds = ["apply", "connect", "deliver", "publish"].map(|kind| (kind.to_owned(), 1));
    assert_eq!(facts.kinds, BTreeMap::from(kinds));
    assert_eq!((facts.first_ns, facts.last_ns, facts.duration_ns, facts.bytes), (10, 530, 520, 50));
    assert_eq!((facts.dropped, facts.sealed), (Some(0), false));
    let json = serde_json::to_value(&facts).unwrap();
    for key in
        ["roots", "spans", "kinds", "sessions", "duration_ns", "dropped", "sealed", "schema_version", "workload_hash"]
    {
        assert!(json.get(key).is_some(), "{key}");
    }
    let empty = info(&trace(Vec::new()));
    assert_eq!((empty.duration_ns, empty.bytes_per_row, empty.rate_per_s), (0, 0.0, 0.0));
}

#[test]
fn the_hash_names_what_was_asked_not_how_it_went() {
    let spans = vec![wire(0, Kind::Connect, 10, 0), publish(1, 20, 0, "t")];
    let name = workload_hash(&spans);
    assert_eq!(name.len(), 64);
    let same = |change: fn(&mut Vec<Span>)| {
        let mut changed = spans.clone();
        change(&mut changed);
        workload_hash(&changed) == name
    };
    assert!(same(|s| s[1].duration_ns = Some(5)));
    assert!(same(|s| s[1].status = 5));
    assert!(same(|s| s[1].thread = 5));
    assert!(same(|s| s[1].flags |= flags::UNFINISHED));
    assert!(same(|s| s.reverse()), "the order of rows is not the workload");
    assert!(same(|s| s.push(Span { parent: Some(1), ..Span::new(9, Kind::Apply, 25) })));
    assert!(same(|s| s.push(wire(9, Kind::Deliver, 25, 1))));
    assert!(!same(|s| s[1].start_ns = 21));
    assert!(!same(|s| s[1].target = Some("u".into())));
    assert!(!same(|s| s[1].target = None));
    assert!(!same(|s| s[1].qos = 1));
    assert!(!same(|s| s[1].bytes = 1));
    assert!(!same(|s| s[1].count = 2));
    assert!(!same(|s| s[1].flags |= flags::RETAIN));
    assert!(!same(|s| s[1].session = Some(7)));
    assert!(!same(|s| s[1].connection = Some(7)));
    assert!(!same(|s| s[0].keep_alive_s = 7));
    assert!(!same(|s| s[0].expiry_s = 7));
    assert!(!same(|s| s.truncate(1)));
}

#[test]
fn check_finds_nothing_in_sound_traces() {
    for profile in Profile::ALL {
        let trace = synth(&SynthParams { clients: 40, ..small(profile) }).unwrap();
        assert_eq!(check(&trace), [], "{profile}");
    }
}

#[test]
fn check_says_what_is_wrong() {
    let sound = [wire(0, Kind::Connect, 10, 0), publish(1, 20, 0, "t")];
    let with = |more: &[Span]| {
        let spans: Vec<Span> = sound.iter().chain(more).cloned().collect();
        let trace = long(trace(spans));
        sentences(&check(&trace)).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(with(&[]).is_empty());
    let parent = |id: u64, parent: u64, at: u64| Span { parent: Some(parent), ..Span::new(id, Kind::Apply, at) };
    assert_eq!(with(&[publish(1, 30, 0, "t")]), ["span 1 does not have a greater id than the one before it"]);
    assert_eq!(with(&[parent(2, 77, 30)]), ["span 2 names a parent, 77, that is not there"]);
    assert_eq!(with(&[parent(2, 1, 5)]), ["span 2 starts before its parent 1"]);
    assert_eq!(with(&[parent(2, 2, 5)]), ["span 2 is its own parent"]);
    assert_eq!(with(&[Span::new(2, Kind::Apply, 30)]), ["span 2 is a step (apply) without a parent"]);
    assert_eq!(with(&[publish(2, 30, 5, "t")]), ["span 2 (publish) uses connection 5 before its CONNECT"]);
    assert_eq!(with(&[wire(2, Kind::Connect, 30, 0)]), ["connection 0 has a second CONNECT, span 2"]);
    assert_eq!(
        with(&[wire(2, Kind::Disconnect, 30, 0), publish(3, 40, 0, "t"), wire(4, Kind::Close, 50, 0)]),
        ["span 3 (publish) comes after the end of connection 0"]
    );
    assert_eq!(with(&[Span { qos: 3, ..publish(2, 30, 0, "t") }]), ["span 2 has QoS 3"]);
    assert_eq!(with(&[wire(2, Kind::Publish, 30, 0)]), ["span 2 (publish) has no target"]);
    assert_eq!(with(&[Span { connection: None, ..publish(2, 30, 0, "t") }]), ["span 2 (publish) names no connection"]);
    assert_eq!(
        with(&[Span { session: Some(1), ..publish(2, 30, 0, "t") }]),
        ["span 2 has another session than the CONNECT of connection 0"]
    );
    let subscribe = |target: &str| Span { target: Some(target.into()), ..wire(2, Kind::Subscribe, 30, 0) };
    assert_eq!(with(&[subscribe("a")]), ["span 2 has an unreadable target: `a` is not of the form filter@options"]);
    assert_eq!(with(&[subscribe("a@1,b@0")]), ["span 2 counts 1 filters and names 2"]);

    let mut late = trace(sound.to_vec());
    late.meta.end = Some(Clocks { monotonic_ns: 15, realtime_ns: 15 });
    assert_eq!(sentences(&check(&late)), ["span 1 ends after the recording did"]);
    let mut lossy = long(trace(sound.to_vec()));
    lossy.meta.drops = Some(Drops { queue_full: 4, ..Drops::default() });
    lossy.meta.finished = false;
    assert_eq!(
        sentences(&check(&lossy)),
        ["the recording was not ended in an orderly way", "the recording lost 4 spans or connections"]
    );
    // Many of a sort are one problem.
    let many: Vec<Span> = (2..50).map(|id| Span { qos: 9, ..publish(id, 30, 0, "t") }).collect();
    let problems = check(&long(trace(sound.iter().cloned().chain(many).collect())));
    assert_eq!((problems.len(), problems[0].spans, problems[0].id), (1, 48, Some(2)));
}

#[test]
fn a_slice_can_be_replayed() {
    let whole = fleet();
    let part = slice(&whole, &Slice { from_ns: Some(5 * S), to_ns: Some(7 * S), ..Slice::default() }).unwrap();
    assert_eq!(check(&long(part.clone())), []);
    let in_range = whole.spans.iter().filter(|s| (5 * S..7 * S).contains(&s.start_ns)).count();
    let moved = part.spans.len() - in_range;
    assert!(moved > 20, "open connections come along: {moved}");
    assert!(part.spans[..moved].iter().all(|s| s.start_ns == 0 && matches!(s.kind, Kind::Connect | Kind::Subscribe)));
    assert!(part.spans.iter().all(|s| s.start_ns < 2 * S));
    assert_eq!(part.meta.origin.monotonic_ns, whole.meta.origin.monotonic_ns + 5 * S);
    assert_eq!(part.meta.derived, ["slice from 5000000000 ns to 7000000000 ns"]);
    // What is in range is what was, moved.
    let publishes = |trace: &Trace, from: u64, to: u64, shift: u64| -> Vec<(u64, Option<u64>, Option<String>)> {
        let chosen = trace.spans.iter().filter(|s| s.kind == Kind::Publish && (from..to).contains(&s.start_ns));
        chosen.map(|s| (s.start_ns - shift, s.session, s.target.clone())).collect()
    };
    assert_eq!(publishes(&part, 0, 2 * S, 0), publishes(&whole, 5 * S, 7 * S, 5 * S));
}

#[test]
fn a_slice_keeps_order_steps_and_only_open_connections() {
    let mut step = Span::new(6, Kind::Apply, 105);
    step.parent = Some(5);
    let mut old_step = Span::new(7, Kind::Apply, 12);
    old_step.parent = Some(0);
    let subscribe = Span { target: Some("a@1".into()), ..wire(2, Kind::Subscribe, 20, 0) };
    let spans = vec![
        wire(0, Kind::Connect, 10, 0),
        wire(1, Kind::Connect, 15, 1),
        subscribe,
        wire(3, Kind::Close, 30, 1),
        wire(4, Kind::Connect, 40, 2),
        publish(5, 100, 0, "t"),
        step,
        old_step,
    ];
    let part = slice(&trace(spans.clone()), &Slice { from_ns: Some(50), ..Slice::default() }).unwrap();
    let seen: Vec<_> = part.spans.iter().map(|s| (s.id, s.parent, s.kind, s.start_ns, s.connection)).collect();
    assert_eq!(
        seen,
        [
            (0, None, Kind::Connect, 0, Some(0)),
            (1, None, Kind::Subscribe, 0, Some(0)),
            (2, None, Kind::Connect, 0, Some(2)),
            (3, Some(0), Kind::Apply, 2, None),
            (4, None, Kind::Publish, 50, Some(0)),
            (5, Some(4), Kind::Apply, 55, None),
        ]
    );
    // Only some kinds: the connection comes along, silent ones do not.
    let kinds = Slice { from_ns: Some(50), kinds: vec![Kind::Publish], ..Slice::default() };
    let part = slice(&trace(spans.clone()), &kinds).unwrap();
    let seen: Vec<_> = part.spans.iter().filter(|s| s.parent.is_none()).map(|s| (s.kind, s.connection)).collect();
    assert_eq!(seen, [(Kind::Connect, Some(0)), (Kind::Subscribe, Some(0)), (Kind::Publish, Some(0))]);
    let sessions = Slice { sessions: vec![102], ..Slice::default() };
    assert_eq!(slice(&trace(spans.clone()), &sessions).unwrap().spans.len(), 1);
    for (what, sentence) in [
        (
            Slice { from_ns: Some(5), to_ns: Some(5), ..Slice::default() },
            "the slice from 5 ns to 5 ns is empty: give --from < --to",
        ),
        (Slice { sessions: vec![1], ..Slice::default() }, "the slice keeps no span: choose a wider range"),
    ] {
        assert_eq!(slice(&trace(spans.clone()), &what).unwrap_err().to_string(), sentence);
    }
}

#[test]
fn speed_divides_arrivals() {
    let whole = fleet();
    let fast = scale(&whole, Scale::Speed(2.0)).unwrap();
    assert_eq!(fast.spans.len(), whole.spans.len());
    assert!(fast.spans.iter().zip(&whole.spans).all(|(f, w)| f.start_ns.abs_diff(w.start_ns / 2) <= 1));
    assert_eq!(check(&fast), []);
    assert!(fast.spans.iter().all(|s| s.duration_ns.is_none()));
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(scale(&whole, Scale::Speed(wrong)), Err(TraceError::Parameter(_))));
    }
}

#[test]
fn sessions_are_cloned_whole() {
    let whole = fleet();
    let three = scale(&whole, Scale::Sessions { copies: 3, seed: 5 }).unwrap();
    assert_eq!(three.spans.len(), 3 * whole.spans.len());
    assert_eq!(check(&three), []);
    let (before, after) = (info(&whole), info(&three));
    assert_eq!((after.sessions, after.connections), (3 * before.sessions, 3 * before.connections));
    assert_eq!(after.targets, before.targets, "clones publish to the same topics");
    let one: HashSet<_> =
        scale(&whole, Scale::Sessions { copies: 1, seed: 5 }).unwrap().spans.into_iter().map(key).collect();
    assert_eq!(one, whole.spans.iter().cloned().map(key).collect(), "the first copy is the original");
    // Within a clone nothing moves against anything else, and by less than the mean gap as a whole.
    let gap = before.duration_ns / before.roots;
    let times = |trace: &Trace| {
        let mut times: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        trace.spans.iter().for_each(|s| times.entry(s.connection.unwrap()).or_default().push(s.start_ns));
        times
    };
    let (old, new) = (times(&whole), times(&three));
    let mut offsets = BTreeSet::new();
    for (connection, starts) in &new {
        let original = &old[&(connection % u32::try_from(before.connections).unwrap())];
        let offset = starts[0] - original[0];
        assert!(offset < gap || offset == 0);
        assert!(starts.iter().zip(original).all(|(new, old)| new - old == offset));
        offsets.insert(offset);
    }
    assert!(offsets.len() > 10, "clones are spread: {offsets:?}");
    assert_eq!(scale(&whole, Scale::Sessions { copies: 3, seed: 5 }).unwrap(), three);
    assert_ne!(scale(&whole, Scale::Sessions { copies: 3, seed: 6 }).unwrap().spans, three.spans);
    assert!(scale(&whole, Scale::Sessions { copies: 0, seed: 5 }).is_err());
    assert!(scale(&whole, Scale::Sessions { copies: u32::MAX, seed: 5 }).is_err());
}

fn key(span: Span) -> (u64, &'static str, Option<u64>, Option<u32>, Option<String>) {
    (span.start_ns, span.kind.name(), span.session, span.connection, span.target)
}

#[test]
fn partitions_are_spread_and_still_heard() {
    let connect = wire(0, Kind::Connect, 0, 0);
    let subscribe =
        Span { target: Some("a/b@1,a/+@0,+/b@2".into()), count: 3, bytes: 40, ..wire(1, Kind::Subscribe, 1, 0) };
    let mut spans = vec![connect, subscribe];
    spans.extend((2..8).map(|id| publish(id, id, 0, "a/b")));
    let spread = scale(&trace(spans), Scale::Partitions(3)).unwrap();
    let topics: Vec<&str> = spread.spans[2..].iter().map(|s| s.target.as_deref().unwrap()).collect();
    assert_eq!(topics[0], "a/b");
    assert_eq!(topics[..3], topics[3..]);
    assert_eq!(topics.iter().collect::<HashSet<_>>().len(), 3);
    let widened = &spread.spans[1];
    let filters = parse_subscriptions(widened.target.as_deref().unwrap()).unwrap();
    assert_eq!((filters.len(), widened.count), (7, 7));
    for topic in &topics[..3] {
        let last = topic.rsplit('/').next().unwrap();
        for filter in [topic.to_string(), format!("+/{last}"), "a/+".to_owned()] {
            assert!(filters.iter().any(|(f, _)| *f == filter), "{filter} in {filters:?}");
        }
    }
    // Two new `a/…` (2 + 14 + 1 bytes each) and two new `+/…` of the same length.
    assert_eq!(widened.bytes, 40 + 4 * (2 + 14 + 1));
    assert_eq!(info(&scale(&fleet(), Scale::Partitions(1)).unwrap()).targets, info(&fleet()).targets);
    assert!(scale(&fleet(), Scale::Partitions(0)).is_err());
}

fn small(profile: Profile) -> SynthParams {
    let params = SynthParams::new(profile);
    match profile {
        Profile::ConnectBurst | Profile::MqttxConn => params,
        _ => SynthParams { duration_s: 5.0, scale: 10.0, ..params },
    }
}

#[test]
fn profiles_do_what_they_say() {
    let facts = |params: SynthParams| info(&synth(&params).unwrap());
    let conn = synth(&SynthParams::new(Profile::MqttxConn)).unwrap();
    assert_eq!(conn.spans.len(), 1000);
    assert!(
        conn.spans.iter().zip(0..).all(|(s, n)| s.start_ns == n * 10_000_000 && s.has(flags::V5 | flags::CLEAN_START))
    );
    assert_eq!(info(&conn).sessions, 1000);
    let burst = facts(SynthParams::new(Profile::ConnectBurst));
    assert_eq!((burst.sessions, burst.duration_ns), (1000, 0));
    let iggy = facts(SynthParams { scale: 50.0, ..SynthParams::new(Profile::Iggy8x8) });
    // 10,000 requests per producer at scale 1.
    assert!((iggy.kinds["publish"] as i64 - 80_000 / 50).abs() <= 8, "{iggy:?}");
    assert_eq!((iggy.sessions, iggy.targets), (8, 8));
    let publish = synth(&SynthParams::new(Profile::PublishQos1)).unwrap();
    let chosen: Vec<_> = publish.spans.iter().filter(|s| s.kind == Kind::Publish).collect();
    // 27 s at 1000 per second; six standard deviations of a Poisson count.
    assert!((chosen.len() as f64 - 27_000.0).abs() < 6.0 * 27_000f64.sqrt(), "{}", chosen.len());
    assert!(chosen.iter().all(|s| s.qos == 1 && s.bytes > 256 && s.bytes < 300));
    let production = synth(&SynthParams::new(Profile::Production)).unwrap();
    let count = |test: &dyn Fn(&Span) -> bool| production.spans.iter().filter(|s| test(s)).count();
    for kind in [Kind::Connect, Kind::Publish, Kind::Subscribe, Kind::Ping, Kind::Disconnect, Kind::Close] {
        assert!(count(&|s| s.kind == kind) >= 20, "{kind}");
    }
    for qos in 0..3 {
        assert!(count(&|s| s.kind == Kind::Publish && s.qos == qos) > 100);
    }
    for bits in [flags::V5, flags::CLEAN_START, flags::WILL, flags::USERNAME] {
        assert!(count(&|s| s.kind == Kind::Connect && s.has(bits)) > 20);
        assert!(count(&|s| s.kind == Kind::Connect && !s.has(bits)) > 20);
    }
    assert!(info(&production).connections > info(&production).sessions, "some reconnect");
}

#[test]
fn parameters_out_of_range_are_refused() {
    let base = SynthParams::new(Profile::Production);
    for params in [
        SynthParams { clients: 0, ..base },
        SynthParams { scale: 0.0, ..base },
        SynthParams { rate_per_s: f64::NAN, ..base },
        SynthParams { duration_s: -1.0, ..base },
        SynthParams { rate_per_s: 1e9, duration_s: 1e9, ..base },
        SynthParams { scale: 2.0, ..SynthParams::new(Profile::ConnectBurst) },
    ] {
        assert!(matches!(synth(&params), Err(TraceError::Parameter(_))), "{params:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_seed_is_the_trace(seed in any::<u64>(), which in 0..Profile::ALL.len(), clients in 1u32..60) {
        let params = SynthParams { seed, clients, ..small(Profile::ALL[which]) };
        let first = synth(&params).unwrap();
        prop_assert_eq!(&synth(&params).unwrap(), &first);
        prop_assert_eq!(check(&first), []);
        let other = synth(&SynthParams { seed: seed ^ 1, ..params }).unwrap();
        prop_assert_ne!(workload_hash(&other.spans), workload_hash(&first.spans));
    }

    #[test]
    fn slices_of_anything_are_sound(from in 0u64..5, length in 1u64..5, seed in any::<u64>()) {
        let whole = synth(&SynthParams { seed, ..small(Profile::Production) }).unwrap();
        let what = Slice { from_ns: Some(from * S), to_ns: Some((from + length) * S), ..Slice::default() };
        let part = slice(&whole, &what).unwrap();
        prop_assert_eq!(check(&long(part)), []);
    }
}

#[test]
fn proposals_have_the_sizes_of_their_sessions_and_arrive_at_their_rate() {
    let params =
        SynthParams { duration_s: 60.0, rate_per_s: 400.0, scale: 2.0, ..SynthParams::new(Profile::RaftApply) };
    let made = synth(&params).unwrap();
    assert_eq!(check(&made), []);
    assert!(made.spans.iter().all(|span| span.is_root() && span.kind == Kind::RaftProposal && span.session.is_none()));
    let many = made.spans.len() as f64;
    assert!((many - 12_000.0).abs() < 600.0, "{many} proposals at 200/s in 60 s");
    let counts: BTreeSet<u32> = made.spans.iter().map(|span| span.count).collect();
    assert_eq!((counts.first(), counts.last()), (Some(&1), Some(&100)));
    for span in &made.spans {
        let bytes = 20 + u64::from(span.count) * 100..=20 + u64::from(span.count) * 130;
        assert!(bytes.contains(&span.bytes), "{} sessions in {} bytes", span.count, span.bytes);
    }
    let alone = made.spans.iter().filter(|span| span.count == 1).count() as f64 / many;
    assert!((0.1..0.2).contains(&alone), "a share of {alone} opens one session: ln 2 of ln 101 should");
    // Open loop: gaps are of all lengths, also shorter than any raft round.
    let gaps: Vec<u64> = made.spans.windows(2).map(|two| two[1].start_ns - two[0].start_ns).collect();
    assert!(gaps.iter().any(|gap| *gap < 100_000) && gaps.iter().any(|gap| *gap > 20_000_000));

    let single = synth(&SynthParams { batch: (1, 1), session_bytes: 100, duration_s: 5.0, ..params }).unwrap();
    assert!(single.spans.iter().all(|span| span.count == 1 && (97..=120).contains(&span.bytes)));
    assert_eq!(single.meta.synth.unwrap().parameters["batch"], serde_json::json!([1, 1]));
    for bad in [
        SynthParams { batch: (0, 5), ..params },
        SynthParams { batch: (6, 5), ..params },
        SynthParams { batch: (1, 10_001), ..params },
        SynthParams { session_bytes: 39, ..params },
    ] {
        assert!(matches!(synth(&bad), Err(TraceError::Parameter(_))), "{bad:?}");
    }
}
