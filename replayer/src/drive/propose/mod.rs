//! Proposals: gRPC to the meta-service, driven by hand inside the driver's own loop.
//!
//! [`crate::plan::PROPOSAL_CHANNELS`] HTTP/2 connections are opened before t0. Each proposal is one stream, begun at its
//! planned time whether or not earlier ones were answered; what the server's limits (streams at once, windows) hold
//! back waits, and its latency counts on. No runtime is involved: the `h2` crate's futures are polled when epoll or a
//! waker says so ([`wire`]).
//!
//! A server may take leave (GOAWAY, no error) after it has answered something: what it has begun is awaited, what it
//! has not is sent again on a new connection, as gRPC's own clients do. A connection that ends in any other way is a
//! fault, and its channel stays closed, as an MQTT connection does.
//!
//! Left out: TLS, compression, and deadlines (the driver's own drain ends the wait).

mod channel;
mod stream;
mod wire;

pub(super) use channel::{Channel, Event};

use super::DriveError;
use super::poll::{Poll, monotonic_ns};
use super::run::Run;
use super::samples::{NEVER, State};
use crate::plan::Plan;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;

/// How long the meta-service may take to show that it speaks HTTP/2, ns.
const OPEN_NS: u64 = 5_000_000_000;

/// How often that is looked at, ns, besides when something arrives.
const LOOK_NS: u64 = 50_000_000;

/// Opens the channels that the plan needs; their epoll tokens follow the connections'.
pub(super) fn open(plan: &Plan, meta: Option<SocketAddr>, poll: &mut Poll) -> Result<Vec<Channel>, DriveError> {
    if plan.channels == 0 {
        return Ok(Vec::new());
    }
    let Some(meta) = meta else { return Err(DriveError::NoMeta) };
    let first = plan.connections.len();
    // At random: the same plan against the same server is another run's, and not the same proposals again.
    let caller = RandomState::new().build_hasher().finish();
    let tokens = first..first + plan.channels as usize;
    let mut channels: Vec<Channel> = tokens.map(|token| Channel::new(meta, token, caller)).collect();
    let deadline_ns = monotonic_ns() + OPEN_NS;
    channels.iter_mut().for_each(|channel| channel.connect(poll, 0));
    let mut events = Vec::new();
    loop {
        for channel in &mut channels {
            channel.pump(plan, poll, 0, &mut events);
            if let Some(error) = channel.broken() {
                return Err(refusal(meta, error));
            }
        }
        if channels.iter_mut().all(Channel::is_alive) {
            return Ok(channels);
        }
        let now = monotonic_ns();
        if now >= deadline_ns {
            return Err(DriveError::Meta { target: meta, why: "it does not answer".to_owned() });
        }
        poll.wait(Some(now + LOOK_NS)).map_err(|error| DriveError::system("wait for events", error))?;
    }
}

fn refusal(target: SocketAddr, why: &str) -> DriveError {
    if why.contains("refused") {
        return DriveError::Refused { target };
    }
    DriveError::Meta { target, why: why.to_owned() }
}

impl Run<'_> {
    /// A proposal's time has come.
    pub(super) fn propose(&mut self, op: usize) {
        let channel = self.plan.ops[op].connection as usize - self.links.len();
        if self.channels[channel].due(op as u32) {
            self.queue.push_back(self.plan.ops[op].connection);
        }
    }

    /// Sends and receives what is possible on a channel.
    pub(super) fn pump(&mut self, channel: usize) {
        let mut events = std::mem::take(&mut self.events);
        let t0_ns = self.clock.t0_ns;
        self.channels[channel].pump(self.plan, &self.poll, t0_ns, &mut events);
        for event in events.drain(..) {
            self.proposed(channel, event);
        }
        self.events = events;
    }

    fn proposed(&mut self, channel: usize, event: Event) {
        let samples = &mut self.samples;
        match event {
            Event::Tried { op, ns } => {
                samples.driver_lag_ns[op] = ns.saturating_sub(self.plan.ops[op].planned_ns);
            }
            Event::Sent { op, ns } if !samples.state[op].is_final() => {
                samples.sent_ns[op] = ns;
                samples.state[op] = State::InFlight;
            }
            Event::Replied { op, ns, status, right } if !samples.state[op].is_final() => {
                if samples.sent_ns[op] == NEVER {
                    // It answered before it had read all.
                    samples.sent_ns[op] = ns;
                }
                samples.replied_ns[op] = ns;
                samples.status[op] = status;
                samples.read_lag_ns[op] = self.look.replied(op, ns);
                self.resolve(op, if right { State::Right } else { State::Wrong });
            }
            Event::Failed { op } if !samples.state[op].is_final() => self.resolve(op, State::Abandoned),
            Event::Fault(why) if !self.parting => {
                self.faults.connections += 1;
                self.faults.first.get_or_insert(format!("channel {channel} to the meta-service: {why}"));
            }
            Event::Sent { .. } | Event::Replied { .. } | Event::Failed { .. } | Event::Fault(_) => {}
        }
    }
}

/// Where to send what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// MQTT.
    pub mqtt: SocketAddr,
    /// gRPC of the meta-service; needed when the trace has raft proposals.
    pub meta: Option<SocketAddr>,
}

impl From<SocketAddr> for Target {
    fn from(mqtt: SocketAddr) -> Target {
        Target { mqtt, meta: None }
    }
}
