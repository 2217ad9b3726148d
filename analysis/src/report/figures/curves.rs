//! Latency by percentile with its interval, and the same as the share of requests that are slower.

use super::Figure;
use crate::analysis::Analysis;
use crate::counts::{Counts, PERCENTILES};
use crate::episodes::EPISODES_REFUSED;
use crate::evidence::{ALL, ArmEvidence, GRID_PPM};
use crate::report::axis::Axis;
use crate::report::bands::LeftOut;
use crate::report::plot::{Plot, class};
use crate::samples::Metric;

/// Points along a pooled curve, and along the ends of its interval.
const POOLED_POINTS: u32 = 160;
const BAND_POINTS: u32 = 48;
/// With two blocks t(1) is 12.7: a band as high as the picture.
const BAND_BLOCKS: usize = 3;
/// Beyond five nines a curve is its largest samples.
const NINES_MAX: f64 = 5.0;
/// Curves begin at P10: the fastest few would stretch the axis and say nothing.
pub(super) const NINES_MIN: f64 = 0.045_757;

/// Nines of a percentile: P99 is 2.
pub(super) fn nines_of_ppm(ppm: u64) -> f64 {
    -((1e6 - ppm as f64) / 1e6).log10()
}

/// One part in a million is fine enough for a curve that ends at five nines.
pub(super) fn ppm_of_nines(nines: f64) -> u64 {
    ((1.0 - 10.0_f64.powf(-nines)) * 1e6).round() as u64
}

/// (nines, latency) along the staircase of a distribution, up to its last sample.
fn curve(counts: &Counts, points: u32, nines_max: f64) -> Vec<(f64, f64)> {
    let total = counts.total();
    if total == 0 {
        return Vec::new();
    }
    grid(points, (total as f64).log10().min(nines_max))
        .filter_map(|nines| Some((nines, counts.quantile(ppm_of_nines(nines))? as f64)))
        .collect()
}

/// Evenly spaced nines from P10 to `last`.
pub(super) fn grid(points: u32, last: f64) -> impl Iterator<Item = f64> {
    (0..=points).map(move |i| NINES_MIN + (last - NINES_MIN) * f64::from(i) / f64::from(points))
}

/// Nines at which an arm runs out of independent episodes; `None` when it does not as far as that was asked.
pub(super) fn refused_from(arm: &ArmEvidence, step: &str) -> Option<f64> {
    let asked: Vec<u64> = match step {
        ALL => GRID_PPM.to_vec(),
        _ => PERCENTILES.map(|percentile| percentile.ppm).to_vec(),
    };
    let lacks = |ppm: &u64| {
        let support = arm.support(&arm.blocks, step, Metric::Latency, *ppm);
        support.is_some_and(|support| support.episodes < EPISODES_REFUSED)
    };
    asked.into_iter().find(lacks).map(nines_of_ppm)
}

fn first_refusal(evidence: &[ArmEvidence], step: &str) -> Option<f64> {
    evidence.iter().filter_map(|arm| refused_from(arm, step)).min_by(f64::total_cmp)
}

fn most_nines(evidence: &[ArmEvidence], step: &str) -> f64 {
    let most = evidence.iter().map(|arm| arm.pooled(step, Metric::Latency).total()).max().unwrap_or(1);
    (most as f64).log10().clamp(1.0, NINES_MAX)
}

/// The step that the decision is about, in words.
pub(super) fn requests_of(step: &str) -> String {
    if step == ALL { "all requests with a reply".to_owned() } else { format!("{step} requests with a reply") }
}

/// Latency by percentile, with the jackknife's interval around every arm's curve.
pub fn percentiles(evidence: &[ArmEvidence], analysis: &Analysis) -> Option<Figure> {
    let step = analysis.decision.question.design.primary_step.as_str();
    if evidence.iter().all(|arm| arm.pooled(step, Metric::Latency).is_empty()) {
        return None;
    }
    let nines = most_nines(evidence, step);
    let pooled: Vec<_> =
        evidence.iter().map(|arm| curve(&arm.pooled(step, Metric::Latency), POOLED_POINTS, nines)).collect();
    let y = Axis::of_times(pooled.iter().flatten().map(|point| point.1), "");
    let mut plot = Plot::new(Axis::of_nines(nines, "percentile, one step per nine"), y, 420.0);
    let refused = first_refusal(evidence, step);
    if let Some(from) = refused {
        plot.zone_x(from, nines, "refused", "refused");
    }
    for (i, arm) in evidence.iter().enumerate().filter(|(_, arm)| arm.blocks.len() >= BAND_BLOCKS) {
        let blocks = LeftOut::of(&arm.counts_in(step, Metric::Latency, &arm.blocks));
        let last = (blocks.total().max(1) as f64).log10().min(refused_from(arm, step).unwrap_or(nines)).min(nines);
        let ends = grid(BAND_POINTS, last).filter_map(|at| {
            let (low, high) = blocks.quantile(ppm_of_nines(at))?.ends?;
            Some((at, low, high))
        });
        plot.band(&ends.collect::<Vec<_>>(), &class("band", i));
    }
    for (i, points) in pooled.iter().enumerate() {
        plot.line(points, &class("pooled", i));
    }
    let mut caption = format!(
        "Latency from the planned time, {}, all valid blocks of an arm pooled. The bands (of arms with \
         at least {BAND_BLOCKS} valid blocks) are 95 % intervals over blocks.",
        requests_of(step)
    );
    if refused.is_some() {
        caption += " Grey: in at least one arm fewer than 20 independent episodes lie beyond these percentiles; the curves \
                    there are what happened, not an estimate, and an arm's band ends where its own refusal begins.";
    }
    let svg = plot.finish("Latency by percentile for every arm, both axes logarithmic");
    Some(Figure::one("Percentiles", caption, svg))
}

/// The share of requests that take longer than a given time, by both clocks, with the objective.
pub fn tail(evidence: &[ArmEvidence], analysis: &Analysis) -> Option<Figure> {
    let design = &analysis.decision.question.design;
    let step = design.primary_step.as_str();
    if evidence.iter().all(|arm| arm.pooled(step, Metric::Latency).is_empty()) {
        return None;
    }
    let nines = most_nines(evidence, step);
    let curves: Vec<[Vec<(f64, f64)>; 2]> = evidence
        .iter()
        .map(|arm| {
            Metric::BOTH.map(|metric| {
                let points = curve(&arm.pooled(step, metric), POOLED_POINTS, nines);
                points.into_iter().filter(|point| point.0 >= 0.3).map(|(nines, ns)| (ns, -nines)).collect()
            })
        })
        .collect();
    let x = Axis::of_times(curves.iter().flatten().flatten().map(|point| point.0), "latency");
    let objective = design.slo_ms * 1e6;
    let is_shown = (x.low..=x.high).contains(&objective);
    let mut plot = Plot::new(x, Axis::of_shares(nines, ""), 380.0);
    if let Some(from) = first_refusal(evidence, step) {
        plot.zone_y(-nines, -from, "refused", "refused: too few episodes");
    }
    if is_shown {
        plot.rule_x(objective, "worth");
    }
    for (i, [latency, service]) in curves.iter().enumerate() {
        plot.line(service, &class("service", i));
        plot.line(latency, &class("pooled", i));
    }
    let mut caption =
        "How many requests take longer than a given time. Thick: latency from the planned time, what a user sees \
                   who does not wait for others; thin: service time from the real send. Where the two part, requests \
                   waited behind a stall before they could be sent."
            .to_owned();
    if is_shown {
        caption += &format!(" The dashed line is the objective, {}.", crate::units::round_time(objective));
    }
    let svg = plot.finish("Share of requests slower than a given latency for every arm, both axes logarithmic");
    Some(Figure::one("The tail", caption, svg))
}
