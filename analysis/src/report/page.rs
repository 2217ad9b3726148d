//! What the report says beside its pictures, as plain values for the template: every number already has its unit.

use super::plot::key;
use crate::analysis::{Analysis, ArmSummary, Comparison, StepSummary};
use crate::counts::PERCENTILES;
use crate::evidence::ALL;
use crate::load::Study;
use crate::terminal::{cell, columns, ratio_cell};
use crate::units::{bytes, count, plural, rough_count, time};
use regauge_traces::study::RunRecord;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A cell of a table: what it says, and a second line.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cell {
    /// First line.
    text: String,
    /// Smaller, under it.
    note: String,
    /// Style class.
    class: &'static str,
}

/// A row with its heading.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    head: String,
    /// Inline SVG of the arm's line and mark; empty where the row is no arm.
    key: String,
    class: &'static str,
    cells: Vec<Cell>,
}

/// A table.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    corner: &'static str,
    columns: Vec<String>,
    rows: Vec<Row>,
}

/// Everything that the template prints.
#[derive(Debug, Clone, Serialize)]
pub struct Page {
    title: String,
    verdict: &'static str,
    finding: String,
    why: Vec<String>,
    summary: String,
    arms: Vec<(String, String)>,
    headline: Table,
    has_low_confidence: bool,
    refusals: Vec<String>,
    kinds: Vec<(String, Table)>,
    costs: Table,
    settings: Table,
    gates: Table,
    left_out: Vec<String>,
    digests: Vec<String>,
    check: String,
    host_why: String,
    limits: Vec<String>,
    host: Vec<(String, String)>,
    reproduce: Vec<(&'static str, String)>,
}

impl Page {
    /// Puts an analysis into words.
    pub fn of(study: &Study, analysis: &Analysis) -> Self {
        let manifest = &study.manifest;
        let base = analysis.arms.first();
        let kinds =
            base.map(|base| base.steps.keys().filter(|step| *step != ALL).cloned().collect()).unwrap_or_default();
        Page {
            title: format!("{} arms against {}", analysis.arms.len().saturating_sub(1), analysis.base),
            verdict: analysis.verdict,
            finding: analysis.finding.clone(),
            why: analysis.verdict_why.clone(),
            summary: summary(study, analysis),
            arms: analysis.arms.iter().enumerate().map(|(i, arm)| (arm.name.clone(), key(i))).collect(),
            headline: headline(analysis),
            has_low_confidence: analysis.arms.iter().any(|arm| !arm.low_confidence.is_empty()),
            refusals: refusals(analysis),
            kinds: kinds_of(kinds, analysis),
            costs: costs(analysis),
            settings: settings(study, analysis),
            gates: gates(study, analysis),
            left_out: analysis
                .arms
                .iter()
                .flat_map(|arm| arm.why_invalid.iter().map(move |why| format!("{}, {why}", arm.name)))
                .collect(),
            digests: digests(study),
            check: format!(
                "Histogram percentiles were computed again from the raw samples: {}, largest difference {:.3} %.",
                plural(analysis.check.cells, "cell"),
                analysis.check.largest_difference * 100.0
            ),
            host_why: format!(
                "CPU layout {}: driver on {}, server on {}. {}",
                manifest.layout.name,
                cpus(&manifest.layout.driver_cpus),
                cpus(&manifest.layout.server_cpus),
                manifest.layout.why
            ),
            limits: manifest.layout.limits.clone(),
            host: flatten(&manifest.host),
            reproduce: reproduce(study),
        }
    }
}

fn cpus(list: &[usize]) -> String {
    if list.is_empty() {
        return "any CPU".to_owned();
    }
    let names: Vec<String> = list.iter().map(usize::to_string).collect();
    format!("CPU {}", names.join(", "))
}

fn summary(study: &Study, analysis: &Analysis) -> String {
    let manifest = &study.manifest;
    let blocks = analysis.arms.iter().map(|arm| arm.valid_runs).max().unwrap_or(0);
    format!(
        "One plan of {} requests, {} long; {} arms in {} of random order; {} requests per run after a warm-up of {}.",
        count(manifest.requests),
        time(manifest.duration_ns as f64),
        analysis.arms.len(),
        plural(blocks.max(u64::from(manifest.blocks)), "block"),
        analysis
            .arms
            .iter()
            .find(|arm| arm.valid_runs > 0)
            .map_or_else(|| "no".to_owned(), |arm| rough_count(arm.requests / arm.valid_runs)),
        time(manifest.warmup_ns as f64)
    )
}

/// The comparison of an arm at a step and percentile.
fn comparison<'a>(analysis: &'a Analysis, arm: &str, step: &str, key: &str) -> Option<&'a Comparison> {
    analysis.comparisons.iter().find(|row| row.arm == arm && row.step == step && row.percentile == key)
}

fn verdict_class(row: &Comparison) -> &'static str {
    match row.ci_low.zip(row.ci_high) {
        Some((_, high)) if high < 1.0 => "lower",
        Some((low, _)) if low > 1.0 => "higher",
        _ => "",
    }
}

fn headline(analysis: &Analysis) -> Table {
    let rows = analysis.arms.iter().enumerate().map(|(i, arm)| {
        let cells = columns().map(|percentile| {
            let row = comparison(analysis, &arm.name, ALL, percentile.key).filter(|row| row.ratio.is_some());
            let text = cell(arm, percentile);
            Cell {
                class: if text == "refused" { "refused" } else { row.map(verdict_class).unwrap_or_default() },
                note: row.map(|row| format!("×\u{a0}{}", ratio_cell(row))).unwrap_or_default(),
                text,
            }
        });
        let class = if arm.name == analysis.base { "base" } else { "" };
        Row { head: arm.name.clone(), key: key(i), class, cells: cells.collect() }
    });
    Table { corner: "arm", columns: columns().map(|p| p.label.to_owned()).collect(), rows: rows.collect() }
}

fn refusals(analysis: &Analysis) -> Vec<String> {
    let mut notes = Vec::new();
    for percentile in PERCENTILES {
        for arm in &analysis.arms {
            let Some(refusal) = arm.refused.get(percentile.key) else { continue };
            let need = if refusal.driver_owned {
                format!("the driver's own lateness may stand there, so it takes {}", refusal.need())
            } else {
                format!("it takes {}, and there are {}", refusal.need(), rough_count(refusal.samples))
            };
            let largest = arm.max_ns.map(|ns| format!("; the largest was {}", time(ns as f64))).unwrap_or_default();
            notes.push(format!(
                "{} of {}: {} in {} independent episodes; {need}{largest}.",
                percentile.label,
                arm.name,
                plural(refusal.exceedances, "slower request"),
                refusal.episodes
            ));
        }
    }
    notes
}

/// One table per root kind, where the arms' latencies are told apart.
fn kinds_of(kinds: Vec<String>, analysis: &Analysis) -> Vec<(String, Table)> {
    let table = |step: &str| {
        let rows = analysis.arms.iter().enumerate().filter_map(|(i, arm)| {
            let summary: &StepSummary = arm.steps.get(step)?;
            let mut cells = vec![
                Cell { text: count(summary.requests), ..Cell::default() },
                Cell {
                    text: count(summary.errors),
                    class: if summary.errors > 0 { "higher" } else { "" },
                    ..Cell::default()
                },
            ];
            cells.extend(PERCENTILES.iter().map(|percentile| {
                let tails = summary.latency.as_ref();
                let value = tails.and_then(|tails| tails.percentiles_ns.get(percentile.key).copied().flatten());
                let is_refused = tails.is_some_and(|tails| tails.refused.contains_key(percentile.key));
                let row = comparison(analysis, &arm.name, step, percentile.key).filter(|row| row.ratio.is_some());
                Cell {
                    text: match value {
                        Some(ns) => time(ns as f64),
                        None if is_refused => "refused".to_owned(),
                        None => "no reply".to_owned(),
                    },
                    note: row.map(|row| format!("×\u{a0}{}", ratio_cell(row))).unwrap_or_default(),
                    class: if is_refused { "refused" } else { row.map(verdict_class).unwrap_or_default() },
                }
            }));
            Some(Row { head: arm.name.clone(), key: key(i), class: "", cells })
        });
        let columns = ["requests", "errors"].into_iter().chain(PERCENTILES.iter().map(|p| p.label)).map(str::to_owned);
        Table { corner: "arm", columns: columns.collect(), rows: rows.collect() }
    };
    kinds.into_iter().map(|step| (step.clone(), table(&step))).collect()
}

fn costs(analysis: &Analysis) -> Table {
    let shown =
        |value: Option<String>| Cell { text: value.unwrap_or_else(|| "not recorded".to_owned()), ..Cell::default() };
    let row = |(i, arm): (usize, &ArmSummary)| {
        let r = &arm.resources;
        let cells = vec![
            shown(r.throughput_per_s.map(|n| format!("{} /s", count(n.round() as u64)))),
            shown(r.cpu_ns_per_request.map(time)),
            shown(r.voluntary_switches_per_request.map(|n| format!("{n:.2}"))),
            shown(r.involuntary_switches_per_request.map(|n| format!("{n:.3}"))),
            shown(r.max_rss_bytes.map(|n| bytes(n as f64))),
            Cell { text: count(arm.errors), class: if arm.errors > 0 { "higher" } else { "" }, ..Cell::default() },
        ];
        Row { head: arm.name.clone(), key: key(i), class: "", cells }
    };
    let columns =
        ["throughput", "CPU per request", "voluntary switches", "involuntary switches", "largest memory", "errors"];
    Table {
        corner: "arm",
        columns: columns.map(str::to_owned).to_vec(),
        rows: analysis.arms.iter().enumerate().map(row).collect(),
    }
}

/// Settings side by side, what differs first and marked.
fn settings(study: &Study, analysis: &Analysis) -> Table {
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
            let is_same = values.windows(2).all(|pair| pair.first() == pair.last());
            let first = values.first().cloned().unwrap_or_default();
            let cells = values.into_iter().map(|text| {
                let class = if !is_same && text != first { "differs" } else { "" };
                Cell { text, class, ..Cell::default() }
            });
            Row {
                head: name.clone(),
                key: String::new(),
                class: if is_same { "same" } else { "varies" },
                cells: cells.collect(),
            }
        })
        .collect();
    rows.sort_by_key(|row| (row.class == "same", row.head != "stack"));
    Table { corner: "setting", columns: analysis.arms.iter().map(|arm| arm.name.clone()).collect(), rows }
}

/// Gates by arm: how many runs passed, and what the failing ones measured.
fn gates(study: &Study, analysis: &Analysis) -> Table {
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
            Cell {
                text: format!("{passed} of {}", gates.len()),
                note: failed.join("; "),
                class: if failed.is_empty() { "" } else { "higher" },
            }
        });
        let cells = cells.collect();
        let required = study.runs.iter().flat_map(|run| &run.gates).find(|gate| gate.name == name);
        let required = required.map(|gate| format!("{name} ({})", gate.required)).unwrap_or_default();
        Row { head: required, key: String::new(), class: "", cells }
    });
    Table {
        corner: "gate, and what it requires",
        columns: analysis.arms.iter().map(|arm| arm.name.clone()).collect(),
        rows: rows.collect(),
    }
}

/// Whether all valid runs of a block ended in the same state and gave the same replies.
fn digests(study: &Study) -> Vec<String> {
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

fn reproduce(study: &Study) -> Vec<(&'static str, String)> {
    let manifest = &study.manifest;
    vec![
        ("Command", manifest.command.join(" ")),
        (
            "Again",
            format!(
                "regauge replay trace.parquet --arms arms.toml --blocks {} --seed {} --layout {} --warmup {}us --out \
                 another-study (in the study's directory)",
                manifest.blocks,
                manifest.seed,
                manifest.layout.name,
                manifest.warmup_ns / 1_000
            ),
        ),
        ("Seed of the order of arms", manifest.seed.to_string()),
        ("Trace", manifest.trace_source.clone()),
        ("Workload hash", manifest.workload_hash.clone()),
        ("Plan hash", manifest.plan_hash.clone()),
        ("Regauge", manifest.regauge.clone()),
        ("Created", manifest.created.clone()),
    ]
}

/// Nested JSON as (dotted name, value).
fn flatten(value: &Value) -> Vec<(String, String)> {
    fn walk(prefix: &str, value: &Value, into: &mut Vec<(String, String)>) {
        match value {
            Value::Object(map) => {
                for (name, inner) in map {
                    let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                    walk(&name, inner, into);
                }
            }
            Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
                for (i, inner) in items.iter().enumerate() {
                    walk(&format!("{prefix}.{}", i + 1), inner, into);
                }
            }
            Value::Array(items) if items.is_empty() => into.push((prefix.to_owned(), "none".to_owned())),
            Value::Array(items) => {
                into.push((prefix.to_owned(), items.iter().map(plain).collect::<Vec<_>>().join(", ")))
            }
            other => into.push((prefix.to_owned(), with_unit(prefix, other))),
        }
    }
    let mut list = Vec::new();
    walk("", value, &mut list);
    list
}

/// Fields that end in a unit are shown with it.
fn with_unit(name: &str, value: &Value) -> String {
    match value.as_f64() {
        Some(ns) if name.ends_with("_ns") => time(ns),
        Some(n) if name.ends_with("_bytes") => bytes(n),
        _ => plain(value),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}
