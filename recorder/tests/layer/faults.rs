//! What goes wrong: full rings, too many open spans, a killed program, a full disk, a path that is taken.

use crate::{WAYS, record_with, start};
use regauge_recorder::{LayerError, LayerOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tracing::info_span;

#[test]
fn a_full_ring_loses_the_newest_and_says_how_many() {
    const SPANS: u64 = 200_000;
    for way in WAYS {
        let program = || (0..SPANS).for_each(|n| drop(info_span!("apply", bytes = n)));
        let (trace, summary) = record_with(way, |options| options.ring = 32, program);
        assert!(summary.drops.queue_full > 0, "{way:?}");
        assert_eq!(summary.spans + summary.drops.queue_full, SPANS, "{way:?}");
        assert_eq!(trace.meta.drops, Some(summary.drops), "{way:?}");
        assert_eq!(trace.spans.first().unwrap().bytes, 0, "the oldest stay");
    }
}

#[test]
fn too_many_open_spans_are_counted() {
    for way in WAYS {
        let program = || {
            let held: Vec<_> = (0..3000u64).map(|n| info_span!("apply", bytes = n)).collect();
            // A child of a lost span has no parent; a child of a kept one has.
            held.last().unwrap().in_scope(|| drop(info_span!("route", bytes = 5000)));
            drop(held);
            // Slots are used again.
            (6000..7000u64).for_each(|n| drop(info_span!("apply", bytes = n)));
        };
        let (trace, summary) = record_with(way, |options| options.open_spans = 1024, program);
        let lost = summary.drops.other["open_spans"];
        assert!((1976..=1977).contains(&lost) || lost > 1976, "{way:?}: {lost}");
        assert_eq!(summary.spans + lost, 4001, "{way:?}");
        assert_eq!(trace.spans.iter().filter(|span| span.bytes >= 6000).count(), 1000, "{way:?}");
    }
}

#[test]
fn after_its_end_a_recording_leaves_the_program_alone() {
    for way in WAYS {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("layer.arrows");
        let (dispatch, recording) = start(way, LayerOptions::new(&out));
        tracing::dispatcher::with_default(&dispatch, || {
            let before = info_span!("apply", bytes = 1);
            drop(recording);
            before.in_scope(|| drop(info_span!("route", bytes = 2)));
        });
        let trace = regauge_traces::open(&out).unwrap();
        assert_eq!(trace.spans.iter().map(|span| span.bytes).collect::<Vec<_>>(), [1], "{way:?}");
    }
}

#[test]
fn what_cannot_be_started_is_said_in_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let taken = directory.path().join("taken");
    std::fs::write(&taken, "precious").unwrap();
    let error = LayerOptions::new(&taken).layer().unwrap_err();
    assert!(matches!(error, LayerError::OutputExists(_)));
    assert!(error.to_string().ends_with("exists already: choose another name for the recording, or remove it"));
    assert_eq!(std::fs::read(&taken).unwrap(), b"precious");
    let error = regauge_recorder::layer(directory.path().join("no/such/directory")).unwrap_err();
    assert!(error.to_string().starts_with("cannot write the recording: "), "{error}");
    let replaced = LayerOptions { overwrite: true, ..LayerOptions::new(&taken) }.layer().unwrap();
    drop(replaced);
    assert!(regauge_traces::open(&taken).unwrap().spans.is_empty());
}

/// The example `stranger`, which cargo builds beside the tests.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join("stranger");
    assert!(path.exists(), "{} is not built: run the tests without --test, or build --examples", path.display());
    path
}

/// Starts the stranger's program, which serves until its stdin ends, and waits until it serves.
fn stranger(mut command: Command, out: &Path) -> Child {
    let command = command.arg(out).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "serving\n");
    child
}

fn wait_for_spans(out: &Path, spans: usize) -> usize {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = regauge_traces::open(out).map_or(0, |trace| trace.spans.len());
        if found >= spans {
            return found;
        }
        assert!(Instant::now() < deadline, "{found} of {spans} spans");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_strangers_program_is_recorded_by_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("stranger.arrows");
    let mut child = stranger(Command::new(example()), &out);
    wait_for_spans(&out, 100);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let trace = regauge_traces::open(&out).unwrap();
    assert!(trace.meta.finished);
    let known: std::collections::HashMap<u64, _> = trace.spans.iter().map(|span| (span.id, span)).collect();
    let routes: Vec<_> = trace.spans.iter().filter(|span| span.kind == regauge_traces::Kind::Route).collect();
    assert!(routes.len() >= 20);
    for route in routes {
        let process = known[&route.parent.unwrap()];
        assert_eq!(process.kind, regauge_traces::Kind::SessionProcess);
        assert!(process.session.is_some());
        // Its task sleeps: most of the span is idle.
        assert!(process.busy_ns.unwrap() < process.duration_ns.unwrap());
    }
}

#[test]
fn a_killed_program_leaves_its_recording_readable() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("killed.arrows");
    let mut child = stranger(Command::new(example()), &out);
    let seen = wait_for_spans(&out, 500);
    child.kill().unwrap();
    child.wait().unwrap();
    let trace = regauge_traces::open(&out).unwrap();
    assert!(trace.spans.len() >= seen && !trace.meta.finished);
    let sealed = directory.path().join("killed.parquet");
    regauge_traces::seal(&out, &sealed).unwrap();
    assert_eq!(regauge_traces::open(&sealed).unwrap().spans, trace.spans);
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("full.arrows");
    // A limit on file sizes stands in for a disk: it needs no rights. The signal that comes with it is ignored, so
    // that the write fails as on a full disk.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$@\"", "sh"]).arg(example());
    let mut child = stranger(command, &out);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut size = 0;
    // Until the file stays as it is for a while, at some size below the limit (1 or 2 MB, by the shell's unit).
    loop {
        std::thread::sleep(Duration::from_millis(600));
        let now = std::fs::metadata(&out).unwrap().len();
        if now == size && now > 100_000 {
            break;
        }
        size = now;
        assert!(Instant::now() < deadline, "{size} bytes");
    }
    // The program still works: it answers when asked.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"still there?\n").unwrap();
    drop(stdin);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert!(said.starts_with("the recording of spans stopped early"), "{said}");
    assert!(said.contains("disk is full"), "{said}");
    assert_eq!(said.lines().count(), 1, "said once: {said}");
    let trace = regauge_traces::open(&out).unwrap();
    assert!(!trace.spans.is_empty() && !trace.meta.finished);
}
