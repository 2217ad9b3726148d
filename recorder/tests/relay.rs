//! The tap as a proxy: what goes in comes out, whatever it is, and ends are passed on as they were.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::broker::{client, publish, publish_packet, read_packet, serve};
use common::{Finished, PATIENCE, RunningTap, broker, noise, of_kind, wait_for};
use proptest::prelude::*;
use regauge_traces::{Kind, flags};
use rustix::net::sockopt::set_socket_linger;
use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

/// A connection through the tap, seen from both of its ends.
struct Ends {
    client: TcpStream,
    upstream: TcpStream,
}

/// An upstream that hands every accepted connection to the test.
fn handing_over() -> (SocketAddr, mpsc::Receiver<TcpStream>) {
    let (accepted, connections) = mpsc::channel();
    let addr = serve(move |socket| {
        let _ = accepted.send(socket);
    });
    (addr, connections)
}

impl Ends {
    fn through(tap: &RunningTap, connections: &mpsc::Receiver<TcpStream>) -> Self {
        let client = TcpStream::connect(tap.addr).unwrap();
        let upstream = connections.recv_timeout(PATIENCE).unwrap();
        for socket in [&client, &upstream] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Self { client, upstream }
    }
}

fn tap() -> (RunningTap, mpsc::Receiver<TcpStream>) {
    let (addr, connections) = handing_over();
    let tap = RunningTap::start(addr);
    // The tap's own look at whether the broker is there.
    drop(connections.recv_timeout(PATIENCE).unwrap());
    (tap, connections)
}

/// Sends in pieces, ends its direction, and returns all that comes from the other side.
fn exchange(mut socket: TcpStream, bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut reading = socket.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for piece in bytes.chunks(piece) {
                socket.write_all(piece).unwrap();
            }
            socket.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        reading.read_to_end(&mut got).unwrap();
        got
    })
}

#[test]
fn random_bytes_arrive_exactly_in_both_directions() {
    let (tap, connections) = tap();
    let cases = Cell::new(0);
    let sizes = (0usize..400_000, 0usize..400_000, 1usize..100_000, 1usize..100_000);
    proptest!(ProptestConfig::with_cases(24), |(seed in any::<u64>(), (up, down, up_piece, down_piece) in sizes)| {
        cases.set(cases.get() + 1);
        let Ends { client, upstream } = Ends::through(&tap, &connections);
        let (to_broker, to_client) = (noise(seed, up), noise(!seed, down));
        let (at_client, at_broker) = std::thread::scope(|scope| {
            let broker = scope.spawn(|| exchange(upstream, &to_client, down_piece));
            (exchange(client, &to_broker, up_piece), broker.join().unwrap())
        });
        prop_assert!(at_broker == to_broker, "{} of {} bytes reached the broker", at_broker.len(), up);
        prop_assert!(at_client == to_client, "{} of {} bytes reached the client", at_client.len(), down);
    });
    let Finished { summary, .. } = tap.finish();
    assert_eq!(summary.stats.connections, cases.get());
}

#[test]
fn what_is_not_mqtt_passes_through_and_is_counted() {
    let (tap, connections) = tap();
    let Ends { mut client, mut upstream } = Ends::through(&tap, &connections);
    let hello = [&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01][..], &noise(5, 3000)].concat();
    for round in 0..3 {
        client.write_all(&hello).unwrap();
        let mut got = vec![0; hello.len()];
        upstream.read_exact(&mut got).unwrap();
        assert!(got == hello, "to the broker, round {round}");
        upstream.write_all(&hello).unwrap();
        client.read_exact(&mut got).unwrap();
        assert!(got == hello, "to the client, round {round}");
    }
    drop(client);
    let Finished { summary, trace, .. } = tap.finish();
    assert_eq!((trace.spans.len(), summary.stats.undecodable), (0, 1));
    assert_eq!(trace.meta.drops.unwrap().undecodable_connections, 1);
    assert!(summary.stats.undecodable_why.is_some());
}

#[test]
fn a_large_publish_arrives_exactly_and_its_payload_is_only_counted() {
    let tap = RunningTap::start(broker::start());
    let mut socket = client(tap.addr, "meter");
    let payload = noise(11, 250_000);
    publish(&mut socket, "t", 1, &payload);
    let size = publish_packet("t", 1, &payload).len() as u64;
    drop(socket);
    let Finished { trace, sealed, .. } = tap.finish();
    let publishes = of_kind(&trace.spans, Kind::Publish);
    assert_eq!(publishes.len(), 1);
    assert_eq!((publishes[0].bytes, publishes[0].flags), (size, 0));
    assert!(sealed.len() < 50_000, "the payload cannot be in a file of {} bytes", sealed.len());
}

#[test]
fn a_half_close_is_a_half_close() {
    let (tap, connections) = tap();
    for client_first in [true, false] {
        let Ends { client, upstream } = Ends::through(&tap, &connections);
        let (mut first, mut second) = if client_first { (client, upstream) } else { (upstream, client) };
        first.write_all(b"the last words").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        second.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"the last words");
        // The other direction is still open, for more than one exchange.
        for answer in [&b"a late "[..], b"answer"] {
            second.write_all(answer).unwrap();
            let mut got = vec![0; answer.len()];
            first.read_exact(&mut got).unwrap();
            assert_eq!(got, answer);
        }
        drop(second);
        assert_eq!(first.read(&mut [0]).unwrap(), 0);
    }
    wait_for_no_connection(tap);
}

#[test]
fn a_reset_is_a_reset() {
    let (tap, connections) = tap();
    for by_client in [true, false] {
        let Ends { client, upstream } = Ends::through(&tap, &connections);
        let (goes, mut stays) = if by_client { (client, upstream) } else { (upstream, client) };
        set_socket_linger(&goes, Some(Duration::ZERO)).unwrap();
        drop(goes);
        assert_eq!(stays.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset, "by client: {by_client}");
    }
    wait_for_no_connection(tap);
}

/// Leaks of connections would show as an open count that never comes down.
fn wait_for_no_connection(tap: RunningTap) {
    let Finished { summary, .. } = tap.finish();
    assert_eq!((summary.stats.connections, summary.stats.open), (2, 0));
}

#[test]
fn the_brokers_last_words_reach_the_client_before_its_close() {
    let tap = RunningTap::start(serve(|mut socket| {
        // Refuses and closes with the client's later bytes unread, which makes the system reset the connection.
        let _ = read_packet(&mut socket);
        let _ = socket.write_all(&[0x20, 2, 0, 5]);
        let _ = socket.peek(&mut [0; 1]);
    }));
    let mut socket = TcpStream::connect(tap.addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(&broker::connect_packet("meter")).unwrap();
    assert_eq!(read_packet(&mut socket).unwrap(), (0x20, vec![0, 5]));
    socket.write_all(&publish_packet("t", 1, b"unread")).unwrap();
    let end = socket.read(&mut [0; 16]).map_err(|e| e.kind());
    assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?}");
    let live = tap.live();
    common::wait_for_spans(&live, |spans| !of_kind(spans, Kind::Close).is_empty());
    let Finished { trace, .. } = tap.finish();
    let connects = of_kind(&trace.spans, Kind::Connect);
    assert_eq!((connects.len(), connects[0].status), (1, 5));
}

#[test]
fn a_stalled_broker_slows_the_client_down_and_loses_nothing() {
    let (tap, connections) = tap();
    let Ends { mut client, upstream } = Ends::through(&tap, &connections);
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let pattern = noise(3, 1 << 16);
    // The kernel's buffers of four sockets, and nothing that grows: far below this bound, or memory would be filling.
    let bound = 256 << 20;
    let mut sent = Vec::new();
    while sent.len() < bound {
        match client.write(&pattern) {
            Ok(n) => sent.extend_from_slice(&pattern[..n]),
            Err(e) => {
                assert!(matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{e}");
                break;
            }
        }
    }
    assert!(sent.len() < bound, "the tap took {} bytes that nobody read", sent.len());
    client.shutdown(Shutdown::Write).unwrap();
    let received = exchange(upstream, b"", 1);
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
    tap.finish();
}

#[test]
fn a_broker_that_goes_away_closes_new_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tap = RunningTap::start(listener.local_addr().unwrap());
    drop(listener);
    let mut socket = TcpStream::connect(tap.addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let end = socket.read(&mut [0]).map_err(|e| e.kind());
    assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?}");
    let Finished { summary, .. } = tap.finish();
    assert_eq!((summary.stats.connections, summary.stats.refused, summary.stats.open), (1, 1, 0));
}

#[test]
fn many_connections_at_once_are_served() {
    let tap = RunningTap::start(broker::start());
    let mut sockets: Vec<TcpStream> = (0..300).map(|n| client(tap.addr, &format!("meter-{n}"))).collect();
    for (n, socket) in sockets.iter_mut().enumerate() {
        publish(socket, "t", 1 + n as u16, b"x");
    }
    drop(sockets);
    wait_for("300 closes", || {
        let spans = regauge_traces::open(tap.live()).ok()?.spans;
        (of_kind(&spans, Kind::Close).len() == 300).then_some(())
    });
    let Finished { summary, trace, .. } = tap.finish();
    assert_eq!((summary.stats.connections, summary.stats.open), (300, 0));
    let publishes = of_kind(&trace.spans, Kind::Publish);
    assert_eq!(publishes.len(), 300);
    assert!(publishes.iter().all(|span| span.duration_ns.is_some() && span.flags & flags::UNFINISHED == 0));
}

#[test]
fn a_stop_leaves_open_requests_unfinished() {
    let (tap, connections) = tap();
    let Ends { mut client, mut upstream } = Ends::through(&tap, &connections);
    client.write_all(&broker::connect_packet("meter")).unwrap();
    read_packet(&mut upstream).unwrap();
    let Finished { trace, .. } = tap.finish();
    let seen: Vec<_> = trace.spans.iter().map(|s| (s.kind, s.flags & flags::UNFINISHED, s.duration_ns)).collect();
    assert_eq!(seen, [(Kind::Connect, flags::UNFINISHED, None)]);
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0, "clients of a stopped tap are closed");
}
