//! Recordings that end badly: a killed recorder, a disk that is full. What was written stays readable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::broker::{client, publish, publish_packet, read_packet};
use common::{broker, live, of_kind, wait_for_spans};
use regauge_traces::Kind;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The example `tap`, which cargo builds beside the tests.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join("tap");
    assert!(path.exists(), "{} is not built: run the tests without --test, or build --examples", path.display());
    path
}

/// Starts a recording child and waits until it listens.
fn spawn(mut command: Command, out: &Path) -> (Child, SocketAddr) {
    command.args(["127.0.0.1:0", &broker::start().to_string()]).arg(out);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let addr = line.trim().strip_prefix("listening ").expect(&line).parse().unwrap();
    (child, addr)
}

#[test]
fn a_killed_recording_is_readable_to_its_last_batch() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("trace.parquet");
    let (mut child, addr) = spawn(Command::new(example()), &out);
    let mut socket = client(addr, "meter");
    let mut published = 0u16;
    let mut more = |n: u16| {
        for _ in 0..n {
            published += 1;
            publish(&mut socket, "plant/line", published, b"secret payload");
        }
        published
    };
    let flushed = usize::from(more(500));
    wait_for_spans(&live(&out), |spans| of_kind(spans, Kind::Publish).len() == flushed);
    // Killed with requests on their way into the file.
    let total = usize::from(more(500));
    child.kill().unwrap();
    child.wait().unwrap();

    assert!(!out.exists(), "nothing was sealed");
    let trace = regauge_traces::open(live(&out)).unwrap();
    let publishes = of_kind(&trace.spans, Kind::Publish).len();
    assert!((flushed..=total).contains(&publishes), "{publishes} of {flushed} to {total}");
    assert!(!trace.meta.finished && !trace.meta.sealed);

    regauge_traces::seal(live(&out), &out).unwrap();
    assert_eq!(regauge_traces::open(&out).unwrap().spans, trace.spans);
}

#[test]
fn a_full_disk_stops_the_recording_and_not_the_proxy() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("trace.parquet");
    // A limit on file sizes stands in for a disk: it needs no rights. The signal that comes with it is ignored, so
    // that the write fails as on a full disk.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 1024; exec \"$@\"", "sh"]).arg(example());
    let (mut child, addr) = spawn(command, &out);

    let mut socket = client(addr, "meter");
    let batch: Vec<u8> = (1..=1000).flat_map(|id| publish_packet("plant/line", id, b"x")).collect();
    for _ in 0..20 {
        socket.write_all(&batch).unwrap();
        for _ in 0..1000 {
            read_packet(&mut socket).unwrap();
        }
    }
    // The proxy serves on, old clients and new ones.
    publish(&mut socket, "plant/line", 1, b"still served");
    publish(&mut client(addr, "another"), "plant/line", 1, b"still served");

    drop(child.stdin.take());
    let mut message = String::new();
    child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
    assert!(!child.wait().unwrap().success(), "a recording that is not whole is no success");
    assert!(message.starts_with("the recording stopped early"), "{message}");
    assert!(message.contains("disk is full"), "{message}");

    let trace = regauge_traces::open(live(&out)).unwrap();
    let publishes = of_kind(&trace.spans, Kind::Publish).len();
    assert!((1..20_000).contains(&publishes), "{publishes} publishes");
    assert!(!trace.meta.finished);
    assert!(!out.exists());
}
