//! One client and its connection to the broker: bytes from either side go to the other first, and are looked at after.
//!
//! Each direction is a [`Pipe`]. It holds bytes only when the receiving side takes fewer than were read, and while it
//! holds any it reads no more: the kernel's receive buffer fills up and the sender is slowed down, as it would be
//! without a tap. So a pipe holds at most one read's worth ([`super::relay::READ_BYTES`]).
//!
//! Ends are passed on as they are: a half-close as a half-close, after the bytes before it; a reset as a reset.

use crate::wire::{Chunk, Observer, Side};
use mio::net::TcpStream;
use regauge_traces::meta::monotonic_ns;
use rustix::net::sockopt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

/// Reads of one connection before the others get their turn.
const READS_PER_TURN: usize = 8;

/// A client's connection and the one to the broker that belongs to it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: TcpStream,
    pub(super) upstream: TcpStream,
    /// The connection to the broker is established.
    pub(super) connected: bool,
    pub(super) observer: Observer,
    up: Pipe,
    down: Pipe,
}

/// One direction's state between two events.
#[derive(Debug, Default)]
struct Pipe {
    /// Bytes that were read and not taken yet, and how many of them were taken since.
    held: Vec<u8>,
    taken: usize,
    held_read_ns: u64,
    /// The sender will send no more.
    ended: bool,
    /// The receiver was told so.
    told: bool,
}

impl Pipe {
    fn waits_for_receiver(&self) -> bool {
        !self.held.is_empty() || (self.ended && !self.told)
    }
}

/// How a turn of one direction went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Nothing more to do before the next event.
    Waiting,
    /// There may be more to read: give others a turn, then come back.
    More,
    /// The socket of this side is beyond use.
    Broken(Side),
}

/// What the poll said of a socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// An end or an error stands behind the readable bytes: read until it shows.
    pub(super) to_the_end: bool,
}

impl Link {
    pub(super) fn new(client: TcpStream, upstream: TcpStream, observer: Observer) -> Self {
        Self { client, upstream, connected: false, observer, up: Pipe::default(), down: Pipe::default() }
    }

    /// Both directions have ended.
    pub(super) fn is_over(&self) -> bool {
        self.up.told && self.down.told
    }

    /// Acts on an event of one of the two sockets. `look` sees every chunk after it was passed on.
    pub(super) fn turn(
        &mut self,
        socket: Side,
        ready: Ready,
        buffer: &mut [u8],
        look: &mut impl FnMut(&mut Observer, Chunk<'_>),
    ) -> Flow {
        let mut flow = Flow::Waiting;
        let other = opposite(socket);
        // Writable: the direction towards this socket may go on. With edge-triggered polls every event says writable, so
        // the pipe decides whether that is news.
        if ready.writable && self.pipe(other).waits_for_receiver() {
            flow = self.pump(other, true, buffer, look);
        }
        if ready.readable && !matches!(flow, Flow::Broken(_)) {
            flow = match (flow, self.pump(socket, ready.to_the_end, buffer, look)) {
                (Flow::More, Flow::Waiting) => Flow::More,
                (_, flow) => flow,
            };
        }
        if let Flow::Broken(broken) = flow {
            self.pass_on_last_words(broken, buffer, look);
        }
        flow
    }

    fn pipe(&self, from: Side) -> &Pipe {
        match from {
            Side::Client => &self.up,
            Side::Broker => &self.down,
        }
    }

    /// A socket that no longer takes bytes may still hold some for the other side: a broker's refusal, and then its
    /// reset. They are passed on as far as they go without waiting. No end is told after them: the reset is the end.
    fn pass_on_last_words(&mut self, broken: Side, buffer: &mut [u8], look: &mut impl FnMut(&mut Observer, Chunk<'_>)) {
        self.up.told = true;
        self.down.told = true;
        self.pump(broken, true, buffer, look);
    }

    /// Moves bytes that come from `from` until it has no more, the other side takes no more, or its turn is over.
    fn pump(
        &mut self,
        from: Side,
        to_the_end: bool,
        buffer: &mut [u8],
        look: &mut impl FnMut(&mut Observer, Chunk<'_>),
    ) -> Flow {
        let Self { client, upstream, connected, observer, up, down } = self;
        let (sender, receiver, pipe, reachable) = match from {
            Side::Client => (client, upstream, up, *connected),
            Side::Broker => (upstream, client, down, true),
        };
        let mut look = |bytes: &[u8], read_ns| {
            look(observer, Chunk { from, bytes, read_ns, written_ns: monotonic_ns() });
        };
        for _ in 0..READS_PER_TURN {
            while let Some(rest) = pipe.held.get(pipe.taken..).filter(|rest| !rest.is_empty()) {
                match write(receiver, rest) {
                    Ok(Some(n)) => {
                        look(rest.get(..n).unwrap_or_default(), pipe.held_read_ns);
                        pipe.taken += n;
                    }
                    Ok(None) => return Flow::Waiting,
                    Err(_) => return Flow::Broken(opposite(from)),
                }
            }
            // The buffer is given back: most connections never hold anything.
            pipe.held = Vec::new();
            pipe.taken = 0;
            if pipe.ended {
                // A socket that is still connecting would be torn down by a half-close.
                if !pipe.told && reachable {
                    // Fails only where the receiver is gone, and then its own event says so.
                    let _ = receiver.shutdown(Shutdown::Write);
                    pipe.told = true;
                }
                return Flow::Waiting;
            }
            let n = match read(sender, buffer) {
                Ok(Some(0)) => {
                    pipe.ended = true;
                    continue;
                }
                Ok(Some(n)) => n,
                Ok(None) => return Flow::Waiting,
                Err(_) => return Flow::Broken(from),
            };
            let read_ns = monotonic_ns();
            let bytes = buffer.get(..n).unwrap_or_default();
            match write(receiver, bytes) {
                Ok(Some(taken)) => {
                    look(bytes.get(..taken).unwrap_or_default(), read_ns);
                    pipe.held.extend_from_slice(bytes.get(taken..).unwrap_or_default());
                }
                Ok(None) => pipe.held.extend_from_slice(bytes),
                Err(_) => return Flow::Broken(opposite(from)),
            }
            pipe.held_read_ns = read_ns;
            // A read that did not fill the buffer has emptied the socket; the next bytes bring an event of their own.
            if n < buffer.len() && pipe.held.is_empty() && !to_the_end {
                return Flow::Waiting;
            }
        }
        Flow::More
    }

    /// Makes the coming close of both sockets a reset, as the broken side's was.
    pub(super) fn reset(&self) {
        for socket in [&self.client, &self.upstream] {
            reset_on_close(socket);
        }
    }
}

fn opposite(side: Side) -> Side {
    match side {
        Side::Client => Side::Broker,
        Side::Broker => Side::Client,
    }
}

/// Makes the close of this socket a reset. Where the system refuses, the close is an orderly one instead.
pub(super) fn reset_on_close(socket: &TcpStream) {
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// `None` where the socket has nothing at the moment.
fn read(socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    retry(|| socket.read(buffer))
}

/// `None` where the socket takes nothing at the moment.
fn write(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<Option<usize>> {
    retry(|| socket.write(bytes))
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(n) => return Ok(Some(n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
