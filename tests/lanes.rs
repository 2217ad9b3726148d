//! What is planted into a running program grows in its lane and in no other: stamps of a real runtime, read as lanes.
//!
//! The program is a broker in small on a tokio runtime with one thread: it reads CONNECTs from a socket, hands each to a
//! task that makes the meta-service's call, and answers. `runtimes/tests/stamps` plants the same on every runtime, and
//! looks at the stamps alone. Lanes are compared with each other, never with a clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use regauge_analysis::lanes::{Connection, Lane, Lanes, Request, RunInput, RunLanes};
use regauge_replayer::drive::poll::monotonic_ns;
use regauge_runtimes::affinity;
use regauge_runtimes::broker::effect::{ConnId, OpId};
use regauge_runtimes::stamps::{self, Call, Cause, Mark, Operation, Role, Step, indexed, mark, timed, usage};
use regauge_traces::stamps::read_stamps;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

const REQUESTS: u64 = 24;
const CONNECT_BYTES: usize = 60;
const CONNACK_BYTES: usize = 9;
const MS: u64 = 1_000_000;

/// Stamps are the process's.
static TURN: Mutex<()> = Mutex::new(());

/// What is planted beside, or into, the call of each CONNECT.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Plant {
    Nothing,
    /// The call burns CPU.
    Spin,
    /// The call sleeps.
    Sleep,
    /// The result waits behind tasks that became ready before it.
    ReadyTasks,
    /// Others burn the CPU while the call does.
    Neighbours,
}

/// By the thread's own clock, so that neighbours make it longer and not shorter.
fn spin_for_cpu_time(ns: u64) {
    let reader = usage::UsageReader::of_this_thread();
    let begin = reader.read().cpu_ns;
    while reader.read().cpu_ns < begin + ns {
        std::hint::spin_loop();
    }
}

/// The meta-service's side of a proposal.
async fn propose(proposal: u64, plant: Plant, answer: oneshot::Sender<()>) {
    mark(proposal, Mark::Received);
    mark(proposal, Mark::Proposed);
    indexed(proposal, proposal);
    let call = Call::queued(Step::SetLastApplied, proposal, 1);
    let (_, ran) = call.run(|| match plant {
        Plant::Spin => spin_for_cpu_time(20 * MS),
        Plant::Sleep => std::thread::sleep(Duration::from_millis(16)),
        // With and without neighbours the same work, longer than a thread has its CPU at a stretch beside others.
        Plant::Neighbours | Plant::Nothing | Plant::ReadyTasks => spin_for_cpu_time(6 * MS),
    });
    ran.resumed();
    mark(proposal, Mark::Committed);
    mark(proposal, Mark::Answered);
    mark(proposal, Mark::Returned);
    if plant == Plant::ReadyTasks {
        for _ in 0..40 {
            tokio::task::spawn_local(timed(Role::Tick, async { spin_for_cpu_time(MS / 2) }));
        }
    }
    answer.send(()).unwrap();
}

/// Serves one connection until it is closed.
async fn serve(listener: TcpListener, plant: Plant) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut reads, mut replies) = stamps::wire(0, ConnId(1), &stream, 0);
    let (stream, mut buffer) = (Rc::new(stream), [0; CONNECT_BYTES]);
    for nth in 1.. {
        stream.readable().await.unwrap();
        match stream.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => assert_eq!(read, CONNECT_BYTES, "one CONNECT at a time"),
            Err(_) => continue,
        }
        let cause = reads.got(CONNECT_BYTES);
        let operation = Operation::queued("meta", 0, OpId(nth)).carried_by(nth);
        mark(nth, Mark::Sent);
        drop(cause);
        let (answer, answered) = oneshot::channel();
        tokio::task::spawn_local(timed(Role::Raft, propose(nth, plant, answer)));
        let own = Rc::clone(&stream);
        let effect = tokio::task::spawn_local(timed(Role::Effect, async move {
            answered.await.unwrap();
            let _cause = Cause::input(&operation.done(Err(String::new())));
            replies.pushed(CONNACK_BYTES);
            assert_eq!(own.try_write(&[0; CONNACK_BYTES]).unwrap(), CONNACK_BYTES);
            replies.wrote(CONNACK_BYTES);
            replies
        }));
        replies = effect.await.unwrap();
    }
}

/// Sends one CONNECT after the other, and notes what the driver would.
fn drive(to: SocketAddr, t0_ns: u64) -> (Vec<Request>, Connection) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    let port = u32::from(stream.local_addr().unwrap().port());
    let connection = Connection { connection: 0, port, opened_ns: 0 };
    let request = |nth: u64| {
        let planned = monotonic_ns();
        stream.write_all(&[0; CONNECT_BYTES]).unwrap();
        let sent = monotonic_ns();
        stream.read_exact(&mut [0; CONNACK_BYTES]).unwrap();
        Request {
            op_id: nth,
            step: "connect".into(),
            flags: 0,
            planned_ns: planned - t0_ns,
            sent_ns: Some(sent - t0_ns),
            latency_ns: Some(monotonic_ns() - planned),
            connection: Some(0),
            sent_offset: Some(nth * CONNECT_BYTES as u64),
            reply_offset: Some(nth * CONNACK_BYTES as u64),
        }
    };
    ((1..=REQUESTS).map(request).collect(), connection)
}

/// The median of each lane over the requests of a run.
fn measure(plant: Plant, cpu: usize) -> Lanes {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stamps.parquet");
    let t0_ns = monotonic_ns();
    stamps::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        affinity::bind_thread(&[cpu]).unwrap();
        stamps::this_thread("all");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.spawn_local(timed(Role::Connection, serve(listener, plant)));
        runtime.block_on(local);
    });
    let stop = Arc::new(AtomicBool::new(false));
    let burn = |stop: Arc<AtomicBool>| {
        std::thread::spawn(move || {
            affinity::bind_thread(&[cpu]).unwrap();
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        })
    };
    let burning = if plant == Plant::Neighbours { 3 } else { 0 };
    let neighbours: Vec<_> = (0..burning).map(|_| burn(Arc::clone(&stop))).collect();
    let (requests, connection) = drive(address, t0_ns);
    stop.store(true, Ordering::Relaxed);
    neighbours.into_iter().for_each(|thread| thread.join().unwrap());
    server.join().unwrap();
    stamps::write(&path).unwrap();
    let (meta, rows) = read_stamps(&path).unwrap();
    let connections = [connection];
    let input = RunInput {
        stack: "tokio-pinned",
        t0_ns,
        requests: &requests,
        connections: &connections,
        stamps: &rows,
        meta: &meta,
    };
    let run = RunLanes::of(&input);
    let of: Vec<Lanes> = run.requests.iter().map(|request| request.lanes.expect("stamps of each request")).collect();
    assert_eq!(of.len() as u64, REQUESTS);
    for request in &run.requests {
        assert_eq!(request.lanes.unwrap().total(), request.latency_ns, "lanes add up");
    }
    let mut median = Lanes::default();
    for lane in Lane::ALL {
        let mut times: Vec<u64> = of.iter().map(|lanes| lanes.get(lane)).collect();
        times.sort_unstable();
        median.add(lane, times[times.len() / 2]);
    }
    median
}

/// The right lane grows by more than half of all that grows, and no other by as much as a quarter. What other programs
/// take of the CPU grows too, and says so in its own lane: so a busy moment of the host has a few more chances.
fn grows(plant: Plant, expected: Lane) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let cpu = first_cpu();
    let seen: Vec<String> = (0..5).map_while(|_| only_one_grows(plant, expected, cpu).err()).collect();
    assert!(seen.len() < 5, "{plant:?}, five times: {seen:#?}");
}

fn only_one_grows(plant: Plant, expected: Lane, cpu: usize) -> Result<(), String> {
    let (base, planted) = (measure(Plant::Nothing, cpu), measure(plant, cpu));
    let grown = |lane: Lane| planted.get(lane).saturating_sub(base.get(lane));
    let all: u64 = Lane::ALL.into_iter().map(grown).sum();
    for lane in Lane::ALL {
        if lane == expected && grown(lane) * 2 <= all {
            return Err(format!("{lane:?} grew little: {base:?}, then {planted:?}"));
        }
        if lane != expected && grown(lane) * 4 >= all {
            return Err(format!("{lane:?} grew too: {base:?}, then {planted:?}"));
        }
    }
    Ok(())
}

/// A CPU that this process may use.
fn first_cpu() -> usize {
    let cpus = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let list = cpus.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
    list.split([',', '-']).next().unwrap().parse().unwrap()
}

#[test]
fn a_spin_in_the_call_is_on_the_cpu() {
    grows(Plant::Spin, Lane::OnCpu);
}

#[test]
fn a_sleep_in_the_store_is_storage() {
    grows(Plant::Sleep, Lane::OtherStorage);
}

#[test]
fn ready_tasks_before_the_result_are_the_runtimes_queue() {
    grows(Plant::ReadyTasks, Lane::WokenPolled);
}

#[test]
fn neighbours_on_the_cpu_are_run_delay() {
    if !usage::has_run_delay() {
        println!("this kernel has no schedstat, so nobody knows what threads waited for: not tested");
        return;
    }
    grows(Plant::Neighbours, Lane::Runnable);
}
