//! Packets on the wire, as mqtt-protocol-core encodes them.

use mqtt_protocol_core::mqtt::packet::{
    AssignedClientIdentifier, Properties, Property, Qos, SessionExpiryInterval, SubEntry, SubOpts, TopicAlias,
    UserProperty, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, ConnectReturnCode, PubackReasonCode, PubrecReasonCode, SubackReasonCode, SubackReturnCode,
    UnsubackReasonCode,
};

pub(super) const PASSWORD: &str = "planted-password";
pub(super) const USER: &str = "planted-user";
pub(super) const WILL_PAYLOAD: &str = "planted-will";

fn qos(n: u8) -> Qos {
    Qos::try_from(n).unwrap()
}

pub(super) fn connect(v5: bool, id: &str, clean: bool) -> Vec<u8> {
    if v5 {
        let expiry = Property::SessionExpiryInterval(SessionExpiryInterval::new(3600).unwrap());
        let c =
            v5_0::Connect::builder().client_id(id).unwrap().clean_start(clean).keep_alive(60u16).props(vec![expiry]);
        c.build().unwrap().to_continuous_buffer()
    } else {
        let c = v3_1_1::Connect::builder().client_id(id).unwrap().clean_session(clean).keep_alive(60u16);
        c.build().unwrap().to_continuous_buffer()
    }
}

/// A CONNECT with everything that must never be stored.
pub(super) fn connect_with_secrets(v5: bool, id: &str, will_topic: &str) -> Vec<u8> {
    if v5 {
        let secret = Property::UserProperty(UserProperty::new("planted-key", "planted-value").unwrap());
        let c = v5_0::Connect::builder().client_id(id).unwrap().user_name(USER).unwrap().password(PASSWORD).unwrap();
        let c = c.will_message(will_topic, WILL_PAYLOAD, qos(1), true).unwrap().props(vec![secret]);
        c.build().unwrap().to_continuous_buffer()
    } else {
        let c = v3_1_1::Connect::builder().client_id(id).unwrap().user_name(USER).unwrap().password(PASSWORD).unwrap();
        let c = c.will_message(will_topic, WILL_PAYLOAD, qos(1), true).unwrap();
        c.build().unwrap().to_continuous_buffer()
    }
}

pub(super) fn connack(v5: bool, session_present: bool) -> Vec<u8> {
    if v5 {
        let c = v5_0::Connack::builder().session_present(session_present).reason_code(ConnectReasonCode::Success);
        c.build().unwrap().to_continuous_buffer()
    } else {
        let c = v3_1_1::Connack::builder().session_present(session_present).return_code(ConnectReturnCode::Accepted);
        c.build().unwrap().to_continuous_buffer()
    }
}

pub(super) fn connack_refusing() -> Vec<u8> {
    let c = v3_1_1::Connack::builder().session_present(false).return_code(ConnectReturnCode::NotAuthorized);
    c.build().unwrap().to_continuous_buffer()
}

pub(super) fn connack_assigning(id: &str) -> Vec<u8> {
    let assigned = Property::AssignedClientIdentifier(AssignedClientIdentifier::new(id).unwrap());
    let c = v5_0::Connack::builder().session_present(false).reason_code(ConnectReasonCode::Success);
    c.props(vec![assigned]).build().unwrap().to_continuous_buffer()
}

/// A message as a test states it.
#[derive(Debug, Clone)]
pub(super) struct Message<'a> {
    pub(super) v5: bool,
    pub(super) topic: &'a str,
    pub(super) qos: u8,
    pub(super) id: u16,
    pub(super) dup: bool,
    pub(super) retain: bool,
    pub(super) alias: Option<u16>,
    pub(super) payload: &'a [u8],
}

impl Message<'_> {
    pub(super) fn new(v5: bool, qos: u8, id: u16) -> Self {
        Message { v5, topic: "plant/line/4", qos, id, dup: false, retain: false, alias: None, payload: b"hello" }
    }

    pub(super) fn packet(&self) -> Vec<u8> {
        if self.v5 {
            let p = v5_0::Publish::builder().qos(qos(self.qos)).retain(self.retain).dup(self.dup);
            let mut p = p.payload(self.payload.to_vec());
            if !self.topic.is_empty() {
                p = p.topic_name(self.topic).unwrap();
            }
            if self.qos > 0 {
                p = p.packet_id(self.id);
            }
            let mut properties: Properties = vec![Property::UserProperty(UserProperty::new("a", "b").unwrap())];
            if let Some(alias) = self.alias {
                properties.push(Property::TopicAlias(TopicAlias::new(alias).unwrap()));
            }
            p.props(properties).build().unwrap().to_continuous_buffer()
        } else {
            let p = v3_1_1::Publish::builder().topic_name(self.topic).unwrap().qos(qos(self.qos));
            let mut p = p.retain(self.retain).dup(self.dup).payload(self.payload.to_vec());
            if self.qos > 0 {
                p = p.packet_id(self.id);
            }
            p.build().unwrap().to_continuous_buffer()
        }
    }
}

pub(super) fn puback(v5: bool, id: u16) -> Vec<u8> {
    if v5 {
        v5_0::Puback::builder().packet_id(id).build().unwrap().to_continuous_buffer()
    } else {
        v3_1_1::Puback::builder().packet_id(id).build().unwrap().to_continuous_buffer()
    }
}

pub(super) fn puback_reason(id: u16) -> Vec<u8> {
    let p = v5_0::Puback::builder().packet_id(id).reason_code(PubackReasonCode::QuotaExceeded);
    p.build().unwrap().to_continuous_buffer()
}

pub(super) fn pubrec(v5: bool, id: u16) -> Vec<u8> {
    if v5 {
        v5_0::Pubrec::builder().packet_id(id).build().unwrap().to_continuous_buffer()
    } else {
        v3_1_1::Pubrec::builder().packet_id(id).build().unwrap().to_continuous_buffer()
    }
}

pub(super) fn pubrec_refusing(id: u16) -> Vec<u8> {
    let p = v5_0::Pubrec::builder().packet_id(id).reason_code(PubrecReasonCode::NotAuthorized);
    p.build().unwrap().to_continuous_buffer()
}

pub(super) fn pubrel(v5: bool, id: u16) -> Vec<u8> {
    if v5 {
        v5_0::Pubrel::builder().packet_id(id).build().unwrap().to_continuous_buffer()
    } else {
        v3_1_1::Pubrel::builder().packet_id(id).build().unwrap().to_continuous_buffer()
    }
}

pub(super) fn pubcomp(v5: bool, id: u16) -> Vec<u8> {
    if v5 {
        v5_0::Pubcomp::builder().packet_id(id).build().unwrap().to_continuous_buffer()
    } else {
        v3_1_1::Pubcomp::builder().packet_id(id).build().unwrap().to_continuous_buffer()
    }
}

pub(super) fn subscribe(v5: bool, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let entry = |(filter, n): &(&str, u8)| SubEntry::new(*filter, SubOpts::new().set_qos(qos(*n))).unwrap();
    let entries: Vec<SubEntry> = filters.iter().map(entry).collect();
    if v5 {
        v5_0::Subscribe::builder().packet_id(id).entries(entries).build().unwrap().to_continuous_buffer()
    } else {
        v3_1_1::Subscribe::builder().packet_id(id).entries(entries).build().unwrap().to_continuous_buffer()
    }
}

/// A SUBACK that grants QoS 1 to the first filter and refuses the second.
pub(super) fn suback_refusing_second(v5: bool, id: u16) -> Vec<u8> {
    if v5 {
        let codes = vec![SubackReasonCode::GrantedQos1, SubackReasonCode::NotAuthorized];
        v5_0::Suback::builder().packet_id(id).reason_codes(codes).build().unwrap().to_continuous_buffer()
    } else {
        let codes = vec![SubackReturnCode::SuccessMaximumQos1, SubackReturnCode::Failure];
        v3_1_1::Suback::builder().packet_id(id).return_codes(codes).build().unwrap().to_continuous_buffer()
    }
}

pub(super) fn suback(v5: bool, id: u16) -> Vec<u8> {
    if v5 {
        let codes = vec![SubackReasonCode::GrantedQos1];
        v5_0::Suback::builder().packet_id(id).reason_codes(codes).build().unwrap().to_continuous_buffer()
    } else {
        let codes = vec![SubackReturnCode::SuccessMaximumQos1];
        v3_1_1::Suback::builder().packet_id(id).return_codes(codes).build().unwrap().to_continuous_buffer()
    }
}

pub(super) fn unsubscribe(v5: bool, id: u16, filters: &[&str]) -> Vec<u8> {
    let filters: Vec<&str> = filters.to_vec();
    if v5 {
        let u = v5_0::Unsubscribe::builder().packet_id(id).entries(filters).unwrap();
        u.build().unwrap().to_continuous_buffer()
    } else {
        let u = v3_1_1::Unsubscribe::builder().packet_id(id).entries(filters).unwrap();
        u.build().unwrap().to_continuous_buffer()
    }
}

pub(super) fn unsuback(v5: bool, id: u16) -> Vec<u8> {
    if v5 {
        let codes = vec![UnsubackReasonCode::Success];
        v5_0::Unsuback::builder().packet_id(id).reason_codes(codes).build().unwrap().to_continuous_buffer()
    } else {
        v3_1_1::Unsuback::builder().packet_id(id).build().unwrap().to_continuous_buffer()
    }
}

pub(super) const PINGREQ: [u8; 2] = [0xC0, 0];
pub(super) const PINGRESP: [u8; 2] = [0xD0, 0];
pub(super) const DISCONNECT: [u8; 2] = [0xE0, 0];
/// MQTT 5 DISCONNECT of a broker: session taken over.
pub(super) const DISCONNECT_TAKEN_OVER: [u8; 3] = [0xE0, 1, 0x8E];
