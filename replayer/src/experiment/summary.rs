//! What a study came to, read from its files.

use super::store::Store;
use super::tally::Tally;
use super::{Context, ExperimentError, StudyConfig};
use crate::arms::{Difference, differences};
use crate::doctor::{Level, Report};
use crate::gates::sentences;
use regauge_traces::study::{LayoutRecord, Manifest, RunRecord};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;

/// A run that enters no table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InvalidRun {
    /// Its block.
    pub block: u32,
    /// Its arm.
    pub arm: String,
    /// One sentence per reason.
    pub why: Vec<String>,
}

/// What a study came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StudySummary {
    /// Its directory.
    pub study: PathBuf,
    /// Complete blocks asked for, all stages together.
    pub blocks_wanted: u32,
    /// Blocks in which every arm's run is valid.
    pub blocks_complete: u32,
    /// Blocks in which all arms have run and a run failed a gate.
    pub blocks_flagged: u32,
    /// Further blocks that were begun in place of flagged ones.
    pub blocks_rerun: u32,
    /// The size follows from the first stage and is written down: no other one may follow.
    pub sized: bool,
    /// Arms × blocks, with those that are run in place of flagged ones as far as they are known.
    pub runs_planned: u64,
    /// Runs that are finished, valid or not.
    pub runs_finished: u64,
    /// Those of them that were finished before this call.
    pub runs_resumed: u64,
    /// Mean duration of a block, the runs of all arms together, s; `None` before the first is finished.
    pub block_s: Option<f64>,
    /// Finished runs that enter no table.
    pub invalid: Vec<InvalidRun>,
    /// The CPU layout.
    pub layout: LayoutRecord,
    /// Settings, besides the stack, in which arms differ.
    pub differences: Vec<Difference>,
    /// What the person should know before trusting the figures.
    pub warnings: Vec<String>,
    /// The stop flag ended it; the same command continues it.
    pub interrupted: bool,
}

/// The summary of a study that was run as far as it goes.
pub(super) fn of(
    context: &Context<'_>,
    manifest: &Manifest,
    host: &Report,
    resumed: u64,
    interrupted: bool,
) -> Result<StudySummary, ExperimentError> {
    let arms = context.arms.len();
    let mut tally = Tally::default();
    let (mut begun, mut finished, mut wall_ns) = (0, 0, 0);
    let mut invalid = Vec::new();
    for block in 0..context.budget.blocks_max() {
        let mut runs: Vec<RunRecord> = Vec::new();
        for arm in &context.arms {
            runs.extend(context.store.record(block, &arm.name)?);
        }
        if runs.is_empty() {
            break;
        }
        begun += 1;
        finished += runs.len() as u64;
        if runs.len() == arms {
            tally.count(&runs);
            wall_ns += runs.iter().filter_map(|r| r.environment.get("wall_ns").and_then(Value::as_u64)).sum::<u64>();
        }
        for run in runs.into_iter().filter(|run| !run.valid) {
            let why = if run.why_invalid.is_empty() { sentences(&run.gates) } else { run.why_invalid };
            invalid.push(InvalidRun { block, arm: run.arm, why });
        }
    }
    let wanted = context.budget.wanted;
    let still = wanted.saturating_sub(tally.complete).min(context.budget.blocks_max() - tally.judged());
    let bad = host.findings.iter().filter(|f| f.level == Level::Bad);
    Ok(StudySummary {
        study: context.config.out.clone(),
        blocks_wanted: wanted,
        blocks_complete: tally.complete,
        blocks_flagged: tally.flagged,
        blocks_rerun: begun.max(wanted) - wanted,
        sized: manifest.stages.iter().any(|stage| stage.sized),
        runs_planned: u64::from(begun.max(tally.judged() + still)) * arms as u64,
        runs_finished: finished,
        runs_resumed: resumed,
        block_s: (tally.judged() > 0).then(|| wall_ns as f64 / 1e9 / f64::from(tally.judged())),
        invalid,
        layout: context.layout.clone(),
        differences: differences(&context.arms),
        warnings: bad.map(|f| format!("{} ({}): {}", f.name, f.value, f.means)).collect(),
        interrupted,
    })
}

/// Interrupted before anything was decided: nothing is kept but the inputs.
pub(super) fn nothing_yet(config: &StudyConfig, store: &Store) -> StudySummary {
    store.remove_tmp().ok();
    StudySummary {
        study: config.out.clone(),
        blocks_wanted: config.blocks,
        blocks_complete: 0,
        blocks_flagged: 0,
        blocks_rerun: 0,
        sized: false,
        runs_planned: u64::from(config.blocks) * config.arms.names().count() as u64,
        runs_finished: 0,
        runs_resumed: 0,
        block_s: None,
        invalid: Vec::new(),
        layout: LayoutRecord {
            name: "undecided".into(),
            driver_cpus: Vec::new(),
            server_cpus: Vec::new(),
            why: "the study was interrupted before a layout was chosen".into(),
            limits: Vec::new(),
        },
        differences: Vec::new(),
        warnings: Vec::new(),
        interrupted: true,
    }
}
