//! Ratio against load: the primary cell of every arm at each load of a study, and where its sign flips.
//!
//! Each further load is a study of its own in a directory below, and passes the same procedure: warm-up and steady state,
//! A/A gate, complete blocks, episodes, cross-check. A sign is told only of a cell that all of it lets stand, and with a
//! p-value adjusted by Holm over all alternatives and loads. A flip is claimed only between two loads with opposite signs;
//! its place is interpolated on the log of the ratio, and is no estimate with an interval.

mod flips;

use super::primary::Primary;
use super::verdict::BLOCKS_MIN;
use super::{Frame, control, secondary, words};
use crate::analysis::Comparison;
use crate::comparisons::compare_arm;
use crate::decision::{Control, LoadCell, LoadCurves, LoadRow, PrimaryCell, SteadyState, Tier};
use crate::error::AnalysisError;
use crate::evidence::{ArmEvidence, common_blocks};
use crate::load::Study;
use crate::multiplicity::holm;
use regauge_traces::study::{LoadPoint, Loads, STUDY_VERSION};
use std::fs;
use std::path::Path;

/// What the primary load's own gates said, which are judged elsewhere.
pub struct Own<'a> {
    /// Its A/A gate.
    pub control: Option<&'a Control>,
    /// Its steady state.
    pub steady: &'a SteadyState,
}

/// The curves; `None` for a study of one load.
///
/// # Errors
/// loads.json or a nested study that is there and cannot be read, or that is of other arms or another workload.
pub fn curves(
    study: &Study,
    frame: &Frame<'_>,
    primary: &Primary<'_>,
    own: Own<'_>,
) -> Result<Option<LoadCurves>, AnalysisError> {
    let path = study.dir.join("loads.json");
    // A study in memory has no directory.
    if study.dir.as_os_str().is_empty() || !path.is_file() {
        return Ok(None);
    }
    let loads = read(&path)?;
    let mut rows = Vec::new();
    for point in &loads.loads {
        rows.push(match point.dir.as_str() {
            "." => row(point, primary, stands(frame, primary, own.control, own.steady)),
            _ => nested(study, point, primary)?,
        });
    }
    rows.sort_by(|a, b| a.share.total_cmp(&b.share));
    adjust(frame, &mut rows);
    let knees = loads.knees.into_iter().map(|knee| (knee.arm, knee.kept_per_s, knee.missed_per_s, knee.limited_by));
    let knees = knees.collect();
    let alternatives = primary.compared().into_iter().map(|arm| primary.name(arm));
    let alternatives = alternatives.filter(|arm| frame.roles.is_alternative(arm));
    let flips = alternatives.map(|arm| flips::flip(arm, primary.name(0), &rows)).collect();
    Ok(Some(LoadCurves { knees, loads: rows, flips }))
}

/// Adjusts the p-values of all alternatives at all loads together. A cell that decides nothing was asked all the same.
fn adjust(frame: &Frame<'_>, rows: &mut [LoadRow]) {
    let cells = rows.iter_mut().flat_map(|row| &mut row.cells);
    let mut cells: Vec<&mut LoadCell> = cells.filter(|cell| frame.roles.is_alternative(&cell.arm)).collect();
    let p = holm(&cells.iter().map(|cell| cell.p.filter(|_| cell.decided)).collect::<Vec<_>>());
    cells.iter_mut().zip(p).for_each(|(cell, p)| cell.p_holm = p);
}

/// Whether anything may be told at a load, whatever the arm.
fn stands(frame: &Frame<'_>, primary: &Primary<'_>, control: Option<&Control>, steady: &SteadyState) -> bool {
    let blocks = primary.blocks() as u64;
    let is_whole = blocks >= BLOCKS_MIN.max(frame.wanted) && frame.registered && !frame.peeked;
    let is_steady = steady.untested.is_none() && steady.not_reached.is_empty();
    is_whole && frame.other_question.is_empty() && is_steady && control.is_some_and(|control| control.trusted)
}

fn read(path: &Path) -> Result<Loads, AnalysisError> {
    let bytes = fs::read(path).map_err(|error| AnalysisError::io("read", path, error))?;
    let bad =
        |reason: String| AnalysisError::BadJson { path: path.to_path_buf(), what: "the loads of a study", reason };
    let loads: Loads = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    if loads.version > STUDY_VERSION {
        return Err(bad(format!("it is of version {}, and this regauge reads up to {STUDY_VERSION}", loads.version)));
    }
    Ok(loads)
}

/// The row of a nested study; one that was not run yet, or has no valid run, has cells that say so.
fn nested(study: &Study, point: &LoadPoint, primary: &Primary<'_>) -> Result<LoadRow, AnalysisError> {
    let empty = |why: &str| {
        let cell = |arm: usize| LoadCell {
            arm: primary.name(arm).to_owned(),
            percentile_ns: None,
            ratio: None,
            why_none: Some(why.to_owned()),
            p: None,
            p_holm: None,
            decided: false,
        };
        let arms = std::iter::once(0).chain(primary.compared());
        LoadRow {
            share: point.share,
            offered_per_s: point.offered_per_s,
            blocks: 0,
            primary: false,
            cells: arms.map(cell).collect(),
        }
    };
    // The name comes from a file: a path out of the study is not followed.
    let plain = Path::new(&point.dir).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let dir = study.dir.join(&point.dir);
    if !plain || !dir.join("study.json").is_file() {
        return Ok(empty("this load was not run"));
    }
    let below = match Study::open_any(&dir) {
        Ok(below) => below,
        Err(AnalysisError::NoRuns { .. }) => return Ok(empty("this load was not run")),
        Err(error) => return Err(error),
    };
    same_experiment(study, &below)?;
    if !below.runs.iter().any(|run| run.valid) {
        return Ok(empty("no run of this load is valid"));
    }
    let (evidence, steady) = crate::settle(&below, &below)?;
    let frame = Frame::of(&below, &evidence);
    let here = Primary::new(&below, primary.design, &evidence, &frame.complete, Vec::new());
    let control = frame.roles.control.map(|arm| control::judge(&here, arm, smallest_p(&below, &frame, &evidence, arm)));
    Ok(row(point, &here, stands(&frame, &here, control.as_ref(), &steady)))
}

/// A load differs in its rate and in nothing else.
fn same_experiment(study: &Study, below: &Study) -> Result<(), AnalysisError> {
    let (one, other) = (&study.manifest, &below.manifest);
    let differs = [
        ("base arm", one.base != other.base),
        ("arms", one.arms != other.arms),
        ("workload", one.workload_hash != other.workload_hash),
    ];
    let differs: Vec<&str> = differs.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what).collect();
    if differs.is_empty() {
        return Ok(());
    }
    let verb = if matches!(differs[..], ["arms"] | [_, _, ..]) { "differ" } else { "differs" };
    let reason = format!("it is no load of the study above it, since its {} {verb}", words::list(&differs));
    Err(AnalysisError::BadManifest { path: below.dir.join("study.json"), reason })
}

/// The smallest adjusted p-value over all cells of the control at a load.
fn smallest_p(study: &Study, frame: &Frame<'_>, evidence: &[ArmEvidence], arm: usize) -> Option<f64> {
    let (control, base) = (evidence.get(arm)?, evidence.first()?);
    let blocks = common_blocks(study, &control.name, &base.name);
    let mut cells: Vec<Comparison> = compare_arm(&blocks, control, base);
    let family = secondary::Family {
        evidence,
        blocks: &frame.complete,
        primary: None,
        control: Some(&control.name),
        seed: study.manifest.seed,
    };
    secondary::adjust(&family, &mut cells)
}

/// A row; `stands` says whether the load as a whole may tell anything.
fn row(point: &LoadPoint, primary: &Primary<'_>, stands: bool) -> LoadRow {
    let base = LoadCell {
        arm: primary.name(0).to_owned(),
        percentile_ns: primary.quantile(0).filter(|_| primary.refusal(0, 0).is_none()),
        ratio: None,
        why_none: primary.refusal(0, 0).map(|refusal| format!("refused: it takes {}", refusal.need())),
        p: None,
        p_holm: None,
        decided: false,
    };
    let of = |arm: usize| {
        let PrimaryCell { arm: name, ratio, why, p, tier, low_confidence, .. } = primary.cell(arm, 0);
        LoadCell {
            arm: name,
            percentile_ns: primary.quantile(arm).filter(|_| primary.refusal(arm, arm).is_none()),
            why_none: ratio.is_none().then_some(why),
            ratio,
            p,
            p_holm: None,
            decided: stands && !low_confidence && !matches!(tier, Tier::RunHeterogeneous | Tier::Refused),
        }
    };
    LoadRow {
        share: point.share,
        offered_per_s: point.offered_per_s,
        blocks: primary.blocks() as u64,
        primary: point.dir == ".",
        cells: std::iter::once(base).chain(primary.compared().into_iter().map(of)).collect(),
    }
}
