//! What can be wrong with a study, one clear sentence each: what is wrong and what to do.

use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a study could not be analysed or a report not be written.
#[derive(Debug, Error)]
pub enum AnalysisError {
    /// The directory holds no study.json.
    #[error("{} is not a study: it holds no study.json; name the directory that `regauge replay --out` or `regauge study --out` wrote", path.display())]
    NotAStudy {
        /// The directory that was asked for.
        path: PathBuf,
    },
    /// The study was written by a newer Regauge.
    #[error("{} is a study of version {found}, and this regauge reads versions up to {supported}; use the regauge that wrote it, or a newer one", path.display())]
    NewerVersion {
        /// The study's directory.
        path: PathBuf,
        /// The version in study.json.
        found: u64,
        /// The newest version that this crate reads.
        supported: u32,
    },
    /// A JSON file of the study cannot be parsed.
    #[error("{} cannot be read as {what}: {reason}; restore the file, or repeat the study", path.display())]
    BadJson {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// The parser's words.
        reason: String,
    },
    /// study.json contradicts itself.
    #[error("{} contradicts itself: {reason}; repeat the study", path.display())]
    BadManifest {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The study has no finished run.
    #[error("{} holds no finished run (no runs/block=*/arm=*/run.json); run `regauge replay` to its end first", path.display())]
    NoRuns {
        /// The study's directory.
        path: PathBuf,
    },
    /// Every run failed a gate.
    #[error("no run of {} is valid, so there is nothing to compare; {reasons}", path.display())]
    NoValidRuns {
        /// The study's directory.
        path: PathBuf,
        /// The first reasons, in words.
        reasons: String,
    },
    /// A Parquet file cannot be read.
    #[error("{} cannot be read as Parquet: {reason}; repeat the run", path.display())]
    BadParquet {
        /// The file.
        path: PathBuf,
        /// The reader's words.
        reason: String,
    },
    /// A Parquet file lacks a column, or has it with another type.
    #[error("{} has no usable column `{column}` ({reason}); it was not written by this version of regauge", path.display())]
    BadColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Missing, or which type was found.
        reason: String,
    },
    /// A histogram cannot be decoded.
    #[error("{} holds a histogram (step `{step}`, {metric}) that cannot be decoded: {reason}; repeat the run", path.display())]
    BadHistogram {
        /// The file.
        path: PathBuf,
        /// The root kind that it belongs to.
        step: String,
        /// `latency` or `service`.
        metric: String,
        /// The decoder's words.
        reason: String,
    },
    /// Histograms and raw samples of an arm tell different stories.
    #[error("{what}; the study's files do not belong together, so no figure of it can be trusted: repeat the study")]
    Disagreement {
        /// Which figures differ, and by how much.
        what: String,
    },
    /// A run's stamps cannot be read.
    #[error("{reason}")]
    Stamps {
        /// The reader's words, with the file.
        reason: String,
    },
    /// No such request in the study.
    #[error("{what}")]
    NoRequest {
        /// What was asked for, what there is, and what to do.
        what: String,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read`, `write`, `create`, …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// A result could not be put into its output format.
    #[error("cannot write {what}: {reason}; this is a defect of regauge, please report it")]
    Output {
        /// Which output.
        what: &'static str,
        /// The writer's words.
        reason: String,
    },
}

impl AnalysisError {
    /// An I/O error with its file and what was tried.
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        AnalysisError::Io { action, path: path.to_path_buf(), source }
    }
}
