//! Runtimes of their own for the broker's roles: of the same kind as the shards', built with the same widths.
//!
//! tokio-shared gets a multi-thread runtime with as many workers as the arm says; the others get one current-thread
//! runtime on a pinned thread. What it leaves out: the shards' runtimes, which are the shells'.

use super::native::Pool;
use super::rpc::net::{Compio, Monoio, Net, Tokio};
use crate::affinity;
use crate::attest::RoleRecord;
use crate::iowq::{self, Ring};
use crate::server::ServeError;
use crate::settings::Stack;
use crate::shell::{Node, PanicWatch};
use crate::stamps::{self, Role};
use compio::driver::{DriverType, ProactorBuilder};
use futures::future::BoxFuture;
use monoio::blocking::DefaultThreadPool;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::{Builder, LocalOptions};

/// A runtime that can be started beside the shards'.
pub(crate) trait Host: Net {
    /// Starts it and `main` on it. `nth` counts these runtimes from 0.
    ///
    /// # Errors
    /// When its thread cannot be started; what fails on the thread halts the node.
    fn start(
        node: &Arc<Node>,
        name: &'static str,
        nth: usize,
        main: BoxFuture<'static, ()>,
    ) -> Result<Hosted, ServeError>;
}

/// A role's runtime.
pub(crate) struct Hosted {
    /// Of the role: `meta` or `server`.
    pub name: &'static str,
    join: Box<dyn FnOnce() -> Result<RoleRecord, ServeError> + Send>,
}

impl Hosted {
    /// Waits until `main` has ended, and ends the runtime.
    ///
    /// # Errors
    /// What kept it from being as asked for.
    pub fn join(self) -> Result<RoleRecord, ServeError> {
        (self.join)()
    }
}

impl Host for Tokio {
    fn start(
        node: &Arc<Node>,
        name: &'static str,
        nth: usize,
        main: BoxFuture<'static, ()>,
    ) -> Result<Hosted, ServeError> {
        if node.stack != Stack::TokioShared {
            return pinned(node, name, nth, move |node| on_tokio(node, name, main));
        }
        let (threads, blocking_threads) = (node.settings.role_threads, node.settings.blocking_threads);
        let started = AtomicUsize::new(0);
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().worker_threads(threads).max_blocking_threads(blocking_threads);
        builder.on_thread_start(move || stamps::this_thread(name));
        builder.thread_name_fn(move || format!("{name}-{}", started.fetch_add(1, Ordering::Relaxed)));
        if node.settings.eager_handoff {
            builder.enable_eager_driver_handoff();
        }
        // Workers and blocking threads inherit the CPUs of the process.
        let runtime = builder.build().map_err(|error| node.runtime_error(error.to_string()))?;
        let watched = watch(node, main);
        let main = runtime.spawn(stamps::timed(Role::Main, watched));
        let node = Arc::clone(node);
        let join = move || {
            runtime.block_on(main).map_err(|error| node.runtime_error(error.to_string()))?;
            Ok(RoleRecord { role: name.to_owned(), threads, blocking_threads, iowq_bounded: None, ring_entries: None })
        };
        Ok(Hosted { name, join: Box::new(join) })
    }
}

impl Host for Monoio {
    fn start(
        node: &Arc<Node>,
        name: &'static str,
        nth: usize,
        main: BoxFuture<'static, ()>,
    ) -> Result<Hosted, ServeError> {
        // Its threads start here, not on the runtime's thread, whose CPU and name they would inherit.
        let pool = DefaultThreadPool::new(node.blocking_threads_per_shard());
        pinned(node, name, nth, move |node| on_monoio(node, name, pool, main))
    }
}

impl Host for Compio {
    fn start(
        node: &Arc<Node>,
        name: &'static str,
        nth: usize,
        main: BoxFuture<'static, ()>,
    ) -> Result<Hosted, ServeError> {
        pinned(node, name, nth, move |node| on_compio(node, name, main))
    }
}

/// Runs a pinned runtime on a thread of its own, on the CPU after those of the shards.
fn pinned(
    node: &Arc<Node>,
    name: &'static str,
    nth: usize,
    run: impl FnOnce(&Arc<Node>) -> Result<Option<Ring>, ServeError> + Send + 'static,
) -> Result<Hosted, ServeError> {
    let own = Arc::clone(node);
    let thread = std::thread::Builder::new().name(format!("{name}-0")).spawn(move || {
        let _watch = PanicWatch::new(&own);
        stamps::this_thread(name);
        let cpus = &own.settings.cpus;
        let cpu = cpus.get((own.settings.threads + nth) % cpus.len().max(1)).copied();
        let ran = affinity::bind_thread(cpu.as_slice()).map_err(ServeError::from).and_then(|()| run(&own));
        ran.inspect_err(|error| own.halt(error.to_string()))
    });
    let thread = thread.map_err(|error| node.runtime_error(format!("the {name} thread cannot be started: {error}")))?;
    let node = Arc::clone(node);
    let join = move || {
        let panicked = |_| Err(node.runtime_error(format!("the {name} thread panicked")));
        let ring = thread.join().unwrap_or_else(panicked)?;
        Ok(RoleRecord {
            role: name.to_owned(),
            threads: 1,
            blocking_threads: node.blocking_threads_per_shard(),
            iowq_bounded: ring.map(|ring| ring.bounded),
            ring_entries: ring.map(|ring| ring.entries),
        })
    };
    Ok(Hosted { name, join: Box::new(join) })
}

async fn watch_over(watch: PanicWatch, main: BoxFuture<'static, ()>) {
    main.await;
    drop(watch);
}

fn watch(node: &Arc<Node>, main: BoxFuture<'static, ()>) -> impl Future<Output = ()> + Send + 'static {
    watch_over(PanicWatch::new(node), main)
}

fn on_tokio(node: &Arc<Node>, name: &'static str, main: BoxFuture<'static, ()>) -> Result<Option<Ring>, ServeError> {
    let blocking_node = Arc::clone(node);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(node.blocking_threads_per_shard())
        .thread_name(format!("blocking-{name}"))
        // They would inherit the thread's CPU.
        .on_thread_start(move || blocking_node.bind_blocking_thread())
        .build_local(LocalOptions::default())
        .map_err(|error| node.runtime_error(error.to_string()))?;
    let ended = runtime.block_on(async { tokio::spawn(stamps::timed(Role::Main, watch(node, main))).await });
    ended.map_err(|error| node.runtime_error(error.to_string()))?;
    Ok(None)
}

fn on_monoio(
    node: &Arc<Node>,
    name: &'static str,
    pool: DefaultThreadPool,
    main: BoxFuture<'static, ()>,
) -> Result<Option<Ring>, ServeError> {
    let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .with_entries(node.settings.ring_entries)
        .attach_thread_pool(Box::new(pool))
        .enable_timer();
    let (mut runtime, ring) = iowq::build(node, || builder.build())?;
    pool_of(node, name).attach();
    runtime.block_on(async { monoio::spawn(stamps::timed(Role::Main, watch(node, main))).await });
    if node.failure().is_some() {
        // What a node that failed may have left in flight must not lose its buffers.
        std::mem::forget(runtime);
    }
    Ok(Some(ring))
}

fn on_compio(node: &Arc<Node>, name: &'static str, main: BoxFuture<'static, ()>) -> Result<Option<Ring>, ServeError> {
    let (mut proactor, pool) = (ProactorBuilder::new(), node.blocking_threads_per_shard());
    proactor.driver_type(DriverType::IoUring).capacity(node.settings.ring_entries).thread_pool_limit(pool);
    let make = || -> io::Result<_> { compio::runtime::RuntimeBuilder::new().with_proactor(proactor).build() };
    let (runtime, ring) = iowq::build(node, make)?;
    if !runtime.driver_type().is_iouring() {
        let found = format!("compio chose its {:?} driver", runtime.driver_type());
        return Err(ServeError::BackEnd { stack: node.stack, required: "io_uring", found });
    }
    pool_of(node, name).attach();
    let ended = runtime.block_on(async { compio::runtime::spawn(stamps::timed(Role::Main, watch(node, main))).await });
    ended.map_err(|error| node.runtime_error(error.to_string()))?;
    Ok(Some(ring))
}

fn pool_of(node: &Arc<Node>, name: &'static str) -> Pool {
    let own = Arc::clone(node);
    Pool::new(node.blocking_threads_per_shard(), move || iowq::bind_pool_thread(&own, name))
}
