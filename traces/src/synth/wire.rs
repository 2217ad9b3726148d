//! Sizes of MQTT packets, bytes, from the layouts of MQTT 3.1.1 and 5.0 (sections 2 and 3 of either).

/// Fixed header (type and remaining length) plus the rest.
fn packet(remaining: usize) -> u64 {
    let length_bytes = match remaining {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    };
    (1 + length_bytes + remaining) as u64
}

/// What a CONNECT carries, lengths in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConnectSize {
    pub v5: bool,
    pub client_id: usize,
    /// A session expiry interval other than 0 (MQTT 5).
    pub expiry: bool,
    pub username: Option<usize>,
    pub password: Option<usize>,
    /// Topic and payload of the will.
    pub will: Option<(usize, usize)>,
}

pub(super) fn connect(size: ConnectSize) -> u64 {
    // Protocol name and level, flags, keep-alive.
    let mut remaining = 10 + 2 + size.client_id;
    if size.v5 {
        remaining += 1 + if size.expiry { 5 } else { 0 };
    }
    if let Some((topic, payload)) = size.will {
        remaining += usize::from(size.v5) + 2 + topic + 2 + payload;
    }
    remaining += size.username.map_or(0, |length| 2 + length);
    remaining += size.password.map_or(0, |length| 2 + length);
    packet(remaining)
}

pub(super) fn publish(v5: bool, topic: usize, qos: u8, payload: usize) -> u64 {
    packet(2 + topic + if qos > 0 { 2 } else { 0 } + usize::from(v5) + payload)
}

pub(super) fn subscribe<'a>(v5: bool, filters: impl Iterator<Item = &'a str>) -> u64 {
    packet(2 + usize::from(v5) + filters.map(|filter| 2 + filter.len() + 1).sum::<usize>())
}

/// PINGREQ, and DISCONNECT with reason 0, in both versions.
pub(super) const EMPTY: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_packets_written_out_by_hand() {
        // 10 LL 00 04 'MQTT' 04 02 00 1e 00 02 'ab'
        assert_eq!(connect(ConnectSize { client_id: 2, ..ConnectSize::default() }), 16);
        // 10 LL 00 04 'MQTT' 05 02 00 1e 05 11 00 00 0e 10 00 02 'ab'
        assert_eq!(connect(ConnectSize { v5: true, expiry: true, client_id: 2, ..ConnectSize::default() }), 22);
        // 32 LL 00 03 'a/b' 00 01 'xyz'
        assert_eq!(publish(false, 3, 1, 3), 12);
        // 30 LL 00 03 'a/b' 00 'xyz'
        assert_eq!(publish(true, 3, 0, 3), 11);
        // 82 LL 00 01 00 00 03 'a/+' 01
        assert_eq!(subscribe(true, ["a/+"].into_iter()), 11);
        // A remaining length of 128 takes two bytes.
        assert_eq!(publish(false, 3, 0, 122), 1 + 1 + 127);
        assert_eq!(publish(false, 3, 0, 123), 1 + 2 + 128);
    }
}
