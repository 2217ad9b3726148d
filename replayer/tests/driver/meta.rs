//! A meta-service that answers as its test wants: HTTP/2 on a thread of its own. It shares nothing with the driver but
//! the frames' definition.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use prost::Message;
use regauge_runtimes::meta::proto::{ProposeReply, ProposeRequest, Reply};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// A proposal as the server got it.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Ordinal over all connections.
    pub number: usize,
    pub connection: usize,
    pub path: String,
    pub request: ProposeRequest,
}

/// What it does about one.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Right,
    /// Only trailers, as gRPC refuses.
    Status(u8),
    /// This message, and OK.
    Message(Vec<u8>),
    /// A right message without a status.
    Mute,
    Reset,
    /// Holds it until so many were asked.
    Until(usize),
    Never,
}

/// How it is set up.
#[derive(Clone, Default)]
pub struct Limits {
    pub streams_max: Option<u32>,
    pub window: Option<u32>,
    /// Takes leave in order after so many proposals of a connection.
    pub leave_after: Option<usize>,
    /// Drops the connection after so many.
    pub drop_after: Option<usize>,
}

pub struct Meta {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Asked>>>,
}

type Decide = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

impl Meta {
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Meta {
        Meta::with(Limits::default(), answer)
    }

    pub fn with(limits: Limits, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Meta {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, decide): (_, Decide) = (Arc::clone(&seen), Arc::new(answer));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                for connection in 0.. {
                    let (socket, _) = listener.accept().await.unwrap();
                    socket.set_nodelay(true).unwrap();
                    let (log, decide, limits) = (Arc::clone(&log), Arc::clone(&decide), limits.clone());
                    tokio::spawn(serve(connection, socket, limits, log, decide));
                }
            });
        });
        Meta { address, seen }
    }

    pub fn seen(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(
    connection: usize,
    socket: tokio::net::TcpStream,
    limits: Limits,
    log: Arc<Mutex<Vec<Asked>>>,
    decide: Decide,
) {
    let mut builder = h2::server::Builder::new();
    if let Some(max) = limits.streams_max {
        builder.max_concurrent_streams(max);
    }
    if let Some(window) = limits.window {
        builder.initial_window_size(window);
    }
    let Ok(mut wire) = builder.handshake::<_, Bytes>(socket).await else { return };
    let mut accepted = 0;
    while let Some(Ok((request, respond))) = wire.accept().await {
        accepted += 1;
        if limits.drop_after == Some(accepted) {
            return;
        }
        if limits.leave_after == Some(accepted) {
            wire.graceful_shutdown();
        }
        tokio::spawn(one(connection, request, respond, Arc::clone(&log), Arc::clone(&decide)));
    }
}

async fn one(
    connection: usize,
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    log: Arc<Mutex<Vec<Asked>>>,
    decide: Decide,
) {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    let request = ProposeRequest::decode(&bytes[5..]).unwrap();
    let calls = request.calls.len();
    let asked = {
        let mut log = log.lock().unwrap();
        let asked = Asked { number: log.len(), connection, path: head.uri.path().to_owned(), request };
        log.push(asked.clone());
        asked
    };
    let answer = decide(&asked);
    let head = || Response::builder().header("content-type", "application/grpc");
    match answer {
        Answer::Never => return std::future::pending().await,
        Answer::Reset => return respond.send_reset(h2::Reason::INTERNAL_ERROR),
        Answer::Status(status) => {
            respond.send_response(head().header("grpc-status", status.to_string()).body(()).unwrap(), true).unwrap();
            return;
        }
        Answer::Until(many) => {
            while log.lock().unwrap().len() < many {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        _ => {}
    }
    let message = match &answer {
        Answer::Message(message) => Bytes::from(message.clone()),
        _ => framed(&ProposeReply { replies: vec![Reply { kept: None }; calls] }),
    };
    let Ok(mut stream) = respond.send_response(head().body(()).unwrap(), false) else { return };
    stream.send_data(message, false).ok();
    let mut trailers = HeaderMap::new();
    if answer != Answer::Mute {
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
    }
    stream.send_trailers(trailers).ok();
}

/// A gRPC message with its prefix.
pub fn framed(reply: &ProposeReply) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(reply.encoded_len() as u32);
    reply.encode(&mut bytes).unwrap();
    bytes.freeze()
}
