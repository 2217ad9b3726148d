//! One trace through all stacks: the same replies per session and the same state at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Server, run};
use serde_json::Value;
use std::path::Path;

/// Replays a trace on a stack and returns the driver's and the server's record.
fn replay(stack: &str, settings: &str, trace: &Path, dir: &Path) -> (Value, Value) {
    let name = format!("{stack}-{}", dir.read_dir().unwrap().count());
    let server = Server::start(stack, &dir.join(format!("{name}-data")), settings);
    let out = dir.join(format!("{name}-out"));
    let addr = server.addr.to_string();
    let args = ["drive", trace.to_str().unwrap(), "--target", &addr, "--out", out.to_str().unwrap(), "--json"];
    let driver: Value = serde_json::from_str(&run(&args)).unwrap();
    (driver, server.stop())
}

fn synth(dir: &Path, args: &[&str]) -> std::path::PathBuf {
    let trace = dir.join("trace.parquet");
    let mut all = vec!["trace", "synth", "--overwrite", "--out", trace.to_str().unwrap()];
    all.extend(args);
    run(&all);
    trace
}

fn all_agree(trace: &Path, dir: &Path, settings: &[&str]) {
    let mut first: Option<(String, Value, Value, Value)> = None;
    for stack in common::STACKS {
        for settings in settings {
            let what = format!("{stack} {settings}");
            let (driver, server) = replay(stack, settings, trace, dir);
            assert_eq!(driver["errors"], 0, "{what}: {driver}");
            assert!(driver["requests"].as_u64().unwrap() > 100, "{what}: {driver}");
            let records = server["digest"]["records"].as_u64().unwrap();
            assert!(records > 50, "{what}: the digest covers {records} records");
            let mut digest = server["digest"].clone();
            digest.as_object_mut().unwrap().retain(|key, _| key == "meta" || key == "segments" || key == "records");
            let found = (what.clone(), driver["plan_hash"].clone(), driver["replies_digest"].clone(), digest);
            match &first {
                None => first = Some(found),
                Some(first) => {
                    assert_eq!(first.1, found.1, "plan of {} and {what}", first.0);
                    assert_eq!(first.2, found.2, "replies of {} and {what}", first.0);
                    assert_eq!(first.3, found.3, "state of {} and {what}", first.0);
                }
            }
        }
    }
}

/// Churn, persistent sessions, all QoS, wildcards: on all stacks, with every placement, one and two shards.
#[test]
fn every_stack_gives_the_same_replies_and_state() {
    let dir = tempfile::tempdir().unwrap();
    let trace = synth(dir.path(), &["--profile", "production", "--duration", "3s", "--rate", "300", "--seed", "7"]);
    all_agree(
        &trace,
        dir.path(),
        &[
            r#"{"durability":"none","placement":"inline","files":"inline"}"#,
            r#"{"durability":"fdatasync","placement":"offload","threads":2}"#,
            r#"{"durability":"every=5","files":"native"}"#,
            r#"{"durability":"none","roles":"meta-apart","placement":"own-thread","session_batch":1}"#,
            r#"{"durability":"none","roles":"three","placement":"inline","last_applied":"merged","threads":2}"#,
        ],
    );
}

/// Large batches over small segments: rolls on every stack.
#[test]
fn segments_that_roll_agree() {
    let dir = tempfile::tempdir().unwrap();
    let trace = synth(dir.path(), &["--profile", "iggy-8x8", "--scale", "20", "--duration", "2s", "--seed", "3"]);
    all_agree(
        &trace,
        dir.path(),
        &[r#"{"durability":"on-seal","segment_bytes":4000000}"#, r#"{"durability":"none","segment_bytes":4000000}"#],
    );
}

/// The digest is not a constant: another workload gives another one.
#[test]
fn another_workload_has_another_digest() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for seed in ["1", "2"] {
        let args = ["--profile", "publish-qos1", "--duration", "1s", "--rate", "200", "--seed", seed];
        let trace = synth(dir.path(), &args);
        let (driver, server) = replay("tokio-shared", "{}", &trace, dir.path());
        assert_eq!(driver["errors"], 0, "{driver}");
        seen.push((driver["plan_hash"].clone(), server["digest"]["segments"].clone()));
    }
    assert_ne!(seen[0].0, seen[1].0);
    assert_ne!(seen[0].1, seen[1].1);
}
