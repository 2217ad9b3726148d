//! The tap: a transparent MQTT proxy that records what crosses the wire.
//!
//! It stands in front of any running broker, needs nothing from it, and sees every request with its reply. Bytes are
//! passed on before they are looked at, and only heads of packets are; see [`crate::wire`] for what becomes a span.
//!
//! ```text
//!  clients ⇄ relay thread (epoll) ⇄ broker        passes bytes on, observes, redacts
//!                 │ bounded queue, newest dropped and counted
//!            writer thread → OUT.live              readable up to the last flush, however the recording ends
//!                 │ at the end
//!               seal → OUT
//! ```
//!
//! What it cannot hide: the broker sees the tap's address instead of the client's, a message takes two more hops, and a
//! burst of small packets may reach the broker in fewer, larger reads than it would have without it. Times in the trace
//! are those at the tap. Bytes that were never handed over (a stalled broker) are not in the trace.
//!
//! Left out: TLS (such connections are passed on and counted as undecodable; tap behind the TLS terminator), and steps
//! inside the broker, which only a layer or eBPF sees.

mod error;
mod link;
mod options;
mod record;
mod relay;
mod stats;
mod upstream;

pub use error::TapError;
pub use options::TapOptions;
pub use stats::{TapStats, TapSummary};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use mio::Waker;
use mio::net::TcpListener;
use regauge_traces::redact::{RedactionKey, Redactor};
use regauge_traces::{LiveOptions, LiveWriter, Meta, Span, TraceError, seal};
use relay::{Relay, RelayParts};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stats::Counters;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often `stop` is looked at and progress is told.
const TICK: Duration = Duration::from_millis(50);
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// A tap that listens, with its live file open: nothing that can be wrong with its options is left to happen.
pub struct Tap {
    local: SocketAddr,
    relay: Relay,
    waker: Waker,
    writer: Writer,
    counters: Arc<Counters>,
    out: PathBuf,
    live_path: PathBuf,
}

/// What the writer thread is started with.
struct Writer {
    live: LiveWriter,
    spans: Receiver<Span>,
    flush: Duration,
}

impl Tap {
    /// Finds the broker, listens, and creates the live file. Clients may connect from here on and are served once the
    /// tap runs. Raises this process's soft limit of open files to its hard limit, as each client takes two.
    ///
    /// # Errors
    /// A name that does not resolve, a broker that does not answer, a port that is taken, an output that exists or
    /// cannot be written.
    pub fn bind(options: TapOptions) -> Result<Self, TapError> {
        let live_path = options.live_path();
        if !options.overwrite {
            refuse_existing(&options.out, &live_path)?;
        }
        let upstream = upstream::find(&options.upstream)?;
        let listener = TcpListener::bind(options.listen).map_err(|source| listen_error(options.listen, source))?;
        let local = listener.local_addr().map_err(|source| listen_error(options.listen, source))?;
        raise_open_files();

        let key = match options.key {
            Some(key) => key,
            None => RedactionKey::generate().map_err(TapError::Output)?,
        };
        let redactor = Redactor::new(&key);
        let meta = Meta::recording(source(local, upstream), redactor.redaction());
        let origin_ns = meta.origin.monotonic_ns;
        let batches = LiveOptions { age: options.flush, ..LiveOptions::default() };
        let live = LiveWriter::create(&live_path, &meta, batches).map_err(TapError::Output)?;

        let counters = Arc::new(Counters::default());
        let (queue, spans) = record::queue(Arc::clone(&counters));
        let (relay, waker) = Relay::new(RelayParts {
            listener,
            upstream,
            redactor,
            spans: queue,
            counters: Arc::clone(&counters),
            origin_ns,
            spin: options.spin,
        })?;
        let writer = Writer { live, spans, flush: options.flush };
        Ok(Self { local, relay, waker, writer, counters, out: options.out, live_path })
    }

    /// Where it listens, with the port that was really taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Relays and records until `stop` is true or `for_` has passed (looked at every 50 ms), then closes the clients'
    /// connections, and seals the trace. `progress` gets the counters about five times a second, on this thread.
    ///
    /// # Errors
    /// [`TapError::RecordingStopped`] when the file could not be written to the end (the proxy served on until it was
    /// stopped), [`TapError::Seal`] when it is complete but not sealed, [`TapError::Relay`] when the relay itself
    /// failed. In each case the message says where the recording is.
    pub fn run(
        self,
        stop: &AtomicBool,
        for_: Option<Duration>,
        mut progress: impl FnMut(&TapStats),
    ) -> Result<TapSummary, TapError> {
        let Self { relay, waker, writer, counters, out, live_path, .. } = self;
        let started = Instant::now();
        let halt = Arc::new(AtomicBool::new(false));
        let (done, relay_done) = bounded::<()>(1);

        let writing = {
            let (Writer { live, spans, flush }, counters) = (writer, Arc::clone(&counters));
            spawn("tap-writer", move || record::write(live, spans, &counters, flush))?
        };
        let relaying = {
            let halt = Arc::clone(&halt);
            spawn("tap-relay", move || {
                let result = relay.run(&halt);
                drop(done);
                result
            })?
        };

        let mut told = Instant::now();
        // Nothing is ever sent: the relay's end of the channel closes when the relay does, and that ends the waiting.
        while let Err(RecvTimeoutError::Timeout) = relay_done.recv_timeout(TICK) {
            if stop.load(Ordering::Relaxed) || for_.is_some_and(|limit| started.elapsed() >= limit) {
                break;
            }
            if told.elapsed() >= PROGRESS_EVERY {
                progress(&counters.snapshot());
                told = Instant::now();
            }
        }
        halt.store(true, Ordering::Release);
        // A relay that has ended by itself needs no waking.
        let _ = waker.wake();
        let relayed = relaying.join().map_err(|_| TapError::Internal { thread: "tap-relay" })?;
        let written = writing.join().map_err(|_| TapError::Internal { thread: "tap-writer" })?;

        let stats = counters.snapshot();
        let duration_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let summary = TapSummary { out: out.clone(), duration_ns, stats };
        progress(&summary.stats);
        close(&out, live_path, written, &summary)?;
        match relayed {
            Ok(()) => Ok(summary),
            Err(source) => Err(TapError::Relay { source, path: out }),
        }
    }
}

/// Seals what was written and removes the live file, or says why it stays.
fn close(out: &Path, live: PathBuf, written: Result<(), TraceError>, summary: &TapSummary) -> Result<(), TapError> {
    let summary = || Box::new(summary.clone());
    if let Err(source) = written {
        return Err(TapError::RecordingStopped { live, source, summary: summary() });
    }
    if let Err(source) = seal(&live, out) {
        return Err(TapError::Seal { live, source, summary: summary() });
    }
    // The sealed trace holds all of it; a live file that cannot be removed does no harm.
    let _ = std::fs::remove_file(&live);
    Ok(())
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>, TapError> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(run).map_err(|source| TapError::System { action: "start a thread", source })
}

fn refuse_existing(out: &Path, live: &Path) -> Result<(), TapError> {
    if out.symlink_metadata().is_ok() {
        return Err(TapError::OutputExists { path: out.to_path_buf() });
    }
    if live.symlink_metadata().is_ok() {
        return Err(TapError::LiveExists { path: live.to_path_buf() });
    }
    Ok(())
}

fn listen_error(listen: SocketAddr, source: io::Error) -> TapError {
    match source.kind() {
        io::ErrorKind::AddrInUse => TapError::PortTaken { listen },
        _ => TapError::Listen { listen, source },
    }
}

/// The trace's `source`. Traces are made to be shared, so addresses beyond this host stay out of it.
fn source(listen: SocketAddr, upstream: SocketAddr) -> String {
    if listen.ip().is_loopback() && upstream.ip().is_loopback() {
        format!("tap {listen} → {upstream}")
    } else {
        "tap".to_owned()
    }
}

/// Best effort: a tap that runs out of descriptors makes new clients wait, and says nothing wrong.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
