//! What a trace needs to know of each MQTT packet, and nothing else.
//!
//! This is where secrets end: a [`Packet`] owns only numbers, flags and keyed hashes. User name, password and will
//! payload are stepped over in the receive buffer; client ids and topics are redacted here, before anything is handed
//! on. MQTT 3.1, 3.1.1 and 5 are read, from either side. The reader is lenient where brokers are (any bytes as
//! a client id, bridge versions) and strict where a mistake would put the framing out of step.
//!
//! Left out: properties other than session expiry, assigned client id and topic alias; AUTH exchanges.

use super::read::{Properties, Reader, Value, property};
use super::{Malformed, Side};
use regauge_traces::redact::Redactor;
use regauge_traces::span::flags;

/// What has to be known of a connection to read its next packet.
pub(super) struct Rules<'a> {
    /// Who sent it.
    pub(super) from: Side,
    /// The protocol version, or `None` before the CONNECT.
    pub(super) version: Option<u8>,
    pub(super) v5: bool,
    pub(super) redactor: &'a Redactor,
}

/// Control packet types (MQTT 5, section 2.1.2).
mod kind {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const CONNACK: u8 = 2;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const PUBACK: u8 = 4;
    pub(super) const PUBREC: u8 = 5;
    pub(super) const PUBREL: u8 = 6;
    pub(super) const PUBCOMP: u8 = 7;
    pub(super) const SUBSCRIBE: u8 = 8;
    pub(super) const SUBACK: u8 = 9;
    pub(super) const UNSUBSCRIBE: u8 = 10;
    pub(super) const UNSUBACK: u8 = 11;
    pub(super) const PINGREQ: u8 = 12;
    pub(super) const PINGRESP: u8 = 13;
    pub(super) const DISCONNECT: u8 = 14;
    pub(super) const AUTH: u8 = 15;
}

/// The step of a QoS handshake that a packet makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ack {
    Puback,
    Pubrec,
    Pubcomp,
    Suback,
    Unsuback,
}

/// A packet, reduced to what the trace keeps.
#[derive(Debug)]
pub(super) enum Packet {
    Connect(Connect),
    Connack {
        status: u8,
        session_present: bool,
        assigned: Option<u64>,
    },
    Publish(Publish),
    Ack {
        ack: Ack,
        id: u16,
        status: u8,
    },
    /// The second half of QoS 2: it answers nothing and starts nothing that a trace records.
    Pubrel,
    Subscribe {
        id: u16,
        filters: u32,
        qos: u8,
        target: String,
    },
    Unsubscribe {
        id: u16,
        filters: u32,
        target: String,
    },
    Pingreq,
    Pingresp,
    Disconnect {
        status: u8,
    },
    Auth,
}

/// CONNECT without its secrets.
#[derive(Debug)]
pub(super) struct Connect {
    pub(super) version: u8,
    /// `None` where the client left its id empty for the broker to choose.
    pub(super) session: Option<u64>,
    pub(super) flags: u32,
    pub(super) keep_alive_s: u16,
    pub(super) expiry_s: u32,
    pub(super) will_topic: Option<String>,
}

/// PUBLISH without its payload.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) qos: u8,
    /// RETAIN and DUP.
    pub(super) flags: u32,
    /// Present where the QoS is not 0.
    pub(super) id: Option<u16>,
    /// `None` where only an alias stands for the topic.
    pub(super) target: Option<String>,
    pub(super) alias: Option<u16>,
}

pub(super) fn is_publish(first: u8) -> bool {
    first >> 4 == kind::PUBLISH
}

pub(super) fn publish_qos(first: u8) -> u8 {
    first >> 1 & 3
}

/// Whether a packet may begin with this byte here. What is not MQTT (TLS, HTTP) nearly always fails on its first byte.
pub(super) fn check_first(first: u8, rules: &Rules<'_>) -> Result<(), Malformed> {
    use kind::*;
    let (packet, low) = (first >> 4, first & 0x0F);
    let sender = match packet {
        CONNECT | SUBSCRIBE | UNSUBSCRIBE | PINGREQ => rules.from == Side::Client,
        CONNACK | SUBACK | UNSUBACK | PINGRESP => rules.from == Side::Broker,
        // A broker disconnects in words from MQTT 5 on.
        DISCONNECT => rules.from == Side::Client || rules.v5,
        AUTH => rules.v5,
        PUBLISH | PUBACK | PUBREC | PUBREL | PUBCOMP => true,
        _ => false,
    };
    let low_right = match packet {
        PUBLISH => publish_qos(first) < 3,
        // MQTT 3.1 let DUP and QoS stand here; its clients still send retransmissions so.
        PUBREL | SUBSCRIBE | UNSUBSCRIBE => low & 0x06 == 0x02 && (low == 0x02 || rules.version == Some(3)),
        _ => low == 0,
    };
    // The first packet is CONNECT and no other is, and nobody hears from the broker before it.
    let in_turn = (packet == CONNECT) == rules.version.is_none();
    if sender && low_right && in_turn { Ok(()) } else { Err(Malformed::Packet(first)) }
}

/// Reads a packet from its head: `body` is what follows the fixed header, for a PUBLISH up to the payload.
pub(super) fn read(first: u8, body: &[u8], rules: &Rules<'_>) -> Result<Packet, Malformed> {
    let r = &mut Reader::new(body);
    let v5 = rules.v5;
    Ok(match first >> 4 {
        kind::CONNECT => Packet::Connect(connect(r, rules.redactor)?),
        kind::CONNACK => connack(r, rules)?,
        kind::PUBLISH => Packet::Publish(publish(first, r, rules)?),
        kind::PUBACK => ack(Ack::Puback, r)?,
        kind::PUBREC => ack(Ack::Pubrec, r)?,
        kind::PUBCOMP => ack(Ack::Pubcomp, r)?,
        kind::PUBREL => {
            r.u16()?;
            Packet::Pubrel
        }
        kind::SUBSCRIBE => subscribe(r, rules)?,
        kind::UNSUBSCRIBE => unsubscribe(r, rules)?,
        kind::SUBACK => list_ack(Ack::Suback, r, v5)?,
        kind::UNSUBACK => list_ack(Ack::Unsuback, r, v5)?,
        kind::PINGREQ => Packet::Pingreq,
        kind::PINGRESP => Packet::Pingresp,
        kind::DISCONNECT => Packet::Disconnect { status: if r.is_empty() { 0 } else { r.u8()? } },
        kind::AUTH => Packet::Auth,
        _ => return Err(Malformed::Packet(first)),
    })
}

fn connect(r: &mut Reader<'_>, redactor: &Redactor) -> Result<Connect, Malformed> {
    const CLEAN: u8 = 0x02;
    const WILL: u8 = 0x04;
    const PASSWORD: u8 = 0x40;
    const USERNAME: u8 = 0x80;
    let name = r.block()?;
    // Mosquitto's bridges mark themselves by the highest bit.
    let version = r.u8()? & 0x7F;
    match (name, version) {
        (b"MQIsdp", 3) | (b"MQTT", 4 | 5) => {}
        _ => return Err(Malformed::NotMqtt),
    }
    let v5 = version == 5;
    let bits = r.u8()?;
    let keep_alive_s = r.u16()?;
    let clean = bits & CLEAN != 0;
    // MQTT 3 has no expiry: a session that is not clean is kept until someone cleans it.
    let mut expiry_s = if v5 || clean { 0 } else { u32::MAX };
    if v5 && let Some(Value::Number(s)) = r.properties()?.find(property::SESSION_EXPIRY_INTERVAL)? {
        expiry_s = s;
    }
    let id = r.block()?;
    let mut out = flags_if(v5, flags::V5) | flags_if(clean, flags::CLEAN_START);
    let mut will_topic = None;
    if bits & WILL != 0 {
        if v5 {
            check(r.properties()?)?;
        }
        will_topic = Some(redactor.topic(r.text()?));
        r.block()?;
        out |= flags::WILL;
    }
    if bits & USERNAME != 0 {
        r.block()?;
        out |= flags::USERNAME;
    }
    if bits & PASSWORD != 0 {
        r.block()?;
        out |= flags::PASSWORD;
    }
    if !r.is_empty() {
        return Err(Malformed::Trailing(r.len()));
    }
    let session = (!id.is_empty()).then(|| redactor.session(id));
    Ok(Connect { version, session, flags: out, keep_alive_s, expiry_s, will_topic })
}

fn flags_if(set: bool, flag: u32) -> u32 {
    if set { flag } else { 0 }
}

/// Walks a property block for its framing alone.
fn check(properties: Properties<'_>) -> Result<(), Malformed> {
    properties.find(0).map(|_| ())
}

fn connack(r: &mut Reader<'_>, rules: &Rules<'_>) -> Result<Packet, Malformed> {
    let session_present = r.u8()? & 1 != 0;
    let status = r.u8()?;
    let mut assigned = None;
    if rules.v5
        && !r.is_empty()
        && let Some(Value::Block(id)) = r.properties()?.find(property::ASSIGNED_CLIENT_ID)?
    {
        assigned = Some(rules.redactor.session(id));
    }
    Ok(Packet::Connack { status, session_present, assigned })
}

fn publish(first: u8, r: &mut Reader<'_>, rules: &Rules<'_>) -> Result<Publish, Malformed> {
    const RETAIN: u8 = 0x01;
    const DUP: u8 = 0x08;
    let qos = publish_qos(first);
    let topic = r.text()?;
    let id = if qos > 0 { Some(r.u16()?) } else { None };
    let mut alias = None;
    if rules.v5
        && let Some(Value::Number(n)) = r.properties()?.find(property::TOPIC_ALIAS)?
    {
        alias = u16::try_from(n).ok();
    }
    let flags = flags_if(first & RETAIN != 0, flags::RETAIN) | flags_if(first & DUP != 0, flags::DUP);
    let target = (!topic.is_empty()).then(|| rules.redactor.topic(topic));
    Ok(Publish { qos, flags, id, target, alias })
}

/// PUBACK, PUBREC, PUBCOMP: the reason may be left out where it is success.
fn ack(ack: Ack, r: &mut Reader<'_>) -> Result<Packet, Malformed> {
    let id = r.u16()?;
    let status = if r.is_empty() { 0 } else { r.u8()? };
    Ok(Packet::Ack { ack, id, status })
}

/// SUBACK, UNSUBACK: one code per filter. The status is the first that is a refusal (0x80 and up), or 0: the granted
/// QoS is no error.
fn list_ack(ack: Ack, r: &mut Reader<'_>, v5: bool) -> Result<Packet, Malformed> {
    let id = r.u16()?;
    if v5 {
        check(r.properties()?)?;
    }
    let codes = r.take(r.len())?;
    let status = codes.iter().copied().find(|&code| code >= 0x80).unwrap_or(0);
    Ok(Packet::Ack { ack, id, status })
}

fn subscribe(r: &mut Reader<'_>, rules: &Rules<'_>) -> Result<Packet, Malformed> {
    let id = r.u16()?;
    if rules.v5 {
        check(r.properties()?)?;
    }
    let (mut list, mut qos) = (Vec::new(), 0);
    while !r.is_empty() {
        let filter = filter(r)?;
        let options = r.u8()?;
        qos = qos.max(options & 3);
        list.push((filter, options));
    }
    let filters = filters(list.len())?;
    Ok(Packet::Subscribe { id, filters, qos, target: rules.redactor.subscriptions(list) })
}

fn unsubscribe(r: &mut Reader<'_>, rules: &Rules<'_>) -> Result<Packet, Malformed> {
    let id = r.u16()?;
    if rules.v5 {
        check(r.properties()?)?;
    }
    let mut list = Vec::new();
    while !r.is_empty() {
        list.push(filter(r)?);
    }
    let filters = filters(list.len())?;
    Ok(Packet::Unsubscribe { id, filters, target: rules.redactor.filters(list) })
}

fn filter<'a>(r: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    Some(r.text()?).filter(|filter| !filter.is_empty()).ok_or(Malformed::NoFilter)
}

/// Their number, which must not be 0.
fn filters(n: usize) -> Result<u32, Malformed> {
    u32::try_from(n).ok().filter(|n| *n > 0).ok_or(Malformed::NoFilter)
}
