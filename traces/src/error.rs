//! What can go wrong with a trace, one sentence each, for the person at the terminal.
//!
//! Every variant says what is wrong with which file and what to do about it. Internal causes (a decoder's message)
//! are quoted at the end of a sentence, never shown alone.

use std::io;
use std::path::{Path, PathBuf};

/// Why a trace could not be read, written or made.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// No such file.
    #[error("there is no trace at {}: check the path", .0.display())]
    NotFound(PathBuf),
    /// The file system said no.
    #[error("no permission to open {}: check the file's owner and mode", .0.display())]
    Permission(PathBuf),
    /// A directory where a file was expected.
    #[error("{} is a directory: name the trace file itself", .0.display())]
    Directory(PathBuf),
    /// Zero bytes.
    #[error("{} is empty: no recording was written to it", .0.display())]
    Empty(PathBuf),
    /// Readable, but not a trace.
    #[error("{} is not a Regauge trace but {what}: make one with `regauge record` or `regauge trace synth`", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        what: String,
    },
    /// It ends before a reader could start.
    #[error("{} is cut short ({what}): copy it again, or seal the live recording it came from", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// The bytes contradict themselves or their checksum.
    #[error("{} is corrupt ({what}): restore it from a copy", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What contradicts what.
        what: String,
    },
    /// Written by a later Regauge.
    #[error("{} has trace schema version {found}, and this Regauge reads up to {supported}: upgrade Regauge", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest version known here.
        supported: u32,
    },
    /// A trace by its metadata, without columns that its version must have.
    #[error("{} lacks the column(s) {} of a trace: it was rewritten by another tool, so use the original", path.display(), columns.join(", "))]
    MissingColumns {
        /// The file.
        path: PathBuf,
        /// Names of the missing columns.
        columns: Vec<String>,
    },
    /// No room for more rows.
    #[error("the disk is full: {} ends after {rows} rows, all of them readable; free space and record again", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// Rows that are safely in it.
        rows: u64,
    },
    /// Any other failure of the file system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write", "rename", …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A writer was given ids out of order.
    #[error("span id {id} does not come after {last}: ids must ascend in the order of writing")]
    IdOrder {
        /// The offending id.
        id: u64,
        /// The id before it.
        last: u64,
    },
    /// Arrow or Parquet refused to encode; not caused by input.
    #[error("cannot encode rows for {}: {what}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// The encoder's words.
        what: String,
    },
    /// A redaction key that is none.
    #[error("{0}")]
    Key(String),
    /// A parameter out of range.
    #[error("{0}")]
    Parameter(String),
}

impl TraceError {
    /// Sorts a file system error into the variant that says it best.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> TraceError {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => TraceError::NotFound(path),
            io::ErrorKind::PermissionDenied => TraceError::Permission(path),
            io::ErrorKind::IsADirectory => TraceError::Directory(path),
            _ => TraceError::Io { action, path, source },
        }
    }

    pub(crate) fn corrupt(path: &Path, what: impl ToString) -> TraceError {
        TraceError::Corrupt { path: path.to_path_buf(), what: one_line(&what.to_string()) }
    }

    pub(crate) fn truncated(path: &Path, what: impl Into<String>) -> TraceError {
        TraceError::Truncated { path: path.to_path_buf(), what: what.into() }
    }

    pub(crate) fn foreign(path: &Path, what: impl Into<String>) -> TraceError {
        TraceError::Foreign { path: path.to_path_buf(), what: what.into() }
    }

    pub(crate) fn encode(path: &Path, what: impl ToString) -> TraceError {
        TraceError::Encode { path: path.to_path_buf(), what: one_line(&what.to_string()) }
    }
}

/// A decoder's message may span lines or be huge; an error is one sentence.
fn one_line(text: &str) -> String {
    let flat: Vec<&str> = text.split_whitespace().collect();
    let mut flat = flat.join(" ");
    if let Some((cut, _)) = flat.char_indices().nth(200) {
        flat.truncate(cut);
        flat.push('…');
    }
    flat
}
