//! A connection's writing side, as its shard keeps it.

use crate::broker::effect::{ConnId, Handover, ShardId};
use crate::outbox::{Outbox, Wrote};
use crate::server::SocketCounters;
use crate::shell;
use crate::stamps::{self, Reads};
use std::rc::Rc;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

pub(super) struct Conn {
    pub(super) socket: Rc<OwnedWriteHalf>,
    pub(super) outbox: Outbox,
    /// A `write_loop` owns the socket's writing side.
    pub(super) writing: bool,
    pub(super) closing: bool,
    /// In the shard's list of what is to be flushed.
    pub(super) dirty: bool,
    /// The reader hands the socket over when it sees this.
    pub(super) moving: Option<(ShardId, Box<Handover>)>,
}

impl Conn {
    /// Of `stream`, of which `read` bytes have been read elsewhere; and its reading side.
    pub(super) fn new(shard: ShardId, id: ConnId, stream: TcpStream, read: usize) -> (Conn, OwnedReadHalf, Reads) {
        let (reads, replies) = stamps::wire(shard, id, &stream, read);
        let (reader, writer) = stream.into_split();
        let (socket, outbox) = (Rc::new(writer), Outbox::new(replies));
        (Conn { socket, outbox, writing: false, closing: false, dirty: false, moving: None }, reader, reads)
    }

    /// Writes what is pending as far as the socket takes it; false when it is full.
    pub(super) fn write(&mut self, sockets: &mut SocketCounters) -> bool {
        match self.outbox.write_with(sockets, |slices| self.socket.try_write_vectored(slices)) {
            Wrote::All => {}
            Wrote::Full => return false,
            Wrote::Gone => self.closing = true,
        }
        if self.closing {
            shell::shut((*self.socket).as_ref());
        }
        true
    }
}
