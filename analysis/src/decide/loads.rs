//! Ratio against load: the primary cell of every arm at each load of a study, and where its sign flips.
//!
//! Each further load is a study of its own in a directory below. A flip is claimed only between two loads whose intervals
//! exclude 1 on opposite sides; its place is interpolated on the log of the ratio, and is no estimate with an interval.

use super::primary::Primary;
use super::words;
use crate::decision::{Estimate, LoadCell, LoadCurves, LoadRow, PrimaryCell};
use crate::error::AnalysisError;
use crate::evidence::{complete_blocks, gather};
use crate::load::Study;
use regauge_traces::study::{LoadPoint, Loads, STUDY_VERSION};
use std::fs;
use std::path::Path;

/// The curves; `None` for a study of one load.
///
/// # Errors
/// loads.json or a nested study that is there and cannot be read.
pub fn curves(study: &Study, primary: &Primary<'_>) -> Result<Option<LoadCurves>, AnalysisError> {
    let path = study.dir.join("loads.json");
    // A study in memory has no directory.
    if study.dir.as_os_str().is_empty() || !path.is_file() {
        return Ok(None);
    }
    let loads = read(&path)?;
    let mut rows = Vec::new();
    for point in &loads.loads {
        rows.push(match point.dir.as_str() {
            "." => row(point, primary),
            _ => nested(study, point, primary)?,
        });
    }
    rows.sort_by(|a, b| a.share.total_cmp(&b.share));
    let knees = loads.knees.into_iter().map(|knee| (knee.arm, knee.kept_per_s, knee.missed_per_s, knee.limited_by));
    let knees = knees.collect();
    let arms: Vec<usize> = primary.compared();
    let flips = arms.iter().map(|&arm| flip(primary.name(arm), primary.name(0), &rows)).collect();
    Ok(Some(LoadCurves { knees, loads: rows, flips }))
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
    if !below.runs.iter().any(|run| run.valid) {
        return Ok(empty("no run of this load is valid"));
    }
    let evidence = gather(&below, &below)?;
    let blocks = complete_blocks(&below);
    Ok(row(point, &Primary::new(&below, primary.design, &evidence, &blocks, Vec::new())))
}

fn row(point: &LoadPoint, primary: &Primary<'_>) -> LoadRow {
    let base = LoadCell {
        arm: primary.name(0).to_owned(),
        percentile_ns: primary.quantile(0).filter(|_| primary.refusal(0, 0).is_none()),
        ratio: None,
        why_none: primary.refusal(0, 0).map(|refusal| format!("refused: it takes {}", refusal.need())),
    };
    let of = |arm: usize| {
        let PrimaryCell { arm: name, ratio, why, .. } = primary.cell(arm, 0);
        LoadCell {
            arm: name,
            percentile_ns: primary.quantile(arm).filter(|_| primary.refusal(arm, arm).is_none()),
            why_none: ratio.is_none().then_some(why),
            ratio,
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

/// Where an arm's ratio crosses 1, in one sentence; or that it does not, or cannot be told.
fn flip(arm: &str, base: &str, rows: &[LoadRow]) -> String {
    let ratio = |row: &LoadRow| row.cells.iter().find(|cell| cell.arm == arm).and_then(|cell| cell.ratio);
    let signed: Vec<(f64, Estimate, i32)> = rows
        .iter()
        .filter_map(|row| {
            let ratio = ratio(row)?;
            Some((row.share, ratio, sign(&ratio)))
        })
        .filter(|(_, _, sign)| *sign != 0)
        .collect();
    let open: Vec<String> = rows
        .iter()
        .filter(|row| ratio(row).is_none_or(|ratio| sign(&ratio) == 0))
        .map(|row| percent(row.share))
        .collect();
    let open = match open.is_empty() {
        true => String::new(),
        false => {
            let loads: Vec<&str> = open.iter().map(String::as_str).collect();
            format!("; at {} the sign cannot be told", words::list(&loads))
        }
    };
    let flips: Vec<String> = signed.windows(2).filter_map(crossing).collect();
    let word = |sign: i32| if sign < 0 { "lower" } else { "higher" };
    match (signed.first(), flips.is_empty()) {
        (None, _) => {
            format!("{arm}: at no load does the interval of the ratio to {base} exclude 1, so no sign can be told.")
        }
        (Some((share, _, sign)), true) if signed.len() == 1 => {
            format!("{arm} is {} than {base} at {} of the knee{open}.", word(*sign), percent(*share))
        }
        (Some((_, _, sign)), true) => {
            let shares: Vec<String> = signed.iter().map(|(share, _, _)| percent(*share)).collect();
            let shares: Vec<&str> = shares.iter().map(String::as_str).collect();
            format!("{arm} is {} than {base} at {} of the knee{open}.", word(*sign), words::list(&shares))
        }
        (Some((_, _, sign)), false) => {
            format!("{arm} begins {} than {base} and {}{open}.", word(*sign), flips.join(", then "))
        }
    }
}

/// The load between two decided ones of opposite signs at which the log of the ratio, taken as linear, is 0.
fn crossing(pair: &[(f64, Estimate, i32)]) -> Option<String> {
    let [(from, first, before), (to, second, after)] = pair else { return None };
    if before == after {
        return None;
    }
    let (a, b) = (first.value.ln(), second.value.ln());
    let share = from + (to - from) * a / (a - b);
    Some(format!("flips near {} of the knee (between {} and {})", percent(share), percent(*from), percent(*to)))
}

fn sign(ratio: &Estimate) -> i32 {
    match (ratio.low, ratio.high) {
        (_, Some(high)) if high < 1.0 => -1,
        (Some(low), _) if low > 1.0 => 1,
        _ => 0,
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(cells: &[(f64, f64, f64, f64)]) -> Vec<LoadRow> {
        let row = |&(share, value, low, high): &(f64, f64, f64, f64)| LoadRow {
            share,
            offered_per_s: 1.0,
            blocks: 10,
            primary: false,
            cells: vec![LoadCell {
                arm: "b".into(),
                percentile_ns: None,
                ratio: Some(Estimate { value, low: Some(low), high: Some(high) }),
                why_none: None,
            }],
        };
        cells.iter().map(row).collect()
    }

    #[test]
    fn a_flip_takes_two_decided_loads() {
        // ln 1/2 at 25 % and ln 2 at 75 %: 0 in the middle, whatever the undecided load between them says.
        let text = flip("b", "a", &rows(&[(0.25, 0.5, 0.4, 0.6), (0.5, 1.5, 0.9, 2.5), (0.75, 2.0, 1.5, 2.5)]));
        assert_eq!(
            text,
            "b begins lower than a and flips near 50 % of the knee (between 25 % and 75 %); at 50 % the sign cannot be told."
        );
        let text = flip("b", "a", &rows(&[(0.25, 0.5, 0.4, 0.6), (0.5, 1.5, 0.9, 2.5)]));
        assert_eq!(text, "b is lower than a at 25 % of the knee; at 50 % the sign cannot be told.");
        let text = flip("b", "a", &rows(&[(0.25, 0.5, 0.4, 0.6), (0.5, 0.7, 0.6, 0.8)]));
        assert_eq!(text, "b is lower than a at 25 % and 50 % of the knee.");
        let text = flip("b", "a", &rows(&[(0.5, 1.5, 0.9, 2.5)]));
        assert!(text.ends_with("so no sign can be told."), "{text}");
    }
}
