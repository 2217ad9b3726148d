//! What is not MQTT makes a connection opaque, once, and never a panic.

use super::packets::{self as p, Message};
use super::*;
use proptest::prelude::*;
use regauge_traces::span::{Kind, flags};

const TLS_CLIENT_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03];

#[test]
fn other_protocols_are_opaque_from_their_first_bytes() {
    let later_version = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 6, 2, 0, 60, 0, 0];
    for bytes in [TLS_CLIENT_HELLO, b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", &later_version, &[0x20, 2, 0, 0]] {
        let mut w = Watched::new();
        assert!(w.send(Side::Client, bytes).is_err(), "{bytes:?}");
        assert!(w.observer.is_opaque());
        assert_eq!(w.send(Side::Broker, b"anything"), Ok(()), "it is said once");
        assert_eq!(w.finish(Ending::Closed), [], "no span is made up");
    }
}

#[test]
fn a_broker_that_speaks_first_is_no_mqtt_broker() {
    let mut w = Watched::new();
    assert_eq!(w.send(Side::Broker, &p::connack(false, false)), Err(Malformed::Packet(0x20)));
}

#[test]
fn what_was_open_when_framing_broke_is_unfinished() {
    let mut w = Watched::new();
    w.client(p::connect(false, "meter-1", true)).broker(p::connack(false, false));
    w.client(Message::new(false, 1, 1).packet());
    assert_eq!(w.send(Side::Broker, &[0x40, 0xFF, 0xFF, 0xFF, 0xFF]), Err(Malformed::Length));
    let spans = w.finish(Ending::Closed);
    assert_eq!(spans.iter().map(|s| s.kind).collect::<Vec<_>>(), [Kind::Connect, Kind::Publish]);
    assert_eq!(spans[1].flags, flags::UNFINISHED);
}

#[test]
fn fields_beyond_their_packet_are_found() {
    let short_connect = [0x10, 10, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60];
    let mut w = Watched::new();
    assert_eq!(w.send(Side::Client, &short_connect), Err(Malformed::Short));

    // A topic longer than the whole PUBLISH is known at once, without waiting for bytes that never come.
    let mut w = Watched::new();
    w.client(p::connect(false, "meter-1", true));
    assert_eq!(w.send(Side::Client, &[0x30, 4, 0xFF, 0xFF]), Err(Malformed::Short));

    let mut w = Watched::new();
    w.client(p::connect(true, "meter-1", true));
    let unknown_property = [0x30, 7, 0, 1, b'x', 2, 0x7F, 0, b'p'];
    assert_eq!(w.send(Side::Client, &unknown_property), Err(Malformed::Property(0x7F)));
}

#[test]
fn a_giant_control_packet_is_not_gathered() {
    let mut w = Watched::new();
    w.client(p::connect(false, "meter-1", true));
    // SUBSCRIBE with a remaining length of 256 MiB.
    let sent = w.send(Side::Client, &[0x82, 0xFF, 0xFF, 0xFF, 0x7F]);
    assert!(matches!(sent, Err(Malformed::TooLong(_))), "{sent:?}");
}

#[test]
fn a_subscription_to_nothing_is_malformed() {
    for packet in [&[0x82, 2, 0, 1][..], &[0x82, 5, 0, 1, 0, 0, 1], &[0xA2, 2, 0, 1]] {
        let mut w = Watched::new();
        w.client(p::connect(false, "meter-1", true));
        assert_eq!(w.send(Side::Client, packet), Err(Malformed::NoFilter), "{packet:?}");
    }
}

#[test]
fn old_clients_and_bridges_are_understood() {
    let mqtt_3_1 = [0x10, 16, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, 2, 0, 60, 0, 2, b'i', b'd'];
    let bridge = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 0x84, 2, 0, 60, 0, 2, b'i', b'd'];
    for connect in [&mqtt_3_1[..], &bridge] {
        let mut w = Watched::new();
        w.client(connect).broker(p::connack(false, false));
        assert_eq!(w.spans[0].session, Some(redactor().session(b"id")));
    }
}

proptest! {
    /// Any bytes in any order, before and after a CONNECT: no panic, and every span that comes out is on this connection.
    #[test]
    fn no_bytes_break_the_observer(
        v5 in any::<bool>(),
        connect_first in any::<bool>(),
        chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..64)), 0..40),
    ) {
        let mut w = Watched::new();
        if connect_first {
            w.client(p::connect(v5, "meter-1", true)).broker(p::connack(v5, false));
        }
        for (from_client, bytes) in &chunks {
            let _ = w.send(if *from_client { Side::Client } else { Side::Broker }, bytes);
        }
        for span in w.finish(Ending::Closed) {
            prop_assert_eq!(span.connection, Some(CONNECTION));
        }
    }

    /// One flipped byte in a real conversation: no panic.
    #[test]
    fn no_flipped_byte_breaks_the_observer(v5 in any::<bool>(), at in any::<prop::sample::Index>(), with in 1u8..) {
        let mut bytes = [
            p::connect_with_secrets(v5, "meter-1", "w"),
            Message { alias: v5.then_some(1), ..Message::new(v5, 2, 1) }.packet(),
            p::subscribe(v5, 2, &[("a/#", 1)]),
            p::unsubscribe(v5, 3, &["a/#"]),
        ].concat();
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        let mut w = Watched::new();
        let _ = w.send(Side::Client, &bytes);
        w.finish(Ending::Closed);
    }
}
