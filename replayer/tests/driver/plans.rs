//! From spans to plans.

use crate::spans::{MS, connect, number, plan, publish, root, subscribe, v5};
use proptest::prelude::*;
use regauge_replayer::plan::{Plan, PlanError, PlanOptions, Reply};
use regauge_traces::{Kind, Span, flags};

fn small() -> Vec<Span> {
    let mut spans = vec![connect(0, 5 * MS), subscribe(0, 6 * MS)];
    for at in 0..20 {
        spans.push(publish(0, (7 + at) * MS, (at % 3) as u8, 100 + at));
    }
    spans.push(root(Kind::Ping, 0, 30 * MS, 2));
    spans.push(root(Kind::Disconnect, 0, 31 * MS, 2));
    number(&mut spans);
    spans
}

fn wire(plan: &Plan) -> Vec<Vec<u8>> {
    plan.ops.iter().map(|op| plan.packet(op)).collect()
}

#[test]
fn same_trace_same_plan() {
    let spans = small();
    let plan = Plan::build(&spans, &PlanOptions::default()).unwrap();
    let mut shuffled = spans.clone();
    shuffled.reverse();
    let again = Plan::build(&shuffled, &PlanOptions::default()).unwrap();
    assert_eq!(plan, again);
    assert_eq!(plan.hash().len(), 64);

    let faster = Plan::build(&spans, &PlanOptions { speed: 2.0 }).unwrap();
    assert_ne!(plan.hash(), faster.hash());
    assert_eq!(wire(&plan), wire(&faster));
    assert_eq!(faster.duration_ns() * 2, plan.duration_ns());

    let mut longer = spans.clone();
    longer[4].bytes += 1;
    assert_ne!(plan.hash(), Plan::build(&longer, &PlanOptions::default()).unwrap().hash());
}

#[test]
fn another_redaction_key_gives_the_same_plan() {
    let spans = small();
    let mut other = spans.clone();
    for span in &mut other {
        span.session = span.session.map(|session| session ^ 0x5555);
        span.target = span.target.as_ref().map(|t| t.replace("somewhere", "elsewhere99").replace("deep", "x"));
    }
    let options = PlanOptions::default();
    assert_eq!(Plan::build(&spans, &options).unwrap(), Plan::build(&other, &options).unwrap());
}

#[test]
fn every_packet_keeps_its_length_and_its_place() {
    let spans = small();
    let plan = Plan::build(&spans, &PlanOptions::default()).unwrap();
    assert_eq!(plan.resized, 0);
    assert_eq!(plan.requests(), spans.len() as u64);
    for (op, span) in plan.ops.iter().zip(&spans) {
        assert_eq!(op.id, span.id);
        assert_eq!(op.planned_ns, span.start_ns - 5 * MS);
        assert_eq!(plan.packet(op).len() as u64, span.bytes, "{op:?}");
    }
    let subscription = plan.packet(&plan.ops[1]);
    let publish = plan.packet(&plan.ops[2]);
    // The filter that was subscribed to is the topic that is published to.
    assert_eq!(subscription[4..6], publish[2..4]);
    let topic = 2 + usize::from(subscription[5]);
    assert_eq!(subscription[6..6 + topic - 2], publish[4..4 + topic - 2]);
}

#[test]
fn packet_ids_run_on_through_a_session_and_wrap() {
    let mut spans = vec![connect(0, 0)];
    spans.extend((0..65_540).map(|at| publish(0, at + 1, 1, 60)));
    spans.push(root(Kind::Disconnect, 0, 70_000, 2));
    let mut next = connect(1, 80_000);
    next.session = spans[0].session;
    spans.push(next);
    let mut publish = publish(1, 80_001, 2, 60);
    publish.session = spans[0].session;
    spans.push(publish);
    let plan = plan(spans);
    let ids: Vec<u16> = plan.ops.iter().filter(|op| op.reply == Reply::Puback).map(|op| op.packet_id).collect();
    assert_eq!((ids[0], ids[65_534], ids[65_535], ids[65_539]), (1, 65_535, 1, 5));
    assert_eq!(plan.ops.last().unwrap().packet_id, 6);
    assert_eq!(plan.connections[1].first_packet_id, 6);
    assert_eq!(plan.sessions, 1);
}

#[test]
fn connections_of_a_session_follow_each_other_unless_they_overlapped() {
    let same = |mut span: Span| {
        span.session = Some(7);
        span
    };
    let plan = plan(vec![
        same(connect(0, 0)),
        same(root(Kind::Close, 0, 10, 0)),
        same(connect(1, 20)),
        same(connect(2, 30)), // takes over
        same(root(Kind::Close, 1, 31, 0)),
        same(root(Kind::Disconnect, 2, 40, 2)),
        same(connect(3, 40)),
    ]);
    let after: Vec<Option<u32>> = plan.connections.iter().map(|connection| connection.after).collect();
    assert_eq!(after, [None, Some(0), None, Some(2)]);
}

#[test]
fn a_connection_without_connect_gets_one_that_is_no_request() {
    let plan = plan(vec![publish(3, 100, 1, 60), publish(3, 200, 1, 60)]);
    assert_eq!((plan.setup, plan.requests(), plan.ops.len()), (1, 2, 3));
    assert!(plan.ops[0].setup);
    assert_eq!(plan.ops[0].planned_ns, 0);
    assert_eq!(plan.packet(&plan.ops[0])[0], 0x10);
}

#[test]
fn what_follows_the_end_of_a_connection_is_left_out_and_counted() {
    let plan = plan(vec![
        connect(0, 0),
        root(Kind::Disconnect, 0, 10, 2),
        root(Kind::Close, 0, 11, 0),
        root(Kind::Ping, 0, 12, 2),
    ]);
    assert_eq!((plan.requests(), plan.skipped), (2, 1));
}

#[test]
fn packets_of_one_instant_are_in_an_order_that_works() {
    let mut end = root(Kind::Disconnect, 0, 5, 2);
    end.id = 1;
    let mut middle = publish(0, 5, 0, 60);
    middle.id = 2;
    let mut first = connect(0, 5);
    first.id = 3;
    let plan = Plan::build(&[end, middle, first], &PlanOptions::default()).unwrap();
    let kinds: Vec<Kind> = plan.ops.iter().map(|op| op.kind).collect();
    assert_eq!(kinds, [Kind::Connect, Kind::Publish, Kind::Disconnect]);
}

#[test]
fn segment_appends_become_publishes() {
    let mut append = Span::new(1, Kind::SegmentAppend, 0);
    append.bytes = 250_000;
    append.target = Some("stream/3".to_owned());
    let plan = plan(vec![append]);
    let op = plan.ops[1];
    assert_eq!((op.reply, op.bytes(), op.kind), (Reply::Puback, 250_000, Kind::SegmentAppend));
}

#[test]
fn what_cannot_be_replayed_is_named() {
    let build = |spans: &[Span]| Plan::build(spans, &PlanOptions::default()).unwrap_err();
    assert!(matches!(build(&[]), PlanError::Empty));
    let steps = [Span { parent: Some(9), ..Span::new(1, Kind::Apply, 0) }];
    assert!(matches!(build(&steps), PlanError::Empty));

    let read = build(&[Span::new(1, Kind::RaftProposal, 0), Span::new(2, Kind::SegmentRead, 0)]).to_string();
    assert!(read.contains("(1 × segment_read)"), "{read}");

    assert!(matches!(build(&[publish(0, 0, 0, 1 << 40)]), PlanError::TooLong { .. }));

    let mut bad = subscribe(0, 0);
    bad.target = Some("a@1,b@x".to_owned());
    assert!(build(&[bad]).to_string().contains("`x`"));

    for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = Plan::build(&small(), &PlanOptions { speed }).unwrap_err();
        assert!(matches!(error, PlanError::Speed(_)), "{error}");
    }
}

#[test]
fn the_most_connections_at_once() {
    let spans = vec![
        connect(0, 0),
        connect(1, 1),
        root(Kind::Disconnect, 0, 2, 2),
        connect(2, 3),
        connect(3, 4),
        root(Kind::Close, 1, 5, 0),
    ];
    assert_eq!(plan(spans).connections_at_once(), 3);
}

/// Any trace that can be written down: whatever kinds in whatever order.
fn any_span() -> impl Strategy<Value = Span> {
    let kinds = [
        Kind::Connect,
        Kind::Publish,
        Kind::Subscribe,
        Kind::Unsubscribe,
        Kind::Ping,
        Kind::Disconnect,
        Kind::Close,
        Kind::SegmentAppend,
    ];
    let target = proptest::option::of("[$a-c+#/]{0,8}(,[ab/]{1,4})?");
    let who = (proptest::option::of(0_u64..4), proptest::option::of(0_u32..6));
    (prop::sample::select(kinds.to_vec()), 0_u64..500, who, target, 0_u64..5000, any::<u32>(), 0_u8..5).prop_map(
        |(kind, start_ns, (session, connection), target, bytes, flags, qos)| {
            let mut span = Span::new(0, kind, start_ns);
            (span.session, span.connection, span.target) = (session, connection, target);
            (span.bytes, span.flags, span.qos) = (bytes, flags, qos);
            span
        },
    )
}

proptest! {
    #[test]
    fn any_roots_give_a_sound_plan(mut spans in prop::collection::vec(any_span(), 1..60), speed in 0.01_f64..100.0) {
        number(&mut spans);
        let plan = Plan::build(&spans, &PlanOptions { speed }).unwrap();
        prop_assert!(plan.requests() + plan.skipped <= spans.len() as u64);
        prop_assert!(plan.ops.is_sorted_by_key(|op| op.planned_ns));
        let mut met: Vec<u32> = vec![];
        let mut resized = 0;
        for (index, connection) in plan.connections.iter().enumerate() {
            prop_assert!(connection.ops.is_sorted());
            prop_assert_eq!(plan.ops[connection.ops[0] as usize].kind, Kind::Connect);
            prop_assert!(connection.after.is_none_or(|after| (after as usize) < index));
            met.extend(&connection.ops);
        }
        met.sort_unstable();
        prop_assert_eq!(met, (0..plan.ops.len() as u32).collect::<Vec<_>>());
        for op in plan.ops.iter().filter(|op| !op.setup) {
            prop_assert_eq!(plan.packet(op).len() as u64, op.bytes());
            resized += u64::from(op.kind != Kind::Close && op.bytes() != spans[op.id as usize - 1].bytes);
        }
        prop_assert_eq!(plan.resized, resized);
    }
}

#[test]
fn mqtt_5_is_kept() {
    let mut spans = v5(vec![connect(0, 0), publish(0, 1, 1, 60)]);
    spans[0].expiry_s = 77;
    spans[0].bytes = 40;
    spans[0].flags |= flags::USERNAME | flags::PASSWORD;
    let plan = plan(spans);
    let packet = plan.packet(&plan.ops[0]);
    assert_eq!(packet.len(), 40);
    assert_eq!(packet[8], 5);
    assert_eq!(packet[9], 0b1100_0010);
    assert_eq!(packet[12..18], [5, 0x11, 0, 0, 0, 77]);
}
