//! From the bytes of an MQTT connection to spans: the eye of every recorder that watches the wire.
//!
//! Pure: no socket, no clock, no thread. A recorder feeds an [`Observer`] with what was read and when, and gets spans,
//! already redacted. However the bytes are split into chunks, the spans are the same. What is not MQTT (TLS, broken
//! framing, a connection joined in the middle) makes the connection *opaque*: the observer says so once and looks no
//! further, and the recorder passes the bytes on and counts the connection.
//!
//! Times follow one rule for both directions: a request starts when its first byte was read from its sender, and ends
//! when the last byte of its reply was handed to that sender's socket.
//!
//! Left out: AUTH exchanges (they lie inside the CONNECT's span), and WebSocket framing.

mod flight;
mod frame;
mod observer;
mod packet;
mod read;

#[cfg(test)]
mod tests;

pub use observer::{Chunk, Ending, Observer};

/// Who sent the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The side that opened the connection.
    Client,
    /// The side that accepted it.
    Broker,
}

/// Why bytes could not be read as MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The connection does not begin with an MQTT CONNECT.
    #[error("the connection does not open with an MQTT 3.1, 3.1.1 or 5 CONNECT")]
    NotMqtt,
    /// No packet may begin like this at this point.
    #[error("no packet may begin with byte {0:#04x} here")]
    Packet(u8),
    /// A remaining length of more than four bytes.
    #[error("a length does not end after four bytes")]
    Length,
    /// A field runs past its packet.
    #[error("a field runs past the end of its packet")]
    Short,
    /// Bytes after the last field.
    #[error("{0} bytes follow the last field of a packet")]
    Trailing(usize),
    /// A string that must be UTF-8 is not.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A SUBSCRIBE or UNSUBSCRIBE without a filter, or with an empty one.
    #[error("a subscription names no topic filter")]
    NoFilter,
    /// An unknown property of MQTT 5.
    #[error("there is no property {0:#04x}")]
    Property(u8),
    /// A control packet larger than anything that is gathered.
    #[error("a control packet of {0} bytes is more than an observer holds")]
    TooLong(usize),
}
