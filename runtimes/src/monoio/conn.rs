//! A connection as its shard knows it on monoio: the writing side of a socket, and what waits for it.

use crate::broker::effect::{ConnId, Handover, ShardId};
use crate::outbox::Outbox;
use crate::shell;
use crate::stamps::{self, Reads};
use bytes::Bytes;
use monoio::buf::IoVecBuf;
use monoio::io::{OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

pub(super) struct Conn {
    /// Open as long as this exists: its writing half is here, or with a `write_loop` that brings it back.
    socket: RawFd,
    /// `None` while a `write_loop` has it.
    pub(super) writer: Option<OwnedWriteHalf<TcpStream>>,
    pub(super) outbox: Outbox,
    pub(super) closing: bool,
    pub(super) dirty: bool,
    pub(super) moving: Option<(ShardId, Box<Handover>)>,
}

impl Conn {
    /// Of `stream`, of which `read` bytes have been read elsewhere; and its reading side.
    pub(super) fn new(
        shard: ShardId,
        id: ConnId,
        stream: TcpStream,
        read: usize,
    ) -> (Conn, OwnedReadHalf<TcpStream>, Reads) {
        let socket = stream.as_raw_fd();
        let (reader, writer) = stream.into_split();
        let mut conn = Conn {
            socket,
            writer: Some(writer),
            outbox: Outbox::default(),
            closing: false,
            dirty: false,
            moving: None,
        };
        let (reads, replies) = stamps::wire(shard, id, &conn.borrow(), read);
        conn.outbox = Outbox::new(replies);
        (conn, reader, reads)
    }

    /// Whether something is still to be written.
    pub(super) fn is_writing(&self) -> bool {
        self.writer.is_none() || !self.outbox.is_empty()
    }

    pub(super) fn shut(&self) {
        shell::shut(&self.borrow());
    }

    pub(super) fn shut_reading(&self) {
        shell::shut_reading(&self.borrow());
    }

    fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `self` exists.
        unsafe { BorrowedFd::borrow_raw(self.socket) }
    }
}

/// Pieces of an outbox in the form in which monoio writes several buffers with one operation; they live as long as the
/// operation has them.
pub(super) struct Pieces {
    slices: Vec<libc::iovec>,
    _owners: Vec<Bytes>,
}

impl Pieces {
    pub(super) fn new(owners: Vec<Bytes>) -> Pieces {
        let slice = |bytes: &Bytes| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        Pieces { slices: owners.iter().map(slice).collect(), _owners: owners }
    }
}

// SAFETY: the slices lie in a vector that is not touched again, and point into buffers that `_owners` keeps where they
// are. The kernel only reads them.
unsafe impl IoVecBuf for Pieces {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.slices.as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.slices.len()
    }
}
