//! Writes studies with known truth in the real file layout, with the crate that the replayer writes with (parquet), so
//! that reading them with polars is also a test of the format.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod planted;
pub mod stamps;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterVersion};
use regauge_traces::study::sample_flags::{LOST, NO_REPLY, WARMUP};
use regauge_traces::study::{
    ArmRecord, Design, Gate, LayoutRecord, REQUEST_COLUMNS, RunRecord, STUDY_VERSION, Stage, run_dir,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1].
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }
}

/// One arm's truth.
#[derive(Clone)]
pub struct ArmSpec {
    pub name: &'static str,
    pub stack: &'static str,
    /// Median latency of a publish, ns.
    pub median_ns: f64,
    /// Stalls per request.
    pub stall_rate: f64,
    /// Requests that a stall holds up.
    pub stall_requests: usize,
    /// Length of a stall, ns.
    pub stall_ns: f64,
    /// Blocks whose run fails a gate.
    pub invalid: Vec<u32>,
    pub settings: serde_json::Value,
}

impl ArmSpec {
    pub fn new(name: &'static str, stack: &'static str, median_ns: f64) -> Self {
        let settings = json!({"threads": 2, "cpus": [0, 1], "durability": "fdatasync", "placement": "offload",
                              "blocking_threads": 32, "files": "native"});
        ArmSpec {
            name,
            stack,
            median_ns,
            stall_rate: 0.0,
            stall_requests: 12,
            stall_ns: 8e6,
            invalid: Vec::new(),
            settings,
        }
    }

    pub fn stalls(self, stall_rate: f64, stall_ns: f64) -> Self {
        ArmSpec { stall_rate, stall_ns, ..self }
    }

    pub fn invalid(self, blocks: &[u32]) -> Self {
        ArmSpec { invalid: blocks.to_vec(), ..self }
    }

    pub fn set(mut self, key: &str, value: serde_json::Value) -> Self {
        self.settings[key] = value;
        self
    }
}

/// A study's truth.
#[derive(Clone)]
pub struct Spec {
    pub blocks: u32,
    /// Blocks that were run again after the others, because one of them holds an invalid run.
    pub reruns: u32,
    /// The question, where one was fixed beforehand.
    pub design: Option<Design>,
    /// Stages by their number of blocks, and whether they were sized.
    pub stages: Vec<(u32, bool)>,
    /// Requests per run, warm-up included.
    pub requests: u64,
    pub interval_ns: u64,
    pub warmup_ns: u64,
    pub seed: u64,
    pub arms: Vec<ArmSpec>,
}

impl Spec {
    /// Four arms, small: what tests and the sample study use.
    pub fn small() -> Self {
        Spec {
            blocks: 3,
            reruns: 0,
            design: None,
            stages: Vec::new(),
            requests: 3_000,
            interval_ns: 1_000_000,
            warmup_ns: 400_000_000,
            seed: 42,
            arms: vec![
                ArmSpec::new("tokio-shared", "tokio-shared", 180e3).stalls(2e-3, 9e6).set("cpus", json!([])),
                ArmSpec::new("tokio-pinned", "tokio-pinned", 150e3).stalls(1.5e-3, 6e6),
                ArmSpec::new("monoio", "monoio", 125e3).stalls(1e-3, 3e6).set("iowq_bounded", json!(32)),
                ArmSpec::new("compio", "compio", 130e3).stalls(1e-3, 4e6).set("iowq_bounded", json!(32)).invalid(&[1]),
            ],
        }
    }
}

impl Spec {
    /// A study that can end in a verdict: a question (P99 of all requests), a control arm, ten blocks of 30 s.
    pub fn decided(arms: Vec<ArmSpec>) -> Self {
        let design = Design {
            primary_percentile: "p99".into(),
            floor_ms: 0.05,
            control: Some("again".into()),
            ..Design::default()
        };
        Spec {
            blocks: 10,
            reruns: 0,
            design: Some(design),
            stages: vec![(10, false)],
            requests: 6_000,
            interval_ns: 5_000_000,
            warmup_ns: 2_000_000_000,
            seed: 7,
            arms,
        }
    }
}

struct Row {
    op_id: u64,
    step: &'static str,
    session: u32,
    planned_ns: u64,
    sent_ns: Option<u64>,
    latency_ns: Option<u64>,
    service_ns: Option<u64>,
    status: u8,
    flags: u32,
}

/// Writes the whole study into `dir`.
pub fn write_study(dir: &Path, spec: &Spec) {
    fs::create_dir_all(dir).unwrap();
    let arms = spec.arms.iter().map(|arm| ArmRecord {
        name: arm.name.into(),
        stack: arm.stack.into(),
        settings: arm.settings.clone(),
    });
    // As JSON, so that a manifest of before a field was added is read too.
    let stages =
        spec.stages.iter().map(|&(blocks, sized)| Stage { created: "2026-11-23T12:00:00Z".into(), blocks, sized });
    let manifest = json!({
        "design": spec.design,
        "stages": stages.collect::<Vec<_>>(),
        "version": STUDY_VERSION,
        "regauge": "0.1.0",
        "created": "2026-11-23T10:00:00Z",
        "command": ["regauge", "replay", "trace.parquet", "--arms", "arms.toml", "--blocks"],
        "seed": spec.seed,
        "blocks": spec.blocks,
        "arms": arms.collect::<Vec<_>>(),
        "base": spec.arms[0].name,
        "workload_hash": "6f1c0a55e2b94d3788f0aa1c5f0f7d21",
        "plan_hash": "b3d2419f0c6e4a7f9a5512c80e1d6b90",
        "trace_source":
            "synthetic: log-normal latencies with stalls of known length (a test's study, not a measurement)",
        "requests": spec.requests,
        "duration_ns": spec.requests * spec.interval_ns,
        "warmup_ns": spec.warmup_ns,
        "layout": LayoutRecord {
            name: "shared".into(),
            driver_cpus: vec![0, 1],
            server_cpus: vec![0, 1],
            why: "2 CPUs are too few for disjoint cores.".into(),
            limits: vec!["driver and server share CPUs, so scheduling noise of one is seen in the other".into()],
        },
        "host": {"cpu": {"model": "Synthetic CPU", "count": 2}, "kernel": "6.1.0", "io_uring": true,
                 "file_system": {"kind": "ext4", "mount": "/"}, "memory_bytes": 25_769_803_776_u64},
        "gates": {"offered": 0.99, "driver_lag_p99_ns": 1_000_000},
    });
    fs::write(dir.join("study.json"), serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    for block in 0..spec.blocks + spec.reruns {
        for (position, arm) in spec.arms.iter().enumerate() {
            write_run(dir, spec, block, position as u32, arm);
        }
    }
}

fn write_run(dir: &Path, spec: &Spec, block: u32, position: u32, arm: &ArmSpec) {
    let run = run_dir(dir, block, arm.name);
    fs::create_dir_all(&run).unwrap();
    let mut random = Random(spec.seed ^ (u64::from(block) << 32) ^ (u64::from(position) << 8));
    let rows = rows(spec, arm, &mut random);
    write_requests(&run.join("requests.parquet"), &rows);
    write_histograms(&run.join("histograms.parquet"), &rows);
    let valid = !arm.invalid.contains(&block);
    let errors = rows.iter().filter(|row| row.flags & LOST != 0).count() as u64;
    let measured = rows.iter().filter(|row| row.flags & WARMUP == 0).count() as u64;
    let record = RunRecord {
        block,
        arm: arm.name.into(),
        position,
        started: "2026-11-23T10:00:00Z".into(),
        question: None,
        valid,
        why_invalid: if valid { vec![] } else { vec!["driver lag p99 1.84 ms exceeds 1.00 ms".into()] },
        gates: vec![
            Gate { name: "offered".into(), passed: true, measured: "1.000".into(), required: "≥ 0.99".into() },
            Gate {
                name: "driver_lag".into(),
                passed: valid,
                measured: if valid { "p99 61 µs" } else { "p99 1.84 ms" }.into(),
                required: "p99 ≤ 1.00 ms".into(),
            },
            Gate { name: "digest".into(), passed: true, measured: "equal".into(), required: "equal".into() },
        ],
        requests: measured,
        errors,
        driver: json!({"requests": spec.requests, "measured": measured, "errors": errors,
                       "makespan_ns": spec.requests * spec.interval_ns + 5_000_000,
                       "send_lag_ns": {"p50": 9_000, "p99": 61_000}, "replies_digest": "5e0f2c"}),
        server: json!({"cpu_user_ns": (spec.requests as f64 * arm.median_ns * 0.3) as u64,
                       "cpu_system_ns": (spec.requests as f64 * arm.median_ns * 0.2) as u64,
                       "voluntary_switches": spec.requests * 2, "involuntary_switches": spec.requests / 50,
                       "max_rss_bytes": 64_u64 << 20, "digest": {"meta": "a1b2c3d4", "segments": "0f9e8d7c"},
                       "attestation": {"stack": arm.stack, "back_end": "epoll"}}),
        environment: json!({}),
    };
    fs::write(run.join("run.json"), serde_json::to_vec_pretty(&record).unwrap()).unwrap();
}

fn rows(spec: &Spec, arm: &ArmSpec, random: &mut Random) -> Vec<Row> {
    let block_effect = random.log_normal(1.0, 0.06);
    let mut stalled: Option<(usize, f64)> = None;
    (0..spec.requests)
        .map(|op_id| {
            let planned_ns = op_id * spec.interval_ns;
            let step = match op_id % 25 {
                0 => "connect",
                24 => "disconnect",
                _ => "publish",
            };
            if stalled.is_none() && random.uniform() < arm.stall_rate {
                stalled = Some((arm.stall_requests, random.log_normal(arm.stall_ns, 0.4)));
            }
            let warm = 1.0 + 2.0 * (-3.0 * planned_ns as f64 / spec.warmup_ns.max(1) as f64).exp();
            let kind = if step == "connect" { 3.0 } else { 1.0 };
            let mut service = random.log_normal(arm.median_ns * kind * block_effect * warm, 0.3);
            let mut wait = 0.0;
            if let Some((left, length)) = stalled {
                // The first request waits for the whole stall, the last for its end.
                wait = length * left as f64 / arm.stall_requests as f64;
                stalled = (left > 1).then_some((left - 1, length));
            }
            let lag = (random.uniform() * 20_000.0) as u64;
            service += wait;
            let lost = random.uniform() < 2e-4;
            let silent = step == "disconnect";
            let right = !lost && !silent;
            let mut flags = if planned_ns < spec.warmup_ns { WARMUP } else { 0 };
            flags |= if silent { NO_REPLY } else { 0 } | if lost && !silent { LOST } else { 0 };
            Row {
                op_id,
                step,
                session: (op_id % 16) as u32,
                planned_ns,
                sent_ns: Some(planned_ns + lag),
                latency_ns: right.then_some(service as u64 + lag),
                service_ns: right.then_some(service as u64),
                status: 0,
                flags,
            }
        })
        .collect()
}

fn write_requests(path: &Path, rows: &[Row]) {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.op_id))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.step))),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.session))),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.planned_ns))),
        Arc::new(UInt64Array::from_iter(rows.iter().map(|row| row.sent_ns))),
        Arc::new(UInt64Array::from_iter(rows.iter().map(|row| row.latency_ns))),
        Arc::new(UInt64Array::from_iter(rows.iter().map(|row| row.service_ns))),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| u32::from(row.status)))),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.flags))),
    ];
    write_parquet(path, RecordBatch::try_from_iter(REQUEST_COLUMNS.into_iter().zip(columns)).unwrap());
}

fn write_histograms(path: &Path, rows: &[Row]) {
    let measured = rows.iter().filter(|row| row.flags & WARMUP == 0);
    let timed = measured.filter_map(|row| Some((row.step, row.latency_ns?, row.service_ns?)));
    write_histograms_of(path, timed);
}

/// Histograms of (step, latency, service).
pub fn write_histograms_of<'a>(path: &Path, rows: impl Iterator<Item = (&'a str, u64, u64)>) {
    let mut histograms: BTreeMap<(&str, &str), Histogram<u64>> = BTreeMap::new();
    for (step, latency, service) in rows {
        for (metric, value) in [("latency", latency), ("service", service)] {
            let new = || Histogram::new_with_max(120_000_000_000, 3).unwrap();
            histograms.entry((step, metric)).or_insert_with(new).record(value).unwrap();
        }
    }
    let blobs: Vec<Vec<u8>> = histograms
        .values()
        .map(|histogram| {
            let mut blob = Vec::new();
            V2Serializer::new().serialize(histogram, &mut blob).unwrap();
            blob
        })
        .collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("step", Arc::new(StringArray::from_iter_values(histograms.keys().map(|key| key.0)))),
        ("metric", Arc::new(StringArray::from_iter_values(histograms.keys().map(|key| key.1)))),
        ("blob", Arc::new(BinaryArray::from_iter_values(blobs))),
    ];
    write_parquet(path, RecordBatch::try_from_iter(columns).unwrap());
}

pub fn write_parquet(path: &Path, batch: RecordBatch) {
    // As the replayer writes: small files, of which one sample study is in the repository.
    let compression = Compression::ZSTD(ZstdLevel::try_new(9).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_dictionary_enabled(false)
        .set_column_dictionary_enabled("step".into(), true)
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}
