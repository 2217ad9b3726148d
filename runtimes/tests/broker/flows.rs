//! The main flows as scripts. Each snapshot shows inputs (`>`), completions (`<`) and the effects that followed.
//!
//! Scripts marked raw show the broker without its gate: there, replies and syncs name what they wait for.

use crate::packets::*;
use crate::sim::{Setup, Sim};
use insta::assert_snapshot;
use regauge_runtimes::settings::Durability;

/// A node on which `p` (connection 1) and `s` (connection 2, subscribed to `#` with `sub_qos`) are connected.
fn pair(setup: Setup, v5: bool, sub_qos: u8) -> Sim {
    let mut sim = Sim::new(setup);
    sim.connect(1, v5, &connect(v5, "p", true, 0));
    sim.connect(2, v5, &connect(v5, "s", true, 0));
    sim.settle();
    sim.send(2, &subscribe(v5, 1, &[("#", sub_qos)], None));
    sim.settle();
    sim.log.clear();
    sim
}

/// As [`pair`], with the first segment in place.
fn pair_with_segment(setup: Setup) -> Sim {
    let mut sim = pair(setup, false, 1);
    sim.send(1, &publish(false, "t", "zero", 1, 100));
    sim.settle();
    sim.send(2, &ack(PUBACK, 1));
    sim.log.clear();
    sim
}

fn say(sim: &mut Sim, conn: u64, what: &str, bytes: &[u8]) {
    sim.line(&format!("> c{conn} {what}"));
    sim.send(conn, bytes);
}

#[test]
fn connect_subscribe_ping_disconnect() {
    let mut sim = Sim::new(Setup::default());
    sim.accept(1, false, 0);
    // Everything at once: what stands behind CONNECT waits for its CONNACK.
    let all = [connect(false, "a", true, 0), subscribe(false, 7, &[("x/+", 1), ("bad#", 0), ("$share/g/x", 0)], None)];
    say(&mut sim, 1, "CONNECT a clean, SUBSCRIBE", &all.concat());
    sim.settle();
    say(&mut sim, 1, "PINGREQ", &PINGREQ);
    say(&mut sim, 1, "UNSUBSCRIBE", &unsubscribe(false, 8, &["x/+"]));
    say(&mut sim, 1, "DISCONNECT", &DISCONNECT);
    sim.settle();
    assert!(sim.meta.is_empty(), "a clean session leaves nothing behind");
    assert_snapshot!(sim.log);
}

#[test]
fn qos1_waits_for_append_and_sync_raw() {
    let mut sim = pair_with_segment(Setup { raw: true, ..Setup::default() });
    say(&mut sim, 1, "PUBLISH 1", &publish(false, "t", "one", 1, 1));
    say(&mut sim, 1, "PUBLISH 2, 3", &[publish(false, "t", "two", 1, 2), publish(false, "t", "three", 1, 3)].concat());
    sim.step(0);
    say(&mut sim, 1, "PUBLISH 4", &publish(false, "t", "four", 1, 4));
    sim.settle();
    assert_snapshot!(sim.log);
}

#[test]
fn qos1_behind_the_gate() {
    let mut sim = pair_with_segment(Setup::default());
    say(&mut sim, 1, "PUBLISH 1", &publish(false, "t", "one", 1, 1));
    say(&mut sim, 1, "PUBLISH 2, 3", &[publish(false, "t", "two", 1, 2), publish(false, "t", "three", 1, 3)].concat());
    sim.settle();
    assert_snapshot!(sim.log);
}

#[test]
fn every_second_append_waits_for_a_sync_raw() {
    let setup = Setup { raw: true, durability: Durability::Every(2), ..Setup::default() };
    let mut sim = pair(setup, false, 0);
    for id in 1..=4 {
        say(&mut sim, 1, "PUBLISH", &publish(false, "t", "x", 1, id));
        sim.settle();
    }
    assert_snapshot!(sim.log);
}

#[test]
fn a_roll_seals_the_old_segment() {
    let mut logs = String::new();
    for durability in [Durability::OnSeal, Durability::Every(10), Durability::None, Durability::Fdatasync] {
        let mut sim = pair(Setup { durability, segment_bytes: 100, ..Setup::default() }, false, 0);
        sim.line(&format!("== {durability}"));
        for id in 1..=3 {
            say(&mut sim, 1, "PUBLISH", &publish(false, "t", "twenty bytes of load", 1, id));
            if id == 2 {
                sim.settle();
            }
        }
        sim.settle();
        logs.push_str(&sim.log);
    }
    assert_snapshot!(logs);
}

#[test]
fn qos2_in_and_out() {
    let mut sim = pair(Setup::default(), false, 2);
    say(&mut sim, 1, "PUBLISH", &publish(false, "t", "once", 2, 9));
    let again = Pub { topic: "t", payload: b"once", qos: 2, id: 9, dup: true, ..Pub::default() };
    say(&mut sim, 1, "PUBLISH again", &again.bytes(false));
    sim.settle();
    say(&mut sim, 1, "PUBREL", &ack(PUBREL, 9));
    say(&mut sim, 1, "PUBREL again", &ack(PUBREL, 9));
    say(&mut sim, 2, "PUBREC", &ack(PUBREC, 1));
    say(&mut sim, 2, "PUBCOMP", &ack(PUBCOMP, 1));
    assert_eq!(sim.payloads().len(), 1);
    assert_snapshot!(sim.log);
}

#[test]
fn a_session_that_is_away_gets_its_messages_back() {
    let mut sim = pair(Setup::default(), false, 0);
    sim.connect(3, false, &connect(false, "away", false, 0));
    sim.settle();
    sim.log.clear();
    say(&mut sim, 3, "SUBSCRIBE q/# at QoS 1", &subscribe(false, 1, &[("q/#", 1)], None));
    sim.settle();
    say(&mut sim, 1, "PUBLISH online", &publish(false, "q/1", "online", 1, 1));
    sim.settle();
    sim.line("> c3 is cut off without having acknowledged");
    sim.hang_up(3);
    let two =
        [publish(false, "q/2", "two", 1, 2), publish(false, "other", "x", 1, 3), publish(false, "q/3", "three", 2, 4)];
    say(&mut sim, 1, "PUBLISH q/2, other, q/3", &two.concat());
    say(&mut sim, 1, "PUBLISH q/4 at QoS 0: not queued", &publish(false, "q/4", "gone", 0, 0));
    sim.settle();
    sim.line("> c4 CONNECT away");
    sim.connect(4, false, &connect(false, "away", false, 0));
    sim.settle();
    say(&mut sim, 4, "PUBACK 1, 2, 3", &[ack(PUBACK, 1), ack(PUBACK, 2), ack(PUBACK, 3)].concat());
    assert_snapshot!(sim.log);
}

#[test]
fn a_stored_session_survives_a_restart() {
    let mut sim = pair(Setup::default(), false, 0);
    sim.connect(3, false, &connect(false, "kept", false, 0));
    sim.settle();
    sim.send(3, &subscribe(false, 1, &[("a", 1), ("b/+", 2)], None));
    sim.publish(1, &Pub { topic: "a", payload: b"before", qos: 1, id: 1, ..Pub::default() });
    sim.settle();
    let mut sim = Sim::restart(Setup::default(), sim.files, sim.meta);
    sim.connect(5, false, &connect(false, "kept", false, 0));
    sim.connect(6, false, &connect(false, "p", true, 0));
    sim.settle();
    say(&mut sim, 6, "PUBLISH", &publish(false, "a", "after", 1, 1));
    sim.settle();
    say(&mut sim, 5, "DISCONNECT", &DISCONNECT);
    sim.settle();
    assert_eq!(sim.payloads().len(), 2);
    assert_snapshot!(sim.log);
}

#[test]
fn a_will_is_published_when_its_client_vanishes() {
    let mut sim = pair(Setup::default(), false, 1);
    for (conn, client) in [(3, "w1"), (4, "w2")] {
        sim.connect(
            conn,
            false,
            &connect_with(false, client, true, 0, Vec::new(), 0, Some(("will", client, 1, false))),
        );
    }
    sim.settle();
    sim.log.clear();
    sim.line("> c3 is cut off");
    sim.hang_up(3);
    sim.settle();
    say(&mut sim, 4, "DISCONNECT", &DISCONNECT);
    sim.settle();
    assert_snapshot!(sim.log);
}

#[test]
fn retained_messages() {
    let mut sim = pair(Setup::default(), false, 0);
    let kept = |topic, payload: &'static str, qos| Pub {
        topic,
        payload: payload.as_bytes(),
        qos,
        id: 1,
        retain: true,
        ..Pub::default()
    };
    for p in
        [kept("r/1", "old", 0), kept("r/1", "new", 1), kept("r/2", "other", 0), kept("r/3", "x", 0), kept("r/3", "", 0)]
    {
        sim.send(1, &p.bytes(false));
        sim.settle();
    }
    sim.connect(3, false, &connect(false, "late", true, 0));
    sim.settle();
    sim.log.clear();
    say(&mut sim, 3, "SUBSCRIBE r/#", &subscribe(false, 1, &[("r/#", 1)], None));
    sim.settle();
    say(&mut sim, 1, "PUBLISH retained, live", &kept("r/2", "live", 0).bytes(false));
    assert_snapshot!(sim.log);
}

#[test]
fn time_runs_out() {
    let mut sim = Sim::new(Setup::default());
    sim.accept(1, false, 0);
    sim.connect(2, true, &connect_with(true, "a", true, 0, Vec::new(), 2, None));
    sim.settle();
    sim.log.clear();
    for (ns, what) in
        [(2_900_000_000, "2.9 s"), (50_000_000, "PINGREQ"), (2_900_000_000, "2.9 s"), (100_000_000, "0.1 s")]
    {
        sim.line(&format!("> {what}"));
        if what == "PINGREQ" {
            sim.send(2, &PINGREQ);
        }
        sim.pass(ns);
    }
    sim.settle();
    sim.line("> 10 s");
    sim.pass(10_000_000_000);
    assert!(sim.clients[&regauge_runtimes::broker::effect::ConnId(1)].closed);
    assert_snapshot!(sim.log);
}

#[test]
fn a_failed_write_stops_the_node() {
    let mut logs = String::new();
    for what in ["roll", "append", "sync", "meta"] {
        let mut sim = pair(Setup::default(), false, 0);
        if what == "append" || what == "sync" {
            sim.send(1, &publish(false, "t", "fine", 1, 1));
            sim.settle();
        }
        sim.log.clear();
        sim.fail = Some(what);
        if what == "meta" {
            sim.connect(3, false, &connect(false, "x", true, 0));
        }
        say(&mut sim, 1, "PUBLISH", &publish(false, "t", "lost", 1, 2));
        sim.settle();
        assert!(sim.halted.is_some());
        let acked = sim.clients[&regauge_runtimes::broker::effect::ConnId(1)].packets.contains(&Packet::Ack {
            first: PUBACK,
            id: 2,
            reason: 0,
        });
        assert!(!acked, "acknowledged what was not written");
        logs.push_str(&format!("== {what}\n{}", sim.log));
    }
    assert_snapshot!(logs);
}

#[test]
fn connects_that_are_refused() {
    let mut sim = Sim::new(Setup::default());
    let mut old = connect(false, "a", true, 0);
    old[8] = 3;
    let mut newer = connect(true, "a", true, 0);
    newer[8] = 6;
    let mut reserved = connect(true, "a", true, 0);
    reserved[9] |= 1;
    let cases: Vec<(bool, &str, Vec<u8>)> = vec![
        (false, "3.1.1 without id and without clean session", {
            let mut p = connect(false, "", true, 0);
            p[9] = 0;
            p
        }),
        (false, "protocol level 3", old),
        (true, "protocol level 6", newer),
        (true, "reserved flag", reserved),
        (false, "PINGREQ first", PINGREQ.to_vec()),
        (false, "another protocol", b"\x10\x0aGET / HTTP".to_vec()),
    ];
    for (conn, (v5, what, bytes)) in (1..).zip(cases) {
        sim.accept(conn, v5, 0);
        say(&mut sim, conn, what, &bytes);
    }
    assert_snapshot!(sim.log);
}
