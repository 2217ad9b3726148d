//! monoio's sockets. hyper polls, so they are those of its `poll-io` feature: readiness comes through an epoll instance
//! that the ring watches, and reads and writes are system calls. No recv or send of gRPC goes through the ring.

use super::{Handle, Net};
use crate::meta::native::MonoioNative;
use hyper::rt::{Read, ReadBufCursor, Write};
use monoio::io::IntoPollIo;
use monoio::net::tcp::stream_poll::TcpStreamPoll;
use monoio::net::{TcpListener, TcpStream};
use monoio_compat::hyper::MonoioIo;
use send_wrapper::SendWrapper;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// monoio.
#[derive(Debug, Clone, Copy)]
pub struct Monoio;

/// A connection.
#[derive(Debug)]
pub struct Io(SendWrapper<MonoioIo<TcpStreamPoll>>);

impl Net for Monoio {
    type Native = MonoioNative;
    type Io = Io;
    type Listener = SendWrapper<TcpListener>;

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        // Its handle detaches the task when it is dropped.
        drop(monoio::spawn(task));
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + Send {
        SendWrapper::new(monoio::time::sleep(time))
    }

    fn listener(listener: std::net::TcpListener) -> io::Result<Self::Listener> {
        TcpListener::from_std(listener).map(SendWrapper::new)
    }

    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<(Io, Handle)>> + Send {
        SendWrapper::new(async move { adopt(listener.accept().await?.0) })
    }

    fn connect(to: SocketAddr) -> impl Future<Output = io::Result<(Io, Handle)>> + Send {
        SendWrapper::new(async move { adopt(TcpStream::connect_addr(to).await?) })
    }
}

fn adopt(stream: TcpStream) -> io::Result<(Io, Handle)> {
    // SAFETY: `stream` owns the descriptor and lives on while it is borrowed.
    let handle = Handle::of(&unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) })?;
    Ok((Io(SendWrapper::new(MonoioIo::new(stream.into_poll_io()?))), handle))
}

impl Read for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buf)
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Write::poll_write(Pin::new(&mut *self.0), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_flush(Pin::new(&mut *self.0), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_shutdown(Pin::new(&mut *self.0), cx)
    }

    fn is_write_vectored(&self) -> bool {
        Write::is_write_vectored(&*self.0)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Write::poll_write_vectored(Pin::new(&mut *self.0), cx, pieces)
    }
}
