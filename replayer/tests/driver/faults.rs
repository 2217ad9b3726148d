//! Servers that do not do as they should.

use crate::server::{Server, id_of};
use crate::spans::{MS, connect, plan, publish, v5};
use regauge_replayer::drive::{DriveError, DriveOptions, Row, run};
use regauge_traces::study::sample_flags::{LOST, NO_REPLY, UNSENT, WRONG};
use regauge_traces::{Span, flags};
use std::net::TcpListener;

/// Waits long enough for replies that come, on the slowest machine, and no longer for those that never do.
fn hasty() -> DriveOptions {
    DriveOptions { drain_ns: 2000 * MS, ..DriveOptions::default() }
}

fn publishes(count: u64, qos: u8) -> Vec<Span> {
    let mut spans = vec![connect(0, 0)];
    spans.extend((0..count).map(|at| publish(0, (5 + at) * MS, qos, 80)));
    spans
}

fn flagged(rows: &[Row], flag: u32) -> Vec<usize> {
    rows.iter().enumerate().filter(|(_, row)| row.flags & flag != 0).map(|(index, _)| index).collect()
}

#[test]
fn lost_replies_are_lost_and_have_no_latency() {
    let server = Server::start(|peer, packet| {
        if packet[0] >> 4 != 3 || !id_of(packet).is_multiple_of(10) {
            peer.answer(packet);
        }
    });
    let outcome = run(&plan(publishes(40, 1)), server.address, &hasty()).unwrap();
    assert_eq!(flagged(&outcome.rows, LOST), [10, 20, 30, 40]);
    assert_eq!((outcome.record.lost, outcome.record.errors), (4, 4));
    for row in &outcome.rows {
        assert_eq!(row.latency_ns.is_none(), row.is_error());
        assert_eq!(row.service_ns.is_none(), row.is_error());
        assert!(row.sent_ns.is_some());
    }
}

#[test]
fn wrong_replies_are_wrong() {
    let server = Server::start(|peer, packet| {
        if packet[0] >> 4 != 3 {
            return peer.answer(packet);
        }
        let id = id_of(packet);
        match id {
            3 => peer.say(&[0x40, 3, 0, 3, 0x97]),   // quota exceeded
            5 => peer.say(&[0xb0, 4, 0, 5, 0, 0]),   // UNSUBACK
            7 => peer.acknowledge(0x70, id),         // PUBCOMP
            9 => peer.acknowledge(0x40, 40_000),     // nobody's
            11 => peer.say(&[0x40, 3, 0, 11, 0x10]), // no matching subscribers: granted
            _ => peer.answer(packet),
        }
    });
    let outcome = run(&plan(v5(publishes(20, 1))), server.address, &hasty()).unwrap();
    assert_eq!(flagged(&outcome.rows, WRONG), [3, 5, 7, 9]);
    assert_eq!((outcome.record.wrong, outcome.record.errors), (4, 4));
    assert_eq!((outcome.rows[3].status, outcome.rows[11].status), (0x97, 0x10));
    assert!(outcome.rows[11].latency_ns.is_some());
    assert!(flagged(&outcome.rows, WRONG).iter().all(|&index| outcome.rows[index].latency_ns.is_none()));
}

#[test]
fn a_recorded_refusal_may_be_refused_again() {
    let server = Server::start(|peer, packet| match packet[0] >> 4 {
        3 => peer.say(&[0x40, 3, 0, id_of(packet) as u8, 0x87]),
        _ => peer.answer(packet),
    });
    let mut spans = v5(publishes(2, 1));
    spans[1].status = 0x97;
    let outcome = run(&plan(spans), server.address, &hasty()).unwrap();
    assert_eq!(flagged(&outcome.rows, WRONG), [2]);
}

#[test]
fn nobody_listens() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = run(&plan(publishes(3, 1)), address, &hasty()).unwrap_err();
    assert!(matches!(error, DriveError::Refused { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()));
}

#[test]
fn a_server_that_closes_leaves_requests_lost_and_unsent() {
    let server = Server::start(|peer, packet| {
        if packet[0] >> 4 == 3 && id_of(packet) == 5 {
            return peer.close();
        }
        peer.answer(packet);
    });
    let outcome = run(&plan(publishes(400, 1)), server.address, &hasty()).unwrap();
    let record = &outcome.record;
    assert!(record.lost >= 1 && record.unsent >= 1, "{record:?}");
    assert_eq!(record.lost + record.unsent, 396);
    assert_eq!(record.failed_connections, 1);
    assert!(record.first_fault.is_some());
    assert!(outcome.rows.iter().all(|row| (row.flags & UNSENT != 0) == row.sent_ns.is_none()));
    assert!(record.achieved_per_s < record.offered_per_s);
}

#[test]
fn a_server_that_speaks_something_else() {
    let server = Server::start(|peer, _| peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let outcome = run(&plan(publishes(3, 1)), server.address, &hasty()).unwrap();
    assert_eq!(outcome.record.errors, 4);
    assert!(outcome.record.first_fault.unwrap().contains("not MQTT"));
}

#[test]
fn a_refused_connect_is_wrong() {
    let server = Server::start(|peer, _| {
        peer.say(&[0x20, 2, 0, 5]);
        peer.close();
    });
    let outcome = run(&plan(publishes(2, 1)), server.address, &hasty()).unwrap();
    assert_eq!(outcome.rows[0].flags & WRONG, WRONG);
    assert_eq!(outcome.rows[0].status, 5);
    assert_eq!(outcome.record.errors, 3);
}

#[test]
fn a_reply_that_was_not_recorded_is_not_demanded() {
    let server = Server::start(|peer, packet| {
        if packet[0] >> 4 != 3 {
            peer.answer(packet);
        }
    });
    let mut spans = publishes(3, 1);
    spans.iter_mut().skip(1).for_each(|span| span.flags |= flags::UNFINISHED);
    let outcome = run(&plan(spans), server.address, &hasty()).unwrap();
    assert_eq!(outcome.record.errors, 0);
    assert_eq!(flagged(&outcome.rows, NO_REPLY), [1, 2, 3]);
}
