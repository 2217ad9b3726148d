//! Framing: where a packet ends.

use super::Fault;

/// What stands at the front of a byte stream.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::broker) enum Frame<'a> {
    /// A whole packet.
    Whole {
        /// Its first byte: type and flags.
        first: u8,
        /// Everything behind the remaining length.
        body: &'a [u8],
        /// What follows the packet.
        rest: &'a [u8],
    },
    /// More bytes are needed; in all, when the header says it.
    Incomplete {
        /// Bytes of the whole packet.
        total: Option<usize>,
    },
    /// It can never become a packet that is accepted.
    Bad(Fault),
}

/// Packet types that a client may send, with the flags that they must carry (PUBLISH: any).
fn flags_allowed(first: u8) -> bool {
    match first >> 4 {
        3 => true,
        6 | 8 | 10 => first & 15 == 2,
        0 => false,
        _ => first & 15 == 0,
    }
}

/// Looks at the front of `bytes`. Packets of more than `limit` bytes in all are refused as soon as their length is
/// known, before any of their body is kept.
pub(in crate::broker) fn next(bytes: &[u8], limit: u32) -> Frame<'_> {
    let Some((&first, after)) = bytes.split_first() else { return Frame::Incomplete { total: None } };
    if !flags_allowed(first) {
        return Frame::Bad(Fault::MALFORMED);
    }
    let Some((len, used)) = super::take_varint(after) else {
        return if after.len() >= 4 { Frame::Bad(Fault::MALFORMED) } else { Frame::Incomplete { total: None } };
    };
    let total = 1 + used + len as usize;
    if total > limit as usize {
        return Frame::Bad(Fault::TOO_LARGE);
    }
    match after[used..].split_at_checked(len as usize) {
        Some((body, rest)) => Frame::Whole { first, body, rest },
        None => Frame::Incomplete { total: Some(total) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_limits() {
        assert_eq!(next(&[], 100), Frame::Incomplete { total: None });
        assert_eq!(next(&[0xc0, 0, 7], 100), Frame::Whole { first: 0xc0, body: &[], rest: &[7] });
        assert_eq!(next(&[0x30, 0x80], 100), Frame::Incomplete { total: None });
        assert_eq!(next(&[0x30, 0x80, 0x01], 1000), Frame::Incomplete { total: Some(131) });
        assert_eq!(next(&[0x30, 0x80, 0x01], 130), Frame::Bad(Fault::TOO_LARGE));
        assert_eq!(next(&[0x30, 0xff, 0xff, 0xff, 0xff], u32::MAX), Frame::Bad(Fault::MALFORMED));
        assert_eq!(next(&[0x82], 100), Frame::Incomplete { total: None });
        assert_eq!(next(&[0x80], 100), Frame::Bad(Fault::MALFORMED));
        assert_eq!(next(&[0x00], 100), Frame::Bad(Fault::MALFORMED));
    }
}
