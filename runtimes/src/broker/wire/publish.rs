//! PUBLISH, in and out.

use super::{Fault, put_varint, take_field, take_varint, text, varint_len};
use bytes::BytesMut;
use mqtt_protocol_core::mqtt::packet::Property;
use std::borrow::Cow;

/// A PUBLISH from a client, borrowed from its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::broker) struct Publish<'a> {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    /// Empty only with an alias.
    pub topic: &'a str,
    /// 0 with QoS 0.
    pub packet_id: u16,
    pub alias: Option<u16>,
    /// What is passed on: everything but the alias, which belongs to this connection.
    pub properties: Cow<'a, [u8]>,
    pub payload: &'a [u8],
}

/// Reads a PUBLISH's body.
pub(in crate::broker) fn decode(first: u8, body: &[u8], v5: bool) -> Result<Publish<'_>, Fault> {
    let (dup, qos, retain) = (first & 8 != 0, first >> 1 & 3, first & 1 != 0);
    if qos == 3 || (qos == 0 && dup) {
        return Err(Fault::MALFORMED);
    }
    let (topic, mut rest) = take_field(body).ok_or(Fault::MALFORMED)?;
    let topic = text(topic)?;
    if topic.bytes().any(|b| b == b'+' || b == b'#') {
        return Err(if v5 { Fault::TOPIC_NAME } else { Fault::MALFORMED });
    }
    let mut packet_id = 0;
    if qos > 0 {
        let (id, after) = rest.split_first_chunk::<2>().ok_or(Fault::MALFORMED)?;
        packet_id = u16::from_be_bytes(*id);
        rest = after;
        if packet_id == 0 {
            return Err(Fault::MALFORMED);
        }
    }
    let (mut alias, mut properties) = (None, Cow::Borrowed(&[][..]));
    if v5 {
        let (len, used) = take_varint(rest).ok_or(Fault::MALFORMED)?;
        let (head, payload) = rest.split_at_checked(used + len as usize).ok_or(Fault::MALFORMED)?;
        if len > 0 {
            (alias, properties) = publish_properties(&head[used..])?;
        }
        rest = payload;
    }
    if topic.is_empty() && alias.is_none() {
        return Err(if v5 { Fault::PROTOCOL } else { Fault::MALFORMED });
    }
    Ok(Publish { dup, qos, retain, topic, packet_id, alias, properties, payload: rest })
}

/// Checks the properties of a PUBLISH and takes the alias out.
fn publish_properties(all: &[u8]) -> Result<(Option<u16>, Cow<'_, [u8]>), Fault> {
    let mut alias = None;
    let mut alias_at = 0..0;
    let mut seen = 0u64;
    let mut at = 0;
    while at < all.len() {
        let (property, used) = Property::parse(&all[at..])?;
        match &property {
            Property::TopicAlias(p) => {
                alias = Some(p.val());
                alias_at = at..at + used;
            }
            Property::ResponseTopic(p) if p.val().contains(['+', '#', '\0']) => return Err(Fault::PROTOCOL),
            _ => check_passed_on(&property)?,
        }
        once(&property, &mut seen)?;
        at += used;
    }
    Ok(match alias {
        None => (None, Cow::Borrowed(all)),
        Some(0) => return Err(Fault::TOPIC_ALIAS),
        Some(_) => (alias, Cow::Owned([&all[..alias_at.start], &all[alias_at.end..]].concat())),
    })
}

/// Whether a property may stand in a client's PUBLISH or will and is passed on to subscribers.
pub(super) fn check_passed_on(property: &Property) -> Result<(), Fault> {
    match property {
        Property::PayloadFormatIndicator(_)
        | Property::MessageExpiryInterval(_)
        | Property::ContentType(_)
        | Property::ResponseTopic(_)
        | Property::CorrelationData(_)
        | Property::UserProperty(_) => Ok(()),
        _ => Err(Fault::PROTOCOL),
    }
}

/// A property other than a user property may stand once.
pub(super) fn once(property: &Property, seen: &mut u64) -> Result<(), Fault> {
    let bit = 1u64 << (property.id().as_u8() & 63);
    if *seen & bit != 0 && !matches!(property, Property::UserProperty(_)) {
        return Err(Fault::PROTOCOL);
    }
    *seen |= bit;
    Ok(())
}

/// Message Expiry Interval within checked properties: where its four bytes stand, and its value in s.
pub(in crate::broker) fn expiry(properties: &[u8]) -> Option<(usize, u32)> {
    let mut at = 0;
    while at < properties.len() {
        let (property, used) = Property::parse(&properties[at..]).ok()?;
        if let Property::MessageExpiryInterval(p) = property {
            return Some((at + 1, p.val()));
        }
        at += used;
    }
    None
}

/// A PUBLISH to a subscriber.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct Outgoing<'a> {
    pub v5: bool,
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub packet_id: u16,
    pub topic: &'a str,
    pub properties: &'a [u8],
    /// Subscription identifiers, each of which becomes a property.
    pub ids: &'a [u32],
    pub payload: &'a [u8],
}

impl Outgoing<'_> {
    fn properties_len(&self) -> usize {
        self.properties.len() + self.ids.iter().map(|id| 1 + varint_len(*id as usize)).sum::<usize>()
    }

    fn body_len(&self) -> usize {
        let properties = if self.v5 { varint_len(self.properties_len()) + self.properties_len() } else { 0 };
        2 + self.topic.len() + if self.qos > 0 { 2 } else { 0 } + properties + self.payload.len()
    }

    /// Bytes of the whole packet.
    pub fn len(&self) -> usize {
        let body = self.body_len();
        1 + varint_len(body) + body
    }

    /// Appends the packet.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.len());
        out.extend_from_slice(&[0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain)]);
        put_varint(out, self.body_len() as u32);
        out.extend_from_slice(&(self.topic.len() as u16).to_be_bytes());
        out.extend_from_slice(self.topic.as_bytes());
        if self.qos > 0 {
            out.extend_from_slice(&self.packet_id.to_be_bytes());
        }
        if self.v5 {
            put_varint(out, self.properties_len() as u32);
            out.extend_from_slice(self.properties);
            for id in self.ids {
                out.extend_from_slice(&[0x0b]);
                put_varint(out, *id);
            }
        }
        out.extend_from_slice(self.payload);
    }
}
