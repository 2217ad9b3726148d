//! What every stack must do for a real client, over loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Client, Server, block_on, settings};
use regauge_runtimes::settings::{Durability, Files, Placement, Settings, Stack};
use regauge_runtimes::{ServeError, ServerRecord};
use rumqttc::QoS;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

/// One test per stack from one body.
macro_rules! on_every_stack {
    ($($body:ident),+ $(,)?) => {
        mod tokio_shared { $(#[test] fn $body() { super::$body(regauge_runtimes::settings::Stack::TokioShared) })+ }
        mod tokio_pinned { $(#[test] fn $body() { super::$body(regauge_runtimes::settings::Stack::TokioPinned) })+ }
        mod monoio { $(#[test] fn $body() { super::$body(regauge_runtimes::settings::Stack::Monoio) })+ }
        mod compio { $(#[test] fn $body() { super::$body(regauge_runtimes::settings::Stack::Compio) })+ }
    };
}

on_every_stack!(
    every_qos_arrives,
    a_session_survives_a_restart,
    connections_that_die_do_no_harm,
    large_messages_pass_both_ways,
    many_connections_are_served,
    a_stop_under_load_keeps_what_was_acknowledged,
    what_was_used_is_attested,
    cpus_are_kept_to,
    what_cannot_be_written_is_not_acknowledged,
);

/// Sessions on both shards publish at every QoS on topics of both shards; all of it arrives.
fn every_qos_arrives(stack: Stack) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(stack, settings(), dir.path());
    block_on(async {
        let (mut subscriber, _) = Client::connect(server.addr, "subscriber", true).await;
        subscriber.subscribe("t/#", QoS::ExactlyOnce).await;
        let mut sent = Vec::new();
        for id in 0..4 {
            let (mut publisher, ack) = Client::connect(server.addr, &format!("publisher-{id}"), true).await;
            assert!(!ack.session_present);
            for (n, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
                let (topic, payload) = (format!("t/{n}/{id}"), format!("{id}-{n}").into_bytes());
                publisher.publish(&topic, qos, payload.clone()).await;
                sent.push((topic, payload));
            }
            publisher.disconnect().await;
        }
        let mut received = Vec::new();
        for _ in 0..sent.len() {
            received.push(subscriber.message().await);
        }
        sent.sort();
        received.sort();
        assert_eq!(sent, received);
        subscriber.disconnect().await;
    });
    let record = server.stop();
    assert_eq!(record.counters.broker.connects, 5);
    assert_eq!(record.counters.broker.publishes, 12);
    assert_eq!(record.counters.broker.deliveries, 12);
    assert_eq!(record.digest.records, 8, "QoS 1 and 2 are kept");
    assert_eq!(record.counters.sockets.accepted, 5);
}

/// Subscriptions and messages for a client that is away, and the segments themselves, outlive the process.
fn a_session_survives_a_restart(stack: Stack) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { durability: Durability::Fdatasync, ..settings() };
    let server = Server::start(stack, settings.clone(), dir.path());
    block_on(async {
        let (mut client, ack) = Client::connect(server.addr, "stays", false).await;
        assert!(!ack.session_present);
        client.subscribe("t/+", QoS::AtLeastOnce).await;
        client.publish("t/1", QoS::AtLeastOnce, "before").await;
        assert_eq!(client.message().await.1, b"before");
        client.disconnect().await;
    });
    let before = server.stop();
    assert_eq!((before.digest.sessions, before.digest.records), (1, 1));

    let server = Server::start(stack, settings, dir.path());
    block_on(async {
        let (mut client, ack) = Client::connect(server.addr, "stays", false).await;
        assert!(ack.session_present);
        client.publish("t/1", QoS::AtLeastOnce, "after").await;
        assert_eq!(client.message().await.1, b"after", "the subscription is still there");
        client.disconnect().await;
    });
    let after = server.stop();
    assert_eq!((after.digest.sessions, after.digest.records), (1, 2));
    assert_eq!(after.digest.meta, before.digest.meta);
    assert_ne!(after.digest.segments, before.digest.segments);
}

/// Resets, half packets, nonsense and silence at any point: the next client is served as if nothing had been.
fn connections_that_die_do_no_harm(stack: Stack) {
    const CONNECT: &[u8] = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05dying";
    const PUBLISH: &[u8] = b"\x32\x08\x00\x01t\x00\x01abc";
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(stack, settings(), dir.path());
    for sent in [&b""[..], &CONNECT[..7], CONNECT, &[CONNECT, PUBLISH].concat(), b"GET / HTTP/1.1\r\n\r\n"] {
        for reset in [false, true] {
            let mut socket = TcpStream::connect(server.addr).unwrap();
            socket.write_all(sent).unwrap();
            if sent.starts_with(CONNECT) {
                let mut connack = [0; 4];
                socket.read_exact(&mut connack).unwrap();
                assert_eq!(connack, [0x20, 2, 0, 0]);
            }
            if reset {
                let linger = Some(std::time::Duration::ZERO);
                socket2::SockRef::from(&socket).set_linger(linger).unwrap();
            }
        }
    }
    block_on(async {
        let (mut client, _) = Client::connect(server.addr, "lives", true).await;
        // Another topic: what the dying ones published may still be on its way.
        client.subscribe("living", QoS::AtLeastOnce).await;
        client.publish("living", QoS::AtLeastOnce, "x").await;
        assert_eq!(client.message().await.1, b"x");
    });
    let record = server.stop();
    assert_eq!(record.counters.sockets.accepted, 11);
    assert_eq!(record.counters.broker.connects, 5);
}

/// Messages beyond the read buffer, the socket's buffer and the copy bound of the outbox.
fn large_messages_pass_both_ways(stack: Stack) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(stack, Settings { segment_bytes: 1 << 20, ..settings() }, dir.path());
    block_on(async {
        let (mut client, _) = Client::connect(server.addr, "large", true).await;
        client.subscribe("t", QoS::ExactlyOnce).await;
        for n in 0..12u8 {
            let payload: Vec<u8> = (0..700_000u32).map(|i| (i % 251) as u8 ^ n).collect();
            client.publish("t", QoS::ExactlyOnce, payload.clone()).await;
            assert!(client.message().await.1 == payload, "message {n} is changed");
        }
        client.disconnect().await;
    });
    let record = server.stop();
    assert_eq!(record.digest.records, 12);
    assert!(record.counters.broker.rolls >= 11, "{:?}", record.counters);
}

/// Connections at the same time, each with a publish that is acknowledged.
fn many_connections_are_served(stack: Stack) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(stack, settings(), dir.path());
    block_on(async {
        let mut clients = Vec::new();
        for n in 0..200 {
            clients.push(Client::connect(server.addr, &format!("c{n}"), n % 2 == 0).await.0);
        }
        for (n, client) in clients.iter_mut().enumerate() {
            client.publish(&format!("t/{n}"), QoS::AtLeastOnce, "x").await;
        }
        for client in clients {
            client.disconnect().await;
        }
    });
    let record = server.stop();
    assert_eq!(record.counters.broker.connects, 200);
    assert_eq!((record.digest.records, record.digest.sessions), (200, 100));
}

/// The server is stopped while publishes stream in: every acknowledged one is in the segments, and they read back.
fn a_stop_under_load_keeps_what_was_acknowledged(stack: Stack) {
    const CONNECT: &[u8] = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04load";
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(stack, Settings { durability: Durability::Fdatasync, ..settings() }, dir.path());
    let mut socket = TcpStream::connect(server.addr).unwrap();
    socket.write_all(CONNECT).unwrap();
    socket.read_exact(&mut [0; 4]).unwrap();
    let mut replies = socket.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        // Until the server closes; the topics lie on partitions of both shards.
        for id in (1..=u16::MAX).cycle() {
            let [high, low] = id.to_be_bytes();
            if socket.write_all(&[0x32, 8, 0, 1, b'a' + (low % 16), high, low, 1, 2, 3]).is_err() {
                return;
            }
        }
    });
    let reader = std::thread::spawn(move || {
        let (mut acks, mut buffer, mut bytes) = (0u64, [0; 4096], 0);
        while let Ok(read @ 1..) = replies.read(&mut buffer) {
            bytes += read as u64;
            acks = bytes / 4;
        }
        acks
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    let record = server.stop();
    writer.join().unwrap();
    let acks = reader.join().unwrap();
    assert!(acks > 0);
    assert!(record.digest.records >= acks, "{acks} acknowledged, {} stored", record.digest.records);
}

fn what_was_used_is_attested(stack: Stack) {
    let dir = tempfile::tempdir().unwrap();
    let record = Server::start(stack, settings(), dir.path()).stop();
    let attestation = &record.attestation;
    assert_eq!(attestation.stack, stack);
    assert_eq!(attestation.back_end, if stack.needs_uring() { "io_uring" } else { "epoll" });
    assert_eq!(attestation.blocking_threads, 4);
    assert_eq!(attestation.iowq_bounded, stack.needs_uring().then_some(4));
    let prefix = if stack.is_pinned() { "shard-" } else { "tokio-worker" };
    let workers = attestation.threads.iter().filter(|thread| thread.name.starts_with(prefix)).count();
    assert!(workers >= 2, "{:?}", attestation.threads);
    let json = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<ServerRecord>(&json).unwrap(), record);
}

/// Shards of pinned stacks have a CPU each; everything else, pools and RocksDB included, has all CPUs of the server.
fn cpus_are_kept_to(stack: Stack) {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpus: Vec<usize> = (0..1024).filter(|&cpu| allowed.is_set(cpu)).take(2).collect();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(stack, Settings { cpus: cpus.clone(), ..settings() }, dir.path());
    block_on(async {
        for n in 0..4 {
            let (mut client, _) = Client::connect(server.addr, &format!("c{n}"), false).await;
            client.publish("t", QoS::AtLeastOnce, "x").await;
        }
    });
    let threads = server.stop().attestation.threads;
    let all = cpus.iter().map(usize::to_string).collect::<Vec<_>>();
    for thread in &threads {
        let shard = thread.name.strip_prefix("shard-").and_then(|n| n.parse::<usize>().ok());
        let expected = match shard {
            Some(shard) => vec![all[shard % all.len()].clone()],
            None => all.clone(),
        };
        // The kernel writes neighbours as a range.
        assert_eq!(thread.cpus_allowed.split([',', '-']).collect::<Vec<_>>(), expected, "{thread:?} of {threads:?}");
    }
}

/// The first publish needs a segment, whose directory has become a file: no acknowledgement, and the run fails.
fn what_cannot_be_written_is_not_acknowledged(stack: Stack) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(stack, settings(), dir.path());
    std::fs::remove_dir(dir.path().join("segments")).unwrap();
    std::fs::write(dir.path().join("segments"), "x").unwrap();
    let mut socket = TcpStream::connect(server.addr).unwrap();
    socket.write_all(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04halt").unwrap();
    socket.read_exact(&mut [0; 4]).unwrap();
    socket.write_all(b"\x32\x08\x00\x01t\x00\x01abc").unwrap();
    let mut replies = Vec::new();
    // The server closes: by an end of stream, or by a reset because it did not read everything.
    let _end = socket.read_to_end(&mut replies);
    assert!(replies.is_empty(), "{replies:?} was acknowledged");
    let error = server.fail();
    assert!(matches!(error, ServeError::Halted(_)), "{error}");
    assert!(error.to_string().contains("segments/p"), "it names the path: {error}");
}

/// One workload, driven in order, on every stack and arm: equal digests, and equal counts of what the protocol fixes.
#[test]
fn equal_work_gives_equal_digests() {
    let mut records = Vec::new();
    for stack in Stack::ALL {
        for (threads, files, placement, durability) in [
            (1, Files::Native, Placement::Offload, Durability::None),
            (2, Files::Inline, Placement::Inline, Durability::Fdatasync),
            (3, Files::Native, Placement::Inline, Durability::Every(3)),
            (2, Files::Inline, Placement::Offload, Durability::OnSeal),
        ] {
            let settings = Settings { threads, files, placement, durability, segment_bytes: 2000, ..settings() };
            let dir = tempfile::tempdir().unwrap();
            records.push((format!("{stack} {settings:?}"), drive_work(stack, settings, dir.path())));
        }
    }
    let (base_name, base) = &records[0];
    assert_eq!((base.digest.records, base.digest.sessions), (48, 2));
    for (name, record) in &records {
        assert_eq!(record.digest, base.digest, "{name} differs from {base_name}");
        let counts = |r: &ServerRecord| (r.counters.broker.connects, r.counters.broker.publishes);
        assert_eq!(counts(record), counts(base), "{name} differs from {base_name}");
    }
}

fn drive_work(stack: Stack, settings: Settings, data: &Path) -> ServerRecord {
    let server = Server::start(stack, settings, data);
    block_on(async {
        let (mut first, _) = Client::connect(server.addr, "first", false).await;
        let (mut second, _) = Client::connect(server.addr, "second", false).await;
        let (mut third, _) = Client::connect(server.addr, "third", true).await;
        first.subscribe("t/0", QoS::AtLeastOnce).await;
        second.subscribe("u/#", QoS::ExactlyOnce).await;
        third.subscribe("#", QoS::AtMostOnce).await;
        for n in 0..8 {
            for (client, name) in [(&mut first, "first"), (&mut second, "second"), (&mut third, "third")] {
                let payload = format!("{name} {n}");
                client.publish(&format!("t/{}", n % 7), QoS::AtLeastOnce, payload.clone()).await;
                client.publish(&format!("u/{}", n % 5), QoS::ExactlyOnce, payload.clone()).await;
                client.publish("v", QoS::AtMostOnce, payload).await;
            }
        }
        for client in [first, second, third] {
            client.disconnect().await;
        }
    });
    server.stop()
}
