//! The state that a run ended in, in two hashes: equal workloads give equal digests on every stack.
//!
//! Computed from the files after the runtime has ended, so that it shows what is stored and not what a stack believes.
//! What the workload does not determine is left out: the time when a client left, the order in which publishers came to
//! a partition, and leftovers of sessions that end with their connection. What it does determine goes in: every session
//! with its subscriptions, and for every partition and publisher the records in their order. What it leaves out: state in
//! memory (retained messages, queues), which dies with the process on every stack.

use crate::broker::effect::SessionRecord;
use crate::broker::record::Record;
use crate::meta::StoreError;
use crate::recover::{list, walk_segment};
use crate::segment::{Layout, SegmentError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// The state in two hashes, with what they count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// SHA-256 over the sessions in key order, hex.
    pub meta: String,
    /// SHA-256 over partitions and publishers in order, each with the SHA-256 over its records, hex.
    pub segments: String,
    /// Records in all segments.
    pub records: u64,
    /// Sessions that count.
    pub sessions: u64,
}

/// Why the state cannot be read back: then the run is worth nothing.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// In the segments.
    #[error("the segments that the run wrote cannot be read back: {0}")]
    Segments(#[from] SegmentError),
    /// In the store.
    #[error("the sessions that the run wrote cannot be read back: {0}")]
    Meta(#[from] StoreError),
}

/// Reads the segments back and hashes the whole state; `sessions` are those that the meta-service has read back, in the
/// order of their client ids.
///
/// # Errors
/// When something cannot be read, a checksum is wrong, sequences have a gap, or a segment ends in a torn record.
pub fn digest(layout: &Layout, partitions: u32, sessions: &[SessionRecord]) -> Result<Digest, DigestError> {
    let (meta, sessions) = meta_digest(sessions);
    let (segments, records) = segments_digest(layout, partitions)?;
    Ok(Digest { meta, segments, records, sessions })
}

fn meta_digest(stored: &[SessionRecord]) -> (String, u64) {
    let (mut hash, mut sessions) = (Sha256::new(), 0);
    for session in stored {
        if session.expiry_s == 0 {
            continue;
        }
        sessions += 1;
        field(&mut hash, session.client.as_bytes());
        hash.update(session.expiry_s.to_le_bytes());
        hash.update((session.subscriptions.len() as u64).to_le_bytes());
        for (filter, options) in &session.subscriptions {
            field(&mut hash, filter.as_bytes());
            hash.update([*options]);
        }
    }
    (hex(hash), sessions)
}

fn segments_digest(layout: &Layout, partitions: u32) -> Result<(String, u64), SegmentError> {
    let (mut hash, mut records) = (Sha256::new(), 0);
    for (partition, segments) in list(layout, partitions)? {
        let (mut next_seq, mut publishers) = (0, BTreeMap::<String, Sha256>::new());
        for segment in segments {
            let path = layout.segment_path(partition, segment);
            let walked = walk_segment(&path, &mut next_seq, |record| {
                match publishers.get_mut(record.publisher) {
                    Some(chain) => add(chain, record),
                    None => add(publishers.entry(record.publisher.to_owned()).or_default(), record),
                };
            })?;
            if let Some(tail) = walked.tail {
                return Err(SegmentError::Corrupt { path, at: walked.whole_bytes, reason: tail.why.to_string() });
            }
        }
        records += next_seq;
        for (publisher, chain) in publishers {
            hash.update(partition.to_le_bytes());
            field(&mut hash, publisher.as_bytes());
            hash.update(chain.finalize());
        }
    }
    Ok((hex(hash), records))
}

/// A record without its place in the partition. Its ordinal among the publisher's messages goes in: it shows a lost or
/// doubled message even where payloads are alike.
fn add(chain: &mut Sha256, record: &Record<'_>) {
    chain.update(record.publisher_sequence.to_le_bytes());
    chain.update([record.qos, u8::from(record.retain)]);
    field(chain, record.topic.as_bytes());
    field(chain, record.properties);
    field(chain, record.payload);
}

/// With its length, so that neighbouring fields cannot be mistaken for each other.
fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::segment::SyncFiles;

    /// Writes (publisher, ordinal, payload) into partition 1, rolling after `per_segment` records.
    fn segments_of(messages: &[(&str, u64, &str)], per_segment: usize) -> Result<(String, u64), SegmentError> {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let files = SyncFiles::new(layout.clone());
        let mut sequence = 0;
        for (segment, chunk) in messages.chunks(per_segment).enumerate() {
            files.roll(1, segment as u32, false).unwrap();
            let mut bytes = Vec::new();
            for &(publisher, publisher_sequence, payload) in chunk {
                let (topic, properties, payload) = ("t", &b""[..], payload.as_bytes());
                let (qos, retain) = (1, false);
                Record { sequence, publisher_sequence, qos, retain, publisher, topic, properties, payload }
                    .encode(&mut bytes);
                sequence += 1;
            }
            files.append(1, segment as u32, 0, &bytes).unwrap();
        }
        segments_digest(&layout, 8)
    }

    #[test]
    fn the_interleaving_of_publishers_and_the_rolls_do_not_matter() {
        let one = segments_of(&[("a", 0, "x"), ("a", 1, "y"), ("b", 0, "z")], 9).unwrap();
        let other = segments_of(&[("a", 0, "x"), ("b", 0, "z"), ("a", 1, "y")], 1).unwrap();
        assert_eq!(one, other);
        assert_eq!(one.1, 3);
    }

    #[test]
    fn order_content_and_number_of_a_publishers_records_do() {
        let base = segments_of(&[("a", 0, "x"), ("a", 1, "y")], 9).unwrap();
        for other in [
            &[("a", 1, "y"), ("a", 0, "x")][..],
            &[("a", 0, "x"), ("a", 1, "z")],
            &[("a", 0, "x"), ("b", 1, "y")],
            &[("a", 0, "x"), ("a", 1, "y"), ("a", 1, "y")],
            &[("a", 0, "xy"), ("a", 1, "")],
            &[("a", 0, "x")],
        ] {
            assert_ne!(base.0, segments_of(other, 9).unwrap().0, "{other:?}");
        }
    }

    #[test]
    fn sessions_count_without_the_time_of_leaving_and_without_transient_ones() {
        let digest_of = |records: &[SessionRecord]| {
            let mut sorted = records.to_vec();
            sorted.sort_by(|a, b| a.client.cmp(&b.client));
            meta_digest(&sorted)
        };
        let session = |client: &str, expiry_s, qos, left_unix_s| SessionRecord {
            client: client.into(),
            expiry_s,
            subscriptions: vec![("t/#".into(), qos)],
            left_unix_s,
        };
        let base = digest_of(&[session("a", 60, 1, None), session("b", 60, 1, None)]);
        assert_eq!(base.1, 2);
        let other = digest_of(&[session("c", 0, 1, None), session("b", 60, 1, Some(7)), session("a", 60, 1, Some(9))]);
        assert_eq!(base, other);
        assert_ne!(base, digest_of(&[session("a", 60, 2, None), session("b", 60, 1, None)]));
        assert_ne!(base, digest_of(&[session("a", 60, 1, None)]));
    }
}
