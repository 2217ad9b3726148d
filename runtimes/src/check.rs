//! Refuses settings that a stack could not keep to, or that contradict each other, before anything is started.

use crate::server::ServeError;
use crate::settings::{LastApplied, RaftSync, Roles, Settings, Stack};

/// Far more than any machine has CPUs.
const NEIGHBOURS_MAX: usize = 1024;

/// Checks an arm's settings.
///
/// # Errors
/// [`ServeError::Settings`], one sentence that says what to set.
pub fn check(stack: Stack, settings: &Settings) -> Result<(), ServeError> {
    match broker(stack, settings).or_else(|| roles(stack, settings)).or_else(|| meta(settings)) {
        Some(sentence) => Err(ServeError::Settings(sentence)),
        None => Ok(()),
    }
}

fn broker(stack: Stack, settings: &Settings) -> Option<String> {
    let Settings { threads, iowq_bounded, ring_entries, .. } = *settings;
    if threads == 0 || threads > usize::from(u16::MAX) {
        return Some(format!("threads is {threads}; a broker has 1 to {} shards", u16::MAX));
    }
    if settings.blocking_threads == 0 {
        return Some("blocking_threads is 0; blocking work needs at least 1 thread".to_owned());
    }
    if settings.partitions == 0 {
        return Some("partitions is 0; topics need at least 1".to_owned());
    }
    if settings.segment_bytes == 0 {
        return Some("segment_bytes is 0; a segment must hold at least one record".to_owned());
    }
    if stack.needs_uring() && (iowq_bounded == 0 || ring_entries == 0) {
        let given = format!("iowq_bounded is {iowq_bounded} and ring_entries {ring_entries}");
        return Some(format!("{given}; both must be at least 1"));
    }
    None
}

fn roles(stack: Stack, settings: &Settings) -> Option<String> {
    let (roles, threads) = (settings.roles, settings.role_threads);
    if threads == 0 {
        return Some("role_threads is 0; a runtime needs at least 1 thread".to_owned());
    }
    if threads > 1 && roles == Roles::One {
        return Some(format!(
            "role_threads is {threads}, but with roles `one` there is no runtime besides the connections'; set roles to \
             `meta-apart` or `three`, or role_threads to 1"
        ));
    }
    if threads > 1 && stack.is_pinned() {
        return Some(format!(
            "role_threads is {threads}, but a runtime of {stack} has one thread; set role_threads to 1 or choose tokio-shared"
        ));
    }
    if settings.eager_handoff && stack != Stack::TokioShared {
        return Some(format!(
            "eager_handoff is on, but {stack} has no driver that workers hand to each other; switch it off or choose \
             tokio-shared"
        ));
    }
    if settings.neighbours > NEIGHBOURS_MAX {
        return Some(format!("neighbours is {}; set at most {NEIGHBOURS_MAX}", settings.neighbours));
    }
    None
}

fn meta(settings: &Settings) -> Option<String> {
    if settings.session_batch == 0 {
        return Some(
            "session_batch is 0; a proposal opens at least 1 session, and with 1 nothing is gathered".to_owned(),
        );
    }
    if !matches!(settings.nodes, 1 | 3) {
        return Some(format!("nodes is {}; the meta-service has 1 node or 3", settings.nodes));
    }
    if settings.last_applied == LastApplied::NoWal && settings.raft_sync == RaftSync::All {
        return Some(
            "raft_sync is `all`, but last_applied `no-wal` is never on the disk; set raft_sync to `log` or last_applied \
             to another way"
                .to_owned(),
        );
    }
    None
}
