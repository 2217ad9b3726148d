//! Runs one stack from its start to its record: the only way in.
//!
//! What may fail early does so here, before a runtime exists and with one clear sentence: settings, CPUs, the data
//! directory, its recovery, the port. What it leaves out: signals and the process protocol, which belong to the command.

use crate::broker::{BrokerConfig, shard_of_partition};
use crate::meta::Store;
use crate::segment::Layout;
use crate::server::{ServeConfig, ServeError, ServerRecord, Stop};
use crate::settings::{Durability, Settings, Stack};
use crate::shell::{self, Node, ShardSeed};
use crate::{affinity, attest, digest, recover};
use std::net::SocketAddr;
use std::sync::Arc;

/// Serves until `stop` is asked for, and blocks until then; calls `ready` with the real address once every shard accepts
/// connections. Binds the whole process to the settings' CPUs and raises its limit of open files, so a process should
/// serve one stack only.
///
/// # Errors
/// When the stack cannot start as asked for, or when the broker halted because it could not write. What was
/// acknowledged before stays written.
pub fn serve(
    config: ServeConfig,
    stop: Stop,
    ready: impl FnOnce(SocketAddr) + Send,
) -> Result<ServerRecord, ServeError> {
    let ServeConfig { stack, settings, listen, data } = config;
    check(stack, &settings)?;
    attest::raise_open_files();
    affinity::bind_process(&settings.cpus)?;

    let unusable = |source| ServeError::Data { path: data.clone(), source };
    std::fs::create_dir_all(&data).map_err(unusable)?;
    // RocksDB's lock keeps a second server out, so the store is opened before any segment is touched.
    let store = Store::open(&data.join("meta"))?;
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
    let (listeners, addr) = shell::listen(listen, if stack.is_pinned() { settings.threads } else { 1 })?;

    let node = Arc::new(Node::new(stack, settings, layout, store, stop));
    let ready = || ready(addr);
    let report = match stack {
        Stack::TokioShared => crate::tokio_shared::run(&node, seeds, listeners, ready),
        Stack::TokioPinned => crate::tokio_pinned::run(&node, seeds, listeners, ready),
        Stack::Monoio => crate::monoio::run(&node, seeds, listeners, ready),
        Stack::Compio => crate::compio::run(&node, seeds, listeners, ready),
    }?;
    if let Some(reason) = node.failure() {
        return Err(ServeError::Halted(reason));
    }

    let usage = attest::usage();
    Ok(ServerRecord {
        attestation: attest::attest(stack, &node.settings, &report)?,
        digest: digest::digest(&node.layout, partitions, &node.store)?,
        counters: report.counters,
        cpu_user_ns: usage.cpu_user_ns,
        cpu_system_ns: usage.cpu_system_ns,
        voluntary_switches: usage.voluntary_switches,
        involuntary_switches: usage.involuntary_switches,
        max_rss_bytes: usage.max_rss_bytes,
    })
}

/// Refuses settings that no stack could keep to.
fn check(stack: Stack, settings: &Settings) -> Result<(), ServeError> {
    let refuse = |sentence: String| Err(ServeError::Settings(sentence));
    let Settings { threads, blocking_threads, partitions, segment_bytes, iowq_bounded, ring_entries, .. } = *settings;
    if threads == 0 || threads > usize::from(u16::MAX) {
        return refuse(format!("threads is {threads}; a broker has 1 to {} shards", u16::MAX));
    }
    if blocking_threads == 0 {
        return refuse("blocking_threads is 0; blocking work needs at least 1 thread".to_owned());
    }
    if partitions == 0 {
        return refuse("partitions is 0; topics need at least 1".to_owned());
    }
    if segment_bytes == 0 {
        return refuse("segment_bytes is 0; a segment must hold at least one record".to_owned());
    }
    if stack.needs_uring() && (iowq_bounded == 0 || ring_entries == 0) {
        return refuse(format!(
            "iowq_bounded is {iowq_bounded} and ring_entries {ring_entries}; both must be at least 1"
        ));
    }
    Ok(())
}
