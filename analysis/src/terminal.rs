//! The headline table for a terminal of 80 columns: times with units, ratios with intervals, refusals that say so.

use crate::analysis::{Analysis, ArmSummary, Comparison};
use crate::counts::{PERCENTILES, Percentile};
use crate::evidence::ALL;
use crate::lanes::aggregate::{ArmLanes, At};
use crate::tails::{ON_TIME, Refusal};
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

/// Reasons and changes that are printed; the report has all of them.
const SENTENCES: usize = 4;

/// Renders the tables, the footnotes, and at the end, where the eye is, the decision. Lines end in `\n`.
pub fn render(analysis: &Analysis) -> String {
    let mut text = String::new();
    let step = analysis.decision.question.design.primary_step.as_str();
    line(&mut text, "", columns().map(|percentile| percentile.label.to_owned()));
    for arm in &analysis.arms {
        let times = columns().map(|percentile| cell(arm, step, percentile));
        line(&mut text, &arm.name, times);
        if arm.name == analysis.base {
            continue;
        }
        let ratios = columns().map(|percentile| {
            let row = analysis
                .comparisons
                .iter()
                .find(|row| row.arm == arm.name && row.step == step && row.percentile == percentile.key);
            row.map(ratio_cell).unwrap_or_default()
        });
        line(&mut text, "  ratio", ratios);
    }
    text.push('\n');
    let blocks = analysis.arms.iter().map(|arm| arm.valid_runs).max().unwrap_or(0);
    let requests = analysis.arms.iter().find(|arm| arm.name == analysis.base).map_or(0, |arm| arm.requests);
    let of = if step == ALL { "all requests with a reply".to_owned() } else { format!("{step} requests") };
    wrap(
        &mut text,
        &format!(
            "Latency from the planned time, {of}; {} requests per arm in {}. Ratios are to {}, with 95 % intervals over \
             blocks.",
            rough_count(requests),
            plural(blocks, "block"),
            analysis.base
        ),
        "",
    );
    footnotes(&mut text, analysis, step);
    crate::lanes::terminal::render(&mut text, &tails_alone(&analysis.lanes), &analysis.lanes_missing);
    text.push('\n');
    decision(&mut text, analysis);
    text
}

/// The lanes of the tails: those around the median are for the report, so that the decision stays in sight.
fn tails_alone(arms: &[ArmLanes]) -> Vec<ArmLanes> {
    let mut arms = arms.to_vec();
    arms.iter_mut().for_each(|arm| arm.groups.retain(|group| group.at == At::Tail));
    arms
}

/// The decision: verdict, headline, what it rests on, what would change it.
fn decision(text: &mut String, analysis: &Analysis) {
    let decision = &analysis.decision;
    wrap(text, &format!("Verdict: {}", decision.verdict), "");
    wrap(text, &decision.headline, "");
    sentences(text, &decision.trade_offs);
    if let Some(control) = &decision.control {
        let floor = control.floor.map(|floor| format!("noise floor ± {:.0} %", floor * 100.0));
        let trust = if control.trusted { "the instrument is trusted" } else { "the instrument is not trusted" };
        let floor = floor.unwrap_or_else(|| "no noise floor".to_owned());
        wrap(text, &format!("A/A: {} against {}: {floor}; {trust}.", control.arm, analysis.base), "  ");
    }
    sentences(text, &decision.why);
    if !decision.would_change.is_empty() {
        text.push_str("What would change it:\n");
        sentences(text, &decision.would_change);
    }
}

/// Some sentences as a list, and how many more there are.
fn sentences(text: &mut String, all: &[String]) {
    for sentence in all.iter().take(SENTENCES) {
        wrap(text, &format!("- {sentence}"), "  ");
    }
    if let Some(more) = all.len().checked_sub(SENTENCES).filter(|more| *more > 0) {
        wrap(text, &format!("- and {more} more, in the report"), "  ");
    }
}

/// A percentile of an arm: a time, `~` before it when few episodes stand behind it, or that it is refused.
fn cell(arm: &ArmSummary, step: &str, percentile: Percentile) -> String {
    if !arm.valid {
        return "invalid".to_owned();
    }
    let Some(tails) = arm.steps.get(step).and_then(|summary| summary.latency.as_ref()) else { return "–".to_owned() };
    match tails.percentiles_ns.get(percentile.key).copied().flatten() {
        Some(ns) if tails.low_confidence.contains(&percentile.key) => format!("~{}", time(ns as f64)),
        Some(ns) => time(ns as f64),
        None if tails.refused.contains_key(percentile.key) => "refused".to_owned(),
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

/// What is refused, of low confidence or left out: one line each, arms with the same need together.
fn footnotes(text: &mut String, analysis: &Analysis, step: &str) {
    let tails = |arm: &ArmSummary| arm.steps.get(step).and_then(|summary| summary.latency.clone());
    // Percentiles that the driver's lateness refuses to the same arms, by the arms.
    let mut late: Vec<(String, Vec<&str>)> = Vec::new();
    for percentile in PERCENTILES {
        let refused = analysis.arms.iter().filter_map(|arm| Some((arm, *tails(arm)?.refused.get(percentile.key)?)));
        let (by_driver, by_episodes): (Vec<_>, Vec<_>) = refused.partition(|(_, refusal)| refusal.driver_owned);
        let of = |refused: &[(&ArmSummary, Refusal)]| match refused.len() {
            all if all == analysis.arms.len() => "every arm".to_owned(),
            _ => refused.iter().map(|(arm, _)| arm.name.as_str()).collect::<Vec<_>>().join(", "),
        };
        let label = percentile.label;
        if !by_driver.is_empty() {
            let of = of(&by_driver);
            match late.iter_mut().find(|(arms, _)| *arms == of) {
                Some((_, labels)) => labels.push(label),
                None => late.push((of, vec![label])),
            }
        }
        let Some((_, worst)) = by_episodes.iter().max_by_key(|(_, refusal)| refusal.needed) else { continue };
        let fewest = by_episodes.iter().map(|(_, refusal)| refusal.episodes).fold(f64::INFINITY, f64::min);
        let noun = if fewest == 1.0 { "episode" } else { "episodes" };
        let (of, need) = (of(&by_episodes), worst.need());
        let words =
            format!("{label} refused for {of}: as few as {fewest} independent {noun}; it takes {need} per arm.");
        wrap(text, &words, "  ");
    }
    for (of, labels) in late {
        let labels = labels.join(", ");
        let words = format!(
            "{labels} refused for {of}: more than a tenth may be the driver's own lateness; it takes {ON_TIME} (a CPU \
             of its own, a quieter host, or a lower load)."
        );
        wrap(text, &words, "  ");
    }
    if analysis.arms.iter().any(|arm| tails(arm).is_some_and(|tails| !tails.low_confidence.is_empty())) {
        wrap(text, "~ low confidence: fewer than 50 independent episodes lie beyond it.", "  ");
    }
    for arm in analysis.arms.iter().filter(|arm| !arm.why_invalid.is_empty()) {
        // The first reason of the first run; a run that failed several gates would fill the screen.
        let first = arm.why_invalid.first().and_then(|why| why.split("; ").next()).unwrap_or_default();
        let more = match arm.why_invalid.len() {
            0 | 1 => String::new(),
            n => format!("; and {}, see the report", plural(n as u64 - 1, "more run")),
        };
        wrap(text, &format!("{} left out: {first}{more}.", arm.name), "  ");
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
