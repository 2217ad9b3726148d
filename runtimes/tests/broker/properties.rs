//! What holds for every input and every order of completions. [`crate::sim`] checks on the way that nothing is
//! acknowledged before it is durable.

use crate::clients::{Publisher, Subscriber};
use crate::packets::*;
use crate::sim::{Setup, Sim};
use proptest::prelude::*;
use regauge_runtimes::broker::Limits;
use regauge_runtimes::broker::effect::ConnId;
use regauge_runtimes::settings::Durability;

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        Just(Durability::None),
        Just(Durability::Fdatasync),
        Just(Durability::Every(3)),
        Just(Durability::OnSeal)
    ]
}

/// A stream of packets, most of them sensible, some damaged.
fn stream(v5: bool) -> impl Strategy<Value = Vec<u8>> {
    let topic = prop_oneof![Just("a"), Just("a/b"), Just("long/topic/name")];
    let publish = (topic, 0..3u8, 1..5u16, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(
        move |(topic, qos, id, retain, payload)| {
            Pub { topic, payload: &payload, qos, id, retain, ..Pub::default() }.bytes(v5)
        },
    );
    let packet = prop_oneof![
        6 => publish,
        2 => (1..5u16, 0..3u8).prop_map(move |(id, q)| subscribe(v5, id, &[("a/#", q), ("+", 1)], None)),
        1 => (1..5u16).prop_map(move |id| unsubscribe(v5, id, &["a/#", "x"])),
        2 => (1..5u16, prop_oneof![Just(PUBACK), Just(PUBREC), Just(PUBREL), Just(PUBCOMP)])
            .prop_map(|(id, first)| ack(first, id)),
        1 => Just(PINGREQ.to_vec()),
    ];
    let damaged = (packet.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut p, at, byte)| {
        let at = at.index(p.len());
        p[at] = byte;
        p
    });
    let noise = proptest::collection::vec(any::<u8>(), 0..30);
    let part = prop_oneof![30 => packet, 1 => damaged, 1 => noise];
    proptest::collection::vec(part, 0..25).prop_map(|parts| parts.concat())
}

/// What came of a stream: replies in order, pushes in order, what was appended, what another client saw of it (QoS 0 and
/// the others apart, since they are delivered at different times), and whether the connection was closed.
type Outcome = (Vec<String>, Vec<String>, Vec<Vec<u8>>, [Vec<String>; 2], bool);

fn outcome(v5: bool, bytes: &[u8], cuts: &[usize]) -> Outcome {
    let mut sim = Sim::new(Setup { partitions: 1, durability: Durability::None, ..Setup::default() });
    sim.connect(2, v5, &connect(v5, "observer", true, 0));
    sim.settle();
    sim.send(2, &subscribe(v5, 1, &[("#", 2)], None));
    sim.accept(1, v5, 0);
    let mut at = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        sim.send(1, &bytes[at..cut]);
        sim.settle();
        at = cut;
    }
    let client = &sim.clients[&ConnId(1)];
    // What the client is sent of its own messages depends on when they are written, which the chunks decide: a
    // subscription that stands in the same chunk as a publish may or may not be in force by then. So does what its
    // acknowledgements, which are part of the stream, are answered with.
    let is_pushed = |p: &&Packet| matches!(p, Packet::Pingresp | Packet::Ack { first: PUBCOMP, .. });
    let own = |p: &&Packet| matches!(p, Packet::Publish { .. } | Packet::Ack { first: PUBREL, .. });
    let is_reply = |p: &&Packet| !is_pushed(p) && !own(p);
    let text = |p: &Packet| p.to_string();
    let seen = |zero: bool| {
        let all = sim.clients[&ConnId(2)].packets.iter();
        all.filter(|p| matches!(p, Packet::Publish { qos, .. } if (*qos == 0) == zero)).map(text).collect()
    };
    (
        client.packets.iter().filter(is_reply).map(text).collect(),
        client.packets.iter().filter(is_pushed).map(text).collect(),
        sim.payloads(),
        [seen(true), seen(false)],
        client.closed,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_a_stream_gives_the_same(
        (v5, body) in any::<bool>().prop_flat_map(|v5| (Just(v5), stream(v5))),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        each in any::<bool>(),
    ) {
        let bytes = [connect(v5, "c", true, 0), body].concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len())).collect();
        if each {
            cuts = (1..bytes.len()).collect();
        }
        cuts.sort_unstable();
        prop_assert_eq!(outcome(v5, &bytes, &[]), outcome(v5, &bytes, &cuts));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        v5 in any::<bool>(),
        connected in any::<bool>(),
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..6),
    ) {
        let mut sim = Sim::new(Setup::default());
        sim.accept(1, v5, 0);
        if connected {
            sim.send(1, &connect(v5, "c", true, 0));
        }
        for chunk in chunks {
            sim.send(1, &chunk);
            sim.settle();
        }
    }

    #[test]
    fn acknowledgements_keep_their_order_and_wait(
        durability in durability(),
        shards in 1..4u16,
        segment_bytes in prop_oneof![Just(150u64), Just(1 << 20)],
        qos in proptest::collection::vec((1..3u8, 0..6usize), 1..40),
        choices in proptest::collection::vec(any::<u16>(), 0..400),
    ) {
        let mut sim = Sim::new(Setup { shards, partitions: 5, durability, segment_bytes, ..Setup::default() });
        for conn in 1..=2 {
            sim.connect(conn, false, &connect(false, &format!("p{conn}"), true, 0));
        }
        sim.settle();
        let topics = ["a", "b", "c", "d", "e", "f"];
        let mut script = qos.iter().enumerate();
        let mut choices = choices.into_iter();
        let mut expected = [Vec::new(), Vec::new()];
        loop {
            // Either the next publish, or any step that could be next.
            let choice = choices.next().map_or(0, usize::from);
            let steps = sim.choices();
            if steps == 0 || choice % (steps + 1) == steps {
                let Some((i, (qos, topic))) = script.next() else {
                    if steps == 0 { break } else { sim.step(0); continue };
                };
                let conn = i % 2;
                let id = i as u16 + 1;
                expected[conn].push((if *qos == 1 { PUBACK } else { PUBREC }, id));
                let payload = format!("payload {i}");
                let p = Pub { topic: topics[*topic], payload: payload.as_bytes(), qos: *qos, id, ..Pub::default() };
                sim.publish(conn as u64 + 1, &p);
            } else {
                sim.step(choice % steps);
            }
        }
        for (conn, expected) in (1u64..).zip(expected) {
            let acks: Vec<(u8, u16)> = sim.clients[&ConnId(conn)].packets.iter().filter_map(|p| match p {
                Packet::Ack { first, id, .. } => Some((*first, *id)),
                _ => None,
            }).collect();
            prop_assert_eq!(acks, expected);
        }
        prop_assert_eq!(sim.payloads().len(), qos.len());
    }

    #[test]
    fn qos2_arrives_exactly_once(
        shards in 1..4u16,
        window in prop_oneof![Just(1u16), Just(3), Just(100)],
        actions in proptest::collection::vec((0..10u8, any::<u16>()), 20..250),
    ) {
        const MESSAGES: usize = 12;
        let limits = Limits { inflight: window, ..Limits::default() };
        let mut sim = Sim::new(Setup { shards, partitions: 3, limits, ..Setup::default() });
        let mut publisher = Publisher::new(1, "t/x", MESSAGES);
        let mut subscriber = Subscriber::on(2);
        let mut conn = 2;
        sim.connect(1, false, &connect(false, "publisher", false, 0));
        sim.connect(2, false, &connect(false, "subscriber", false, 0));
        sim.settle();
        sim.send(2, &subscribe(false, 1, &[("t/#", 2)], None));
        sim.settle();
        for (action, choice) in actions {
            match action {
                0..=4 if sim.choices() > 0 => sim.step(usize::from(choice) % sim.choices()),
                5 | 6 => publisher.next(&mut sim),
                7 => subscriber.react(&mut sim),
                8 => publisher.react(&mut sim),
                9 => {
                    // A connection breaks, or is taken over; the client comes back at once. Not before its CONNACK: of
                    // two connections that move to their session at the same time the older may arrive last, and what
                    // it carries would then count as new.
                    let publishes = choice % 2 == 0;
                    let current = if publishes { publisher.conn } else { subscriber.conn };
                    if sim.clients[&ConnId(current)].packets.is_empty() {
                        continue;
                    }
                    conn += 1;
                    let client = if publishes { "publisher" } else { "subscriber" };
                    if choice % 3 == 0 {
                        sim.hang_up(current);
                    }
                    sim.connect(conn, false, &connect(false, client, false, 0));
                    if publishes {
                        publisher.moved_to(conn, &mut sim);
                    } else {
                        subscriber.moved_to(conn);
                    }
                }
                _ => {}
            }
        }
        // Now everything may come to its end.
        for _ in 0..20 * MESSAGES {
            publisher.next(&mut sim);
            sim.settle();
            subscriber.react(&mut sim);
            publisher.react(&mut sim);
        }
        prop_assert!(publisher.state.iter().all(|s| *s == 3), "{:?}", publisher.state);
        let mut got: Vec<&[u8]> = subscriber.got.iter().map(|g| g.1.as_slice()).collect();
        let mut stored = sim.payloads();
        let mut all: Vec<String> = (0..MESSAGES).map(|i| format!("m{i}")).collect();
        all.sort();
        got.sort();
        stored.sort();
        let all: Vec<&[u8]> = all.iter().map(String::as_bytes).collect();
        prop_assert_eq!(got, all.clone(), "delivered");
        prop_assert_eq!(stored.iter().map(Vec::as_slice).collect::<Vec<_>>(), all, "appended");
    }
}
