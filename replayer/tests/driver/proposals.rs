//! Raft proposals: planned times, pipelining, limits, leave-taking, and errors that are never a latency.

use crate::meta::{Answer, Limits, Meta, framed};
use crate::server::{Server, pause};
use crate::spans::{MS, connect, number, plan, publish};
use regauge_replayer::drive::poll::monotonic_ns;
use regauge_replayer::drive::{DriveError, DriveOptions, Outcome, Target, run};
use regauge_replayer::plan::{PROPOSAL_CHANNELS, Plan, PlanError, PlanOptions, Reply};
use regauge_runtimes::meta::proto;
use regauge_traces::study::sample_flags;
use regauge_traces::{Kind, Span};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn propose(start_ns: u64, bytes: u64, count: u32) -> Span {
    let mut span = Span::new(0, Kind::RaftProposal, start_ns);
    (span.bytes, span.count) = (bytes, count);
    span
}

/// One proposal every millisecond.
fn steady(many: u64) -> Plan {
    plan((0..many).map(|at| propose(at * MS, 150 + at % 7 * 900, 1 + at as u32 % 5)).collect())
}

fn nobody() -> std::net::SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

fn drive(plan: &Plan, meta: &Meta) -> Outcome {
    run(plan, Target { mqtt: nobody(), meta: Some(meta.address) }, &DriveOptions::default()).unwrap()
}

#[test]
fn each_proposal_arrives_as_planned_on_the_channels_in_turn() {
    let meta = Meta::start(|_| Answer::Right);
    let plan = steady(40);
    let outcome = drive(&plan, &meta);
    assert_eq!((outcome.record.errors, outcome.record.requests), (0, 40), "{:?}", outcome.record);
    let mut seen = meta.seen();
    seen.sort_by_key(|asked| asked.request.id);
    let mut channels = vec![None; PROPOSAL_CHANNELS as usize];
    for (at, (asked, op)) in seen.iter().zip(&plan.ops).enumerate() {
        assert_eq!((asked.request.id, asked.path.as_str()), (op.id, "/regauge.meta.v1.Meta/Propose"));
        assert_eq!(asked.request.calls.len(), 1 + at % 5);
        assert_eq!(plan.message(op, asked.request.caller)[5..], prost::Message::encode_to_vec(&asked.request));
        let channel = channels[at % PROPOSAL_CHANNELS as usize].get_or_insert(asked.connection);
        assert_eq!(*channel, asked.connection);
    }
    assert!(outcome.rows.iter().all(|row| row.step == "raft_proposal" && row.latency_ns.is_some()));
    assert!(outcome.rows.iter().all(|row| row.sent_offset.is_none() && row.driver_lag_ns.is_some()));
    let opened: Vec<(u32, u64)> =
        outcome.connections.iter().map(|opened| (opened.connection, opened.opened_ns)).collect();
    assert_eq!(opened, [(0, 0), (1, 0), (2, 0), (3, 0)]);
}

/// A server that is driven twice must not answer what it remembers of the first time.
#[test]
fn each_run_proposes_as_a_caller_of_its_own() {
    let meta = Meta::start(|_| Answer::Right);
    let plan = steady(8);
    let callers = |_| {
        let before = meta.seen().len();
        assert_eq!(drive(&plan, &meta).record.errors, 0);
        let mut callers: Vec<u64> = meta.seen()[before..].iter().map(|asked| asked.request.caller).collect();
        callers.dedup();
        callers
    };
    let runs: Vec<Vec<u64>> = (0..2).map(callers).collect();
    assert!(runs.iter().all(|callers| callers.len() == 1 && callers[0] != 0), "{runs:?}");
    assert_ne!(runs[0], runs[1]);
    assert_eq!(plan.hash(), steady(8).hash());
}

/// What is due at one moment is encoded one after the other: the later ones are late by that, and the driver says so.
#[test]
fn a_burst_is_as_late_as_its_encoding() {
    let meta = Meta::start(|_| Answer::Right);
    let outcome = drive(&plan((0..200).map(|_| propose(5 * MS, 9_000, 5)).collect()), &meta);
    assert_eq!(outcome.record.errors, 0, "{:?}", outcome.record);
    for channel in 0..PROPOSAL_CHANNELS {
        let lags: Vec<u64> =
            outcome.rows.iter().filter(|row| row.connection == channel).map(|row| row.driver_lag_ns.unwrap()).collect();
        assert!(lags.is_sorted(), "the order of the plan: {lags:?}");
        let mut moments = lags.clone();
        moments.dedup();
        assert!(moments.len() * 2 > lags.len(), "each has its own moment: {lags:?}");
    }
    assert!(outcome.rows.iter().all(|row| row.sent_ns.unwrap() >= row.planned_ns + row.driver_lag_ns.unwrap()));
}

/// As for MQTT: a server that stalls shows the rest of the stall in every proposal that was planned within it.
#[test]
fn a_stall_shows_in_every_proposal_that_was_planned_within_it() {
    let stall = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let seen = Arc::clone(&stall);
    let meta = Meta::start(move |asked| {
        if asked.number == 50 {
            seen.0.store(monotonic_ns(), Ordering::Relaxed);
            // The whole server stands: it has one thread.
            pause(200);
            seen.1.store(monotonic_ns(), Ordering::Relaxed);
        }
        Answer::Right
    });
    // Short ones: what a stall may hold back here is replies, not the server's windows.
    let outcome = drive(&plan((0..400).map(|at| propose(at * MS, 150, 1)).collect()), &meta);
    assert_eq!(outcome.record.errors, 0, "{:?}", outcome.record);
    let t0 = outcome.record.t0_ns;
    let (began, ended) = (stall.0.load(Ordering::Relaxed) - t0, stall.1.load(Ordering::Relaxed) - t0);
    let within: Vec<_> = outcome.rows.iter().filter(|row| row.planned_ns > began && row.planned_ns < ended).collect();
    assert!(within.len() >= 199, "{} proposals were planned within the stall", within.len());
    for row in &within {
        assert!(row.latency_ns.unwrap() >= ended - row.planned_ns, "{row:?} does not show what was left of the stall");
    }
    let sent_within = within.iter().filter(|row| row.sent_ns.unwrap() < ended).count();
    assert!(sent_within * 2 > within.len(), "only {sent_within} of {} were sent during the stall", within.len());
    assert!(outcome.rows.iter().all(|row| row.sent_ns.unwrap() >= row.planned_ns), "something was sent early");
    // The driver itself was on time, so the gate does not blame it for the server's stall.
    assert!(outcome.record.driver_lag_ns.p50 < 200 * MS && outcome.record.tried_per_s >= outcome.record.achieved_per_s);
}

#[test]
fn proposals_do_not_wait_for_the_replies_before_them() {
    // A closed loop would wait for the first reply for ever.
    let meta = Meta::start(|_| Answer::Until(60));
    let outcome = drive(&steady(60), &meta);
    assert_eq!(outcome.record.errors, 0, "{:?}", outcome.record);
}

#[test]
fn the_servers_limits_hold_back_and_lose_nothing() {
    for limits in [
        Limits { streams_max: Some(1), ..Limits::default() },
        // A window far smaller than a proposal.
        Limits { window: Some(100), ..Limits::default() },
    ] {
        let meta = Meta::with(limits, |asked| {
            if asked.number % 10 == 0 {
                pause(5);
            }
            Answer::Right
        });
        let spans = (0..80).map(|at| propose(at * MS / 8, 13_000, 100)).collect();
        let outcome = drive(&plan(spans), &meta);
        assert_eq!((outcome.record.errors, meta.seen().len()), (0, 80), "{:?}", outcome.record);
        // On each channel they are begun in the order of the plan.
        for connection in 0..4 {
            let ids: Vec<u64> = meta
                .seen()
                .iter()
                .filter(|asked| asked.connection == connection)
                .map(|asked| asked.request.id)
                .collect();
            assert!(ids.len() == 20 && ids.is_sorted(), "{ids:?}");
        }
    }
}

#[test]
fn what_is_not_a_right_reply_is_an_error_and_no_latency() {
    let wrong = [
        Answer::Status(13),
        Answer::Message(framed(&proto::ProposeReply { replies: Vec::new() }).to_vec()),
        Answer::Message(vec![0, 0, 0, 0, 9, 1]),
        Answer::Message(vec![1, 0, 0, 0, 0]),
        Answer::Message(Vec::new()),
        Answer::Mute,
        // OK, but without a message.
        Answer::Status(0),
    ];
    let answers = wrong.clone();
    let meta = Meta::start(move |asked| match asked.request.id as usize {
        id @ 1..=7 => answers[id - 1].clone(),
        8 => Answer::Reset,
        9 => Answer::Never,
        _ => Answer::Right,
    });
    let options = DriveOptions { drain_ns: 500 * MS, ..DriveOptions::default() };
    let target = Target { mqtt: nobody(), meta: Some(meta.address) };
    let outcome = run(&steady(20), target, &options).unwrap();
    for row in &outcome.rows {
        let expected = match row.op_id {
            1..=7 => sample_flags::WRONG,
            8 | 9 => sample_flags::LOST,
            _ => 0,
        };
        assert_eq!(row.flags, expected, "{row:?}");
        assert_eq!(row.latency_ns.is_some(), expected == 0, "{row:?}");
    }
    assert_eq!(outcome.rows[0].status, 13);
    assert_eq!((outcome.record.wrong, outcome.record.lost, outcome.record.errors), (7, 2, 9));
    // Errors of single proposals are no failure of their channel.
    assert_eq!(outcome.record.failed_connections, 0);
}

#[test]
fn a_server_that_takes_leave_in_order_is_followed() {
    let meta = Meta::with(Limits { leave_after: Some(5), ..Limits::default() }, |_| Answer::Right);
    let outcome = drive(&steady(80), &meta);
    assert_eq!((outcome.record.errors, outcome.record.failed_connections), (0, 0), "{:?}", outcome.record);
    let mut ids: Vec<u64> = meta.seen().iter().map(|asked| asked.request.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=80).collect::<Vec<u64>>(), "each is proposed exactly once");
    assert!(outcome.connections.len() > 4, "{:?}", outcome.connections);
    assert!(outcome.connections.is_sorted_by_key(|opened| (opened.connection, opened.opened_ns)));
}

/// HTTP/2 by hand: reads three proposals, answers the first and takes leave of the others; a second connection answers
/// everything.
#[test]
fn what_the_server_never_began_is_sent_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            std::thread::spawn(move || by_hand(number, stream.unwrap()));
        }
    });
    // Number 0, 4, 8 and 12 are on the first channel; the others are kept far away.
    let spans = (0..16).map(|at| propose(at * MS / 4, 120, 1)).collect();
    let outcome = run(&plan(spans), Target { mqtt: nobody(), meta: Some(address) }, &DriveOptions::default()).unwrap();
    assert_eq!((outcome.record.errors, outcome.record.failed_connections), (0, 0), "{:?}", outcome.record);
    assert_eq!(outcome.connections.len(), 8);
}

/// Each of the first four connections takes leave after it has four proposals, having begun one.
fn by_hand(number: usize, mut stream: std::net::TcpStream) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).unwrap();
    let frame = |kind: u8, flags: u8, id: u32, payload: &[u8]| {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(id.to_be_bytes());
        frame.extend(payload);
        frame
    };
    let answer = |id: u32| {
        // :status 200, then the message, then grpc-status: 0.
        let reply = framed(&proto::ProposeReply { replies: vec![proto::Reply { kept: None }] });
        let mut status = vec![0x00, 11];
        status.extend(b"grpc-status");
        status.extend([1, b'0']);
        [frame(1, 4, id, &[0x88]), frame(0, 0, id, &reply), frame(1, 5, id, &status)].concat()
    };
    stream.write_all(&frame(4, 0, 0, &[])).unwrap();
    let mut asked = Vec::new();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).unwrap();
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (head[3], head[4]) {
            (4, 0) => stream.write_all(&frame(4, 1, 0, &[])).unwrap(),
            (6, 0) => stream.write_all(&frame(6, 1, 0, &payload)).unwrap(),
            (0, 1) => {
                asked.push(id);
                if number >= 4 {
                    stream.write_all(&answer(id)).unwrap();
                } else if asked.len() == 4 {
                    // Last stream begun: the first one. Reason: none.
                    let leave = [asked[0].to_be_bytes(), [0; 4]].concat();
                    stream.write_all(&[answer(asked[0]), frame(7, 0, 0, &leave)].concat()).unwrap();
                }
            }
            _ => {}
        }
    }
}

#[test]
fn a_connection_that_breaks_is_a_fault_and_its_proposals_have_no_latency() {
    let meta = Meta::with(Limits { drop_after: Some(3), ..Limits::default() }, |_| Answer::Right);
    let outcome = drive(&steady(40), &meta);
    let record = &outcome.record;
    assert_eq!((record.failed_connections, record.errors), (4, record.lost + record.unsent), "{record:?}");
    // Two of each channel were answered at most.
    assert!(record.errors >= 32 && record.unsent > 0, "{record:?}");
    assert!(record.first_fault.as_ref().unwrap().contains("to the meta-service"), "{record:?}");
    assert!(outcome.rows.iter().all(|row| row.latency_ns.is_none() == row.is_error()));
}

#[test]
fn without_a_meta_service_nothing_is_driven() {
    let error = run(&steady(2), nobody(), &DriveOptions::default()).unwrap_err();
    assert!(matches!(error, DriveError::NoMeta) && error.to_string().contains("--meta"), "{error}");
    let target = |meta| Target { mqtt: nobody(), meta: Some(meta) };
    let error = run(&steady(2), target(nobody()), &DriveOptions::default()).unwrap_err();
    assert!(matches!(error, DriveError::Refused { target } if target == nobody()), "{error}");
    // An MQTT port: it does not understand the preface and hangs up.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(|stream| drop(stream.unwrap().write_all(&[0xe0, 0]))));
    let error = run(&steady(2), target(address), &DriveOptions::default()).unwrap_err();
    assert!(matches!(error, DriveError::Meta { .. }), "{error}");
    assert!(error.to_string().contains("prints as `meta`"), "{error}");
}

#[test]
fn proposals_and_mqtt_share_a_run_and_its_digest() {
    let spans = || {
        let mut spans = vec![connect(0, 0)];
        for at in 0..20 {
            spans.push(publish(0, (1 + at) * MS, 1, 90));
            spans.push(propose((1 + at) * MS, 400, 3));
        }
        plan(spans)
    };
    let server = Server::start(|peer, packet| peer.answer(packet));
    let with = |meta: &Meta| {
        let target = Target { mqtt: server.address, meta: Some(meta.address) };
        run(&spans(), target, &DriveOptions::default()).unwrap().record
    };
    let plain = with(&Meta::start(|_| Answer::Right));
    assert_eq!((plain.errors, plain.requests), (0, 41), "{plain:?}");
    // However the replies interleave, the digest is that of their sequence.
    let slow = with(&Meta::start(|asked| if asked.number % 3 == 0 { Answer::Until(20) } else { Answer::Right }));
    assert_eq!((slow.errors, &slow.replies_digest), (0, &plain.replies_digest));
    let refusing = with(&Meta::start(|asked| if asked.number == 7 { Answer::Status(8) } else { Answer::Right }));
    assert_ne!(refusing.replies_digest, plain.replies_digest);
}

#[test]
fn steps_are_never_replayed_and_change_no_plan() {
    let tapped = {
        let mut spans = vec![connect(0, 0), publish(0, 5 * MS, 1, 200), publish(0, 9 * MS, 1, 200)];
        number(&mut spans);
        spans
    };
    let alone = Plan::build(&tapped, &PlanOptions::default()).unwrap();
    // As the layer records them: steps under their roots, and everything numbered anew.
    let mut joined = Vec::new();
    for span in &tapped {
        let mut root = span.clone();
        root.id = span.id * 10;
        let mut step = |kind, after: u64, parent| {
            let mut step = Span::new(root.id + after, kind, span.start_ns + after * 1000);
            (step.parent, step.bytes, step.count) = (Some(parent), 300, 1);
            joined.push(step);
            root.id + after
        };
        if span.kind == Kind::Connect {
            let process = step(Kind::SessionProcess, 1, root.id);
            let proposal = step(Kind::RaftProposal, 2, process);
            step(Kind::RaftAppend, 3, proposal);
            step(Kind::Apply, 4, proposal);
        } else {
            step(Kind::SegmentAppend, 1, root.id);
        }
        joined.push(root);
    }
    joined.sort_by_key(|span| span.id);
    let plan = Plan::build(&joined, &PlanOptions::default()).unwrap();
    assert_eq!((plan.hash(), plan.ops.len(), plan.channels), (alone.hash(), 3, 0));

    // The same kinds without a parent are requests of their own.
    joined.iter_mut().filter(|span| span.kind == Kind::SegmentAppend).for_each(|span| span.parent = None);
    joined.iter_mut().filter(|span| span.kind == Kind::RaftProposal).for_each(|span| span.parent = None);
    let orphans = Plan::build(&joined, &PlanOptions::default()).unwrap();
    let with = |reply| orphans.ops.iter().filter(|op| op.reply == reply && !op.setup).count();
    assert_eq!((with(Reply::Puback), with(Reply::Status), orphans.requests()), (4, 1, 6));
}

#[test]
fn a_proposal_beyond_the_services_limits_is_refused_before_the_run() {
    let refused = |span: Span| Plan::build(&[span], &PlanOptions::default()).unwrap_err();
    for span in [propose(0, 5 << 20, 1), propose(0, 100, 0), propose(0, 100, 10_001)] {
        let error = refused(span);
        assert!(matches!(error, PlanError::Proposal { .. }), "{error}");
    }
    let read = Span::new(1, Kind::SegmentRead, 0);
    assert!(matches!(refused(read), PlanError::NotYet(_)));
}
