//! The relay: one thread, one edge-triggered epoll, any number of connections.
//!
//! With one message in flight, a message costs three system calls here: the poll, a read and a write. It is looked at
//! after it was passed on, so that decoding and redaction lie in the time that the other side needs anyway.

use super::TapError;
use super::link::{Flow, Link, Ready, reset_on_close};
use super::record::SpanQueue;
use super::stats::{Counters, add};
use crate::wire::{Chunk, Ending, Observer, Side};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use regauge_traces::meta::monotonic_ns;
use regauge_traces::redact::Redactor;
use slab::Slab;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes of one read, and the most that a direction of a connection can hold.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Events taken from one poll.
const EVENTS: usize = 1024;

/// Clients accepted between two polls.
const ACCEPTS_PER_TURN: usize = 8;

/// When accepting is tried again after the system had no file descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST_LINK: usize = 2;

/// What the relay needs, and its connections.
pub(super) struct Relay {
    poll: Poll,
    listener: TcpListener,
    upstream: SocketAddr,
    links: Slab<Link>,
    buffer: Vec<u8>,
    /// Connections that had more to read when their turn was over.
    again: Vec<usize>,
    accepting: Accepting,
    spin_ns: u64,
    origin_ns: u64,
    next_connection: u32,
    watch: Watch,
}

/// Whether clients wait to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepting {
    /// None, until the listener says so.
    Idle,
    /// Some may.
    Now,
    /// Some do, but the system had no file descriptors left.
    Later,
}

/// Where observations go.
struct Watch {
    redactor: Redactor,
    spans: SpanQueue,
    counters: Arc<Counters>,
}

impl Watch {
    fn look(&self, observer: &mut Observer, chunk: Chunk<'_>) {
        let counter = match chunk.from {
            Side::Client => &self.counters.bytes_to_broker,
            Side::Broker => &self.counters.bytes_to_client,
        };
        add(counter, chunk.bytes.len() as u64);
        if let Err(why) = observer.observe(chunk, &self.redactor, &mut |span| self.spans.push(span)) {
            self.counters.add_undecodable(why);
        }
    }

    fn finish(&self, observer: &mut Observer, ending: Ending) {
        observer.finish(ending, monotonic_ns(), &mut |span| self.spans.push(span));
    }
}

/// What a relay is made from.
pub(super) struct RelayParts {
    pub(super) listener: TcpListener,
    pub(super) upstream: SocketAddr,
    pub(super) redactor: Redactor,
    pub(super) spans: SpanQueue,
    pub(super) counters: Arc<Counters>,
    pub(super) origin_ns: u64,
    pub(super) spin: Duration,
}

impl Relay {
    pub(super) fn new(parts: RelayParts) -> Result<(Self, Waker), TapError> {
        let RelayParts { mut listener, upstream, redactor, spans, counters, origin_ns, spin } = parts;
        let system = |action| move |source| TapError::System { action, source };
        let poll = Poll::new().map_err(system("make an epoll instance"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(system("make an eventfd"))?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)
            .map_err(system("watch the listening socket"))?;
        let relay = Self {
            poll,
            listener,
            upstream,
            links: Slab::new(),
            buffer: vec![0; READ_BYTES],
            again: Vec::new(),
            accepting: Accepting::Idle,
            spin_ns: u64::try_from(spin.as_nanos()).unwrap_or(u64::MAX),
            origin_ns,
            next_connection: 0,
            watch: Watch { redactor, spans, counters },
        };
        Ok((relay, waker))
    }

    /// Relays until `halt` is set and the waker was used. Open connections are closed at the end, and their waiting
    /// requests given out as unfinished.
    pub(super) fn run(mut self, halt: &AtomicBool) -> io::Result<()> {
        let result = self.run_loop(halt);
        for (_, link) in &mut self.links {
            self.watch.finish(&mut link.observer, Ending::RecordingStopped);
        }
        result
    }

    fn run_loop(&mut self, halt: &AtomicBool) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut active_ns = 0;
        while !halt.load(Ordering::Acquire) {
            match self.poll.poll(&mut events, self.timeout(active_ns)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            if self.spin_ns > 0 && !events.is_empty() {
                active_ns = monotonic_ns();
            }
            // Slots are freed after the whole batch: an event further down must not meet a new connection in an old slot.
            let mut over = Vec::new();
            for event in &events {
                match event.token() {
                    LISTENER => self.accepting = Accepting::Now,
                    WAKER => {}
                    Token(n) => {
                        let ready = Ready {
                            readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                            writable: event.is_writable() || event.is_error(),
                            to_the_end: event.is_read_closed() || event.is_error(),
                        };
                        let side = if (n - FIRST_LINK).is_multiple_of(2) { Side::Client } else { Side::Broker };
                        self.turn((n - FIRST_LINK) / 2, side, ready, event.is_error(), &mut over);
                    }
                }
            }
            for key in std::mem::take(&mut self.again) {
                let ready = Ready { readable: true, writable: false, to_the_end: true };
                self.turn(key, Side::Client, ready, false, &mut over);
                self.turn(key, Side::Broker, ready, false, &mut over);
            }
            for key in over {
                if self.links.try_remove(key).is_some() {
                    add(&self.watch.counters.closed, 1);
                }
            }
            if self.accepting != Accepting::Idle {
                self.accepting = self.accept();
            }
        }
        Ok(())
    }

    fn timeout(&self, active_ns: u64) -> Option<Duration> {
        let spinning = self.spin_ns > 0 && monotonic_ns().saturating_sub(active_ns) < self.spin_ns;
        match self.accepting {
            _ if spinning || !self.again.is_empty() => Some(Duration::ZERO),
            Accepting::Now => Some(Duration::ZERO),
            Accepting::Later => Some(ACCEPT_AGAIN),
            Accepting::Idle => None,
        }
    }

    /// Acts on one socket of a connection; notes the connection in `over` when both of its sides are to be closed.
    fn turn(&mut self, key: usize, side: Side, ready: Ready, failed: bool, over: &mut Vec<usize>) {
        if over.contains(&key) {
            return;
        }
        let Some(link) = self.links.get_mut(key) else { return };
        if side == Side::Broker && ready.writable && !failed {
            link.connected = true;
        }
        let watch = &self.watch;
        let flow = link.turn(side, ready, &mut self.buffer, &mut |observer, chunk| watch.look(observer, chunk));
        match flow {
            Flow::Broken(broken) => {
                if broken == Side::Broker && !link.connected {
                    add(&watch.counters.refused, 1);
                }
                link.reset();
            }
            Flow::More if !self.again.contains(&key) => self.again.push(key),
            Flow::More | Flow::Waiting => {}
        }
        if link.is_over() || matches!(flow, Flow::Broken(_)) {
            watch.finish(&mut link.observer, Ending::Closed);
            over.push(key);
        }
    }

    /// Accepts waiting clients, a few at a time, so that a burst of them does not hold up the messages of others.
    fn accept(&mut self) -> Accepting {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((client, _)) => self.open(client),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Accepting::Idle,
                // The client went away while it waited, or a signal came.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                // No descriptors or no memory: the client stays in the listener's queue.
                Err(_) => return Accepting::Later,
            }
        }
        Accepting::Now
    }

    fn open(&mut self, client: TcpStream) {
        add(&self.watch.counters.connections, 1);
        let connection = self.next_connection;
        self.next_connection = self.next_connection.wrapping_add(1);
        let observer = Observer::new(connection, self.origin_ns);
        match self.join(client, observer) {
            Ok(()) => {}
            Err(()) => {
                add(&self.watch.counters.refused, 1);
                add(&self.watch.counters.closed, 1);
            }
        }
    }

    /// Starts the connection to the broker and watches both sockets. The client may already send: its bytes are read
    /// and stamped at once, and held until the broker's side is established.
    fn join(&mut self, mut client: TcpStream, observer: Observer) -> Result<(), ()> {
        let joined = TcpStream::connect(self.upstream).and_then(|mut upstream| {
            // Fails only on a socket that is gone, which the first event then says.
            let _ = client.set_nodelay(true);
            let _ = upstream.set_nodelay(true);
            let slot = FIRST_LINK + 2 * self.links.vacant_key();
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut client, Token(slot), both)?;
            self.poll.registry().register(&mut upstream, Token(slot + 1), both)?;
            Ok(upstream)
        });
        match joined {
            Ok(upstream) => {
                self.links.insert(Link::new(client, upstream, observer));
                Ok(())
            }
            Err(_) => {
                reset_on_close(&client);
                Err(())
            }
        }
    }
}
