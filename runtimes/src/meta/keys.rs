//! The keys and fixed-size values of the raft log and its state in RocksDB, with RobustMQ's sizes.
//!
//! | what | family | key | value |
//! |---|---|---|---|
//! | entry | `meta_raft` | `L`, [`SHARD`] as FNV-1a 64, index, big-endian: 17 B | [`super::types::Entry`], postcard |
//! | state | `meta_raft` | `S`, [`SHARD`] as FNV-1a 64, a [`State`]: 10 B | [`log_id_bytes`], others postcard |
//! | answer | `meta_raft` | `R`, [`SHARD`] as FNV-1a 64, place, big-endian: 17 B | [`super::answers::Answered`], postcard; not RobustMQ's |
//! | session | `broker` | [`super::SESSION_PREFIX`] and the client id | JSON |
//! | snapshot | `meta_data` | `snapshot` | postcard |
//!
//! RobustMQ encodes with bincode. That crate is no longer maintained, so entries are postcard here: they are somewhat
//! smaller (integers vary in length), and the number and order of writes, which is what is measured, is the same.

use super::types::{LeaderId, LogId};

/// RobustMQ's raft group that this one stands for.
pub const SHARD: &str = "metadata";
/// Family of the raft log and its state.
pub const RAFT: &str = "meta_raft";
/// Family of the snapshot.
pub const DATA: &str = "meta_data";
/// Family of the sessions.
pub const BROKER: &str = "broker";
/// All families, RobustMQ's. What this broker keeps elsewhere leaves some of them empty; open they cost next to
/// nothing.
pub const FAMILIES: [&str; 5] = [RAFT, DATA, "meta_metadata", BROKER, "storage"];
/// Where all entries of all shards lie in their family: from, and up to but without.
pub const LOG_RANGE: (&[u8], &[u8]) = (b"L", b"M");
/// Where all answers lie in their family: from, and up to but without.
pub const ANSWER_RANGE: (&[u8], &[u8]) = (b"R", b"S");
/// Key of the snapshot.
pub const SNAPSHOT: &[u8] = b"snapshot";
/// The length that RocksDB's prefix extractor takes; all entries of a shard below 2^56 have one prefix.
pub const PREFIX_BYTES: usize = 10;

const SHARD_HASH: u64 = fnv64(SHARD.as_bytes());

/// What the raft state consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The last applied log id, of sessions that are in RocksDB.
    Applied = b'a',
    /// The last applied log id, of sessions that are in memory alone. Apart, because after a restart it says nothing.
    AppliedInMemory = b'm',
    /// The last committed log id.
    Committed = b'c',
    /// The last purged log id.
    Purged = b'p',
    /// The vote.
    Vote = b'v',
    /// The applied membership.
    Membership = b'n',
}

/// The key of the entry at `index`.
pub fn log(index: u64) -> [u8; 17] {
    numbered(b'L', index)
}

/// The key of the answer at a place.
pub fn answer(slot: u64) -> [u8; 17] {
    numbered(b'R', slot)
}

fn numbered(kind: u8, number: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[0] = kind;
    key[1..9].copy_from_slice(&SHARD_HASH.to_be_bytes());
    key[9..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The index that a key of an entry holds; `None` for any other key.
pub fn index_of(key: &[u8]) -> Option<u64> {
    let index = key.strip_prefix(&log(0)[..9])?;
    Some(u64::from_be_bytes(index.try_into().ok()?))
}

/// The key of a piece of the state.
pub fn state(state: State) -> [u8; PREFIX_BYTES] {
    let mut key = [0; PREFIX_BYTES];
    key[0] = b'S';
    key[1..9].copy_from_slice(&SHARD_HASH.to_be_bytes());
    key[9] = state as u8;
    key
}

/// A log id as stored: term, node and index, big-endian.
pub fn log_id_bytes(id: &LogId) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&id.leader_id.term.to_be_bytes());
    bytes[8..16].copy_from_slice(&id.leader_id.node_id.to_be_bytes());
    bytes[16..].copy_from_slice(&id.index.to_be_bytes());
    bytes
}

/// The log id in what [`log_id_bytes`] wrote; `None` when it is something else.
pub fn log_id(bytes: &[u8]) -> Option<LogId> {
    let [term, node_id, index] = bytes.as_chunks::<8>().0 else { return None };
    let [term, node_id, index] = [term, node_id, index].map(|part| u64::from_be_bytes(*part));
    (bytes.len() == 24).then_some(LogId { leader_id: LeaderId { term, node_id }, index })
}

/// FNV-1a, 64 bits.
const fn fnv64(bytes: &[u8]) -> u64 {
    let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(fnv64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv64(b"foobar"), 0x8594_4171_f739_67e8, "a published test vector");
    }

    proptest! {
        #[test]
        fn keys_of_entries_sort_by_index_and_give_it_back(a: u64, b: u64) {
            prop_assert_eq!(index_of(&log(a)), Some(a));
            prop_assert_eq!(log(a).cmp(&log(b)), a.cmp(&b));
        }

        #[test]
        fn any_other_key_has_no_index(key: Vec<u8>) {
            prop_assert!(index_of(&key).is_none_or(|index| log(index)[..] == key[..]));
            prop_assert_eq!(index_of(&state(State::Vote)), None);
        }

        #[test]
        fn log_ids_come_back(term: u64, node_id: u64, index: u64) {
            let id = LogId { leader_id: LeaderId { term, node_id }, index };
            let bytes = log_id_bytes(&id);
            prop_assert_eq!(log_id(&bytes), Some(id));
            prop_assert_eq!(log_id(&bytes[..23]), None);
            prop_assert_eq!(log_id(&[bytes.as_slice(), &[0]].concat()), None);
        }
    }
}
