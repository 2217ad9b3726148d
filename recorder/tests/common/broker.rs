//! Just enough of an MQTT 3.1.1 broker and client to be at both ends of a tap, with blocking sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Accepts any number of clients and answers CONNECT, PUBLISH QoS 1 and PINGREQ, until the process ends.
pub fn start() -> SocketAddr {
    serve(|mut socket| {
        while let Ok((first, body)) = read_packet(&mut socket) {
            let reply = match first >> 4 {
                1 => vec![0x20, 2, 0, 0],
                3 if first & 6 == 2 => {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    vec![0x40, 2, body[2 + topic], body[3 + topic]]
                }
                12 => vec![0xD0, 0],
                _ => continue,
            };
            if socket.write_all(&reply).is_err() {
                return;
            }
        }
    })
}

/// Accepts any number of connections and gives each to `session` on a thread of its own.
pub fn serve(session: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let session = session.clone();
            std::thread::spawn(move || session(socket));
        }
    });
    addr
}

/// First byte and body of the next packet.
pub fn read_packet(socket: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    socket.read_exact(&mut byte)?;
    let first = byte[0];
    let (mut length, mut shift) = (0usize, 0);
    loop {
        socket.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7F) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    Ok((first, body))
}

pub fn connect_packet(client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60];
    push_string(&mut body, client_id);
    packet(0x10, &body)
}

pub fn publish_packet(topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    push_string(&mut body, topic);
    body.extend_from_slice(&id.to_be_bytes());
    body.extend_from_slice(payload);
    packet(0x32, &body)
}

fn push_string(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let byte = (rest % 128) as u8;
        rest /= 128;
        out.push(if rest > 0 { byte | 0x80 } else { byte });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// A client that has its CONNACK.
pub fn client(addr: SocketAddr, client_id: &str) -> TcpStream {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(super::PATIENCE)).unwrap();
    socket.write_all(&connect_packet(client_id)).unwrap();
    assert_eq!(read_packet(&mut socket).unwrap(), (0x20, vec![0, 0]));
    socket
}

/// Publishes with QoS 1 and waits for the PUBACK.
pub fn publish(socket: &mut TcpStream, topic: &str, id: u16, payload: &[u8]) {
    socket.write_all(&publish_packet(topic, id, payload)).unwrap();
    assert_eq!(read_packet(socket).unwrap(), (0x40, id.to_be_bytes().to_vec()));
}
