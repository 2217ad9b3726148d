//! Every packet decodes, with a decoder that is not ours, to what was asked for, and has the length that was asked for.

use mqtt_protocol_core::mqtt::packet::{Qos, v3_1_1, v5_0};
use proptest::prelude::*;
use regauge_replayer::packet::{self, Connect, Packet, Publish};
use std::sync::Arc;

/// Takes the fixed header off and checks the remaining length.
fn body(packet: &Packet) -> (u8, Vec<u8>) {
    let bytes = packet.bytes();
    let header = bytes.iter().skip(1).position(|byte| byte & 0x80 == 0).unwrap() + 2;
    let remaining = bytes[1..header].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    assert_eq!(remaining, bytes.len() - header);
    (bytes[0], bytes[header..].to_vec())
}

/// The lengths that no packet has, because the length of the length grows in between.
fn impossible(total: u64) -> bool {
    [130, 16_387, 2_097_156].contains(&total)
}

fn qos(qos: Qos) -> u8 {
    qos as u8
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn publish(
        v5: bool, topic in "[a-z0-9]{1,9}(/[a-z0-9]{0,9}){0,4}", level in 0_u8..3, retain: bool, dup: bool,
        packet_id in 1_u16.., tag: u64, extra in prop_oneof![0_u64..300, 16_000_u64..17_000, 60_000_u64..300_000],
    ) {
        let publish = Publish { v5, topic: &topic, qos: level, retain, dup, packet_id, tag };
        let shortest = 2 + 2 + topic.len() as u64 + if level > 0 { 2 } else { 0 } + u64::from(v5);
        let total = shortest + extra;
        let built = packet::publish(&publish, total);
        prop_assert_eq!(built.resized, impossible(total));
        if !built.resized {
            prop_assert_eq!(built.len(), total);
        }
        let (first, body) = body(&built);
        let (name, id, decoded_qos, decoded_retain, decoded_dup) = if v5 {
            let (p, used) = v5_0::Publish::parse(first & 15, Arc::from(body.as_slice())).unwrap();
            prop_assert_eq!(used, body.len());
            (p.topic_name().to_owned(), p.packet_id(), qos(p.qos()), p.retain(), p.dup())
        } else {
            let (p, used) = v3_1_1::Publish::parse(first & 15, Arc::from(body.as_slice())).unwrap();
            prop_assert_eq!(used, body.len());
            (p.topic_name().to_owned(), p.packet_id(), qos(p.qos()), p.retain(), p.dup())
        };
        prop_assert_eq!(name, topic.clone());
        prop_assert_eq!(id, (level > 0).then_some(packet_id));
        prop_assert_eq!((decoded_qos, decoded_retain, decoded_dup), (level, retain, dup && level > 0));
    }

    #[test]
    fn connect(
        v5: bool, clean_start: bool, keep_alive_s: u16, expiry_s: u32, client_id in "[a-z0-9]{1,8}",
        user_name: bool, password: bool, will in proptest::option::of("[a-z]{1,12}"), will_qos in 0_u8..3,
        will_retain: bool, total in 60_u64..70_000,
    ) {
        let asked = Connect {
            v5, clean_start, keep_alive_s, expiry_s, client_id: &client_id, user_name, password,
            will_topic: will.as_deref(), will_qos, will_retain,
        };
        let built = packet::connect(&asked, total);
        // One field holds 65,535 bytes; with a client id alone a longer packet cannot be made.
        if !built.resized {
            prop_assert_eq!(built.len(), total);
        } else {
            prop_assert!(impossible(total) || total > 65_000);
        }
        let (first, body) = body(&built);
        prop_assert_eq!(first, 0x10);
        macro_rules! check { ($decoded:expr) => {{
            let (c, used) = $decoded.unwrap();
            prop_assert_eq!(used, body.len());
            prop_assert_eq!(c.keep_alive(), keep_alive_s);
            prop_assert!(c.client_id().starts_with(&client_id));
            prop_assert_eq!(c.will_flag(), will.is_some());
            prop_assert_eq!(c.will_topic(), will.as_deref());
            if will.is_some() {
                prop_assert_eq!((qos(c.will_qos()), c.will_retain()), (will_qos, will_retain));
            }
            prop_assert_eq!(c.password_flag(), password);
            prop_assert_eq!(c.user_name_flag(), user_name || password);
            c
        }}}
        if v5 {
            let c = check!(v5_0::Connect::parse(&body));
            prop_assert_eq!(c.clean_start(), clean_start);
            let expiry = c.props().iter().find_map(|property| match property {
                mqtt_protocol_core::mqtt::packet::Property::SessionExpiryInterval(p) => Some(p.val()),
                _ => None,
            });
            prop_assert_eq!(expiry.unwrap_or(0), expiry_s);
        } else {
            let c = check!(v3_1_1::Connect::parse(&body));
            prop_assert_eq!(c.clean_session(), clean_start);
        }
    }

    #[test]
    fn subscribe_and_unsubscribe(
        v5: bool, packet_id in 1_u16..,
        filters in prop::collection::vec(("[a-z]{1,9}(/[a-z+]){0,3}(/#)?", 0_u8..3), 1..20),
    ) {
        let names: Vec<String> = filters.iter().map(|(filter, _)| filter.clone()).collect();
        let subscribe = packet::subscribe(&filters, packet_id, v5, 0);
        let unsubscribe = packet::unsubscribe(&names, packet_id, v5, 0);
        let characters: usize = names.iter().map(String::len).sum();
        prop_assert_eq!(packet::filter_characters(names.len(), 1, v5, subscribe.len()), Some(characters));
        prop_assert_eq!(packet::filter_characters(names.len(), 0, v5, unsubscribe.len()), Some(characters));
        prop_assert!(!packet::subscribe(&filters, packet_id, v5, subscribe.len()).resized);
        let (first, subscribe) = body(&subscribe);
        prop_assert_eq!(first, 0x82);
        let (first, unsubscribe) = body(&unsubscribe);
        prop_assert_eq!(first, 0xa2);
        macro_rules! check { ($subscribe:expr, $unsubscribe:expr) => {{
            let (s, used) = $subscribe.unwrap();
            prop_assert_eq!(used, subscribe.len());
            prop_assert_eq!(s.packet_id(), packet_id);
            let decoded: Vec<(String, u8)> =
                s.entries().iter().map(|e| (e.topic_filter().to_owned(), qos(e.sub_opts().qos()))).collect();
            prop_assert_eq!(decoded, filters.clone());
            let (u, used) = $unsubscribe.unwrap();
            prop_assert_eq!(used, unsubscribe.len());
            let decoded: Vec<String> = u.entries().iter().map(|e| e.as_str().to_owned()).collect();
            prop_assert_eq!(decoded, names.clone());
        }}}
        if v5 {
            check!(v5_0::Subscribe::parse(&subscribe), v5_0::Unsubscribe::parse(&unsubscribe));
        } else {
            check!(v3_1_1::Subscribe::parse(&subscribe), v3_1_1::Unsubscribe::parse(&unsubscribe));
        }
    }

    #[test]
    fn disconnect(v5: bool, total in prop_oneof![2_u64..300, 16_000_u64..17_000]) {
        let built = packet::disconnect(v5, total);
        // 133 and 16391 lie where the property block's own length grows; 5 and 6 are too short for a property.
        let possible = if v5 { !(impossible(total) || [5, 6, 133, 16_391].contains(&total)) } else { total == 2 };
        prop_assert_eq!(built.resized, !possible, "{}", total);
        prop_assert!(built.resized || built.len() == total);
        let (first, body) = body(&built);
        prop_assert_eq!(first, 0xe0);
        if v5 {
            prop_assert_eq!(v5_0::Disconnect::parse(&body).unwrap().1, body.len());
        } else {
            prop_assert!(body.is_empty());
        }
    }
}

#[test]
fn a_topic_longer_than_the_packet_is_counted() {
    let topic = "t".repeat(50);
    let publish = Publish { v5: false, topic: &topic, qos: 0, retain: false, dup: false, packet_id: 0, tag: 1 };
    let built = packet::publish(&publish, 20);
    assert!(built.resized);
    assert_eq!(built.len(), 2 + 2 + 50);
}

#[test]
fn an_empty_client_id_stays_empty() {
    let asked = Connect { clean_start: true, ..Connect::default() };
    assert!(!packet::connect(&asked, 14).resized);
    assert!(packet::connect(&asked, 20).resized);
}

#[test]
fn large_payloads_cost_no_memory() {
    let publish = Publish { v5: true, topic: "t", qos: 1, retain: false, dup: false, packet_id: 1, tag: 1 };
    let built = packet::publish(&publish, 200_000_000);
    assert_eq!(built.len(), 200_000_000);
    assert!(built.head.len() < 64);
}
