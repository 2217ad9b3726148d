//! Runs one stack from its start to its record: the only way in.
//!
//! What may fail early does so here, before a runtime exists and with one clear sentence: settings, CPUs, the data
//! directory, its recovery, the port. What it leaves out: signals and the process protocol, which belong to the command.

use crate::broker::{BrokerConfig, shard_of_partition};
use crate::meta::cluster::Cluster;
use crate::meta::service::Seat;
use crate::meta::{Store, batcher};
use crate::neighbours::Neighbours;
use crate::segment::Layout;
use crate::server::{Ready, ServeConfig, ServeError, ServerRecord, Stop};
use crate::settings::{Durability, Stack};
use crate::shell::{self, Node, ShardSeed};
use crate::{affinity, attest, check, digest, recover, stamps};
use std::sync::Arc;

/// Serves until `stop` is asked for, and blocks until then; calls `ready` with the real addresses once every shard accepts
/// connections and the meta-service has a leader. Binds the whole process to the settings' CPUs and raises its limit of
/// open files, so a process should serve one stack only.
///
/// # Errors
/// When the stack cannot start as asked for, or when the broker halted because it could not write. What was
/// acknowledged before stays written.
pub fn serve(config: ServeConfig, stop: Stop, ready: impl FnOnce(Ready) + Send) -> Result<ServerRecord, ServeError> {
    // A type of its own per caller would compile every runtime, openraft and HTTP/2 again in each caller's crate.
    serve_until(config, stop, Box::new(ready))
}

fn serve_until(
    config: ServeConfig,
    stop: Stop,
    ready: Box<dyn FnOnce(Ready) + Send + '_>,
) -> Result<ServerRecord, ServeError> {
    let ServeConfig { stack, settings, listen, meta_listen, data, stamps, program } = config;
    check::check(stack, &settings)?;
    attest::raise_open_files();
    affinity::bind_process(&settings.cpus)?;

    let unusable = |source| ServeError::Data { path: data.clone(), source };
    std::fs::create_dir_all(&data).map_err(unusable)?;
    // RocksDB's lock keeps a second server out, so the store is opened before any segment is touched.
    let store = Arc::new(Store::open_for(&data.join("meta"), &settings)?);
    let layout = Layout::new(&data);
    let partitions = settings.partitions;
    let recovered = recover::recover(&layout, partitions, settings.durability != Durability::None)?;
    let mut seeds = Vec::with_capacity(settings.threads);
    for id in 0..settings.threads {
        let id = id as u16;
        let config = BrokerConfig::new(id, &settings);
        let owned = |partition| shard_of_partition(partition, config.shards) == id;
        let partitions = recovered.iter().filter(|state| owned(state.partition)).copied().collect();
        let cpu = match settings.cpus.len() {
            0 => None,
            len => settings.cpus.get(usize::from(id) % len).copied().filter(|_| stack.is_pinned()),
        };
        seeds.push(ShardSeed { id, cpu, config, partitions });
    }
    let (listeners, mqtt) = shell::listen(listen, if stack.is_pinned() { settings.threads } else { 1 })?;
    let (listener, meta) = shell::listen_once(meta_listen)?;

    if stamps.is_some() {
        stamps::start();
    }
    let (client, inbox) = batcher::channel(settings.session_batch);
    let node = Arc::new(Node::new(stack, settings, layout, client, stop));
    let cluster = Cluster::start(&node, meta, &data, program.as_deref())?;
    let seat = Seat { inbox: Some(inbox), listener, store, membership: cluster.membership() };
    let neighbours = Neighbours::start(&node);
    let ready = Box::new(|| ready(Ready { mqtt, meta }));
    let report = match stack {
        Stack::TokioShared => crate::tokio_shared::run(&node, seeds, listeners, seat, ready),
        Stack::TokioPinned => crate::tokio_pinned::run(&node, seeds, listeners, seat, ready),
        Stack::Monoio => crate::monoio::run(&node, seeds, listeners, seat, ready),
        Stack::Compio => crate::compio::run(&node, seeds, listeners, seat, ready),
    };
    drop(neighbours);
    let nodes = cluster.end();
    if let Some(reason) = node.failure() {
        return Err(match report {
            // Refused before it ran, with an error of its own.
            Err(error @ (ServeError::Runtime { .. } | ServeError::BackEnd { .. } | ServeError::Affinity(_))) => error,
            _ => ServeError::Halted(reason),
        });
    }
    let report = report?;
    let usage = attest::usage();
    if let Some(path) = stamps {
        stamps::write(&path)?;
    }

    Ok(ServerRecord {
        attestation: attest::attest(stack, &node.settings, &report, nodes)?,
        digest: digest::digest(&node.layout, partitions, &report.sessions)?,
        counters: report.counters,
        cpu_user_ns: usage.cpu_user_ns,
        cpu_system_ns: usage.cpu_system_ns,
        voluntary_switches: usage.voluntary_switches,
        involuntary_switches: usage.involuntary_switches,
        max_rss_bytes: usage.max_rss_bytes,
    })
}
