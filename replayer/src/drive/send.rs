//! Sending: which bytes of a connection may go now, and handing them to the kernel in one system call.
//!
//! Packets lie in the plan as head and filler; here they become a list of slices for one sendmsg(2), nothing is copied.
//! Several packets share a call only if all of them are due. What the kernel does not take is finished when it says
//! that there is room, from the very byte where it stopped.
//!
//! A request that is due may still be held by the protocol: a packet id that is in flight, the server's receive
//! maximum, or (a DISCONNECT or close) replies that the recorded client had before it left. Everything behind it on
//! the connection waits too, because order within a connection is kept.

use super::link::{Link, Phase};
use super::run::Run;
use super::samples::State;
use crate::packet::filler;
use crate::plan::{Op, Plan, Reply};
use regauge_traces::Kind;
use rustix::io::{Errno, IoSlice};
use rustix::net::{self, AddressFamily, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Slices per system call. The kernel takes 1024; preparing them all would cost more than a second call.
const SLICES_MAX: usize = 64;

/// Packet ids that exist.
const IDS: usize = 65_535;

/// The slices of one sendmsg.
struct Batch<'a> {
    slices: [IoSlice<'a>; SLICES_MAX],
    count: usize,
    bytes: usize,
}

impl<'a> Batch<'a> {
    fn new() -> Batch<'a> {
        Batch { slices: [IoSlice::new(&[]); SLICES_MAX], count: 0, bytes: 0 }
    }

    fn push(&mut self, slice: &'a [u8]) {
        if !slice.is_empty() && self.count < SLICES_MAX {
            self.slices[self.count] = IoSlice::new(slice);
            self.count += 1;
            self.bytes += slice.len();
        }
    }

    /// The rest of a packet from `from` on, or as much of it as there is room for.
    fn push_packet(&mut self, plan: &'a Plan, op: &Op, from: usize) {
        let head = plan.head(op);
        self.push(head.get(from..).unwrap_or(&[]));
        let mut at = from.saturating_sub(head.len());
        while at < op.fill_bytes() && self.count < SLICES_MAX {
            let start = at % filler().len();
            let length = (filler().len() - start).min(op.fill_bytes() - at);
            self.push(&filler()[start..start + length]);
            at += length;
        }
    }

    fn is_full(&self) -> bool {
        // A head and a filler must find room.
        self.count + 2 > SLICES_MAX
    }
}

/// What the rules of [`may_send`] look at; counts on through the packets of one batch.
#[derive(Clone, Copy)]
struct Tally {
    demanded: u32,
    in_flight: u32,
    ids_sent: usize,
}

impl Run<'_> {
    /// Sends all that may go on this connection now.
    pub(super) fn send(&mut self, index: usize) {
        if self.links[index].phase == Phase::Ready {
            if self.parting {
                return;
            }
            match open(self, index) {
                Ok((socket, port)) => {
                    self.links[index].opened = Some((self.clock.now(), port));
                    self.links[index].socket = Some(socket);
                    self.links[index].phase = Phase::Open;
                }
                Err(error) => return self.failed(index, error),
            }
        }
        while self.links[index].writable && self.send_batch(index) {}
    }

    /// One system call's worth; false when there is nothing more to do now.
    fn send_batch(&mut self, index: usize) -> bool {
        let plan = self.plan;
        let ops = &plan.connections[index].ops;
        let link = &self.links[index];
        let Some(socket) = &link.socket else { return false };
        let mut batch = Batch::new();
        let mut tally = Tally { demanded: link.demanded, in_flight: link.in_flight, ids_sent: link.ids_sent };
        let mut next = link.next;
        if link.written > 0 {
            batch.push_packet(plan, &plan.ops[ops[next] as usize], link.written);
            self.count(ops[next] as usize, &mut tally);
            next += 1;
        }
        batch.push(&link.duties[link.duties_written..]);
        let mut held = false;
        let mut closes = false;
        while next < link.due && !batch.is_full() && !link.shut {
            let op = ops[next] as usize;
            if !self.may_send(index, op, &tally) {
                held = true;
                break;
            }
            if plan.ops[op].kind == Kind::Close {
                closes = batch.count == 0;
                break;
            }
            batch.push_packet(plan, &plan.ops[op], 0);
            self.count(op, &mut tally);
            next += 1;
        }
        let before_ns = self.clock.now();
        let result = if batch.count == 0 {
            None
        } else {
            let mut control = SendAncillaryBuffer::default();
            let slices = &batch.slices[..batch.count];
            Some(net::sendmsg(socket, slices, &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT))
        };
        let offered = batch.bytes;
        self.note_tried(index, next + usize::from(closes), before_ns);
        self.links[index].held = held;
        match result {
            None => {
                if closes {
                    self.close(index);
                }
                false
            }
            Some(Ok(bytes)) => {
                self.reached = true;
                self.account(index, bytes);
                let link = &mut self.links[index];
                link.writable = bytes == offered;
                link.writable && (link.due > link.next || !link.duties.is_empty())
            }
            Some(Err(Errno::AGAIN)) => {
                self.links[index].writable = false;
                false
            }
            Some(Err(Errno::INTR)) => true,
            Some(Err(error)) => {
                self.failed(index, error);
                false
            }
        }
    }

    fn may_send(&self, index: usize, op: usize, tally: &Tally) -> bool {
        let link = &self.links[index];
        let op = &self.plan.ops[op];
        let id_free = || match tally.ids_sent.checked_sub(IDS) {
            Some(same_id) => self.samples.state[self.plan.connections[index].id_ops[same_id] as usize].is_final(),
            None => true,
        };
        match (op.kind, op.reply) {
            (Kind::Disconnect | Kind::Close, _) => tally.demanded == 0,
            (_, Reply::Puback | Reply::Pubcomp) => tally.in_flight < u32::from(link.receive_max) && id_free(),
            (_, Reply::Suback | Reply::Unsuback) => id_free(),
            _ => true,
        }
    }

    /// Counts `op` as sent.
    fn count(&self, op: usize, tally: &mut Tally) {
        tally.demanded += u32::from(self.is_demanded(op));
        match self.plan.ops[op].reply {
            Reply::Puback | Reply::Pubcomp => {
                tally.in_flight += 1;
                tally.ids_sent += 1;
            }
            Reply::Suback | Reply::Unsuback => tally.ids_sent += 1,
            Reply::None | Reply::Connack | Reply::Pingresp | Reply::Status => {}
        }
    }

    /// Notes when the requests before position `end` were first tried: how late the driver was, as opposed to the
    /// server or the protocol.
    fn note_tried(&mut self, index: usize, end: usize, now: u64) {
        let link = &mut self.links[index];
        for &op in self.plan.connections[index].ops.get(link.tried..end).unwrap_or(&[]) {
            let op = op as usize;
            let could_ns = self.plan.ops[op].planned_ns.max(link.unhindered_ns);
            self.samples.driver_lag_ns[op] = now.saturating_sub(could_ns);
        }
        link.tried = link.tried.max(end);
    }

    /// `bytes` of what was offered were taken, in the order in which it was offered.
    fn account(&mut self, index: usize, mut bytes: usize) {
        let now = self.clock.now();
        let ops = &self.plan.connections[index].ops;
        if self.links[index].written > 0 {
            bytes -= self.advance(index, ops, bytes, now);
        }
        if self.links[index].written == 0 {
            let link = &mut self.links[index];
            let duties = bytes.min(link.duties.len() - link.duties_written);
            link.duties_written += duties;
            link.sent_bytes += duties as u64;
            bytes -= duties;
            if link.duties_written == link.duties.len() {
                link.duties.clear();
                link.duties_written = 0;
                if self.parting && duties > 0 {
                    self.shut(index);
                }
            }
        }
        while bytes > 0 {
            bytes -= self.advance(index, ops, bytes, now);
        }
    }

    /// Counts up to `bytes` bytes towards the connection's next packet; tells how many it took.
    fn advance(&mut self, index: usize, ops: &[u32], bytes: usize, now: u64) -> usize {
        let op = ops[self.links[index].next] as usize;
        let length = self.plan.ops[op].bytes() as usize;
        let taken = bytes.min(length - self.links[index].written);
        self.links[index].written += taken;
        self.links[index].sent_bytes += taken as u64;
        if self.links[index].written == length {
            self.sent(index, op, now);
        }
        taken
    }

    fn sent(&mut self, index: usize, op: usize, now: u64) {
        let link = &self.links[index];
        let mut tally = Tally { demanded: link.demanded, in_flight: link.in_flight, ids_sent: link.ids_sent };
        self.count(op, &mut tally);
        let link = &mut self.links[index];
        link.next += 1;
        link.written = 0;
        (link.demanded, link.in_flight, link.ids_sent) = (tally.demanded, tally.in_flight, tally.ids_sent);
        self.samples.sent_ns[op] = now;
        self.samples.sent_offset[op] = link.sent_bytes;
        if self.plan.ops[op].reply == Reply::None {
            self.resolve(op, State::Right);
        } else {
            self.samples.state[op] = State::InFlight;
        }
        if self.plan.ops[op].kind == Kind::Disconnect {
            self.shut(index);
        }
    }

    /// The connection's next request is to close it, and it is due.
    fn close(&mut self, index: usize) {
        let op = self.plan.connections[index].ops[self.links[index].next] as usize;
        let now = self.clock.now();
        self.sent(index, op, now);
        self.shut(index);
    }

    /// Closes our half: nothing more will be sent. The server answers by closing its own, which shows that it has read
    /// everything.
    fn shut(&mut self, index: usize) {
        let link = &mut self.links[index];
        link.shut = true;
        if let Some(socket) = &link.socket
            && net::shutdown(socket, Shutdown::Write).is_err()
        {
            // Not up yet, or no longer: there is no other half to wait for.
            self.end(index, None);
        }
    }

    pub(super) fn became_writable(&mut self, index: usize) {
        let link: &mut Link = &mut self.links[index];
        if link.phase == Phase::Open && !link.writable {
            link.writable = true;
            link.unhindered_ns = self.clock.now();
            self.enqueue(index);
        }
    }

    /// The connection failed.
    pub(super) fn failed(&mut self, index: usize, error: Errno) {
        self.refused |= error == Errno::CONNREFUSED;
        self.end(index, Some(format!("connection {index} to {}: {error}", self.target)));
    }
}

/// Starts a TCP connection; tells our port too, which the kernel has chosen by then.
fn open(run: &Run<'_>, index: usize) -> Result<(OwnedFd, u16), Errno> {
    let family = if run.target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match net::connect(&socket, &run.target) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error),
    }
    run.poll.add(&socket, index)?;
    let port = SocketAddr::try_from(net::getsockname(&socket)?)?.port();
    Ok((socket, port))
}
