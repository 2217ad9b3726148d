//! A diagnosis for a terminal of 80 columns: slow lines first, since they are what one knows, then the table.

use super::{Diagnosis, Judged, Verdict};
use crate::lanes::slow::{Kind, SlowLine};
use crate::terminal::{WIDTH, wrap};
use crate::units::{plural, time};

/// Widths of the columns: hypothesis, what it predicts, what was seen, verdict.
const COLUMNS: [usize; 4] = [16, 23, 27, 11];

/// Renders it. Lines end in `\n`.
pub fn render(diagnosis: &Diagnosis) -> String {
    let mut text = String::new();
    if diagnosis.with_invalid {
        wrap(&mut text, "INVALID RUNS ARE INCLUDED (--keep-invalid): what follows is a hint, not evidence.", "");
        text.push('\n');
    }
    head(&mut text, diagnosis);
    for kind in [Kind::Apply, Kind::Connect] {
        slow(&mut text, diagnosis, kind);
    }
    text.push('\n');
    row(&mut text, ["hypothesis", "predicts", "seen", "verdict"].map(str::to_owned));
    row(&mut text, COLUMNS.map(|width| "─".repeat(width)));
    for (i, judged) in diagnosis.hypotheses.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        row(&mut text, cells(judged));
    }
    text.push('\n');
    wrap(
        &mut text,
        "seen: share of the matching lane in the base's slowest 1 %; P99 of the arm without the cause over the base's, \
         with its 95 % interval over blocks. Supported: share ≥ 50 % and an interval below 1. Refuted: share ≤ 10 % and \
         no interval allows an improvement of more than 20 %.",
        "",
    );
    text.push('\n');
    wrap(&mut text, &diagnosis.finding, "");
    text
}

fn head(text: &mut String, diagnosis: &Diagnosis) {
    let invalid = diagnosis.runs - diagnosis.valid_runs;
    let mut words = format!(
        "{} in {}, {} of them valid",
        plural(diagnosis.runs, "run"),
        plural(u64::from(diagnosis.blocks), "block"),
        diagnosis.valid_runs
    );
    if invalid > 0 {
        let gates: Vec<String> = diagnosis.failed_gates.iter().map(|(gate, n)| format!("{gate} {n}×")).collect();
        let gates = if gates.is_empty() { "no reason recorded".to_owned() } else { gates.join(", ") };
        words += &format!("; {invalid} failed a gate ({gates})");
        words += if diagnosis.with_invalid { " and are used all the same" } else { " and are left out" };
    }
    wrap(text, &format!("{words}. Workload: {}.", diagnosis.workload), "");
    for missing in &diagnosis.lanes_missing {
        wrap(text, missing, "");
    }
    let step = &diagnosis.set_last_applied;
    let shown = |ns: Option<u64>| ns.map_or("–".to_owned(), |ns| time(ns as f64));
    let times = format!(
        "set_last_applied in {}: {}, P50 {}, P99 {}, slowest {}.",
        diagnosis.base,
        plural(step.calls, "call"),
        shown(step.p50_ns),
        shown(step.p99_ns),
        shown(step.max_ns)
    );
    wrap(text, &times, "");
}

fn slow(text: &mut String, diagnosis: &Diagnosis, kind: Kind) {
    let lines: Vec<&SlowLine> = diagnosis.slow_lines.iter().filter(|line| line.kind == kind).collect();
    let Some(first) = lines.first() else { return };
    let [apply, connect] = diagnosis.thresholds_ns;
    let (what, limit) = match kind {
        Kind::Apply => ("apply batches", apply),
        Kind::Connect => ("CONNECTs", connect),
    };
    let limit = time(limit as f64);
    let head = match first.reaches_threshold {
        true => format!("Slow {what} (RobustMQ's threshold: {limit}), the slowest {}:", lines.len()),
        false => format!("No {what} reached RobustMQ's threshold of {limit}; the slowest {}:", lines.len()),
    };
    text.push('\n');
    wrap(text, &head, "");
    for line in lines {
        wrap(text, &line.line, "    ");
        if let Some(op_id) = line.op_id {
            wrap(
                text,
                &format!("    regauge explain {} {}/{}/{op_id}", diagnosis.study.display(), line.block, line.arm),
                "",
            );
        }
    }
}

fn cells(judged: &Judged) -> [String; 4] {
    // Words that a person looks for stand out without colours.
    let verdict = match judged.verdict {
        Verdict::CannotTell => judged.verdict.label().to_owned(),
        _ => judged.verdict.label().to_uppercase(),
    };
    let why = judged.why.as_ref().map(|why| format!(" — {why}")).unwrap_or_default();
    [judged.title.to_owned(), judged.predicts.to_owned(), format!("{}{why}", judged.seen), verdict]
}

/// A row of wrapped cells.
fn row(text: &mut String, cells: [String; 4]) {
    let columns: Vec<Vec<String>> = cells.iter().zip(COLUMNS).map(|(cell, width)| fold(cell, width)).collect();
    for line in 0..columns.iter().map(Vec::len).max().unwrap_or(0) {
        let mut out = String::new();
        for (column, width) in columns.iter().zip(COLUMNS) {
            let part = column.get(line).map(String::as_str).unwrap_or_default();
            out.push_str(part);
            out.extend(std::iter::repeat_n(' ', width + 1 - part.chars().count().min(width)));
        }
        debug_assert!(out.trim_end().chars().count() <= WIDTH);
        text.push_str(out.trim_end());
        text.push('\n');
    }
}

/// Words in lines of at most `width` columns; a longer word is broken.
fn fold(words: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        while let Some(line) = lines.last_mut() {
            let used = line.chars().count();
            let space = usize::from(used > 0);
            if used + space + rest.len() <= width {
                if space > 0 {
                    line.push(' ');
                }
                line.extend(rest.drain(..));
                break;
            }
            if used == 0 {
                let cut = width.min(rest.len());
                line.extend(rest.drain(..cut));
            }
            lines.push(String::new());
        }
    }
    lines
}
