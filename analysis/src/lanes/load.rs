//! Reads what lanes need of one run: requests.parquet, connections.parquet, stamps.parquet and the run's t0.
//!
//! A run without stamps has no lanes, and says why in one sentence: older studies and studies without stamps stay
//! readable. A file that is there and broken is an error.

use super::input::{Connection, Request, RunInput};
use crate::error::AnalysisError;
use crate::load::Study;
use crate::samples::{collect, column_u32, column_u64, has_columns, scan};
use polars::prelude::*;
use regauge_traces::stamps::{Stamp, StampsMeta, read_stamps};
use regauge_traces::study::RunRecord;
use serde_json::Value;
use std::path::Path;

/// One run's files in memory.
#[derive(Debug, Clone)]
pub struct LoadedRun {
    stack: String,
    t0_ns: u64,
    /// Its requests, in the file's order.
    pub requests: Vec<Request>,
    connections: Vec<Connection>,
    stamps: Vec<Stamp>,
    /// How the stamps were taken.
    pub meta: StampsMeta,
}

impl LoadedRun {
    /// What lanes are computed from.
    pub fn input(&self) -> RunInput<'_> {
        RunInput {
            stack: &self.stack,
            t0_ns: self.t0_ns,
            requests: &self.requests,
            connections: &self.connections,
            stamps: &self.stamps,
            meta: &self.meta,
        }
    }
}

/// Reads a run; `Err` within is the sentence why it has no lanes.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn load(study: &Study, run: &RunRecord) -> Result<Result<LoadedRun, String>, AnalysisError> {
    let file = |name: &str| study.run_file(run.block, &run.arm, name);
    let (requests, connections, stamps) =
        (file("requests.parquet"), file("connections.parquet"), file("stamps.parquet"));
    if !stamps.is_file() {
        return Ok(Err("run without stamps".to_owned()));
    }
    if !connections.is_file() || !has_columns(&requests, &["connection", "sent_offset", "reply_offset"])? {
        return Ok(Err("samples of an older regauge, which cannot be joined to stamps".to_owned()));
    }
    let Some(t0_ns) = run.driver.get("t0_ns").and_then(Value::as_u64) else {
        return Ok(Err("a record that does not say when the run began (`driver.t0_ns`)".to_owned()));
    };
    let stack = study.manifest.arms.iter().find(|arm| arm.name == run.arm).map(|arm| arm.stack.clone());
    let (meta, rows) = read_stamps(&stamps).map_err(|error| AnalysisError::Stamps { reason: error.to_string() })?;
    Ok(Ok(LoadedRun {
        stack: stack.unwrap_or_default(),
        t0_ns,
        requests: read_requests(&requests)?,
        connections: read_connections(&connections)?,
        stamps: rows,
        meta,
    }))
}

fn read_requests(path: &Path) -> Result<Vec<Request>, AnalysisError> {
    let u64s = ["op_id", "planned_ns", "sent_ns", "latency_ns", "sent_offset", "reply_offset"];
    let u32s = ["flags", "connection"];
    let mut wanted = vec![("step", DataType::String)];
    wanted.extend(u64s.map(|name| (name, DataType::UInt64)));
    wanted.extend(u32s.map(|name| (name, DataType::UInt32)));
    let frame = collect(scan(&[path.to_path_buf()], &wanted)?, path)?;
    let [op_id, planned, sent, latency, sent_offset, reply_offset] = u64s.map(|name| column_u64(&frame, name, path));
    let [flags, connection] = u32s.map(|name| column_u32(&frame, name, path));
    let step = frame.column("step").and_then(|c| c.str()).map_err(|e| crate::samples::bad_parquet(path, &e))?;
    let (op_id, planned, sent, latency) = (op_id?, planned?, sent?, latency?);
    let (sent_offset, reply_offset, flags, connection) = (sent_offset?, reply_offset?, flags?, connection?);
    let at = |values: &[Option<u64>], row: usize| values.get(row).copied().flatten();
    let rows = step.iter().enumerate().map(|(row, step)| Request {
        op_id: at(&op_id, row).unwrap_or_default(),
        step: step.unwrap_or_default().to_owned(),
        flags: flags.get(row).copied().flatten().unwrap_or_default(),
        planned_ns: at(&planned, row).unwrap_or_default(),
        sent_ns: at(&sent, row),
        latency_ns: at(&latency, row),
        connection: connection.get(row).copied().flatten(),
        sent_offset: at(&sent_offset, row),
        reply_offset: at(&reply_offset, row),
    });
    Ok(rows.collect())
}

fn read_connections(path: &Path) -> Result<Vec<Connection>, AnalysisError> {
    let wanted = [("connection", DataType::UInt32), ("port", DataType::UInt32), ("opened_ns", DataType::UInt64)];
    let frame = collect(scan(&[path.to_path_buf()], &wanted)?, path)?;
    let (connection, port) = (column_u32(&frame, "connection", path)?, column_u32(&frame, "port", path)?);
    let opened = column_u64(&frame, "opened_ns", path)?;
    let rows = connection.into_iter().zip(port).zip(opened);
    let row =
        |((connection, port), opened)| Some(Connection { connection: connection?, port: port?, opened_ns: opened? });
    Ok(rows.filter_map(row).collect())
}
