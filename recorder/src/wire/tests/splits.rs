//! However a conversation is cut into chunks, the spans are the same.

use super::packets::{self as p, Message};
use super::*;
use proptest::prelude::*;

/// A piece of conversation: what is sent, by whom.
type Exchange = Vec<(Side, Vec<u8>)>;

fn publish_exchange(v5: bool) -> impl Strategy<Value = Exchange> {
    let payload = prop::collection::vec(any::<u8>(), 0..600);
    (0u8..3, 1u16..4, any::<bool>(), any::<bool>(), any::<bool>(), payload, 0u16..3).prop_map(
        move |(qos, id, retain, by_broker, answered, payload, alias)| {
            let alias = (v5 && alias > 0).then_some(alias);
            let message = Message { retain, alias, payload: &payload, ..Message::new(v5, qos, id) };
            let (sender, receiver) =
                if by_broker { (Side::Broker, Side::Client) } else { (Side::Client, Side::Broker) };
            let mut exchange = vec![(sender, message.packet())];
            match (answered, qos) {
                (true, 1) => exchange.push((receiver, p::puback(v5, id))),
                (true, 2) => {
                    exchange.push((receiver, p::pubrec(v5, id)));
                    exchange.push((sender, p::pubrel(v5, id)));
                    exchange.push((receiver, p::pubcomp(v5, id)));
                }
                _ => {}
            }
            exchange
        },
    )
}

fn exchange(v5: bool) -> impl Strategy<Value = Exchange> {
    let filter = "[a-z]{1,8}(/[a-z+]{1,5}){0,3}";
    prop_oneof![
        6 => publish_exchange(v5),
        1 => (1u16..4, filter).prop_map(move |(id, filter)| vec![
            (Side::Client, p::subscribe(v5, id, &[(&filter.replace('+', "x"), 1)])),
            (Side::Broker, p::suback(v5, id)),
        ]),
        1 => (1u16..4).prop_map(move |id| vec![
            (Side::Client, p::unsubscribe(v5, id, &["a/#"])),
            (Side::Broker, p::unsuback(v5, id)),
        ]),
        1 => Just(vec![(Side::Client, p::PINGREQ.to_vec()), (Side::Broker, p::PINGRESP.to_vec())]),
    ]
}

fn conversation() -> impl Strategy<Value = Exchange> {
    any::<bool>().prop_flat_map(|v5| {
        prop::collection::vec(exchange(v5), 0..12).prop_map(move |exchanges| {
            let mut all = vec![
                (Side::Client, p::connect_with_secrets(v5, "meter-1", "w/t")),
                (Side::Broker, p::connack(v5, false)),
            ];
            all.extend(exchanges.into_iter().flatten());
            all
        })
    })
}

/// The conversation as runs: what one side sends without the other in between.
fn runs(conversation: &Exchange) -> Exchange {
    let mut runs: Exchange = Vec::new();
    for (side, bytes) in conversation {
        match runs.last_mut() {
            Some((last, run)) if last == side => run.extend_from_slice(bytes),
            _ => runs.push((*side, bytes.clone())),
        }
    }
    runs
}

/// Observes chunks that all have the same times, so that only the cutting differs.
fn observe<'a>(chunks: impl IntoIterator<Item = (Side, &'a [u8])>) -> Vec<Span> {
    let (mut observer, redactor, mut spans) = (Observer::new(CONNECTION, 0), redactor(), Vec::new());
    for (from, bytes) in chunks {
        let chunk = Chunk { from, bytes, read_ns: 5, written_ns: 9 };
        observer.observe(chunk, &redactor, &mut |span| spans.push(span)).unwrap();
    }
    observer.finish(Ending::Closed, 20, &mut |span| spans.push(span));
    spans
}

proptest! {
    #[test]
    fn any_split_gives_the_same_spans(
        conversation in conversation(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let runs = runs(&conversation);
        let whole = observe(runs.iter().map(|(side, bytes)| (*side, bytes.as_slice())));
        prop_assert!(!whole.is_empty());

        let single = observe(runs.iter().flat_map(|(side, bytes)| bytes.chunks(1).map(|byte| (*side, byte))));
        prop_assert_eq!(&whole, &single);

        let cut_runs = runs.iter().flat_map(|(side, bytes)| {
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            ends.extend([0, bytes.len()]);
            ends.sort_unstable();
            let chunks: Vec<(Side, &[u8])> = ends.windows(2).map(|w| (*side, &bytes[w[0]..w[1]])).collect();
            chunks
        });
        prop_assert_eq!(&whole, &observe(cut_runs));
    }
}
