//! What only the io_uring stacks must prove: the ring and its workers are what the settings say, thousands of reads may be
//! in flight, connections move between rings, and nothing that a client does keeps a ring from ending.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Server, settings};
use regauge_runtimes::settings::{Durability, Placement, Settings, Stack};
use regauge_runtimes::{ServeConfig, Stop, serve};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

const STACKS: [Stack; 2] = [Stack::Monoio, Stack::Compio];
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

/// QoS 1 on topic `t`.
fn publish(id: u8) -> [u8; 10] {
    [0x32, 8, 0, 1, b't', 0, id, b'a', b'b', b'c']
}

fn puback(id: u8) -> [u8; 4] {
    [0x40, 2, 0, id]
}

/// MQTT 3.1.1 with clean session and a keep-alive of 60 s.
fn connect_packet(client: &str) -> Vec<u8> {
    let mut packet = vec![0x10, 12 + client.len() as u8];
    packet.extend(b"\x00\x04MQTT\x04\x02\x00\x3c");
    packet.extend([0, client.len() as u8]);
    packet.extend(client.as_bytes());
    packet
}

fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(common::LIMIT)).unwrap();
    socket
}

fn expect(socket: &mut TcpStream, reply: [u8; 4]) {
    let mut read = [0; 4];
    socket.read_exact(&mut read).unwrap();
    assert_eq!(read, reply);
}

fn refused(stack: Stack, settings: Settings) -> String {
    let dir = tempfile::tempdir().unwrap();
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let config = ServeConfig { listen, ..ServeConfig::local(stack, settings, dir.path().to_owned()) };
    let stop = Stop::new();
    let own_stop = stop.clone();
    serve(config, stop, move |_| own_stop.stop()).expect_err("the stack starts").to_string()
}

/// 5,000 connections at a time, every one with a read in flight and a publish that is acknowledged; about half of them
/// moved to the other shard's ring.
#[test]
fn five_thousand_connections_are_served() {
    const CONNECTIONS: usize = 5000;
    for stack in STACKS {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(stack, settings(), dir.path());
        let mut sockets: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(server.addr)).collect();
        for (n, socket) in sockets.iter_mut().enumerate() {
            socket.write_all(&connect_packet(&format!("client-{n}"))).unwrap();
        }
        sockets.iter_mut().for_each(|socket| expect(socket, CONNACK));
        for _ in 0..3 {
            sockets.iter_mut().for_each(|socket| socket.write_all(&publish(1)).unwrap());
            sockets.iter_mut().for_each(|socket| expect(socket, puback(1)));
        }
        let record = server.stop();
        let counters = record.counters;
        assert_eq!((counters.sockets.accepted, counters.broker.connects), (5000, 5000), "{stack}");
        assert_eq!((counters.sockets.accept_errors, counters.sockets.slow_consumers), (0, 0), "{stack}");
        assert_eq!(record.digest.records, 15_000, "{stack}");
        assert!((1000..4000).contains(&counters.broker.migrations), "{stack}: {counters:?}");
    }
}

/// What a client sends before and while its connection moves to another ring arrives in order and once.
#[test]
fn a_connection_moves_with_everything_it_sent() {
    for stack in STACKS {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(stack, Settings { threads: 3, ..settings() }, dir.path());
        for n in 0..60 {
            let mut socket = connect(server.addr);
            let packet = connect_packet(&format!("moving-{n}"));
            let (first, second) = packet.split_at(n % packet.len());
            socket.write_all(first).unwrap();
            if n % 2 == 0 {
                // The packet comes in two reads.
                std::thread::sleep(Duration::from_millis(2));
            }
            socket.write_all(&[second, &publish(1), &publish(2)].concat()).unwrap();
            socket.write_all(&publish(3)).unwrap();
            expect(&mut socket, CONNACK);
            (1..4).for_each(|id| expect(&mut socket, puback(id)));
        }
        let record = server.stop();
        assert_eq!(record.digest.records, 180, "{stack}");
        assert_eq!(record.counters.broker.connects, 60, "{stack}");
        assert!(record.counters.broker.migrations > 10, "{stack}: {:?}", record.counters);
    }
}

/// More blocking calls at once than the pools have threads: none is lost, and none holds up its shard for good.
#[test]
fn a_narrow_pool_serves_everyone() {
    for stack in STACKS {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { blocking_threads: 1, placement: Placement::Offload, ..settings() };
        let server = Server::start(stack, settings, dir.path());
        let mut sockets: Vec<TcpStream> = (0..300).map(|_| connect(server.addr)).collect();
        for (n, socket) in sockets.iter_mut().enumerate() {
            socket.write_all(&connect_packet(&format!("client-{n}"))).unwrap();
        }
        sockets.iter_mut().for_each(|socket| expect(socket, CONNACK));
        let record = server.stop();
        assert_eq!(record.counters.broker.connects, 300, "{stack}");
        assert_eq!(record.attestation.blocking_threads, 2, "{stack}: at least one for each shard");
    }
}

/// Clients that do not read what they subscribed to, open, half closed, or gone while it is written to them.
#[test]
fn clients_that_do_not_read_do_not_keep_the_ring() {
    for stack in STACKS {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(stack, settings(), dir.path());
        let mut deaf = Vec::new();
        for n in 0..3 {
            let mut socket = connect(server.addr);
            socket.write_all(&connect_packet(&format!("deaf-{n}"))).unwrap();
            expect(&mut socket, CONNACK);
            socket.write_all(b"\x82\x06\x00\x01\x00\x01t\x00").unwrap();
            let mut suback = [0; 5];
            socket.read_exact(&mut suback).unwrap();
            deaf.push(socket);
        }
        let mut publisher = connect(server.addr);
        publisher.write_all(&connect_packet("publisher")).unwrap();
        expect(&mut publisher, CONNACK);
        // QoS 0, 16 MiB in all: more than the socket buffers of both sides hold.
        let large = [&b"\x30\x83\x80\x04\x00\x01t"[..], &[7; 65536]].concat();
        for n in 0..256 {
            publisher.write_all(&large).unwrap();
            match n {
                100 => deaf[0].shutdown(Shutdown::Write).unwrap(),
                150 => drop(deaf.pop()),
                _ => {}
            }
        }
        publisher.write_all(&publish(1)).unwrap();
        expect(&mut publisher, puback(1));
        let record = server.stop();
        assert_eq!(record.counters.broker.publishes, 257, "{stack}");
    }
}

/// The kernel confirms the ring's entries and workers, and workers of a pinned shard run on all CPUs of the server.
#[test]
fn the_ring_is_what_the_settings_say() {
    let cpus: Vec<usize> = {
        let mask = rustix::thread::sched_getaffinity(None).unwrap();
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| mask.is_set(cpu)).take(2).collect()
    };
    for stack in STACKS {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            threads: 1,
            cpus: cpus.clone(),
            iowq_bounded: 7,
            ring_entries: 512,
            durability: Durability::Fdatasync,
            ..settings()
        };
        let server = Server::start(stack, settings, dir.path());
        let mut socket = connect(server.addr);
        socket.write_all(&connect_packet("client")).unwrap();
        expect(&mut socket, CONNACK);
        // Long enough for a worker to be started, and to be seen by the thread that gives it its CPUs.
        for _ in 0..100 {
            socket.write_all(&publish(1)).unwrap();
            expect(&mut socket, puback(1));
            std::thread::sleep(Duration::from_millis(1));
        }
        let attestation = server.stop().attestation;
        assert_eq!((attestation.back_end.as_str(), attestation.rings), ("io_uring", 1), "{stack}");
        assert_eq!((attestation.iowq_bounded, attestation.ring_entries), (Some(7), Some(512)), "{stack}");
        let list = |cpus: &[usize]| cpus.iter().map(usize::to_string).collect::<Vec<_>>();
        let (all, own) = (list(&cpus), list(&cpus[..1]).concat());
        let on_all = |allowed: &str| allowed == all.join("-") || allowed == all.join(",");
        let allowed = |prefix: &str| {
            let threads = attestation.threads.iter().filter(|thread| thread.name.starts_with(prefix));
            threads.map(|thread| thread.cpus_allowed.clone()).collect::<Vec<_>>()
        };
        assert_eq!(allowed("shard-0"), [own], "{stack}");
        let workers = allowed("iou-wrk");
        assert!(!workers.is_empty() && workers.iter().all(|w| on_all(w)), "{stack}: {:?}", attestation.threads);
    }
}

#[test]
fn a_ring_of_another_size_is_refused() {
    let small = refused(Stack::Monoio, Settings { ring_entries: 64, ..settings() });
    assert!(small.contains("64 entries was asked for, but has 256"), "{small}");
    for stack in STACKS {
        let odd = refused(stack, Settings { ring_entries: 1000, ..settings() });
        assert!(odd.contains("1000 entries was asked for, but has 1024") && odd.contains("power of two"), "{odd}");
        let huge = refused(stack, Settings { ring_entries: 1 << 20, ..settings() });
        assert!(huge.contains("power of two from 2 to 32768"), "{huge}");
    }
}

/// Where the kernel refuses io_uring, the stack ends with what to do about it, and does not fall back to epoll.
#[test]
fn without_io_uring_the_stack_does_not_start() {
    for stack in STACKS {
        for (errno, sentence) in [(libc::EPERM, "io_uring is forbidden here"), (libc::ENOSYS, "has no io_uring")] {
            let error = std::thread::spawn(move || {
                forbid_io_uring(errno);
                refused(stack, settings())
            });
            let error = error.join().unwrap();
            assert!(error.contains(sentence) && error.contains("choose a tokio stack"), "{stack}: {error}");
        }
    }
}

/// Makes io_uring_setup fail on the calling thread and those that it starts, as a container's seccomp profile would.
fn forbid_io_uring(errno: i32) {
    let instruction = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_io_uring_setup as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `program` points to a filter of `len` instructions; the kernel copies it during the call.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program)
    };
    assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
}
