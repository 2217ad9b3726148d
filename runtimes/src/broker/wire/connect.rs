//! CONNECT and DISCONNECT of clients, by `mqtt-protocol-core`, with the checks that it leaves to its users.

use super::publish::{check_passed_on, once};
use super::{Fault, take_field, text};
use mqtt_protocol_core::mqtt::packet::{PropertiesParse, Property, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;

/// What a CONNECT asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::broker) struct Connect {
    pub v5: bool,
    /// May be empty: the broker assigns one.
    pub client: String,
    pub clean: bool,
    /// 3.1.1: 0 with clean session, `u32::MAX` without.
    pub expiry_s: u32,
    /// 0: none.
    pub keep_alive_s: u16,
    /// 65,535 when not said.
    pub receive_maximum: u16,
    /// `u32::MAX` when not said.
    pub maximum_packet: u32,
    pub will: Option<Will>,
}

/// A will message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::broker) struct Will {
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub properties: Vec<u8>,
    pub payload: Vec<u8>,
}

/// A CONNECT that is refused: which CONNACK to send, if the client's version is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct Refusal(pub Option<(bool, u8)>);

impl Refusal {
    /// By a reason code that both versions have some form of.
    fn of(v5: bool, fault: Fault) -> Self {
        // 3.1.1 has no return code for a malformed packet: the connection is closed without a word (MQTT-3.1.4-1).
        Refusal(v5.then_some((true, fault.0)))
    }
}

/// Reads a CONNECT's body.
pub(in crate::broker) fn decode(body: &[u8]) -> Result<Connect, Refusal> {
    let (name, rest) = take_field(body).ok_or(Refusal(None))?;
    let level = *rest.first().ok_or(Refusal(None))?;
    match (name, level) {
        (b"MQTT", 4) => v3(body, *rest.get(1).ok_or(Refusal(None))?),
        (b"MQTT", 5) => v5(body, *rest.get(1).ok_or(Refusal(None))?),
        // Unacceptable protocol version; a level above 5 will understand MQTT 5's way to say so.
        (b"MQTT", 6..) => Err(Refusal(Some((true, 0x84)))),
        (b"MQTT" | b"MQIsdp", _) => Err(Refusal(Some((false, 1)))),
        _ => Err(Refusal(None)),
    }
}

/// The flags byte, checked as MQTT-3.1.2-3 and -11 to -15 ask.
fn flags_fault(flags: u8) -> Option<Fault> {
    let (will, qos, retain) = (flags & 4 != 0, flags >> 3 & 3, flags & 0x20 != 0);
    (flags & 1 != 0 || qos == 3 || (!will && (qos != 0 || retain))).then_some(Fault::MALFORMED)
}

fn v3(body: &[u8], flags: u8) -> Result<Connect, Refusal> {
    let bad = |_: MqttError| Refusal(None);
    let (p, used) = v3_1_1::Connect::parse(body).map_err(bad)?;
    if flags_fault(flags).is_some() || used != body.len() || text(p.client_id().as_bytes()).is_err() {
        return Err(Refusal(None));
    }
    if p.client_id().is_empty() && !p.clean_session() {
        return Err(Refusal(Some((false, 2))));
    }
    let will = match p.will_topic() {
        Some(topic) => Some(will(topic, p.will_payload(), flags, Vec::new()).map_err(|_| Refusal(None))?),
        None => None,
    };
    Ok(Connect {
        v5: false,
        client: p.client_id().to_owned(),
        clean: p.clean_session(),
        expiry_s: if p.clean_session() { 0 } else { u32::MAX },
        keep_alive_s: p.keep_alive(),
        receive_maximum: u16::MAX,
        maximum_packet: u32::MAX,
        will,
    })
}

fn v5(body: &[u8], flags: u8) -> Result<Connect, Refusal> {
    let refuse = |fault| Refusal::of(true, fault);
    let (p, used) = v5_0::Connect::parse(body).map_err(|e| refuse(e.into()))?;
    if let Some(fault) = flags_fault(flags) {
        return Err(refuse(fault));
    }
    if used != body.len() || text(p.client_id().as_bytes()).is_err() {
        return Err(refuse(Fault::MALFORMED));
    }
    let mut c = Connect {
        v5: true,
        client: p.client_id().to_owned(),
        clean: p.clean_start(),
        expiry_s: 0,
        keep_alive_s: p.keep_alive(),
        receive_maximum: u16::MAX,
        maximum_packet: u32::MAX,
        will: None,
    };
    let mut seen = 0;
    for property in p.props() {
        once(property, &mut seen).map_err(refuse)?;
        match property {
            Property::SessionExpiryInterval(p) => c.expiry_s = p.val(),
            Property::ReceiveMaximum(p) => c.receive_maximum = p.val(),
            Property::MaximumPacketSize(p) => c.maximum_packet = p.val(),
            // Bad authentication method: the broker knows none.
            Property::AuthenticationMethod(_) => return Err(refuse(Fault(0x8c))),
            _ => {}
        }
    }
    if c.receive_maximum == 0 || c.maximum_packet == 0 {
        return Err(refuse(Fault::PROTOCOL));
    }
    if let Some(topic) = p.will_topic() {
        let mut properties = Vec::new();
        let mut seen = 0;
        for property in p.will_props() {
            once(property, &mut seen).map_err(refuse)?;
            // The will is published as soon as the connection ends: its delay counts as 0, which MQTT allows for a
            // server that ends sessions early, and which keeps a run's deliveries independent of wall time.
            if !matches!(property, Property::WillDelayInterval(_)) {
                check_passed_on(property).map_err(refuse)?;
                properties.extend(property.to_continuous_buffer());
            }
        }
        c.will = Some(will(topic, p.will_payload(), flags, properties).map_err(refuse)?);
    }
    Ok(c)
}

fn will(topic: &str, payload: Option<&[u8]>, flags: u8, properties: Vec<u8>) -> Result<Will, Fault> {
    if topic.is_empty() || topic.contains(['+', '#']) || text(topic.as_bytes()).is_err() {
        return Err(Fault::TOPIC_NAME);
    }
    Ok(Will {
        topic: topic.to_owned(),
        qos: flags >> 3 & 3,
        retain: flags & 0x20 != 0,
        properties,
        payload: payload.unwrap_or_default().to_vec(),
    })
}

/// A client's DISCONNECT: its reason, and the session expiry that it sets, if any.
pub(in crate::broker) fn disconnect(body: &[u8], v5: bool) -> Result<(u8, Option<u32>), Fault> {
    if body.is_empty() {
        return Ok((0, None));
    }
    if !v5 {
        return Err(Fault::MALFORMED);
    }
    let (_, used) = v5_0::Disconnect::parse(body)?;
    if used != body.len() {
        return Err(Fault::MALFORMED);
    }
    let mut expiry = None;
    if body.len() > 1 {
        let (props, _) = Vec::<Property>::parse(&body[1..])?;
        let mut seen = 0;
        for p in &props {
            once(p, &mut seen)?;
            if let Property::SessionExpiryInterval(p) = p {
                expiry = Some(p.val());
            }
        }
    }
    Ok((body[0], expiry))
}
