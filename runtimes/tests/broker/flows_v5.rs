//! What MQTT 5 adds, as scripts.

use crate::packets::*;
use crate::sim::{Setup, Sim};
use insta::assert_snapshot;
use mqtt_protocol_core::mqtt::packet::{
    ContentType, CorrelationData, MaximumPacketSize, Property, ReceiveMaximum, ResponseTopic, UserProperty,
};
use regauge_runtimes::broker::Limits;
use regauge_runtimes::broker::effect::ConnId;

fn node() -> Sim {
    let mut sim = Sim::new(Setup::default());
    sim.connect(1, true, &connect(true, "p", true, 0));
    sim.settle();
    sim.log.clear();
    sim
}

fn say(sim: &mut Sim, conn: u64, what: &str, bytes: &[u8]) {
    sim.line(&format!("> c{conn} {what}"));
    sim.send(conn, bytes);
    sim.settle();
}

#[test]
fn an_id_is_assigned_and_connack_says_the_limits() {
    let mut sim = Sim::new(Setup::default());
    sim.connect(1, true, &connect(true, "", false, 0));
    sim.settle();
    let mut bytes = Vec::new();
    // The library's own view of the CONNACK, properties included.
    use regauge_runtimes::broker::effect::{Effect, Input, MetaReply, Now, Outcome};
    let mut shard = regauge_runtimes::broker::Shard::new(
        regauge_runtimes::broker::BrokerConfig::new(0, &Default::default()),
        Vec::new(),
    );
    let mut out = Vec::new();
    shard.handle(Input::Accepted { conn: ConnId(1) }, Now::default(), &mut out);
    shard.handle(Input::Received { conn: ConnId(1), bytes: &connect(true, "", false, 0) }, Now::default(), &mut out);
    let Some(Effect::Meta { op, .. }) = out.pop() else { panic!("no meta call") };
    let result = Ok(Outcome::Meta(MetaReply::Opened(None)));
    shard.handle(Input::Done { op, result }, Now::default(), &mut out);
    for effect in &out {
        if let Effect::Reply { bytes: b, .. } = effect {
            bytes.extend_from_slice(b);
        }
    }
    let (connack, _) = mqtt_protocol_core::mqtt::packet::v5_0::Connack::parse(&bytes[2..]).unwrap();
    sim.line(&connack.to_string());
    assert_snapshot!(sim.log);
}

#[test]
fn properties_pass_through_and_aliases_do_not() {
    let mut sim = node();
    sim.connect(2, true, &connect(true, "s5", true, 0));
    sim.connect(3, false, &connect(false, "s3", true, 0));
    sim.settle();
    sim.log.clear();
    say(&mut sim, 2, "SUBSCRIBE t, id 5", &subscribe(true, 1, &[("t", 1)], Some(5)));
    say(&mut sim, 2, "SUBSCRIBE +, id 300", &subscribe(true, 2, &[("+", 0)], Some(300)));
    say(&mut sim, 3, "SUBSCRIBE #", &subscribe(false, 1, &[("#", 2)], None));
    let props: Vec<Property> = vec![
        alias(3),
        ContentType::new("text/plain").unwrap().into(),
        ResponseTopic::new("answers").unwrap().into(),
        CorrelationData::new("42").unwrap().into(),
        UserProperty::new("k", "v").unwrap().into(),
        UserProperty::new("k", "w").unwrap().into(),
        message_expiry(60),
    ];
    let first = Pub { topic: "t", payload: b"named", qos: 1, id: 1, props, ..Pub::default() };
    say(&mut sim, 1, "PUBLISH t, alias 3", &first.bytes(true));
    let second = Pub { topic: "", payload: b"by alias", qos: 0, props: vec![alias(3)], ..Pub::default() };
    say(&mut sim, 1, "PUBLISH alias 3", &second.bytes(true));
    assert_snapshot!(sim.log);
}

#[test]
fn subscription_options() {
    let mut sim = node();
    let kept = |payload: &'static str| Pub { topic: "t", payload: payload.as_bytes(), retain: true, ..Pub::default() };
    sim.send(1, &kept("kept").bytes(true));
    sim.log.clear();
    say(&mut sim, 1, "SUBSCRIBE t: no local, retained only when new", &subscribe(true, 1, &[("t", 0x14)], None));
    say(&mut sim, 1, "SUBSCRIBE u: retain as published", &subscribe(true, 2, &[("u", 0x08)], None));
    sim.connect(2, true, &connect(true, "other", true, 0));
    sim.settle();
    sim.log.clear();
    say(&mut sim, 2, "SUBSCRIBE t: retained when new", &subscribe(true, 1, &[("t", 0x10)], None));
    say(&mut sim, 2, "SUBSCRIBE t again", &subscribe(true, 2, &[("t", 0x10)], None));
    say(&mut sim, 2, "SUBSCRIBE t: never retained", &subscribe(true, 3, &[("t", 0x20)], None));
    say(&mut sim, 1, "PUBLISH t: not to itself", &publish(true, "t", "x", 0, 0));
    say(&mut sim, 1, "PUBLISH u, retained", &Pub { topic: "u", ..kept("y") }.bytes(true));
    say(&mut sim, 2, "UNSUBSCRIBE t, v", &unsubscribe(true, 4, &["t", "v"]));
    assert_snapshot!(sim.log);
}

#[test]
fn a_client_is_taken_over() {
    let mut sim = node();
    let will = Some(("will", "of the first", 0, false));
    sim.connect(2, true, &connect_with(true, "dup", true, 100, Vec::new(), 0, will));
    sim.settle();
    sim.send(1, &subscribe(true, 1, &[("will", 0)], None));
    sim.send(2, &subscribe(true, 1, &[("t", 1)], None));
    sim.settle();
    sim.log.clear();
    sim.line("> c3 CONNECT dup, continuing");
    sim.connect(3, true, &connect(true, "dup", false, 100));
    sim.settle();
    say(&mut sim, 1, "PUBLISH t", &publish(true, "t", "to the new one", 1, 1));
    sim.line("> c4 and c5 CONNECT dup, clean, while the store is slow");
    sim.connect(4, true, &connect(true, "dup", true, 0));
    sim.connect(5, true, &connect(true, "dup", true, 0));
    sim.settle();
    assert_snapshot!(sim.log);
}

#[test]
fn filters_beyond_the_limit_are_refused_and_the_node_goes_on() {
    // Together they would be more than one proposal to the meta-service may have.
    let mut sim = node();
    let filter = |n: usize| format!("{n:02}/{}", "x".repeat(60_000));
    for n in 0..20 {
        sim.send(1, &subscribe(true, n as u16 + 1, &[(filter(n).as_str(), 1)], None));
    }
    sim.settle();
    let answers = |reason: &str| {
        let end = format!("[{reason}]");
        sim.log.lines().filter(|line| line.contains("SUBACK") && line.trim_end().ends_with(&end)).count()
    };
    // 768 KiB hold thirteen of them.
    assert_eq!((answers("01"), answers("97")), (13, 7), "granted, and refused for the quota");
    let halts = sim.log.lines().filter(|line| line.contains("Halt")).count();
    assert_eq!(halts, 0);
}

#[test]
fn violations_are_named() {
    let limits = Limits { packet_bytes: 200, receive_maximum: 2, topic_alias_maximum: 4, ..Limits::default() };
    let mut sim = Sim::new(Setup { limits, ..Setup::default() });
    let qos1 = |id| publish(true, "t", "x", 1, id);
    let large = publish(true, "t", &"x".repeat(200), 0, 0);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("packet too large, known from its header", large[..5].to_vec()),
        ("a second CONNECT", connect(true, "again", true, 0)),
        ("three publishes unacknowledged", [qos1(1), qos1(2), qos1(3)].concat()),
        ("alias never set", Pub { props: vec![alias(1)], ..Pub::default() }.bytes(true)),
        ("alias beyond the maximum", Pub { topic: "t", props: vec![alias(5)], ..Pub::default() }.bytes(true)),
        ("wildcard in a topic", {
            let mut p = publish(true, "t", "x", 0, 0);
            p[4] = b'#';
            p
        }),
        ("QoS 3", vec![0x36, 5, 0, 1, b't', 0, 1]),
        ("bad flags of SUBSCRIBE", vec![0x80, 0]),
        ("a packet that only servers send", vec![0x20, 2, 0, 0]),
        ("expiry prolonged at DISCONNECT", vec![0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9]),
    ];
    for (conn, (what, bytes)) in (1..).zip(cases) {
        sim.connect(conn, true, &connect(true, &format!("c{conn}"), true, 0));
        sim.settle();
        say(&mut sim, conn, what, &bytes);
    }
    let shown: String = sim
        .log
        .lines()
        .filter(|l| l.starts_with('>') || l.contains("DISCONNECT") || l.contains("Close"))
        .map(|l| format!("{l}\n"))
        .collect();
    assert_snapshot!(shown);
}

#[test]
fn the_clients_limits_are_kept() {
    let mut sim = node();
    let props: Vec<Property> = vec![ReceiveMaximum::new(2).unwrap().into(), MaximumPacketSize::new(40).unwrap().into()];
    sim.connect(2, true, &connect_with(true, "small", true, 0, props, 0, None));
    sim.settle();
    sim.send(2, &subscribe(true, 1, &[("#", 1)], None));
    sim.log.clear();
    let five: Vec<u8> = (1..=5).flat_map(|id| publish(true, "t", &format!("m{id}"), 1, id)).collect();
    say(&mut sim, 1, "PUBLISH five", &five);
    say(&mut sim, 2, "PUBACK 2", &ack(PUBACK, 2));
    say(&mut sim, 2, "PUBACK 7, which is unknown", &ack(PUBACK, 7));
    say(&mut sim, 1, "PUBLISH too large for c2", &publish(true, "t", &"x".repeat(50), 0, 0));
    say(&mut sim, 2, "PUBACK 1, 2", &[ack(PUBACK, 1), ack(PUBACK, 2)].concat());
    assert_snapshot!(sim.log);
}

#[test]
fn queued_messages_expire_and_sessions_too() {
    let mut sim = node();
    sim.connect(2, true, &connect(true, "away", true, 30));
    sim.settle();
    sim.send(2, &subscribe(true, 1, &[("#", 1)], None));
    sim.settle();
    sim.hang_up(2);
    sim.settle();
    for (id, s) in [(1, 5), (2, 20)] {
        let p = Pub { topic: "t", payload: b"wait", qos: 1, id, props: vec![message_expiry(s)], ..Pub::default() };
        sim.send(1, &p.bytes(true));
    }
    sim.settle();
    sim.log.clear();
    sim.line("> 10 s");
    sim.pass(10_000_000_000);
    sim.line("> c3 CONNECT away");
    sim.connect(3, true, &connect(true, "away", false, 30));
    sim.settle();
    sim.line("> c3 leaves; 30 s");
    sim.hang_up(3);
    sim.settle();
    sim.pass(30_000_000_000);
    sim.settle();
    assert!(!sim.meta.contains_key("away"));
    sim.line("> c4 CONNECT away");
    sim.connect(4, true, &connect(true, "away", false, 30));
    sim.settle();
    assert_snapshot!(sim.log);
}
