//! The parser of replies gives the same packets however the bytes are split, and never panics.

use proptest::prelude::*;
use regauge_replayer::drive::frames::{Ack, Frames, Incoming, Malformed};

fn parse(v5: bool, chunks: &[&[u8]]) -> Result<Vec<Incoming>, Malformed> {
    let mut frames = Frames::default();
    let mut out = Vec::new();
    for chunk in chunks {
        let mut input = *chunk;
        while let Some(incoming) = frames.next(v5, &mut input)? {
            out.push(incoming);
        }
        assert!(input.is_empty());
    }
    Ok(out)
}

/// A stream with one of everything, and what it says.
fn everything() -> (Vec<u8>, Vec<Incoming>) {
    let mut stream = vec![];
    let mut says = vec![];
    let mut add = |bytes: &[u8], incoming| {
        stream.extend(bytes);
        says.push(incoming);
    };
    // Session expiry, receive maximum 10, reason string "no", a user property.
    let properties =
        [&[0x11, 0, 0, 0, 9][..], &[0x1f, 0, 2, b'n', b'o'], &[0x26, 0, 1, b'k', 0, 1, b'v'], &[0x21, 0, 10]].concat();
    let mut connack = vec![0x20, 3 + properties.len() as u8, 1, 0, properties.len() as u8];
    connack.extend(properties);
    add(&connack, Incoming::Connack { status: 0, receive_max: 10 });
    add(&[0x40, 2, 0, 7], Incoming::Ack { ack: Ack::Puback, id: 7, status: 0 });
    add(&[0x40, 4, 0, 8, 0x97, 0], Incoming::Ack { ack: Ack::Puback, id: 8, status: 0x97 });
    add(&[0x50, 2, 1, 0], Incoming::Ack { ack: Ack::Pubrec, id: 256, status: 0 });
    add(&[0x62, 2, 1, 1], Incoming::Pubrel { id: 257 });
    add(&[0x70, 3, 1, 2, 0x92], Incoming::Ack { ack: Ack::Pubcomp, id: 258, status: 0x92 });
    add(&[0x90, 8, 0, 9, 3, 0x1f, 0, 0, 1, 0x87], Incoming::Ack { ack: Ack::Suback, id: 9, status: 0x87 });
    add(&[0xb0, 4, 0, 10, 0, 0x11], Incoming::Ack { ack: Ack::Unsuback, id: 10, status: 0 });
    add(&[0xd0, 0], Incoming::Pingresp);
    let mut delivery = vec![0x32, 0xb2, 0x02, 0, 3, b'a', b'/', b'b', 0x12, 0x34];
    delivery.resize(3 + 306, b'x');
    add(&delivery, Incoming::Delivery { qos: 1, id: 0x1234 });
    add(&[0x30, 3, 0, 1, b't'], Incoming::Delivery { qos: 0, id: 0 });
    add(&[0xe0, 2, 0x8b, 0], Incoming::Disconnect { status: 0x8b });
    (stream, says)
}

proptest! {
    #[test]
    fn any_split_says_the_same(cuts in prop::collection::vec(0_usize..400, 0..40)) {
        let (stream, says) = everything();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.push(0);
        cuts.push(stream.len());
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        prop_assert_eq!(parse(true, &chunks).unwrap(), says);
    }

    #[test]
    fn any_bytes_are_harmless(v5: bool, bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
        let (a, b) = bytes.split_at(cut.min(bytes.len()));
        let whole = parse(v5, &[&bytes]);
        let split = parse(v5, &[a, b]);
        prop_assert_eq!(whole, split);
    }
}

#[test]
fn what_no_broker_sends_is_refused() {
    for bytes in [
        &[0x10, 2, 0, 0][..],            // CONNECT
        &[0x00, 0],                      // no such packet
        &[0x36, 5, 0, 1, b't', 0, 1],    // QoS 3
        &[0x30, 1, 0],                   // PUBLISH without a topic
        &[0x40, 1, 0],                   // half a packet id
        &[0xd0, 0xff, 0xff, 0xff, 0xff], // a length without end
        &[0x20, 6, 0, 0, 3, 0x21, 0, 0], // receive maximum 0
    ] {
        assert_eq!(parse(true, &[bytes]), Err(Malformed { first: bytes[0] }), "{bytes:02x?}");
    }
    // MQTT 3.1.1 brokers close without a word.
    assert!(parse(false, &[&[0xe0, 0]]).is_err());
}
