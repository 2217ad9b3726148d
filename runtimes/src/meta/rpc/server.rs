//! The gRPC server: HTTP/2 by hyper, one task per connection and one per call, in front of a [`Core`].

use super::net::{Net, Tasks};
use super::{PROPOSAL_BYTES_MAX, RAFT_BYTES_MAX, convert, pb, status};
use crate::meta::api::{Core, ProposeError, RaftRpc};
use crate::shell;
use crate::stamps::{self, Mark, Role};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::service::TowerToHyperService;
use pb::meta_server::{Meta, MetaServer};
use pb::raft_server::{Raft, RaftServer};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::{Code, Request, Response, Status};
use tower_service::Service;

/// A running server.
#[derive(Debug)]
pub struct Server<N> {
    tasks: Tasks<N>,
    listener: TcpListener,
}

impl<N: Net> Server<N> {
    /// Serves `core` on `listener`; to be called inside the runtime.
    ///
    /// # Errors
    /// When the runtime cannot take the listener over.
    pub fn start<C: Core>(tasks: Tasks<N>, listener: TcpListener, core: C) -> io::Result<Server<N>> {
        let second = listener.try_clone()?;
        let listener = N::listener(listener)?;
        tasks.spawn(Role::Accept, accept_loop(tasks.clone(), listener, Services::new(core, &tasks)));
        Ok(Server { tasks, listener: second })
    }

    /// Accepts no more, closes all connections, and waits until nothing runs any more.
    ///
    /// # Errors
    /// One sentence, when something does not end.
    pub async fn end(self) -> Result<(), String> {
        let ended = self.tasks.end();
        shell::shut(&self.listener);
        ended.await
    }
}

async fn accept_loop<N: Net, C: Core>(tasks: Tasks<N>, listener: N::Listener, services: Services<C>) {
    while !tasks.is_ending() {
        match N::accept(&listener).await {
            Ok((io, handle)) => {
                let kept = tasks.keep(handle);
                let service = TowerToHyperService::new(services.clone());
                let connection = http2::Builder::new(tasks.exec(Role::RpcServer)).serve_connection(io, service);
                tasks.spawn(Role::RpcServer, async move {
                    // How a connection ends is its client's business.
                    let _ended = connection.await;
                    drop(kept);
                });
            }
            Err(_) if tasks.is_ending() => {}
            // Out of descriptors, or a connection that was gone at once.
            Err(_) => N::sleep(shell::ACCEPT_PAUSE).await,
        }
    }
}

/// Both services of a node, told apart by the path of a call.
struct Services<C> {
    meta: MetaServer<Handler<C>>,
    raft: RaftServer<Handler<C>>,
}

impl<C: Core> Services<C> {
    fn new<N: Net>(core: C, tasks: &Tasks<N>) -> Self {
        let halting = tasks.clone();
        let handler = Handler { core, halt: std::sync::Arc::new(move |reason| halting.halt(reason)) };
        Services {
            meta: MetaServer::new(handler.clone()).max_decoding_message_size(PROPOSAL_BYTES_MAX),
            raft: RaftServer::new(handler)
                .max_decoding_message_size(RAFT_BYTES_MAX)
                .max_encoding_message_size(RAFT_BYTES_MAX),
        }
    }
}

impl<C: Core> Clone for Services<C> {
    fn clone(&self) -> Self {
        Services { meta: self.meta.clone(), raft: self.raft.clone() }
    }
}

impl<C: Core> Service<http::Request<Incoming>> for Services<C> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        let for_raft = request.uri().path().starts_with("/regauge.meta.v1.Raft/");
        let answer = if for_raft { self.raft.call(request) } else { self.meta.call(request) };
        Box::pin(async move {
            let response = answer.await?;
            let status = Status::from_header_map(response.headers());
            if status.is_some_and(|status| status.code() == Code::OutOfRange) {
                return Ok(status::beyond(!for_raft).into_http());
            }
            Ok(response)
        })
    }
}

#[derive(Clone)]
struct Handler<C> {
    core: C,
    halt: super::net::Halt,
}

impl<C> fmt::Debug for Handler<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").finish_non_exhaustive()
    }
}

impl<C: Core> Handler<C> {
    async fn propose_all(&self, caller: u64, id: u64, calls: Vec<pb::Call>) -> Result<Vec<pb::Reply>, Status> {
        let calls: Result<Vec<_>, _> = calls.into_iter().map(convert::call_in).collect();
        let calls = calls.map_err(|what| Status::invalid_argument(format!("the proposal holds {what}")))?;
        match self.core.propose_for(caller, id, calls).await {
            Ok(replies) => Ok(replies.into_iter().map(convert::reply_out).collect()),
            Err(error) => Err(self.refuse(&error)),
        }
    }

    async fn between_nodes(&self, rpc: RaftRpc, request: Request<pb::Blob>) -> Result<Response<pb::Blob>, Status> {
        match self.core.raft(rpc, request.into_inner().postcard.into()).await {
            Ok(postcard) => Ok(Response::new(pb::Blob { postcard: postcard.into() })),
            Err(error) => Err(self.refuse(&error)),
        }
    }

    fn refuse(&self, error: &ProposeError) -> Status {
        if let ProposeError::Failed(reason) = error {
            // Never goes on after a write that failed.
            (self.halt)(reason.clone());
        }
        status::out(error)
    }
}

#[tonic::async_trait]
impl<C: Core> Meta for Handler<C> {
    async fn propose(&self, request: Request<pb::ProposeRequest>) -> Result<Response<pb::ProposeReply>, Status> {
        let pb::ProposeRequest { id, calls, caller } = request.into_inner();
        let received = stamps::mark(id, Mark::Received);
        let replies = self.propose_all(caller, id, calls).await;
        stamps::mark_after(id, Mark::Answered, received);
        replies.map(|replies| Response::new(pb::ProposeReply { replies }))
    }
}

#[tonic::async_trait]
impl<C: Core> Raft for Handler<C> {
    async fn append_entries(&self, request: Request<pb::Blob>) -> Result<Response<pb::Blob>, Status> {
        self.between_nodes(RaftRpc::AppendEntries, request).await
    }

    async fn vote(&self, request: Request<pb::Blob>) -> Result<Response<pb::Blob>, Status> {
        self.between_nodes(RaftRpc::Vote, request).await
    }

    async fn install_snapshot(&self, request: Request<pb::Blob>) -> Result<Response<pb::Blob>, Status> {
        self.between_nodes(RaftRpc::InstallSnapshot, request).await
    }
}
