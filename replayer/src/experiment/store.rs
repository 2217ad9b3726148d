//! The study's directory: what is written when, so that an interruption never leaves half a truth.
//!
//! Order of writing: inputs, manifest, then run after run; run.json is each run's last file. Every JSON file is written
//! beside its place, synced and renamed into it. A lock keeps a second process out.

use super::{ExperimentError, design, workload};
use regauge_traces::study::{Manifest, RunRecord, STUDY_VERSION, Stage, run_dir};
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Facts of the host that a study cannot do without: two halves on unlike kernels or disks compare these.
const SAME_HOST: [(&str, &str); 5] = [
    ("/facts/kernel", "the host's kernel"),
    ("/facts/cpu/model", "the host's CPU"),
    ("/facts/clock/source", "the host's clock"),
    ("/facts/disk/file_system", "the file system"),
    ("/facts/disk/mount_options", "the file system's options"),
];
/// What may differ between two calls of the same study, or is compared by itself.
const MAY_DIFFER: [&str; 7] = ["created", "command", "host", "blocks", "stages", "design", "speed"];

/// An open and locked study directory.
pub(super) struct Store {
    root: PathBuf,
    _lock: File,
}

impl Store {
    /// Makes the directory if it is absent, and locks it.
    pub fn open(root: &Path) -> Result<Store, ExperimentError> {
        std::fs::create_dir_all(root).map_err(failed("make", root))?;
        // Absolute, because children are given paths below it.
        let root = root.canonicalize().map_err(failed("find", root))?;
        let path = root.join(".lock");
        let lock = File::create(&path).map_err(failed("write", &path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ExperimentError::Busy { path: root }),
            Err(e) => return Err(failed("lock", &path)(e.into())),
        }
        let store = Store { root, _lock: lock };
        // Left by a study that was killed; nobody else can be using it, the lock is ours.
        store.remove_tmp()?;
        Ok(store)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The study's own copy of the trace.
    pub fn trace(&self) -> PathBuf {
        self.root.join("trace.parquet")
    }

    /// Where running servers keep their data.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Removes what running servers kept.
    pub fn remove_tmp(&self) -> Result<(), ExperimentError> {
        remove_dir(&self.tmp())
    }

    /// study.json, if the study was begun.
    pub fn manifest(&self) -> Result<Option<Manifest>, ExperimentError> {
        let path = self.root.join("study.json");
        // The version first: a newer layout need not parse as ours.
        let Some(value) = read_json::<Value>(&path)? else {
            if self.root.join("runs").exists() {
                let reason = "it holds runs but no study.json, so nobody knows of what".to_owned();
                return Err(ExperimentError::Damaged { path: self.root.clone(), reason });
            }
            return Ok(None);
        };
        match value.get("version").and_then(Value::as_u64) {
            Some(version) if version > u64::from(STUDY_VERSION) => {
                let reason = format!("it is of layout {version}, and this regauge knows up to {STUDY_VERSION}");
                Err(ExperimentError::Damaged { path, reason })
            }
            _ => match serde_json::from_value(value) {
                Ok(manifest) => Ok(Some(manifest)),
                Err(e) => Err(ExperimentError::Damaged { path, reason: e.to_string() }),
            },
        }
    }

    /// Copies the trace and the arms as asked for, unless a study with its own copies stands here already.
    pub fn keep_inputs(&self, trace: &Path, arms: &str) -> Result<(), ExperimentError> {
        if self.root.join("study.json").exists() || self.loads_path().exists() {
            return Ok(());
        }
        workload::keep(trace, &self.trace())?;
        write_atomically(&self.root.join("arms.toml"), arms.as_bytes())
    }

    /// Where the loads of the study stand, if it has several.
    fn loads_path(&self) -> PathBuf {
        self.root.join("loads.json")
    }

    /// loads.json.
    pub fn loads<T: DeserializeOwned>(&self) -> Result<Option<T>, ExperimentError> {
        read_json(&self.loads_path())
    }

    /// Writes loads.json.
    pub fn write_loads(&self, loads: &impl Serialize) -> Result<(), ExperimentError> {
        write_json(&self.loads_path(), loads)
    }

    /// An error that names what differs, unless `now` asks for the study of `earlier`, or for more blocks of it. `now`
    /// becomes the manifest that stands from here on; tells whether it says more than `earlier` did.
    pub fn goes_on(&self, earlier: &Manifest, now: &mut Manifest) -> Result<bool, ExperimentError> {
        let mut differs = self.differences(earlier, now)?;
        differs.extend(other_host(&earlier.host, &now.host));
        let asked = std::mem::replace(now, earlier.clone());
        match (&earlier.design, &asked.design) {
            (Some(before), Some(design)) => match design::goes_on(before, design) {
                Ok(design) => now.design = Some(design),
                Err(more) => differs.extend(more),
            },
            (None, None) => {}
            _ => differs.push("design (it is fixed before the first run, or never)".to_owned()),
        }
        match more_blocks(earlier, &asked) {
            Ok(stage) => {
                now.blocks = stage.as_ref().map_or(now.blocks, |stage| stage.blocks);
                now.stages.extend(stage);
            }
            Err(blocks) => differs.push(blocks),
        }
        if differs.is_empty() {
            return Ok(now.stages != earlier.stages || now.design != earlier.design);
        }
        Err(ExperimentError::OtherStudy { path: self.root.clone(), differs: differs.join(", ") })
    }

    /// Names of the fields that must be the same and are not.
    fn differences(&self, earlier: &Manifest, now: &Manifest) -> Result<Vec<String>, ExperimentError> {
        let damaged =
            |e: serde_json::Error| ExperimentError::Damaged { path: self.root.clone(), reason: e.to_string() };
        let earlier = serde_json::to_value(earlier).map_err(damaged)?;
        let now = serde_json::to_value(now).map_err(damaged)?;
        Ok(differing(&earlier, &now))
    }

    /// Writes study.json.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), ExperimentError> {
        write_json(&self.root.join("study.json"), manifest)
    }

    /// The record of a finished run.
    pub fn record(&self, block: u32, arm: &str) -> Result<Option<RunRecord>, ExperimentError> {
        let read = read_json(&run_dir(&self.root, block, arm).join("run.json"));
        read.map_err(|error| match error {
            ExperimentError::Damaged { path, reason } => ExperimentError::DamagedRun { path, reason },
            other => other,
        })
    }

    /// Writes run.json, which makes the run a finished one.
    pub fn write_record(&self, record: &RunRecord) -> Result<(), ExperimentError> {
        write_json(&run_dir(&self.root, record.block, &record.arm).join("run.json"), record)
    }

    /// Removes a block with all its runs; an absent one is no error.
    pub fn remove_block(&self, block: u32) -> Result<(), ExperimentError> {
        run_dir(&self.root, block, "").parent().map_or(Ok(()), remove_dir)
    }

    /// An empty directory for a run; what an unfinished one left there is removed.
    pub fn fresh_run_dir(&self, block: u32, arm: &str) -> Result<PathBuf, ExperimentError> {
        fresh(run_dir(&self.root, block, arm))
    }

    /// An empty directory for a server's data.
    pub fn fresh_data_dir(&self, name: &str) -> Result<PathBuf, ExperimentError> {
        fresh(self.tmp().join(name))
    }
}

/// Fields of two JSON objects that differ, but for those that may, as a person calls them.
pub(super) fn differing(earlier: &Value, now: &Value) -> Vec<String> {
    let fields = now.as_object().into_iter().flatten();
    fields
        .filter(|(key, value)| !MAY_DIFFER.contains(&key.as_str()) && earlier.get(key.as_str()) != Some(value))
        .map(|(key, _)| if key == "regauge" { "the regauge binary".to_owned() } else { key.clone() })
        .collect()
}

/// What of the host is known of both calls and differs, as a person calls it.
fn other_host(earlier: &Value, now: &Value) -> Vec<String> {
    let known = |host: &Value, at: &str| host.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let both = SAME_HOST.iter().filter_map(|(at, name)| Some((name, known(earlier, at)?, known(now, at)?)));
    both.filter(|(_, before, now)| before != now)
        .map(|(name, before, now)| format!("{name} ({before} before, {now} now)"))
        .collect()
}

/// The stage that `asked` adds to `earlier`, if any; or what is wrong with its number of blocks.
///
/// In a sized study the first stage's size is fixed, and the second stage follows from it once: whoever could choose
/// again after a look at the ratios would choose the size at which one looks significant.
fn more_blocks(earlier: &Manifest, asked: &Manifest) -> Result<Option<Stage>, String> {
    let first = |manifest: &Manifest| manifest.stages.first().map_or(manifest.blocks, |stage| stage.blocks);
    let sized = |manifest: &Manifest| manifest.stages.iter().rev().find(|stage| stage.sized).cloned();
    let differ = |before: u32, now: u32| Err(format!("blocks ({before} were asked for before, {now} now)"));
    if earlier.design.as_ref().is_some_and(|design| design.until.is_some()) {
        if first(asked) != first(earlier) {
            return differ(first(earlier), first(asked));
        }
        return match (sized(earlier), sized(asked)) {
            (Some(before), Some(now)) if before.blocks != now.blocks => differ(before.blocks, now.blocks),
            (None, now) => Ok(now),
            (Some(_), _) => Ok(None),
        };
    }
    if asked.blocks < earlier.blocks {
        return differ(earlier.blocks, asked.blocks);
    }
    Ok(asked.stages.first().filter(|stage| stage.blocks > earlier.blocks).cloned())
}

/// SHA-256 of a file, hex.
pub(super) fn file_hash(path: &Path) -> Result<String, ExperimentError> {
    let mut file = File::open(path).map_err(failed("read", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = io::Read::read(&mut file, &mut buffer).map_err(failed("read", path))?;
        let Some(read) = buffer.get(..n).filter(|read| !read.is_empty()) else { break };
        hash.update(read);
    }
    let digest: [u8; 32] = hash.finalize().into();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Removes a directory with all in it; an absent one is no error.
pub(super) fn remove_dir(path: &Path) -> Result<(), ExperimentError> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        _ => Ok(()),
    }
}

/// An [`ExperimentError`] from an [`io::Error`].
pub(super) fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ExperimentError + 'a {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ExperimentError::DiskFull { path: path.to_owned() }
        }
        _ => ExperimentError::Io { what, path: path.to_owned(), source },
    }
}

fn fresh(path: PathBuf) -> Result<PathBuf, ExperimentError> {
    remove_dir(&path)?;
    std::fs::create_dir_all(&path).map_err(failed("make", &path))?;
    Ok(path)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ExperimentError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("read", path)(e)),
    };
    let damaged = |e: serde_json::Error| ExperimentError::Damaged { path: path.to_owned(), reason: e.to_string() };
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ExperimentError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| failed("write", path)(e.into()))?;
    text.push(b'\n');
    write_atomically(path, &text)
}

fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ExperimentError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        // The rename is durable when the directory is.
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(failed("write", path))
}
