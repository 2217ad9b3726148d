//! A server that answers as its test wants, on threads, and remembers what it saw.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One thing that happened, in the order in which the server saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Opened(usize),
    Packet(usize, Vec<u8>),
    Closed(usize),
}

/// A connection from the server's side; replies are written through it.
pub struct Peer {
    pub number: usize,
    pub v5: bool,
    stream: TcpStream,
    open: bool,
}

impl Peer {
    pub fn say(&mut self, bytes: &[u8]) {
        self.open &= self.stream.write_all(bytes).is_ok();
    }

    pub fn close(&mut self) {
        self.open = false;
    }

    /// What a broker without faults answers.
    pub fn answer(&mut self, packet: &[u8]) {
        match packet[0] >> 4 {
            1 if self.v5 => self.say(&[0x20, 3, 0, 0, 0]),
            1 => self.say(&[0x20, 2, 0, 0]),
            3 => match packet[0] >> 1 & 3 {
                0 => {}
                1 => self.acknowledge(0x40, id_of(packet)),
                _ => self.acknowledge(0x50, id_of(packet)),
            },
            5 => self.acknowledge(0x62, id_of(packet)),
            6 => self.acknowledge(0x70, id_of(packet)),
            8 => {
                let [high, low] = id_of(packet).to_be_bytes();
                if self.v5 { self.say(&[0x90, 4, high, low, 0, 1]) } else { self.say(&[0x90, 3, high, low, 1]) }
            }
            10 => {
                let [high, low] = id_of(packet).to_be_bytes();
                if self.v5 { self.say(&[0xb0, 4, high, low, 0, 0]) } else { self.say(&[0xb0, 2, high, low]) }
            }
            12 => self.say(&[0xd0, 0]),
            14 => self.close(),
            _ => {}
        }
    }

    pub fn acknowledge(&mut self, first: u8, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.say(&[first, 2, high, low]);
    }
}

/// The packet id of a packet that has one.
pub fn id_of(packet: &[u8]) -> u16 {
    let body = packet.iter().skip(1).position(|byte| byte & 0x80 == 0).unwrap() + 2;
    let at = match packet[0] >> 4 {
        3 => body + 2 + usize::from(u16::from_be_bytes([packet[body], packet[body + 1]])),
        _ => body,
    };
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    ports: Arc<Mutex<Vec<u16>>>,
}

impl Server {
    /// Answers every packet by `answer`; `on_open` is called with each new socket before it is read.
    pub fn start_with(
        on_open: impl Fn(&TcpStream) + Send + Sync + 'static,
        answer: impl Fn(&mut Peer, &[u8]) + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let ports = Arc::new(Mutex::new(Vec::new()));
        let peers = Arc::clone(&ports);
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { continue };
                on_open(&stream);
                peers.lock().unwrap().push(stream.peer_addr().map_or(0, |peer| peer.port()));
                log.lock().unwrap().push(Seen::Opened(number));
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                let thread = std::thread::Builder::new().stack_size(128 << 10);
                thread.spawn(move || serve(number, stream, &*answer, &log)).unwrap();
            }
        });
        Server { address, seen, ports }
    }

    pub fn start(answer: impl Fn(&mut Peer, &[u8]) + Send + Sync + 'static) -> Server {
        Server::start_with(|_| {}, answer)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The port that connection `number` came from.
    pub fn port(&self, number: usize) -> u16 {
        self.ports.lock().unwrap()[number]
    }

    /// The bytes of connection `number`.
    pub fn bytes(&self, number: usize) -> Vec<u8> {
        let packets = self.packets(number);
        packets.concat()
    }

    pub fn packets(&self, number: usize) -> Vec<Vec<u8>> {
        self.seen()
            .into_iter()
            .filter_map(|seen| match seen {
                Seen::Packet(from, bytes) if from == number => Some(bytes),
                _ => None,
            })
            .collect()
    }
}

fn serve(number: usize, stream: TcpStream, answer: &dyn Fn(&mut Peer, &[u8]), log: &Mutex<Vec<Seen>>) {
    stream.set_nodelay(true).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let mut peer = Peer { number, v5: false, stream, open: true };
    while peer.open {
        let Some(packet) = read_packet(&mut reader) else { break };
        log.lock().unwrap().push(Seen::Packet(number, packet.clone()));
        if packet[0] >> 4 == 1 {
            peer.v5 = packet[2..].windows(5).find(|w| w.starts_with(b"MQTT")).unwrap()[4] == 5;
        }
        answer(&mut peer, &packet);
    }
    log.lock().unwrap().push(Seen::Closed(number));
}

fn read_packet(reader: &mut impl Read) -> Option<Vec<u8>> {
    let mut packet = vec![0; 1];
    reader.read_exact(&mut packet).ok()?;
    let mut remaining = 0;
    for shift in 0..4 {
        let mut byte = [0];
        reader.read_exact(&mut byte).ok()?;
        packet.push(byte[0]);
        remaining |= usize::from(byte[0] & 0x7f) << (7 * shift);
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let head = packet.len();
    packet.resize(head + remaining, 0);
    reader.read_exact(&mut packet[head..]).ok()?;
    Some(packet)
}

pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}
