//! stamps.parquet: one flat table, every column a plain type that any reader knows.
//!
//! Rows are converted and written in chunks, since a run's stamps as whole rows would take more memory than the broker.
//! The file gets its name when it is complete. What it leaves out: a checksum, since a run can be repeated.

use super::{Event, NAMES, Stamp, StampsMeta};
use crate::frame::guarded;
use arrow_array::builder::{UInt32Builder, UInt64Builder};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Key of the metadata JSON.
const META_KEY: &str = "regauge.stamps";
/// Rows that are converted at once.
const CHUNK_ROWS: usize = 8192;
/// Quick: stamps are written while a study waits.
const ZSTD_LEVEL: i32 = 1;

/// Why stamps could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StampsError {
    /// The file system said no.
    #[error("the stamps {} cannot be {action}: {source}; check the path, its permissions and the space on the disk", path.display())]
    Io {
        /// `written` or `read`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is not such a file, or damaged.
    #[error("{} does not hold stamps that this Regauge can read ({what}); repeat the run", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The encoder refused; not caused by input.
    #[error("the stamps cannot be encoded for {}: {what}", path.display())]
    Encode {
        /// Which file.
        path: PathBuf,
        /// The encoder's words.
        what: String,
    },
}

type U32 = (&'static str, fn(&Stamp) -> Option<u32>, fn(&mut Stamp) -> &mut Option<u32>);
type U64 = (&'static str, fn(&Stamp) -> Option<u64>, fn(&mut Stamp) -> &mut Option<u64>);

macro_rules! columns {
    ($($field:ident),* $(,)?) => {
        [$((stringify!($field), |stamp| stamp.$field, |stamp| &mut stamp.$field)),*]
    };
}

/// Behind `event`, `name` and `thread`, which are never null.
const U32S: [U32; 6] = columns!(worker, shard, port, count, voluntary, involuntary);
const U64S: [U64; 23] = columns!(
    conn,
    offset,
    op,
    after,
    proposal,
    first,
    woken_ns,
    queued_ns,
    started_ns,
    finished_ns,
    resumed_ns,
    sent_ns,
    received_ns,
    proposed_ns,
    committed_ns,
    answered_ns,
    returned_ns,
    cpu_ns,
    run_delay_ns,
    wal_ns,
    memtable_ns,
    delay_ns,
    thread_wait_ns,
);

fn schema() -> Arc<Schema> {
    let mut fields = vec![
        Field::new("event", DataType::Utf8, false),
        Field::new("name", DataType::Utf8, false),
        Field::new("thread", DataType::UInt32, false),
    ];
    fields.extend(U32S.iter().map(|(name, ..)| Field::new(*name, DataType::UInt32, true)));
    fields.extend(U64S.iter().map(|(name, ..)| Field::new(*name, DataType::UInt64, true)));
    Arc::new(Schema::new(fields))
}

/// Writes the rows, in their order, and what is known about all of them.
///
/// # Errors
/// When the disk refuses; a file of that name is then as it was.
pub fn write_stamps(path: &Path, meta: &StampsMeta, rows: impl IntoIterator<Item = Stamp>) -> Result<(), StampsError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(name);
    let io = |source| StampsError::Io { action: "written", path: path.to_path_buf(), source };
    let file = File::create(&temporary).map_err(io)?;
    let written = write_rows(path, file, meta, rows).and_then(|()| std::fs::rename(&temporary, path).map_err(io));
    if written.is_err() {
        let _as_far_as_it_goes = std::fs::remove_file(&temporary);
    }
    written
}

fn write_rows(
    path: &Path,
    file: File,
    meta: &StampsMeta,
    rows: impl IntoIterator<Item = Stamp>,
) -> Result<(), StampsError> {
    let encode = |what: String| StampsError::Encode { path: path.to_path_buf(), what };
    let refused = |error: parquet::errors::ParquetError| {
        let system = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
        match system.map(io::Error::kind) {
            Some(kind) => StampsError::Io { action: "written", path: path.to_path_buf(), source: kind.into() },
            None => encode(error.to_string()),
        }
    };
    let properties = properties().map_err(refused)?;
    let mut writer = ArrowWriter::try_new(file, schema(), Some(properties)).map_err(refused)?;
    let mut chunk = Vec::with_capacity(CHUNK_ROWS);
    let mut rows = rows.into_iter();
    loop {
        chunk.clear();
        chunk.extend(rows.by_ref().take(CHUNK_ROWS));
        if chunk.is_empty() {
            break;
        }
        let batch = to_batch(&chunk).map_err(|error| encode(error.to_string()))?;
        writer.write(&batch).map_err(refused)?;
    }
    let meta = serde_json::to_string(meta).map_err(|error| encode(error.to_string()))?;
    writer.append_key_value_metadata(KeyValue::new(META_KEY.to_owned(), meta));
    writer.close().map(drop).map_err(refused)
}

fn properties() -> Result<WriterProperties, parquet::errors::ParquetError> {
    let mut properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?));
    for (name, ..) in U64S {
        let column = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}

fn to_batch(stamps: &[Stamp]) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(stamps.iter().map(|s| s.event.name()))),
        Arc::new(StringArray::from_iter_values(stamps.iter().map(|s| s.name))),
        Arc::new(UInt32Array::from_iter_values(stamps.iter().map(|s| s.thread))),
    ];
    for (_, get, _) in U32S {
        let mut column = UInt32Builder::with_capacity(stamps.len());
        stamps.iter().for_each(|stamp| column.append_option(get(stamp)));
        columns.push(Arc::new(column.finish()));
    }
    for (_, get, _) in U64S {
        let mut column = UInt64Builder::with_capacity(stamps.len());
        stamps.iter().for_each(|stamp| column.append_option(get(stamp)));
        columns.push(Arc::new(column.finish()));
    }
    RecordBatch::try_new(schema(), columns)
}

/// Reads all rows. Columns that are unknown are passed over.
///
/// # Errors
/// When the file cannot be read, or holds something else.
pub fn read_stamps(path: &Path) -> Result<(StampsMeta, Vec<Stamp>), StampsError> {
    let file =
        File::open(path).map_err(|source| StampsError::Io { action: "read", path: path.to_path_buf(), source })?;
    guarded(|| decode(file)).map_err(|what| StampsError::Foreign { path: path.to_path_buf(), what })
}

fn decode(file: File) -> Result<(StampsMeta, Vec<Stamp>), String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
    let entries = builder.metadata().file_metadata().key_value_metadata();
    let text =
        entries.into_iter().flatten().find(|entry| entry.key == META_KEY).and_then(|entry| entry.value.as_deref());
    let text = text.ok_or("its metadata is missing")?;
    let meta = serde_json::from_str(text).map_err(|error| format!("its metadata: {error}"))?;
    let reader = builder.with_batch_size(CHUNK_ROWS).build().map_err(|error| error.to_string())?;
    let mut stamps = Vec::new();
    for batch in reader {
        from_batch(&batch.map_err(|error| error.to_string())?, &mut stamps)?;
    }
    Ok((meta, stamps))
}

fn from_batch(batch: &RecordBatch, stamps: &mut Vec<Stamp>) -> Result<(), String> {
    fn column<'a, A: 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a A, String> {
        let array = batch.column_by_name(name).ok_or_else(|| format!("column {name} is missing"))?;
        array.as_any().downcast_ref::<A>().ok_or_else(|| format!("column {name} has type {}", array.data_type()))
    }
    let events: &StringArray = column(batch, "event")?;
    let names: &StringArray = column(batch, "name")?;
    let threads: &UInt32Array = column(batch, "thread")?;
    let first = stamps.len();
    for row in 0..batch.num_rows() {
        let (event, name) = (events.value(row), names.value(row));
        let event = Event::ALL
            .into_iter()
            .find(|e| e.name() == event)
            .ok_or_else(|| format!("no event is called `{event}`"))?;
        let name = NAMES.into_iter().find(|n| *n == name).ok_or_else(|| format!("`{name}` names no step"))?;
        stamps.push(Stamp::new(event, name, threads.value(row)));
    }
    for (name, _, set) in U32S {
        let column: &UInt32Array = column(batch, name)?;
        column.iter().zip(&mut stamps[first..]).for_each(|(value, stamp)| *set(stamp) = value);
    }
    for (name, _, set) in U64S {
        let column: &UInt64Array = column(batch, name)?;
        column.iter().zip(&mut stamps[first..]).for_each(|(value, stamp)| *set(stamp) = value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    /// Any row: every nullable column is null or any value, apart from the others.
    fn stamp() -> impl Strategy<Value = Stamp> {
        let u32s = prop::collection::vec(any::<Option<u32>>(), U32S.len());
        let u64s = prop::collection::vec(any::<Option<u64>>(), U64S.len());
        let names = (prop::sample::select(&Event::ALL), prop::sample::select(&NAMES[..]), any::<u32>());
        (names, u32s, u64s).prop_map(|((event, name, thread), u32s, u64s)| {
            let mut stamp = Stamp::new(event, name, thread);
            U32S.iter().zip(u32s).for_each(|((_, _, set), value)| *set(&mut stamp) = value);
            U64S.iter().zip(u64s).for_each(|((_, _, set), value)| *set(&mut stamp) = value);
            stamp
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn rows_survive_the_file(stamps in prop::collection::vec(stamp(), 0..80), times in 1usize..300, lost in any::<u64>()) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("stamps.parquet");
            let threads = vec![(7, "shard-0".to_owned(), "broker".to_owned())];
            let meta = StampsMeta { clock: "tsc".into(), dropped: lost, threads, run_delay: true, ..StampsMeta::default() };
            // Repeated, so that they fill more than one chunk now and then.
            let rows: Vec<Stamp> = (0..times).flat_map(|_| stamps.iter().copied()).collect();
            write_stamps(&path, &meta, rows.iter().copied()).unwrap();
            let (found, read) = read_stamps(&path).unwrap();
            prop_assert_eq!(found, meta);
            prop_assert!(read == rows, "the rows differ");
            prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file stayed");
        }
    }

    #[test]
    fn every_field_has_its_own_column() {
        let names: std::collections::BTreeSet<_> = schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names.len(), 3 + U32S.len() + U64S.len());
        // A field of the row that no column carries would read back as null.
        let shown = format!("{:?}", Stamp::new(Event::Op, "sync", 1));
        let fields = shown.matches(": ").count();
        assert_eq!(names.len(), fields, "{shown}");
    }

    #[test]
    fn what_is_no_file_of_stamps_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stamps.parquet");
        assert!(read_stamps(&path).unwrap_err().to_string().contains("cannot be read"));
        std::fs::write(&path, b"PAR1 nonsense PAR1").unwrap();
        assert!(read_stamps(&path).unwrap_err().to_string().contains("does not hold stamps"));
        let missing = dir.path().join("no/such/stamps.parquet");
        assert!(
            write_stamps(&missing, &StampsMeta::default(), []).unwrap_err().to_string().contains("cannot be written")
        );
    }
}
