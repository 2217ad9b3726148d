//! The primary ratio against load, and the primary percentile itself, with the knee of every arm.

use super::{Figure, ratio_words};
use crate::analysis::Analysis;
use crate::decision::{LoadCell, LoadCurves};
use crate::report::axis::{Axis, Scale, Tick};
use crate::report::plot::{Plot, class};
use crate::units::time;

/// Two figures of a study with several loads; none of any other.
pub fn draw(analysis: &Analysis) -> Vec<Figure> {
    let Some(curves) = analysis.decision.loads.as_ref().filter(|curves| curves.loads.len() > 1) else {
        return Vec::new();
    };
    ratios(analysis, curves).into_iter().chain(percentiles(curves)).collect()
}

fn shares(curves: &LoadCurves) -> Axis {
    let high = curves.loads.iter().map(|load| load.share).fold(1.0, f64::max) * 1.05;
    let tick = |load: &crate::decision::LoadRow| Tick {
        at: load.share,
        label: format!("{:.0} %", load.share * 100.0),
        minor: false,
    };
    Axis {
        scale: Scale::Linear,
        low: 0.0,
        high,
        ticks: curves.loads.iter().map(tick).collect(),
        label: "load, share of the base's knee".to_owned(),
    }
}

/// The number of an arm in every picture, and its cells by load.
fn arms<'a>(curves: &'a LoadCurves, number: &dyn Fn(&str) -> usize) -> Vec<(usize, Vec<(f64, &'a LoadCell)>)> {
    let names = curves.loads.first().map(|load| load.cells.iter().map(|cell| cell.arm.as_str())).into_iter().flatten();
    let of = |name: &str| {
        let cells =
            curves.loads.iter().filter_map(|load| Some((load.share, load.cells.iter().find(|cell| cell.arm == name)?)));
        (number(name), cells.collect())
    };
    names.map(of).collect()
}

fn ratios(analysis: &Analysis, curves: &LoadCurves) -> Option<Figure> {
    let design = &analysis.decision.question.design;
    let number = |name: &str| analysis.arms.iter().position(|arm| arm.name == name).unwrap_or(0);
    let arms = arms(curves, &number);
    let ratios = arms.iter().flat_map(|(_, cells)| cells).filter_map(|(_, cell)| cell.ratio);
    let values: Vec<f64> = ratios.flat_map(|e| [Some(e.value), e.low, e.high]).flatten().collect();
    if values.is_empty() {
        return None;
    }
    let mut plot = Plot::new(shares(curves), Axis::of_ratios(values, ""), 340.0);
    plot.zone_y(design.equivalent_low, design.equivalent_high, "equivalent", "");
    plot.rule_y(1.0, "one");
    plot.rule_y(design.worth_ratio, "worth");
    let many = arms.len() as f64;
    for (place, (series, cells)) in arms.iter().enumerate().filter(|(_, (series, _))| *series > 0) {
        let line: Vec<(f64, f64)> = cells.iter().filter_map(|(at, cell)| Some((*at, cell.ratio?.value))).collect();
        plot.line(&line, &class("pooled thin", *series));
        for (at, cell) in cells {
            let Some(estimate) = cell.ratio else { continue };
            let shift = (place as f64 - many / 2.0) * 9.0;
            let title = format!("{}: {}", cell.arm, ratio_words(estimate));
            plot.whisker((*at, estimate.value), shift, estimate.low.zip(estimate.high), *series, &title);
        }
    }
    let caption = format!(
        "The primary percentile of each arm divided by the base's at the same load, with 95 % intervals over blocks. {}",
        curves.flips.join(" ")
    );
    Some(Figure::one("Ratio against load", caption, plot.finish("Ratio to the base against load for every arm")))
}

fn percentiles(curves: &LoadCurves) -> Option<Figure> {
    let first: Vec<&str> = curves.loads.first()?.cells.iter().map(|cell| cell.arm.as_str()).collect();
    let number = |name: &str| first.iter().position(|arm| *arm == name).unwrap_or(0);
    let lines: Vec<(usize, Vec<(f64, f64)>)> = arms(curves, &number)
        .into_iter()
        .map(|(series, cells)| {
            (series, cells.iter().filter_map(|(at, cell)| Some((*at, cell.percentile_ns? as f64))).collect())
        })
        .collect();
    if lines.iter().all(|(_, line)| line.len() < 2) {
        return None;
    }
    let mut plot = Plot::new(shares(curves), Axis::of_times(lines.iter().flat_map(|(_, l)| l).map(|p| p.1), ""), 300.0);
    plot.rule_x(1.0, "worth");
    for (series, line) in &lines {
        plot.line(line, &class("pooled", *series));
    }
    let largest = lines.iter().flat_map(|(_, line)| line).map(|point| point.1).fold(0.0, f64::max);
    let caption = format!(
        "The primary percentile itself against load, up to {}. The dashed line is the base's knee; the knee of every arm \
         stands in the table of loads.",
        time(largest)
    );
    Some(Figure::one("Latency against load", caption, plot.finish("Primary percentile against load for every arm")))
}
