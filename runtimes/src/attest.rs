//! What a run really used, read from the kernel instead of from the settings.
//!
//! A comparison stands on things that are easily not as asked for: a pool's width, the CPUs of threads that a library
//! started, io_uring that was not to be had. Each is looked at while the shards still run. What it leaves out: judging
//! (the replayer's gates do), except that a stack must run on its own back-end.

use crate::server::ServeError;
use crate::settings::{Durability, Files, LastApplied, MetaStore, Placement, RaftSync, Roles, Stack};
use crate::shell::ShellReport;
use rustix::process::Resource;
use serde::{Deserialize, Serialize};
use std::fs;

/// A thread as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ThreadRecord {
    /// Its name (at most 15 bytes).
    pub name: String,
    /// CPUs that it may run on, as a list: `0-1,4`.
    pub cpus_allowed: String,
}

/// Threads and descriptors of the process at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// All threads, io-wq workers of rings included, sorted.
    pub threads: Vec<ThreadRecord>,
    /// Open io_uring instances.
    pub rings: usize,
    /// Open epoll instances.
    pub epolls: usize,
}

/// What a run really used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attestation {
    /// The stack.
    pub stack: Stack,
    /// `epoll` or `io_uring`: proved by the descriptors that were open.
    pub back_end: String,
    /// io_uring instances open while the shards ran.
    pub rings: usize,
    /// epoll instances open while the shards ran.
    pub epolls: usize,
    /// Threads alive when the run was asked to end.
    pub threads: Vec<ThreadRecord>,
    /// Threads that the blocking pools may start, all shards together.
    pub blocking_threads: usize,
    /// Bounded io-wq workers per ring, as the kernel confirmed; null without a ring.
    pub iowq_bounded: Option<u32>,
    /// Submission queue entries per ring; null without a ring.
    pub ring_entries: Option<u32>,
    /// When an acknowledged write was on the disk.
    pub durability: Durability,
    /// Where RocksDB calls ran.
    pub placement: Placement,
    /// How segment files were written.
    pub files: Files,
    /// Which runtimes the roles ran on.
    pub roles: Roles,
    /// Runtimes besides the connections', with what they were really given.
    pub role_runtimes: Vec<RoleRecord>,
    /// Whether tokio handed epoll over before long polls.
    pub eager_handoff: bool,
    /// Threads that burned CPU beside the server's, as seen while the shards ran.
    pub neighbours: usize,
    /// Which raft log writes were on the disk before they counted.
    pub raft_sync: RaftSync,
    /// How the last applied log id was written.
    pub last_applied: LastApplied,
    /// Whether sessions were written to RocksDB when applied.
    pub durable_sessions: bool,
    /// Where the meta-service's databases lay.
    pub meta_store: MetaStore,
    /// Most sessions that one proposal opened.
    pub session_batch: u32,
    /// Nodes of the meta-service that ran until the end.
    pub nodes: u32,
    /// Kernel release.
    pub kernel: String,
}

/// What a runtime besides the connections' was really given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRecord {
    /// Its role: `meta` or `server`.
    pub role: String,
    /// Its threads.
    pub threads: usize,
    /// Threads that its blocking pool may start.
    pub blocking_threads: usize,
    /// Bounded io-wq workers of its ring, as the kernel confirmed; null without a ring.
    pub iowq_bounded: Option<u32>,
    /// Submission queue entries of its ring; null without a ring.
    pub ring_entries: Option<u32>,
}

/// CPU time, switches and memory of the process so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// In user mode, ns.
    pub cpu_user_ns: u64,
    /// In the kernel, ns.
    pub cpu_system_ns: u64,
    /// Times that a thread gave its CPU up.
    pub voluntary_switches: u64,
    /// Times that a thread was taken from its CPU.
    pub involuntary_switches: u64,
    /// Largest resident set, bytes.
    pub max_rss_bytes: u64,
}

/// Looks at the process's threads and descriptors. What ends meanwhile is left out.
pub fn observe() -> Observation {
    let mut seen = Observation::default();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        seen.threads.push(ThreadRecord { name: field("Name:"), cpus_allowed: field("Cpus_allowed_list:") });
    }
    seen.threads.sort();
    for descriptor in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        match fs::read_link(descriptor.path()) {
            Ok(target) if target.as_os_str() == "anon_inode:[io_uring]" => seen.rings += 1,
            Ok(target) if target.as_os_str() == "anon_inode:[eventpoll]" => seen.epolls += 1,
            _ => {}
        }
    }
    seen
}

/// Draws up the attestation of a run.
///
/// # Errors
/// [`ServeError::BackEnd`] when the stack did not run on what it is defined to run on.
pub fn attest(
    stack: Stack,
    settings: &crate::settings::Settings,
    report: &ShellReport,
    nodes: u32,
) -> Result<Attestation, ServeError> {
    let seen = &report.observation;
    let back_end = if stack.needs_uring() {
        let runtimes = settings.threads + report.roles.len();
        if seen.rings < runtimes {
            let found = format!("{} io_uring instances were open for {runtimes} runtimes", seen.rings);
            return Err(ServeError::BackEnd { stack, required: "io_uring", found });
        }
        "io_uring"
    } else {
        if seen.epolls == 0 {
            let found = "no epoll instance was open".to_owned();
            return Err(ServeError::BackEnd { stack, required: "epoll", found });
        }
        "epoll"
    };
    Ok(Attestation {
        stack,
        back_end: back_end.to_owned(),
        rings: seen.rings,
        epolls: seen.epolls,
        threads: seen.threads.clone(),
        blocking_threads: report.blocking_threads,
        iowq_bounded: report.iowq_bounded,
        ring_entries: report.ring_entries,
        durability: settings.durability,
        placement: settings.placement,
        files: settings.files,
        roles: settings.roles,
        role_runtimes: report.roles.clone(),
        eager_handoff: settings.eager_handoff,
        neighbours: seen.threads.iter().filter(|thread| thread.name.starts_with("neighbour-")).count(),
        raft_sync: settings.raft_sync,
        last_applied: settings.last_applied,
        durable_sessions: settings.durable_sessions,
        meta_store: settings.meta_store,
        session_batch: settings.session_batch,
        nodes,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
    })
}

/// CPU time, switches (getrusage) and memory (VmHWM) so far.
pub fn usage() -> Usage {
    // SAFETY: `rusage` is plain old data, for which all zeroes is a value; the kernel fills it through the pointer.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let ns = |time: libc::timeval| (time.tv_sec as u64) * 1_000_000_000 + (time.tv_usec as u64) * 1000;
    Usage {
        cpu_user_ns: ns(usage.ru_utime),
        cpu_system_ns: ns(usage.ru_stime),
        voluntary_switches: usage.ru_nvcsw as u64,
        involuntary_switches: usage.ru_nivcsw as u64,
        // ru_maxrss survives execve and would show the parent's memory, VmHWM does not.
        max_rss_bytes: high_water_mark_bytes().unwrap_or((usage.ru_maxrss as u64) * 1024),
    }
}

fn high_water_mark_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Raises the soft limit of open files to the hard one: a study opens thousands of connections.
pub fn raise_open_files() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it the old limit holds, and a connection beyond it fails with its own clear error.
    let _old_limit_holds = rustix::process::setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn threads_and_descriptors_are_seen() {
        let before = observe();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        // A thread sets its own name, before it comes to the first barrier.
        let barrier = std::sync::Barrier::new(3);
        let after = std::thread::scope(|scope| {
            for _ in 0..2 {
                let waits = || _ = (barrier.wait(), barrier.wait());
                std::thread::Builder::new().name("seen".to_owned()).spawn_scoped(scope, waits).unwrap();
            }
            barrier.wait();
            let after = observe();
            barrier.wait();
            after
        });
        drop(runtime);
        assert!(after.epolls > before.epolls);
        let seen: Vec<_> = after.threads.iter().filter(|thread| thread.name == "seen").collect();
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|thread| !thread.cpus_allowed.is_empty()));
    }

    #[test]
    fn a_ring_stack_without_rings_is_refused() {
        let report =
            ShellReport { observation: Observation { epolls: 3, ..Observation::default() }, ..Default::default() };
        let error = attest(Stack::Compio, &Settings::default(), &report, 1).unwrap_err();
        assert!(error.to_string().contains("must run on io_uring, but 0 io_uring instances"), "{error}");
        assert!(attest(Stack::TokioPinned, &Settings::default(), &report, 1).is_ok());
    }

    #[test]
    fn usage_moves() {
        let before = usage();
        let mut x = 1u64;
        while usage().cpu_user_ns + usage().cpu_system_ns == before.cpu_user_ns + before.cpu_system_ns {
            x = std::hint::black_box(x.wrapping_mul(31));
        }
        assert!(before.max_rss_bytes > 1 << 20);
    }
}
