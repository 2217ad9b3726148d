//! Which conversation gives which spans.

use super::packets::{self as p, Message};
use super::*;
use regauge_traces::span::{Kind, flags};

fn connected(v5: bool) -> Watched {
    let mut w = Watched::new();
    w.client(p::connect(v5, "meter-1", true)).broker(p::connack(v5, false));
    w.spans.clear();
    w
}

fn version_flag(v5: bool) -> u32 {
    if v5 { flags::V5 } else { 0 }
}

#[test]
fn connect_ends_with_connack_and_keeps_no_secret() {
    for v5 in [false, true] {
        let mut w = Watched::new();
        let packet = p::connect_with_secrets(v5, "meter-1", "plant/will");
        w.client(&packet).broker(p::connack(v5, true));
        let [span] = w.spans.as_slice() else { panic!("{:?}", w.spans) };
        assert_eq!(span.kind, Kind::Connect);
        assert_eq!(span.session, Some(redactor().session(b"meter-1")));
        assert_eq!(span.connection, Some(CONNECTION));
        assert_eq!(span.target, Some(redactor().topic("plant/will")));
        assert_eq!((span.start_ns, span.duration_ns), (100, Some(110)));
        assert_eq!((span.bytes, span.count, span.status), (packet.len() as u64, 1, 0));
        let shown = format!("{span:?}");
        for secret in ["planted", "meter-1", "plant"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let secrets = flags::USERNAME | flags::PASSWORD | flags::WILL;
        let wanted = secrets | flags::SESSION_PRESENT | version_flag(v5);
        assert_eq!(span.flags & !flags::CLEAN_START, wanted);
    }
}

#[test]
fn connect_keeps_what_a_replay_needs() {
    for (v5, clean, expiry_s) in [(false, true, 0), (false, false, u32::MAX), (true, true, 3600), (true, false, 3600)] {
        let mut w = Watched::new();
        w.client(p::connect(v5, "meter-1", clean)).broker(p::connack(v5, false));
        let span = &w.spans[0];
        assert_eq!((span.keep_alive_s, span.expiry_s), (60, expiry_s), "v5 {v5}, clean {clean}");
        assert_eq!(span.flags & flags::CLEAN_START != 0, clean);
        assert_eq!(span.flags & flags::SESSION_PRESENT, 0);
    }
}

#[test]
fn a_refused_connect_has_its_return_code() {
    let mut w = Watched::new();
    w.client(p::connect(false, "meter-1", true)).broker(p::connack_refusing());
    let spans = w.finish(Ending::Closed);
    assert_eq!(spans.iter().map(|s| (s.kind, s.status)).collect::<Vec<_>>(), [(Kind::Connect, 5), (Kind::Close, 0)]);
}

#[test]
fn clients_without_an_id_are_sessions_of_their_own() {
    let session = |connection, connack: &[u8]| {
        let mut w = Watched::new();
        w.observer = Observer::new(connection, ORIGIN_NS);
        w.client(p::connect(true, "", true)).broker(connack);
        w.spans[0].session.unwrap()
    };
    let plain = p::connack(true, false);
    assert_ne!(session(1, &plain), session(2, &plain));
    assert_ne!(session(1, &plain), redactor().session(b""));
    assert_eq!(session(1, &p::connack_assigning("auto-17")), redactor().session(b"auto-17"));
}

#[test]
fn publishes_end_with_the_last_packet_of_their_handshake() {
    for v5 in [false, true] {
        let mut w = connected(v5);
        let t0 = w.now_ns - ORIGIN_NS;
        let retained = Message { retain: true, ..Message::new(v5, 0, 0) };
        w.client(retained.packet());
        w.client(Message::new(v5, 1, 1).packet()).broker(p::puback(v5, 1));
        w.client(Message::new(v5, 2, 2).packet()).broker(p::pubrec(v5, 2));
        w.client(p::pubrel(v5, 2)).broker(p::pubcomp(v5, 2));
        let seen: Vec<_> = w.spans.iter().map(|s| (s.kind, s.qos, s.start_ns - t0, s.duration_ns)).collect();
        let publish = Kind::Publish;
        assert_eq!(seen, [(publish, 0, 100, None), (publish, 1, 200, Some(110)), (publish, 2, 400, Some(310))]);
        assert_eq!(w.spans[0].flags, flags::RETAIN | version_flag(v5), "nothing is missing from a QoS 0 publish");
        for span in &w.spans {
            assert_eq!(span.target, Some(redactor().topic("plant/line/4")));
        }
        assert_eq!(w.spans[0].bytes, retained.packet().len() as u64);
    }
}

#[test]
fn deliveries_are_matched_with_the_clients_acks() {
    for v5 in [false, true] {
        let mut w = connected(v5);
        // The client publishes with the same packet ids as the broker: each side counts for itself.
        w.client(Message::new(v5, 1, 1).packet());
        for qos in 0..=2 {
            w.broker(Message::new(v5, qos, 1 + u16::from(qos == 2)).packet());
        }
        w.client(p::puback(v5, 1)).client(p::pubrec(v5, 2)).broker(p::pubrel(v5, 2)).client(p::pubcomp(v5, 2));
        w.broker(p::puback(v5, 1));
        let seen: Vec<_> = w.spans.iter().map(|s| (s.kind, s.qos, s.duration_ns)).collect();
        let deliver = Kind::Deliver;
        let wanted =
            [(deliver, 0, None), (deliver, 1, Some(210)), (deliver, 2, Some(410)), (Kind::Publish, 1, Some(810))];
        assert_eq!(seen, wanted);
    }
}

#[test]
fn refusals_are_statuses() {
    let mut w = connected(true);
    w.client(Message::new(true, 1, 1).packet()).broker(p::puback_reason(1));
    w.client(Message::new(true, 2, 2).packet()).broker(p::pubrec_refusing(2));
    let seen: Vec<_> = w.spans.iter().map(|s| (s.qos, s.status, s.duration_ns)).collect();
    assert_eq!(seen, [(1, 0x97, Some(110)), (2, 0x87, Some(110))]);
}

#[test]
fn subscriptions_keep_filters_and_options() {
    for v5 in [false, true] {
        let mut w = connected(v5);
        w.client(p::subscribe(v5, 9, &[("a/+/b", 1), ("c/#", 2)])).broker(p::suback_refusing_second(v5, 9));
        w.client(p::subscribe(v5, 10, &[("d", 0)])).broker(p::suback(v5, 10));
        w.client(p::unsubscribe(v5, 11, &["a/+/b", "c/#"])).broker(p::unsuback(v5, 11));
        let seen: Vec<_> = w.spans.iter().map(|s| (s.kind, s.count, s.qos, s.status)).collect();
        let failure = if v5 { 0x87 } else { 0x80 };
        let wanted = [(Kind::Subscribe, 2, 2, failure), (Kind::Subscribe, 1, 0, 0), (Kind::Unsubscribe, 2, 0, 0)];
        assert_eq!(seen, wanted);
        assert_eq!(w.spans[0].target, Some(redactor().subscriptions([("a/+/b", 1), ("c/#", 2)])));
        assert_eq!(w.spans[2].target, Some(redactor().filters(["a/+/b", "c/#"])));
    }
}

#[test]
fn topic_aliases_are_resolved_per_direction() {
    let mut w = connected(true);
    let message = |topic, alias| Message { topic, alias: Some(alias), ..Message::new(true, 0, 0) }.packet();
    w.client(message("up/one", 1)).client(message("", 1)).client(message("up/two", 1)).client(message("", 1));
    w.broker(message("down/one", 1)).broker(message("", 1)).broker(message("", 2));
    let topics: Vec<_> = w.spans.iter().map(|s| s.target.clone()).collect();
    let topic = |name| Some(redactor().topic(name));
    let up = [topic("up/one"), topic("up/one"), topic("up/two"), topic("up/two")];
    assert_eq!(topics[..4], up);
    assert_eq!(topics[4..], [topic("down/one"), topic("down/one"), None]);
}

#[test]
fn pings_are_answered_in_order() {
    let mut w = connected(false);
    w.client(p::PINGREQ).client(p::PINGREQ).broker(p::PINGRESP).broker(p::PINGRESP).broker(p::PINGRESP);
    let seen: Vec<_> = w.spans.iter().map(|s| (s.kind, s.duration_ns)).collect();
    assert_eq!(seen, [(Kind::Ping, Some(210)), (Kind::Ping, Some(210))]);
}

#[test]
fn a_disconnect_is_no_close() {
    let mut w = connected(false);
    w.client(p::DISCONNECT);
    let spans = w.finish(Ending::Closed);
    assert_eq!(spans.iter().map(|s| s.kind).collect::<Vec<_>>(), [Kind::Disconnect]);
    assert_eq!((spans[0].duration_ns, spans[0].flags & flags::UNFINISHED), (None, 0));
}

#[test]
fn a_close_tells_what_was_left_waiting() {
    let mut w = connected(true);
    w.client(Message::new(true, 1, 5).packet()).client(p::subscribe(true, 6, &[("x", 0)])).client(p::PINGREQ);
    w.broker(Message::new(true, 1, 5).packet()).broker(p::DISCONNECT_TAKEN_OVER);
    let spans = w.finish(Ending::Closed);
    let seen: Vec<_> = spans.iter().map(|s| (s.kind, s.flags & flags::UNFINISHED != 0, s.duration_ns)).collect();
    let kinds = [Kind::Publish, Kind::Subscribe, Kind::Ping, Kind::Deliver];
    assert_eq!(seen[..4], kinds.map(|kind| (kind, true, None)));
    assert_eq!((seen[4], spans[4].status), ((Kind::Close, false, None), 0x8E));
    assert_eq!(seen.len(), 5);
}

#[test]
fn a_recording_that_stops_closes_nothing() {
    let mut w = Watched::new();
    w.client(p::connect(false, "meter-1", true));
    let spans = w.finish(Ending::RecordingStopped);
    assert_eq!(
        spans.iter().map(|s| (s.kind, s.flags & flags::UNFINISHED != 0)).collect::<Vec<_>>(),
        [(Kind::Connect, true)]
    );
}

#[test]
fn a_retransmission_is_recorded_beside_the_first() {
    let mut w = connected(false);
    let again = Message { dup: true, ..Message::new(false, 1, 7) };
    w.client(Message::new(false, 1, 7).packet()).client(again.packet()).broker(p::puback(false, 7));
    w.client(again.packet()).broker(p::puback(false, 7));
    let seen: Vec<_> = w.spans.iter().map(|s| (s.flags, s.duration_ns)).collect();
    let lost = flags::DUP | flags::UNFINISHED;
    assert_eq!(seen, [(lost, None), (0, Some(210)), (flags::DUP, Some(110))]);
}

#[test]
fn a_reused_packet_id_belongs_to_the_later_request() {
    let mut w = connected(false);
    w.client(Message::new(false, 1, 7).packet())
        .client(p::subscribe(false, 7, &[("x", 0)]))
        .broker(p::suback(false, 7));
    w.broker(p::puback(false, 7));
    let seen: Vec<_> = w.spans.iter().map(|s| (s.kind, s.flags, s.duration_ns)).collect();
    assert_eq!(seen, [(Kind::Publish, flags::UNFINISHED, None), (Kind::Subscribe, 0, Some(110))]);
}

#[test]
fn a_packet_starts_with_its_first_byte_and_ends_with_its_last() {
    let mut w = connected(false);
    let t0 = w.now_ns - ORIGIN_NS;
    let publish = Message::new(false, 1, 1).packet();
    let (head, tail) = publish.split_at(1);
    w.client(head).client(tail);
    let puback = p::puback(false, 1);
    w.broker(&puback[..3]).broker(&puback[3..]);
    assert_eq!((w.spans[0].start_ns - t0, w.spans[0].duration_ns), (100, Some(310)));
}
