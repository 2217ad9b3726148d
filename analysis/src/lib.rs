//! From a study's files to figures that may be quoted.
//!
//! The analysis reads files alone: the layout of [`regauge_traces::study`]. It never links a stack or the replayer, so
//! that a study can be judged on another machine and years later. The procedure is that of METHODOLOGY.md: from when the
//! runs are in a steady state ([`steady`]), percentiles of merged histograms ([`tails`]), ratios to the base arm with an
//! interval over blocks ([`compare`]), refusal where too few independent episodes stand behind a percentile
//! ([`episodes`]), p-values adjusted for looking at many cells ([`permute`], [`multiplicity`]), and a verdict on the one
//! question that was fixed beforehand ([`decide`]). [`simulate`] takes samples in memory through the same code.
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
pub mod check;
pub mod compare;
pub mod comparisons;
pub mod counts;
pub mod decide;
pub mod decision;
pub mod diagnose;
pub mod episodes;
pub mod error;
pub mod evidence;
pub mod explain;
pub mod grid;
pub mod lanes;
pub mod load;
pub mod multiplicity;
pub mod permute;
pub mod quick_table;
mod random;
pub mod report;
pub mod resources;
pub mod samples;
pub mod simulate;
pub mod source;
pub mod steady;
pub mod tables;
pub mod tails;
pub mod terminal;
pub mod units;
pub mod windows;

pub use analysis::Analysis;
pub use error::AnalysisError;

use decide::{Frame, primary::Primary};
use decision::{Sizing, SteadyState};
use evidence::ArmEvidence;
use lanes::StudyLanes;
use load::Study;
use source::{Recut, Source};
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
        let lanes = StudyLanes::of(&study, false)?;
        let (evidence, steady) = settle(&study, &study)?;
        let check = check::check_exact(&study, &evidence, steady.cut_ns)?;
        let recut = Recut { source: &study, cut_ns: steady.cut_ns };
        let analysis = analysis::summarise(&study, &recut, &evidence, &lanes, steady, check)?;
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

/// Judges from when the runs of a study are in a steady state, and reads their samples from there on.
pub(crate) fn settle(study: &Study, source: &dyn Source) -> Result<(Vec<ArmEvidence>, SteadyState), AnalysisError> {
    let manifest = &study.manifest;
    let step = manifest.design.as_ref().map_or(evidence::ALL, |design| design.primary_step.as_str());
    let steady = steady::judge(&steady::levels(study, source, step)?, manifest.warmup_ns, manifest.seed);
    // The files' own histograms stand unless the runs took longer to settle than was planned.
    let evidence = match steady.cut_ns > manifest.warmup_ns {
        true => evidence::gather(study, &Recut { source, cut_ns: steady.cut_ns })?,
        false => evidence::gather(study, source)?,
    };
    Ok((evidence, steady))
}

/// How many complete blocks the precision takes that a study was asked for (`--until`), from its first stage alone;
/// `Ok(Ok(None))` when it was asked for none, `Ok(Err(sentence))` when the first stage does not tell. Lanes and tables are
/// not computed, so that it costs the reading of the samples and no more.
///
/// # Errors
/// As [`Evaluation::of`].
pub fn size(dir: &Path) -> Result<Result<Option<Sizing>, String>, AnalysisError> {
    let study = Study::open(dir)?;
    let (evidence, _) = settle(&study, &study)?;
    let frame = Frame::of(&study, &evidence);
    let primary = Primary::new(&study, &frame.design, &evidence, &frame.complete, Vec::new());
    Ok(decide::sizing::size(&primary, &frame.pairs(&primary)))
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
