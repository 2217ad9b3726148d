//! Writes what was computed for other programs: analysis.json, and the tables as Parquet and CSV.

use crate::analysis::Analysis;
use crate::error::AnalysisError;
use crate::evidence::ArmEvidence;
use crate::tails::Tails;
use polars::prelude::*;
use std::fs;
use std::path::Path;

/// Writes analysis.json and tables/{percentiles,comparisons,over_time}.{parquet,csv} into the study.
///
/// # Errors
/// The file system refused.
pub fn write(dir: &Path, analysis: &Analysis, evidence: &[ArmEvidence]) -> Result<(), AnalysisError> {
    let json = serde_json::to_vec_pretty(analysis)
        .map_err(|error| AnalysisError::Output { what: "analysis.json", reason: error.to_string() })?;
    write_file(&dir.join("analysis.json"), &json)?;
    let tables = dir.join("tables");
    fs::create_dir_all(&tables).map_err(|error| AnalysisError::io("create", &tables, error))?;
    write_table(&tables, "percentiles", percentiles(analysis))?;
    write_table(&tables, "comparisons", comparisons(analysis))?;
    write_table(&tables, "over_time", over_time(evidence))
}

/// Replaces a file in one step, so that a reader never sees half of it.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), AnalysisError> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    fs::write(&part, bytes).map_err(|error| AnalysisError::io("write", path, error))?;
    fs::rename(&part, path).map_err(|error| AnalysisError::io("write", path, error))
}

/// One row per arm, step, metric and percentile.
fn percentiles(analysis: &Analysis) -> PolarsResult<DataFrame> {
    let mut rows: Vec<(&str, &str, &str, &str, &Tails)> = Vec::new();
    for arm in &analysis.arms {
        for (step, summary) in &arm.steps {
            for (metric, tails) in [("latency", &summary.latency), ("service", &summary.service)] {
                if let Some(tails) = tails {
                    rows.extend(
                        tails.percentiles_ns.keys().map(|key| (arm.name.as_str(), step.as_str(), metric, *key, tails)),
                    );
                }
            }
        }
    }
    let support = |row: &(&str, &str, &str, &str, &Tails)| row.4.support.get(row.3).copied();
    df! {
        "arm" => rows.iter().map(|row| row.0).collect::<Vec<_>>(),
        "step" => rows.iter().map(|row| row.1).collect::<Vec<_>>(),
        "metric" => rows.iter().map(|row| row.2).collect::<Vec<_>>(),
        "percentile" => rows.iter().map(|row| row.3).collect::<Vec<_>>(),
        "value_ns" => rows.iter().map(|row| row.4.percentiles_ns.get(row.3).copied().flatten()).collect::<Vec<_>>(),
        "samples" => rows.iter().map(|row| row.4.samples).collect::<Vec<_>>(),
        "exceedances" => rows.iter().map(|row| support(row).map(|s| s.exceedances)).collect::<Vec<_>>(),
        "episodes" => rows.iter().map(|row| support(row).map(|s| s.episodes)).collect::<Vec<_>>(),
        "refused" => rows.iter().map(|row| row.4.refused.contains_key(row.3)).collect::<Vec<_>>(),
        "samples_needed" => rows.iter().map(|row| row.4.refused.get(row.3).map(|r| r.needed)).collect::<Vec<_>>(),
    }
}

/// One row per comparison, as in analysis.json.
fn comparisons(analysis: &Analysis) -> PolarsResult<DataFrame> {
    let rows = &analysis.comparisons;
    df! {
        "arm" => rows.iter().map(|row| row.arm.as_str()).collect::<Vec<_>>(),
        "base" => rows.iter().map(|row| row.base.as_str()).collect::<Vec<_>>(),
        "step" => rows.iter().map(|row| row.step.as_str()).collect::<Vec<_>>(),
        "percentile" => rows.iter().map(|row| row.percentile).collect::<Vec<_>>(),
        "blocks" => rows.iter().map(|row| row.blocks).collect::<Vec<_>>(),
        "ratio" => rows.iter().map(|row| row.ratio).collect::<Vec<_>>(),
        "ci_low" => rows.iter().map(|row| row.ci_low).collect::<Vec<_>>(),
        "ci_high" => rows.iter().map(|row| row.ci_high).collect::<Vec<_>>(),
        "delta_ms" => rows.iter().map(|row| row.delta_ms).collect::<Vec<_>>(),
        "delta_ms_low" => rows.iter().map(|row| row.delta_ms_low).collect::<Vec<_>>(),
        "delta_ms_high" => rows.iter().map(|row| row.delta_ms_high).collect::<Vec<_>>(),
        "paired_ratio" => rows.iter().map(|row| row.paired_ratio).collect::<Vec<_>>(),
        "refused" => rows.iter().map(|row| row.refused.is_some()).collect::<Vec<_>>(),
        "samples_needed" => rows.iter().map(|row| row.refused.map(|r| r.needed)).collect::<Vec<_>>(),
    }
}

/// One row per arm and window of planned time, warm-up included.
fn over_time(evidence: &[ArmEvidence]) -> PolarsResult<DataFrame> {
    let rows: Vec<_> =
        evidence.iter().flat_map(|arm| arm.windows.windows.iter().map(|window| (arm.name.as_str(), window))).collect();
    df! {
        "arm" => rows.iter().map(|row| row.0).collect::<Vec<_>>(),
        "start_ns" => rows.iter().map(|row| row.1.start_ns).collect::<Vec<_>>(),
        "samples" => rows.iter().map(|row| row.1.samples).collect::<Vec<_>>(),
        "p50_ns" => rows.iter().map(|row| row.1.p50_ns).collect::<Vec<_>>(),
        "p99_ns" => rows.iter().map(|row| row.1.p99_ns).collect::<Vec<_>>(),
    }
}

fn write_table(dir: &Path, name: &'static str, table: PolarsResult<DataFrame>) -> Result<(), AnalysisError> {
    let failed = |error: PolarsError| AnalysisError::Output { what: name, reason: error.to_string() };
    let mut table = table.map_err(failed)?;
    write_file(&dir.join(format!("{name}.csv")), csv(&table).as_bytes())?;
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes).finish(&mut table).map_err(failed)?;
    write_file(&dir.join(format!("{name}.parquet")), &bytes)
}

/// CSV as of RFC 4180, nulls empty. polars' own writer is a feature of many minutes of compile time.
fn csv(table: &DataFrame) -> String {
    let quoted = |text: &str| {
        if text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.to_owned()
        }
    };
    let names: Vec<String> = table.get_column_names().iter().map(|name| quoted(name)).collect();
    let mut text = names.join(",") + "\r\n";
    for row in 0..table.height() {
        let cells: Vec<String> = table
            .columns()
            .iter()
            .map(|column| match column.get(row) {
                Ok(AnyValue::Null) | Err(_) => String::new(),
                Ok(AnyValue::String(value)) => quoted(value),
                Ok(value) => value.to_string(),
            })
            .collect();
        text += &(cells.join(",") + "\r\n");
    }
    text
}
