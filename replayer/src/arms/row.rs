//! One table of arms.toml: any of the settings, and those among them that no host can have.

use regauge_runtimes::settings::{Durability, Files, LastApplied, MetaStore, Placement, RaftSync, Roles, Stack};
use serde::Deserialize;

/// Largest submission queue that the kernel gives (IORING_MAX_ENTRIES).
const RING_ENTRIES_MAX: u32 = 32_768;

/// Smallest segment worth rolling, bytes: it must hold at least one packet of a usual size.
const SEGMENT_BYTES_MIN: u64 = 64 * 1024;

/// Most threads that burn CPU beside the server: what RobustMQ's console burnt was one core, and beyond some tens
/// nothing but the neighbours would run.
const NEIGHBOURS_MAX: usize = 64;

/// Most threads of a role's runtime.
const ROLE_THREADS_MAX: usize = 1024;

/// Most sessions that one proposal opens: with the longest client ids such an entry is about as long as a gRPC message
/// may be (4 MiB).
const SESSION_BATCH_MAX: u32 = 10_000;

/// One table of the file. All optional: `[defaults]` and `[[arm]]` share it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub name: Option<String>,
    pub stack: Option<String>,
    pub threads: Option<usize>,
    pub cpus: Option<Vec<usize>>,
    pub durability: Option<Durability>,
    pub placement: Option<Placement>,
    pub files: Option<Files>,
    pub blocking_threads: Option<usize>,
    pub iowq_bounded: Option<u32>,
    pub ring_entries: Option<u32>,
    pub partitions: Option<u32>,
    pub segment_bytes: Option<u64>,
    pub roles: Option<Roles>,
    pub role_threads: Option<usize>,
    pub eager_handoff: Option<bool>,
    pub neighbours: Option<usize>,
    pub raft_sync: Option<RaftSync>,
    pub last_applied: Option<LastApplied>,
    pub durable_sessions: Option<bool>,
    pub meta_store: Option<MetaStore>,
    pub session_batch: Option<u32>,
    pub nodes: Option<u32>,
}

impl Row {
    /// This row, with what it leaves open taken from `defaults`.
    pub fn over(self, defaults: &Row) -> Row {
        let d = defaults.clone();
        Row {
            name: self.name.or(d.name),
            stack: self.stack.or(d.stack),
            threads: self.threads.or(d.threads),
            cpus: self.cpus.or(d.cpus),
            durability: self.durability.or(d.durability),
            placement: self.placement.or(d.placement),
            files: self.files.or(d.files),
            blocking_threads: self.blocking_threads.or(d.blocking_threads),
            iowq_bounded: self.iowq_bounded.or(d.iowq_bounded),
            ring_entries: self.ring_entries.or(d.ring_entries),
            partitions: self.partitions.or(d.partitions),
            segment_bytes: self.segment_bytes.or(d.segment_bytes),
            roles: self.roles.or(d.roles),
            role_threads: self.role_threads.or(d.role_threads),
            eager_handoff: self.eager_handoff.or(d.eager_handoff),
            neighbours: self.neighbours.or(d.neighbours),
            raft_sync: self.raft_sync.or(d.raft_sync),
            last_applied: self.last_applied.or(d.last_applied),
            durable_sessions: self.durable_sessions.or(d.durable_sessions),
            meta_store: self.meta_store.or(d.meta_store),
            session_batch: self.session_batch.or(d.session_batch),
            nodes: self.nodes.or(d.nodes),
        }
    }

    /// Settings that are impossible on any host.
    pub fn check(&self) -> Result<(), String> {
        let zero = |name: &str| Err(format!("`{name} = 0` means nothing can run; give 1 or more"));
        if self.threads == Some(0) {
            return zero("threads");
        }
        if self.blocking_threads == Some(0) {
            return zero("blocking_threads");
        }
        if self.partitions == Some(0) {
            return zero("partitions");
        }
        if self.role_threads == Some(0) {
            return zero("role_threads");
        }
        if let Some(n) = self.role_threads.filter(|n| *n > ROLE_THREADS_MAX) {
            return Err(format!("`role_threads = {n}` is more than {ROLE_THREADS_MAX}; no host has CPUs for them"));
        }
        if self.session_batch == Some(0) {
            return Err("`session_batch = 0` means no session can be opened; 1 gathers nothing".into());
        }
        if let Some(n) = self.session_batch.filter(|n| *n > SESSION_BATCH_MAX) {
            return Err(format!("`session_batch = {n}` is more than the {SESSION_BATCH_MAX} that a proposal may open"));
        }
        if let Some(n) = self.nodes.filter(|n| ![1, 3].contains(n)) {
            return Err(format!("`nodes = {n}` is no cluster that can be run here; give 1 or 3"));
        }
        if let Some(n) = self.neighbours.filter(|n| *n > NEIGHBOURS_MAX) {
            return Err(format!(
                "`neighbours = {n}` is more than {NEIGHBOURS_MAX} threads that burn CPU; nothing else would run"
            ));
        }
        if self.iowq_bounded == Some(0) {
            return Err("`iowq_bounded = 0` would leave the kernel's own width in place unsaid; give the width".into());
        }
        if let Some(n) = self.ring_entries.filter(|n| !n.is_power_of_two() || *n > RING_ENTRIES_MAX) {
            return Err(format!(
                "`ring_entries = {n}` is no power of two up to {RING_ENTRIES_MAX}; the kernel would use another size"
            ));
        }
        if let Some(n) = self.segment_bytes.filter(|n| *n < SEGMENT_BYTES_MIN) {
            return Err(format!("`segment_bytes = {n}` is less than {SEGMENT_BYTES_MIN}; a packet might not fit"));
        }
        if let Some(cpus) = &self.cpus
            && let Some(twice) = cpus.iter().find(|c| cpus.iter().filter(|d| d == c).count() > 1)
        {
            return Err(format!("`cpus` names CPU {twice} twice"));
        }
        Ok(())
    }

    /// Settings that a stack cannot have.
    pub fn check_stack(&self, stack: Stack) -> Result<(), String> {
        if stack != Stack::TokioShared && self.eager_handoff == Some(true) {
            return Err(format!(
                "`eager_handoff = true` is a setting of tokio-shared alone; {stack} has no such hand-off"
            ));
        }
        if let Some(n) = self.role_threads.filter(|n| *n > 1 && stack.is_pinned()) {
            return Err(format!("`role_threads = {n}`: the runtimes of {stack} have one thread each; give 1"));
        }
        Ok(())
    }
}
