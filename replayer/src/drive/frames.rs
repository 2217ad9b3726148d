//! What the broker says, as the driver needs it: replies, deliveries, and nothing else.
//!
//! [`Frames`] cuts a connection's byte stream into packets, however it was split into reads. Payloads are stepped over
//! without being gathered, so that a delivery of a megabyte costs what its head costs; the little that has to be
//! gathered lands in a buffer that is kept, so that the parser allocates nothing while a run is on.
//!
//! It is not a full decoder: it reads what decides whether a reply is right (type, packet id, reason code) and what
//! the driver must obey (receive maximum). Left out: topics, payloads and all other properties.

/// Longer replies than this are not gathered: no broker answers with a kilobyte, and a broken length must not become
/// an allocation, bytes.
const GATHERED_BYTES_MAX: usize = 1 << 20;

/// A packet from the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// CONNACK.
    Connack {
        /// Reason code, or 3.1.1 return code.
        status: u8,
        /// How many QoS 1 and 2 publishes may be in flight (MQTT 5 receive maximum; 65535 unless told).
        receive_max: u16,
    },
    /// PUBACK, PUBREC, PUBCOMP, SUBACK or UNSUBACK.
    Ack {
        /// Which of them.
        ack: Ack,
        /// Packet identifier.
        id: u16,
        /// Reason code; of a list of codes the first refusal, or 0.
        status: u8,
    },
    /// PINGRESP.
    Pingresp,
    /// A PUBLISH to us, complete.
    Delivery {
        /// 0, 1 or 2.
        qos: u8,
        /// Packet identifier; 0 at QoS 0.
        id: u16,
    },
    /// PUBREL: the third packet of a delivery at QoS 2.
    Pubrel {
        /// Packet identifier.
        id: u16,
    },
    /// The broker ends the connection (MQTT 5).
    Disconnect {
        /// Reason code.
        status: u8,
    },
}

/// Which acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// PUBACK.
    Puback,
    /// PUBREC.
    Pubrec,
    /// PUBCOMP.
    Pubcomp,
    /// SUBACK.
    Suback,
    /// UNSUBACK.
    Unsuback,
}

/// The broker sent something that is no MQTT, or that no broker may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent bytes that are not MQTT from a broker (first byte of the packet {first:#04x})")]
pub struct Malformed {
    /// First byte of the packet.
    pub first: u8,
}

/// The state of one connection's stream.
#[derive(Debug, Default)]
pub struct Frames {
    /// Bytes of a packet's head that came before the rest of it.
    gathered: Vec<u8>,
    /// Bytes of a payload that are still to come.
    skip: usize,
    /// What to report when they are there.
    after_skip: Option<Incoming>,
}

/// What the next bytes are.
enum Step {
    /// At least so many bytes are needed to tell.
    Need(usize),
    /// A packet whose relevant part is `used` bytes; `skip` more follow before it is complete.
    Packet { used: usize, skip: usize, incoming: Incoming },
}

impl Frames {
    /// The next packet that `input` completes; takes what it has read off the front of `input`. `None` when all of
    /// `input` was taken.
    ///
    /// # Errors
    /// If the bytes are not MQTT from a broker; the connection is then of no more use.
    pub fn next(&mut self, v5: bool, input: &mut &[u8]) -> Result<Option<Incoming>, Malformed> {
        loop {
            if self.skip > 0 {
                let skipped = self.skip.min(input.len());
                *input = &input[skipped..];
                self.skip -= skipped;
                if self.skip > 0 {
                    return Ok(None);
                }
            }
            if let Some(incoming) = self.after_skip.take() {
                return Ok(Some(incoming));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let step = if self.gathered.is_empty() {
                let step = step(v5, input)?;
                match step {
                    Step::Packet { used, .. } => *input = &input[used..],
                    Step::Need(_) => {
                        self.gathered.extend_from_slice(input);
                        *input = &[];
                        return Ok(None);
                    }
                }
                step
            } else {
                match step(v5, &self.gathered)? {
                    Step::Need(needed) => {
                        let (more, rest) = input.split_at((needed - self.gathered.len()).min(input.len()));
                        self.gathered.extend_from_slice(more);
                        *input = rest;
                        match step(v5, &self.gathered)? {
                            Step::Need(_) => continue,
                            packet => {
                                self.gathered.clear();
                                packet
                            }
                        }
                    }
                    packet => {
                        self.gathered.clear();
                        packet
                    }
                }
            };
            if let Step::Packet { skip, incoming, .. } = step {
                self.skip = skip;
                self.after_skip = Some(incoming);
            }
        }
    }
}

/// A variable byte integer at `at`: its value and the offset behind it. `Ok(None)` when bytes are missing.
fn varint(bytes: &[u8], at: usize) -> Result<Option<(usize, usize)>, ()> {
    let mut value = 0;
    for (index, byte) in bytes.iter().skip(at).take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + index + 1)));
        }
    }
    if bytes.len() >= at + 4 { Err(()) } else { Ok(None) }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Looks at the packet that opens `bytes`, which is not empty.
fn step(v5: bool, bytes: &[u8]) -> Result<Step, Malformed> {
    let first = bytes[0];
    let malformed = Malformed { first };
    let Some((remaining, body_at)) = varint(bytes, 1).map_err(|()| malformed)? else {
        return Ok(Step::Need(bytes.len() + 1));
    };
    if first >> 4 == 3 {
        return delivery(bytes, body_at, remaining);
    }
    if remaining > GATHERED_BYTES_MAX {
        return Err(malformed);
    }
    let used = body_at + remaining;
    let Some(body) = bytes.get(body_at..used) else { return Ok(Step::Need(used)) };
    let incoming = reply(v5, first, body).ok_or(malformed)?;
    Ok(Step::Packet { used, skip: 0, incoming })
}

/// A PUBLISH: only its packet id has to be there.
fn delivery(bytes: &[u8], body_at: usize, remaining: usize) -> Result<Step, Malformed> {
    let malformed = Malformed { first: bytes[0] };
    let qos = bytes[0] >> 1 & 3;
    if remaining < 2 {
        return Err(malformed);
    }
    let Some(topic_bytes) = u16_at(bytes, body_at).map(usize::from) else { return Ok(Step::Need(body_at + 2)) };
    let id_at = 2 + topic_bytes;
    let head = id_at + if qos > 0 { 2 } else { 0 };
    if qos == 3 || head > remaining {
        return Err(malformed);
    }
    if qos == 0 {
        // Nothing behind the length of the topic is of interest.
        let incoming = Incoming::Delivery { qos, id: 0 };
        return Ok(Step::Packet { used: body_at + 2, skip: remaining - 2, incoming });
    }
    let Some(id) = u16_at(bytes, body_at + id_at) else { return Ok(Step::Need(body_at + head)) };
    Ok(Step::Packet { used: body_at + head, skip: remaining - head, incoming: Incoming::Delivery { qos, id } })
}

/// A complete packet other than PUBLISH; `None` when it is not one that a broker sends.
fn reply(v5: bool, first: u8, body: &[u8]) -> Option<Incoming> {
    let ack = |ack| {
        let status = body.get(2).copied().unwrap_or(0);
        Some(Incoming::Ack { ack, id: u16_at(body, 0)?, status })
    };
    match first {
        0x20 => {
            let status = *body.get(1)?;
            let receive_max = if v5 { receive_max(body.get(2..)?)? } else { u16::MAX };
            Some(Incoming::Connack { status, receive_max })
        }
        0x40 => ack(Ack::Puback),
        0x50 => ack(Ack::Pubrec),
        0x62 => Some(Incoming::Pubrel { id: u16_at(body, 0)? }),
        0x70 => ack(Ack::Pubcomp),
        0x90 => list(v5, Ack::Suback, body),
        0xb0 => list(v5, Ack::Unsuback, body),
        0xd0 => Some(Incoming::Pingresp),
        0xe0 if v5 => Some(Incoming::Disconnect { status: body.first().copied().unwrap_or(0) }),
        _ => None,
    }
}

/// SUBACK or UNSUBACK: the reason codes stand behind the properties.
fn list(v5: bool, ack: Ack, body: &[u8]) -> Option<Incoming> {
    let id = u16_at(body, 0)?;
    let codes_at = if v5 {
        let (properties, at) = varint(body, 2).ok()??;
        at + properties
    } else {
        2
    };
    let status = body.get(codes_at..)?.iter().copied().find(|code| *code >= 0x80).unwrap_or(0);
    Some(Incoming::Ack { ack, id, status })
}

/// Receive maximum among the properties of a CONNACK (MQTT 5, 3.2.2.3); 65535 when it is not there.
fn receive_max(block: &[u8]) -> Option<u16> {
    if block.is_empty() {
        return Some(u16::MAX);
    }
    let (bytes, mut at) = varint(block, 0).ok()??;
    let end = at + bytes;
    while at < end {
        // Widths of the values that a CONNACK may carry.
        at = match *block.get(at)? {
            // Zero is a protocol error, and would block the connection for good.
            0x21 => return u16_at(block, at + 1).filter(|max| *max > 0),
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => at + 2,
            0x13 | 0x22 => at + 3,
            0x11 | 0x27 => at + 5,
            0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => at + 3 + usize::from(u16_at(block, at + 1)?),
            0x26 => {
                let value = at + 3 + usize::from(u16_at(block, at + 1)?);
                value + 2 + usize::from(u16_at(block, value)?)
            }
            _ => return None,
        };
    }
    Some(u16::MAX)
}
