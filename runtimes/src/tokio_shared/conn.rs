//! A connection, as all tasks that have to do with it share it.

use crate::broker::effect::{ConnId, ShardId};
use crate::outbox::{Outbox, Wrote};
use crate::server::SocketCounters;
use crate::shell;
use crate::stamps::{self, Reads};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) socket: OwnedWriteHalf,
    pub(super) out: Mutex<Out>,
    /// The shard that it belongs to; changed by its reading task alone.
    home: AtomicU16,
}

#[derive(Default)]
pub(super) struct Out {
    pub(super) outbox: Outbox,
    /// A `write_loop` owns the socket's writing side.
    pub(super) writing: bool,
    pub(super) closing: bool,
    /// In some turn's list of what is to be flushed.
    pub(super) dirty: bool,
    pub(super) sockets: SocketCounters,
}

impl Conn {
    /// Of `stream`; and its reading side.
    pub(super) fn new(id: ConnId, stream: TcpStream, home: ShardId) -> (Arc<Conn>, OwnedReadHalf, Reads) {
        let (reads, replies) = stamps::wire(home, id, &stream, 0);
        let (reader, socket) = stream.into_split();
        let out = Mutex::new(Out { outbox: Outbox::new(replies), ..Out::default() });
        (Arc::new(Conn { id, socket, out, home: AtomicU16::new(home) }), reader, reads)
    }

    pub(super) fn home(&self) -> ShardId {
        self.home.load(Ordering::Acquire)
    }

    pub(super) fn move_home(&self, to: ShardId) {
        self.home.store(to, Ordering::Release);
    }
}

impl Out {
    /// Writes what is pending as far as the socket takes it; false when it is full.
    pub(super) fn write(&mut self, socket: &OwnedWriteHalf) -> bool {
        match self.outbox.write_with(&mut self.sockets, |slices| socket.try_write_vectored(slices)) {
            Wrote::All => {}
            Wrote::Full => return false,
            Wrote::Gone => self.closing = true,
        }
        if self.closing {
            shell::shut(socket.as_ref());
        }
        true
    }
}
