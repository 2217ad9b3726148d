//! The report's pictures, each from evidence that the tables also rest on.

mod curves;
mod heat;
pub mod interval_bar;
mod lanes;
mod loads;
mod ratios;
mod rolls;

use crate::analysis::Analysis;
use crate::decision::Estimate;
use crate::error::AnalysisError;
use crate::evidence::ArmEvidence;
use crate::load::Study;
use crate::units::ratio_with_interval;
use serde::Serialize;

/// A picture, or several beside each other, and the words under it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Heading.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// Inline SVG; empty when there are panels.
    pub svg: String,
    /// Panels with their headings and keys: (heading, inline SVG of the arm's line, inline SVG).
    pub panels: Vec<(String, String, String)>,
}

impl Figure {
    /// A single picture.
    fn one(title: impl Into<String>, caption: impl Into<String>, svg: String) -> Self {
        Figure { title: title.into(), caption: caption.into(), svg, panels: Vec::new() }
    }
}

/// Draws all figures, in the report's order. Arms keep their number (base 0) in every picture.
///
/// # Errors
/// A file of a valid run that cannot be read.
pub fn draw(study: &Study, evidence: &[ArmEvidence], analysis: &Analysis) -> Result<Vec<Figure>, AnalysisError> {
    let mut figures = Vec::new();
    figures.extend(curves::percentiles(evidence, analysis));
    figures.extend(ratios::draw(study, evidence, analysis));
    figures.extend(curves::tail(evidence, analysis));
    figures.extend(heat::draw(study, evidence, analysis)?);
    figures.extend(lanes::draw(&analysis.lanes));
    figures.extend(loads::draw(analysis));
    Ok(figures)
}

/// An estimate for those who hear the page.
fn ratio_words(estimate: Estimate) -> String {
    ratio_with_interval(estimate.value, estimate.low.zip(estimate.high))
}
