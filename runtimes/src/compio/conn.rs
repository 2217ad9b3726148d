//! A connection as its shard knows it on compio: the writing side of a socket, and what waits for it.

use crate::broker::effect::{ConnId, Handover, ShardId};
use crate::outbox::Outbox;
use crate::stamps::{self, Reads};
use compio::net::TcpStream;

pub(super) struct Conn {
    /// Shared with the connection's reader, and with a `write_loop` while there is one.
    pub(super) socket: TcpStream,
    pub(super) outbox: Outbox,
    /// A `write_loop` writes.
    pub(super) writing: bool,
    pub(super) closing: bool,
    pub(super) dirty: bool,
    pub(super) moving: Option<(ShardId, Box<Handover>)>,
}

impl Conn {
    /// Of `stream`, of which `read` bytes have been read elsewhere; and its reading side.
    pub(super) fn new(shard: ShardId, id: ConnId, stream: TcpStream, read: usize) -> (Conn, TcpStream, Reads) {
        let (reads, replies) = stamps::wire(shard, id, &stream, read);
        let (reader, socket) = stream.into_split();
        let outbox = Outbox::new(replies);
        (Conn { socket, outbox, writing: false, closing: false, dirty: false, moving: None }, reader, reads)
    }

    /// Whether something is still to be written.
    pub(super) fn is_writing(&self) -> bool {
        self.writing || !self.outbox.is_empty()
    }
}
