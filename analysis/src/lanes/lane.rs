//! The lanes: the words for where a request's time went, and times by lane.
//!
//! Storage has five parts; a table that has no room for them shows their sum. Every other lane stands for itself.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// One additive part of a latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Lane {
    /// Planned → sent: the driver, or what held its connection back.
    DriverLag,
    /// On its way between two processes or tasks over a socket, as far as nothing else explains it.
    Network,
    /// Behind other work in a queue of the broker: the batcher, openraft's queues, a pool, a partition's append.
    Queued,
    /// A task of the request was woken and not yet polled: the runtime's queue.
    WokenPolled,
    /// The thread was ready to run and had no CPU: run delay.
    Runnable,
    /// The thread was on its CPU.
    OnCpu,
    /// Blocked in a storage call, writing the WAL.
    Wal,
    /// Blocked in a storage call, writing the memtable.
    Memtable,
    /// Blocked in a storage call, delayed by RocksDB: write stall, memtable switch.
    Delay,
    /// Blocked in a storage call, waiting for other writers of the same queue.
    ThreadWait,
    /// Blocked in a storage call, none of these: the disk behind a ring, or what RocksDB does not tell.
    OtherStorage,
    /// Nothing that was stamped explains it. Always shown.
    Unattributed,
}

impl Lane {
    /// All lanes, in the order in which they are drawn.
    pub const ALL: [Lane; 12] = [
        Lane::DriverLag,
        Lane::Network,
        Lane::Queued,
        Lane::WokenPolled,
        Lane::Runnable,
        Lane::OnCpu,
        Lane::Wal,
        Lane::Memtable,
        Lane::Delay,
        Lane::ThreadWait,
        Lane::OtherStorage,
        Lane::Unattributed,
    ];

    /// The parts of storage.
    pub const STORAGE: [Lane; 5] = [Lane::Wal, Lane::Memtable, Lane::Delay, Lane::ThreadWait, Lane::OtherStorage];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Lane::DriverLag => "driver_lag",
            Lane::Network => "network",
            Lane::Queued => "queued",
            Lane::WokenPolled => "woken_polled",
            Lane::Runnable => "runnable",
            Lane::OnCpu => "on_cpu",
            Lane::Wal => "wal",
            Lane::Memtable => "memtable",
            Lane::Delay => "delay",
            Lane::ThreadWait => "thread_wait",
            Lane::OtherStorage => "other_storage",
            Lane::Unattributed => "unattributed",
        }
    }

    /// For people: `woken→polled`.
    pub fn label(self) -> &'static str {
        match self {
            Lane::DriverLag => "driver lag",
            Lane::WokenPolled => "woken→polled",
            Lane::OnCpu => "on CPU",
            Lane::ThreadWait => "thread wait",
            Lane::OtherStorage => "other storage",
            other => other.name(),
        }
    }
}

/// Nanoseconds by lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lanes([u64; Lane::ALL.len()]);

impl Lanes {
    /// All of a time in one lane.
    pub fn only(lane: Lane, ns: u64) -> Self {
        let mut lanes = Lanes::default();
        lanes.add(lane, ns);
        lanes
    }

    /// Adds to a lane.
    pub fn add(&mut self, lane: Lane, ns: u64) {
        if let Some(slot) = self.0.get_mut(lane as usize) {
            *slot = slot.saturating_add(ns);
        }
    }

    /// One lane, ns.
    pub fn get(&self, lane: Lane) -> u64 {
        self.0.get(lane as usize).copied().unwrap_or(0)
    }

    /// Adds lane by lane.
    pub fn extend(&mut self, other: &Lanes) {
        for lane in Lane::ALL {
            self.add(lane, other.get(lane));
        }
    }

    /// All lanes together, ns.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, ns| sum.saturating_add(*ns))
    }

    /// The parts of storage together, ns.
    pub fn storage(&self) -> u64 {
        Lane::STORAGE.iter().fold(0, |sum, lane| sum.saturating_add(self.get(*lane)))
    }

    /// The lane with the most.
    pub fn largest(&self) -> Lane {
        Lane::ALL.into_iter().max_by_key(|lane| self.get(*lane)).unwrap_or(Lane::Unattributed)
    }
}

/// The share of a part in a whole; 0 of nothing.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// As a map from lane to ns: storage as one figure, and its parts beneath `storage_parts`.
impl Serialize for Lanes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for lane in Lane::ALL.into_iter().filter(|lane| !Lane::STORAGE.contains(lane) && *lane != Lane::Unattributed) {
            map.serialize_entry(lane.name(), &self.get(lane))?;
        }
        map.serialize_entry("storage", &self.storage())?;
        map.serialize_entry(Lane::Unattributed.name(), &self.get(Lane::Unattributed))?;
        let parts: std::collections::BTreeMap<&str, u64> =
            Lane::STORAGE.iter().map(|lane| (lane.name(), self.get(*lane))).collect();
        map.serialize_entry("storage_parts", &parts)?;
        map.end()
    }
}
