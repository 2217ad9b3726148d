//! Segment files: where they lie, and how they are written by plain system calls.
//!
//! ```text
//! DATA/segments/p0003/00000000.seg     whole records of the broker's format, one after the other
//! ```
//! [`SyncFiles`] is used by `Files::Inline` on every stack, and from the blocking pool by tokio's `Files::Native`;
//! completion runtimes open the same paths in their own way. Recovery is in [`crate::recover`].

use bytes::Bytes;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Why segment files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// A file or directory cannot be read or changed.
    #[error("{0}")]
    Io(String),
    /// Something that is no segment lies among the segments.
    #[error("{} is no segment file; move it out of the data directory", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// A segment between others is missing.
    #[error("segment {} is missing although later ones exist; restore it or start with an empty data directory", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// The directory was written with more partitions than the settings name.
    #[error("{} lies beyond the {partitions} partitions of the settings; set `partitions` as it was, or start with an empty data directory", path.display())]
    Beyond {
        /// The partition's directory.
        path: PathBuf,
        /// Partitions of the settings.
        partitions: u32,
    },
    /// A record is damaged and others follow it, so that no torn write explains it.
    #[error("segment {} is corrupt at byte {at}: {reason}; restore it or start with an empty data directory", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Offset of the first bad record.
        at: u64,
        /// What is wrong there.
        reason: String,
    },
}

/// Where segment files lie. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: Arc<Path>,
}

impl Layout {
    /// Below the data directory `data`.
    pub fn new(data: &Path) -> Layout {
        Layout { root: data.join("segments").into() }
    }

    /// The directory of all partitions.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of one partition.
    pub fn partition_dir(&self, partition: u32) -> PathBuf {
        self.root.join(format!("p{partition:04}"))
    }

    /// One segment file.
    pub fn segment_path(&self, partition: u32, segment: u32) -> PathBuf {
        self.partition_dir(partition).join(format!("{segment:08}.seg"))
    }
}

/// The one sentence about a failed operation on a file, with what to do about it.
pub fn describe(operation: &str, path: &Path, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull => "; free space on that file system",
        io::ErrorKind::QuotaExceeded => "; raise the disk quota of this user",
        io::ErrorKind::PermissionDenied => "; let this user write there",
        io::ErrorKind::ReadOnlyFilesystem => "; name a data directory on a writable file system",
        io::ErrorKind::NotFound => "; it was removed while the broker ran",
        io::ErrorKind::UnexpectedEof => "; it is shorter than the broker wrote it",
        _ if error.raw_os_error() == Some(libc::EMFILE) => "; raise the limit of open files (`ulimit -n`)",
        _ => "",
    };
    format!("{operation} {} failed: {error}{advice}", path.display())
}

/// By partition and segment.
type OpenFiles = HashMap<(u32, u32), Arc<File>>;

/// The segment files of one shard, opened on first use, for plain system calls from any thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SyncFiles {
    layout: Layout,
    open: Arc<Mutex<OpenFiles>>,
}

impl SyncFiles {
    /// Of one shard; opens nothing yet.
    pub fn new(layout: Layout) -> SyncFiles {
        SyncFiles { layout, open: Arc::default() }
    }

    /// Writes `bytes` at offset `at`; returns when write(2) has.
    ///
    /// # Errors
    /// One sentence with the path.
    pub fn append(&self, partition: u32, segment: u32, at: u64, bytes: &[u8]) -> Result<(), String> {
        self.with(partition, segment, "writing", |file| file.write_all_at(bytes, at))
    }

    /// fdatasync(2).
    ///
    /// # Errors
    /// One sentence with the path. The kernel reports a lost write once only, so the broker must halt.
    pub fn sync(&self, partition: u32, segment: u32) -> Result<(), String> {
        self.with(partition, segment, "syncing", File::sync_data)
    }

    /// Reads exactly `len` bytes at offset `at`.
    ///
    /// # Errors
    /// One sentence with the path, also when the file is shorter.
    pub fn read(&self, partition: u32, segment: u32, at: u64, len: u32) -> Result<Bytes, String> {
        let mut bytes = vec![0; len as usize];
        self.with(partition, segment, "reading", |file| file.read_exact_at(&mut bytes, at))?;
        Ok(bytes.into())
    }

    /// Creates segment `segment` of a partition (and its directory), and with `durable` makes the directory entries
    /// durable too.
    ///
    /// # Errors
    /// One sentence with the path, also when the file exists with something in it.
    pub fn roll(&self, partition: u32, segment: u32, durable: bool) -> Result<(), String> {
        let file = create_segment(&self.layout, partition, segment, durable)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // The segment before stays open, since its last sync may be due; older ones are opened again when read.
        open.retain(|&(p, s), _| p != partition || s.saturating_add(1) >= segment);
        open.insert((partition, segment), Arc::new(file));
        Ok(())
    }

    fn with<T>(
        &self,
        partition: u32,
        segment: u32,
        operation: &str,
        call: impl FnOnce(&File) -> io::Result<T>,
    ) -> Result<T, String> {
        self.file(partition, segment)
            .and_then(|file| call(&file))
            .map_err(|error| describe(operation, &self.layout.segment_path(partition, segment), &error))
    }

    fn file(&self, partition: u32, segment: u32) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&(partition, segment)) {
            return Ok(Arc::clone(file));
        }
        let path = self.layout.segment_path(partition, segment);
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(path)?);
        open.insert((partition, segment), Arc::clone(&file));
        Ok(file)
    }
}

/// Creates segment `segment` of a partition for reading and writing, and its directory when this is the first; with
/// `durable` the directory entries are on the disk when it returns. Plain system calls: rare, and no ring has all of
/// them.
///
/// # Errors
/// One sentence with the path, also when the file exists with something in it.
pub fn create_segment(layout: &Layout, partition: u32, segment: u32, durable: bool) -> Result<File, String> {
    let (dir, path) = (layout.partition_dir(partition), layout.segment_path(partition, segment));
    let dir_is_new = !dir.exists();
    std::fs::create_dir_all(&dir).map_err(|error| describe("creating", &dir, &error))?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| describe("creating", &path, &error))?;
    let len = file.metadata().map_err(|error| describe("reading", &path, &error))?.len();
    if len != 0 {
        return Err(format!("creating {} failed: it exists with {len} bytes in it", path.display()));
    }
    if durable {
        sync_dir(&dir)?;
        if dir_is_new {
            sync_dir(layout.root())?;
        }
    }
    Ok(file)
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), String> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| describe("syncing", dir, &error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_back_across_a_roll() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let files = SyncFiles::new(layout.clone());
        files.roll(3, 0, true).unwrap();
        files.append(3, 0, 0, b"hello ").unwrap();
        files.append(3, 0, 6, b"world").unwrap();
        files.roll(3, 1, false).unwrap();
        files.append(3, 1, 0, b"next").unwrap();
        files.sync(3, 0).unwrap();
        files.roll(3, 2, true).unwrap();
        assert_eq!(files.read(3, 0, 6, 5).unwrap(), "world", "an older segment is opened again");
        assert_eq!(files.read(3, 1, 0, 4).unwrap(), "next");
        assert!(layout.segment_path(3, 2).ends_with("segments/p0003/00000002.seg"));
    }

    #[test]
    fn failures_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let files = SyncFiles::new(Layout::new(dir.path()));
        let missing = files.append(0, 0, 0, b"x").unwrap_err();
        assert!(missing.contains("segments/p0000/00000000.seg") && missing.contains("removed"), "{missing}");
        files.roll(0, 0, false).unwrap();
        files.append(0, 0, 0, b"x").unwrap();
        let short = files.read(0, 0, 0, 2).unwrap_err();
        assert!(short.contains("shorter than the broker wrote it"), "{short}");
        let again = files.roll(0, 0, false).unwrap_err();
        assert!(again.contains("exists with 1 bytes"), "{again}");
    }

    #[test]
    fn a_full_disk_is_told_in_one_sentence() {
        let error =
            std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().write_all_at(b"x", 0).unwrap_err();
        let sentence = describe("writing", Path::new("/data/x.seg"), &error);
        assert!(sentence.starts_with("writing /data/x.seg failed: No space left"), "{sentence}");
        assert!(sentence.ends_with("free space on that file system"), "{sentence}");
    }
}
