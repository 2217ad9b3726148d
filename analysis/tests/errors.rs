//! What is wrong with a study is said in one sentence that names the file and what to do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt64Array};
use common::{Spec, write_parquet, write_study};
use regauge_analysis::Evaluation;
use regauge_traces::study::STUDY_VERSION;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A small study with something done to it, and the error that follows.
fn error_of(damage: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    write_study(dir.path(), &Spec { blocks: 2, requests: 1_000, ..Spec::small() });
    damage(dir.path());
    let text = Evaluation::of(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(!text.contains('\n'), "more than one line: {text}");
    text.replace(dir.path().to_str().unwrap(), "STUDY")
}

fn run(dir: &Path, file: &str) -> PathBuf {
    dir.join("runs/block=001/arm=monoio").join(file)
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, serde_json::to_vec(&value).unwrap()).unwrap();
}

#[test]
fn not_a_study() {
    let text = error_of(|dir| fs::remove_file(dir.join("study.json")).unwrap());
    assert!(text.starts_with("STUDY is not a study: it holds no study.json"), "{text}");
}

#[test]
fn a_newer_version() {
    let text = error_of(|dir| fs::write(dir.join("study.json"), r#"{"version": 7, "shape": "unknown"}"#).unwrap());
    assert!(text.contains("a study of version 7") && text.contains(&format!("up to {STUDY_VERSION};")), "{text}");
}

#[test]
fn a_manifest_that_is_no_json() {
    let text = error_of(|dir| fs::write(dir.join("study.json"), "{").unwrap());
    assert!(text.starts_with("STUDY/study.json cannot be read as a study's manifest"), "{text}");
}

#[test]
fn a_manifest_that_contradicts_itself() {
    let text = error_of(|dir| edit(&dir.join("study.json"), |study| study["base"] = "nobody".into()));
    assert!(text.contains("its base arm `nobody` is none of its arms"), "{text}");
    let text = error_of(|dir| edit(&dir.join("study.json"), |study| study["arms"][2]["name"] = "tokio-pinned".into()));
    assert!(text.contains("two arms are called `tokio-pinned`"), "{text}");
    let text = error_of(|dir| edit(&dir.join("study.json"), |study| study["arms"][2]["name"] = "other".into()));
    assert!(text.contains("it has no arm `monoio`"), "{text}");
}

#[test]
fn no_runs() {
    let text = error_of(|dir| fs::remove_dir_all(dir.join("runs")).unwrap());
    assert!(text.contains("holds no finished run"), "{text}");
}

#[test]
fn no_valid_runs() {
    let text = error_of(|dir| {
        for block in ["000", "001"] {
            for arm in ["tokio-shared", "tokio-pinned", "monoio", "compio"] {
                edit(&dir.join(format!("runs/block={block}/arm={arm}/run.json")), |run| {
                    run["valid"] = false.into();
                    run["why_invalid"] = serde_json::json!(["achieved 0.71 of the offered rate"]);
                });
            }
        }
    });
    assert!(text.contains("no run of STUDY is valid") && text.contains("achieved 0.71"), "{text}");
}

#[test]
fn a_record_in_the_wrong_place() {
    let text = error_of(|dir| edit(&run(dir, "run.json"), |run| run["block"] = 9.into()));
    assert!(text.contains("it says block 9 and arm `monoio`"), "{text}");
}

#[test]
fn requests_missing_truncated_or_foreign() {
    let text = error_of(|dir| fs::remove_file(run(dir, "requests.parquet")).unwrap());
    assert!(text.starts_with("cannot read STUDY/runs/block=001/arm=monoio/requests.parquet"), "{text}");
    let text = error_of(|dir| {
        let path = run(dir, "requests.parquet");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(text.contains("requests.parquet cannot be read as Parquet"), "{text}");
    let text = error_of(|dir| fs::write(run(dir, "requests.parquet"), b"").unwrap());
    assert!(text.contains("requests.parquet cannot be read as Parquet"), "{text}");
}

#[test]
fn damaged_pages() {
    let text = error_of(|dir| {
        let path = run(dir, "requests.parquet");
        let mut bytes = fs::read(&path).unwrap();
        for byte in &mut bytes[4..3_000] {
            *byte ^= 0x5a;
        }
        fs::write(&path, bytes).unwrap();
    });
    assert!(text.contains("requests.parquet cannot be read as Parquet"), "{text}");
}

#[test]
fn columns_are_named() {
    let only = |name: &'static str| {
        move |dir: &Path| {
            let column: ArrayRef = Arc::new(UInt64Array::from(vec![1, 2]));
            write_parquet(&run(dir, "requests.parquet"), RecordBatch::try_from_iter([(name, column)]).unwrap());
        }
    };
    let text = error_of(only("op_id"));
    assert!(text.contains("no usable column `step` (it is missing)"), "{text}");
    let text = error_of(|dir| {
        let id: ArrayRef = Arc::new(UInt64Array::from(vec![1]));
        let step: ArrayRef = Arc::new(UInt64Array::from(vec![2]));
        write_parquet(
            &run(dir, "requests.parquet"),
            RecordBatch::try_from_iter([("op_id", id), ("step", step)]).unwrap(),
        );
    });
    assert!(text.contains("no usable column `step` (it holds u64 instead of str)"), "{text}");
}

fn histogram(dir: &Path, step: &str, metric: &str, blob: &[u8]) {
    let columns: [(&str, ArrayRef); 3] = [
        ("step", Arc::new(StringArray::from(vec![step]))),
        ("metric", Arc::new(StringArray::from(vec![metric]))),
        ("blob", Arc::new(BinaryArray::from(vec![blob]))),
    ];
    write_parquet(&run(dir, "histograms.parquet"), RecordBatch::try_from_iter(columns).unwrap());
}

#[test]
fn histograms_that_do_not_decode() {
    let text = error_of(|dir| histogram(dir, "publish", "latency", b"nonsense"));
    assert!(text.contains("(step `publish`, latency) that cannot be decoded: it does not begin"), "{text}");
    // A header that announces four gigabytes is refused before anything is allocated.
    let mut blob = vec![0x1c, 0x84, 0x93, 0x13, 0xff, 0xff, 0xff, 0xff];
    blob.resize(60, 0);
    let text = error_of(|dir| histogram(dir, "publish", "latency", &blob));
    assert!(text.contains("announces 4294967295 bytes of counts, and 20 follow"), "{text}");
    let text = error_of(|dir| histogram(dir, "publish", "speed", b""));
    assert!(text.contains("`speed` is neither `latency` nor `service`"), "{text}");
}

#[test]
fn histograms_and_samples_that_disagree() {
    let text = error_of(|dir| {
        fs::copy(dir.join("runs/block=000/arm=monoio/histograms.parquet"), run(dir, "histograms.parquet")).unwrap();
        let other = dir.join("runs/block=000/arm=monoio/requests.parquet");
        // Another study's samples: twice as many.
        let more = tempfile::tempdir().unwrap();
        write_study(more.path(), &Spec { blocks: 1, requests: 2_000, ..Spec::small() });
        fs::copy(more.path().join("runs/block=000/arm=monoio/requests.parquet"), other).unwrap();
    });
    assert!(text.contains("block 0, arm `monoio`, step") && text.contains("do not belong together"), "{text}");
}
