//! The live form: a recording that can be read up to its last batch, however it ends.
//!
//! Rows gather in memory and leave as one Arrow IPC record batch per `write`, when there are enough of them or the
//! oldest has waited long enough. Data reaches the page cache with each batch, which survives the death of the
//! process; [`LiveWriter::finish`] also syncs it to the disk. The writer has no thread of its own: whoever records
//! calls [`LiveWriter::flush_if_due`] from its loop.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::TraceError;
use crate::frame::{END, RowSum, State, checked_entries, encode_schema, encode_spans};
use crate::meta::{Clocks, Drops, Meta};
use crate::schema::schema_with;
use crate::span::Span;

/// When a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveOptions {
    /// Rows that make a batch.
    pub rows: usize,
    /// How long a row may wait for its batch.
    pub age: Duration,
}

impl Default for LiveOptions {
    /// 2048 rows or 200 ms: what a kill may cost, against about 1.5 kB of framing per batch.
    fn default() -> Self {
        LiveOptions { rows: 2048, age: Duration::from_millis(200) }
    }
}

/// What a finished recording wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveSummary {
    /// Rows in the file.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
}

/// Writes a live trace.
#[derive(Debug)]
pub struct LiveWriter {
    path: PathBuf,
    file: File,
    options: LiveOptions,
    drops: Drops,
    /// Losses or clocks that no batch has told yet.
    drops_told: bool,
    waiting: Vec<Span>,
    oldest: Instant,
    last_id: Option<u64>,
    rows: u64,
    bytes: u64,
    failed: bool,
}

impl LiveWriter {
    /// Creates (or replaces) the file and writes its header, so that even an immediate kill leaves a readable trace.
    ///
    /// # Errors
    /// When the file cannot be created or its header written.
    pub fn create(path: impl AsRef<Path>, meta: &Meta, options: LiveOptions) -> Result<LiveWriter, TraceError> {
        let path = path.as_ref().to_path_buf();
        if path.is_dir() {
            return Err(TraceError::Directory(path));
        }
        let meta = Meta { sealed: false, finished: false, end: None, drops: None, ..meta.clone() };
        let text = serde_json::to_string(&meta).map_err(|e| TraceError::encode(&path, e))?;
        let schema = schema_with(checked_entries(RowSum::default(), text));
        let header = encode_schema(&schema).map_err(|e| TraceError::encode(&path, e))?;
        let file = File::create(&path).map_err(|e| TraceError::io("create", &path, e))?;
        let mut writer = LiveWriter {
            path,
            file,
            options,
            drops: Drops::default(),
            drops_told: true,
            waiting: Vec::with_capacity(options.rows.min(1 << 16)),
            oldest: Instant::now(),
            last_id: None,
            rows: 0,
            bytes: 0,
            failed: false,
        };
        writer.append(&header)?;
        Ok(writer)
    }

    /// Takes a row; writes a batch when one is due.
    ///
    /// # Errors
    /// [`TraceError::IdOrder`] for an id that does not ascend (the row is not taken); otherwise as [`Self::flush`].
    pub fn push(&mut self, span: Span) -> Result<(), TraceError> {
        if let Some(last) = self.last_id.filter(|last| span.id <= *last) {
            return Err(TraceError::IdOrder { id: span.id, last });
        }
        self.push_unordered(span)
    }

    /// Takes a row whose id may be below that of earlier ones; that ids are unique is the caller's to see to.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn push_unordered(&mut self, span: Span) -> Result<(), TraceError> {
        self.last_id = self.last_id.max(Some(span.id));
        if self.waiting.is_empty() {
            self.oldest = Instant::now();
        }
        self.waiting.push(span);
        if self.waiting.len() >= self.options.rows {
            return self.flush();
        }
        // The clock is read for every 64th row only: at high rates batches fill by rows anyway.
        if self.waiting.len().is_multiple_of(64) { self.flush_if_due() } else { Ok(()) }
    }

    /// Tells the writer the losses so far. They are stored with the next batch.
    pub fn set_drops(&mut self, drops: &Drops) {
        if self.drops != *drops {
            self.drops.clone_from(drops);
            self.drops_told = false;
        }
    }

    /// Writes a batch if the oldest waiting row is old enough, or if losses are untold.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn flush_if_due(&mut self) -> Result<(), TraceError> {
        let due = !self.waiting.is_empty() && self.oldest.elapsed() >= self.options.age;
        if due || !self.drops_told { self.flush() } else { Ok(()) }
    }

    /// Writes what waits as one batch, now.
    ///
    /// # Errors
    /// [`TraceError::DiskFull`], [`TraceError::Io`]. After an error the file holds the batches before it, whole, and
    /// the writer refuses further rows with the same error.
    pub fn flush(&mut self) -> Result<(), TraceError> {
        if self.waiting.is_empty() && self.drops_told {
            return Ok(());
        }
        self.write_batch(false)
    }

    /// Rows that are in the file.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Size of the file, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the recording: writes what waits with the final losses and clocks, marks the stream as finished, and syncs
    /// the file.
    ///
    /// # Errors
    /// As [`Self::flush`]; the file then reads like that of a killed recording.
    pub fn finish(mut self, drops: Drops) -> Result<LiveSummary, TraceError> {
        self.drops = drops;
        self.write_batch(true)?;
        self.append(&END)?;
        self.file.sync_all().map_err(|e| self.broken(e))?;
        Ok(LiveSummary { rows: self.rows, bytes: self.bytes })
    }

    fn write_batch(&mut self, finished: bool) -> Result<(), TraceError> {
        let rows = self.rows + self.waiting.len() as u64;
        let state = State { rows, drops: self.drops.clone(), now: Clocks::now(), finished };
        let bytes = encode_spans(&self.waiting, &state).map_err(|e| TraceError::encode(&self.path, e))?;
        self.append(&bytes)?;
        self.rows = rows;
        self.waiting.clear();
        self.drops_told = true;
        Ok(())
    }

    /// Appends whole messages, or nothing: a half-written one is cut off again.
    fn append(&mut self, bytes: &[u8]) -> Result<(), TraceError> {
        if self.failed {
            return Err(self.broken(io::ErrorKind::StorageFull.into()));
        }
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.bytes += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.failed = true;
                // If cutting fails too, a reader still copes: it takes the rest for a torn tail.
                let _ = self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::Start(self.bytes)));
                Err(self.broken(error))
            }
        }
    }

    fn broken(&self, error: io::Error) -> TraceError {
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        if full {
            TraceError::DiskFull { path: self.path.clone(), rows: self.rows }
        } else {
            TraceError::Io { action: "write", path: self.path.clone(), source: error }
        }
    }
}

impl Drop for LiveWriter {
    /// A writer that goes without [`LiveWriter::finish`] (an error elsewhere, a panic) still writes what waits. The
    /// trace then reads as not finished, which is the truth.
    fn drop(&mut self) {
        if !self.failed {
            let _ = self.flush();
        }
    }
}
