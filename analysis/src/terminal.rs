//! The headline table for a terminal of 80 columns: times with units, ratios with intervals, refusals that say so.

use crate::analysis::{Analysis, ArmSummary, Comparison};
use crate::counts::{PERCENTILES, Percentile};
use crate::evidence::ALL;
use crate::units::{plural, ratio_with_interval, rough_count, time};
use std::fmt::Write;

/// Width that lines keep to.
pub const WIDTH: usize = 80;
const NAME: usize = 12;
const CELL: usize = 17;

/// The headline percentiles: all but P90, as many as fit.
pub fn columns() -> impl Iterator<Item = Percentile> {
    PERCENTILES.into_iter().filter(|percentile| percentile.key != "p90")
}

/// Renders the headline table, footnotes, finding and verdict. Lines end in `\n`.
pub fn render(analysis: &Analysis) -> String {
    let mut text = String::new();
    line(&mut text, "", columns().map(|percentile| percentile.label.to_owned()));
    for arm in &analysis.arms {
        let times = columns().map(|percentile| cell(arm, percentile));
        line(&mut text, &arm.name, times);
        if arm.name == analysis.base {
            continue;
        }
        let ratios = columns().map(|percentile| {
            let row = analysis
                .comparisons
                .iter()
                .find(|row| row.arm == arm.name && row.step == ALL && row.percentile == percentile.key);
            row.map(ratio_cell).unwrap_or_default()
        });
        line(&mut text, "  ratio", ratios);
    }
    text.push('\n');
    let blocks = analysis.arms.iter().map(|arm| arm.valid_runs).max().unwrap_or(0);
    let requests = analysis.arms.iter().find(|arm| arm.name == analysis.base).map_or(0, |arm| arm.requests);
    wrap(
        &mut text,
        &format!(
            "Latency from the planned time, all requests with a reply; {} requests per arm in {}. Ratios are to {}, with \
             95 % intervals over blocks.",
            rough_count(requests),
            plural(blocks, "block"),
            analysis.base
        ),
        "",
    );
    footnotes(&mut text, analysis);
    crate::lanes::terminal::render(&mut text, &analysis.lanes, &analysis.lanes_missing);
    text.push('\n');
    wrap(&mut text, &analysis.finding, "");
    wrap(&mut text, &format!("Verdict: {}", analysis.verdict), "");
    for why in &analysis.verdict_why {
        wrap(&mut text, &format!("- {why}"), "  ");
    }
    text
}

/// A percentile of an arm: a time, `~` before it when few episodes stand behind it, or that it is refused.
pub fn cell(arm: &ArmSummary, percentile: Percentile) -> String {
    if !arm.valid {
        return "invalid".to_owned();
    }
    match arm.percentiles_ns.get(percentile.key).copied().flatten() {
        Some(ns) if arm.low_confidence.contains(&percentile.key) => format!("~{}", time(ns as f64)),
        Some(ns) => time(ns as f64),
        None if arm.refused.contains_key(percentile.key) => "refused".to_owned(),
        None => "–".to_owned(),
    }
}

/// A ratio with its interval, or why there is none, in one word.
pub fn ratio_cell(row: &Comparison) -> String {
    match row.ratio {
        Some(ratio) => ratio_with_interval(ratio, row.ci_low.zip(row.ci_high)),
        None if row.refused.is_some() => "refused".to_owned(),
        None => "–".to_owned(),
    }
}

/// A row; a name that does not fit its column gets a line of its own.
fn line(text: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let mut row = if name.chars().count() <= NAME { format!("{name:<NAME$}") } else { format!("{name}\n{:NAME$}", "") };
    for cell in cells {
        // Formatting into a String cannot fail.
        let _ = write!(row, "{cell:>CELL$}");
    }
    for part in row.lines() {
        text.push_str(part.trim_end());
        text.push('\n');
    }
}

fn footnotes(text: &mut String, analysis: &Analysis) {
    for percentile in PERCENTILES {
        let of = analysis.arms.iter().filter_map(|arm| Some((arm, arm.refused.get(percentile.key)?)));
        let notes: Vec<String> = of
            .map(|(arm, refusal)| {
                let noun = if refusal.episodes == 1.0 { "episode" } else { "episodes" };
                format!("{} {} {noun}, needs {}", arm.name, refusal.episodes, refusal.need())
            })
            .collect();
        if !notes.is_empty() {
            wrap(text, &format!("{} refused: {}.", percentile.label, notes.join("; ")), "  ");
        }
    }
    if analysis.arms.iter().any(|arm| !arm.low_confidence.is_empty()) {
        wrap(text, "~ low confidence: fewer than 50 independent episodes lie beyond it.", "  ");
    }
    for arm in analysis.arms.iter().filter(|arm| !arm.why_invalid.is_empty()) {
        wrap(text, &format!("{} left out: {}.", arm.name, arm.why_invalid.join("; ")), "  ");
    }
}

/// Appends words in lines of at most [`WIDTH`] columns; later lines begin with `indent`.
pub(crate) fn wrap(text: &mut String, words: &str, indent: &str) {
    let mut width = 0;
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            text.push('\n');
            text.push_str(indent);
            width = indent.len();
        } else if width > 0 {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += length;
    }
    text.push('\n');
}
