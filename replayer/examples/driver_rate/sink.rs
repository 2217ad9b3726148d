//! A server that swallows publishes as fast as it can and notes when each arrived.
//!
//! One thread that never sleeps, so that its own wake-ups do not blur the arrivals; it wants a CPU of its own. It
//! answers what clients of MQTT 3.1.1 and 5 need to go on publishing, and nothing else.

use regauge_replayer::drive::poll::{Poll, monotonic_ns};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// When the publishes of each connection arrived, ns on CLOCK_MONOTONIC.
pub type Arrivals = Vec<Vec<u64>>;

/// Token of the listening socket.
const LISTENER: usize = usize::MAX - 1;

/// A running sink.
pub struct Sink {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Arrivals>>,
}

struct Peer {
    stream: TcpStream,
    v5: bool,
    /// Bytes of a packet whose head is not complete.
    head: Vec<u8>,
    /// Bytes of a publish that are still to come.
    skip: usize,
    arrivals: Vec<u64>,
}

impl Sink {
    pub fn start(cpu: Option<usize>) -> Result<Sink, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("sink".to_owned()).spawn(move || {
            if let Some(cpu) = cpu {
                let mut cpus = rustix::thread::CpuSet::new();
                cpus.set(cpu);
                rustix::thread::sched_setaffinity(None, &cpus)?;
            }
            swallow(&listener, &stopped)
        })?;
        Ok(Sink { address, stop, thread })
    }

    pub fn stop(self) -> Result<Arrivals, Box<dyn Error>> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.thread.join().map_err(|_| "the sink failed")??)
    }
}

fn swallow(listener: &TcpListener, stop: &AtomicBool) -> std::io::Result<Arrivals> {
    let mut poll = Poll::new()?;
    poll.add(listener, LISTENER)?;
    let mut peers: HashMap<usize, Peer> = HashMap::new();
    let mut arrivals = Vec::new();
    let mut next = 0;
    let mut buffer = vec![0; 1 << 18];
    while !stop.load(Ordering::Relaxed) {
        for index in 0..poll.wait(None)? {
            let event = poll.event(index);
            if event.token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    poll.add(&stream, next)?;
                    let arrivals = Vec::with_capacity(1 << 20);
                    peers.insert(next, Peer { stream, v5: false, head: Vec::new(), skip: 0, arrivals });
                    next += 1;
                }
            } else if event.readable
                && let Some(peer) = peers.get_mut(&event.token)
                && !peer.read(&mut buffer)?
                && let Some(peer) = peers.remove(&event.token)
            {
                arrivals.push(peer.arrivals);
            }
        }
    }
    arrivals.extend(peers.into_values().map(|peer| peer.arrivals));
    Ok(arrivals)
}

impl Peer {
    /// Reads to the end of what there is; false when the connection is over.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<bool> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(bytes) => {
                    let now = monotonic_ns();
                    if !self.take(&buffer[..bytes], now)? {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(false),
            }
        }
    }

    fn take(&mut self, mut input: &[u8], now: u64) -> std::io::Result<bool> {
        while !input.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(input.len());
                self.skip -= skipped;
                input = &input[skipped..];
                continue;
            }
            self.head.push(input[0]);
            input = &input[1..];
            let Some((remaining, at)) = remaining(&self.head) else { continue };
            let kind = self.head[0] >> 4;
            // Only the head of a QoS 0 publish matters; other packets are gathered whole.
            if kind == 3 && self.head[0] & 6 == 0 {
                self.arrivals.push(now);
                self.head.clear();
                self.skip = remaining;
                continue;
            }
            let rest = (at + remaining).saturating_sub(self.head.len()).min(input.len());
            self.head.extend_from_slice(&input[..rest]);
            input = &input[rest..];
            if self.head.len() < at + remaining {
                return Ok(true);
            }
            let packet = std::mem::take(&mut self.head);
            if !self.answer(&packet, at)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn answer(&mut self, packet: &[u8], at: usize) -> std::io::Result<bool> {
        match packet[0] >> 4 {
            1 => {
                self.v5 = packet.get(at + 6) == Some(&5);
                self.stream.write_all(if self.v5 { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] })?;
            }
            12 => self.stream.write_all(&[0xd0, 0])?,
            14 => return Ok(false),
            other => return Err(std::io::Error::other(format!("the sink has no answer to packet type {other}"))),
        }
        Ok(true)
    }
}

/// Remaining length and where the body begins, when the head is long enough to tell.
fn remaining(head: &[u8]) -> Option<(usize, usize)> {
    let last = head.iter().skip(1).position(|byte| byte & 0x80 == 0)? + 1;
    Some((head[1..=last].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f)), last + 1))
}

/// Rate and lateness of the arrivals; see the crate's page. The first `skip_s` seconds do not count.
pub fn findings(arrivals: &Arrivals, rate: f64, connections: u32, skip_s: f64) -> Value {
    let publishing: Vec<&Vec<u64>> = arrivals.iter().filter(|times| times.len() > 1).collect();
    let first = publishing.iter().filter_map(|times| times.first()).min().copied().unwrap_or(0);
    let from = first + (skip_s * 1e9) as u64;
    let measured: Vec<Vec<u64>> =
        publishing.iter().map(|times| times.iter().copied().filter(|time| *time >= from).collect()).collect();
    let count: usize = measured.iter().map(Vec::len).sum();
    let last = measured.iter().filter_map(|times| times.last()).max().copied().unwrap_or(from);
    let per_s = count as f64 * 1e9 / last.saturating_sub(from).max(1) as f64;
    if rate == 0.0 {
        return json!({ "arrived": count, "arrived_per_s": per_s });
    }
    let interval_ns = f64::from(connections) * 1e9 / rate;
    let mut late: Vec<u64> = Vec::with_capacity(count);
    for times in &measured {
        let Some(origin) = times.first() else { continue };
        let errors = || times.iter().zip(0..).map(|(time, k)| (time - origin) as f64 - f64::from(k) * interval_ns);
        let best = errors().fold(f64::INFINITY, f64::min);
        late.extend(errors().map(|error| (error - best) as u64));
    }
    late.sort_unstable();
    let quantile = |ppm: u64| {
        let rank = (late.len() as u64 * ppm).div_ceil(1_000_000).max(1) - 1;
        late.get(rank as usize).copied().unwrap_or(0)
    };
    json!({
        "arrived": count,
        "arrived_per_s": per_s,
        "late_ns": {
            "p50": quantile(500_000), "p99": quantile(990_000), "p99_9": quantile(999_000),
            "max": late.last().copied().unwrap_or(0),
        },
    })
}
