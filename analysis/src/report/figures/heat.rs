//! Latency over the run's time, one panel an arm: how many requests of each moment took how long, with P50 and P99 as
//! lines, the warm-up shaded, segment rolls and seals marked.
//!
//! A picture of drift, warm-up and stalls, not an estimate: it carries no interval and enters no comparison.

use super::Figure;
use super::rolls::Rolls;
use crate::analysis::Analysis;
use crate::error::AnalysisError;
use crate::evidence::ArmEvidence;
use crate::load::Study;
use crate::report::axis::Axis;
use crate::report::plot::{Plot, class, key};
use crate::samples::read_requests;
use crate::units::{plural, round_time};

const COLUMNS: usize = 72;
const ROWS: usize = 30;
/// A cell's shade by its share of the column's requests, at least.
const SHADES: [(f64, &str); 5] = [(0.3, "h5"), (0.1, "h4"), (0.01, "h3"), (0.001, "h2"), (0.0, "h1")];
const HEIGHT: f64 = 236.0;

/// Requests by column of planned time and row of latency.
struct Grid {
    counts: Vec<u32>,
}

/// Draws the panels; `None` without samples.
///
/// # Errors
/// A file of a valid run that cannot be read.
pub fn draw(study: &Study, evidence: &[ArmEvidence], analysis: &Analysis) -> Result<Option<Figure>, AnalysisError> {
    let windows = evidence.iter().flat_map(|arm| &arm.windows.windows);
    let fastest = windows.filter_map(|window| window.p50_ns).min();
    let slowest = analysis.arms.iter().filter_map(|arm| arm.max_ns).max();
    let (Some(fastest), Some(slowest)) = (fastest, slowest) else { return Ok(None) };
    let y = Axis::of_times([fastest as f64 / 2.0, slowest as f64], "");
    let duration_ns = (study.manifest.duration_ns as f64).max(1.0);
    let mut panels = Vec::new();
    let mut notes = Vec::new();
    for (i, arm) in evidence.iter().enumerate() {
        if arm.blocks.is_empty() {
            continue;
        }
        let mut grid = Grid { counts: vec![0; COLUMNS * ROWS] };
        for block in &arm.blocks {
            let samples = read_requests(&study.run_file(*block, &arm.name, "requests.parquet"))?;
            for sample in &samples.rows {
                let Some(latency) = sample.latency_ns else { continue };
                let column = (sample.planned_ns as f64 / duration_ns * COLUMNS as f64) as usize;
                let row = (y.place(latency as f64) * ROWS as f64) as usize;
                let at = column.min(COLUMNS - 1) * ROWS + row.min(ROWS - 1);
                if let Some(count) = grid.counts.get_mut(at) {
                    *count += 1;
                }
            }
        }
        let mut plot = Plot::panel(Axis::of_run_time(duration_ns, ""), y.clone(), HEIGHT);
        let seconds = duration_ns / 1e9;
        plot.zone_x(0.0, analysis.decision.steady.cut_ns as f64 / 1e9, "warmup", "");
        for (shade, cells) in grid.shaded(&plot, seconds, &y) {
            plot.cells(&cells, &format!("heat {shade}"));
        }
        lines(&mut plot, arm, i);
        let record = study.manifest.arms.iter().find(|record| record.name == arm.name);
        let durability = record.and_then(|record| record.settings.get("durability")?.as_str());
        let rolls = Rolls::of(study, &arm.name, durability)?;
        let at = |moments: &[u64]| moments.iter().map(|ns| *ns as f64 / 1e9).collect::<Vec<_>>();
        plot.strokes(&at(&rolls.rolls_ns), "roll");
        plot.strokes(&at(&rolls.seals_ns), "seal");
        notes.push(note(&arm.name, &rolls));
        let svg = plot.finish(&format!("Latency of {} over the run's time", arm.name));
        panels.push((arm.name.clone(), key(i), svg));
    }
    notes.dedup_by(|a, b| a.1 == b.1);
    let known: Vec<String> = match notes.as_slice() {
        [(_, note)] => vec![format!("Every arm: {note}.")],
        _ => notes.iter().map(|(arm, note)| format!("{arm}: {note}.")).collect(),
    };
    let caption = format!(
        "All valid blocks of an arm, by planned time since the run's start. The darker, the larger the share of that \
         moment's requests (steps at 0.1, 1, 10 and 30 %); the lines are P50 and, dotted, P99. Shaded: the first {}, which \
         enter no figure else. Strokes at the upper edge: segments rolled (long) and sealed (coloured). {}",
        round_time(analysis.decision.steady.cut_ns as f64),
        known.join(" ")
    );
    Ok(Some(Figure { title: "Over time".to_owned(), caption, svg: String::new(), panels }))
}

fn lines(plot: &mut Plot, arm: &ArmEvidence, series: usize) {
    let middle = arm.windows.width_ns as f64 / 2.0;
    let line = |pick: fn(&crate::windows::Window) -> Option<u64>| -> Vec<(f64, f64)> {
        let point =
            |window: &crate::windows::Window| Some(((window.start_ns as f64 + middle) / 1e9, pick(window)? as f64));
        arm.windows.windows.iter().filter_map(point).collect()
    };
    plot.line(&line(|window| window.p50_ns), &class("solid", series));
    plot.line(&line(|window| window.p99_ns), &class("dotted", series));
}

/// What is known of an arm's rolls, without its name.
fn note(arm: &str, rolls: &Rolls) -> (String, String) {
    let seen = rolls.rolls_ns.len() as u64;
    let text = match (rolls.counted, seen) {
        (None, 0) => "when segments were rolled is unknown, since the runs have no stamps and no counts".to_owned(),
        (Some(0), _) => "no segment was rolled".to_owned(),
        (Some(counted), 0) => format!("{} of which no stamp says when", plural(counted, "roll")),
        (Some(counted), seen) if seen < counted => {
            format!("{seen} of {} are marked, the others have no stamp", plural(counted, "roll"))
        }
        _ => format!("{} marked", plural(seen, "roll")),
    };
    let seals = rolls.seals_ns.len() as u64;
    let seals = if seals > 0 { format!(", {}", plural(seals, "seal")) } else { String::new() };
    (arm.to_owned(), text + &seals)
}

type Cells = Vec<(f64, f64, f64, f64)>;

impl Grid {
    /// The cells of every shade; neighbours of the same shade in a row are one.
    fn shaded(&self, plot: &Plot, seconds: f64, y: &Axis) -> Vec<(&'static str, Cells)> {
        let mut shaded: Vec<(&'static str, Cells)> = SHADES.iter().map(|(_, class)| (*class, Vec::new())).collect();
        let column = |at: usize| self.counts.get(at * ROWS..(at + 1) * ROWS).unwrap_or(&[]);
        let totals: Vec<u32> = (0..COLUMNS).map(|at| column(at).iter().sum()).collect();
        let shade = |at: usize, row: usize| {
            let count = column(at).get(row).copied().filter(|count| *count > 0)?;
            let share = f64::from(count) / f64::from(*totals.get(at)?);
            SHADES.iter().position(|(least, _)| share >= *least)
        };
        let edge = |at: usize| plot.px(seconds * at as f64 / COLUMNS as f64);
        // Rows are equal parts of the axis, which is logarithmic.
        let level = |row: usize| plot.py(y.low * (y.high / y.low).powf(row as f64 / ROWS as f64));
        for row in 0..ROWS {
            let mut at = 0;
            while at < COLUMNS {
                let first = at;
                let found = shade(at, row);
                while at < COLUMNS && shade(at, row) == found {
                    at += 1;
                }
                if let Some((_, cells)) = found.and_then(|found| shaded.get_mut(found)) {
                    let (left, top) = (edge(first), level(row + 1));
                    cells.push((left, top, edge(at) - left, level(row) - top));
                }
            }
        }
        shaded
    }
}
