//! Several shards give the same replies as one, whatever the delays between them and of their disks.

use crate::clients::Subscriber;
use crate::packets::*;
use crate::sim::{Setup, Sim};
use proptest::prelude::*;
use regauge_runtimes::broker::effect::ConnId;
use std::collections::BTreeMap;

const PUBLISHERS: u64 = 3;
const SUBSCRIBERS: u64 = 3;

/// What the clients saw: replies per client in order, and per subscriber, topic and QoS *of the publish* the payloads in
/// order (MQTT 4.6 promises no order across QoS levels).
type Seen = (Vec<Vec<String>>, BTreeMap<(u64, String, u8), Vec<Vec<u8>>>);

fn is_v5(conn: u64) -> bool {
    conn.is_multiple_of(2)
}

/// Runs a workload. `pick` chooses among the steps that could be next; `None` ends the choosing, then the oldest goes
/// first. Phases end when all is done, so that what must be the same is the same: subscribed before published, published
/// before the late subscriber comes.
fn run(
    shards: u16,
    publishes: &[(u64, usize, u8, bool)],
    pick: &mut dyn FnMut(usize) -> Option<usize>,
) -> (Seen, String) {
    let mut sim = Sim::new(Setup { shards, partitions: 4, ..Setup::default() });
    let filters = [vec![("t/#", 2)], vec![("t/+", 0), ("t/1", 1)], vec![("#", 1)]];
    let mut subscribers: Vec<Subscriber> = (1..=SUBSCRIBERS).map(|s| Subscriber::on(PUBLISHERS + s)).collect();
    let late = PUBLISHERS + SUBSCRIBERS + 1;
    let drive =
        |sim: &mut Sim, subscribers: &mut [Subscriber], pick: &mut dyn FnMut(usize) -> Option<usize>, all: bool| {
            loop {
                let steps = sim.choices();
                let choice = if steps == 0 { None } else { pick(steps + usize::from(!all)) };
                match choice {
                    Some(c) if c < steps => sim.step(c),
                    Some(_) => return,
                    None if all && steps > 0 => sim.step(0),
                    None => return,
                }
                for s in subscribers.iter_mut() {
                    s.react(sim);
                }
            }
        };
    // Clients connect to shards round robin, wherever their sessions live.
    for conn in 1..=PUBLISHERS + SUBSCRIBERS {
        sim.connect(conn, is_v5(conn), &connect(is_v5(conn), &format!("client-{conn}"), true, 0));
    }
    for (s, filters) in (1..).zip(&filters) {
        let conn = PUBLISHERS + s;
        sim.send(conn, &subscribe(is_v5(conn), 1, filters, None));
    }
    drive(&mut sim, &mut subscribers, pick, true);
    for (i, (publisher, topic, qos, retain)) in publishes.iter().enumerate() {
        // Each topic has one publisher, so that what is retained in the end does not depend on a race.
        let topic = format!("t/{}", topic * PUBLISHERS as usize + *publisher as usize);
        let payload = format!("{i}");
        let p = Pub {
            topic: &topic,
            payload: payload.as_bytes(),
            qos: *qos,
            id: i as u16 + 1,
            retain: *retain,
            ..Pub::default()
        };
        sim.publish(publisher + 1, &p);
        if *qos == 2 {
            sim.send(publisher + 1, &ack(PUBREL, i as u16 + 1));
        }
        drive(&mut sim, &mut subscribers, pick, false);
    }
    drive(&mut sim, &mut subscribers, pick, true);
    sim.connect(late, false, &connect(false, "late", true, 0));
    sim.send(late, &subscribe(false, 1, &[("#", 1)], None));
    subscribers.push(Subscriber::on(late));
    drive(&mut sim, &mut subscribers, pick, true);
    for s in &mut subscribers {
        s.react(&mut sim);
    }
    sim.settle();
    let replies = (1..=late).map(|conn| {
        // PUBCOMP overtakes what waits (it is sent at once), so it is compared by itself.
        let all = &sim.clients[&ConnId(conn)].packets;
        let is_reply = |p: &&Packet| !matches!(p, Packet::Publish { .. } | Packet::Ack { first: PUBREL | PUBCOMP, .. });
        let completed = |p: &&Packet| matches!(p, Packet::Ack { first: PUBCOMP, .. });
        all.iter().filter(is_reply).chain(all.iter().filter(completed)).map(ToString::to_string).collect()
    });
    let replies = replies.collect();
    let mut delivered: BTreeMap<(u64, String, u8), Vec<Vec<u8>>> = BTreeMap::new();
    for s in &subscribers {
        for (topic, payload, _) in &s.got {
            let i: usize = std::str::from_utf8(payload).unwrap().parse().unwrap();
            delivered.entry((s.conn, topic.clone(), publishes[i].2)).or_default().push(payload.clone());
        }
    }
    ((replies, delivered), sim.log)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn many_shards_reply_as_one(
        shards in 2..5u16,
        publishes in proptest::collection::vec((0..PUBLISHERS, 0..3usize, 0..3u8, any::<bool>()), 0..30),
        choices in proptest::collection::vec(any::<u16>(), 0..600),
    ) {
        let (one, _) = run(1, &publishes, &mut |_| None);
        let many = || {
            let mut choices = choices.iter();
            run(shards, &publishes, &mut |n| choices.next().map(|c| usize::from(*c) % n))
        };
        let (seen, effects) = many();
        prop_assert_eq!(one, seen);
        // And again: the same inputs give the same effects, word for word. (Every hash map has another seed now.)
        prop_assert_eq!(effects, many().1);
    }
}

#[test]
fn a_publish_after_suback_is_always_seen() {
    // The publisher's shard must not be ahead of the subscriber's: SUBACK waits for it, however slow the wire is.
    for shards in 2..6 {
        let mut sim = Sim::new(Setup { shards, partitions: 8, ..Setup::default() });
        sim.connect(1, false, &connect(false, "publisher", true, 0));
        sim.connect(2, false, &connect(false, "subscriber", true, 0));
        sim.settle();
        sim.send(2, &subscribe(false, 1, &[("#", 0)], None));
        let is_subscribed =
            |sim: &Sim| sim.clients[&ConnId(2)].packets.iter().any(|p| matches!(p, Packet::Suback { .. }));
        assert!(!is_subscribed(&sim), "before the other shards have answered");
        while !is_subscribed(&sim) {
            // The newest step first: wires are served unfairly.
            sim.step(sim.choices() - 1);
        }
        for topic in ["a", "b", "c", "d", "e"] {
            sim.send(1, &publish(false, topic, "x", 0, 0));
        }
        sim.settle();
        let got = sim.clients[&ConnId(2)].packets.iter().filter(|p| matches!(p, Packet::Publish { .. })).count();
        assert_eq!(got, 5, "{shards} shards");
    }
}

#[test]
fn a_connection_moves_to_its_session() {
    let mut sim = Sim::new(Setup { shards: 4, ..Setup::default() });
    let packet = connect(false, "somebody", true, 0);
    let home = regauge_runtimes::broker::shard_of_client("somebody", 4);
    for at in 0..4 {
        let conn = u64::from(at) + 1;
        sim.accept(conn, false, at);
        // In pieces, and more behind it, some of it while the connection moves.
        sim.send(conn, &packet[..5]);
        sim.send(conn, &[&packet[5..], &PINGREQ[..]].concat());
        sim.send(conn, &PINGREQ);
        sim.settle();
        let packets = &sim.clients[&ConnId(conn)].packets;
        assert_eq!(packets.len(), 3, "shard {at} of 4, home {home}: {packets:?}");
    }
}
