//! PUBACK, PUBREC, PUBREL, PUBCOMP: in and out.

use super::Fault;
use bytes::BytesMut;
use mqtt_protocol_core::mqtt::packet::v5_0;

/// First bytes of the four packets.
pub(in crate::broker) const PUBACK: u8 = 0x40;
pub(in crate::broker) const PUBREC: u8 = 0x50;
pub(in crate::broker) const PUBREL: u8 = 0x62;
pub(in crate::broker) const PUBCOMP: u8 = 0x70;
/// PUBREL and PUBCOMP: the packet id is not known.
pub(in crate::broker) const PACKET_ID_NOT_FOUND: u8 = 0x92;

/// Reads an acknowledgement's body: packet id and reason (0 in MQTT 3.1.1).
pub(in crate::broker) fn decode(first: u8, body: &[u8], v5: bool) -> Result<(u16, u8), Fault> {
    let (id, rest) = body.split_first_chunk::<2>().ok_or(Fault::MALFORMED)?;
    let id = u16::from_be_bytes(*id);
    let Some(&reason) = rest.first() else {
        return if id == 0 { Err(Fault::MALFORMED) } else { Ok((id, 0)) };
    };
    if !v5 {
        return Err(Fault::MALFORMED);
    }
    // With a reason the library checks it, and the properties, of which nothing is used.
    let used = match first {
        PUBACK => v5_0::Puback::parse(body)?.1,
        PUBREC => v5_0::Pubrec::parse(body)?.1,
        PUBREL => v5_0::Pubrel::parse(body)?.1,
        _ => v5_0::Pubcomp::parse(body)?.1,
    };
    if used == body.len() { Ok((id, reason)) } else { Err(Fault::MALFORMED) }
}

/// Appends an acknowledgement; a reason other than success is for MQTT 5 alone.
pub(in crate::broker) fn encode(first: u8, id: u16, reason: u8, out: &mut BytesMut) {
    let [hi, lo] = id.to_be_bytes();
    if reason == 0 {
        out.extend_from_slice(&[first, 2, hi, lo]);
    } else {
        out.extend_from_slice(&[first, 3, hi, lo, reason]);
    }
}
