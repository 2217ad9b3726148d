//! What is to be sent to one connection, gathered within one input.
//!
//! Packets that may leave together become one piece of bytes: a shell pays per effect, not per packet.

use super::effect::{ConnId, Effect, OpId};
use bytes::{Bytes, BytesMut};

/// Room that is made at once, bytes: some sixty acknowledgements.
const CHUNK_BYTES: usize = 256;

/// Gathers replies (in order, each behind its operation) and pushes.
#[derive(Debug, Default)]
pub(super) struct Output {
    replies: BytesMut,
    after: Option<OpId>,
    pushes: BytesMut,
    /// Whether the broker has this connection on its list of those to flush.
    pub listed: bool,
}

impl Output {
    /// Where to write a reply that waits for `after`. What was written for another operation is emitted first.
    pub fn reply(&mut self, conn: ConnId, after: Option<OpId>, fx: &mut Vec<Effect>) -> &mut BytesMut {
        if self.after != after {
            self.emit_replies(conn, fx);
            self.after = after;
        }
        room(&mut self.replies)
    }

    /// Where to write what is sent at once.
    pub fn push(&mut self) -> &mut BytesMut {
        room(&mut self.pushes)
    }

    /// Sends a packet that is shared with other connections, without copying it.
    pub fn push_shared(&mut self, conn: ConnId, bytes: Bytes, fx: &mut Vec<Effect>) {
        self.flush(conn, fx);
        fx.push(Effect::Push { conn, bytes });
    }

    /// Emits everything. Replies stand first: a CONNACK goes before what is delivered on the strength of it.
    pub fn flush(&mut self, conn: ConnId, fx: &mut Vec<Effect>) {
        self.emit_replies(conn, fx);
        if !self.pushes.is_empty() {
            fx.push(Effect::Push { conn, bytes: self.pushes.split().freeze() });
        }
    }

    fn emit_replies(&mut self, conn: ConnId, fx: &mut Vec<Effect>) {
        if !self.replies.is_empty() {
            fx.push(Effect::Reply { conn, bytes: self.replies.split().freeze(), after: self.after });
        }
    }
}

fn room(buffer: &mut BytesMut) -> &mut BytesMut {
    if buffer.capacity() - buffer.len() < 16 {
        buffer.reserve(CHUNK_BYTES);
    }
    buffer
}
