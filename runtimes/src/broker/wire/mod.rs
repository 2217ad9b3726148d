//! MQTT 3.1.1 and 5 on the wire.
//!
//! `mqtt-protocol-core` parses what is rare and rich (CONNECT, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT, properties). What is
//! frequent and plain (framing, PUBLISH, acknowledgements) is read in place and written here, because the library
//! copies every packet into allocations of its own: parsing a PUBLISH alone would cost half as much again as all that
//! the broker does for it (the example `broker_rate` prints both). The tests read all that is written here with the
//! library.

pub(super) mod acks;
pub(super) mod connect;
pub(super) mod frame;
pub(super) mod publish;
pub(super) mod replies;
pub(super) mod subscribe;

use mqtt_protocol_core::mqtt::result_code::MqttError;

/// Why a connection is ended, as an MQTT 5 DISCONNECT (or CONNACK) reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault(pub u8);

impl Fault {
    pub const MALFORMED: Fault = Fault(0x81);
    pub const PROTOCOL: Fault = Fault(0x82);
    pub const KEEP_ALIVE: Fault = Fault(0x8d);
    pub const TAKEN_OVER: Fault = Fault(0x8e);
    pub const TOPIC_NAME: Fault = Fault(0x90);
    pub const RECEIVE_MAXIMUM: Fault = Fault(0x93);
    pub const TOPIC_ALIAS: Fault = Fault(0x94);
    pub const TOO_LARGE: Fault = Fault(0x95);
    pub const QUOTA: Fault = Fault(0x97);
}

impl From<MqttError> for Fault {
    fn from(e: MqttError) -> Self {
        match e {
            MqttError::ProtocolError => Fault::PROTOCOL,
            _ => Fault::MALFORMED,
        }
    }
}

/// Appends a variable byte integer. Values beyond its range (256 MiB) cannot come up: packets are bounded below it.
pub(super) fn put_varint(out: &mut bytes::BytesMut, mut value: u32) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.extend_from_slice(&[byte]);
        }
        out.extend_from_slice(&[byte | 0x80]);
    }
}

/// Bytes that [`put_varint`] takes.
pub(super) fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Reads a variable byte integer; `None` when it is incomplete or longer than four bytes.
pub(super) fn take_varint(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut value = 0u32;
    for (i, &b) in bytes.iter().take(4).enumerate() {
        value |= u32::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

/// Takes a length-prefixed field off the front.
pub(super) fn take_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// An MQTT string: UTF-8 without U+0000.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Fault> {
    match std::str::from_utf8(bytes) {
        Ok(s) if !bytes.contains(&0) => Ok(s),
        _ => Err(Fault::MALFORMED),
    }
}
