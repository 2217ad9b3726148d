//! Reading the live form, message by message, up to wherever it ends.
//!
//! A recording that was killed or lost its machine ends in the middle of a message. That is not an error: everything
//! before it is whole, and the reader says how many bytes it passed over. A contradiction *before* the last message is
//! an error.

use arrow_schema::Schema;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::TraceError;
use crate::frame::{RowSum, State, body_bytes, decode_schema, decode_spans};
use crate::meta::Meta;
use crate::reader::read_meta;
use crate::schema::{CRC_KEY, META_KEY, missing_columns, wrong_type};
use crate::span::Span;

/// The bytes that open every message of an IPC stream.
pub(crate) const CONTINUATION: [u8; 4] = [0xff; 4];

/// A live file that is being read.
#[derive(Debug)]
pub(crate) struct LiveFile {
    path: PathBuf,
    input: BufReader<File>,
    length: u64,
    at: u64,
    schema: Arc<Schema>,
    rows: u64,
    /// Bytes at the end that are not a whole message.
    pub torn: u64,
    ended: bool,
}

/// A message's header, or why there is none.
enum Header {
    Message(Vec<u8>),
    EndMarker,
    /// The file ends here, before a whole header.
    Torn,
}

impl LiveFile {
    /// Reads the header message.
    pub(crate) fn open(path: &Path, file: File, length: u64) -> Result<(LiveFile, Meta), TraceError> {
        let mut live = LiveFile {
            path: path.to_path_buf(),
            input: BufReader::with_capacity(1 << 16, file),
            length,
            at: 0,
            schema: Arc::new(Schema::empty()),
            rows: 0,
            torn: 0,
            ended: false,
        };
        let Header::Message(message) = live.header()? else {
            return Err(TraceError::truncated(path, "its header is not complete, so it holds no rows"));
        };
        let schema = decode_schema(&message).map_err(|e| TraceError::corrupt(path, e))?;
        let Some(text) = schema.metadata().get(META_KEY) else {
            return Err(TraceError::foreign(path, "an Arrow stream of something else"));
        };
        let meta = read_meta(path, text)?;
        if schema.metadata().get(CRC_KEY) != Some(&RowSum::default().finish(text)) {
            return Err(TraceError::corrupt(path, "its header does not have its checksum"));
        }
        let missing = missing_columns(&schema);
        if !missing.is_empty() {
            return Err(TraceError::MissingColumns { path: path.to_path_buf(), columns: missing });
        }
        if let Some(what) = wrong_type(&schema) {
            return Err(TraceError::corrupt(path, what));
        }
        live.schema = Arc::new(schema);
        Ok((live, meta))
    }

    /// The next batch and the state of the recording as of it; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(Vec<Span>, State)>, TraceError> {
        if self.ended {
            return Ok(None);
        }
        let start = self.at;
        let message = match self.header()? {
            Header::Message(message) => message,
            Header::EndMarker => {
                self.ended = true;
                return Ok(None);
            }
            Header::Torn => return Ok(self.end_torn(start)),
        };
        let body = match body_bytes(&message) {
            Ok(bytes) if bytes > self.length - self.at => return Ok(self.end_torn(start)),
            Ok(bytes) => self.take(bytes)?,
            Err(_) if self.zeros_to_the_end()? => return Ok(self.end_torn(start)),
            Err(what) => return Err(self.corrupt(what)),
        };
        let decoded = decode_spans(&message, body, &self.schema).and_then(|(spans, state)| {
            let rows = self.rows + spans.len() as u64;
            if state.rows == rows { Ok((spans, state)) } else { Err("a batch is missing".to_owned()) }
        });
        match decoded {
            Ok((spans, state)) => {
                self.rows = state.rows;
                Ok(Some((spans, state)))
            }
            // A machine that went down can leave the last message at full length with blocks that were never written.
            Err(_) if self.at == self.length || self.zeros_to_the_end()? => Ok(self.end_torn(start)),
            Err(what) => Err(self.corrupt(what)),
        }
    }

    fn end_torn(&mut self, start: u64) -> Option<(Vec<Span>, State)> {
        self.torn = self.length - start;
        self.ended = true;
        None
    }

    fn header(&mut self) -> Result<Header, TraceError> {
        let start = self.at;
        if self.length - self.at < 8 {
            return Ok(Header::Torn);
        }
        let prefix = self.take(8)?;
        let (continuation, size) = prefix.split_at(4);
        if continuation != CONTINUATION {
            let torn = prefix.iter().all(|b| *b == 0) && self.zeros_to_the_end()?;
            return if torn {
                Ok(Header::Torn)
            } else {
                Err(self.corrupt(format!("no message starts at byte {start}")))
            };
        }
        let size = size.iter().rev().fold(0u64, |size, byte| size << 8 | u64::from(*byte));
        if size == 0 {
            if self.at == self.length {
                return Ok(Header::EndMarker);
            }
            // A message whose length was never written looks like the end marker, with zeros behind it.
            let torn = self.zeros_to_the_end()?;
            return if torn { Ok(Header::Torn) } else { Err(self.corrupt("bytes follow its end")) };
        }
        if size > self.length - self.at {
            return Ok(Header::Torn);
        }
        Ok(Header::Message(self.take(size)?))
    }

    /// Exactly `bytes` more bytes, known to be there by the file's length (so the allocation is bounded by it).
    fn take(&mut self, bytes: u64) -> Result<Vec<u8>, TraceError> {
        let mut taken = Vec::new();
        let read = self.input.by_ref().take(bytes).read_to_end(&mut taken);
        match read {
            Ok(read) if read as u64 == bytes => {
                self.at += bytes;
                Ok(taken)
            }
            Ok(_) => Err(self.corrupt("it became shorter while it was read")),
            Err(error) => Err(TraceError::io("read", &self.path, error)),
        }
    }

    /// Whether only zeros are left: blocks that a file system allocated and never filled. Consumes them.
    fn zeros_to_the_end(&mut self) -> Result<bool, TraceError> {
        while self.at < self.length {
            let some = self.take((self.length - self.at).min(1 << 16))?;
            if some.iter().any(|b| *b != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn corrupt(&mut self, what: impl ToString) -> TraceError {
        self.ended = true;
        TraceError::corrupt(&self.path, what)
    }
}
