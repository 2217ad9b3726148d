//! The canary: a fixed piece of work before and after each run, to notice that the host itself changed.
//!
//! Why: a neighbour, a lower clock or a busy disk makes every stack slow, and no figure of a stack says so. The canary
//! knows no stack: a loop of integer work, and small overwrites that are each synced. It runs while no server runs and
//! after the run's data directory is gone, so that an arm's unwritten pages are not what it measures.

use regauge_runtimes::affinity::bind_thread;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

/// What the fixed work cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// Fastest repetition of the integer loop, ns: the fastest is the one that nobody interrupted.
    pub spin_ns: u64,
    /// Median of a 4 KiB overwrite and fdatasync, ns.
    pub sync_p50_ns: u64,
    /// The slowest of them, ns.
    pub sync_max_ns: u64,
}

const SPIN_REPETITIONS: usize = 9;
const SPIN_ROUNDS: u64 = 1_000_000;
const SYNCS: u64 = 32;
const SYNC_BYTES: u64 = 4096;

impl Canary {
    /// Does the work on `cpu` and with a file in `dir` (removed afterwards).
    pub fn measure(cpu: Option<usize>, dir: &Path) -> io::Result<Canary> {
        let spin = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    bind_thread(cpu.as_slice()).map_err(io::Error::other)?;
                    Ok::<u64, io::Error>((0..SPIN_REPETITIONS).map(|_| spin_once()).min().unwrap_or(0))
                })
                .join()
        });
        let spin_ns = spin.map_err(|_| io::Error::other("the canary's thread ended early"))??;
        let file = dir.join("canary");
        let syncs = sync_times(&file);
        let removed = std::fs::remove_file(&file);
        let mut syncs = syncs?;
        removed?;
        syncs.sort_unstable();
        let sync_p50_ns = syncs.get(syncs.len() / 2).copied().unwrap_or(0);
        Ok(Canary { spin_ns, sync_p50_ns, sync_max_ns: syncs.last().copied().unwrap_or(0) })
    }
}

fn spin_once() -> u64 {
    let start = Instant::now();
    let mut x = black_box(88_172_645_463_325_252_u64);
    for _ in 0..SPIN_ROUNDS {
        // Marsaglia's xorshift64: each round needs the last one's result, so only the clock's rate counts.
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    black_box(x);
    elapsed_ns(start)
}

/// Overwrites blocks that exist already: only the data's way to the device is timed, no change of the file's length.
fn sync_times(path: &Path) -> io::Result<Vec<u64>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let page = vec![0x5a_u8; SYNC_BYTES as usize];
    for i in 0..SYNCS {
        file.write_all_at(&page, i * SYNC_BYTES)?;
    }
    file.sync_all()?;
    let once = |i: u64| {
        let start = Instant::now();
        file.write_all_at(&page, i * SYNC_BYTES)?;
        file.sync_data()?;
        Ok(elapsed_ns(start))
    };
    (0..SYNCS).map(once).collect()
}

fn elapsed_ns(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_measures_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let canary = Canary::measure(crate::host::cpu::allowed().first().copied(), dir.path()).unwrap();
        assert!(canary.spin_ns > 0 && canary.sync_p50_ns > 0 && canary.sync_max_ns >= canary.sync_p50_ns);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Canary::measure(None, &dir.path().join("absent")).is_err());
    }
}
