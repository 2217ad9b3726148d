//! What the report says beside its pictures, as plain values for the template: every number already has its unit.
//!
//! [`record`] is the first page, the decision; the rest is the evidence under it.

mod consequences;
mod effect;
mod plain;
mod record;
mod reproduce;
mod table;
mod validity;

use super::plot::key;
use crate::analysis::Analysis;
use crate::load::Study;
use crate::units::{count, plural, rough_count, round_time};
use plain::flatten;
use record::Record;
use serde::Serialize;
use table::Table;

/// Everything that the template prints.
#[derive(Debug, Clone, Serialize)]
pub struct Page {
    title: String,
    record: Record,
    summary: String,
    arms: Vec<(String, String)>,
    effect: Table,
    has_low_confidence: bool,
    refusals: Vec<String>,
    kinds: Vec<(String, Table)>,
    costs: Table,
    settings: Table,
    gates: Table,
    steady: Vec<String>,
    left_out: Vec<String>,
    digests: Vec<String>,
    check: String,
    host_why: String,
    limits: Vec<String>,
    host: Vec<(String, String)>,
}

impl Page {
    /// Puts an analysis into words.
    pub fn of(study: &Study, analysis: &Analysis) -> Self {
        let manifest = &study.manifest;
        Page {
            title: format!(
                "{}: {} arms against {}",
                analysis.verdict,
                analysis.arms.len().saturating_sub(1),
                analysis.base
            ),
            record: Record::of(study, analysis),
            summary: summary(study, analysis),
            arms: analysis.arms.iter().enumerate().map(|(i, arm)| (arm.name.clone(), key(i))).collect(),
            effect: effect::effect(analysis),
            has_low_confidence: analysis.arms.iter().any(|arm| !arm.low_confidence.is_empty()),
            refusals: effect::refusals(analysis),
            kinds: effect::kinds(analysis),
            costs: effect::costs(analysis),
            settings: validity::settings(study, analysis),
            gates: validity::gates(study, analysis),
            steady: validity::steady(&analysis.decision),
            left_out: validity::left_out(analysis),
            digests: validity::digests(study),
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
    let blocks = &analysis.decision.blocks;
    let mut text = format!(
        "One plan of {} requests, {} long; {} arms in {} of random order ({} complete",
        count(manifest.requests),
        round_time(manifest.duration_ns as f64),
        analysis.arms.len(),
        plural(study.runs.iter().map(|run| u64::from(run.block) + 1).max().unwrap_or(0), "block"),
        blocks.complete,
    );
    if blocks.flagged > 0 {
        text += &format!(", {} flagged", blocks.flagged);
    }
    if blocks.unfinished > 0 {
        text += &format!(", {} unfinished", blocks.unfinished);
    }
    let per_run = analysis.arms.iter().find(|arm| arm.valid_runs > 0);
    let per_run = per_run.map_or_else(|| "no".to_owned(), |arm| rough_count(arm.requests / arm.valid_runs));
    text + &format!(
        "); {per_run} requests per run after a warm-up of {}.",
        round_time(analysis.decision.steady.cut_ns as f64)
    )
}
