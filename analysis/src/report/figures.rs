//! The report's pictures, each from evidence that the tables also rest on.

use super::axis::Axis;
use super::plot::{Plot, class};
use crate::analysis::{Analysis, Comparison};
use crate::counts::{Counts, PERCENTILES};
use crate::episodes::EPISODES_REFUSED;
use crate::evidence::{ALL, ArmEvidence, GRID_PPM};
use crate::load::Study;
use crate::samples::Metric;
use crate::units::{ratio_with_interval, time};

/// Points along a pooled curve and along a block's.
const POOLED_POINTS: u32 = 160;
const BLOCK_POINTS: u32 = 50;
/// Beyond five nines a curve is its largest samples.
const NINES_MAX: f64 = 5.0;

/// A picture and the words under it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Figure {
    /// Heading.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// Inline SVG.
    pub svg: String,
}

/// Draws all figures, in the report's order. Arms keep their number (base 0) in every picture.
pub fn draw(study: &Study, evidence: &[ArmEvidence], analysis: &Analysis) -> Vec<Figure> {
    let mut figures = Vec::new();
    if evidence.iter().any(|arm| !arm.pooled(ALL, Metric::Latency).is_empty()) {
        figures.push(percentiles(evidence));
        figures.push(tail(evidence));
    }
    figures.extend(ratios(analysis));
    figures.extend(over_time(study, evidence));
    figures.extend(super::lanes::draw(&analysis.lanes));
    figures
}

/// Curves begin at P10: the fastest few would stretch the axis and say nothing.
const NINES_MIN: f64 = 0.045_757;

/// (nines, latency) along the staircase of a distribution, up to its last sample.
fn curve(counts: &Counts, points: u32, nines_max: f64) -> Vec<(f64, f64)> {
    let total = counts.total();
    if total == 0 {
        return Vec::new();
    }
    let last = (total as f64).log10().min(nines_max);
    (0..=points)
        .filter_map(|i| {
            let nines = NINES_MIN + (last - NINES_MIN) * f64::from(i) / f64::from(points);
            // One part in a million is fine enough for a curve that ends at five nines.
            let ppm = ((1.0 - 10.0_f64.powf(-nines)) * 1e6).round() as u64;
            Some((nines, counts.quantile(ppm)? as f64))
        })
        .collect()
}

/// Nines at which the first arm runs out of independent episodes; `None` when none does on the grid.
fn refused_from(evidence: &[ArmEvidence]) -> Option<f64> {
    let first = |arm: &ArmEvidence| {
        GRID_PPM.into_iter().find(|&ppm| {
            arm.support(&arm.blocks, ALL, Metric::Latency, ppm).is_some_and(|s| s.episodes < EPISODES_REFUSED)
        })
    };
    evidence.iter().filter_map(first).min().map(|ppm| -((1e6 - ppm as f64) / 1e6).log10())
}

fn nines_of(evidence: &[ArmEvidence]) -> f64 {
    let most = evidence.iter().map(|arm| arm.pooled(ALL, Metric::Latency).total()).max().unwrap_or(1);
    (most as f64).log10().clamp(1.0, NINES_MAX)
}

fn percentiles(evidence: &[ArmEvidence]) -> Figure {
    let nines = nines_of(evidence);
    let pooled: Vec<_> =
        evidence.iter().map(|arm| curve(&arm.pooled(ALL, Metric::Latency), POOLED_POINTS, nines)).collect();
    let y = Axis::of_times(pooled.iter().flatten().map(|point| point.1), "");
    let mut plot = Plot::new(Axis::of_nines(nines, "percentile, one step per nine"), y, 420.0);
    let refused = refused_from(evidence);
    if let Some(from) = refused {
        plot.zone_x(from, nines, "refused", "too few episodes");
    }
    for (i, arm) in evidence.iter().enumerate() {
        for block in arm.counts_in(ALL, Metric::Latency, &arm.blocks) {
            plot.line(&curve(&block, BLOCK_POINTS, nines), &class("block", i));
        }
    }
    for (i, points) in pooled.iter().enumerate() {
        plot.line(points, &class("pooled", i));
    }
    let mut caption =
        "Latency from the planned time, all requests with a reply. Thick: all valid blocks of an arm pooled; \
                       thin: each block alone, so their spread is what another run could have shown."
            .to_owned();
    if refused.is_some() {
        caption += " Grey: fewer than 20 independent episodes lie beyond these percentiles in at least one arm; the curves \
                    there are what happened, not an estimate.";
    }
    let svg = plot.finish("Latency by percentile for every arm, both axes logarithmic");
    Figure { title: "Percentiles".to_owned(), caption, svg }
}

fn tail(evidence: &[ArmEvidence]) -> Figure {
    let nines = nines_of(evidence);
    let curves: Vec<[Vec<(f64, f64)>; 2]> = evidence
        .iter()
        .map(|arm| {
            Metric::BOTH.map(|metric| {
                let points = curve(&arm.pooled(ALL, metric), POOLED_POINTS, nines);
                points.into_iter().filter(|point| point.0 >= 0.3).map(|(nines, ns)| (ns, -nines)).collect()
            })
        })
        .collect();
    let x = Axis::of_times(curves.iter().flatten().flatten().map(|point| point.0), "latency");
    let mut plot = Plot::new(x, Axis::of_shares(nines, ""), 380.0);
    if let Some(from) = refused_from(evidence) {
        plot.zone_y(-nines, -from, "refused", "too few episodes");
    }
    for (i, [latency, service]) in curves.iter().enumerate() {
        plot.line(service, &class("service", i));
        plot.line(latency, &class("pooled", i));
    }
    let caption =
        "How many requests take longer than a given time. Thick: latency from the planned time, what a user sees \
                   who does not wait for others; thin: service time from the real send. Where the two part, requests \
                   waited behind a stall before they could be sent."
            .to_owned();
    let svg = plot.finish("Share of requests slower than a given latency for every arm, both axes logarithmic");
    Figure { title: "The tail".to_owned(), caption, svg }
}

fn ratios(analysis: &Analysis) -> Option<Figure> {
    let rows: Vec<&Comparison> = analysis.comparisons.iter().filter(|row| row.step == ALL).collect();
    let others: Vec<(usize, &str)> =
        analysis.arms.iter().enumerate().skip(1).map(|(i, arm)| (i, arm.name.as_str())).collect();
    let values = rows.iter().flat_map(|row| [row.ratio, row.ci_low, row.ci_high]).flatten();
    if rows.iter().all(|row| row.ratio.is_none()) {
        return None;
    }
    let y = Axis::of_ratios(values, "");
    let mut x = Axis::of_nines(PERCENTILES.len() as f64, "");
    let label = |(i, p): (usize, &crate::counts::Percentile)| super::axis::Tick {
        at: i as f64 + 0.5,
        label: p.label.to_owned(),
        minor: false,
    };
    x.ticks = PERCENTILES.iter().enumerate().map(label).collect();
    let mut plot = Plot::new(x, y, 340.0);
    plot.rule_y(1.0, "one");
    let spread = 92.0 / others.len().max(1) as f64;
    let spread = spread.min(22.0);
    for (slot, percentile) in PERCENTILES.iter().enumerate() {
        let at = slot as f64 + 0.5;
        let mut is_refused = false;
        for (place, (i, name)) in others.iter().enumerate() {
            let Some(row) = rows.iter().find(|row| row.arm == *name && row.percentile == percentile.key) else {
                continue;
            };
            is_refused |= row.refused.is_some();
            let Some(ratio) = row.ratio else { continue };
            let ends = row.ci_low.zip(row.ci_high);
            let shift = (place as f64 - (others.len() as f64 - 1.0) / 2.0) * spread;
            let difference = row.delta_ms.map(|ms| crate::units::time_difference(ms * 1e6)).unwrap_or_default();
            let title = format!("{name}, {}: {} ({difference})", percentile.label, ratio_with_interval(ratio, ends));
            plot.whisker((at, ratio), shift, ends, *i, &title);
        }
        if is_refused && !rows.iter().any(|row| row.percentile == percentile.key && row.ratio.is_some()) {
            plot.zone_x(slot as f64, slot as f64 + 1.0, "refused", "refused");
        }
    }
    let caption = format!(
        "Each arm's percentile divided by that of {}, with 95 % intervals over blocks; below the line is faster. An \
         interval that crosses 1 shows no difference. Refused percentiles have no mark.",
        analysis.base
    );
    Some(Figure {
        title: "Ratio to the base".to_owned(),
        caption,
        svg: plot.finish("Ratio of percentiles to the base arm"),
    })
}

fn over_time(study: &Study, evidence: &[ArmEvidence]) -> Vec<Figure> {
    let width = evidence.iter().map(|arm| arm.windows.width_ns).max().unwrap_or(1);
    let panel = |title: &'static str, pick: fn(&crate::windows::Window) -> Option<u64>, caption: String| {
        let lines: Vec<Vec<(f64, f64)>> = evidence
            .iter()
            .map(|arm| {
                let middle = arm.windows.width_ns as f64 / 2.0;
                let point = |window: &crate::windows::Window| {
                    Some(((window.start_ns as f64 + middle) / 1e9, pick(window)? as f64))
                };
                arm.windows.windows.iter().filter_map(point).collect()
            })
            .collect();
        if lines.iter().all(|line| line.len() < 2) {
            return None;
        }
        let y = Axis::of_times(lines.iter().flatten().map(|point| point.1), "");
        let x = Axis::of_run_time(study.manifest.duration_ns as f64, "planned time since the run's start");
        let mut plot = Plot::new(x, y, 280.0);
        plot.zone_x(0.0, study.manifest.warmup_ns as f64 / 1e9, "warmup", "warm-up");
        for (i, line) in lines.iter().enumerate() {
            plot.line(line, &class("pooled", i));
        }
        let svg = plot.finish("Latency over the run's time for every arm");
        Some(Figure { title: title.to_owned(), caption, svg })
    };
    let windows = format!("windows of {}, all valid blocks pooled", time(width as f64));
    let warmup = match study.manifest.warmup_ns {
        0 => "The study cut no warm-up.".to_owned(),
        ns => format!("The first {} are warm-up: shown here, in no figure else.", time(ns as f64)),
    };
    let median = panel("Over time: P50", |window| window.p50_ns, format!("Median latency in {windows}. {warmup}"));
    let ninety_ninth = panel(
        "Over time: P99",
        |window| window.p99_ns,
        format!(
            "P99 in the same windows; a window with fewer than 100 replies has none. A picture of drift and stalls, \
                 not an estimate: it carries no interval. {warmup}"
        ),
    );
    median.into_iter().chain(ninety_ninth).collect()
}
