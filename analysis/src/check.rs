//! Histogram percentiles against exact ones: whether a study's files belong together, and how far the buckets are off.

use crate::counts::PERCENTILES;
use crate::error::AnalysisError;
use crate::evidence::{ALL, ArmEvidence};
use crate::load::Study;
use crate::quick_table::{Selection, exact};
use crate::samples::Metric;
use serde::Serialize;
use std::path::PathBuf;

/// Histograms of three digits may differ from exact percentiles by this share.
pub const HISTOGRAM_ERROR: f64 = 0.001;

/// Histogram percentiles against exact ones, all shown cells of step `all`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ExactCheck {
    /// Cells compared.
    pub cells: u64,
    /// The largest relative difference.
    pub largest_difference: f64,
}

/// Computes the headline percentiles again from the raw samples planned from `cut_ns` on, and compares.
///
/// # Errors
/// Raw samples that cannot be read again, or that disagree with the histograms.
pub fn check_exact(study: &Study, evidence: &[ArmEvidence], cut_ns: u64) -> Result<ExactCheck, AnalysisError> {
    let mut check = ExactCheck::default();
    let files = |arm: &ArmEvidence| {
        arm.blocks.iter().map(|&block| study.run_file(block, &arm.name, "requests.parquet")).collect()
    };
    let groups: Vec<Vec<PathBuf>> = evidence.iter().map(files).collect();
    for metric in Metric::BOTH {
        let selection = Selection { metric, from_ns: cut_ns, by_step: false };
        let tables = exact(&groups, &selection, &PERCENTILES.map(|percentile| percentile.ppm))?;
        for (arm, table) in evidence.iter().zip(&tables) {
            let pooled = arm.pooled(ALL, metric);
            for (percentile, &exact) in PERCENTILES.iter().zip(table.get(ALL).into_iter().flatten()) {
                let Some(pooled) = pooled.quantile(percentile.ppm) else { continue };
                // A bucket of one nanosecond may round by one.
                let difference = (exact.abs_diff(pooled).saturating_sub(1)) as f64 / (exact.max(1)) as f64;
                check.cells += 1;
                check.largest_difference = check.largest_difference.max(difference);
                if difference > HISTOGRAM_ERROR {
                    let what = format!(
                        "{} of arm `{}` ({}) is {exact} ns in requests.parquet and {pooled} ns in histograms.parquet",
                        percentile.label,
                        arm.name,
                        metric.name()
                    );
                    return Err(AnalysisError::Disagreement { what });
                }
            }
        }
    }
    Ok(check)
}
