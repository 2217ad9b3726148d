//! What can go wrong with a tap, each in one sentence that says what to do.

use super::stats::TapSummary;
use regauge_traces::TraceError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a tap could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The upstream's name has no address.
    #[error("cannot resolve the upstream `{upstream}` ({source}): give it as host:port, for example 127.0.0.1:1883")]
    UpstreamName {
        /// As given.
        upstream: String,
        /// The resolver's reason.
        source: io::Error,
    },
    /// No address of the upstream accepts connections.
    #[error("no broker answers at the upstream `{upstream}` ({source}): start it first, or check host and port")]
    UpstreamUnreachable {
        /// As given.
        upstream: String,
        /// Why the last address that was tried failed.
        source: io::Error,
    },
    /// Someone else listens there.
    #[error("the address {listen} is taken by another process: choose a free port, or port 0 for any free one")]
    PortTaken {
        /// The address.
        listen: SocketAddr,
    },
    /// Any other reason why it cannot listen there.
    #[error("cannot listen on {listen} ({source}): choose an address of this host and a port that you may use")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// A trace stands there already.
    #[error("{} exists already: choose another name for the trace, or remove it", path.display())]
    OutputExists {
        /// The path.
        path: PathBuf,
    },
    /// A recording that was never sealed stands there.
    #[error("{} is an earlier recording that was not sealed: seal it with `regauge trace seal`, or remove it", path.display())]
    LiveExists {
        /// The path.
        path: PathBuf,
    },
    /// The output cannot be written.
    #[error("cannot write the recording: {0}")]
    Output(#[source] TraceError),
    /// The system refused something that the relay cannot do without.
    #[error("cannot {action} for the relay ({source})")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Writing failed while the proxy ran; the proxy went on without recording.
    #[error(
        "the recording stopped early: {source}; the proxy went on without it, and {} spans can be read from {}",
        summary.stats.spans_written,
        live.display()
    )]
    RecordingStopped {
        /// The live file with what was written.
        live: PathBuf,
        /// What the writer met.
        source: TraceError,
        /// What the tap did see.
        summary: Box<TapSummary>,
    },
    /// The recording is whole, but not sealed.
    #[error("the recording is complete in {} but could not be sealed: {source}; seal it with `regauge trace seal`", live.display())]
    Seal {
        /// The live file, kept.
        live: PathBuf,
        /// Why sealing failed.
        source: TraceError,
        /// What the tap did see.
        summary: Box<TapSummary>,
    },
    /// The relay's loop failed; what was recorded is kept.
    #[error("the relay stopped by itself ({source}); what was recorded until then is in {}", path.display())]
    Relay {
        /// The system's reason.
        source: io::Error,
        /// The sealed trace of the time before.
        path: PathBuf,
    },
    /// A thread ended by a panic: an error of Regauge itself.
    #[error("the {thread} thread ended unexpectedly: this is an error in Regauge; please report it")]
    Internal {
        /// Which one.
        thread: &'static str,
    },
}
