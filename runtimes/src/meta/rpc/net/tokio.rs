//! tokio's sockets, for both of its stacks: tasks are `Send`, and a current-thread runtime keeps them on its thread.

use super::{Handle, Net};
use crate::meta::native::TokioNative;
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// tokio.
#[derive(Debug, Clone, Copy)]
pub struct Tokio;

impl Net for Tokio {
    type Native = TokioNative;
    type Io = TokioIo<TcpStream>;
    type Listener = TcpListener;

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(time)
    }

    fn listener(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    async fn accept(listener: &TcpListener) -> io::Result<(Self::Io, Handle)> {
        let (stream, _) = listener.accept().await?;
        let handle = Handle::of(&stream)?;
        Ok((TokioIo::new(stream), handle))
    }

    async fn connect(to: SocketAddr) -> io::Result<(Self::Io, Handle)> {
        let stream = TcpStream::connect(to).await?;
        let handle = Handle::of(&stream)?;
        Ok((TokioIo::new(stream), handle))
    }
}
