//! A study of a diagnosis in its files: arms of `diagnose.toml`, every run made of CONNECTs with known truth.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use super::stamps::{Planted, T0, World, connects};
use super::{Spec, write_parquet};
use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt32Array, UInt64Array};
use regauge_traces::stamps::{Stamp, StampsMeta, write_stamps};
use regauge_traces::study::sample_flags::WARMUP;
use regauge_traces::study::{ArmRecord, Gate, Manifest, RunRecord, run_dir};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Requests of a run; every fiftieth has what is planted.
pub const REQUESTS: u64 = 500;
const EVERY: u64 = 50;

/// The base arm and those without one cause each.
pub const ARMS: [&str; 11] = [
    "as-deployed",
    "offload",
    "raft-alone",
    "eager-handoff",
    "quiet",
    "one-runtime",
    "own-db",
    "no-wal",
    "memory",
    "batch-1",
    "compio",
];

/// Writes the study: `planted` in all arms but those in `without`.
pub fn write_planted(dir: &Path, blocks: u32, planted: Planted, without: &[&str], invalid: &[u32]) {
    write_planted_with(dir, blocks, planted, without, invalid, |_| {});
}

/// As [`write_planted`], with stamps that say something else of themselves.
pub fn write_planted_with(
    dir: &Path,
    blocks: u32,
    planted: Planted,
    without: &[&str],
    invalid: &[u32],
    say: impl Fn(&mut StampsMeta),
) {
    write_worlds(dir, blocks, planted, without, invalid, |world| say(&mut world.meta));
}

/// As [`write_planted`], without the stamps that are `lost`.
pub fn write_planted_lossy(dir: &Path, blocks: u32, planted: Planted, without: &[&str], lost: impl Fn(&Stamp) -> bool) {
    write_worlds(dir, blocks, planted, without, &[], |world| {
        world.stamps.retain(|stamp| !lost(stamp));
        world.meta.thinned = 1;
    });
}

fn write_worlds(
    dir: &Path,
    blocks: u32,
    planted: Planted,
    without: &[&str],
    invalid: &[u32],
    change: impl Fn(&mut World),
) {
    let spec = Spec { blocks, ..Spec::small() };
    super::write_study(dir, &Spec { blocks: 0, ..spec.clone() });
    let path = dir.join("study.json");
    let mut manifest: Manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let record = |name: &&str| ArmRecord {
        name: (*name).into(),
        stack: if *name == "compio" { "compio" } else { "tokio-pinned" }.into(),
        settings: json!({"threads": 1}),
    };
    manifest.arms = ARMS.iter().map(record).collect();
    (manifest.base, manifest.blocks, manifest.warmup_ns) = ("as-deployed".into(), blocks, 0);
    fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    for block in 0..blocks {
        for (position, arm) in (0_u32..).zip(ARMS) {
            let planted = if without.contains(&arm) { Planted::default() } else { planted };
            let seed = u64::from(block) << 32 | u64::from(position) << 8 | 7;
            let mut world = connects(REQUESTS, EVERY, planted, seed);
            change(&mut world);
            write_run(dir, block, position, arm, &world, !invalid.contains(&block));
        }
    }
}

fn write_run(dir: &Path, block: u32, position: u32, arm: &str, world: &World, valid: bool) {
    let run = run_dir(dir, block, arm);
    fs::create_dir_all(&run).unwrap();
    write_samples(&run, world);
    write_stamps(&run.join("stamps.parquet"), &world.meta, world.stamps.iter().copied()).unwrap();
    let record = RunRecord {
        block,
        arm: arm.into(),
        position,
        started: "2026-11-23T10:00:00Z".into(),
        question: None,
        valid,
        why_invalid: if valid { vec![] } else { vec!["steal 9 %".into()] },
        gates: vec![Gate { name: "steal".into(), passed: valid, measured: "9 %".into(), required: "≤ 3 %".into() }],
        requests: world.requests.len() as u64,
        errors: 0,
        driver: json!({"t0_ns": T0, "requests": world.requests.len()}),
        server: Value::Null,
        environment: Value::Null,
    };
    fs::write(run.join("run.json"), serde_json::to_vec(&record).unwrap()).unwrap();
}

/// requests.parquet, histograms.parquet and connections.parquet of a world.
pub fn write_samples(run: &Path, world: &World) {
    let rows = &world.requests;
    let u64s =
        |of: &dyn Fn(usize) -> Option<u64>| -> ArrayRef { Arc::new(UInt64Array::from_iter((0..rows.len()).map(of))) };
    let u32s =
        |of: &dyn Fn(usize) -> Option<u32>| -> ArrayRef { Arc::new(UInt32Array::from_iter((0..rows.len()).map(of))) };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("op_id", u64s(&|i| Some(rows[i].op_id))),
        ("step", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.step.as_str())))),
        ("session", u32s(&|i| Some(i as u32))),
        ("planned_ns", u64s(&|i| Some(rows[i].planned_ns))),
        ("sent_ns", u64s(&|i| rows[i].sent_ns)),
        ("latency_ns", u64s(&|i| rows[i].latency_ns)),
        ("service_ns", u64s(&|i| Some(rows[i].latency_ns? + rows[i].planned_ns - rows[i].sent_ns?))),
        ("status", u32s(&|_| Some(0))),
        ("flags", u32s(&|i| Some(rows[i].flags))),
        ("connection", u32s(&|i| rows[i].connection)),
        ("sent_offset", u64s(&|i| rows[i].sent_offset)),
        ("reply_offset", u64s(&|i| rows[i].reply_offset)),
    ];
    write_parquet(
        &run.join("requests.parquet"),
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap(),
    );
    super::write_histograms_of(
        &run.join("histograms.parquet"),
        rows.iter().filter(|row| row.flags & WARMUP == 0).map(|row| {
            let latency = row.latency_ns.unwrap();
            (row.step.as_str(), latency, latency + row.planned_ns - row.sent_ns.unwrap())
        }),
    );
    let of = |get: &dyn Fn(usize) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values((0..world.connections.len()).map(get)))
    };
    let opened = UInt64Array::from_iter_values(world.connections.iter().map(|c| c.opened_ns));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("connection", of(&|i| world.connections[i].connection)),
        ("port", of(&|i| world.connections[i].port)),
        ("opened_ns", Arc::new(opened)),
    ];
    write_parquet(&run.join("connections.parquet"), RecordBatch::try_from_iter(columns).unwrap());
}
