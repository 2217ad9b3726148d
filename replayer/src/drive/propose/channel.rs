//! One channel to the meta-service: its HTTP/2 connection, what is due on it and what is under way.
//!
//! Usually there is one connection. After the server took leave there are two for a while: the old one, whose streams
//! are still answered, and the new one for what comes.

use super::stream::{End, Stream, is_leave};
use super::wire::{Body, Io, State, Woken};
use crate::drive::poll::{Poll, monotonic_ns};
use crate::plan::Plan;
use h2::client::{Connection, SendRequest};
use http::{HeaderValue, Request, Uri, header};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use slab::Slab;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Context, Waker};

/// The method that takes proposals, as `meta.proto` names it.
const METHOD: &str = "/regauge.meta.v1.Meta/Propose";

/// What happened to a proposal or its channel; times in ns since t0.
#[derive(Debug)]
pub(in crate::drive) enum Event {
    /// The driver tried to begin it for the first time.
    Tried { op: usize, ns: u64 },
    /// The kernel took its last byte.
    Sent { op: usize, ns: u64 },
    /// Its reply is complete.
    Replied { op: usize, ns: u64, status: u8, right: bool },
    /// No reply will come.
    Failed { op: usize },
    /// A connection ended as it should not.
    Fault(String),
}

type Handshake = Pin<Box<dyn Future<Output = Result<(SendRequest<Body>, Connection<Io, Body>), h2::Error>>>>;

#[allow(clippy::large_enum_variant, reason = "there are four of them, or a few more")]
enum Phase {
    Shaking(Handshake),
    Up { requests: SendRequest<Body>, connection: Connection<Io, Body>, ping: Option<h2::PingPong> },
}

/// One HTTP/2 connection.
struct Wire {
    number: u64,
    state: Rc<State>,
    phase: Phase,
    /// The server took leave: nothing new goes here.
    leaving: bool,
}

/// See the module.
pub(in crate::drive) struct Channel {
    meta: SocketAddr,
    token: usize,
    /// Who proposes: this run.
    caller: u64,
    uri: Uri,
    wires: Vec<Wire>,
    made: u64,
    /// Proposals whose time has come and that are not begun.
    due: VecDeque<u32>,
    /// How many of them, from the back, were not tried yet.
    untried: usize,
    streams: Slab<Stream>,
    /// One for each slot of `streams`.
    wakers: Vec<Waker>,
    woken: Arc<Woken>,
    ready: Vec<usize>,
    /// In the loop's queue.
    queued: bool,
    /// Replies since a connection was last opened: without any, another one is not worth it.
    answered: u64,
    broken: Option<String>,
    /// When each connection was opened, ns since t0, and from which port.
    pub(in crate::drive) opened: Vec<(u64, u16)>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("due", &self.due.len()).field("streams", &self.streams.len()).finish()
    }
}

impl Channel {
    pub(super) fn new(meta: SocketAddr, token: usize, caller: u64) -> Channel {
        Channel {
            meta,
            token,
            caller,
            // Never the default: an address is an authority.
            uri: Uri::builder()
                .scheme("http")
                .authority(meta.to_string())
                .path_and_query(METHOD)
                .build()
                .unwrap_or_default(),
            wires: Vec::new(),
            made: 0,
            due: VecDeque::new(),
            untried: 0,
            streams: Slab::new(),
            wakers: Vec::new(),
            woken: Arc::default(),
            ready: Vec::new(),
            queued: false,
            answered: 0,
            broken: None,
            opened: Vec::new(),
        }
    }

    /// Why it can be used no more, if so.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// The server has shown that it speaks HTTP/2.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.wires.last(), Some(Wire { phase: Phase::Up { ping: None, .. }, .. }))
    }

    /// Adds a proposal; true when the channel is to be put into the loop's queue.
    pub(super) fn due(&mut self, op: u32) -> bool {
        self.due.push_back(op);
        self.untried += 1;
        !std::mem::replace(&mut self.queued, true)
    }

    /// Opens a connection.
    pub(super) fn connect(&mut self, poll: &Poll, now: u64) {
        self.made += 1;
        self.answered = 0;
        let state = Rc::new(State::default());
        match open(self.meta, self.token, poll, &state) {
            Ok((io, port)) => {
                self.opened.push((now, port));
                let shake = h2::client::Builder::new().enable_push(false).handshake(io);
                let (number, phase) = (self.made, Phase::Shaking(Box::pin(shake)));
                self.wires.push(Wire { number, state, phase, leaving: false });
            }
            Err(error) => self.broken = Some(error.to_string()),
        }
    }

    /// Goes on as far as the socket and the server's limits allow.
    pub(super) fn pump(&mut self, plan: &Plan, poll: &Poll, t0_ns: u64, events: &mut Vec<Event>) {
        self.queued = false;
        let now = monotonic_ns().saturating_sub(t0_ns);
        let waker = self.woken.of_connection();
        let mut cx = Context::from_waker(&waker);
        loop {
            self.begin(plan, poll, (now, t0_ns), &mut cx, events);
            self.held_back(t0_ns, events);
            self.drive(&mut cx, t0_ns, events);
            self.woken.take_streams(&mut self.ready);
            let idle = self.ready.is_empty();
            for slot in std::mem::take(&mut self.ready) {
                self.advance(slot, t0_ns, events);
            }
            // Also when something was answered: it may have made room for what is due.
            if !self.woken.take_connection() && idle {
                break;
            }
        }
        if self.broken.is_some() {
            events.extend(self.due.drain(..).map(|op| Event::Failed { op: op as usize }));
        }
    }

    /// Begins what is due, while the server allows more streams.
    fn begin(
        &mut self,
        plan: &Plan,
        poll: &Poll,
        (now, t0_ns): (u64, u64),
        cx: &mut Context<'_>,
        events: &mut Vec<Event>,
    ) {
        while let Some(&op) = self.due.front() {
            if self.wires.last().is_none_or(|wire| wire.leaving) {
                if self.broken.is_some() {
                    return;
                }
                if self.answered == 0 {
                    return self.fault("the server took leave before it answered anything".to_owned(), events);
                }
                self.connect(poll, now);
                continue;
            }
            let Some(Wire { number, state, phase: Phase::Up { requests, .. }, leaving }) = self.wires.last_mut() else {
                return;
            };
            match requests.poll_ready(cx) {
                task::Poll::Pending => return,
                task::Poll::Ready(Err(error)) if is_leave(&error) => {
                    *leaving = true;
                    continue;
                }
                // The connection's own end follows and tells why.
                task::Poll::Ready(Err(_)) => return,
                task::Poll::Ready(Ok(())) => {}
            }
            // Those that were not tried yet are the last ones.
            if self.due.len() == self.untried {
                self.untried -= 1;
                events.push(Event::Tried { op: op as usize, ns: monotonic_ns().saturating_sub(t0_ns) });
            }
            self.due.pop_front();
            let planned = &plan.ops[op as usize];
            let body = Body { bytes: plan.message(planned, self.caller), op, state: Rc::clone(state) };
            match requests.send_request(request(&self.uri), false) {
                Ok((response, mut sender)) => {
                    let slot = self.streams.insert(Stream::new(op, *number, planned.calls as usize, response));
                    while self.wakers.len() <= slot {
                        self.wakers.push(self.woken.of_stream(self.wakers.len()));
                    }
                    // The stream's own end tells what becomes of it.
                    sender.send_data(body, true).ok();
                    self.ready.push(slot);
                }
                Err(_) => events.push(Event::Failed { op: op as usize }),
            }
        }
    }

    /// What is still due now, the server or the protocol keeps from being begun: it has been tried.
    fn held_back(&mut self, t0_ns: u64, events: &mut Vec<Event>) {
        let untried = std::mem::take(&mut self.untried);
        if untried > 0 {
            let ns = monotonic_ns().saturating_sub(t0_ns);
            let held = self.due.iter().skip(self.due.len().saturating_sub(untried));
            events.extend(held.map(|op| Event::Tried { op: *op as usize, ns }));
        }
    }

    /// Lets every connection read and write, and notes what the kernel took.
    fn drive(&mut self, cx: &mut Context<'_>, t0_ns: u64, events: &mut Vec<Event>) {
        let mut ended = None;
        for wire in &mut self.wires {
            if let Phase::Shaking(handshake) = &mut wire.phase {
                match handshake.as_mut().poll(cx) {
                    task::Poll::Pending => continue,
                    task::Poll::Ready(Err(error)) => {
                        ended = Some((wire.number, Some(error.to_string())));
                        continue;
                    }
                    task::Poll::Ready(Ok((requests, mut connection))) => {
                        let mut ping = connection.ping_pong();
                        if let Some(ping) = &mut ping {
                            ping.send_ping(h2::Ping::opaque()).ok();
                        }
                        wire.phase = Phase::Up { requests, connection, ping };
                        // What is due can begin now.
                        cx.waker().wake_by_ref();
                    }
                }
            }
            let Phase::Up { requests, connection, ping } = &mut wire.phase else { continue };
            let end = Pin::new(connection).poll(cx);
            if let Some(pong) = ping
                && pong.poll_pong(cx).is_ready()
            {
                *ping = None;
            }
            if !wire.state.blocked.get() && !wire.state.taken.borrow().is_empty() {
                let ns = monotonic_ns().saturating_sub(t0_ns);
                let taken = wire.state.taken.borrow_mut().drain(..).map(|op| op as usize).collect::<Vec<_>>();
                events.extend(taken.into_iter().map(|op| Event::Sent { op, ns }));
            }
            if let task::Poll::Ready(result) = end {
                let left = matches!(requests.poll_ready(cx), task::Poll::Ready(Err(error)) if is_leave(&error));
                let why = match result {
                    _ if left => None,
                    Ok(()) => Some("the server closed it".to_owned()),
                    Err(error) => Some(error.to_string()),
                };
                ended = Some((wire.number, why));
            }
        }
        if let Some((number, why)) = ended {
            self.ended(number, why, t0_ns, events);
            cx.waker().wake_by_ref();
        }
    }

    /// A connection is over; `why` if it should not be.
    fn ended(&mut self, number: u64, why: Option<String>, t0_ns: u64, events: &mut Vec<Event>) {
        // Streams first: they still know what became of them.
        let open: Vec<usize> =
            self.streams.iter().filter(|(_, stream)| stream.wire == number).map(|(slot, _)| slot).collect();
        for slot in open {
            self.advance(slot, t0_ns, events);
            if let Some(stream) = self.streams.try_remove(slot) {
                events.push(Event::Failed { op: stream.op as usize });
            }
        }
        self.wires.retain(|wire| wire.number != number);
        if let Some(why) = why {
            self.fault(why, events);
        }
    }

    fn fault(&mut self, why: String, events: &mut Vec<Event>) {
        if self.broken.is_none() {
            events.push(Event::Fault(why.clone()));
            self.broken = Some(why);
        }
    }

    /// Polls one stream.
    fn advance(&mut self, slot: usize, t0_ns: u64, events: &mut Vec<Event>) {
        let (Some(stream), Some(waker)) = (self.streams.get_mut(slot), self.wakers.get(slot)) else { return };
        let task::Poll::Ready(end) = stream.poll(&mut Context::from_waker(waker)) else { return };
        let stream = self.streams.remove(slot);
        let op = stream.op as usize;
        let wire = self.wires.iter_mut().find(|wire| wire.number == stream.wire);
        match end {
            End::Replied { status, right } => {
                self.answered += 1;
                let read_ns = wire.map_or(0, |wire| wire.state.read_ns.get());
                events.push(Event::Replied { op, ns: read_ns.saturating_sub(t0_ns), status, right });
            }
            End::NotTaken => {
                if let Some(wire) = wire {
                    wire.leaving = true;
                }
                // In their old order, before what came later.
                let at = self.due.partition_point(|due| *due < stream.op);
                self.due.insert(at, stream.op);
            }
            End::Failed => events.push(Event::Failed { op }),
        }
    }

    /// Says good-bye, as far as that needs no waiting.
    pub(in crate::drive) fn part(&mut self) {
        self.streams.clear();
        let waker = self.woken.of_connection();
        for wire in self.wires.drain(..) {
            if let Phase::Up { requests, mut connection, .. } = wire.phase {
                drop(requests);
                // Whatever it says: nobody listens any more.
                let _over = Pin::new(&mut connection).poll(&mut Context::from_waker(&waker));
            }
        }
    }
}

fn request(uri: &Uri) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri.clone();
    *request.version_mut() = http::Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

/// Starts a TCP connection; tells our port too.
fn open(meta: SocketAddr, token: usize, poll: &Poll, state: &Rc<State>) -> Result<(Io, u16), Errno> {
    let family = if meta.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match net::connect(&socket, &meta) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error),
    }
    poll.add(&socket, token)?;
    let port = SocketAddr::try_from(net::getsockname(&socket)?)?.port();
    Ok((Io { socket, state: Rc::clone(state) }, port))
}
