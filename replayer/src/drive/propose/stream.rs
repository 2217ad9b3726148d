//! One proposal under way: an HTTP/2 stream, from its request to the trailer that ends the reply.

use h2::RecvStream;
use h2::client::ResponseFuture;
use http::{HeaderMap, StatusCode};
use prost::Message;
use regauge_runtimes::meta::proto::ProposeReply;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A longer reply is none: the meta-service's messages are far shorter, bytes.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// Flag byte and length of a gRPC message.
const PREFIX_BYTES: usize = 5;

/// gRPC's status of a reply that says none.
const UNKNOWN: u8 = 2;

/// How a proposal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a reply.
    Replied {
        /// gRPC status.
        status: u8,
        /// It is OK, and the message answers every call.
        right: bool,
    },
    /// The server took leave before it looked at it: it may be sent again.
    NotTaken,
    /// Without a reply: the stream was reset, or its connection ended.
    Failed,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) op: u32,
    /// The connection that it is on.
    pub(super) wire: u64,
    /// Calls that the reply has to answer.
    pub(super) calls: usize,
    stage: Stage,
    body: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    Head(ResponseFuture),
    Body(RecvStream),
}

impl Stream {
    pub(super) fn new(op: u32, wire: u64, calls: usize, response: ResponseFuture) -> Stream {
        Stream { op, wire, calls, stage: Stage::Head(response), body: Vec::new() }
    }

    /// Goes on as far as what has arrived allows.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            match &mut self.stage {
                Stage::Head(response) => {
                    let response = match ready!(Pin::new(response).poll(cx)) {
                        Ok(response) => response,
                        Err(error) => return Poll::Ready(failed(&error)),
                    };
                    let (head, body) = response.into_parts();
                    if head.status != StatusCode::OK {
                        return Poll::Ready(End::Replied { status: UNKNOWN, right: false });
                    }
                    if body.is_end_stream() {
                        // Only trailers, which is how gRPC says no.
                        return Poll::Ready(self.end(&head.headers));
                    }
                    self.stage = Stage::Body(body);
                }
                Stage::Body(body) => match ready!(body.poll_data(cx)) {
                    Some(Ok(data)) => {
                        // Else the server's window closes for good.
                        body.flow_control().release_capacity(data.len()).ok();
                        if self.body.len() + data.len() > REPLY_BYTES_MAX {
                            return Poll::Ready(End::Replied { status: UNKNOWN, right: false });
                        }
                        self.body.extend_from_slice(&data);
                    }
                    Some(Err(error)) => return Poll::Ready(failed(&error)),
                    None => {
                        let trailers = match ready!(body.poll_trailers(cx)) {
                            Ok(trailers) => trailers.unwrap_or_default(),
                            Err(error) => return Poll::Ready(failed(&error)),
                        };
                        return Poll::Ready(self.end(&trailers));
                    }
                },
            }
        }
    }

    fn end(&self, trailers: &HeaderMap) -> End {
        let status = trailers.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
        End::Replied { status: status.unwrap_or(UNKNOWN), right: status == Some(0) && self.is_answered() }
    }

    /// One message, uncompressed, with a reply to each call.
    fn is_answered(&self) -> bool {
        let Some((prefix, message)) = self.body.split_at_checked(PREFIX_BYTES) else { return false };
        let length = prefix.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        // A flag byte other than 0 makes the length another one.
        length == message.len() as u64
            && ProposeReply::decode(message).is_ok_and(|reply| reply.replies.len() == self.calls)
    }
}

/// Whether the server took leave in order: what it has not begun it never will.
pub(super) fn is_leave(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

fn failed(error: &h2::Error) -> End {
    if is_leave(error) { End::NotTaken } else { End::Failed }
}
