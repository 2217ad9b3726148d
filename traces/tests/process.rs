//! What only another process can show: a recording that is killed, and a disk that is full.
//!
//! Each test starts this test binary again as its child, told what to do by a variable of its environment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use regauge_traces::*;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CHILD_WRITES_TO: &str = "REGAUGE_TEST_CHILD_WRITES_TO";

/// In the child: records until something stops it.
fn child() {
    let Some(path) = std::env::var_os(CHILD_WRITES_TO) else { return };
    let options = LiveOptions { rows: 50, age: Duration::from_millis(1) };
    let mut writer = LiveWriter::create(Path::new(&path), &common::meta(), options).unwrap();
    for id in 0.. {
        let span = Span { target: Some(format!("t/{id}")), ..Span::new(id, Kind::Publish, id * 1000) };
        if let Err(error) = writer.push(span) {
            // The writer goes on to refuse, and says the same.
            assert_eq!(writer.flush().unwrap_err().to_string(), error.to_string());
            eprintln!("{error}");
            std::process::exit(7);
        }
        std::thread::sleep(Duration::from_micros(20));
    }
}

fn rows_ascend(trace: &Trace) {
    assert!(trace.spans.iter().zip(0..).all(|(span, id)| span.id == id && span.start_ns == id * 1000));
    assert!(!trace.meta.finished);
}

#[test]
fn killed() {
    child();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed"])
        .env(CHILD_WRITES_TO, &path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while open(&path).map_or(0, |trace| trace.spans.len()) < 200 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the child does not record");
        std::thread::sleep(Duration::from_millis(5));
    }
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    let trace = open(&path).unwrap();
    assert!(trace.spans.len() >= 200);
    rows_ascend(&trace);
    assert_eq!(trace.meta.drops, Some(Drops::default()));
    seal(&path, directory.path().join("s")).unwrap();
    assert_eq!(open(directory.path().join("s")).unwrap().spans, trace.spans);
}

/// A limit on the size of files refuses in the middle of a write, as a full disk does.
#[test]
fn full() {
    child();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t");
    let this = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 77; exec \"$0\" --exact full --nocapture"])
        .arg(this)
        .env(CHILD_WRITES_TO, &path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let trace = open(&path).unwrap();
    rows_ascend(&trace);
    assert!(trace.spans.len() > 50);
    assert_eq!(trace.torn_bytes, 0, "the half-written batch was cut off");
    let rows = trace.spans.len();
    let expected = format!(
        "the disk is full: {} ends after {rows} rows, all of them readable; free space and record again",
        path.display()
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains(&expected), "{output:?}");
}
