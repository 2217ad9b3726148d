//! The sample study: five arms, twelve blocks of CONNECTs, the whole layout as the replayer writes it, small enough for
//! the repository. Its truth is planted: now and then the write of set_last_applied waits, most of it for other writers
//! of RocksDB's queue and for the WAL. A thread of its own for RocksDB removes most of that; another runtime removes the
//! little that is the runtime's queue; so the right answer is FIX IN PLACE.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use crate::common::planted::write_samples;
use crate::common::stamps::{Planted, T0, World, connects_with};
use crate::common::{ArmSpec, Random, Spec, write_study};
use regauge_traces::stamps::write_stamps;
use regauge_traces::study::sample_flags::WARMUP;
use regauge_traces::study::{Design, Gate, Manifest, RunRecord, Stage, run_dir};
use regauge_traces::{Profile, SynthParams, synth, write_sealed};
use serde_json::json;
use std::fs;
use std::path::Path;

const BLOCKS: u32 = 12;
const REQUESTS: u64 = 1_200;
const WARMUP_NS: u64 = 1_000_000_000;
/// Runs of these blocks have stamps; those of all would be too large.
const STAMPED: std::ops::Range<u32> = 0..2;
/// A block in which one run failed a gate, and which was run again at the end.
const FLAGGED: (u32, &str) = (4, "monoio");

/// One arm's truth: what a slow write waits for, ns, and what every request waits to be polled.
struct Truth {
    arm: &'static str,
    stack: &'static str,
    placement: &'static str,
    queue_ns: f64,
    wal_ns: f64,
    woken_ns: f64,
    every_ns: f64,
}

const ARMS: [Truth; 5] = [
    Truth { arm: "tokio-shared", stack: "tokio-shared", placement: "offload", ..BASE },
    Truth { arm: "tokio-shared-again", stack: "tokio-shared", placement: "offload", ..BASE },
    Truth { arm: "tokio-own-thread", stack: "tokio-shared", placement: "own-thread", queue_ns: 0.9e6, ..BASE },
    Truth { arm: "monoio", stack: "monoio", queue_ns: 0.9e6, woken_ns: 0.2e6, every_ns: 14e3, ..BASE },
    Truth { arm: "compio", stack: "compio", placement: "offload", woken_ns: 0.2e6, every_ns: 16e3, ..BASE },
];
const BASE: Truth = Truth {
    arm: "",
    stack: "",
    placement: "own-thread",
    queue_ns: 4.2e6,
    wal_ns: 0.9e6,
    woken_ns: 0.5e6,
    every_ns: 24e3,
};

/// Writes the study; `dir` should be empty.
pub fn write_sample(dir: &Path) {
    let arms =
        ARMS.iter().map(|truth| ArmSpec::new(truth.arm, truth.stack, 0.0).set("placement", json!(truth.placement)));
    write_study(dir, &Spec { blocks: 0, arms: arms.collect(), ..Spec::small() });
    let mut trace = synth(&SynthParams { clients: REQUESTS as u32, ..SynthParams::new(Profile::MqttxConn) }).unwrap();
    trace.spans.truncate(REQUESTS as usize);
    // The made-up driver sends packets of 60 bytes.
    trace.spans.iter_mut().for_each(|span| span.bytes = 60);
    write_sealed(dir.join("trace.parquet"), &trace.meta, &trace.spans).unwrap();
    let path = dir.join("study.json");
    let mut manifest: Manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest.workload_hash = regauge_traces::workload_hash(&trace.spans);
    manifest.blocks = BLOCKS;
    manifest.stages = vec![Stage { created: manifest.created.clone(), blocks: BLOCKS, sized: false }];
    (manifest.requests, manifest.duration_ns) = (REQUESTS, REQUESTS * 10_000_000);
    manifest.warmup_ns = WARMUP_NS;
    manifest.stamps = true;
    manifest.trace_source = "mqttx-conn (100 connects/s); latencies are made up, nothing was measured".into();
    manifest.command = ["regauge", "replay", "trace.parquet", "--arms", "arms.toml", "--primary", "all:p99"]
        .map(str::to_owned)
        .to_vec();
    manifest.design = Some(Design {
        primary_percentile: "p99".into(),
        slo_ms: 5.0,
        control: Some("tokio-shared-again".into()),
        ..Design::default()
    });
    fs::write(&path, serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    let mut order: Vec<usize> = (0..ARMS.len()).collect();
    let mut random = Random(7);
    for block in 0..=BLOCKS {
        for i in (1..order.len()).rev() {
            order.swap(i, (random.next() % (i as u64 + 1)) as usize);
        }
        for (position, truth) in order.iter().map(|at| &ARMS[*at]).enumerate() {
            write_run(dir, block, position as u32, truth);
        }
    }
}

/// What is planted into the requests of a run: episodes of one to three slow writes, and a little for everyone.
fn planted(truth: &Truth, random: &mut Random) -> impl FnMut(u64) -> Planted {
    // Every block is a little different, and all arms of it differently so.
    let block = random.log_normal(1.0, 0.08);
    let mut random = Random(random.next());
    let mut left = 0;
    move |i| {
        let warm = if i < 60 { 1.0 + (60 - i) as f64 / 12.0 } else { 1.0 };
        let every = random.log_normal(truth.every_ns * block * warm, 0.5) as u64;
        let mut planted = Planted { woken: every, spin: every / 3, ..Planted::default() };
        if left == 0 && random.uniform() < 0.02 {
            left = 1 + random.next() % 3;
        }
        if left > 0 {
            left -= 1;
            planted.thread_wait = random.log_normal(truth.queue_ns * block, 0.5) as u64;
            planted.wal = random.log_normal(truth.wal_ns * block, 0.5) as u64;
            planted.woken += random.log_normal(truth.woken_ns * block, 0.5) as u64;
        }
        planted
    }
}

fn world(block: u32, truth: &Truth) -> World {
    let at = ARMS.iter().position(|other| other.arm == truth.arm).unwrap() as u64;
    let mut random = Random(u64::from(block) << 24 ^ at << 8 ^ 0xa5);
    let seed = random.next();
    let mut world = connects_with(REQUESTS, planted(truth, &mut random), seed);
    for request in world.requests.iter_mut().filter(|request| request.planned_ns < WARMUP_NS) {
        request.flags |= WARMUP;
    }
    world
}

fn write_run(dir: &Path, block: u32, position: u32, truth: &Truth) {
    let run = run_dir(dir, block, truth.arm);
    fs::create_dir_all(&run).unwrap();
    let world = world(block, truth);
    write_samples(&run, &world);
    if STAMPED.contains(&block) {
        write_stamps(&run.join("stamps.parquet"), &world.meta, world.stamps.iter().copied()).unwrap();
    } else {
        // Nothing joins by it without stamps.
        fs::remove_file(run.join("connections.parquet")).unwrap();
    }
    let valid = (block, truth.arm) != FLAGGED;
    let gate = |name: &str, passed, measured: &str, required: &str| Gate {
        name: name.into(),
        passed,
        measured: measured.into(),
        required: required.into(),
    };
    let steal = if valid { "0.4 % on the worst CPU" } else { "6.2 % on the worst CPU" };
    let latencies: u64 = world.requests.iter().filter_map(|request| request.latency_ns).sum();
    let measured = world.requests.iter().filter(|request| request.flags & WARMUP == 0).count() as u64;
    let record = RunRecord {
        block,
        arm: truth.arm.into(),
        position,
        started: "2026-11-23T10:00:00Z".into(),
        question: None,
        valid,
        why_invalid: if valid { vec![] } else { vec![format!("steal: {steal}; required: at most 3 %")] },
        gates: vec![
            gate("offered", true, "100.0 of 100.0 requests/s (1.0000)", "at least 0.99 of the planned rate"),
            gate("driver_lag_p99", true, "2.2 µs late in sending at P99", "at most 200.0 µs"),
            gate("steal", valid, steal, "at most 3 %"),
            gate("state_digest", true, "meta=5e0f2c", "that of 5 of 5 sound arms"),
        ],
        requests: measured,
        errors: 0,
        driver: json!({"requests": REQUESTS, "t0_ns": T0, "makespan_ns": REQUESTS * 10_000_000,
                       "send_lag_ns": {"p50": 2_000, "p99": 2_200, "max": 2_200}, "replies_digest": "77aa01"}),
        server: json!({"cpu_user_ns": latencies / 5, "cpu_system_ns": latencies / 9,
                       "voluntary_switches": REQUESTS * 6, "involuntary_switches": REQUESTS / 40,
                       "max_rss_bytes": 72_u64 << 20, "counters": {"rolls": 0},
                       "digest": {"meta": "5e0f2c", "segments": "e3b0c4"}}),
        environment: json!({}),
    };
    fs::write(run.join("run.json"), serde_json::to_vec_pretty(&record).unwrap()).unwrap();
}
