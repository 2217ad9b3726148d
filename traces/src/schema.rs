//! The columns of a trace, and the way between spans and Arrow record batches.
//!
//! One schema for both forms. `kind` and `target` are plain Utf8 and all numbers are plain unsigned integers, because
//! every reader knows these; dictionaries appear only as an encoding inside Parquet, where they cost readers nothing.

use arrow_array::builder::{StringBuilder, UInt32Builder, UInt64Builder};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::span::{Kind, Span};

/// Version of the trace format that this crate writes, and the newest that it reads.
pub const SCHEMA_VERSION: u32 = 2;

/// Key of the metadata JSON, in Arrow schema metadata, Arrow message metadata and Parquet key-value metadata.
pub const META_KEY: &str = "regauge";

/// Key of the checksum that stands beside [`META_KEY`]; see [`crate::frame`].
pub const CRC_KEY: &str = "regauge.crc32";

/// Name, type and nullability of every column, in the order of writing. Readers go by name.
const COLUMNS: [(&str, DataType, bool); 17] = [
    ("id", DataType::UInt64, false),
    ("parent", DataType::UInt64, true),
    ("kind", DataType::Utf8, false),
    ("start_ns", DataType::UInt64, false),
    ("duration_ns", DataType::UInt64, true),
    ("busy_ns", DataType::UInt64, true),
    ("session", DataType::UInt64, true),
    ("connection", DataType::UInt32, true),
    ("target", DataType::Utf8, true),
    ("bytes", DataType::UInt64, false),
    ("count", DataType::UInt32, false),
    ("qos", DataType::UInt8, false),
    ("flags", DataType::UInt32, false),
    ("status", DataType::UInt8, false),
    ("keep_alive_s", DataType::UInt16, false),
    ("expiry_s", DataType::UInt32, false),
    ("thread", DataType::UInt32, false),
];

static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let fields: Vec<Field> =
        COLUMNS.iter().map(|(name, kind, nullable)| Field::new(*name, kind.clone(), *nullable)).collect();
    Arc::new(Schema::new(fields))
});

/// The Arrow schema of the rows, without metadata.
pub fn schema() -> Arc<Schema> {
    Arc::clone(&SCHEMA)
}

/// The schema with `metadata` attached.
pub(crate) fn schema_with(metadata: HashMap<String, String>) -> Schema {
    Schema::new_with_metadata(SCHEMA.fields().clone(), metadata)
}

/// Names of the columns that `found` lacks.
pub(crate) fn missing_columns(found: &Schema) -> Vec<String> {
    COLUMNS.iter().map(|(name, ..)| *name).filter(|name| found.index_of(name).is_err()).map(str::to_owned).collect()
}

/// Says which column has a type that it must not have.
pub(crate) fn wrong_type(found: &Schema) -> Option<String> {
    COLUMNS.iter().find_map(|(name, expected, _)| {
        let actual = found.field_with_name(name).ok()?.data_type();
        (actual != expected).then(|| format!("column {name} has type {actual} instead of {expected}"))
    })
}

/// Spans as one record batch of [`schema`].
///
/// # Errors
/// Only if Arrow refuses the arrays, which their construction excludes.
pub fn to_batch(spans: &[Span]) -> Result<RecordBatch, arrow_schema::ArrowError> {
    fn u64s(spans: &[Span], get: impl Fn(&Span) -> u64) -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(spans.iter().map(get)))
    }
    fn u32s(spans: &[Span], get: impl Fn(&Span) -> u32) -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(spans.iter().map(get)))
    }
    fn u8s(spans: &[Span], get: impl Fn(&Span) -> u8) -> ArrayRef {
        Arc::new(UInt8Array::from_iter_values(spans.iter().map(get)))
    }
    fn optional_u64s(spans: &[Span], get: impl Fn(&Span) -> Option<u64>) -> ArrayRef {
        let mut column = UInt64Builder::with_capacity(spans.len());
        spans.iter().for_each(|span| column.append_option(get(span)));
        Arc::new(column.finish())
    }
    let mut connection = UInt32Builder::with_capacity(spans.len());
    let mut target = StringBuilder::with_capacity(spans.len(), spans.len() * 32);
    for span in spans {
        connection.append_option(span.connection);
        target.append_option(span.target.as_deref());
    }
    let columns: Vec<ArrayRef> = vec![
        u64s(spans, |s| s.id),
        optional_u64s(spans, |s| s.parent),
        Arc::new(StringArray::from_iter_values(spans.iter().map(|s| s.kind.name()))),
        u64s(spans, |s| s.start_ns),
        optional_u64s(spans, |s| s.duration_ns),
        optional_u64s(spans, |s| s.busy_ns),
        optional_u64s(spans, |s| s.session),
        Arc::new(connection.finish()),
        Arc::new(target.finish()),
        u64s(spans, |s| s.bytes),
        u32s(spans, |s| s.count),
        u8s(spans, |s| s.qos),
        u32s(spans, |s| s.flags),
        u8s(spans, |s| s.status),
        Arc::new(UInt16Array::from_iter_values(spans.iter().map(|s| s.keep_alive_s))),
        u32s(spans, |s| s.expiry_s),
        u32s(spans, |s| s.thread),
    ];
    RecordBatch::try_new(schema(), columns)
}

/// The spans of a record batch whose columns have already been checked by name and type. Unknown columns are passed
/// over, the order of columns does not matter.
///
/// # Errors
/// In words, when a value cannot be: a null where none may be, an unknown kind.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Span>, String> {
    fn column<'a, A: 'static>(batch: &'a RecordBatch, name: &str, nullable: bool) -> Result<&'a A, String> {
        let array = batch.column_by_name(name).ok_or_else(|| format!("column {name} is missing"))?;
        if !nullable && array.null_count() > 0 {
            return Err(format!("column {name} has nulls"));
        }
        array.as_any().downcast_ref::<A>().ok_or_else(|| format!("column {name} has type {}", array.data_type()))
    }
    fn optional<A: Array, T>(array: &A, row: usize, get: impl Fn(&A, usize) -> T) -> Option<T> {
        array.is_valid(row).then(|| get(array, row))
    }
    let id: &UInt64Array = column(batch, "id", false)?;
    let parent: &UInt64Array = column(batch, "parent", true)?;
    let kind: &StringArray = column(batch, "kind", false)?;
    let start: &UInt64Array = column(batch, "start_ns", false)?;
    let duration: &UInt64Array = column(batch, "duration_ns", true)?;
    let busy: &UInt64Array = column(batch, "busy_ns", true)?;
    let session: &UInt64Array = column(batch, "session", true)?;
    let connection: &UInt32Array = column(batch, "connection", true)?;
    let target: &StringArray = column(batch, "target", true)?;
    let bytes: &UInt64Array = column(batch, "bytes", false)?;
    let count: &UInt32Array = column(batch, "count", false)?;
    let qos: &UInt8Array = column(batch, "qos", false)?;
    let flags: &UInt32Array = column(batch, "flags", false)?;
    let status: &UInt8Array = column(batch, "status", false)?;
    let keep_alive: &UInt16Array = column(batch, "keep_alive_s", false)?;
    let expiry: &UInt32Array = column(batch, "expiry_s", false)?;
    let thread: &UInt32Array = column(batch, "thread", false)?;
    (0..batch.num_rows())
        .map(|row| {
            let name = kind.value(row);
            let kind = Kind::ALL
                .into_iter()
                .find(|k| k.name() == name)
                .ok_or_else(|| format!("`{name}` is not a kind of span"))?;
            Ok(Span {
                id: id.value(row),
                parent: optional(parent, row, UInt64Array::value),
                kind,
                start_ns: start.value(row),
                duration_ns: optional(duration, row, UInt64Array::value),
                busy_ns: optional(busy, row, UInt64Array::value),
                session: optional(session, row, UInt64Array::value),
                connection: optional(connection, row, UInt32Array::value),
                target: target.is_valid(row).then(|| target.value(row).to_owned()),
                bytes: bytes.value(row),
                count: count.value(row),
                qos: qos.value(row),
                flags: flags.value(row),
                status: status.value(row),
                keep_alive_s: keep_alive.value(row),
                expiry_s: expiry.value(row),
                thread: thread.value(row),
            })
        })
        .collect()
}
