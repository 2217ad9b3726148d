//! Opening a trace, in either form, from a file that may be anything.
//!
//! The form is told by the first bytes, never by the file's name. [`TraceReader`] yields batches, so that a trace
//! larger than memory can be sealed or listed; [`open`] collects them. Every way in which a file can fail to be a
//! trace has its own [`TraceError`].

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::TraceError;
use crate::live::{CONTINUATION, LiveFile};
use crate::meta::Meta;
use crate::schema::SCHEMA_VERSION;
use crate::seal::SealedFile;
use crate::span::Span;

/// The two forms of a trace file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Arrow IPC stream.
    Live,
    /// Parquet.
    Sealed,
}

/// A whole trace in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// What it says about itself; for a live trace as of its last batch.
    pub meta: Meta,
    /// All rows, in file order (that of writing; sort by `start_ns` for the order of arrival).
    pub spans: Vec<Span>,
    /// Form of the file; `None` for a trace that was made in memory.
    pub form: Option<Form>,
    /// Size of the file, bytes; 0 for a trace that was made in memory.
    pub file_bytes: u64,
    /// Bytes at the end of a live file that are not a whole batch, and were passed over.
    pub torn_bytes: u64,
}

/// Reads a trace batch by batch.
#[derive(Debug)]
pub struct TraceReader {
    path: PathBuf,
    meta: Meta,
    file_bytes: u64,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Live(LiveFile),
    Sealed(Box<SealedFile>),
}

/// Reads a whole trace, live or sealed.
///
/// # Errors
/// See [`TraceError`]; a torn tail is not an error but [`Trace::torn_bytes`].
pub fn open(path: impl AsRef<Path>) -> Result<Trace, TraceError> {
    let mut reader = TraceReader::open(path)?;
    let mut spans = Vec::new();
    while let Some(batch) = reader.next_batch()? {
        spans.extend(batch);
    }
    Ok(Trace {
        form: Some(reader.form()),
        file_bytes: reader.file_bytes,
        torn_bytes: reader.torn_bytes(),
        meta: reader.meta,
        spans,
    })
}

impl TraceReader {
    /// Opens a file and reads its metadata.
    ///
    /// # Errors
    /// See [`TraceError`].
    pub fn open(path: impl AsRef<Path>) -> Result<TraceReader, TraceError> {
        let path = path.as_ref();
        let mut file = File::open(path).map_err(|e| TraceError::io("open", path, e))?;
        let facts = file.metadata().map_err(|e| TraceError::io("read", path, e))?;
        if facts.is_dir() {
            return Err(TraceError::Directory(path.to_path_buf()));
        }
        if !facts.is_file() {
            return Err(TraceError::foreign(path, "a device or pipe"));
        }
        let length = facts.len();
        if length == 0 {
            return Err(TraceError::Empty(path.to_path_buf()));
        }
        let mut start = Vec::new();
        file.by_ref().take(8).read_to_end(&mut start).map_err(|e| TraceError::io("read", path, e))?;
        file.seek(SeekFrom::Start(0)).map_err(|e| TraceError::io("read", path, e))?;
        let (inner, meta) = if start.starts_with(b"PAR1") {
            let (sealed, meta) = SealedFile::open(path, file, length)?;
            (Inner::Sealed(Box::new(sealed)), meta)
        } else if start.starts_with(&CONTINUATION) {
            let (live, meta) = LiveFile::open(path, file, length)?;
            (Inner::Live(live), meta)
        } else {
            return Err(TraceError::foreign(path, describe(&start)));
        };
        Ok(TraceReader { path: path.to_path_buf(), meta, file_bytes: length, inner })
    }

    /// The next rows, or `None` at the end. A batch may be empty.
    ///
    /// # Errors
    /// See [`TraceError`]; nothing can be read after an error.
    pub fn next_batch(&mut self) -> Result<Option<Vec<Span>>, TraceError> {
        match &mut self.inner {
            Inner::Sealed(sealed) => sealed.next(),
            Inner::Live(live) => {
                let Some((spans, state)) = live.next()? else { return Ok(None) };
                self.meta.drops = Some(state.drops);
                self.meta.end = Some(state.now);
                self.meta.finished = state.finished;
                Ok(Some(spans))
            }
        }
    }

    /// What the trace says about itself; for a live trace as of the last batch that was read.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The form of the file.
    pub fn form(&self) -> Form {
        match self.inner {
            Inner::Live(_) => Form::Live,
            Inner::Sealed(_) => Form::Sealed,
        }
    }

    /// Bytes passed over at the end of a live file; known once all batches were read.
    pub fn torn_bytes(&self) -> u64 {
        match &self.inner {
            Inner::Live(live) => live.torn,
            Inner::Sealed(_) => 0,
        }
    }

    /// Size of the file, bytes, when it was opened.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Iterator for TraceReader {
    type Item = Result<Vec<Span>, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

/// Parses the metadata JSON, version first: a newer version may have changed everything else.
pub(crate) fn read_meta(path: &Path, text: &str) -> Result<Meta, TraceError> {
    let unreadable = |e: serde_json::Error| TraceError::corrupt(path, format!("its metadata is unreadable: {e}"));
    let value: serde_json::Value = serde_json::from_str(text).map_err(unreadable)?;
    let version = value.get("schema_version").and_then(serde_json::Value::as_u64);
    match version {
        None | Some(0) => Err(TraceError::corrupt(path, "its metadata names no schema version")),
        Some(found) if found > u64::from(SCHEMA_VERSION) => {
            Err(TraceError::Newer { path: path.to_path_buf(), found, supported: SCHEMA_VERSION })
        }
        Some(_) => serde_json::from_value(value).map_err(unreadable),
    }
}

/// What a file that is no trace seems to be, from its first bytes.
fn describe(start: &[u8]) -> &'static str {
    if start.starts_with(b"ARROW1") {
        "an Arrow file (a trace is an Arrow stream or Parquet)"
    } else if start.starts_with(&[0x1f, 0x8b]) || start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        "a compressed file"
    } else if start.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) || start.starts_with(&[0xd4, 0xc3, 0xb2, 0xa1]) {
        "a packet capture"
    } else if start.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
        "a text file"
    } else {
        "a file of another format"
    }
}
