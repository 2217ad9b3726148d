//! The files of a run: raw samples, histograms and connections, as [`regauge_traces::study`] lays them down.
//!
//! Times are delta-encoded, which halves them (see the measurements in METHODOLOGY.md); the step is a dictionary. Row
//! groups stay small enough for readers that hold one in memory.

use super::record::histogram;
use super::samples::Row;
use super::{DriveError, Opened};
use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use regauge_traces::study::{CONNECTION_COLUMNS, REQUEST_COLUMNS};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// What writing a file comes to.
type Written = Result<(), Box<dyn std::error::Error>>;

/// Rows per row group.
const GROUP_ROWS: usize = 128 * 1024;

/// Writes requests.parquet, histograms.parquet and connections.parquet.
pub(super) fn write(directory: &Path, rows: &[Row], connections: &[Opened]) -> Result<(), DriveError> {
    let written = |name: &str, write: &dyn Fn(&Path) -> Written| {
        let path = directory.join(name);
        write(&path).map_err(|error| DriveError::Output { path, why: error.to_string() })
    };
    written("requests.parquet", &|path| write_requests(path, rows))?;
    written("histograms.parquet", &|path| write_histograms(path, rows))?;
    written("connections.parquet", &|path| write_connections(path, connections))
}

/// (type, nullable) in the order of [`REQUEST_COLUMNS`].
const REQUEST_TYPES: [(DataType, bool); 14] = [
    (DataType::UInt64, false),
    (DataType::Utf8, false),
    (DataType::UInt32, false),
    (DataType::UInt64, false),
    (DataType::UInt64, true),
    (DataType::UInt64, true),
    (DataType::UInt64, true),
    (DataType::UInt32, false),
    (DataType::UInt32, false),
    (DataType::UInt32, false),
    (DataType::UInt64, true),
    (DataType::UInt64, true),
    (DataType::UInt64, true),
    (DataType::UInt64, true),
];

fn properties(delta_columns: &[&str]) -> Result<WriterProperties, Box<dyn std::error::Error>> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(GROUP_ROWS));
    for column in delta_columns {
        let path = ColumnPath::from(*column);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}

fn write_requests(path: &Path, rows: &[Row]) -> Written {
    let fields: Vec<Field> = REQUEST_COLUMNS
        .iter()
        .zip(REQUEST_TYPES)
        .map(|(name, (kind, nullable))| Field::new(*name, kind, nullable))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let delta = [
        "op_id",
        "session",
        "planned_ns",
        "sent_ns",
        "latency_ns",
        "service_ns",
        "connection",
        "sent_offset",
        "reply_offset",
        "driver_lag_ns",
        "read_lag_ns",
    ];
    let mut writer = ArrowWriter::try_new(File::create(path)?, Arc::clone(&schema), Some(properties(&delta)?))?;
    for rows in rows.chunks(GROUP_ROWS) {
        let u64s = |get: fn(&Row) -> u64| -> ArrayRef { Arc::new(UInt64Array::from_iter_values(rows.iter().map(get))) };
        let optional =
            |get: fn(&Row) -> Option<u64>| -> ArrayRef { Arc::new(UInt64Array::from_iter(rows.iter().map(get))) };
        let columns: Vec<ArrayRef> = vec![
            u64s(|row| row.op_id),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.step))),
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.session))),
            u64s(|row| row.planned_ns),
            optional(|row| row.sent_ns),
            optional(|row| row.latency_ns),
            optional(|row| row.service_ns),
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| u32::from(row.status)))),
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.flags))),
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.connection))),
            optional(|row| row.sent_offset),
            optional(|row| row.reply_offset),
            optional(|row| row.driver_lag_ns),
            optional(|row| row.read_lag_ns),
        ];
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    writer.close()?;
    Ok(())
}

fn write_connections(path: &Path, connections: &[Opened]) -> Written {
    let types = [DataType::UInt32, DataType::UInt32, DataType::UInt64];
    let fields: Vec<Field> =
        CONNECTION_COLUMNS.iter().zip(types).map(|(name, kind)| Field::new(*name, kind, false)).collect();
    let schema = Arc::new(Schema::new(fields));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(connections.iter().map(|opened| opened.connection))),
        Arc::new(UInt32Array::from_iter_values(connections.iter().map(|opened| u32::from(opened.port)))),
        Arc::new(UInt64Array::from_iter_values(connections.iter().map(|opened| opened.opened_ns))),
    ];
    let properties = properties(&CONNECTION_COLUMNS)?;
    let mut writer = ArrowWriter::try_new(File::create(path)?, Arc::clone(&schema), Some(properties))?;
    writer.write(&RecordBatch::try_new(schema, columns)?)?;
    writer.close()?;
    Ok(())
}

/// One histogram per step and metric, of the measured requests that got a right reply.
fn write_histograms(path: &Path, rows: &[Row]) -> Written {
    let mut histograms: BTreeMap<(&str, &str), Histogram<u64>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.is_measured()) {
        for (metric, value) in [("latency", row.latency_ns), ("service", row.service_ns)] {
            let Some(value) = value else { continue };
            let histogram = match histograms.entry((row.step, metric)) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(histogram()?),
            };
            histogram.saturating_record(value);
        }
    }
    let schema = Arc::new(Schema::new(vec![
        Field::new("step", DataType::Utf8, false),
        Field::new("metric", DataType::Utf8, false),
        Field::new("blob", DataType::Binary, false),
    ]));
    let mut blobs = Vec::with_capacity(histograms.len());
    for histogram in histograms.values() {
        let mut blob = Vec::new();
        V2Serializer::new().serialize(histogram, &mut blob).map_err(|error| format!("{error:?}"))?;
        blobs.push(blob);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(histograms.keys().map(|(step, _)| step))),
        Arc::new(StringArray::from_iter_values(histograms.keys().map(|(_, metric)| metric))),
        Arc::new(BinaryArray::from_iter_values(blobs)),
    ];
    let mut writer = ArrowWriter::try_new(File::create(path)?, Arc::clone(&schema), Some(properties(&[])?))?;
    writer.write(&RecordBatch::try_new(schema, columns)?)?;
    writer.close()?;
    Ok(())
}
