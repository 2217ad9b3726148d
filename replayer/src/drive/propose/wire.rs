//! What HTTP/2 stands on here: the driver's non-blocking socket, bodies that tell when they were taken, and wakers that
//! only note what woke.
//!
//! The `h2` crate is a state machine behind futures. A runtime would poll them; here the driver's own loop does, after
//! epoll said that the socket changed. So a waker has nothing to wake: it writes down what to poll next. A read or
//! write that would block needs no waker at all, since every event of the socket polls the connection.

use crate::drive::poll::monotonic_ns;
use bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::net::{self, SendAncillaryBuffer, SendFlags, Shutdown};
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the loop wants to know of a socket that HTTP/2 owns.
#[derive(Debug, Default)]
pub(super) struct State {
    /// When a read last brought bytes, CLOCK_MONOTONIC ns.
    pub(super) read_ns: Cell<u64>,
    /// The kernel took less than it was offered.
    pub(super) blocked: Cell<bool>,
    /// Proposals whose last byte HTTP/2 has written or is about to write.
    pub(super) taken: RefCell<Vec<u32>>,
}

/// A socket under HTTP/2.
#[derive(Debug)]
pub(super) struct Io {
    pub(super) socket: OwnedFd,
    pub(super) state: Rc<State>,
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            return match rustix::io::read(&self.socket, buffer.initialize_unfilled()) {
                Ok(bytes) => {
                    buffer.advance(bytes);
                    self.state.read_ns.set(monotonic_ns());
                    Poll::Ready(Ok(()))
                }
                Err(Errno::AGAIN) => Poll::Pending,
                Err(Errno::INTR) => continue,
                Err(error) => Poll::Ready(Err(error.into())),
            };
        }
    }
}

impl Io {
    fn send(&self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let mut control = SendAncillaryBuffer::default();
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let result = net::sendmsg(&self.socket, slices, &mut control, flags);
            self.state.blocked.set(result == Err(Errno::AGAIN));
            return match result {
                Ok(bytes) => Poll::Ready(Ok(bytes)),
                Err(Errno::AGAIN) => Poll::Pending,
                Err(Errno::INTR) => continue,
                Err(error) => Poll::Ready(Err(error.into())),
            };
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.send(&[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.send(slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(net::shutdown(&self.socket, Shutdown::Write).map_err(io::Error::from))
    }
}

/// A proposal's message; notes when its last byte was taken.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) op: u32,
    pub(super) state: Rc<State>,
}

impl Buf for Body {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if count > 0 && self.bytes.is_empty() {
            self.state.taken.borrow_mut().push(self.op);
        }
    }
}

/// What asks to be polled.
#[derive(Debug, Default)]
pub(super) struct Woken {
    connection: AtomicBool,
    streams: Mutex<Vec<usize>>,
}

impl Woken {
    /// Whether the connection asked since the last call.
    pub(super) fn take_connection(&self) -> bool {
        self.connection.swap(false, Ordering::Relaxed)
    }

    /// Takes over the streams that asked since the last call.
    pub(super) fn take_streams(&self, into: &mut Vec<usize>) {
        into.append(&mut self.streams.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A waker for all connections of a channel.
    pub(super) fn of_connection(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// A waker for one stream.
    pub(super) fn of_stream(self: &Arc<Self>, slot: usize) -> Waker {
        Waker::from(Arc::new(OfStream { woken: Arc::clone(self), slot }))
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.connection.store(true, Ordering::Relaxed);
    }
}

struct OfStream {
    woken: Arc<Woken>,
    slot: usize,
}

impl Wake for OfStream {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.streams.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
    }
}
