//! compio's sockets: recv and send through the ring, behind buffers that hyper's polling interface needs.

use super::{Handle, Net};
use crate::meta::native::CompioNative;
use compio::net::{TcpListener, TcpStream};
use cyper_core::HyperStream;
use send_wrapper::SendWrapper;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// compio.
#[derive(Debug, Clone, Copy)]
pub struct Compio;

impl Net for Compio {
    type Native = CompioNative;
    type Io = HyperStream<TcpStream>;
    type Listener = SendWrapper<TcpListener>;

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        compio::runtime::spawn(task).detach();
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + Send {
        SendWrapper::new(compio::time::sleep(time))
    }

    fn listener(listener: std::net::TcpListener) -> io::Result<Self::Listener> {
        TcpListener::from_std(listener).map(SendWrapper::new)
    }

    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<(Self::Io, Handle)>> + Send {
        SendWrapper::new(async move { adopt(listener.accept().await?.0) })
    }

    fn connect(to: SocketAddr) -> impl Future<Output = io::Result<(Self::Io, Handle)>> + Send {
        SendWrapper::new(async move { adopt(TcpStream::connect(to).await?) })
    }
}

fn adopt(stream: TcpStream) -> io::Result<(HyperStream<TcpStream>, Handle)> {
    let handle = Handle::of(&stream)?;
    Ok((HyperStream::new_plain(stream), handle))
}
