//! The segment files of one shard, written, synced and read by its ring: [`crate::segment::SyncFiles`] for compio.
//!
//! An operation completes when the ring says so and all of it is done: a short write or read is continued.

use crate::segment::{Layout, describe};
use bytes::Bytes;
use compio::BufResult;
use compio::buf::{IntoInner, IoBuf};
use compio::fs::{File, OpenOptions};
use compio::io::{AsyncReadAtExt, AsyncWriteAtExt};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;

/// Segment files, opened on first use.
pub(super) struct RingFiles {
    layout: Layout,
    open: RefCell<HashMap<(u32, u32), File>>,
}

impl RingFiles {
    pub(super) fn new(layout: Layout) -> RingFiles {
        RingFiles { layout, open: RefCell::default() }
    }

    pub(super) async fn append(&self, partition: u32, segment: u32, at: u64, bytes: Bytes) -> Result<(), String> {
        let file = self.file(partition, segment).await?;
        let BufResult(result, _bytes) = (&file).write_all_at(bytes, at).await;
        result.map_err(|error| self.describe("writing", partition, segment, &error))
    }

    pub(super) async fn sync(&self, partition: u32, segment: u32) -> Result<(), String> {
        let file = self.file(partition, segment).await?;
        file.sync_data().await.map_err(|error| self.describe("syncing", partition, segment, &error))
    }

    pub(super) async fn read(&self, partition: u32, segment: u32, at: u64, len: u32) -> Result<Bytes, String> {
        let file = self.file(partition, segment).await?;
        let BufResult(result, bytes) =
            file.read_exact_at(Vec::with_capacity(len as usize).slice(..len as usize), at).await;
        result.map_err(|error| self.describe("reading", partition, segment, &error)).map(|()| bytes.into_inner().into())
    }

    /// Closes the segments before the last one, which may still have to be synced. They are opened again when read.
    pub(super) fn close_before(&self, partition: u32, segment: u32) {
        self.open.borrow_mut().retain(|&(p, s), _| p != partition || s.saturating_add(1) >= segment);
    }

    async fn file(&self, partition: u32, segment: u32) -> Result<File, String> {
        if let Some(file) = self.open.borrow().get(&(partition, segment)) {
            return Ok(file.clone());
        }
        let path = self.layout.segment_path(partition, segment);
        let file = OpenOptions::new().read(true).write(true).open(&path).await;
        let file = file.map_err(|error| self.describe("opening", partition, segment, &error))?;
        self.open.borrow_mut().insert((partition, segment), file.clone());
        Ok(file)
    }

    fn describe(&self, operation: &str, partition: u32, segment: u32, error: &io::Error) -> String {
        describe(operation, &self.layout.segment_path(partition, segment), error)
    }
}
