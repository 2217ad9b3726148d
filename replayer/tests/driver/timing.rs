//! Planned times: what a stall of the server looks like from outside, and that the driver does not wait for replies.
//!
//! No duration is compared with a fixed bound: only what must hold on the slowest machine is asserted.

use crate::server::{Server, pause};
use crate::spans::{MS, connect, plan, publish, root};
use regauge_replayer::drive::poll::monotonic_ns;
use regauge_replayer::drive::{DriveOptions, run};
use regauge_traces::Kind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A server that stalls once while requests keep coming: every request that was planned within the stall must show what
/// was left of it. A closed loop would show it in one request.
#[test]
fn a_stall_shows_in_every_request_that_was_planned_within_it() {
    let stall = Arc::new((AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)));
    let seen = Arc::clone(&stall);
    let server = Server::start(move |peer, packet| {
        if packet[0] >> 4 == 3 && seen.2.fetch_add(1, Ordering::Relaxed) == 100 {
            seen.0.store(monotonic_ns(), Ordering::Relaxed);
            pause(200);
            seen.1.store(monotonic_ns(), Ordering::Relaxed);
        }
        peer.answer(packet);
    });
    let mut spans = vec![connect(0, 0)];
    spans.extend((0..600).map(|at| publish(0, (10 + at) * MS, 1, 100)));
    let outcome = run(&plan(spans), server.address, &DriveOptions::default()).unwrap();

    assert_eq!(outcome.record.errors, 0, "{:?}", outcome.record);
    let origin = outcome.record.t0_ns;
    let (began, ended) = (stall.0.load(Ordering::Relaxed) - origin, stall.1.load(Ordering::Relaxed) - origin);
    let within: Vec<_> = outcome.rows.iter().filter(|row| row.planned_ns > began && row.planned_ns < ended).collect();
    // One is planned every millisecond, so a stall of 200 ms has at least 199.
    assert!(within.len() >= 199, "{} requests were planned within the stall", within.len());
    for row in &within {
        let left = ended - row.planned_ns;
        assert!(row.latency_ns.unwrap() >= left, "{row:?} does not show the {left} ns that were left of the stall");
    }
    let sent_within = within.iter().filter(|row| row.sent_ns.unwrap() < ended).count();
    assert!(sent_within * 2 > within.len(), "only {sent_within} of {} were sent during the stall", within.len());
    assert!(outcome.rows.iter().all(|row| row.sent_ns.unwrap() >= row.planned_ns), "something was sent early");
}

/// Latency counts from the plan, service time from the real send; the first is never the smaller one.
#[test]
fn latency_is_service_time_and_lateness() {
    let server = Server::start(|peer, packet| peer.answer(packet));
    for spin in [false, true] {
        let mut spans = vec![connect(0, 0)];
        spans.extend((0..200).map(|at| publish(0, at * MS / 2, 1, 100)));
        let options = DriveOptions { spin, warmup_ns: Some(20 * MS), ..DriveOptions::default() };
        let outcome = run(&plan(spans), server.address, &options).unwrap();
        for row in &outcome.rows {
            let lateness = row.sent_ns.unwrap() - row.planned_ns;
            assert_eq!(row.latency_ns.unwrap(), row.service_ns.unwrap() + lateness);
        }
        let record = &outcome.record;
        assert_eq!((record.requests, record.errors), (201, 0));
        assert_eq!(record.measured, 160, "the warm-up ends before the request that is planned at its end");
        assert!(record.send_lag_ns.p50 <= record.send_lag_ns.p99 && record.send_lag_ns.p99 <= record.send_lag_ns.max);
        assert!(record.driver_lag_ns.max <= record.send_lag_ns.max);
        assert!(record.offered_per_s >= record.achieved_per_s);
    }
}

/// The CONNECT's latency counts from its planned time, so it holds the TCP handshake and the wait for the session's
/// previous connection.
#[test]
fn a_session_waits_for_the_end_of_its_previous_connection() {
    let server = Server::start(|peer, packet| {
        if packet[0] >> 4 == 14 {
            pause(100);
        }
        peer.answer(packet);
    });
    let same = |mut span: regauge_traces::Span| {
        span.session = Some(1);
        span
    };
    let spans = vec![
        same(connect(0, 0)),
        same(root(Kind::Disconnect, 0, 10 * MS, 2)),
        same(connect(1, 20 * MS)),
        same(publish(1, 21 * MS, 1, 50)),
        same(root(Kind::Close, 1, 22 * MS, 0)),
    ];
    let outcome = run(&plan(spans), server.address, &DriveOptions::default()).unwrap();
    assert_eq!(outcome.record.errors, 0, "{:?}", outcome.record);
    use crate::server::Seen::{Closed, Opened};
    let order: Vec<_> =
        server.seen().into_iter().filter(|seen| matches!(seen, Opened(_) | Closed(_))).take(3).collect();
    assert_eq!(order, [Opened(0), Closed(0), Opened(1)]);
    // The server was silent for 100 ms after a DISCONNECT that was not sent before 10 ms.
    assert!(outcome.rows[2].latency_ns.unwrap() >= 90 * MS, "{:?}", outcome.rows[2]);
    assert!(outcome.record.held.requests >= 2);
    assert!(outcome.record.held.max_ns >= 80 * MS);
}

/// A client that left after its reply leaves after its reply in the replay too.
#[test]
fn a_disconnect_waits_for_the_replies_that_were_due() {
    let server = Server::start(|peer, packet| {
        if packet[0] >> 4 == 3 {
            pause(60);
        }
        peer.answer(packet);
    });
    for end in [Kind::Disconnect, Kind::Close] {
        let spans = vec![
            connect(0, 0),
            publish(0, 5 * MS, 1, 60),
            publish(0, 5 * MS, 2, 60),
            root(end, 0, 6 * MS, if end == Kind::Close { 0 } else { 2 }),
        ];
        let outcome = run(&plan(spans), server.address, &DriveOptions::default()).unwrap();
        assert_eq!(outcome.record.errors, 0, "{end}: {:?}", outcome.record);
        let replied = outcome.rows[1].planned_ns + outcome.rows[1].latency_ns.unwrap();
        assert!(outcome.rows[3].sent_ns.unwrap() >= replied);
    }
}

#[test]
fn replies_are_awaited_for_as_long_as_the_drain_says() {
    let server = Server::start(|peer, packet| {
        if packet[0] >> 4 == 3 {
            pause(400);
        }
        peer.answer(packet);
    });
    // Long after the CONNECT, whose reply the drain is not about.
    let spans = || plan(vec![connect(0, 0), publish(0, 1000 * MS, 1, 60)]);
    let patient = run(&spans(), server.address, &DriveOptions::default()).unwrap();
    assert_eq!(patient.record.lost, 0);
    assert!(patient.rows[1].latency_ns.unwrap() >= 400 * MS);
    let hasty = DriveOptions { drain_ns: 50 * MS, ..DriveOptions::default() };
    let hasty = run(&spans(), server.address, &hasty).unwrap();
    assert_eq!((hasty.record.lost, hasty.record.errors), (1, 1));
    assert_eq!(hasty.rows[1].latency_ns, None);
}
