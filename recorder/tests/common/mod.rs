//! What the tests share: a running tap, a small broker, a real Mosquitto, and patience with a deadline.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod broker;
pub mod mosquitto;

use regauge_recorder::tap::{Tap, TapError, TapOptions, TapSummary};
use regauge_traces::{Kind, Span, Trace};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a test waits for something that must happen. A bound against hanging, not a claim about speed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A tap on a thread, with its output in a directory of its own.
pub struct RunningTap {
    pub addr: SocketAddr,
    pub out: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<TapSummary, TapError>>>,
    _directory: tempfile::TempDir,
}

impl RunningTap {
    pub fn start(upstream: impl ToString) -> Self {
        Self::start_with(upstream, |options| options)
    }

    pub fn start_with(upstream: impl ToString, change: impl FnOnce(TapOptions) -> TapOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("trace.parquet");
        let options = change(TapOptions::new(upstream.to_string(), &out));
        let tap = Tap::bind(options).unwrap();
        let addr = tap.local_addr();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || tap.run(&stop, None, |_| {}))
        };
        Self { addr, out, stop, thread: Some(thread), _directory: directory }
    }

    pub fn live(&self) -> PathBuf {
        live(&self.out)
    }

    /// Stops it and gives back what it left.
    pub fn finish(mut self) -> Finished {
        self.stop.store(true, Ordering::Relaxed);
        let summary = self.thread.take().unwrap().join().unwrap().unwrap();
        let trace = regauge_traces::open(&self.out).unwrap();
        assert!(trace.meta.sealed && trace.meta.finished);
        assert!(!self.live().exists(), "the live file goes when the trace is sealed");
        Finished { summary, trace, sealed: std::fs::read(&self.out).unwrap() }
    }
}

/// What a tap left: its summary, its sealed trace, and that trace's bytes.
pub struct Finished {
    pub summary: TapSummary,
    pub trace: Trace,
    pub sealed: Vec<u8>,
}

impl Drop for RunningTap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub fn live(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".live");
    PathBuf::from(name)
}

/// Reads the trace again and again until `enough` says so.
pub fn wait_for_spans(path: &Path, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
    wait_for("spans in the live trace", || {
        let spans = regauge_traces::open(path).ok()?.spans;
        enough(&spans).then_some(spans)
    })
}

pub fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn of_kind(spans: &[Span], kind: Kind) -> Vec<&Span> {
    spans.iter().filter(|span| span.kind == kind).collect()
}

/// Bytes that look random and are the same for the same seed (xorshift64*).
pub fn noise(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..n)
        .map(|_| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
        })
        .collect()
}
