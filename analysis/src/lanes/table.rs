//! tables/lanes/block=…/arm=…/lanes.parquet: one row per request with its lanes, for whoever wants to look further.

use super::lane::Lane;
use super::load::load;
use super::{RequestLanes, RunLanes};
use crate::error::AnalysisError;
use crate::load::Study;
use crate::tables::write_file;
use polars::prelude::*;

/// Writes the table of every valid run that has stamps.
///
/// # Errors
/// A run's files cannot be read, or the file system refused.
pub(crate) fn write(study: &Study) -> Result<(), AnalysisError> {
    for run in study.runs.iter().filter(|run| run.valid) {
        let Ok(loaded) = load(study, run)? else { continue };
        let lanes = RunLanes::of(&loaded.input());
        let failed = |error: PolarsError| AnalysisError::Output { what: "lanes.parquet", reason: error.to_string() };
        let mut table = table(&lanes.requests).map_err(failed)?;
        let dir =
            study.dir.join("tables/lanes").join(format!("block={:03}", run.block)).join(format!("arm={}", run.arm));
        std::fs::create_dir_all(&dir).map_err(|error| AnalysisError::io("create", &dir, error))?;
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes).finish(&mut table).map_err(failed)?;
        write_file(&dir.join("lanes.parquet"), &bytes)?;
    }
    Ok(())
}

/// Lanes of a request without stamps are null.
fn table(requests: &[RequestLanes]) -> PolarsResult<DataFrame> {
    let mut columns = vec![
        Column::new("op_id".into(), requests.iter().map(|r| r.op_id).collect::<Vec<_>>()),
        Column::new("step".into(), requests.iter().map(|r| r.step.as_str()).collect::<Vec<_>>()),
        Column::new("is_warmup".into(), requests.iter().map(|r| r.is_warmup).collect::<Vec<_>>()),
        Column::new("latency_ns".into(), requests.iter().map(|r| r.latency_ns).collect::<Vec<_>>()),
        Column::new("disagreement_ns".into(), requests.iter().map(|r| r.disagreement_ns).collect::<Vec<_>>()),
    ];
    for lane in Lane::ALL {
        let values: Vec<Option<u64>> = requests.iter().map(|r| r.lanes.map(|lanes| lanes.get(lane))).collect();
        columns.push(Column::new(format!("{}_ns", lane.name()).into(), values));
    }
    DataFrame::new(requests.len(), columns)
}
