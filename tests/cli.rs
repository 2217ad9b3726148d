//! The command line: bad input gets one sentence and exit code ≠ 0; facts have the JSON that scripts rely on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{complaint, fail, regauge, run};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn synth(dir: &Path, name: &str, args: &[&str]) -> PathBuf {
    let trace = dir.join(name);
    run(&[&["trace", "synth", "--out", trace.to_str().unwrap()], args].concat());
    trace
}

fn one_sentence(said: &str, of: &str) {
    assert_eq!(said.lines().count(), 1, "{of}: {said}");
    assert!(said.starts_with("regauge: ") && said.len() > 30, "{of}: {said}");
}

#[test]
fn trace_info_keeps_its_contract() {
    let dir = tempfile::tempdir().unwrap();
    let trace = synth(dir.path(), "t.parquet", &["--profile", "mqttx-conn"]);
    let info: Value = serde_json::from_str(&run(&["trace", "info", "--json", trace.to_str().unwrap()])).unwrap();
    for key in
        ["roots", "spans", "kinds", "sessions", "duration_ns", "dropped", "sealed", "schema_version", "workload_hash"]
    {
        assert!(!info[key].is_null(), "{key} is missing: {info}");
    }
    assert_eq!(info["kinds"]["connect"], 1000);
    assert_eq!(info["sessions"], 1000);
    // 1000 connects, 10 ms apart.
    let length_s = info["duration_ns"].as_f64().unwrap() / 1e9;
    assert!((9.9..11.0).contains(&length_s), "{info}");
    let again = synth(dir.path(), "u.parquet", &["--profile", "mqttx-conn"]);
    let other: Value = serde_json::from_str(&run(&["trace", "info", "--json", again.to_str().unwrap()])).unwrap();
    assert_eq!(info["workload_hash"], other["workload_hash"], "the same profile and seed name the same workload");
}

#[test]
fn every_bad_trace_has_a_sentence_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let good = synth(dir.path(), "good.parquet", &["--profile", "publish-qos1", "--duration", "1s"]);
    let bytes = std::fs::read(&good).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut flipped = bytes.clone();
    let middle = bytes.len() / 3;
    flipped[middle..middle + 64].iter_mut().for_each(|b| *b ^= 0x5a);
    let cases = [
        ("missing", dir.path().join("missing.parquet")),
        ("empty", write("empty.parquet", b"")),
        ("foreign", write("foreign.parquet", b"this is a text file, and rather a long one at that\n")),
        ("truncated", write("truncated.parquet", &bytes[..bytes.len() / 2])),
        ("corrupt", write("corrupt.parquet", &flipped)),
        ("directory", dir.path().to_owned()),
    ];
    let mut said: Vec<String> = Vec::new();
    for (name, path) in &cases {
        let sentence = fail(&["trace", "info", path.to_str().unwrap()]);
        one_sentence(&sentence, name);
        assert!(sentence.contains(path.to_str().unwrap()), "{name} does not name the file: {sentence}");
        said.push(sentence.replace(path.to_str().unwrap(), "FILE"));
    }
    for i in 0..said.len() {
        for j in 0..i {
            assert_ne!(said[i], said[j], "{} and {} are not told apart", cases[i].0, cases[j].0);
        }
    }
}

#[test]
fn nothing_is_overwritten_by_accident() {
    let dir = tempfile::tempdir().unwrap();
    let trace = synth(dir.path(), "t.parquet", &["--profile", "connect-burst"]);
    let before = std::fs::read(&trace).unwrap();
    let path = trace.to_str().unwrap();
    one_sentence(&fail(&["trace", "synth", "--profile", "mqttx-conn", "--out", path]), "synth over a trace");
    one_sentence(&fail(&["trace", "slice", path, "--to", "1s", "--out", path, "--overwrite"]), "slice onto itself");
    assert_eq!(before, std::fs::read(&trace).unwrap());
}

#[test]
fn wrong_flags_are_explained() {
    let cases: [&[&str]; 6] = [
        &["serve", "--stack", "actix"],
        &["serve", "--stack", "compio", "--durability", "sometimes"],
        &["trace", "synth", "--profile", "unknown", "--out", "x"],
        &["record", "tap", "--out", "x"],
        &["trace", "scale", "x", "--out", "y"],
        &["record", "tap", "--upstream", "127.0.0.1:1", "--out", "x", "--for", "5 weeks"],
    ];
    for args in cases {
        let output = regauge().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(complaint(&output).len() > 40, "{args:?}: {}", complaint(&output));
    }
}

#[test]
fn a_server_refuses_what_it_cannot_have() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let serve = |more: &[&str]| fail(&[&["serve", "--listen", "127.0.0.1:0", "--data", data], more].concat());
    for stack in common::STACKS {
        one_sentence(&serve(&["--stack", stack, "--cpus", "4095"]), "a CPU that is not there");
        one_sentence(&serve(&["--stack", stack, "--threads", "0"]), "no threads");
    }
    let said = fail(&["serve", "--stack", "compio", "--listen", "127.0.0.1:0", "--data", "/proc/nowhere"]);
    one_sentence(&said, "a directory that cannot be");
}

#[test]
fn arms_files_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let trace = synth(dir.path(), "t.parquet", &["--profile", "publish-qos1", "--duration", "1s"]);
    let arms = dir.path().join("arms.toml");
    for (text, must_say) in [
        ("base = \"a\"\n[[arm]]\nname = \"a\"\nstack = \"actix\"\n", "actix"),
        ("base = \"b\"\n[[arm]]\nname = \"a\"\nstack = \"compio\"\n", "b"),
        ("base = \"a\"\n[[arm]]\nname = \"a\"\nstack = \"compio\"\nspeed = 3\n", "speed"),
        ("not toml at all [", "arms.toml"),
    ] {
        std::fs::write(&arms, text).unwrap();
        let out = dir.path().join("study");
        let args =
            ["replay", trace.to_str().unwrap(), "--arms", arms.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let said = fail(&args);
        assert!(said.contains(must_say), "{text:?}: {said}");
        assert!(said.starts_with("regauge: "), "{said}");
    }
}

#[test]
fn analyze_says_what_is_no_study() {
    let dir = tempfile::tempdir().unwrap();
    one_sentence(&fail(&["analyze", dir.path().to_str().unwrap()]), "an empty directory");
    one_sentence(&fail(&["report", "/nonexistent/study"]), "no directory");
}

#[test]
fn the_doctor_speaks_json() {
    let output = regauge().args(["doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> = report["findings"].as_array().unwrap().iter().filter_map(|f| f["name"].as_str()).collect();
    assert!(names.len() > 8, "{names:?}");
    assert!(report["findings"].as_array().unwrap().iter().all(|f| f["means"].as_str().is_some_and(|m| m.len() > 10)));
}

#[test]
fn completions_name_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        for verb in ["study", "record", "trace", "serve", "replay", "analyze", "report", "doctor"] {
            assert!(script.contains(verb), "{shell} lacks {verb}");
        }
    }
}
