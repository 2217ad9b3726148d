//! A cheap closed-loop MQTT 3.1.1 client: many connections, one thread, a window of QoS 1 publishes on each.

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a run of the client saw.
pub struct Outcome {
    /// Publishes acknowledged in the measured time, per second.
    pub per_second: f64,
    /// For a person: what else is worth knowing.
    pub note: String,
}

/// What opening many connections saw.
pub struct Opened {
    pub connected: usize,
    pub acknowledged: usize,
    pub errors: usize,
    pub seconds: f64,
}

struct Conn {
    stream: TcpStream,
    out: Vec<u8>,
    written: usize,
    inbuf: Vec<u8>,
    next_id: u16,
    acked: u64,
    connected: bool,
    failed: bool,
    publish: Vec<u8>,
    id_at: usize,
}

/// Binds this thread to one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        Ok(())
    } else {
        Err(format!("cannot bind the client to CPU {cpu}").into())
    }
}

impl Conn {
    fn open(addr: SocketAddr, number: usize, payload: usize) -> Result<Conn> {
        let stream = TcpStream::connect(addr)?;
        let id = format!("bench{number:05}");
        let mut out = vec![0x10, (12 + id.len()) as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60];
        out.extend((id.len() as u16).to_be_bytes());
        out.extend(id.as_bytes());
        let topic = format!("bench/{:02}", number % 64);
        let mut publish = vec![0x32];
        let mut left = 2 + topic.len() + 2 + payload;
        loop {
            let digit = (left % 128) as u8;
            left /= 128;
            publish.push(if left > 0 { digit | 0x80 } else { digit });
            if left == 0 {
                break;
            }
        }
        publish.extend((topic.len() as u16).to_be_bytes());
        publish.extend(topic.as_bytes());
        let id_at = publish.len();
        publish.extend([0, 0]);
        publish.resize(publish.len() + payload, b'x');
        Ok(Conn {
            stream,
            out,
            written: 0,
            inbuf: Vec::new(),
            next_id: 1,
            acked: 0,
            connected: false,
            failed: false,
            publish,
            id_at,
        })
    }

    fn queue_publishes(&mut self, n: usize) {
        for _ in 0..n {
            let start = self.out.len();
            self.out.extend_from_slice(&self.publish);
            self.out[start + self.id_at..start + self.id_at + 2].copy_from_slice(&self.next_id.to_be_bytes());
            self.next_id = if self.next_id == u16::MAX { 1 } else { self.next_id + 1 };
        }
    }

    fn flush(&mut self) {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock || e.kind() == ErrorKind::NotConnected => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.failed = true;
                    return;
                }
            }
        }
        self.out.clear();
        self.written = 0;
    }

    /// Reads what is there; returns the number of PUBACKs.
    fn read(&mut self, buf: &mut [u8]) -> usize {
        let mut acks = 0;
        loop {
            match self.stream.read(buf) {
                Ok(0) => {
                    self.failed = true;
                    return acks;
                }
                Ok(n) => {
                    self.inbuf.extend_from_slice(&buf[..n]);
                    let short = n < buf.len();
                    // CONNACK and PUBACK are both four bytes in MQTT 3.1.1.
                    let whole = self.inbuf.len() / 4 * 4;
                    for packet in self.inbuf[..whole].chunks_exact(4) {
                        match packet[0] {
                            0x20 if packet[3] == 0 => self.connected = true,
                            0x40 => acks += 1,
                            _ => self.failed = true,
                        }
                    }
                    self.inbuf.drain(..whole);
                    if short {
                        return acks;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock || e.kind() == ErrorKind::NotConnected => return acks,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.failed = true;
                    return acks;
                }
            }
        }
    }
}

struct Fleet {
    poll: Poll,
    conns: Vec<Conn>,
}

impl Fleet {
    fn open(addr: SocketAddr, clients: usize, payload: usize) -> Result<Fleet> {
        let poll = Poll::new()?;
        let mut conns = Vec::with_capacity(clients);
        for i in 0..clients {
            let mut conn = Conn::open(addr, i, payload)?;
            poll.registry().register(&mut conn.stream, Token(i), Interest::READABLE | Interest::WRITABLE)?;
            conns.push(conn);
        }
        let mut fleet = Fleet { poll, conns };
        fleet.turn_until(Duration::from_secs(20), |conns| conns.iter().all(|c| c.connected || c.failed), 0)?;
        Ok(fleet)
    }

    /// Runs the event loop until `done` or `limit`; every PUBACK is answered with a new publish when `window` > 0.
    fn turn_until(&mut self, limit: Duration, done: impl Fn(&[Conn]) -> bool, window: usize) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buf = vec![0; 65536];
        let end = Instant::now() + limit;
        while !done(&self.conns) {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            match self.poll.poll(&mut events, Some((end - now).min(Duration::from_millis(100)))) {
                Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e.into()),
                _ => {}
            }
            for event in &events {
                let conn = &mut self.conns[event.token().0];
                if event.is_readable() {
                    let acks = conn.read(&mut buf);
                    conn.acked += acks as u64;
                    if window > 0 {
                        conn.queue_publishes(acks);
                    }
                }
                conn.flush();
            }
        }
        Ok(())
    }

    fn acked(&self) -> u64 {
        self.conns.iter().map(|c| c.acked).sum()
    }
}

/// Saturates the broker and counts acknowledgements after half a second of warm-up.
pub fn rate(addr: SocketAddr, clients: usize, window: usize, payload: usize, seconds: f64) -> Result<Outcome> {
    let mut fleet = Fleet::open(addr, clients, payload)?;
    if let Some(i) = fleet.conns.iter().position(|c| !c.connected) {
        return Err(format!("client {i} was not connected").into());
    }
    for conn in &mut fleet.conns {
        conn.queue_publishes(window);
        conn.flush();
    }
    fleet.turn_until(Duration::from_millis(500), |_| false, window)?;
    let (before, start) = (fleet.acked(), Instant::now());
    fleet.turn_until(Duration::from_secs_f64(seconds), |_| false, window)?;
    let per_second = (fleet.acked() - before) as f64 / start.elapsed().as_secs_f64();
    match fleet.conns.iter().filter(|c| c.failed).count() {
        0 => Ok(Outcome { per_second, note: String::new() }),
        n => Err(format!("{n} of {clients} connections broke").into()),
    }
}

/// Opens all connections, and publishes once on each while all are open.
pub fn open_many(addr: SocketAddr, clients: usize) -> Result<Opened> {
    let start = Instant::now();
    let mut fleet = Fleet::open(addr, clients, 16)?;
    let connected = fleet.conns.iter().filter(|c| c.connected && !c.failed).count();
    for conn in &mut fleet.conns {
        conn.queue_publishes(1);
        conn.flush();
    }
    fleet.turn_until(Duration::from_secs(20), |conns| conns.iter().all(|c| c.acked >= 1 || c.failed), 0)?;
    let acknowledged = fleet.conns.iter().filter(|c| c.acked >= 1 && !c.failed).count();
    Ok(Opened { connected, acknowledged, errors: clients - acknowledged, seconds: start.elapsed().as_secs_f64() })
}
