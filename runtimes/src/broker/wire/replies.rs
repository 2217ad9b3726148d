//! CONNACK, SUBACK, UNSUBACK, PINGRESP, DISCONNECT.

use super::{Fault, put_varint, varint_len};
use crate::broker::config::Limits;
use bytes::BytesMut;

/// PINGRESP.
pub(in crate::broker) const PINGRESP: [u8; 2] = [0xd0, 0];

/// Appends the CONNACK of an accepted connection.
pub(in crate::broker) fn connack(v5: bool, present: bool, assigned: Option<&str>, limits: &Limits, out: &mut BytesMut) {
    if !v5 {
        return out.extend_from_slice(&[0x20, 2, u8::from(present), 0]);
    }
    let mut props = BytesMut::with_capacity(64);
    // Receive Maximum, Maximum Packet Size, Topic Alias Maximum, Shared Subscription Available. Maximum QoS stands only
    // where it is less than 2.
    props.extend_from_slice(&[0x21]);
    props.extend_from_slice(&limits.receive_maximum.max(1).to_be_bytes());
    props.extend_from_slice(&[0x27]);
    props.extend_from_slice(&limits.packet_bytes.max(1).to_be_bytes());
    props.extend_from_slice(&[0x22]);
    props.extend_from_slice(&limits.topic_alias_maximum.to_be_bytes());
    props.extend_from_slice(&[0x2a, 0]);
    if let Some(id) = assigned {
        props.extend_from_slice(&[0x12]);
        props.extend_from_slice(&(id.len() as u16).to_be_bytes());
        props.extend_from_slice(id.as_bytes());
    }
    out.extend_from_slice(&[0x20]);
    put_varint(out, (2 + varint_len(props.len()) + props.len()) as u32);
    out.extend_from_slice(&[u8::from(present), 0]);
    put_varint(out, props.len() as u32);
    out.extend_from_slice(&props);
}

/// Appends the CONNACK of a refused connection. `code` is a return code in MQTT 3.1.1, a reason code in MQTT 5.
pub(in crate::broker) fn refusal(v5: bool, code: u8, out: &mut BytesMut) {
    if v5 {
        out.extend_from_slice(&[0x20, 3, 0, code, 0]);
    } else {
        out.extend_from_slice(&[0x20, 2, 0, code]);
    }
}

fn codes(first: u8, v5: bool, id: u16, codes: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(&[first]);
    put_varint(out, (2 + usize::from(v5) + codes.len()) as u32);
    out.extend_from_slice(&id.to_be_bytes());
    if v5 {
        out.extend_from_slice(&[0]);
    }
    out.extend_from_slice(codes);
}

/// Appends a SUBACK.
pub(in crate::broker) fn suback(v5: bool, id: u16, reasons: &[u8], out: &mut BytesMut) {
    codes(0x90, v5, id, reasons, out);
}

/// Appends an UNSUBACK; the reasons are for MQTT 5 alone.
pub(in crate::broker) fn unsuback(v5: bool, id: u16, reasons: &[u8], out: &mut BytesMut) {
    codes(0xb0, v5, id, if v5 { reasons } else { &[] }, out);
}

/// Appends a DISCONNECT (MQTT 5; a 3.1.1 server closes without a word).
pub(in crate::broker) fn disconnect(fault: Fault, out: &mut BytesMut) {
    out.extend_from_slice(&[0xe0, 1, fault.0]);
}
