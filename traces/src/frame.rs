//! One message of the live form: an Arrow IPC frame that carries its own state and checksum.
//!
//! The drop counters and clocks of a recording are known only as it goes on, and must survive a kill. Arrow allows
//! `custom_metadata` on every message, which readers that do not know it pass over; so each record batch carries, as
//! of its writing, a [`State`] and a CRC-32. The `arrow-ipc` crate encodes batches without custom metadata, so this
//! module adds it to the finished message. It leaves out dictionaries and body compression: sealing does these better.
//!
//! The checksum covers the *values* ([`RowSum`]), not the bytes, so that one definition serves both forms.

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::writer::{DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_ipc::{Message, MessageArgs, MessageHeader, RecordBatchArgs};
use arrow_schema::{ArrowError, Schema};
use flatbuffers::FlatBufferBuilder;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

use crate::meta::{Clocks, Drops};
use crate::schema::{CRC_KEY, META_KEY, from_batch, to_batch};
use crate::span::Span;

/// What a recording knew when it wrote a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Rows written up to and including this batch.
    pub rows: u64,
    /// Losses so far.
    pub drops: Drops,
    /// Both clocks at the writing of this batch.
    pub now: Clocks,
    /// Whether this is the last batch of a recording that ended in an orderly way.
    pub finished: bool,
}

/// CRC-32 (IEEE) over rows in their canonical encoding, then over the metadata text beside them.
///
/// A row is the sequence of its columns in the order of the schema: integers little-endian in their own width; a
/// nullable column is the byte 0 for null, or the byte 1 and the value; a string is its length as u32 and its bytes.
#[derive(Debug, Clone, Default)]
pub struct RowSum {
    crc: crc32fast::Hasher,
    row: Vec<u8>,
}

impl RowSum {
    /// Adds rows in file order.
    pub fn add(&mut self, spans: &[Span]) {
        for span in spans {
            self.row.clear();
            canonical_row(span, &mut self.row);
            self.crc.update(&self.row);
        }
    }

    /// Ends with the metadata text; the result as stored: eight hex digits.
    pub fn finish(mut self, text: &str) -> String {
        self.crc.update(text.as_bytes());
        format!("{:08x}", self.crc.finalize())
    }
}

fn canonical_row(span: &Span, row: &mut Vec<u8>) {
    fn optional<const N: usize>(value: Option<[u8; N]>, row: &mut Vec<u8>) {
        row.push(u8::from(value.is_some()));
        row.extend(value.iter().flatten());
    }
    fn text(value: &str, row: &mut Vec<u8>) {
        // A target longer than 4 GiB cannot be held by Arrow's Utf8 either; saturating keeps this total.
        row.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        row.extend(value.as_bytes());
    }
    row.extend(span.id.to_le_bytes());
    optional(span.parent.map(u64::to_le_bytes), row);
    text(span.kind.name(), row);
    row.extend(span.start_ns.to_le_bytes());
    optional(span.duration_ns.map(u64::to_le_bytes), row);
    optional(span.busy_ns.map(u64::to_le_bytes), row);
    optional(span.session.map(u64::to_le_bytes), row);
    optional(span.connection.map(u32::to_le_bytes), row);
    row.push(u8::from(span.target.is_some()));
    if let Some(target) = &span.target {
        text(target, row);
    }
    row.extend(span.bytes.to_le_bytes());
    row.extend(span.count.to_le_bytes());
    row.push(span.qos);
    row.extend(span.flags.to_le_bytes());
    row.push(span.status);
    row.extend(span.keep_alive_s.to_le_bytes());
    row.extend(span.expiry_s.to_le_bytes());
    row.extend(span.thread.to_le_bytes());
}

/// The two metadata entries that stand together in every message and in the sealed file.
pub(crate) fn checked_entries(sum: RowSum, text: String) -> HashMap<String, String> {
    let crc = sum.finish(&text);
    HashMap::from([(META_KEY.to_owned(), text), (CRC_KEY.to_owned(), crc)])
}

/// The end-of-stream marker of an IPC stream.
pub(crate) const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// The schema message that opens a live file.
pub(crate) fn encode_schema(schema: &Schema) -> Result<Vec<u8>, ArrowError> {
    let options = IpcWriteOptions::default();
    let mut tracker = DictionaryTracker::new(false);
    let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options);
    frame(encoded, &options)
}

/// A batch of rows with the state of the recording as of now.
pub(crate) fn encode_spans(spans: &[Span], state: &State) -> Result<Vec<u8>, ArrowError> {
    let text = serde_json::to_string(state).map_err(|e| ArrowError::JsonError(e.to_string()))?;
    let mut sum = RowSum::default();
    sum.add(spans);
    encode_batch(&to_batch(spans)?, checked_entries(sum, text))
}

fn encode_batch(batch: &RecordBatch, entries: HashMap<String, String>) -> Result<Vec<u8>, ArrowError> {
    let options = IpcWriteOptions::default();
    let mut tracker = DictionaryTracker::new(false);
    let mut context = IpcWriteContext::default();
    let (_, encoded) = IpcDataGenerator::default().encode(batch, &mut tracker, &options, &mut context)?;
    let ipc_message = add_entries(&encoded.ipc_message, entries)?;
    frame(EncodedData { ipc_message, arrow_data: encoded.arrow_data }, &options)
}

/// Rebuilds a record batch message with custom metadata.
fn add_entries(message: &[u8], entries: HashMap<String, String>) -> Result<Vec<u8>, ArrowError> {
    let unreadable = |what: &str| ArrowError::IpcError(what.to_owned());
    let message = arrow_ipc::root_as_message(message).map_err(|e| ArrowError::IpcError(e.to_string()))?;
    let header = message.header_as_record_batch().ok_or_else(|| unreadable("not a record batch"))?;
    let nodes: Vec<_> = header.nodes().ok_or_else(|| unreadable("no nodes"))?.iter().copied().collect();
    let buffers: Vec<_> = header.buffers().ok_or_else(|| unreadable("no buffers"))?.iter().copied().collect();
    let mut builder = FlatBufferBuilder::new();
    let nodes = builder.create_vector(&nodes);
    let buffers = builder.create_vector(&buffers);
    let batch = arrow_ipc::RecordBatch::create(
        &mut builder,
        &RecordBatchArgs {
            length: header.length(),
            nodes: Some(nodes),
            buffers: Some(buffers),
            compression: None,
            variadicBufferCounts: None,
        },
    );
    let metadata = arrow_ipc::convert::metadata_to_fb(&mut builder, &entries.into());
    let rebuilt = Message::create(
        &mut builder,
        &MessageArgs {
            version: message.version(),
            header_type: MessageHeader::RecordBatch,
            header: Some(batch.as_union_value()),
            bodyLength: message.bodyLength(),
            custom_metadata: Some(metadata),
        },
    );
    builder.finish(rebuilt, None);
    Ok(builder.finished_data().to_vec())
}

fn frame(encoded: EncodedData, options: &IpcWriteOptions) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::with_capacity(encoded.ipc_message.len() + encoded.arrow_data.len() + 80);
    arrow_ipc::writer::write_message(&mut bytes, encoded, options)?;
    Ok(bytes)
}

/// The schema of an opening message.
///
/// # Errors
/// In words, if the message is none.
pub(crate) fn decode_schema(message: &[u8]) -> Result<Schema, String> {
    let message = arrow_ipc::root_as_message(message).map_err(|e| e.to_string())?;
    let schema = message.header_as_schema().ok_or("the first message is not a schema")?;
    guarded(|| arrow_ipc::convert::try_fb_to_schema(schema).map_err(|e| e.to_string()))
}

/// How many bytes follow a message's header.
///
/// # Errors
/// In words, if the header is not one.
pub(crate) fn body_bytes(message: &[u8]) -> Result<u64, String> {
    let message = arrow_ipc::root_as_message(message).map_err(|e| e.to_string())?;
    u64::try_from(message.bodyLength()).map_err(|_| "a message has a negative length".to_owned())
}

/// The spans and the state of a batch message, checksum verified.
///
/// # Errors
/// In words, whatever contradicts the format.
pub(crate) fn decode_spans(message: &[u8], body: Vec<u8>, schema: &Arc<Schema>) -> Result<(Vec<Span>, State), String> {
    let message = arrow_ipc::root_as_message(message).map_err(|e| e.to_string())?;
    let header = message.header_as_record_batch().ok_or("a message that is not a record batch")?;
    let text = entry(&message, META_KEY).ok_or("a batch without its state")?;
    let crc = entry(&message, CRC_KEY).ok_or("a batch without its checksum")?;
    let fits = |offset: i64, length: i64| {
        offset >= 0 && length >= 0 && offset.checked_add(length).is_some_and(|end| end <= body.len() as i64)
    };
    if header.length() < 0 || header.buffers().iter().flatten().any(|b| !fits(b.offset(), b.length())) {
        return Err("a batch points outside of itself".to_owned());
    }
    let version = message.version();
    let body = Buffer::from_vec(body);
    let spans = guarded(|| {
        let dictionaries = HashMap::new();
        arrow_ipc::reader::read_record_batch(&body, header, Arc::clone(schema), &dictionaries, None, &version)
            .map_err(|e| e.to_string())
            .and_then(|batch| from_batch(&batch))
    })?;
    let mut sum = RowSum::default();
    sum.add(&spans);
    if sum.finish(text) != crc {
        return Err("a batch does not have its checksum".to_owned());
    }
    let state = serde_json::from_str(text).map_err(|e| format!("the state of a batch is unreadable: {e}"))?;
    Ok((spans, state))
}

fn entry<'a>(message: &Message<'a>, key: &str) -> Option<&'a str> {
    message.custom_metadata()?.iter().find(|entry| entry.key() == Some(key))?.value()
}

/// Runs a decoder that was written for trusted bytes. The Arrow and Parquet crates return errors for nearly all
/// malformed input, yet a few paths still panic; a trace comes from outside, so a panic there is an error here too.
pub(crate) fn guarded<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err("its decoder gave up on contradictory lengths".to_owned()))
}
