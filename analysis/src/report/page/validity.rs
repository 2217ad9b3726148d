//! What makes the figures comparable: the arms' settings side by side, the gates, the digests, what was left out.

use super::plain::{flatten, plain};
use super::table::{Cell, Row, Table};
use crate::analysis::Analysis;
use crate::decision::Decision;
use crate::load::Study;
use crate::units::round_time;
use regauge_traces::study::RunRecord;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Settings side by side, what differs first and marked.
pub fn settings(study: &Study, analysis: &Analysis) -> Table {
    let arms = study.arms();
    let of: Vec<BTreeMap<String, String>> = arms
        .iter()
        .map(|arm| {
            let mut map: BTreeMap<String, String> = flatten(&arm.settings).into_iter().collect();
            map.insert("stack".to_owned(), arm.stack.clone());
            map
        })
        .collect();
    let keys: BTreeSet<&String> = of.iter().flat_map(BTreeMap::keys).collect();
    let mut rows: Vec<Row> = keys
        .into_iter()
        .map(|name| {
            let values: Vec<String> =
                of.iter().map(|map| map.get(name).cloned().unwrap_or_else(|| "–".to_owned())).collect();
            let first = values.first().cloned().unwrap_or_default();
            let is_same = values.iter().all(|value| *value == first);
            let cells = values.into_iter().map(|text| {
                let class = if text != first { "differs" } else { "" };
                Cell::classed(text, class)
            });
            let class = if is_same { "same" } else { "varies" };
            Row { head: name.clone(), key: String::new(), class, cells: cells.collect() }
        })
        .collect();
    rows.sort_by_key(|row| (row.class == "same", row.head != "stack"));
    let columns: Vec<&str> = analysis.arms.iter().map(|arm| arm.name.as_str()).collect();
    Table::new("Settings of every arm; what differs from the base is marked", "setting", &columns, rows)
}

/// Gates by arm: how many runs passed, and what the failing ones measured.
pub fn gates(study: &Study, analysis: &Analysis) -> Table {
    let mut names: Vec<&str> = Vec::new();
    for gate in study.runs.iter().flat_map(|run| &run.gates) {
        if !names.contains(&gate.name.as_str()) {
            names.push(&gate.name);
        }
    }
    let rows = names.into_iter().map(|name| {
        let cells = analysis.arms.iter().map(|arm| {
            let gates: Vec<_> =
                study.runs_of(&arm.name).filter_map(|run| run.gates.iter().find(|gate| gate.name == name)).collect();
            let failed: Vec<&str> =
                gates.iter().filter(|gate| !gate.passed).map(|gate| gate.measured.as_str()).take(2).collect();
            let passed = gates.iter().filter(|gate| gate.passed).count();
            let class = if failed.is_empty() { "" } else { "higher long" };
            Cell::classed(format!("{passed} of {}", gates.len()), class).note(failed.join("; "))
        });
        let cells = cells.collect();
        let mut required: BTreeSet<&str> = BTreeSet::new();
        let all = study.runs.iter().flat_map(|run| &run.gates).filter(|gate| gate.name == name);
        required.extend(all.map(|gate| gate.required.as_str()));
        // What is asked of each arm in its own words (its attestation, its block's digest) is no heading.
        let head = match required.len() {
            1 if required.iter().all(|text| text.chars().count() <= 70) => {
                format!("{name}: {}", required.into_iter().collect::<String>())
            }
            _ => name.to_owned(),
        };
        Row { head, key: String::new(), class: "", cells }
    });
    let columns: Vec<&str> = analysis.arms.iter().map(|arm| arm.name.as_str()).collect();
    Table::new("Runs that passed each validity gate, by arm", "gate, and what it requires", &columns, rows.collect())
}

/// Whether all valid runs of the study ended in the same state and gave the same replies.
pub fn digests(study: &Study) -> Vec<String> {
    type Find = fn(&RunRecord) -> Option<&Value>;
    let paths: [(&str, Find); 3] = [
        ("the replies of every session", |run| run.driver.get("replies_digest")),
        ("the meta-service's state", |run| run.server.get("digest")?.get("meta")),
        ("the segment files", |run| run.server.get("digest")?.get("segments")),
    ];
    let valid: Vec<&RunRecord> = study.runs.iter().filter(|run| run.valid).collect();
    paths
        .into_iter()
        .map(|(what, of)| {
            let found: BTreeMap<String, usize> =
                valid.iter().filter_map(|run| of(run)).fold(BTreeMap::new(), |mut seen, digest| {
                    *seen.entry(plain(digest)).or_default() += 1;
                    seen
                });
            let recorded: usize = found.values().sum();
            match (found.len(), found.keys().next()) {
                (0, _) => format!("No run recorded a digest of {what}."),
                (1, Some(digest)) if recorded == valid.len() => {
                    format!("The digest of {what} is the same in all {} valid runs: {digest}.", valid.len())
                }
                (1, Some(digest)) => {
                    format!(
                        "The digest of {what} is {digest} in {recorded} of {} valid runs; the others have none.",
                        valid.len()
                    )
                }
                (kinds, _) => format!("The digests of {what} differ: {kinds} values in {recorded} valid runs."),
            }
        })
        .collect()
}

/// Warm-up and steady state, in sentences.
pub fn steady(decision: &Decision) -> Vec<String> {
    let steady = &decision.steady;
    let planned = round_time(steady.planned_ns as f64);
    let cut = round_time(steady.cut_ns as f64);
    let mut said = vec![match steady.mser_ns {
        Some(mser) => format!(
            "Requests planned in the first {cut} enter no figure: the plan's warm-up is {planned}, and the truncation point \
             of MSER over all runs is {}.",
            round_time(mser as f64)
        ),
        None => format!("Requests planned in the first {cut} enter no figure, as planned."),
    }];
    said.extend(steady.untested.clone());
    if !steady.not_reached.is_empty() {
        said.push(format!("These runs never settled: {}.", steady.not_reached.join(", ")));
    }
    said.extend(steady.moved.iter().map(|step| {
        format!(
            "Block {}, {}: the level moved by {:+.0} % at {} (p {:.3}).",
            step.block,
            step.arm,
            step.change * 100.0,
            round_time(step.at_ns as f64),
            step.p
        )
    }));
    said
}

/// Runs that entered no figure, each with its reason.
pub fn left_out(analysis: &Analysis) -> Vec<String> {
    let of = |arm: &crate::analysis::ArmSummary| {
        arm.why_invalid.iter().map(|why| format!("{}, {why}", arm.name)).collect::<Vec<_>>()
    };
    analysis.arms.iter().flat_map(of).collect()
}
