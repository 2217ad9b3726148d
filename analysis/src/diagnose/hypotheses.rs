//! The rival causes of a slow `set_last_applied`, what each predicts, and the arms that remove it alone.
//!
//! A cause predicts two things that are measured apart: in the base arm its lane holds the slowest calls, and in the
//! arm without it the tail is shorter. One of them alone can be had by accident: an arm may change something else too,
//! and a lane may grow because of something upstream.

use crate::lanes::Lane;
use crate::lanes::aggregate::{CONNECT, SET_LAST_APPLIED};

/// A rival cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hypothesis {
    /// Name in JSON.
    pub name: &'static str,
    /// Name in the table.
    pub title: &'static str,
    /// The step whose tail it explains.
    pub step: &'static str,
    /// The lanes that hold the tail if it is true; of a CONNECT, those of its time in the batcher alone, since it waits
    /// behind other work elsewhere too.
    pub lanes: &'static [Lane],
    /// Arms of `diagnose.toml` that remove the cause and nothing else.
    pub arms: &'static [&'static str],
    /// What it predicts, for people.
    pub predicts: &'static str,
}

impl Hypothesis {
    /// Whether its lanes say something only where the time that threads waited for a CPU is known: run delay itself, and
    /// storage, which would hold it otherwise.
    pub fn needs_run_delay(&self) -> bool {
        self.lanes.iter().any(|lane| *lane == Lane::Runnable || Lane::STORAGE.contains(lane))
    }
}

/// All of them, in the table's order: the article's own first.
pub const HYPOTHESES: [Hypothesis; 8] = [
    Hypothesis {
        name: "runtime_queue",
        title: "runtime queue",
        step: SET_LAST_APPLIED,
        lanes: &[Lane::WokenPolled],
        arms: &["offload", "raft-alone", "eager-handoff"],
        predicts: "the result waits for its task to be polled; offloading RocksDB, raft alone on a thread, or an eager \
                   driver hand-off helps",
    },
    Hypothesis {
        name: "os_preemption",
        title: "OS preemption",
        step: SET_LAST_APPLIED,
        lanes: &[Lane::Runnable],
        arms: &["quiet"],
        predicts: "the thread is ready and has no CPU; without the CPU-burning neighbour the tail goes",
    },
    Hypothesis {
        name: "oversubscription",
        title: "oversubscription",
        step: SET_LAST_APPLIED,
        lanes: &[Lane::Runnable],
        arms: &["one-runtime"],
        predicts: "the thread is ready and has no CPU; with one worker per CPU the tail goes, neighbour or not",
    },
    Hypothesis {
        name: "write_queue",
        title: "RocksDB write queue",
        step: SET_LAST_APPLIED,
        lanes: &[Lane::ThreadWait],
        arms: &["own-db"],
        predicts: "the write waits for other writers; in a database of its own it does not",
    },
    Hypothesis {
        name: "wal",
        title: "WAL",
        step: SET_LAST_APPLIED,
        lanes: &[Lane::Wal],
        arms: &["no-wal"],
        predicts: "the thread sleeps while the WAL is written; a write that skips the WAL does not",
    },
    Hypothesis {
        name: "disk",
        title: "disk",
        step: SET_LAST_APPLIED,
        lanes: &[Lane::Wal, Lane::Delay, Lane::OtherStorage],
        arms: &["memory"],
        predicts: "the thread sleeps in storage, not for other writers; in memory it does not",
    },
    Hypothesis {
        name: "batching",
        title: "batching",
        step: CONNECT,
        lanes: &[Lane::Queued],
        arms: &["batch-1"],
        predicts: "a CONNECT waits behind other proposals; without gathering it does not",
    },
    Hypothesis {
        name: "another_runtime",
        title: "another runtime",
        step: SET_LAST_APPLIED,
        lanes: &[Lane::WokenPolled],
        arms: &["compio"],
        predicts: "the result waits for its task to be polled by tokio; on compio it does not",
    },
];
