//! Reading segment files from end to end: recovery at start, and the walk that the state digest is made from.
//!
//! A broker that was killed leaves at most one torn record, at the end of a partition's newest segment: that tail was
//! never acknowledged and is cut off. Anything else that is not a record means damage, and damage is never repaired by
//! guessing: the start ends with the file and the offset. Every record's checksum is verified, so a start reads all
//! segments once; indexes are left out, since a study's directories are new.

use crate::broker::PartitionState;
use crate::broker::record::{Record, RecordError};
use crate::segment::{Layout, SegmentError, describe, sync_dir};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes that a walk reads at once.
const WINDOW_BYTES: usize = 1 << 20;

/// How a walk over one segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Bytes of whole records.
    pub whole_bytes: u64,
    /// What follows them, if anything.
    pub tail: Option<Tail>,
}

/// Bytes at the end of a file that are no whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// What is wrong there.
    pub why: RecordError,
    /// Whether a whole record stands somewhere behind: then the file is damaged and not torn.
    pub records_follow: bool,
}

/// Prepares the directory of all partitions and finds where each of `partitions` stands. Torn tails are cut off.
///
/// # Errors
/// When a file cannot be read or changed, is damaged or missing, or when more partitions are there than asked for.
pub fn recover(layout: &Layout, partitions: u32, durable: bool) -> Result<Vec<PartitionState>, SegmentError> {
    let root = layout.root();
    fs::create_dir_all(root).map_err(|error| SegmentError::Io(describe("creating", root, &error)))?;
    if let (true, Some(data)) = (durable, root.parent()) {
        sync_dir(data).map_err(SegmentError::Io)?;
    }
    let mut states = Vec::new();
    for (partition, segments) in list(layout, partitions)? {
        let mut state = PartitionState { partition, segment: 0, next_at: 0, next_seq: 0 };
        let newest = segments.len().saturating_sub(1);
        for (index, segment) in segments.into_iter().enumerate() {
            let path = layout.segment_path(partition, segment);
            let walked = walk_segment(&path, &mut state.next_seq, |_| {})?;
            (state.segment, state.next_at) = (segment, walked.whole_bytes);
            let Some(tail) = walked.tail else { continue };
            if index != newest || tail.records_follow {
                return Err(SegmentError::Corrupt { path, at: walked.whole_bytes, reason: tail.why.to_string() });
            }
            let file = OpenOptions::new().write(true).open(&path);
            file.and_then(|file| file.set_len(walked.whole_bytes).and_then(|()| file.sync_all()))
                .map_err(|error| SegmentError::Io(describe("cutting the torn tail off", &path, &error)))?;
        }
        states.push(state);
    }
    Ok(states)
}

/// Segment numbers per partition, ascending from 0 without a gap; partitions without a segment are left out.
///
/// # Errors
/// As [`recover`], except for damage inside of files.
pub fn list(layout: &Layout, partitions: u32) -> Result<BTreeMap<u32, Vec<u32>>, SegmentError> {
    let mut found = BTreeMap::new();
    for (partition, dir) in numbered(layout.root(), "p", "")? {
        if partition >= partitions {
            return Err(SegmentError::Beyond { path: dir, partitions });
        }
        let segments: Vec<u32> = numbered(&dir, "", ".seg")?.into_keys().collect();
        if let Some(missing) = (0..).zip(&segments).find_map(|(due, &there)| (due != there).then_some(due)) {
            return Err(SegmentError::Missing { path: layout.segment_path(partition, missing) });
        }
        if !segments.is_empty() {
            found.insert(partition, segments);
        }
    }
    Ok(found)
}

fn numbered(dir: &Path, prefix: &str, suffix: &str) -> Result<BTreeMap<u32, PathBuf>, SegmentError> {
    let unreadable = |error| SegmentError::Io(describe("reading", dir, &error));
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok());
        match number {
            Some(number) => found.insert(number, entry.path()),
            None => return Err(SegmentError::Foreign { path: entry.path() }),
        };
    }
    Ok(found)
}

/// Visits every record of one segment, verifies its checksum, and that sequences continue from `next_seq` without a gap.
///
/// # Errors
/// When the file cannot be read or a sequence is not the one that is due. What is no whole record ends the walk, and is
/// judged by the caller.
pub fn walk_segment(
    path: &Path,
    next_seq: &mut u64,
    mut visit: impl FnMut(&Record<'_>),
) -> Result<Walked, SegmentError> {
    let unreadable = |error: io::Error| SegmentError::Io(describe("reading", path, &error));
    let mut file = fs::File::open(path).map_err(unreadable)?;
    let mut window = Vec::new();
    let (mut at, mut start, mut wanted, mut at_end) = (0u64, 0usize, WINDOW_BYTES, false);
    loop {
        if !at_end {
            window.drain(..start);
            start = 0;
            let missing = wanted.saturating_sub(window.len()).max(WINDOW_BYTES);
            let read = (&mut file).take(missing as u64).read_to_end(&mut window).map_err(unreadable)?;
            at_end = read < missing;
        }
        let why = loop {
            let rest = window.get(start..).unwrap_or_default();
            if rest.is_empty() && at_end {
                return Ok(Walked { whole_bytes: at, tail: None });
            }
            match Record::decode(rest) {
                Ok((record, len)) => {
                    if record.sequence != *next_seq {
                        let reason = format!("record {} stands where {next_seq} is due", record.sequence);
                        return Err(SegmentError::Corrupt { path: path.to_path_buf(), at, reason });
                    }
                    visit(&record);
                    *next_seq += 1;
                    (start, at) = (start + len, at + len as u64);
                }
                Err(why) => break why,
            }
        };
        match why {
            RecordError::Torn { need, .. } if !at_end => wanted = need,
            _ => {
                file.read_to_end(&mut window).map_err(unreadable)?;
                let rest = window.get(start..).unwrap_or_default();
                let records_follow = (1..rest.len()).any(|skip| Record::decode(&rest[skip..]).is_ok());
                return Ok(Walked { whole_bytes: at, tail: Some(Tail { why, records_follow }) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::segment::SyncFiles;

    fn record(sequence: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let record = Record {
            sequence,
            publisher_sequence: sequence,
            qos: 1,
            retain: false,
            publisher: "pub",
            topic: "t",
            properties: b"",
            payload,
        };
        record.encode(&mut bytes);
        bytes
    }

    /// Partition 2 with segments of three records each.
    fn written(segments: u32) -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let files = SyncFiles::new(layout.clone());
        for segment in 0..segments {
            files.roll(2, segment, false).unwrap();
            let first = u64::from(segment) * 3;
            let bytes: Vec<u8> = (first..first + 3).flat_map(|sequence| record(sequence, b"payload")).collect();
            files.append(2, segment, 0, &bytes).unwrap();
        }
        (dir, layout)
    }

    fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn an_empty_directory_has_no_partitions() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(&dir.path().join("data"));
        assert_eq!(recover(&layout, 8, true).unwrap(), []);
        assert!(layout.root().is_dir());
    }

    #[test]
    fn a_partition_goes_on_where_it_stood() {
        let (_dir, layout) = written(2);
        let next_at = 3 * record(0, b"payload").len() as u64;
        assert_eq!(
            recover(&layout, 8, true).unwrap(),
            [PartitionState { partition: 2, segment: 1, next_at, next_seq: 6 }]
        );
        SyncFiles::new(layout.clone()).roll(2, 2, false).unwrap();
        let state = PartitionState { partition: 2, segment: 2, next_at: 0, next_seq: 6 };
        assert_eq!(recover(&layout, 8, true).unwrap(), [state], "an empty newest segment counts");
    }

    #[test]
    fn a_torn_tail_is_cut_wherever_the_write_ended() {
        let len = record(0, b"payload").len();
        for torn in 1..len {
            let (_dir, layout) = written(1);
            let path = layout.segment_path(2, 0);
            change(&path, |bytes| bytes.extend_from_slice(&record(3, b"payload")[..torn]));
            let state = recover(&layout, 8, true).unwrap()[0];
            assert_eq!((state.next_at, state.next_seq), (3 * len as u64, 3), "torn after {torn} bytes");
            assert_eq!(fs::metadata(&path).unwrap().len(), state.next_at);
        }
    }

    #[test]
    fn unwritten_zeroes_at_the_end_are_a_torn_tail() {
        let (_dir, layout) = written(1);
        change(&layout.segment_path(2, 0), |bytes| bytes.extend_from_slice(&[0; 5000]));
        assert_eq!(recover(&layout, 8, true).unwrap()[0].next_seq, 3);
    }

    #[test]
    fn damage_before_other_records_is_refused_with_its_place() {
        let len = record(0, b"payload").len();
        // In the magic, in the length (which then points beyond the end), and in the payload.
        for offset in [0, 6, len - 1] {
            let (_dir, layout) = written(1);
            change(&layout.segment_path(2, 0), |bytes| bytes[len + offset] ^= 0x40);
            let error = recover(&layout, 8, true).unwrap_err();
            assert!(matches!(&error, SegmentError::Corrupt { at, .. } if *at == len as u64), "{error}");
        }
    }

    #[test]
    fn a_torn_tail_that_is_not_in_the_newest_segment_is_damage() {
        let (_dir, layout) = written(2);
        change(&layout.segment_path(2, 0), |bytes| bytes.truncate(bytes.len() - 1));
        let error = recover(&layout, 8, true).unwrap_err();
        assert!(matches!(&error, SegmentError::Corrupt { path, .. } if path.ends_with("00000000.seg")), "{error}");
    }

    #[test]
    fn gaps_and_strangers_are_refused() {
        let (_dir, layout) = written(3);
        fs::remove_file(layout.segment_path(2, 1)).unwrap();
        assert!(matches!(recover(&layout, 8, true), Err(SegmentError::Missing { .. })));

        let (_dir, layout) = written(1);
        change(&layout.segment_path(2, 0), |bytes| bytes.extend_from_slice(&record(7, b"payload")));
        let error = recover(&layout, 8, true).unwrap_err();
        assert!(error.to_string().contains("record 7 stands where 3 is due"), "{error}");

        let (_dir, layout) = written(1);
        assert!(matches!(recover(&layout, 2, true), Err(SegmentError::Beyond { .. })));
        fs::write(layout.partition_dir(2).join("notes.txt"), "x").unwrap();
        assert!(matches!(recover(&layout, 8, true), Err(SegmentError::Foreign { .. })));
    }

    #[test]
    fn records_larger_than_the_window_are_walked() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let files = SyncFiles::new(layout.clone());
        files.roll(0, 0, false).unwrap();
        let payload = vec![7; 3 * WINDOW_BYTES];
        let bytes = [record(0, &payload), record(1, b"small"), record(2, &payload)].concat();
        files.append(0, 0, 0, &bytes).unwrap();
        let mut lengths = Vec::new();
        let mut next_seq = 0;
        let walked =
            walk_segment(&layout.segment_path(0, 0), &mut next_seq, |r| lengths.push(r.payload.len())).unwrap();
        assert_eq!(walked, Walked { whole_bytes: bytes.len() as u64, tail: None });
        assert_eq!(lengths, [payload.len(), 5, payload.len()]);
    }
}
