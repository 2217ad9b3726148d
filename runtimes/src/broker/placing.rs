//! Who owns what: client → shard, topic → partition, partition → shard.
//!
//! The hash is SipHash-1-3 with a fixed key, so that every process, stack and run agrees, and segment files written
//! by one run are found by the next.

use super::effect::ShardId;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

fn hash(text: &str) -> u64 {
    let mut h = SipHasher13::new_with_keys(0x7265_6761_7567_6500, 0x7061_7274_6974_696f);
    h.write(text.as_bytes());
    h.finish()
}

/// The shard on which a client's session lives.
pub fn shard_of_client(client: &str, shards: u16) -> ShardId {
    if shards <= 1 { 0 } else { (hash(client) % u64::from(shards)) as ShardId }
}

/// The partition that a topic's messages are appended to.
pub fn partition_of_topic(topic: &str, partitions: u32) -> u32 {
    if partitions <= 1 { 0 } else { (hash(topic) % u64::from(partitions)) as u32 }
}

/// The shard that owns a partition.
pub fn shard_of_partition(partition: u32, shards: u16) -> ShardId {
    if shards <= 1 { 0 } else { (partition % u32::from(shards)) as ShardId }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_within_bounds_and_fixed_for_ever() {
        for n in 1..9u16 {
            for client in ["", "a", "sensor-17", "ü"] {
                assert!(shard_of_client(client, n) < n);
                assert!(partition_of_topic(client, n.into()) < n.into());
            }
        }
        // Files of older runs depend on these values.
        assert_eq!(partition_of_topic("sensors/1/temperature", 1 << 20), 130_142);
        assert_eq!(shard_of_partition(7, 4), 3);
    }
}
