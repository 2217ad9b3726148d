//! Makes the stamps of a run of CONNECTs with known truth: every moment of every request is known, and so is what it was
//! spent on. What is planted is planted in one place only.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use super::Random;
use regauge_analysis::lanes::{Connection, Request, RunInput};
use regauge_traces::stamps::{Event, Stamp, StampsMeta};

pub const T0: u64 = 5_000_000_000;
pub const SHARD: u32 = 100;
pub const META: u32 = 200;
pub const POOL: u32 = 300;

pub fn blank(event: Event, name: &'static str, thread: u32) -> Stamp {
    Stamp::new(event, name, thread)
}

pub fn meta() -> StampsMeta {
    let thread = |id, name: &str, role: &str| (id, name.to_owned(), role.to_owned());
    StampsMeta {
        clock: "clock_gettime".into(),
        slice_every: 1,
        long_poll_ns: 50_000,
        run_delay: true,
        threads: vec![thread(SHARD, "shard-0", "broker"), thread(META, "meta", "meta"), thread(META, "meta", "server")],
        ..StampsMeta::default()
    }
}

/// What is planted into some of the set_last_applied calls (or, for the queue, before the batcher sends), ns.
#[derive(Debug, Clone, Copy, Default)]
pub struct Planted {
    /// Result ready, task not polled.
    pub woken: u64,
    /// Thread ready, no CPU, within the call.
    pub runnable: u64,
    /// Thread busy within the call.
    pub spin: u64,
    pub wal: u64,
    pub delay: u64,
    pub thread_wait: u64,
    /// Asleep in the call, and RocksDB does not say why.
    pub sleep: u64,
    /// Other proposals under way before ours is sent.
    pub queued: u64,
    /// Behind openraft's read of the log, before the entry is applied.
    pub behind: u64,
}

#[derive(Debug, Clone, Default)]
pub struct World {
    pub requests: Vec<Request>,
    pub connections: Vec<Connection>,
    pub stamps: Vec<Stamp>,
    pub meta: StampsMeta,
}

impl World {
    pub fn input(&self) -> RunInput<'_> {
        self.on("tokio-pinned")
    }

    pub fn on<'a>(&'a self, stack: &'a str) -> RunInput<'a> {
        RunInput {
            stack,
            t0_ns: T0,
            requests: &self.requests,
            connections: &self.connections,
            stamps: &self.stamps,
            meta: &self.meta,
        }
    }
}

/// `requests` CONNECTs 10 ms apart; every `every`-th has what is planted, jittered by a tenth.
pub fn connects(requests: u64, every: u64, planted: Planted, seed: u64) -> World {
    connects_with(requests, |i| if i % every == every - 1 { planted } else { Planted::default() }, seed)
}

/// `requests` CONNECTs 10 ms apart, each with what is planted into it, jittered by a tenth.
pub fn connects_with(requests: u64, mut planted: impl FnMut(u64) -> Planted, seed: u64) -> World {
    let mut random = Random(seed);
    let mut world = World { meta: meta(), ..World::default() };
    for i in 0..requests {
        let mut jitter = |ns: u64| (ns as f64 * (0.9 + 0.2 * random.uniform())) as u64;
        connect(&mut world, i, &mut jitter, planted(i));
    }
    world
}

fn connect(world: &mut World, i: u64, jitter: &mut dyn FnMut(u64) -> u64, planted: Planted) {
    let planned = i * 10_000_000;
    let (port, index) = (40_000 + (i % 20_000) as u32, i + 1);
    let mut at = T0 + planned;
    let mut pass = |ns: u64| {
        at += ns;
        at
    };
    let sent = pass(jitter(2_000));
    let woken = pass(jitter(30_000));
    let started = pass(jitter(5_000));
    let read = pass(jitter(4_000));
    let queued = pass(jitter(3_000));
    let batched = pass(jitter(6_000) + jitter(planted.queued));
    let received = pass(jitter(40_000));
    let proposed = pass(jitter(8_000));
    let mut calls = Vec::new();
    for name in ["raft_append", "committed", "set_last_applied"] {
        let mut call = blank(Event::Call, name, META);
        let mut plant = |ns: u64| if name == "set_last_applied" { jitter(ns) } else { 0 };
        let (spin, runnable) = (plant(planted.spin), plant(planted.runnable));
        let (wal, delay, wait) = (plant(planted.wal), plant(planted.delay), plant(planted.thread_wait));
        let (sleep, woken) = (plant(planted.sleep), plant(planted.woken));
        let behind = plant(planted.behind);
        if behind > 0 {
            let mut read = blank(Event::Call, "other", META);
            (read.first, read.count) = (Some(index), Some(1));
            read.started_ns = Some(pass(0));
            read.finished_ns = Some(pass(behind));
            (read.cpu_ns, read.run_delay_ns) = (Some(0), Some(0));
            calls.push(read);
        }
        call.queued_ns = Some(pass(jitter(2_000)));
        call.started_ns = Some(pass(0));
        let cpu = jitter(15_000) + spin;
        call.finished_ns = Some(pass(cpu + runnable + wal + delay + wait + sleep));
        call.woken_ns = call.finished_ns;
        call.resumed_ns = Some(pass(woken));
        (call.first, call.count) = (Some(index), Some(1));
        (call.cpu_ns, call.run_delay_ns) = (Some(cpu), Some(runnable));
        // As RocksDB counts: the WAL's wall time holds the CPU time of writing it.
        (call.wal_ns, call.memtable_ns) = (Some(wal), Some(2_000));
        (call.delay_ns, call.thread_wait_ns) = (Some(delay), Some(wait));
        calls.push(call);
    }
    let committed = pass(jitter(9_000));
    let answered = pass(jitter(3_000));
    let returned = pass(jitter(40_000));
    let result = pass(jitter(2_000));
    let resumed = pass(jitter(5_000));
    let replied = pass(jitter(2_000));
    let written = pass(jitter(9_000));
    let end = pass(jitter(30_000));

    let mut stamp = blank(Event::Read, "", SHARD);
    (stamp.shard, stamp.conn, stamp.port, stamp.offset, stamp.count) =
        (Some(0), Some(i), Some(port), Some(60), Some(60));
    (stamp.woken_ns, stamp.started_ns, stamp.resumed_ns) = (Some(woken), Some(started), Some(read));
    world.stamps.push(stamp);
    let mut stamp = blank(Event::Op, "meta", SHARD);
    (stamp.shard, stamp.conn, stamp.offset, stamp.op) = (Some(0), Some(i), Some(60), Some(i));
    (stamp.proposal, stamp.queued_ns) = (Some(i), Some(queued));
    (stamp.woken_ns, stamp.resumed_ns) = (Some(result), Some(resumed));
    world.stamps.push(stamp);
    let mut stamp = blank(Event::Proposal, "", SHARD);
    (stamp.proposal, stamp.first, stamp.queued_ns) = (Some(i), Some(index), Some(queued));
    (stamp.sent_ns, stamp.received_ns, stamp.proposed_ns) = (Some(batched), Some(received), Some(proposed));
    (stamp.committed_ns, stamp.answered_ns, stamp.returned_ns) = (Some(committed), Some(answered), Some(returned));
    world.stamps.push(stamp);
    world.stamps.extend(calls);
    let mut stamp = blank(Event::Reply, "", SHARD);
    (stamp.shard, stamp.conn, stamp.port, stamp.offset, stamp.count) = (Some(0), Some(i), Some(port), Some(9), Some(9));
    (stamp.op, stamp.queued_ns, stamp.finished_ns) = (Some(i), Some(replied), Some(written));
    world.stamps.push(stamp);

    world.connections.push(Connection { connection: i as u32, port, opened_ns: planned });
    world.requests.push(Request {
        op_id: i,
        step: "connect".into(),
        flags: 0,
        planned_ns: planned,
        sent_ns: Some(sent - T0),
        latency_ns: Some(end - T0 - planned),
        connection: Some(i as u32),
        sent_offset: Some(60),
        reply_offset: Some(9),
    });
}
