//! Cuts one direction of a connection into packets, however the bytes were split on the way.
//!
//! A packet that lies whole in the chunk is read in place. Only the *head* of a packet (all of a control packet, but of
//! a PUBLISH only what stands before its payload) is ever gathered across chunks, and only when a chunk ends inside it;
//! a payload is counted and stepped over, whatever its size.

use super::Malformed;
use super::packet::{self, Packet, Rules};
use super::read::{Varint, varint};

/// The longest head that is gathered, bytes. The longest legal CONNECT of MQTT 3.1.1 has 327,699 (five fields of 64 KiB
/// and their lengths); what is longer than this makes the connection opaque instead of filling the memory.
pub(super) const HEAD_BYTES_MAX: usize = 512 * 1024;

/// A packet that has arrived whole.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) packet: Packet,
    /// When the chunk with the packet's first byte was read.
    pub(super) start_ns: u64,
    /// The whole packet, fixed header included.
    pub(super) bytes: u64,
}

/// The state of one direction between two chunks.
#[derive(Debug, Default)]
pub(super) struct Framer {
    /// The gathered beginning of a head that a chunk's end cut.
    head: Vec<u8>,
    start_ns: u64,
    /// A packet whose head was read, and the bytes that are still to be stepped over.
    skipping: Option<(Frame, usize)>,
}

/// How far a packet's head reaches.
enum Extent {
    /// Not decidable before this many bytes.
    Need(usize),
    Head {
        fixed: usize,
        head: usize,
        total: usize,
    },
}

impl Framer {
    /// Consumes `input` up to the end of the next whole packet and returns it, or `None` when the input is used up.
    pub(super) fn next(
        &mut self,
        input: &mut &[u8],
        read_ns: u64,
        rules: &Rules<'_>,
    ) -> Result<Option<Frame>, Malformed> {
        loop {
            if let Some((_, left)) = &mut self.skipping {
                let n = advance(input, *left);
                *left -= n;
                if *left > 0 {
                    return Ok(None);
                }
                return Ok(self.skipping.take().map(|(frame, _)| frame));
            }
            let in_place = self.head.is_empty();
            if in_place {
                if input.is_empty() {
                    return Ok(None);
                }
                self.start_ns = read_ns;
            }
            let view: &[u8] = if in_place { input } else { &self.head };
            match extent(view, rules)? {
                Extent::Need(n) => {
                    let wanted = n.saturating_sub(self.head.len()).min(input.len());
                    let (taken, rest) = input.split_at(wanted);
                    if taken.is_empty() {
                        return Ok(None);
                    }
                    self.head.extend_from_slice(taken);
                    *input = rest;
                }
                Extent::Head { fixed, head, total } => {
                    let (Some(&first), Some(body)) = (view.first(), view.get(fixed..head)) else {
                        return Err(Malformed::Short);
                    };
                    let packet = packet::read(first, body, rules)?;
                    let frame = Frame { packet, start_ns: self.start_ns, bytes: total as u64 };
                    if in_place {
                        advance(input, head);
                    } else {
                        self.head = Vec::new();
                    }
                    self.skipping = Some((frame, total - head));
                }
            }
        }
    }
}

fn advance(input: &mut &[u8], n: usize) -> usize {
    let n = n.min(input.len());
    *input = input.get(n..).unwrap_or_default();
    n
}

/// Finds the end of the head of the packet that begins `view`.
fn extent(view: &[u8], rules: &Rules<'_>) -> Result<Extent, Malformed> {
    let Some(&first) = view.first() else {
        return Ok(Extent::Need(1));
    };
    packet::check_first(first, rules)?;
    let (remaining, fixed) = match varint(view.get(1..).unwrap_or_default())? {
        Varint::More(n) => return Ok(Extent::Need(1 + n)),
        Varint::Value { value, len } => (value, 1 + len),
    };
    let total = fixed + remaining;
    let head = if packet::is_publish(first) {
        match publish_head(view, first, fixed, rules.v5)? {
            Extent::Need(n) if n > total => return Err(Malformed::Short),
            Extent::Need(n) => return Ok(Extent::Need(n)),
            Extent::Head { head, .. } => head,
        }
    } else {
        total
    };
    if head > total {
        return Err(Malformed::Short);
    }
    if head > HEAD_BYTES_MAX {
        return Err(Malformed::TooLong(head));
    }
    if view.len() < head {
        return Ok(Extent::Need(head));
    }
    Ok(Extent::Head { fixed, head, total })
}

/// The head of a PUBLISH: topic, packet id where the QoS has one, and the properties of MQTT 5.
fn publish_head(view: &[u8], first: u8, fixed: usize, v5: bool) -> Result<Extent, Malformed> {
    let Some(&[high, low]) = view.get(fixed..fixed + 2) else {
        return Ok(Extent::Need(fixed + 2));
    };
    let topic = usize::from(u16::from_be_bytes([high, low]));
    let id = if packet::publish_qos(first) > 0 { 2 } else { 0 };
    let mut head = fixed + 2 + topic + id;
    if v5 {
        match varint(view.get(head..).unwrap_or_default())? {
            Varint::More(n) => return Ok(Extent::Need(head + n)),
            Varint::Value { value, len } => head += len + value,
        }
    }
    Ok(Extent::Head { fixed, head, total: head })
}
