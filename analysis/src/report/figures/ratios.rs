//! The ratio of every arm to the base along the percentiles, one panel an arm, with its interval, the region of
//! equivalence and the bar.

use super::Figure;
use super::curves::{grid, nines_of_ppm, ppm_of_nines, refused_from, requests_of};
use crate::analysis::Analysis;
use crate::counts::PERCENTILES;
use crate::evidence::{ArmEvidence, common_blocks};
use crate::load::Study;
use crate::report::axis::Axis;
use crate::report::bands::{LeftOut, Point};
use crate::report::plot::{Plot, class, key};
use crate::samples::Metric;

const POINTS: u32 = 64;

/// (nines, ratio) of one arm as far as neither it nor the base is refused.
struct Line {
    arm: usize,
    points: Vec<(f64, Point)>,
    refused: Option<f64>,
    last: f64,
}

/// Draws the panels; `None` when no arm has a ratio.
pub fn draw(study: &Study, evidence: &[ArmEvidence], analysis: &Analysis) -> Option<Figure> {
    let design = &analysis.decision.question.design;
    let step = design.primary_step.as_str();
    let (base, others) = evidence.split_first()?;
    let lines: Vec<Line> = others.iter().enumerate().map(|(i, arm)| line(study, (i + 1, arm), base, step)).collect();
    if lines.iter().all(|line| line.points.is_empty()) {
        return None;
    }
    let ends = |point: &Point| point.ends.map_or([point.value; 2], |(low, high)| [low, high]);
    let shown = lines.iter().flat_map(|line| &line.points).flat_map(|(_, point)| ends(point).into_iter());
    let y = Axis::of_ratios(shown.chain([design.worth_ratio * 0.95]), "");
    let last = lines.iter().map(|line| line.last).fold(2.0, f64::max);
    let primary = PERCENTILES.iter().find(|p| p.key == design.primary_percentile).map(|p| nines_of_ppm(p.ppm));
    let panels = lines.iter().zip(others).map(|(line, arm)| {
        let mut plot = Plot::panel(Axis::of_nines(last, ""), y.clone(), 230.0);
        plot.zone_y(design.equivalent_low, design.equivalent_high, "equivalent", "");
        if let Some(from) = line.refused {
            plot.zone_x(from, last, "refused", "refused");
        }
        plot.rule_y(1.0, "one");
        plot.rule_y(design.worth_ratio, "worth");
        if let Some(at) = primary.filter(|at| *at <= last) {
            plot.rule_x(at, "primary");
        }
        let band = line.points.iter().filter_map(|(at, point)| point.ends.map(|(low, high)| (*at, low, high)));
        plot.band(&band.collect::<Vec<_>>(), &class("band", line.arm));
        let values: Vec<(f64, f64)> = line.points.iter().map(|(at, point)| (*at, point.value)).collect();
        plot.line(&values, &class("pooled", line.arm));
        let svg = plot.finish(&format!("Ratio of the percentiles of {} to those of {}", arm.name, base.name));
        (arm.name.clone(), key(line.arm), svg)
    });
    let caption = format!(
        "Each arm's percentile divided by that of {}, {}, with 95 % intervals over blocks; below 1 is faster. The dashed \
         line is the bar (× {}), the shaded strip the region of equivalence, the dotted line the primary percentile. A \
         curve ends where either arm's percentile is refused. Only the primary was asked for beforehand: of many \
         percentiles some leave 1 by chance, and the tables' adjusted p-values count that in.",
        base.name,
        requests_of(step),
        crate::units::ratio(design.worth_ratio)
    );
    Some(Figure { title: "Ratio to the base".to_owned(), caption, svg: String::new(), panels: panels.collect() })
}

fn line(study: &Study, (number, arm): (usize, &ArmEvidence), base: &ArmEvidence, step: &str) -> Line {
    let blocks = common_blocks(study, &arm.name, &base.name);
    let [of_arm, of_base] = [arm, base].map(|side| LeftOut::of(&side.counts_in(step, Metric::Latency, &blocks)));
    let refused = [arm, base].iter().filter_map(|side| refused_from(side, step)).min_by(f64::total_cmp);
    let samples = (of_arm.total().min(of_base.total()).max(1) as f64).log10().min(5.0);
    let points = grid(POINTS, samples.min(refused.unwrap_or(samples)))
        .filter_map(|at| Some((at, of_arm.ratio(&of_base, ppm_of_nines(at))?)))
        .collect();
    Line { arm: number, points, refused, last: samples }
}
