//! When segments were rolled and sealed, from the stamps of the runs: a stall at such a moment is the disk's or the
//! file system's work at a known place, not the scheduler's.
//!
//! A roll creates the next segment's file. With durability `on-seal` every sync of a segment file seals one; otherwise a
//! sync belongs to an acknowledgement, and is no event of its own. Stamps of quick operations may be thinned, so rolls are
//! held against the server's own count, and what is missing is said.

use crate::error::AnalysisError;
use crate::load::Study;
use crate::samples::{collect, column_u64, scan};
use polars::prelude::*;
use regauge_traces::study::RunRecord;
use serde_json::Value;
use std::path::Path;

/// What is known of an arm's rolls.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rolls {
    /// Moments of rolls in all valid runs, ns from the run's start, rising.
    pub rolls_ns: Vec<u64>,
    /// Moments of seals, likewise.
    pub seals_ns: Vec<u64>,
    /// Rolls that the servers counted; `None` where a record has no count.
    pub counted: Option<u64>,
    /// Runs without stamps.
    pub without: u64,
}

impl Rolls {
    /// Reads the rolls of an arm's valid runs.
    ///
    /// # Errors
    /// Stamps that are there and cannot be read.
    pub fn of(study: &Study, arm: &str, durability: Option<&str>) -> Result<Self, AnalysisError> {
        let mut rolls = Rolls { counted: Some(0), ..Rolls::default() };
        for run in study.runs_of(arm).filter(|run| run.valid) {
            let counted = run.server.pointer("/counters/rolls").and_then(Value::as_u64);
            rolls.counted = rolls.counted.zip(counted).map(|(sum, n)| sum + n);
            let path = study.run_file(run.block, arm, "stamps.parquet");
            if !path.is_file() {
                rolls.without += 1;
                continue;
            }
            rolls.rolls_ns.extend(moments(run, &path, "roll")?);
            if durability == Some("on-seal") {
                rolls.seals_ns.extend(moments(run, &path, "sync")?);
            }
        }
        rolls.rolls_ns.sort_unstable();
        rolls.seals_ns.sort_unstable();
        Ok(rolls)
    }
}

/// When operations of a name were handed over, ns from the run's start. What came before it (files are created while
/// connections open) counts as its begin.
fn moments(run: &RunRecord, path: &Path, name: &str) -> Result<Vec<u64>, AnalysisError> {
    let Some(t0) = run.driver.get("t0_ns").and_then(Value::as_u64) else { return Ok(Vec::new()) };
    let wanted = [("event", DataType::String), ("name", DataType::String), ("queued_ns", DataType::UInt64)];
    let is_wanted = col("event").eq(lit("op")).and(col("name").eq(lit(name)));
    let frame = collect(scan(&[path.to_path_buf()], &wanted)?.filter(is_wanted), path)?;
    let queued = column_u64(&frame, "queued_ns", path)?;
    Ok(queued.into_iter().flatten().map(|ns| ns.saturating_sub(t0)).collect())
}
