//! The server and the driver as child processes, and the protocol with them.
//!
//! Why processes: each run of an arm starts with a fresh heap, fresh threads and fresh caches, and the driver is the
//! same program for every stack. Why this protocol: a server that stops when its input ends cannot outlive a study
//! that was killed. Only processes that were started here are ever ended.

mod child;
mod driver;
mod server;

pub use child::{Ended, Usage};
pub use driver::{DriverCall, drive};
pub use server::{Server, ServerCall, Stopped};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// How long a child may take before it is ended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timeouts {
    /// From the start of a server to its `ready` line.
    pub start: Duration,
    /// From the end of a server's input to its exit.
    pub stop: Duration,
    /// Beyond the plan's length and drain, for a driver's start, its files and its exit.
    pub drive_extra: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { start: Duration::from_secs(30), stop: Duration::from_secs(60), drive_extra: Duration::from_secs(60) }
    }
}

/// Why a child did not do its part. The text is a sentence for run.json.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The operating system refused to start it.
    #[error("the {who} cannot be started from {}: {source}", exe.display())]
    Spawn {
        /// `server` or `driver`.
        who: &'static str,
        /// The program.
        exe: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended before its work was done.
    #[error("the {who} ended early with {how}{last_words}")]
    Ended {
        /// `server` or `driver`.
        who: &'static str,
        /// Exit code or signal.
        how: String,
        /// Last line of its stderr with a colon before it, or nothing.
        last_words: String,
    },
    /// It says itself why it failed.
    #[error("the {who} failed: {reason}")]
    Failed {
        /// `server` or `driver`.
        who: &'static str,
        /// Its own sentence.
        reason: String,
    },
    /// It did not do `what` in time, and was ended.
    #[error("the {who} did not {what} within {seconds} s and was ended{last_words}")]
    Timeout {
        /// `server` or `driver`.
        who: &'static str,
        /// What it should have done.
        what: &'static str,
        /// The limit.
        seconds: u64,
        /// Last line of its stderr with a colon before it, or nothing.
        last_words: String,
    },
    /// It wrote what the protocol does not know.
    #[error(
        "the {who} wrote `{line}`, which is not part of the protocol; server, driver and study must be one version"
    )]
    Protocol {
        /// `server` or `driver`.
        who: &'static str,
        /// The line, shortened.
        line: String,
    },
    /// Its state cannot be asked for.
    #[error("the {who}'s state cannot be read: {source}")]
    Wait {
        /// `server` or `driver`.
        who: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The person at the keyboard asked for an end.
    #[error("interrupted")]
    Interrupted,
}
