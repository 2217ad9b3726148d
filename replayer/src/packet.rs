//! MQTT packets of a wanted length, 3.1.1 and 5.
//!
//! A trace holds no payload, no user name and no client id, only the length of the packet that they were in. A replay
//! must still put the same number of bytes on the wire. So every builder here takes the length that was recorded and
//! fills whatever the sender chose freely (payload, password, user name, will payload, client id) until it is met.
//! What cannot be met (a topic that is already longer than the packet was) is built as short as it can be and says so
//! in [`Packet::resized`].
//!
//! A payload is not materialised: a packet is its head plus a number of bytes of the one shared [`filler`], which the
//! driver hands to the kernel from where it lies. A plan of a gigabyte of publishes costs its heads alone.
//!
//! Left out: decoding (see [`crate::drive::frames`]), MQTT 5 properties beyond those that change what the server does
//! (session expiry), and AUTH.

use std::sync::LazyLock;

/// Length of [`filler`], bytes. A longer payload repeats it.
pub const FILLER_BYTES: usize = 1 << 16;

/// The longest packet that MQTT can express, bytes: remaining length 268,435,455, its four bytes, the first byte.
pub const PACKET_BYTES_MAX: u64 = 268_435_455 + 5;

/// The longest string or binary field, bytes.
const FIELD_BYTES_MAX: usize = 65_535;

/// Bytes of the tag that opens a payload long enough for it: the request's ordinal in the plan, so that a packet found in
/// a capture or in a segment file can be traced back.
const TAG_BYTES: usize = 8;

/// The shared payload: printable ASCII without structure, because a broker or a file system that compresses must not
/// find replayed payloads cheaper than real ones, and user names must be UTF-8.
pub fn filler() -> &'static [u8] {
    static FILLER: LazyLock<Box<[u8]>> = LazyLock::new(|| {
        const ALPHABET: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
        // xorshift64 (Marsaglia 2003) with a fixed seed: the same bytes in every process.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..FILLER_BYTES)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                ALPHABET[(state >> 58) as usize]
            })
            .collect()
    });
    &FILLER
}

/// A packet ready to be sent: `head`, then `fill_bytes` bytes of [`filler`] from its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Everything up to the filler.
    pub head: Vec<u8>,
    /// Bytes of filler after the head.
    pub fill_bytes: u32,
    /// The recorded length could not be met.
    pub resized: bool,
}

impl Packet {
    /// Length on the wire, bytes.
    pub fn len(&self) -> u64 {
        self.head.len() as u64 + u64::from(self.fill_bytes)
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole packet in one piece (for tests and for hashing a capture; the driver never does this).
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        bytes.extend(filler().iter().cycle().take(self.fill_bytes as usize));
        bytes
    }
}

/// What a CONNECT says.
#[derive(Debug, Clone, Default)]
pub struct Connect<'a> {
    /// MQTT 5 (otherwise 3.1.1).
    pub v5: bool,
    /// Clean start (5) or clean session (3.1.1).
    pub clean_start: bool,
    /// Seconds.
    pub keep_alive_s: u16,
    /// MQTT 5 session expiry interval, seconds; sent when not 0.
    pub expiry_s: u32,
    /// The shortest client id that may be sent; may be lengthened with `-`.
    pub client_id: &'a str,
    /// Whether a user name is sent.
    pub user_name: bool,
    /// Whether a password is sent. A user name then is too: MQTT 3.1.1 demands it, and although MQTT 5 does not, decoders
    /// that serve both (that of our own stacks among them) refuse a password alone.
    pub password: bool,
    /// Topic of the will, when there is one.
    pub will_topic: Option<&'a str>,
    /// QoS of the will.
    pub will_qos: u8,
    /// RETAIN of the will.
    pub will_retain: bool,
}

/// What a PUBLISH says.
#[derive(Debug, Clone, Copy)]
pub struct Publish<'a> {
    /// MQTT 5 (otherwise 3.1.1).
    pub v5: bool,
    /// Topic name.
    pub topic: &'a str,
    /// 0, 1 or 2.
    pub qos: u8,
    /// RETAIN.
    pub retain: bool,
    /// DUP; ignored at QoS 0, which has no retransmissions.
    pub dup: bool,
    /// Packet identifier; ignored at QoS 0.
    pub packet_id: u16,
    /// Opens the payload when that is long enough.
    pub tag: u64,
}

/// Bytes of a variable byte integer.
fn varint_bytes(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        out.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return;
        }
    }
}

/// A length-prefixed field. Callers keep it within [`FIELD_BYTES_MAX`].
fn put_field(out: &mut Vec<u8>, field: &[u8]) {
    out.extend((field.len() as u16).to_be_bytes());
    out.extend(field);
}

/// The remaining length of a packet of `total` bytes; `None` for the few totals that no packet has (as 130) and for
/// lengths outside the protocol.
fn remaining_of(total: u64) -> Option<usize> {
    let total = usize::try_from(total.min(PACKET_BYTES_MAX + 1)).ok()?;
    (1..=4)
        .filter_map(|prefix| total.checked_sub(1 + prefix).filter(|remaining| varint_bytes(*remaining) == prefix))
        .find(|remaining| *remaining <= 268_435_455)
}

/// How many bytes have to be added to a body of `shortest` bytes to make a packet of `total` bytes; the flag says that
/// it cannot be done, and that nothing is added.
fn slack(shortest: usize, total: u64) -> (usize, bool) {
    match remaining_of(total).and_then(|remaining| remaining.checked_sub(shortest)) {
        Some(slack) => (slack, false),
        None => (0, true),
    }
}

fn packet(first: u8, body: &[u8], fill_bytes: usize, resized: bool) -> Packet {
    let mut head = Vec::with_capacity(5 + body.len());
    head.push(first);
    put_varint(&mut head, body.len() + fill_bytes);
    head.extend(body);
    Packet { head, fill_bytes: fill_bytes as u32, resized }
}

/// A CONNECT of `total` bytes. The filler goes into the password, then the user name, then the will payload, then the
/// client id: the first of these that the recorded CONNECT had takes as much as it can hold.
pub fn connect(connect: &Connect<'_>, total: u64) -> Packet {
    let user_name = connect.user_name || connect.password;
    let expires = connect.v5 && connect.expiry_s > 0;
    let mut shortest = 6 + 1 + 1 + 2 + 2 + connect.client_id.len();
    shortest += if !connect.v5 {
        0
    } else if expires {
        6
    } else {
        1
    };
    shortest += connect.will_topic.map_or(0, |topic| usize::from(connect.v5) + 2 + topic.len() + 2);
    shortest += 2 * (usize::from(user_name) + usize::from(connect.password));

    let (mut rest, mut resized) = slack(shortest, total);
    let mut take = |wanted: bool, room: usize| {
        let taken = if wanted { rest.min(room) } else { 0 };
        rest -= taken;
        &filler()[..taken]
    };
    let password = take(connect.password, FIELD_BYTES_MAX);
    let name = take(user_name, FIELD_BYTES_MAX);
    let will_payload = take(connect.will_topic.is_some(), FIELD_BYTES_MAX);
    let mut client_id = connect.client_id.as_bytes().to_vec();
    // An empty client id asks the server for one; padding it would ask for something else.
    let padding = take(!client_id.is_empty(), FIELD_BYTES_MAX.saturating_sub(client_id.len())).len();
    client_id.resize(client_id.len() + padding, b'-');
    resized |= rest > 0;

    let mut body = Vec::with_capacity(shortest + padding);
    put_field(&mut body, b"MQTT");
    body.push(if connect.v5 { 5 } else { 4 });
    let mut flags = u8::from(connect.clean_start) << 1;
    if connect.will_topic.is_some() {
        flags |= 1 << 2 | (connect.will_qos.min(2) << 3) | (u8::from(connect.will_retain) << 5);
    }
    flags |= u8::from(connect.password) << 6 | u8::from(user_name) << 7;
    body.push(flags);
    body.extend(connect.keep_alive_s.to_be_bytes());
    if expires {
        body.extend([5, 0x11]);
        body.extend(connect.expiry_s.to_be_bytes());
    } else if connect.v5 {
        body.push(0);
    }
    put_field(&mut body, &client_id);
    if let Some(topic) = connect.will_topic {
        if connect.v5 {
            body.push(0);
        }
        put_field(&mut body, topic.as_bytes());
        put_field(&mut body, will_payload);
    }
    if user_name {
        put_field(&mut body, name);
    }
    if connect.password {
        put_field(&mut body, password);
    }
    packet(0x10, &body, 0, resized)
}

/// A PUBLISH of `total` bytes; the payload takes the filler.
pub fn publish(publish: &Publish<'_>, total: u64) -> Packet {
    let qos = publish.qos.min(2);
    let mut body = Vec::with_capacity(publish.topic.len() + 16);
    put_field(&mut body, publish.topic.as_bytes());
    if qos > 0 {
        body.extend(publish.packet_id.to_be_bytes());
    }
    if publish.v5 {
        body.push(0);
    }
    let (mut payload, resized) = slack(body.len(), total);
    if payload >= TAG_BYTES {
        body.extend(publish.tag.to_be_bytes());
        payload -= TAG_BYTES;
    }
    let dup = publish.dup && qos > 0;
    packet(0x30 | u8::from(dup) << 3 | qos << 1 | u8::from(publish.retain), &body, payload, resized)
}

/// A SUBSCRIBE of these filters with their option bytes. It has nothing to fill: the widths of the level names decide
/// its length (see [`crate::plan::names`]).
pub fn subscribe(filters: &[(String, u8)], packet_id: u16, v5: bool, total: u64) -> Packet {
    let mut body = filter_list_head(packet_id, v5);
    for (filter, options) in filters {
        put_field(&mut body, filter.as_bytes());
        body.push(if v5 { options & 0x3f } else { options & 0x03 });
    }
    fixed(0x82, &body, total)
}

/// An UNSUBSCRIBE of these filters; as [`subscribe`].
pub fn unsubscribe(filters: &[String], packet_id: u16, v5: bool, total: u64) -> Packet {
    let mut body = filter_list_head(packet_id, v5);
    for filter in filters {
        put_field(&mut body, filter.as_bytes());
    }
    fixed(0xa2, &body, total)
}

fn filter_list_head(packet_id: u16, v5: bool) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if v5 {
        body.push(0);
    }
    body
}

/// Bytes of a SUBSCRIBE or UNSUBSCRIBE that its filters' characters must fill: `total` less everything else.
/// `option_bytes` is 1 for SUBSCRIBE, 0 for UNSUBSCRIBE. `None` when no such packet has `total` bytes.
pub fn filter_characters(filters: usize, option_bytes: usize, v5: bool, total: u64) -> Option<usize> {
    remaining_of(total)?.checked_sub(2 + usize::from(v5) + filters * (2 + option_bytes))
}

/// A PINGREQ.
pub fn pingreq(total: u64) -> Packet {
    fixed(0xc0, &[], total)
}

/// A DISCONNECT of `total` bytes; in MQTT 5 a longer one carries a reason string.
pub fn disconnect(v5: bool, total: u64) -> Packet {
    let remaining = remaining_of(total).unwrap_or(0);
    let body = match remaining {
        1 if v5 => vec![0],
        2 if v5 => vec![0, 0],
        5.. if v5 => {
            // Reason code, property length, property 0x1F and a string: find the length of the property block that
            // leaves just enough for itself and its own varint.
            let properties = (1..=4)
                .filter_map(|prefix| (remaining - 1).checked_sub(prefix).filter(|n| varint_bytes(*n) == prefix))
                .find(|n| (3..=3 + FIELD_BYTES_MAX).contains(n));
            properties.map_or(Vec::new(), |properties| {
                let mut body = vec![0];
                put_varint(&mut body, properties);
                body.push(0x1f);
                let text: Vec<u8> = filler().iter().copied().take(properties - 3).collect();
                put_field(&mut body, &text);
                body
            })
        }
        _ => Vec::new(),
    };
    fixed(0xe0, &body, total)
}

fn fixed(first: u8, body: &[u8], total: u64) -> Packet {
    let mut packet = packet(first, body, 0, false);
    packet.resized = packet.len() != total;
    packet
}
