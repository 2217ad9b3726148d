//! Packets of clients, and packets of the broker as text.

use mqtt_protocol_core::mqtt::packet::{
    MessageExpiryInterval, Property, Qos, SubEntry, SubOpts, SubscriptionIdentifier, TopicAlias, VariableByteInteger,
    v3_1_1, v5_0,
};

pub fn qos(n: u8) -> Qos {
    Qos::try_from(n).unwrap()
}

/// CONNECT; `expiry_s` is for MQTT 5.
pub fn connect(v5: bool, client: &str, clean: bool, expiry_s: u32) -> Vec<u8> {
    connect_with(v5, client, clean, expiry_s, Vec::new(), 0, None)
}

pub fn connect_with(
    v5: bool,
    client: &str,
    clean: bool,
    expiry_s: u32,
    mut props: Vec<Property>,
    keep_alive_s: u16,
    will: Option<(&str, &str, u8, bool)>,
) -> Vec<u8> {
    if v5 {
        use mqtt_protocol_core::mqtt::packet::SessionExpiryInterval;
        if expiry_s > 0 {
            props.push(SessionExpiryInterval::new(expiry_s).unwrap().into());
        }
        let mut b = v5_0::Connect::builder().client_id(client).unwrap().clean_start(clean).keep_alive(keep_alive_s);
        if let Some((topic, payload, q, retain)) = will {
            b = b.will_message(topic, payload, qos(q), retain).unwrap();
        }
        b.props(props).build().unwrap().to_continuous_buffer()
    } else {
        let mut b = v3_1_1::Connect::builder().client_id(client).unwrap().clean_session(clean).keep_alive(keep_alive_s);
        if let Some((topic, payload, q, retain)) = will {
            b = b.will_message(topic, payload, qos(q), retain).unwrap();
        }
        b.build().unwrap().to_continuous_buffer()
    }
}

/// A PUBLISH to be built.
#[derive(Debug, Clone, Default)]
pub struct Pub<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub id: u16,
    pub retain: bool,
    pub dup: bool,
    pub props: Vec<Property>,
}

impl Pub<'_> {
    pub fn bytes(&self, v5: bool) -> Vec<u8> {
        let id = (self.qos > 0).then_some(self.id);
        if v5 {
            let b = v5_0::Publish::builder()
                .qos(qos(self.qos))
                .retain(self.retain)
                .dup(self.dup)
                .packet_id(id)
                .payload(self.payload)
                .props(self.props.clone());
            let b = if self.topic.is_empty() { b } else { b.topic_name(self.topic).unwrap() };
            b.build().unwrap().to_continuous_buffer()
        } else {
            v3_1_1::Publish::builder()
                .topic_name(self.topic)
                .unwrap()
                .qos(qos(self.qos))
                .retain(self.retain)
                .dup(self.dup)
                .packet_id(id)
                .payload(self.payload)
                .build()
                .unwrap()
                .to_continuous_buffer()
        }
    }
}

pub fn publish(v5: bool, topic: &str, payload: &str, qos: u8, id: u16) -> Vec<u8> {
    Pub { topic, payload: payload.as_bytes(), qos, id, ..Pub::default() }.bytes(v5)
}

/// SUBSCRIBE with options bytes; `sub` is the subscription identifier.
pub fn subscribe(v5: bool, id: u16, filters: &[(&str, u8)], sub: Option<u32>) -> Vec<u8> {
    let entries: Vec<SubEntry> =
        filters.iter().map(|(f, o)| SubEntry::new(*f, SubOpts::from_u8(*o).unwrap()).unwrap()).collect();
    if v5 {
        let props: Vec<Property> = sub.into_iter().map(|s| SubscriptionIdentifier::new(s).unwrap().into()).collect();
        v5_0::Subscribe::builder().packet_id(id).entries(entries).props(props).build().unwrap().to_continuous_buffer()
    } else {
        v3_1_1::Subscribe::builder().packet_id(id).entries(entries).build().unwrap().to_continuous_buffer()
    }
}

pub fn unsubscribe(v5: bool, id: u16, filters: &[&str]) -> Vec<u8> {
    let filters = filters.to_vec();
    if v5 {
        v5_0::Unsubscribe::builder().packet_id(id).entries(filters).unwrap().build().unwrap().to_continuous_buffer()
    } else {
        v3_1_1::Unsubscribe::builder().packet_id(id).entries(filters).unwrap().build().unwrap().to_continuous_buffer()
    }
}

pub fn ack(first: u8, id: u16) -> Vec<u8> {
    vec![first, 2, (id >> 8) as u8, id as u8]
}
pub const PUBACK: u8 = 0x40;
pub const PUBREC: u8 = 0x50;
pub const PUBREL: u8 = 0x62;
pub const PUBCOMP: u8 = 0x70;
pub const PINGREQ: [u8; 2] = [0xc0, 0];
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

pub fn alias(n: u16) -> Property {
    TopicAlias::new(n).unwrap().into()
}
pub fn message_expiry(s: u32) -> Property {
    MessageExpiryInterval::new(s).unwrap().into()
}

/// A packet of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    Connack { present: bool, code: u8 },
    Publish { topic: String, payload: Vec<u8>, qos: u8, id: u16, dup: bool, retain: bool, props: String },
    Ack { first: u8, id: u16, reason: u8 },
    Suback { id: u16, codes: Vec<u8> },
    Unsuback { id: u16, codes: Vec<u8> },
    Pingresp,
    Disconnect(u8),
}

impl std::fmt::Display for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Packet::Connack { present, code } => write!(f, "CONNACK present={present} code={code:#04x}"),
            Packet::Publish { topic, payload, qos, id, dup, retain, props } => {
                write!(f, "PUBLISH {topic} {:?} qos={qos}", String::from_utf8_lossy(payload))?;
                for (name, on) in [("retain", *retain), ("dup", *dup)] {
                    if on {
                        write!(f, " {name}")?;
                    }
                }
                if *qos > 0 {
                    write!(f, " id={id}")?;
                }
                if props.is_empty() { Ok(()) } else { write!(f, " {props}") }
            }
            Packet::Ack { first, id, reason } => {
                let name = match *first {
                    PUBACK => "PUBACK",
                    PUBREC => "PUBREC",
                    PUBREL => "PUBREL",
                    _ => "PUBCOMP",
                };
                write!(f, "{name} id={id}")?;
                if *reason == 0 { Ok(()) } else { write!(f, " reason={reason:#04x}") }
            }
            Packet::Suback { id, codes } => write!(f, "SUBACK id={id} {codes:02x?}"),
            Packet::Unsuback { id, codes } => write!(f, "UNSUBACK id={id} {codes:02x?}"),
            Packet::Pingresp => f.write_str("PINGRESP"),
            Packet::Disconnect(code) => write!(f, "DISCONNECT reason={code:#04x}"),
        }
    }
}

fn props_text(props: &[Property]) -> String {
    props.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Takes whole packets off the front of `bytes`, read by the library.
pub fn take(bytes: &mut Vec<u8>, v5: bool) -> Vec<Packet> {
    let mut all = Vec::new();
    loop {
        let Some((&first, rest)) = bytes.split_first() else { return all };
        let mqtt_protocol_core::mqtt::packet::DecodeResult::Ok(len, used) = VariableByteInteger::decode_stream(rest)
        else {
            return all;
        };
        let (at, len) = (1 + used, len.to_u32() as usize);
        if bytes.len() < at + len {
            return all;
        }
        let packet: Vec<u8> = bytes.drain(..at + len).collect();
        all.push(read(first, &packet[at..], v5));
    }
}

fn read(first: u8, b: &[u8], v5: bool) -> Packet {
    let whole = |used: usize| assert_eq!(used, b.len(), "bytes are left over in {first:#04x} {b:02x?}");
    match (first >> 4, v5) {
        (2, false) => {
            let (p, n) = v3_1_1::Connack::parse(b).unwrap();
            whole(n);
            Packet::Connack { present: p.session_present(), code: p.return_code() as u8 }
        }
        (2, true) => {
            let (p, n) = v5_0::Connack::parse(b).unwrap();
            whole(n);
            Packet::Connack { present: p.session_present(), code: p.reason_code() as u8 }
        }
        (3, false) => {
            let (p, n) = v3_1_1::Publish::parse(first & 15, b.into()).unwrap();
            whole(n);
            Packet::Publish {
                topic: p.topic_name().into(),
                payload: p.payload().as_slice().to_vec(),
                qos: p.qos() as u8,
                id: p.packet_id().unwrap_or(0),
                dup: p.dup(),
                retain: p.retain(),
                props: String::new(),
            }
        }
        (3, true) => {
            let (p, n) = v5_0::Publish::parse(first & 15, b.into()).unwrap();
            whole(n);
            Packet::Publish {
                topic: p.topic_name().into(),
                payload: p.payload().as_slice().to_vec(),
                qos: p.qos() as u8,
                id: p.packet_id().unwrap_or(0),
                dup: p.dup(),
                retain: p.retain(),
                props: props_text(p.props()),
            }
        }
        (4..=7, _) => {
            // Without a reason both versions look the same.
            let id = u16::from_be_bytes([b[0], b[1]]);
            assert!(b.len() == 2 || v5, "3.1.1 acknowledgements have no reason");
            let n = match first {
                PUBACK => v5_0::Puback::parse(b).unwrap().1,
                PUBREC => v5_0::Pubrec::parse(b).unwrap().1,
                PUBREL => v5_0::Pubrel::parse(b).unwrap().1,
                PUBCOMP => v5_0::Pubcomp::parse(b).unwrap().1,
                _ => panic!("bad flags: {first:#04x}"),
            };
            whole(n);
            Packet::Ack { first, id, reason: b.get(2).copied().unwrap_or(0) }
        }
        (9, false) => {
            let (p, n) = v3_1_1::Suback::parse(b).unwrap();
            whole(n);
            Packet::Suback { id: p.packet_id(), codes: p.return_codes().iter().map(|c| *c as u8).collect() }
        }
        (9, true) => {
            let (p, n) = v5_0::Suback::parse(b).unwrap();
            whole(n);
            Packet::Suback { id: p.packet_id(), codes: p.reason_codes().iter().map(|c| *c as u8).collect() }
        }
        (11, false) => {
            let (p, n) = v3_1_1::Unsuback::parse(b).unwrap();
            whole(n);
            Packet::Unsuback { id: p.packet_id(), codes: Vec::new() }
        }
        (11, true) => {
            let (p, n) = v5_0::Unsuback::parse(b).unwrap();
            whole(n);
            Packet::Unsuback { id: p.packet_id(), codes: p.reason_codes().iter().map(|c| *c as u8).collect() }
        }
        (13, _) => {
            whole(0);
            Packet::Pingresp
        }
        (14, true) => {
            whole(v5_0::Disconnect::parse(b).unwrap().1);
            Packet::Disconnect(b.first().copied().unwrap_or(0))
        }
        other => panic!("a server does not send {other:?}"),
    }
}
