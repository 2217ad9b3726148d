//! The effect in tables: percentiles with ratios and differences, what the arms cost, each kind of request.

use super::table::{Cell, Row, Table};
use crate::analysis::{Analysis, ArmSummary, Comparison, StepSummary};
use crate::counts::{PERCENTILES, Percentile};
use crate::decision::Decision;
use crate::evidence::ALL;
use crate::report::plot::key;
use crate::tails::Refusal;
use crate::terminal::{columns, ratio_cell};
use crate::units::{bytes, count, ratio, ratio_with_interval, rough_count, round_time, time, time_difference};

/// The comparison of an arm at a step and percentile.
fn comparison<'a>(analysis: &'a Analysis, arm: &str, step: &str, key: &str) -> Option<&'a Comparison> {
    analysis.comparisons.iter().find(|row| row.arm == arm && row.step == step && row.percentile == key)
}

fn direction(row: &Comparison) -> &'static str {
    match row.ci_low.zip(row.ci_high) {
        Some((_, high)) if high < 1.0 => "lower",
        Some((low, _)) if low > 1.0 => "higher",
        _ => "",
    }
}

/// A refusal: what there is, and what it takes.
fn refused(refusal: &Refusal) -> Cell {
    let cell = Cell::classed("refused", "refused");
    if refusal.driver_owned {
        return cell.note("the driver was late");
    }
    let noun = if refusal.episodes == 1.0 { "episode" } else { "episodes" };
    let need = refusal.need();
    let need = need.strip_suffix(" samples").unwrap_or(&need);
    Cell { more: format!("needs {need}"), ..cell.note(format!("{} {noun}", refusal.episodes)) }
}

/// One percentile of one arm's step: its time, the ratio to the base, the difference.
fn percentile(analysis: &Analysis, arm: &ArmSummary, step: &str, percentile: Percentile) -> Cell {
    if !arm.valid {
        return Cell::classed("invalid", "higher");
    }
    let Some(tails) = arm.steps.get(step).and_then(|summary| summary.latency.as_ref()) else {
        return Cell::of("no reply");
    };
    if let Some(refusal) = tails.refused.get(percentile.key) {
        return refused(refusal);
    }
    let Some(ns) = tails.percentiles_ns.get(percentile.key).copied().flatten() else { return Cell::of("–") };
    let sign = if tails.low_confidence.contains(&percentile.key) { "~" } else { "" };
    let mut cell = Cell::of(format!("{sign}{}", time(ns as f64)));
    if let Some(row) = comparison(analysis, &arm.name, step, percentile.key).filter(|row| row.ratio.is_some()) {
        cell.class = direction(row);
        cell.note = format!("×\u{a0}{}", ratio_cell(row));
        cell.more = row.delta_ms.map(|ms| time_difference(ms * 1e6)).unwrap_or_default();
    }
    cell
}

/// The headline table: the primary step's percentiles, and the share above the objective.
pub fn effect(analysis: &Analysis) -> Table {
    let decision = &analysis.decision;
    let step = decision.question.design.primary_step.as_str();
    let rows = analysis.arms.iter().enumerate().map(|(i, arm)| {
        let mut cells: Vec<Cell> = columns().map(|p| percentile(analysis, arm, step, p)).collect();
        cells.push(objective(decision, analysis, arm));
        let class = if arm.name == analysis.base { "base" } else { "" };
        Row { head: arm.name.clone(), key: key(i), class, cells }
    });
    let objective = format!("over {}", round_time(decision.question.design.slo_ms * 1e6));
    let titles: Vec<&str> = columns().map(|p| p.label).chain([objective.as_str()]).collect();
    let caption = "Latency percentiles of every arm with their ratio to the base, and the share of slow requests";
    Table::new(caption, "arm", &titles, rows.collect())
}

/// The ratio of the shares of requests above the objective.
fn objective(decision: &Decision, analysis: &Analysis, arm: &ArmSummary) -> Cell {
    if arm.name == analysis.base {
        return Cell::of("1");
    }
    let Some(cell) = decision.primary.iter().find(|cell| cell.arm == arm.name) else { return Cell::of("–") };
    let Some(estimate) = cell.slo_ratio else {
        return Cell::classed("–", "long").note(cell.slo_why.clone().unwrap_or_default());
    };
    let ends = estimate.low.zip(estimate.high);
    let class = match ends {
        Some((_, high)) if high < 1.0 => "lower",
        Some((low, _)) if low > 1.0 => "higher",
        _ => "",
    };
    Cell::classed(format!("×\u{a0}{}", ratio_with_interval(estimate.value, ends)), class)
}

/// Why percentiles are refused, in sentences.
pub fn refusals(analysis: &Analysis) -> Vec<String> {
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
                crate::units::plural(refusal.exceedances, "slower request"),
                refusal.episodes
            ));
        }
    }
    notes
}

/// One table per root kind, where the arms' latencies are told apart.
pub fn kinds(analysis: &Analysis) -> Vec<(String, Table)> {
    let Some(base) = analysis.arms.first() else { return Vec::new() };
    let table = |step: &str| {
        let rows = analysis.arms.iter().enumerate().filter_map(|(i, arm)| {
            let summary: &StepSummary = arm.steps.get(step)?;
            let errors = if summary.errors > 0 { "higher" } else { "" };
            let mut cells = vec![Cell::of(count(summary.requests)), Cell::classed(count(summary.errors), errors)];
            cells.extend(PERCENTILES.map(|p| percentile(analysis, arm, step, p)));
            Some(Row { head: arm.name.clone(), key: key(i), class: "", cells })
        });
        let columns: Vec<&str> = ["requests", "errors"].into_iter().chain(PERCENTILES.map(|p| p.label)).collect();
        Table::new("Latency percentiles of one kind of request, by arm", "arm", &columns, rows.collect())
    };
    let steps = base.steps.keys().filter(|step| *step != ALL);
    steps.map(|step| (step.clone(), table(step))).collect()
}

/// Throughput, CPU time, switches, memory and errors, each beside its ratio to the base.
pub fn costs(analysis: &Analysis) -> Table {
    let base = analysis.arms.first().map(|arm| arm.resources).unwrap_or_default();
    let shown = |value: Option<f64>, base: Option<f64>, name: &dyn Fn(f64) -> String, is_base: bool| {
        let Some(value) = value else { return Cell::of("not recorded") };
        let note = match base.filter(|base| *base > 0.0 && !is_base) {
            Some(base) => format!("×\u{a0}{}", ratio(value / base)),
            None => String::new(),
        };
        Cell::of(name(value)).note(note)
    };
    let row = |(i, arm): (usize, &ArmSummary)| {
        let (r, is_base) = (&arm.resources, arm.name == analysis.base);
        let per_second = |n: f64| format!("{} /s", count(n.round() as u64));
        let memory = |r: &crate::resources::Resources| r.max_rss_bytes.map(|n| n as f64);
        let switches = |r: &crate::resources::Resources| {
            Some((r.voluntary_switches_per_request?, r.involuntary_switches_per_request?))
        };
        let kinds = switches(r).map_or(Cell::of("not recorded"), |(voluntary, involuntary)| {
            Cell::of(format!("{voluntary:.2} + {involuntary:.3}"))
        });
        let cells = vec![
            shown(r.throughput_per_s, base.throughput_per_s, &per_second, is_base),
            shown(r.cpu_ns_per_request, base.cpu_ns_per_request, &time, is_base),
            kinds,
            shown(memory(r), memory(&base), &bytes, is_base),
            Cell::classed(count(arm.errors), if arm.errors > 0 { "higher" } else { "" }),
        ];
        let class = if is_base { "base" } else { "" };
        Row { head: arm.name.clone(), key: key(i), class, cells }
    };
    let columns =
        ["throughput", "CPU per request", "switches per request (voluntary + involuntary)", "largest memory", "errors"];
    let rows = analysis.arms.iter().enumerate().map(row).collect();
    Table::new("What every arm cost", "arm", &columns, rows)
}
