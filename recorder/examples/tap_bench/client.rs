//! A blocking MQTT 3.1.1 publisher with as little of its own as possible between two clock readings.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const PAYLOAD: [u8; 64] = [b'x'; 64];
const TOPIC: &str = "bench/tap";

/// How long a reply may take before the measurement is given up.
pub const TIMEOUT: Duration = Duration::from_secs(30);

pub struct Client {
    socket: TcpStream,
    next_id: u16,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(addr).expect("the broker accepts connections");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        // Clean session, keep-alive off, an id that the broker chooses.
        socket.write_all(&[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 0]).expect("CONNECT");
        let mut connack = [0; 4];
        socket.read_exact(&mut connack).expect("CONNACK");
        assert_eq!(connack, [0x20, 2, 0, 0], "the broker refuses");
        Self { socket, next_id: 0 }
    }

    /// One QoS 1 publish, from before its write to after its PUBACK.
    pub fn round_trip(&mut self) -> Duration {
        let packet = self.publish(1);
        let mut puback = [0; 4];
        let start = Instant::now();
        self.socket.write_all(&packet).expect("PUBLISH");
        self.socket.read_exact(&mut puback).expect("PUBACK");
        let elapsed = start.elapsed();
        assert_eq!(puback[..2], [0x40, 2], "not a PUBACK");
        assert_eq!(puback[2..], self.next_id.to_be_bytes(), "another message's PUBACK");
        elapsed
    }

    /// `n` QoS 1 publishes with at most `window` of them in flight; each PUBACK sends the next.
    pub fn window(&mut self, n: usize, window: usize) -> Duration {
        let start = Instant::now();
        let (mut sent, mut acked, mut odd) = (0, 0, 0);
        let mut acks = [0; 4096];
        while acked < n {
            let mut batch = Vec::new();
            while sent < n && sent - acked < window {
                batch.extend_from_slice(&self.publish(1));
                sent += 1;
            }
            self.socket.write_all(&batch).expect("PUBLISH");
            let got = self.socket.read(&mut acks).expect("PUBACK");
            assert!(got > 0, "the broker closed the connection");
            odd += got;
            acked += odd / 4;
            odd %= 4;
        }
        start.elapsed()
    }

    /// `n` QoS 0 publishes as fast as they are taken, until the broker has answered a PINGREQ behind them.
    pub fn flood(&mut self, n: usize) -> Duration {
        let packet = self.publish(0);
        let batch = packet.repeat(200);
        let start = Instant::now();
        for _ in 0..n / 200 {
            self.socket.write_all(&batch).expect("PUBLISH");
        }
        self.socket.write_all(&packet.repeat(n % 200)).expect("PUBLISH");
        self.socket.write_all(&[0xC0, 0]).expect("PINGREQ");
        let mut pingresp = [0; 2];
        self.socket.read_exact(&mut pingresp).expect("PINGRESP");
        assert_eq!(pingresp, [0xD0, 0], "not a PINGRESP");
        start.elapsed()
    }

    fn publish(&mut self, qos: u8) -> Vec<u8> {
        let mut packet = vec![0x30 | qos << 1, 0, 0, TOPIC.len() as u8];
        packet.extend_from_slice(TOPIC.as_bytes());
        if qos > 0 {
            self.next_id = self.next_id.wrapping_add(1).max(1);
            packet.extend_from_slice(&self.next_id.to_be_bytes());
        }
        packet.extend_from_slice(&PAYLOAD);
        packet[1] = (packet.len() - 2) as u8;
        packet
    }
}
