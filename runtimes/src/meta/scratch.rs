//! A directory in memory for databases that are not to touch a disk, gone with the process.
//!
//! It lies in /dev/shm under a name that holds the process id, so that one left behind by a process that was killed is
//! recognised and removed by the next that needs one.

use super::store::StoreError;
use rustix::process::{Pid, test_kill_process};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const MEMORY: &str = "/dev/shm";
const NAME: &str = "regauge-meta-";
/// What statfs(2) says of a tmpfs.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A fresh directory; removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes one, after removing those of processes that are gone.
    ///
    /// # Errors
    /// [`StoreError::NoMemory`] when /dev/shm is not in memory or cannot be written.
    pub fn make() -> Result<Scratch, StoreError> {
        Scratch::make_in(Path::new(MEMORY))
    }

    fn make_in(memory: &Path) -> Result<Scratch, StoreError> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let unusable = |reason: String| StoreError::NoMemory { path: memory.to_path_buf(), reason };
        let system = rustix::fs::statfs(memory).map_err(|error| unusable(error.to_string()))?;
        if system.f_type as u64 != TMPFS_MAGIC {
            return Err(unusable("it is no tmpfs".to_owned()));
        }
        remove_left_behind(memory).map_err(|error| unusable(error.to_string()))?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = memory.join(format!("{NAME}{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(|error| unusable(error.to_string()))?;
        Ok(Scratch { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed by the next process.
        let _stays = fs::remove_dir_all(&self.path);
    }
}

/// Removes the directories of processes that are gone. Others may do so at the same time.
fn remove_left_behind(memory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(memory)?.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(NAME)?.split_once('-')?.0.parse().ok());
        let gone = |pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH);
        if owner.and_then(Pid::from_raw).is_some_and(gone) {
            let _another_was_faster_or_it_is_not_ours = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_dead_process_left_is_removed_and_what_lives_stays() {
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let left = Path::new(MEMORY).join(format!("{NAME}{}-0", dead.id()));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("file"), "x").unwrap();
        let first = Scratch::make().unwrap();
        assert!(!left.exists());
        let second = Scratch::make().unwrap();
        assert!(first.path().exists() && first.path() != second.path());
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn a_disk_is_refused() {
        let error = Scratch::make_in(Path::new("/proc")).unwrap_err().to_string();
        assert!(error.contains("/proc") && error.contains("no tmpfs") && error.contains("meta_store"), "{error}");
    }
}
