//! What ends a study as a whole.

use crate::arms::ArmsError;
use crate::process::ChildError;
use std::io;
use std::path::PathBuf;

/// Why a study could not be done. A run that fails is no such reason: it is invalid, and the study goes on.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// The request makes no sense.
    #[error("{0}")]
    Config(String),
    /// The arms do not fit the host.
    #[error(transparent)]
    Arms(#[from] ArmsError),
    /// The trace cannot be read, or not be cut for the pilot.
    #[error(transparent)]
    Trace(#[from] regauge_traces::TraceError),
    /// A file could not be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// `read`, `write`, …
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No space is left.
    #[error("the disk is full: cannot write {}; make room and give the same command again, finished blocks are kept", path.display())]
    DiskFull {
        /// Which file.
        path: PathBuf,
    },
    /// Another process works on this study.
    #[error("another process is working on the study {}; wait for it or choose another directory", path.display())]
    Busy {
        /// The study.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} holds another study (different: {differs}); choose another directory, or remove that one", path.display())]
    OtherStudy {
        /// The study.
        path: PathBuf,
        /// What differs.
        differs: String,
    },
    /// The record of a run is damaged.
    #[error("{} cannot be understood ({reason}); remove the directory of its block and give the same command again", path.display())]
    DamagedRun {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file of the study is damaged.
    #[error("{} cannot be understood ({reason}); choose another directory, or remove the study", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An arm does not even start on this host.
    #[error("arm `{arm}` cannot run on this host: {reason}; leave the arm out, or see `regauge doctor`")]
    ArmCannotStart {
        /// Which arm.
        arm: String,
        /// Why.
        reason: ChildError,
    },
}
