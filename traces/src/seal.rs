//! The sealed form: one Parquet file, small, checked, opened as it is by polars, DuckDB and pyarrow.
//!
//! Encodings follow what the columns are: ascending or clustered integers are delta-packed, columns with few values
//! become dictionaries (an encoding here, plain types to every reader), zstd squeezes the rest. The file appears under
//! its name only when it is complete and on the disk. What it leaves out: page indexes and bloom filters, which a
//! reader of whole columns never uses.

use arrow_schema::Schema;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::TraceError;
use crate::frame::{RowSum, checked_entries, guarded};
use crate::meta::Meta;
use crate::reader::{TraceReader, read_meta};
use crate::schema::{CRC_KEY, META_KEY, from_batch, missing_columns, schema, to_batch, wrong_type};
use crate::span::Span;

/// Columns whose neighbours differ little, or whose values are too many for a dictionary.
const DELTA_COLUMNS: [&str; 5] = ["id", "parent", "start_ns", "duration_ns", "busy_ns"];

/// Rows of a row group: large, because readers take whole columns and each group repeats its dictionaries.
const GROUP_ROWS: usize = 1 << 20;

/// Rows handed to the Parquet writer at a time.
const CHUNK_ROWS: usize = 1 << 14;

/// What sealing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct SealReport {
    /// Rows in the sealed trace.
    pub rows: u64,
    /// Size of what was sealed; 0 if it was not a file.
    pub bytes_before: u64,
    /// Size of the sealed file.
    pub bytes: u64,
    /// Bytes of a torn tail that were left out.
    pub torn_bytes: u64,
}

/// Seals a live trace into `to`. The live file is left as it is. (A sealed trace is sealed again: the same rows.)
///
/// # Errors
/// See [`TraceError`]; `to` is then untouched.
pub fn seal(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<SealReport, TraceError> {
    let mut reader = TraceReader::open(from)?;
    let mut writer = SealedWriter::create(to.as_ref())?;
    // A layer's rows do not ascend by id.
    while let Some(batch) = reader.next_batch()? {
        writer.write_unordered(&batch)?;
    }
    let report = writer.finish(reader.meta())?;
    Ok(SealReport { bytes_before: reader.file_bytes(), torn_bytes: reader.torn_bytes(), ..report })
}

/// Writes spans as a sealed trace.
///
/// # Errors
/// See [`TraceError`]; `to` is then untouched. Ids must ascend.
pub fn write_sealed(to: impl AsRef<Path>, meta: &Meta, spans: &[Span]) -> Result<SealReport, TraceError> {
    let mut writer = SealedWriter::create(to.as_ref())?;
    writer.write(spans)?;
    writer.finish(meta)
}

/// Writes a sealed trace under a temporary name beside its own, which [`SealedWriter::finish`] gives it.
pub struct SealedWriter {
    path: PathBuf,
    temporary: PathBuf,
    /// `None` once finished.
    parquet: Option<ArrowWriter<File>>,
    sum: RowSum,
    last_id: Option<u64>,
    rows: u64,
}

impl SealedWriter {
    /// Creates the temporary file.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: &Path) -> Result<SealedWriter, TraceError> {
        let Some(name) = path.file_name() else { return Err(TraceError::Directory(path.to_path_buf())) };
        if path.is_dir() {
            return Err(TraceError::Directory(path.to_path_buf()));
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(hidden);
        let file = File::create(&temporary).map_err(|e| TraceError::io("create", path, e))?;
        let options = ArrowWriterOptions::new().with_properties(properties(path)?).with_skip_arrow_metadata(true);
        let parquet =
            ArrowWriter::try_new_with_options(file, schema(), options).map_err(|e| TraceError::encode(path, e))?;
        let sum = RowSum::default();
        Ok(SealedWriter { path: path.to_path_buf(), temporary, parquet: Some(parquet), sum, last_id: None, rows: 0 })
    }

    /// Appends rows.
    ///
    /// # Errors
    /// [`TraceError::IdOrder`], or when the disk refuses.
    pub fn write(&mut self, spans: &[Span]) -> Result<(), TraceError> {
        for span in spans {
            if let Some(last) = self.last_id.filter(|last| span.id <= *last) {
                return Err(TraceError::IdOrder { id: span.id, last });
            }
            self.last_id = Some(span.id);
        }
        self.write_unordered(spans)
    }

    /// Appends rows that need not ascend by id.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_unordered(&mut self, spans: &[Span]) -> Result<(), TraceError> {
        self.sum.add(spans);
        let Some(parquet) = &mut self.parquet else { return Ok(()) };
        for chunk in spans.chunks(CHUNK_ROWS) {
            let batch = to_batch(chunk).map_err(|e| TraceError::encode(&self.path, e))?;
            parquet.write(&batch).map_err(|e| refused(&self.path, self.rows, e))?;
            self.rows += chunk.len() as u64;
        }
        Ok(())
    }

    /// Writes the metadata, syncs the file, gives it its name, and syncs the directory.
    ///
    /// # Errors
    /// When the disk refuses; the file under its name is then the one that was there before.
    pub fn finish(mut self, meta: &Meta) -> Result<SealReport, TraceError> {
        let meta = Meta { sealed: true, schema_version: crate::SCHEMA_VERSION, ..meta.clone() };
        let text = serde_json::to_string(&meta).map_err(|e| TraceError::encode(&self.path, e))?;
        let Some(mut parquet) = self.parquet.take() else {
            return Err(TraceError::encode(&self.path, "the writer was already finished"));
        };
        let mut entries: Vec<_> = checked_entries(std::mem::take(&mut self.sum), text).into_iter().collect();
        entries.sort();
        for (key, value) in entries {
            parquet.append_key_value_metadata(KeyValue::new(key, value));
        }
        let file = parquet.into_inner().map_err(|e| refused(&self.path, self.rows, e))?;
        let named = file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.temporary, &self.path))
            .and_then(|()| sync_directory(&self.path));
        named.map_err(|e| TraceError::io("write", &self.path, e))?;
        let bytes = file.metadata().map_err(|e| TraceError::io("read", &self.path, e))?.len();
        Ok(SealReport { rows: self.rows, bytes_before: 0, bytes, torn_bytes: 0 })
    }
}

impl Drop for SealedWriter {
    fn drop(&mut self) {
        // After a success the temporary name is gone and this does nothing.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// A rename is durable once the directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

fn refused(path: &Path, rows: u64, error: parquet::errors::ParquetError) -> TraceError {
    let full = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| source.kind() == io::ErrorKind::StorageFull);
    if full {
        let source = io::Error::new(io::ErrorKind::StorageFull, format!("the disk is full after {rows} rows"));
        TraceError::Io { action: "write", path: path.to_path_buf(), source }
    } else {
        TraceError::encode(path, error)
    }
}

fn properties(path: &Path) -> Result<WriterProperties, TraceError> {
    let level = ZstdLevel::try_new(9).map_err(|e| TraceError::encode(path, e))?;
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("regauge {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(1 << 17)
        .set_dictionary_page_size_limit(8 << 20)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true);
    for name in DELTA_COLUMNS {
        let column = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}

/// A sealed file that is being read.
pub(crate) struct SealedFile {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    sum: RowSum,
    text: String,
    crc: String,
    ended: bool,
}

impl std::fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SealedFile {
    /// Reads the footer and checks that it is a trace's.
    pub(crate) fn open(path: &Path, mut file: File, length: u64) -> Result<(SealedFile, Meta), TraceError> {
        if !ends_with_magic(&mut file, length).map_err(|e| TraceError::io("read", path, e))? {
            return Err(TraceError::truncated(path, "the end of its Parquet file is missing"));
        }
        let builder = guarded(|| {
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(|e| e.to_string())
        })
        .map_err(|e| TraceError::corrupt(path, e))?;
        let entry = |key: &str| {
            let entries = builder.metadata().file_metadata().key_value_metadata()?;
            entries.iter().find(|entry| entry.key == key)?.value.clone()
        };
        let Some(text) = entry(META_KEY) else {
            return Err(TraceError::foreign(path, "a Parquet file of something else"));
        };
        let meta = read_meta(path, &text)?;
        let Some(crc) = entry(CRC_KEY) else { return Err(TraceError::corrupt(path, "its checksum is missing")) };
        let found: &Schema = builder.schema();
        let missing = missing_columns(found);
        if !missing.is_empty() {
            return Err(TraceError::MissingColumns { path: path.to_path_buf(), columns: missing });
        }
        if let Some(what) = wrong_type(found) {
            return Err(TraceError::corrupt(path, what));
        }
        let reader = guarded(|| builder.with_batch_size(CHUNK_ROWS).build().map_err(|e| e.to_string()))
            .map_err(|e| TraceError::corrupt(path, e))?;
        let sum = RowSum::default();
        Ok((SealedFile { path: path.to_path_buf(), reader, sum, text, crc, ended: false }, meta))
    }

    /// The next rows; `None` at the end, where the checksum is verified.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<Span>>, TraceError> {
        if self.ended {
            return Ok(None);
        }
        let batch =
            guarded(|| self.reader.next().transpose().map_err(|e| e.to_string())).and_then(|batch| match batch {
                Some(batch) => from_batch(&batch).map(Some),
                None => Ok(None),
            });
        match batch {
            Ok(Some(spans)) => {
                self.sum.add(&spans);
                Ok(Some(spans))
            }
            Ok(None) => {
                self.ended = true;
                if std::mem::take(&mut self.sum).finish(&self.text) == self.crc {
                    Ok(None)
                } else {
                    Err(TraceError::corrupt(&self.path, "its rows do not have their checksum"))
                }
            }
            Err(what) => {
                self.ended = true;
                Err(TraceError::corrupt(&self.path, what))
            }
        }
    }
}

fn ends_with_magic(file: &mut File, length: u64) -> io::Result<bool> {
    // Two magics and the footer's length: nothing shorter is Parquet.
    if length < 12 {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(length - 4))?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(&magic == b"PAR1")
}
