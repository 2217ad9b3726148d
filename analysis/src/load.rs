//! Opens a study: its manifest and the records of its runs, checked, before any sample is read.
//!
//! A run enters the analysis when its record says that all gates passed. Every other run is kept by name and reason,
//! so that what was left out can be counted. Samples themselves are read by [`crate::samples`].

use crate::error::AnalysisError;
use regauge_traces::study::{ArmRecord, Manifest, RunRecord, STUDY_VERSION, run_dir};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A study's records. Samples stay in their files.
#[derive(Debug, Clone)]
pub struct Study {
    /// The study's directory.
    pub dir: PathBuf,
    /// study.json.
    pub manifest: Manifest,
    /// Every finished run, by block and then in the manifest's order of arms.
    pub runs: Vec<RunRecord>,
    /// Runs that were started and have no record: (block, arm).
    pub unfinished: Vec<(u32, String)>,
}

impl Study {
    /// Opens the study in `dir`.
    ///
    /// # Errors
    /// Not a study, a newer version, unreadable or contradictory records, no finished run.
    pub fn open(dir: &Path) -> Result<Self, AnalysisError> {
        let study = Study::open_any(dir)?;
        if !study.runs.iter().any(|run| run.valid) {
            let reasons = reasons(&study.runs);
            return Err(AnalysisError::NoValidRuns { path: dir.to_path_buf(), reasons });
        }
        Ok(study)
    }

    /// Opens the study in `dir` even when none of its runs is valid.
    ///
    /// # Errors
    /// As [`Study::open`], but for that.
    pub fn open_any(dir: &Path) -> Result<Self, AnalysisError> {
        let manifest = read_manifest(dir)?;
        let path = dir.join("study.json");
        let bad = |reason: String| AnalysisError::BadManifest { path: path.clone(), reason };
        let mut names = BTreeSet::new();
        if let Some(twice) = manifest.arms.iter().find(|arm| !names.insert(arm.name.as_str())) {
            return Err(bad(format!("two arms are called `{}`", twice.name)));
        }
        if !names.contains(manifest.base.as_str()) {
            return Err(bad(format!("its base arm `{}` is none of its arms", manifest.base)));
        }
        let mut runs = Vec::new();
        let mut unfinished = Vec::new();
        for (block, arm) in run_directories(dir)? {
            if !names.contains(arm.as_str()) {
                return Err(bad(format!("it has no arm `{arm}`, yet block {block} holds a run of it")));
            }
            let record = run_dir(dir, block, &arm).join("run.json");
            if !record.is_file() {
                unfinished.push((block, arm));
                continue;
            }
            let run: RunRecord = read_json(&record, "the record of a run")?;
            if run.block != block || run.arm != arm {
                let reason = format!("it says block {} and arm `{}`", run.block, run.arm);
                return Err(AnalysisError::BadJson { path: record, what: "the record of its directory's run", reason });
            }
            runs.push(run);
        }
        if runs.is_empty() {
            return Err(AnalysisError::NoRuns { path: dir.to_path_buf() });
        }
        let order = |name: &str| manifest.arms.iter().position(|arm| arm.name == name);
        runs.sort_by_key(|run| (run.block, order(&run.arm)));
        Ok(Study { dir: dir.to_path_buf(), manifest, runs, unfinished })
    }

    /// The arms, base first, the others in the manifest's order.
    pub fn arms(&self) -> Vec<&ArmRecord> {
        let (base, others): (Vec<&ArmRecord>, Vec<&ArmRecord>) =
            self.manifest.arms.iter().partition(|arm| arm.name == self.manifest.base);
        base.into_iter().chain(others).collect()
    }

    /// All finished runs of an arm, by block.
    pub fn runs_of<'a>(&'a self, arm: &'a str) -> impl Iterator<Item = &'a RunRecord> {
        self.runs.iter().filter(move |run| run.arm == arm)
    }

    /// Blocks in which an arm's run is valid.
    pub fn valid_blocks(&self, arm: &str) -> BTreeSet<u32> {
        self.runs_of(arm).filter(|run| run.valid).map(|run| run.block).collect()
    }

    /// A file of one run.
    pub fn run_file(&self, block: u32, arm: &str, name: &str) -> PathBuf {
        run_dir(&self.dir, block, arm).join(name)
    }
}

/// Reads study.json, its version first: a newer layout need not parse.
fn read_manifest(dir: &Path) -> Result<Manifest, AnalysisError> {
    let path = dir.join("study.json");
    if !path.is_file() {
        return Err(AnalysisError::NotAStudy { path: dir.to_path_buf() });
    }
    let value: serde_json::Value = read_json(&path, "a study's manifest")?;
    if let Some(found) = value.get("version").and_then(serde_json::Value::as_u64)
        && found > u64::from(STUDY_VERSION)
    {
        return Err(AnalysisError::NewerVersion { path: dir.to_path_buf(), found, supported: STUDY_VERSION });
    }
    serde_json::from_value(value).map_err(|error| AnalysisError::BadJson {
        path,
        what: "a study's manifest",
        reason: error.to_string(),
    })
}

fn read_json<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<T, AnalysisError> {
    let bytes = fs::read(path).map_err(|error| AnalysisError::io("read", path, error))?;
    serde_json::from_slice(&bytes).map_err(|error| AnalysisError::BadJson {
        path: path.to_path_buf(),
        what,
        reason: error.to_string(),
    })
}

/// (block, arm) of every run directory, sorted.
fn run_directories(dir: &Path) -> Result<Vec<(u32, String)>, AnalysisError> {
    let runs = dir.join("runs");
    if !runs.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (block, path) in partitions(&runs, "block=")? {
        let Ok(block) = block.parse() else { continue };
        found.extend(partitions(&path, "arm=")?.into_iter().map(|(arm, _)| (block, arm)));
    }
    found.sort();
    // `block=1` beside `block=001` is one block.
    found.dedup();
    Ok(found)
}

/// Values and paths of the sub-directories `key=value`.
fn partitions(dir: &Path, key: &str) -> Result<Vec<(String, PathBuf)>, AnalysisError> {
    let list = fs::read_dir(dir).map_err(|error| AnalysisError::io("list", dir, error))?;
    let mut found = Vec::new();
    for entry in list {
        let path = entry.map_err(|error| AnalysisError::io("list", dir, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let (Some(value), true) = (name.strip_prefix(key), path.is_dir()) {
            found.push((value.to_owned(), path.clone()));
        }
    }
    Ok(found)
}

/// Which gates failed how often, with one example: for a study of which nothing is left.
fn reasons(runs: &[RunRecord]) -> String {
    let Some(example) = runs.iter().flat_map(|run| &run.why_invalid).next() else {
        return "their records give no reason".to_owned();
    };
    let mut failed: BTreeMap<&str, usize> = BTreeMap::new();
    for gate in runs.iter().flat_map(|run| &run.gates).filter(|gate| !gate.passed) {
        *failed.entry(&gate.name).or_default() += 1;
    }
    let failed: Vec<String> = failed.iter().map(|(name, times)| format!("{name} in {times}")).collect();
    let counts = match failed.is_empty() {
        true => String::new(),
        false => format!("of {} runs these gates failed: {}; ", runs.len(), failed.join(", ")),
    };
    format!("{counts}for example {example}; stop what else runs on this host, or use a quieter one")
}
