//! A cursor over the body of one MQTT packet that borrows and never copies.
//!
//! It exists so that a secret (password, will payload) is stepped over where it lies in the receive buffer: skipping a
//! field costs a bounds check and leaves nothing behind. Every method fails on a field that runs past the packet; none
//! can panic.

use super::Malformed;

/// The unread rest of a packet's body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.rest.split_first().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        let (&bytes, rest) = self.rest.split_first_chunk::<2>().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(bytes))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        let (&bytes, rest) = self.rest.split_first_chunk::<4>().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(bytes))
    }

    /// Binary data or a string: two bytes of length, then the bytes.
    pub(super) fn block(&mut self) -> Result<&'a [u8], Malformed> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }

    /// A string that must be UTF-8, as every topic, filter and client id is.
    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.block()?).map_err(|_| Malformed::NotUtf8)
    }

    /// A variable byte integer (MQTT 5, section 1.5.5).
    pub(super) fn varint(&mut self) -> Result<usize, Malformed> {
        match varint(self.rest)? {
            Varint::Value { value, len } => {
                self.take(len)?;
                Ok(value)
            }
            Varint::More(_) => Err(Malformed::Short),
        }
    }

    /// The property block of an MQTT 5 packet, as a reader of its own.
    pub(super) fn properties(&mut self) -> Result<Properties<'a>, Malformed> {
        let n = self.varint()?;
        Ok(Properties { rest: Reader::new(self.take(n)?) })
    }
}

/// What the beginning of a byte string says about a variable byte integer.
pub(super) enum Varint {
    Value {
        value: usize,
        len: usize,
    },
    /// At least this many bytes are needed to go on.
    More(usize),
}

/// Reads a variable byte integer from the beginning of `bytes`.
pub(super) fn varint(bytes: &[u8]) -> Result<Varint, Malformed> {
    let mut value = 0usize;
    for i in 0..4 {
        let Some(&byte) = bytes.get(i) else {
            return Ok(Varint::More(i + 1));
        };
        value |= usize::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Varint::Value { value, len: i + 1 });
        }
    }
    Err(Malformed::Length)
}

/// Numbers of the properties that a trace needs (MQTT 5, section 2.2.2.2).
pub(super) mod property {
    pub(in super::super) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub(in super::super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(in super::super) const TOPIC_ALIAS: u8 = 0x23;
}

/// The value of a property, as far as a trace can need it.
pub(super) enum Value<'a> {
    Number(u32),
    Block(&'a [u8]),
}

/// A walk over a property block.
pub(super) struct Properties<'a> {
    rest: Reader<'a>,
}

impl<'a> Properties<'a> {
    /// The next property with its number, or `None` at the end of the block.
    pub(super) fn next(&mut self) -> Result<Option<(u8, Value<'a>)>, Malformed> {
        let r = &mut self.rest;
        if r.is_empty() {
            return Ok(None);
        }
        let id = r.u8()?;
        let value = match id {
            // one byte
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => Value::Number(u32::from(r.u8()?)),
            // two bytes
            0x13 | 0x21 | 0x22 | 0x23 => Value::Number(u32::from(r.u16()?)),
            // four bytes
            0x02 | 0x11 | 0x18 | 0x27 => Value::Number(r.u32()?),
            // variable byte integer: at most 28 bits
            0x0B => Value::Number(r.varint()? as u32),
            // string or binary data
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => Value::Block(r.block()?),
            // user property: two strings
            0x26 => {
                r.block()?;
                Value::Block(r.block()?)
            }
            other => return Err(Malformed::Property(other)),
        };
        Ok(Some((id, value)))
    }

    /// The first property with this number; checks the whole block on the way.
    pub(super) fn find(mut self, wanted: u8) -> Result<Option<Value<'a>>, Malformed> {
        let mut found = None;
        while let Some((id, value)) = self.next()? {
            if id == wanted && found.is_none() {
                found = Some(value);
            }
        }
        Ok(found)
    }
}
