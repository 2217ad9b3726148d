//! Records of a segment file: layout, encoding, decoding, and the scan that finds a torn tail.
//!
//! A segment file is records back to back, with no header of its own. All integers are little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `RGR1` |
//! | 4 | 4 | length of the whole record, this header included |
//! | 8 | 4 | CRC-32 (IEEE) of everything from offset 12 to the end of the record |
//! | 12 | 1 | flags: bits 0-1 QoS, bit 2 RETAIN; the others are 0 |
//! | 13 | 1 | 0 |
//! | 14 | 2 | length of the publisher's client id |
//! | 16 | 8 | sequence of the record within its partition, from 0, without gaps |
//! | 24 | 8 | ordinal of the message among its publisher's session's appended messages, from 0 |
//! | 32 | 2 | length of the topic |
//! | 34 | 2 | 0 |
//! | 36 | 4 | length of the properties |
//! | 40 | … | publisher (UTF-8), topic (UTF-8), properties (MQTT 5, encoded, without their length), payload |
//!
//! No time stands in a record: two runs of one workload differ only in the order that the broker assigned.

use thiserror::Error;

/// Bytes before the publisher.
pub const HEADER_BYTES: usize = 40;
const MAGIC: [u8; 4] = *b"RGR1";

/// A record, borrowed from its encoded form or about to be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Sequence within the partition.
    pub sequence: u64,
    /// Ordinal among the publisher's session's appended messages.
    pub publisher_sequence: u64,
    /// QoS of the publish, 0..=2.
    pub qos: u8,
    /// RETAIN as published.
    pub retain: bool,
    /// The publisher's client id.
    pub publisher: &'a str,
    /// Topic name.
    pub topic: &'a str,
    /// MQTT 5 properties that are passed on, encoded, without their length.
    pub properties: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The record is not there completely.
    #[error("the record ends after {have} of {need} bytes")]
    Torn {
        /// Bytes that are there.
        have: usize,
        /// Bytes that it takes (of the header, as long as that is incomplete).
        need: usize,
    },
    /// Something else stands there.
    #[error("no record begins here (its first four bytes are not `RGR1`)")]
    Magic,
    /// Its header contradicts itself, or a text is not UTF-8.
    #[error("the record's fields do not fit into its length, or a text in it is not UTF-8")]
    Fields,
    /// The bytes changed after they were written, or not all of them were written.
    #[error("the record's checksum is {found:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// As stored.
        found: u32,
        /// Over the bytes.
        computed: u32,
    },
}

impl<'a> Record<'a> {
    /// Bytes of the encoded record.
    pub fn encoded_len(&self) -> usize {
        HEADER_BYTES + self.publisher.len() + self.topic.len() + self.properties.len() + self.payload.len()
    }

    /// Appends the encoded record. Publisher and topic are MQTT strings, at most 65,535 bytes; longer ones are cut
    /// nowhere: such a record would not be read back, so callers take them from decoded packets only.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let len = self.encoded_len();
        out.reserve(len);
        let mut head = [0u8; HEADER_BYTES];
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&(len as u32).to_le_bytes());
        head[12] = self.qos & 3 | u8::from(self.retain) << 2;
        head[14..16].copy_from_slice(&(self.publisher.len() as u16).to_le_bytes());
        head[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        head[24..32].copy_from_slice(&self.publisher_sequence.to_le_bytes());
        head[32..34].copy_from_slice(&(self.topic.len() as u16).to_le_bytes());
        head[36..40].copy_from_slice(&(self.properties.len() as u32).to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(self.publisher.as_bytes());
        out.extend_from_slice(self.topic.as_bytes());
        out.extend_from_slice(self.properties);
        out.extend_from_slice(self.payload);
        let crc = crc32fast::hash(&out[start + 12..]);
        out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the record at the front of `bytes`; returns it and its length.
    ///
    /// # Errors
    /// When the bytes are too few, or are not a whole, unchanged record.
    pub fn decode(bytes: &'a [u8]) -> Result<(Record<'a>, usize), RecordError> {
        let (record, len) = Self::decode_unchecked(bytes)?;
        let found = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let computed = crc32fast::hash(&bytes[12..len]);
        if found != computed {
            return Err(RecordError::Checksum { found, computed });
        }
        Ok((record, len))
    }

    /// The publisher of the first record in `bytes` and how many whole records lie there, counted by their lengths alone:
    /// for records that this process has just encoded, where a checksum of each would cost more than recording them.
    pub(crate) fn outline(bytes: &'a [u8]) -> (&'a str, usize) {
        let first = Self::decode_unchecked(bytes).map_or("", |(record, _)| record.publisher);
        let (mut rest, mut records) = (bytes, 0);
        while let Some(head) = rest.first_chunk::<HEADER_BYTES>() {
            let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            match rest.get(len.max(HEADER_BYTES)..) {
                Some(after) => (rest, records) = (after, records + 1),
                None => break,
            }
        }
        (first, records)
    }

    /// As [`Self::decode`] without the checksum: for bytes that never left memory.
    pub(super) fn decode_unchecked(bytes: &'a [u8]) -> Result<(Record<'a>, usize), RecordError> {
        let torn = |need| RecordError::Torn { have: bytes.len(), need };
        if !bytes.starts_with(&MAGIC[..bytes.len().min(4)]) {
            return Err(RecordError::Magic);
        }
        let head: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(torn(HEADER_BYTES))?;
        let u16_at = |i: usize| usize::from(u16::from_le_bytes([head[i], head[i + 1]]));
        let u32_at = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]) as usize;
        let (len, publisher, topic, properties) = (u32_at(4), u16_at(14), u16_at(32), u32_at(36));
        let texts = HEADER_BYTES + publisher + topic;
        let payload_at = texts + properties;
        if payload_at > len || head[12] & !7 != 0 || head[12] & 3 == 3 {
            return Err(RecordError::Fields);
        }
        let body = bytes.get(..len).ok_or(torn(len))?;
        let text = |from: usize, to: usize| std::str::from_utf8(&body[from..to]).map_err(|_| RecordError::Fields);
        let u64_at = |i: usize| u64::from(u32_at(i) as u32) | u64::from(u32_at(i + 4) as u32) << 32;
        let record = Record {
            sequence: u64_at(16),
            publisher_sequence: u64_at(24),
            qos: head[12] & 3,
            retain: head[12] & 4 != 0,
            publisher: text(HEADER_BYTES, HEADER_BYTES + publisher)?,
            topic: text(HEADER_BYTES + publisher, texts)?,
            properties: &body[texts..payload_at],
            payload: &body[payload_at..],
        };
        Ok((record, len))
    }
}

/// What a scan meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned<'a> {
    /// A whole record.
    Whole {
        /// Its offset in the scanned bytes.
        at: u64,
        /// Its length, bytes.
        len: u32,
        /// The record.
        record: Record<'a>,
    },
    /// From `at` on there is no whole record: the file was being written when its writer died. Ends the scan. Cut the
    /// file here before it is appended to.
    TornTail {
        /// Offset of the first byte that belongs to no whole record.
        at: u64,
        /// Bytes from there to the end.
        bytes: u64,
        /// What is wrong there.
        why: RecordError,
    },
}

/// Reads records from the front of `bytes` (a segment file) to its end, or to the torn tail.
pub fn scan(bytes: &[u8]) -> Scan<'_> {
    Scan { bytes, at: 0 }
}

/// See [`scan`].
#[derive(Debug, Clone)]
pub struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Scan<'a> {
    type Item = Scanned<'a>;

    fn next(&mut self) -> Option<Scanned<'a>> {
        let rest = self.bytes.get(self.at..).filter(|r| !r.is_empty())?;
        let at = self.at as u64;
        match Record::decode(rest) {
            Ok((record, len)) => {
                self.at += len;
                Some(Scanned::Whole { at, len: len as u32, record })
            }
            Err(why) => {
                self.at = self.bytes.len();
                Some(Scanned::TornTail { at, bytes: rest.len() as u64, why })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn arbitrary() -> impl Strategy<Value = (u64, u64, u8, bool, String, String, Vec<u8>, Vec<u8>)> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..60);
        (any::<u64>(), any::<u64>(), 0..3u8, any::<bool>(), ".{0,20}", ".{0,40}", bytes(), bytes())
    }

    fn view(r: &(u64, u64, u8, bool, String, String, Vec<u8>, Vec<u8>)) -> Record<'_> {
        Record {
            sequence: r.0,
            publisher_sequence: r.1,
            qos: r.2,
            retain: r.3,
            publisher: &r.4,
            topic: &r.5,
            properties: &r.6,
            payload: &r.7,
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_scanned(records in proptest::collection::vec(arbitrary(), 0..8), cut in 0usize..200) {
            let mut file = Vec::new();
            let mut ends = vec![0];
            for r in &records {
                view(r).encode(&mut file);
                ends.push(file.len());
            }
            let whole: Vec<_> = scan(&file).map(|s| match s {
                Scanned::Whole { record, .. } => record,
                Scanned::TornTail { why, .. } => panic!("{why}"),
            }).collect();
            prop_assert_eq!(&whole, &records.iter().map(view).collect::<Vec<_>>());

            let outline = records.first().map_or(("", 0), |first| (first.4.as_str(), records.len()));
            prop_assert_eq!(Record::outline(&file), outline);

            // A file cut anywhere ends in a torn tail that begins where the last whole record ends.
            let cut = file.len().saturating_sub(cut);
            let last = *ends.iter().filter(|e| **e <= cut).max().unwrap();
            let tail = scan(&file[..cut]).find_map(|s| match s {
                Scanned::TornTail { at, bytes, .. } => Some((at as usize, bytes as usize)),
                Scanned::Whole { .. } => None,
            });
            prop_assert_eq!(tail, (cut > last).then_some((last, cut - last)));
        }

        #[test]
        fn a_changed_byte_is_noticed(r in arbitrary(), at in any::<prop::sample::Index>(), bit in 0..8u32) {
            let mut file = Vec::new();
            view(&r).encode(&mut file);
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
            prop_assert!(Record::decode(&file).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut with_magic = b"RGR1".to_vec();
            with_magic.extend(&bytes);
            let _ = scan(&bytes).count();
            let _ = scan(&with_magic).count();
        }
    }
}
