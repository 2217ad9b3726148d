//! What goes over the wire, and the duties of a client.

use crate::server::{Server, id_of, pause};
use crate::spans::{MS, connect, plan, publish, root, subscribe, v5};
use regauge_replayer::drive::{DriveOptions, run};
use regauge_replayer::plan::Plan;
use regauge_traces::{Kind, Span};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn options() -> DriveOptions {
    DriveOptions::default()
}

/// What connection 0 of the plan should send, the driver's own farewell included.
fn planned_bytes(plan: &Plan) -> Vec<u8> {
    let mut bytes: Vec<u8> = plan.ops.iter().flat_map(|op| plan.packet(op)).collect();
    bytes.extend([0xe0, 0]);
    bytes
}

#[test]
fn the_same_plan_puts_the_same_bytes_on_the_wire() {
    let mut spans = vec![connect(0, 0), subscribe(0, 2 * MS)];
    spans.extend((0..100).map(|at| publish(0, (3 + at / 3) * MS, (at % 2) as u8, 50 + at)));
    spans.push(root(Kind::Ping, 0, 40 * MS, 2));
    let plan = plan(spans);
    for _ in 0..2 {
        let server = Server::start(|peer, packet| peer.answer(packet));
        let outcome = run(&plan, server.address, &options()).unwrap();
        assert_eq!(outcome.record.errors, 0, "{:?}", outcome.record);
        assert_eq!(server.bytes(0), planned_bytes(&plan));
    }
}

/// A server that reads slowly through a small window takes every packet in many pieces.
#[test]
fn partial_writes_are_finished_where_they_stopped() {
    let shrink = |stream: &std::net::TcpStream| {
        socket2::SockRef::from(stream).set_recv_buffer_size(128 << 10).unwrap();
    };
    let server = Server::start_with(shrink, |peer, packet| {
        pause(5);
        peer.answer(packet);
    });
    let mut spans = vec![connect(0, 0)];
    spans.extend((0..12).map(|at| publish(0, 10 * MS + at, 1, 1_000_000 + at * 100_001)));
    spans.extend((0..5).map(|at| publish(0, 11 * MS + at, 1, 300)));
    // Longer than all slices of one system call together.
    spans.push(publish(0, 12 * MS, 1, 9_000_000));
    let plan = plan(spans);
    let outcome = run(&plan, server.address, &DriveOptions { drain_ns: 60_000 * MS, ..options() }).unwrap();
    assert_eq!(outcome.record.errors, 0, "{:?}", outcome.record);
    assert!(server.bytes(0) == planned_bytes(&plan), "the bytes differ");
}

#[test]
fn thousands_of_connections() {
    let server = Server::start(|peer, packet| peer.answer(packet));
    let mut spans = vec![];
    for connection in 0..2500 {
        let at = u64::from(connection) * MS / 5;
        spans.push(connect(connection, at));
        spans.push(publish(connection, at + 20 * MS, 1, 100));
    }
    spans.extend((0..2500).map(|connection| root(Kind::Disconnect, connection, 600 * MS, 2)));
    let outcome = run(&plan(spans), server.address, &DriveOptions { drain_ns: 60_000 * MS, ..options() }).unwrap();
    assert_eq!((outcome.record.errors, outcome.record.connections), (0, 2500), "{:?}", outcome.record);
    assert_eq!(outcome.record.failed_connections, 0);
}

/// QoS 2 both ways, deliveries at every QoS, and none of the client's duties counted as a request.
#[test]
fn deliveries_and_handshakes() {
    let server = Server::start(|peer, packet| {
        peer.answer(packet);
        if packet[0] >> 4 == 8 {
            peer.say(&[0x30, 4, 0, 1, b'0', b'!']);
            peer.say(&[0x32, 6, 0, 1, b'0', 0, 9, b'!']);
            peer.say(&[0x34, 6, 0, 1, b'0', 0, 10, b'!']);
        }
    });
    let spans = vec![connect(0, 0), subscribe(0, 5 * MS), publish(0, 10 * MS, 2, 60), publish(0, 11 * MS, 2, 60)];
    let outcome = run(&plan(spans), server.address, &options()).unwrap();
    let record = &outcome.record;
    assert_eq!((record.requests, record.errors, record.deliveries), (4, 0, 3), "{record:?}");
    assert_eq!(outcome.deliveries, [3]);
    let packets = server.packets(0);
    let count = |wanted: &[u8]| packets.iter().filter(|packet| packet.starts_with(wanted)).count();
    assert_eq!(count(&[0x40, 2, 0, 9]), 1, "PUBACK");
    assert_eq!(count(&[0x50, 2, 0, 10]), 1, "PUBREC");
    assert_eq!(count(&[0x70, 2, 0, 10]), 1, "PUBCOMP");
    // The publishes have the packet ids after the SUBSCRIBE's.
    assert_eq!((count(&[0x62, 2, 0, 2]), count(&[0x62, 2, 0, 3])), (1, 1), "PUBREL");
}

#[test]
fn the_receive_maximum_is_obeyed() {
    let in_flight = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let counted = Arc::clone(&in_flight);
    let held = Arc::new(std::sync::Mutex::new(Vec::new()));
    let server = Server::start(move |peer, packet| match packet[0] >> 4 {
        1 => peer.say(&[0x20, 6, 0, 0, 3, 0x21, 0, 2]),
        // Two may be in flight, so the first is answered when the second is there.
        3 => {
            let now = counted.0.fetch_add(1, Ordering::SeqCst) + 1;
            counted.1.fetch_max(now, Ordering::SeqCst);
            let mut held = held.lock().unwrap();
            held.push(id_of(packet));
            if held.len() == 2 {
                pause(2);
                for id in held.drain(..) {
                    counted.0.fetch_sub(1, Ordering::SeqCst);
                    peer.acknowledge(0x40, id);
                }
            }
        }
        _ => peer.answer(packet),
    });
    let mut spans = vec![connect(0, 0)];
    // Long after the CONNACK, and all at once.
    spans.extend((0..20).map(|at| publish(0, 1000 * MS + at, 1, 70)));
    let outcome = run(&plan(v5(spans)), server.address, &options()).unwrap();
    assert_eq!(outcome.record.errors, 0, "{:?}", outcome.record);
    assert_eq!(in_flight.1.load(Ordering::SeqCst), 2);
}

/// A packet id that is in flight is not used again, however long its reply takes.
#[test]
fn packet_ids_in_flight_are_not_reused() {
    let first_answered = Arc::new(AtomicU64::new(0));
    let answered = Arc::clone(&first_answered);
    let server = Server::start(move |peer, packet| {
        if packet[0] >> 4 != 3 {
            return peer.answer(packet);
        }
        match (id_of(packet), answered.load(Ordering::SeqCst)) {
            (1, 0) => answered.store(1, Ordering::SeqCst),
            // The last id before the wrap: only now the first publish gets its reply.
            (65_535, 1) => {
                pause(50);
                answered.store(2, Ordering::SeqCst);
                peer.acknowledge(0x40, 1);
                peer.answer(packet);
            }
            (1, state) => {
                assert_eq!(state, 2, "id 1 was used while it was in flight");
                answered.store(3, Ordering::SeqCst);
                peer.answer(packet);
            }
            _ => peer.answer(packet),
        }
    });
    let mut spans = vec![connect(0, 0)];
    spans.extend((0..65_600).map(|at| publish(0, 5 * MS + at * 1000, 1, 40)));
    let outcome = run(&plan(spans), server.address, &DriveOptions { drain_ns: 60_000 * MS, ..options() }).unwrap();
    assert_eq!(outcome.record.errors, 0, "{:?}", outcome.record);
    assert_eq!(first_answered.load(Ordering::SeqCst), 3);
}

/// The digest tells what was replied and not in which order sessions were served.
#[test]
fn the_replies_digest() {
    let digest = |odd: u64, refuse: u16| {
        let server = Server::start(move |peer, packet| {
            if peer.number as u64 % 2 == odd {
                pause(10);
            }
            if packet[0] >> 4 == 3 && id_of(packet) == refuse {
                return peer.say(&[0x40, 3, 0, refuse as u8, 0x97]);
            }
            peer.answer(packet);
        });
        let mut spans: Vec<Span> = (0..6).map(|connection| connect(connection, 0)).collect();
        spans.extend((0..6).flat_map(|connection| (1..4).map(move |at| publish(connection, at * MS, 1, 60))));
        run(&plan(v5(spans)), server.address, &options()).unwrap().record.replies_digest
    };
    let even = digest(0, 0);
    assert_eq!(even.len(), 64);
    assert_eq!(even, digest(1, 0));
    assert_ne!(even, digest(1, 3));
}

/// Connections that the plan leaves open end with a DISCONNECT, so that no will is published.
#[test]
fn the_driver_leaves_with_a_word() {
    let server = Server::start(|peer, packet| peer.answer(packet));
    let outcome = run(&plan(vec![connect(0, 0), publish(0, MS, 0, 50)]), server.address, &options()).unwrap();
    assert_eq!(outcome.record.requests, 2);
    assert_eq!(server.packets(0).last().unwrap(), &[0xe0, 0]);
    let server = Server::start(|peer, packet| peer.answer(packet));
    run(&plan(vec![connect(0, 0), root(Kind::Close, 0, MS, 0)]), server.address, &options()).unwrap();
    assert_eq!(server.packets(0).len(), 1, "a recorded close is a close");
}

/// What was sent on a connection up to a request's offset ends with that request, whatever the protocol put between.
#[test]
fn offsets_count_every_byte_of_the_connection() {
    let server = Server::start(|peer, packet| {
        // A delivery at QoS 1 between the replies, which the driver has to acknowledge.
        if packet[0] >> 4 == 3 {
            peer.say(&[0x32, 7, 0, 1, b't', 0, 9, b'p', b'p']);
        }
        peer.answer(packet);
    });
    let mut spans = vec![connect(0, 0)];
    spans.extend((0..60).map(|at| publish(0, (1 + at) * MS, (at % 3) as u8, 60 + at)));
    let plan = plan(spans);
    let outcome = run(&plan, server.address, &DriveOptions::default()).unwrap();
    assert_eq!((outcome.record.errors, outcome.record.violations), (0, 0), "{:?}", outcome.record);
    let bytes = server.bytes(0);
    for (row, op) in outcome.rows.iter().zip(&plan.ops) {
        let sent = &bytes[..row.sent_offset.unwrap() as usize];
        assert!(sent.ends_with(&plan.packet(op)), "{row:?}");
    }
    let replies: Vec<u64> = outcome.rows.iter().filter_map(|row| row.reply_offset).collect();
    assert_eq!(replies.len(), 41);
    // CONNACK; then 9 bytes of delivery to each publish, and 4 for each acknowledgement.
    assert_eq!((replies[0], outcome.deliveries[0]), (4, 60));
    let all = 4 + 60 * 9 + 20 * 4 + 20 * 8;
    assert!(replies.iter().all(|offset| *offset <= all) && *replies.iter().max().unwrap() > all - 30, "{replies:?}");
}

#[test]
fn acknowledgements_that_belong_to_no_request_are_violations() {
    let server = Server::start(|peer, packet| {
        peer.answer(packet);
        if packet[0] >> 4 == 3 {
            match id_of(packet) {
                // Once more, and for an id that was never used.
                1 => peer.acknowledge(0x40, 1),
                2 => peer.acknowledge(0x40, 999),
                _ => {}
            }
        }
    });
    let spans = vec![connect(0, 0), publish(0, MS, 1, 60), publish(0, 9 * MS, 1, 60), publish(0, 30 * MS, 1, 60)];
    let outcome = run(&plan(spans), server.address, &DriveOptions::default()).unwrap();
    // Every request has its reply, so only this tells.
    assert_eq!((outcome.record.errors, outcome.record.violations), (0, 2), "{:?}", outcome.record);

    // PUBCOMP where PUBREC was due.
    let server = Server::start(|peer, packet| match packet[0] >> 4 {
        3 => peer.acknowledge(0x70, id_of(packet)),
        _ => peer.answer(packet),
    });
    let outcome = run(&plan(vec![connect(0, 0), publish(0, MS, 2, 60)]), server.address, &DriveOptions::default());
    assert_eq!(outcome.unwrap().record.wrong, 1);
}

#[test]
fn a_connect_of_the_replays_own_that_is_refused_is_counted() {
    let server = Server::start(|peer, packet| match packet[0] >> 4 {
        1 => {
            peer.say(&[0x20, 2, 0, 5]);
            peer.close();
        }
        _ => peer.answer(packet),
    });
    let outcome = run(&plan(vec![publish(0, 0, 0, 60)]), server.address, &DriveOptions::default()).unwrap();
    assert_eq!(outcome.record.setup_failed, 1, "{:?}", outcome.record);
}
