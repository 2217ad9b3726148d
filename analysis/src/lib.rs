//! From a study's files to figures that may be quoted.
//!
//! The analysis reads files alone: the layout of [`regauge_traces::study`]. It never links a stack or the replayer, so
//! that a study can be judged on another machine and years later. The procedure is that of METHODOLOGY.md: percentiles
//! of merged histograms ([`tails`]), ratios to the base arm with an interval over blocks ([`compare`]), refusal where
//! too few independent episodes stand behind a percentile ([`episodes`]), and a verdict that says what is lacking
//! ([`verdict`]). What is still to come: the A/A gate, a tested warm-up cut, adjusted p-values and study sizing.
//!
//! ```no_run
//! # fn main() -> Result<(), regauge_analysis::AnalysisError> {
//! let evaluation = regauge_analysis::Evaluation::of("my-study".as_ref())?;
//! evaluation.write_tables()?;
//! evaluation.write_report()?;
//! println!("{}", regauge_analysis::terminal::render(&evaluation.analysis));
//! # Ok(())
//! # }
//! ```

pub mod analysis;
pub mod compare;
pub mod counts;
pub mod decision;
pub mod diagnose;
pub mod episodes;
pub mod error;
pub mod evidence;
pub mod explain;
pub mod lanes;
pub mod load;
pub mod quick_table;
pub mod report;
pub mod resources;
pub mod samples;
pub mod tables;
pub mod tails;
pub mod terminal;
pub mod units;
pub mod verdict;
pub mod windows;

pub use analysis::Analysis;
pub use error::AnalysisError;

use evidence::ArmEvidence;
use lanes::StudyLanes;
use load::Study;
use std::path::{Path, PathBuf};

/// A study with what was read of it and what follows from it.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// The study's records.
    pub study: Study,
    /// What its samples hold, arm by arm, base first.
    pub evidence: Vec<ArmEvidence>,
    /// Where the time of requests went, as far as runs have stamps.
    pub lanes: StudyLanes,
    /// What follows.
    pub analysis: Analysis,
}

impl Evaluation {
    /// Reads and evaluates the study in `dir`; writes nothing.
    ///
    /// # Errors
    /// Anything that makes the study unreadable, contradictory or empty; see [`AnalysisError`].
    pub fn of(dir: &Path) -> Result<Self, AnalysisError> {
        let study = Study::open(dir)?;
        let evidence = evidence::gather(&study)?;
        let lanes = StudyLanes::of(&study, false)?;
        let analysis = analysis::summarise(&study, &evidence, &lanes)?;
        Ok(Evaluation { study, evidence, lanes, analysis })
    }

    /// Writes analysis.json and tables/ into the study.
    ///
    /// # Errors
    /// The file system refused.
    pub fn write_tables(&self) -> Result<(), AnalysisError> {
        tables::write(&self.study.dir, &self.analysis, &self.evidence)?;
        lanes::write_table(&self.study)
    }

    /// Writes report.html into the study and returns its path.
    ///
    /// # Errors
    /// The file system refused.
    pub fn write_report(&self) -> Result<PathBuf, AnalysisError> {
        let path = self.study.dir.join("report.html");
        let html = report::render(&self.study, &self.evidence, &self.analysis)?;
        tables::write_file(&path, html.as_bytes())?;
        Ok(path)
    }
}

/// Analyses a study and writes analysis.json and tables/.
///
/// # Errors
/// As [`Evaluation::of`] and [`Evaluation::write_tables`].
pub fn analyze(dir: &Path) -> Result<Analysis, AnalysisError> {
    let evaluation = Evaluation::of(dir)?;
    evaluation.write_tables()?;
    Ok(evaluation.analysis)
}

/// Analyses a study and writes report.html; returns its path.
///
/// # Errors
/// As [`Evaluation::of`] and [`Evaluation::write_report`].
pub fn report(dir: &Path) -> Result<PathBuf, AnalysisError> {
    Evaluation::of(dir)?.write_report()
}
