//! Connections of the gRPC client: four per address, taken in turn, as RobustMQ's; made when first needed and again when
//! they broke.

use super::net::{Net, Tasks, within};
use crate::stamps::Role;
use http::uri::{Authority, PathAndQuery, Scheme};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync;
use tonic::body::Body;
use tower_service::Service;

/// HTTP/2 connections to one address.
const PER_ADDRESS: usize = 4;
/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Connections to any number of addresses.
#[derive(Debug)]
pub struct Links<N> {
    tasks: Tasks<N>,
    pools: Arc<Mutex<HashMap<SocketAddr, Arc<Pool>>>>,
}

impl<N> Clone for Links<N> {
    fn clone(&self) -> Self {
        Links { tasks: self.tasks.clone(), pools: Arc::clone(&self.pools) }
    }
}

/// An async lock per connection, so that those who wait for it make it once.
#[derive(Debug, Default)]
struct Pool {
    next: AtomicUsize,
    channels: [sync::Mutex<Option<Channel>>; PER_ADDRESS],
}

impl<N: Net> Links<N> {
    /// None yet; `tasks` end them.
    pub fn new(tasks: Tasks<N>) -> Links<N> {
        Links { tasks, pools: Arc::default() }
    }

    /// Makes all connections to an address.
    ///
    /// # Errors
    /// One sentence, for the first that cannot be made.
    pub async fn warm(&self, to: SocketAddr) -> Result<(), String> {
        for _ in 0..PER_ADDRESS {
            self.channel(to).await?;
        }
        Ok(())
    }

    /// The next connection to an address.
    ///
    /// # Errors
    /// One sentence, when it has to be made and cannot.
    pub async fn channel(&self, to: SocketAddr) -> Result<Channel, String> {
        let pool = Arc::clone(self.pools.lock().unwrap_or_else(PoisonError::into_inner).entry(to).or_default());
        let next = pool.next.fetch_add(1, Ordering::Relaxed) % PER_ADDRESS;
        let Some(slot) = pool.channels.get(next) else { return Err("there are no connections".to_owned()) };
        let mut slot = slot.lock().await;
        match &*slot {
            Some(channel) if !channel.sender.is_closed() => Ok(channel.clone()),
            _ => Ok(slot.insert(self.connect(to).await?).clone()),
        }
    }

    async fn connect(&self, to: SocketAddr) -> Result<Channel, String> {
        if self.tasks.is_ending() {
            return Err("this node ends".to_owned());
        }
        let failed = |error: &dyn std::fmt::Display| format!("connecting to {to} failed: {error}");
        let connect = within::<N, _>(CONNECT_LIMIT, N::connect(to)).await;
        let (io, handle) = connect.ok_or_else(|| failed(&"no answer"))?.map_err(|error| failed(&error))?;
        let kept = self.tasks.keep(handle);
        let handshake = Builder::new(self.tasks.exec(Role::RpcClient)).handshake(io);
        let (sender, connection) = handshake.await.map_err(|error| failed(&error))?;
        self.tasks.spawn(Role::RpcClient, async move {
            // Whose call it breaks gets the error.
            let _ended = connection.await;
            drop(kept);
        });
        let authority = to.to_string().parse::<Authority>().map_err(|error| failed(&error))?;
        Ok(Channel { sender, authority })
    }

    /// Whether no more connections are made.
    pub(super) fn are_ending(&self) -> bool {
        self.tasks.is_ending()
    }

    /// Closes the connections that nobody uses any more.
    pub fn close(&self) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// One connection, as tonic's generated clients want it.
#[derive(Debug, Clone)]
pub struct Channel {
    sender: SendRequest<Body>,
    authority: Authority,
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The generated code knows the path alone.
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = http::Uri::builder().scheme(Scheme::HTTP).authority(self.authority.clone()).path_and_query(path);
        if let Ok(uri) = uri.build() {
            *request.uri_mut() = uri;
        }
        Box::pin(self.sender.send_request(request))
    }
}
