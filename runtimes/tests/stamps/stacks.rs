//! What the shells note fits what went over the wire: offsets, which operation released a reply, and what that waited for.

use super::common::{Server, settings};
use super::{TURN, written};
use regauge_runtimes::settings::{Durability, Files, Placement, Settings, Stack};
use regauge_runtimes::stamps;
use regauge_traces::stamps::{Event, Stamp};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::PoisonError;
use std::time::Duration;

pub const PUBLISHES: u16 = 200;

/// A connection, as the driver knows it.
pub struct Wire {
    port: u32,
    sent: u64,
    received: u64,
}

/// Connects, publishes with up to eight unacknowledged, and disconnects.
pub fn client(addr: SocketAddr, name: &str) -> Wire {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let port = u32::from(stream.local_addr().unwrap().port());
    let mut wire = Wire { port, sent: 0, received: 0 };
    let mut say = |stream: &mut TcpStream, packet: &[u8], answer: usize| {
        stream.write_all(packet).unwrap();
        let mut bytes = vec![0; answer];
        stream.read_exact(&mut bytes).unwrap();
        wire.sent += packet.len() as u64;
        wire.received += answer as u64;
        bytes
    };
    let mut connect = vec![0x10, 12 + name.len() as u8];
    connect.extend(b"\x00\x04MQTT\x04\x02\x00\x3c");
    connect.extend([0, name.len() as u8]);
    connect.extend(name.as_bytes());
    assert_eq!(say(&mut stream, &connect, 4), [0x20, 2, 0, 0]);
    for group in (1..=PUBLISHES).collect::<Vec<_>>().chunks(8) {
        let mut packets = Vec::new();
        for id in group {
            // Topics of all partitions, so of all shards.
            packets.extend([0x32, 8, 0, 2, b't', b'a' + (id % 16) as u8, (id >> 8) as u8, *id as u8, b'x', b'y']);
        }
        let acks = say(&mut stream, &packets, 4 * group.len());
        assert!(acks.chunks(4).all(|ack| ack[0] == 0x40));
    }
    say(&mut stream, &[0xe0, 0], 0);
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "nothing but acknowledgements comes");
    wire
}

/// Serves six clients, and returns what they saw and what was stamped.
fn serve(stack: Stack, settings: Settings) -> (Vec<Wire>, Vec<Stamp>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let data = tempfile::tempdir().unwrap();
    stamps::start();
    // Done inline, nothing is a pool's.
    let roles: &[&str] = if settings.files == Files::Inline { &["broker"] } else { &["broker", "blocking"] };
    let server = Server::start(stack, settings, data.path());
    let addr = server.addr;
    let clients: Vec<_> = (0..6).map(|n| std::thread::spawn(move || client(addr, &format!("client-{n}")))).collect();
    let wires = clients.into_iter().map(|thread| thread.join().unwrap()).collect();
    server.stop();
    let (meta, rows) = written();
    assert_eq!(meta.thinned, 0);
    for role in roles {
        assert!(meta.threads.iter().any(|(.., r)| r == role), "{stack}: {role} is not in {:?}", meta.threads);
    }
    (wires, rows)
}

/// Every byte that the driver saw is accounted for, in order, on both ways.
fn offsets_fit(wire: &Wire, rows: &[Stamp]) {
    let of = |event| rows.iter().filter(move |s| s.event == event && s.port == Some(wire.port));
    for (event, total) in [(Event::Read, wire.sent), (Event::Reply, wire.received)] {
        let mut offsets: Vec<u64> = of(event).map(|s| s.offset.unwrap()).collect();
        offsets.sort_unstable();
        assert_eq!(offsets.last(), Some(&total), "{event:?}");
        let before = offsets.len();
        offsets.dedup();
        assert_eq!(offsets.len(), before, "{event:?}: two rows for the same bytes");
    }
    let conns: std::collections::BTreeSet<_> =
        rows.iter().filter(|s| s.port == Some(wire.port)).map(|s| s.conn).collect();
    assert_eq!(conns.len(), 1, "one connection, also after it moved");
}

/// Every acknowledgement was released by a sync that waited for another operation, after both were done.
fn replies_follow_their_operations(stack: Stack, wire: &Wire, rows: &[Stamp]) {
    let operation = |shard: Option<u32>, op: Option<u64>| {
        rows.iter().find(|s| s.event == Event::Op && s.shard == shard && s.op == op)
    };
    let replies = rows.iter().filter(|s| s.event == Event::Reply && s.port == Some(wire.port));
    let (mut syncs, mut metas) = (0, 0);
    for reply in replies {
        let released =
            operation(reply.shard, reply.op).unwrap_or_else(|| panic!("{stack}: no operation for {reply:?}"));
        assert!(released.resumed_ns <= reply.queued_ns, "{stack}: {reply:?} before {released:?}");
        match released.name {
            "sync" => {
                syncs += 1;
                // Either its append released it, or a sync that was in its way.
                let before = operation(released.shard, released.after);
                let before = before.unwrap_or_else(|| panic!("{stack}: nothing before {released:?}"));
                assert!(matches!(before.name, "append" | "sync"), "{stack}: {before:?}");
                assert!(before.resumed_ns <= released.queued_ns, "{stack}: {before:?} then {released:?}");
            }
            "meta" => {
                metas += 1;
                let read = rows
                    .iter()
                    .find(|s| s.event == Event::Read && s.conn == released.conn && s.offset == released.offset);
                assert_eq!(read.unwrap().port, Some(wire.port), "{stack}: the CONNECT that caused it was read");
            }
            "peer" => syncs += 1,
            other => panic!("{stack}: released by {other}: {reply:?}"),
        }
    }
    assert!(metas >= 1 && syncs >= usize::from(PUBLISHES) / 8, "{stack}: {metas} and {syncs}");
}

#[test]
fn stamps_fit_the_wire_on_every_stack() {
    for stack in Stack::ALL {
        let settings = Settings { durability: Durability::Fdatasync, ..settings() };
        let (wires, rows) = serve(stack, settings);
        for wire in &wires {
            offsets_fit(wire, &rows);
            replies_follow_their_operations(stack, wire, &rows);
        }
        // What a pool does has its times there; what a ring does has not.
        for row in rows.iter().filter(|s| s.event == Event::Op) {
            let on_ring = stack.needs_uring() && matches!(row.name, "append" | "sync" | "read");
            assert_eq!(row.started_ns.is_none(), on_ring || ["peer", "meta"].contains(&row.name), "{stack}: {row:?}");
            assert!(row.resumed_ns.is_some());
        }
    }
}

/// Every task of a shell is there. Short polls are kept in some slices of time only; so a client that never pauses makes
/// them wait, which is always kept, and a few runs make up for what is left of chance.
#[test]
fn all_tasks_of_a_shell_leave_polls() {
    for stack in Stack::ALL {
        let mut missing = vec!["accept", "connection", "effect", "tick"];
        for _ in 0..10 {
            let (_, rows) = serve(stack, Settings { threads: 1, durability: Durability::Fdatasync, ..settings() });
            missing.retain(|role| !rows.iter().any(|s| s.event == Event::Poll && s.name == *role));
        }
        assert!(missing.is_empty(), "{stack}: no poll of {missing:?}");
    }
}

/// Reads say whose they are, rows say how many bytes they are, and a blocking call says who made it and what it used.
#[test]
fn rows_say_what_joins_them() {
    for stack in Stack::ALL {
        let (wires, rows) = serve(stack, Settings { durability: Durability::Fdatasync, ..settings() });
        for row in rows.iter().filter(|s| s.event == Event::Op && s.started_ns.is_some()) {
            let worker = row.worker.unwrap_or_else(|| panic!("{stack}: {row:?}"));
            assert_ne!(worker, row.thread, "{stack}: on the pool");
        }
        // Rows of one connection follow each other without a gap, but for what was read before it moved.
        for wire in &wires {
            for event in [Event::Read, Event::Reply] {
                let mut of: Vec<_> = rows.iter().filter(|s| s.event == event && s.port == Some(wire.port)).collect();
                of.sort_by_key(|s| s.offset);
                let span = |s: &Stamp| (s.offset.unwrap() - u64::from(s.count.unwrap()), s.offset.unwrap());
                assert_eq!(span(of[0]).0, 0, "{stack}: {event:?} begins with the first byte");
                for pair in of.windows(2) {
                    assert_eq!(span(pair[0]).1, span(pair[1]).0, "{stack}: {event:?}");
                }
            }
            let reads = rows.iter().filter(|s| s.event == Event::Read && s.port == Some(wire.port));
            let caused = |read: &Stamp| {
                rows.iter().find(|s| s.event == Event::Op && (s.conn, s.offset) == (read.conn, read.offset))
            };
            let same = reads.filter(|read| caused(read).is_some_and(|op| op.shard == read.shard)).count();
            assert!(same > 0, "{stack}: no read on the shard of what it caused");
        }
    }
}

#[test]
fn inline_operations_are_stamped_alike() {
    for stack in Stack::ALL {
        let settings = Settings {
            threads: 1,
            durability: Durability::Fdatasync,
            placement: Placement::Inline,
            files: Files::Inline,
            ..settings()
        };
        let (wires, rows) = serve(stack, settings);
        for wire in &wires {
            offsets_fit(wire, &rows);
            replies_follow_their_operations(stack, wire, &rows);
        }
        for row in rows.iter().filter(|s| s.event == Event::Op && matches!(s.name, "append" | "sync")) {
            assert!(row.started_ns.is_some() && row.finished_ns.is_some(), "{stack}: {row:?}");
            assert_eq!(row.worker, Some(row.thread), "{stack}: {row:?}");
        }
        // Those of a quiet moment at least were looked at.
        assert!(rows.iter().any(|s| s.name == "sync" && s.cpu_ns.is_some()), "{stack}");
    }
}
