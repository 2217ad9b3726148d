//! What a user can get wrong, and what the tap says to it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::broker;
use regauge_recorder::tap::{Tap, TapError, TapOptions};
use std::net::TcpListener;

fn error(options: TapOptions) -> TapError {
    Tap::bind(options).err().expect("it must not start")
}

/// The message is one sentence that names what it is about.
fn assert_says(error: &TapError, words: &[&str]) {
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn a_taken_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut options = TapOptions::new(broker::start().to_string(), directory.path().join("t.parquet"));
    options.listen = taken.local_addr().unwrap();
    let error = error(options);
    assert!(matches!(error, TapError::PortTaken { .. }), "{error}");
    assert_says(&error, &[&taken.local_addr().unwrap().to_string(), "free"]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_foreign_address() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = TapOptions::new(broker::start().to_string(), directory.path().join("t.parquet"));
    options.listen = "192.0.2.1:1884".parse().unwrap();
    assert_says(&error(options), &["192.0.2.1:1884", "address of this host"]);
}

#[test]
fn an_upstream_that_is_not_there() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let error = error(TapOptions::new(&free, directory.path().join("t.parquet")));
    assert!(matches!(error, TapError::UpstreamUnreachable { .. }), "{error}");
    assert_says(&error, &[&free, "start it first"]);
}

#[test]
fn an_upstream_that_is_no_address() {
    let directory = tempfile::tempdir().unwrap();
    for upstream in ["", "localhost", "localhost:", "localhost:mqtt", "127.0.0.1:99999"] {
        let error = error(TapOptions::new(upstream, directory.path().join("t.parquet")));
        assert!(matches!(error, TapError::UpstreamName { .. }), "{upstream}: {error}");
        assert_says(&error, &["host:port"]);
    }
}

#[test]
fn an_output_that_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("no such directory").join("t.parquet");
    let error = error(TapOptions::new(broker::start().to_string(), &out));
    assert!(matches!(error, TapError::Output(_)), "{error}");
    assert_says(&error, &["no such directory"]);
}

#[test]
fn an_output_that_exists() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("t.parquet");
    std::fs::write(&out, "precious").unwrap();
    let options = TapOptions::new(broker::start().to_string(), &out);
    assert_says(&error(options.clone()), &["t.parquet", "another name"]);
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    let mut overwriting = options;
    overwriting.overwrite = true;
    assert!(Tap::bind(overwriting).is_ok());
}

#[test]
fn an_unsealed_recording_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("t.parquet");
    std::fs::write(common::live(&out), "precious").unwrap();
    let error = error(TapOptions::new(broker::start().to_string(), &out));
    assert!(matches!(error, TapError::LiveExists { .. }), "{error}");
    assert_says(&error, &["t.parquet.live", "seal"]);
}
