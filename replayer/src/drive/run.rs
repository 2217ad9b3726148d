//! The driver's loop: release what is due, send, read, sleep until the next deadline.
//!
//! One thread, one epoll instance, no runtime: the same for every stack under test. The order of work inside a turn
//! keeps both sides of a measurement honest: after at most [`SENDS_PER_TURN`] connections were served the sockets are
//! looked at again, so that a burst of sends does not age the replies; and between any two replies the clock is
//! compared with the next deadline, so that a burst of replies does not delay a send.

use super::link::{Link, Phase};
use super::look::Look;
use super::poll::{Clock, Poll, monotonic_ns, thread_cpu_ns};
use super::propose::{self, Channel, Event, Target};
use super::samples::{NEVER, Samples, State};
use super::{DriveError, DriveOptions};
use crate::plan::{Plan, Reply};
use regauge_traces::Kind;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Connections served between two looks at the sockets.
const SENDS_PER_TURN: usize = 8;

/// Where the driver owns its CPU it stops sleeping this long before a deadline and watches the clock instead: a wake-up
/// costs tens of microseconds, and more in a virtual machine.
const SPIN_NS: u64 = 100_000;

/// From set-up to t0, ns: enough to go to sleep and wake up in time.
const LEAD_NS: u64 = 20_000_000;

/// After the last demanded reply of a plan with subscriptions: deliveries have ended when none came for so long, ns.
const SETTLE_NS: u64 = 100_000_000;

/// How long connections that said DISCONNECT at the end of a run may take to be closed by the server, ns.
const FAREWELL_NS: u64 = 1_000_000_000;

/// Bytes per read.
const READ_BYTES: usize = 1 << 16;

/// What a run measured, before it is judged.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) samples: Samples,
    pub(super) links: Vec<Link>,
    /// When each channel of proposals was opened, ns since t0, and from which port.
    pub(super) channels: Vec<Vec<(u64, u16)>>,
    pub(super) faults: Faults,
    pub(super) t0_ns: u64,
    pub(super) cpu_ns: u64,
    pub(super) run_delay_ns: Option<u64>,
}

/// Connections that ended otherwise than planned.
#[derive(Debug, Default, Clone)]
pub(super) struct Faults {
    pub(super) connections: u64,
    /// The first of them, in words.
    pub(super) first: Option<String>,
}

/// A run in progress.
pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) target: SocketAddr,
    pub(super) clock: Clock,
    pub(super) poll: Poll,
    pub(super) links: Vec<Link>,
    /// For proposals; in tokens and in the queue they stand behind the links.
    pub(super) channels: Vec<Channel>,
    pub(super) events: Vec<Event>,
    pub(super) samples: Samples,
    pub(super) look: Look,
    /// Per connection the one that waits for its end.
    successor: Vec<Option<u32>>,
    /// First request that is not due yet.
    cursor: usize,
    /// Connections with something to send.
    pub(super) queue: VecDeque<u32>,
    /// Connections that had more to read than their turn allowed.
    pub(super) unread: VecDeque<u32>,
    pub(super) buffer: Box<[u8]>,
    /// Requests to which something can still happen.
    unresolved: usize,
    pub(super) last_input_ns: u64,
    /// The measurement is over; replies count no more.
    pub(super) parting: bool,
    /// A connection was established.
    pub(super) reached: bool,
    pub(super) refused: bool,
    pub(super) faults: Faults,
    spin: bool,
    drain_ns: u64,
    settles: bool,
}

impl<'a> Run<'a> {
    pub(super) fn new(plan: &'a Plan, target: Target, options: &DriveOptions) -> Result<Run<'a>, DriveError> {
        let mut successor = vec![None; plan.connections.len()];
        for (index, connection) in plan.connections.iter().enumerate() {
            if let Some(previous) = connection.after {
                successor[previous as usize] = Some(index as u32);
            }
        }
        let mut poll = Poll::new().map_err(|error| DriveError::system("make an epoll instance", error))?;
        let channels = propose::open(plan, target.meta, &mut poll)?;
        Ok(Run {
            plan,
            target: target.mqtt,
            clock: Clock { t0_ns: 0 },
            poll,
            channels,
            events: Vec::with_capacity(256),
            links: (0..plan.connections.len()).map(|_| Link::new()).collect(),
            samples: Samples::new(plan.ops.len()),
            look: Look::new(),
            successor,
            cursor: 0,
            queue: VecDeque::with_capacity(plan.connections.len()),
            unread: VecDeque::with_capacity(plan.connections.len()),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            unresolved: plan.ops.len(),
            last_input_ns: 0,
            parting: false,
            reached: false,
            refused: false,
            faults: Faults::default(),
            spin: options.spin,
            drain_ns: options.drain_ns,
            settles: plan.ops.iter().any(|op| op.kind == Kind::Subscribe),
        })
    }

    /// Runs the plan to its end.
    pub(super) fn run(mut self) -> Result<Measured, DriveError> {
        let cpu_before_ns = thread_cpu_ns();
        self.clock.t0_ns = monotonic_ns() + LEAD_NS;
        self.clock.wait_for_t0(if self.spin { SPIN_NS } else { 0 });
        let stop_ns = self.plan.duration_ns().saturating_add(self.drain_ns);
        loop {
            let now = self.clock.now();
            self.release(now);
            self.send_queued();
            let now = self.clock.now();
            if self.is_done(now) || now >= stop_ns {
                break;
            }
            if self.refused && !self.reached {
                return Err(DriveError::Refused { target: self.target });
            }
            self.turn(self.next_deadline_ns(stop_ns))?;
        }
        self.part()?;
        Ok(Measured {
            t0_ns: self.clock.t0_ns,
            cpu_ns: thread_cpu_ns().saturating_sub(cpu_before_ns),
            run_delay_ns: self.look.run_delay_ns(),
            samples: self.samples,
            links: self.links,
            channels: self.channels.iter_mut().map(|channel| std::mem::take(&mut channel.opened)).collect(),
            faults: self.faults,
        })
    }

    /// Waits until `deadline_ns` at the longest and handles what arrived.
    fn turn(&mut self, deadline_ns: u64) -> Result<(), DriveError> {
        let busy = !self.queue.is_empty() || !self.unread.is_empty();
        let margin_ns = if self.spin { SPIN_NS } else { 0 };
        let wake_ns = deadline_ns.saturating_sub(margin_ns);
        let entered_ns = self.clock.now();
        let sleeps = !busy && entered_ns < wake_ns;
        let until_ns = sleeps.then(|| self.clock.t0_ns.saturating_add(wake_ns));
        let events = self.poll.wait(until_ns).map_err(|error| DriveError::system("wait for events", error))?;
        self.look.looked(entered_ns, self.clock.now());
        for index in 0..events {
            let event = self.poll.event(index);
            if event.token >= self.links.len() {
                self.pump(event.token - self.links.len());
                self.send_if_due();
                continue;
            }
            if event.writable {
                self.became_writable(event.token);
            }
            if event.readable {
                self.read(event.token, event.ending);
            }
            self.send_if_due();
        }
        for _ in 0..self.unread.len() {
            if let Some(index) = self.unread.pop_front() {
                // To the end: the edge that told of it has been taken.
                self.read(index as usize, true);
                self.send_if_due();
            }
        }
        self.look.passed(&mut self.samples.read_lag_ns);
        Ok(())
    }

    fn send_if_due(&mut self) {
        let next_ns = self.plan.ops.get(self.cursor).map_or(NEVER, |op| op.planned_ns);
        let now = self.clock.now();
        if !self.parting && next_ns <= now {
            self.release(now);
            self.send_queued();
        }
    }

    /// Hands every request whose time has come to its connection.
    fn release(&mut self, now: u64) {
        while let Some(op) = self.plan.ops.get(self.cursor).filter(|op| op.planned_ns <= now) {
            let index = op.connection as usize;
            if op.kind == Kind::RaftProposal {
                self.propose(self.cursor);
                self.cursor += 1;
                continue;
            }
            let link = &mut self.links[index];
            link.due += 1;
            match link.phase {
                Phase::Idle => {
                    let previous = self.plan.connections[index].after;
                    if previous.is_none_or(|previous| self.links[previous as usize].phase == Phase::Ended) {
                        self.links[index].phase = Phase::Ready;
                        self.enqueue(index);
                    } else {
                        self.links[index].phase = Phase::Waiting;
                    }
                }
                Phase::Ready | Phase::Open => self.enqueue(index),
                Phase::Waiting => {}
                Phase::Ended if op.kind == Kind::Close => self.closed_already(self.cursor, now),
                Phase::Ended => {}
            }
            self.cursor += 1;
        }
    }

    pub(super) fn enqueue(&mut self, index: usize) {
        let link = &mut self.links[index];
        if !link.queued {
            link.queued = true;
            self.queue.push_back(index as u32);
        }
    }

    fn send_queued(&mut self) {
        for _ in 0..SENDS_PER_TURN {
            let Some(index) = self.queue.pop_front() else { return };
            let index = index as usize;
            if index >= self.links.len() {
                self.pump(index - self.links.len());
                continue;
            }
            self.links[index].queued = false;
            self.send(index);
        }
    }

    /// A close that is due on a connection that has ended: there is nothing left to do, and it is done.
    fn closed_already(&mut self, op: usize, now: u64) {
        if !self.samples.state[op].is_final() {
            self.samples.sent_ns[op] = now;
            self.resolve(op, State::Right);
        }
    }

    pub(super) fn resolve(&mut self, op: usize, state: State) {
        self.samples.state[op] = state;
        self.unresolved -= 1;
    }

    /// The connection is over, for whatever reason.
    pub(super) fn end(&mut self, index: usize, fault: Option<String>) {
        let now = self.clock.now();
        let link = &mut self.links[index];
        link.socket = None;
        link.phase = Phase::Ended;
        let due = link.due;
        if let Some(fault) = fault
            && !self.parting
        {
            self.faults.connections += 1;
            self.faults.first.get_or_insert(fault);
        }
        let connection = &self.plan.connections[index];
        for (position, &op) in connection.ops.iter().enumerate() {
            let op = op as usize;
            if self.samples.state[op].is_final() {
                continue;
            }
            if self.plan.ops[op].kind != Kind::Close {
                self.resolve(op, State::Abandoned);
            } else if position < due {
                self.closed_already(op, now);
            }
        }
        if let Some(next) = self.successor[index] {
            let next = next as usize;
            let link = &mut self.links[next];
            if link.phase == Phase::Waiting {
                link.phase = Phase::Ready;
                link.unhindered_ns = now;
                self.enqueue(next);
            }
        }
    }

    /// Everything was sent, every demanded reply is there, and deliveries have ceased.
    fn is_done(&self, now: u64) -> bool {
        self.cursor == self.plan.ops.len()
            && self.unresolved == 0
            && (!self.settles || now >= self.last_input_ns + SETTLE_NS)
    }

    fn next_deadline_ns(&self, stop_ns: u64) -> u64 {
        match self.plan.ops.get(self.cursor) {
            Some(op) => op.planned_ns,
            None if self.unresolved == 0 => stop_ns.min(self.last_input_ns + SETTLE_NS),
            None => stop_ns,
        }
    }

    /// Ends the connections that the plan leaves open: with a DISCONNECT, so that no will is published in a race with
    /// the server's own end, and so that the server has read all that was sent before it.
    fn part(&mut self) -> Result<(), DriveError> {
        self.parting = true;
        let deadline_ns = self.clock.now() + FAREWELL_NS;
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            if link.phase == Phase::Open && !link.shut {
                // What was held until now stays unsent.
                link.due = link.next + usize::from(link.written > 0);
                link.duties.extend([0xe0, 0x00]);
                self.enqueue(index);
            }
        }
        while self.links.iter().any(|link| link.phase == Phase::Open) && self.clock.now() < deadline_ns {
            self.send_queued();
            self.turn(deadline_ns)?;
        }
        self.channels.iter_mut().for_each(Channel::part);
        Ok(())
    }

    /// Whether the reply to `op` is demanded.
    pub(super) fn is_demanded(&self, op: usize) -> bool {
        let op = &self.plan.ops[op];
        op.reply != Reply::None && !op.optional
    }
}
