//! What a tap counts while it runs, and what it reports at its end.

use serde::Serialize;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters shared by the relay, the writer and whoever watches. All are statistics: no thread decides by them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) undecodable: AtomicU64,
    pub(super) bytes_to_broker: AtomicU64,
    pub(super) bytes_to_client: AtomicU64,
    pub(super) spans_seen: AtomicU64,
    pub(super) spans_written: AtomicU64,
    pub(super) queue_full: AtomicU64,
    pub(super) not_recorded: AtomicU64,
    first_undecodable: Mutex<Option<String>>,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    /// Counts an opaque connection and keeps the reason of the first one, for a hint to the user.
    pub(super) fn add_undecodable(&self, why: impl ToString) {
        add(&self.undecodable, 1);
        if let Ok(mut first) = self.first_undecodable.lock() {
            first.get_or_insert_with(|| why.to_string());
        }
    }

    pub(super) fn snapshot(&self) -> TapStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (connections, closed) = (get(&self.connections), get(&self.closed));
        TapStats {
            connections,
            open: connections.saturating_sub(closed),
            refused: get(&self.refused),
            undecodable: get(&self.undecodable),
            undecodable_why: self.first_undecodable.lock().ok().and_then(|why| why.clone()),
            bytes_to_broker: get(&self.bytes_to_broker),
            bytes_to_client: get(&self.bytes_to_client),
            spans_seen: get(&self.spans_seen),
            spans_written: get(&self.spans_written),
            queue_full: get(&self.queue_full),
            not_recorded: get(&self.not_recorded),
        }
    }
}

/// A tap's counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TapStats {
    /// Client connections accepted since the start.
    pub connections: u64,
    /// Of these, still open.
    pub open: u64,
    /// Client connections that were reset because the upstream took no connection.
    pub refused: u64,
    /// Connections passed on without being understood (TLS, not MQTT, broken framing).
    pub undecodable: u64,
    /// Why the first of them was not understood.
    pub undecodable_why: Option<String>,
    /// Bytes handed to the broker.
    pub bytes_to_broker: u64,
    /// Bytes handed to clients.
    pub bytes_to_client: u64,
    /// Spans that were observed.
    pub spans_seen: u64,
    /// Spans that the writer accepted; up to one flush interval of them may not be in the file yet.
    pub spans_written: u64,
    /// Spans lost because the queue to the writer was full.
    pub queue_full: u64,
    /// Spans lost because recording had stopped (disk full).
    pub not_recorded: u64,
}

/// What a tap did, when it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TapSummary {
    /// Where the sealed trace is, or would have been.
    pub out: PathBuf,
    /// How long it ran, ns.
    pub duration_ns: u64,
    /// The last counters.
    #[serde(flatten)]
    pub stats: TapStats,
}
