//! The primary cell, one arm against another: the one question that was fixed beforehand, over complete blocks alone.

use super::sizing::{blocks_for, first_stage, per_block};
use super::tier::{excludes_worth, same_verdict, tier};
use super::words;
use crate::compare::{Contrast, Interval, Spread, contrast_in, exceedance_ratio};
use crate::counts::{Counts, PERCENTILES, Percentile};
use crate::decision::{Estimate, PrimaryCell, Tier};
use crate::episodes::{Confidence, Support};
use crate::evidence::ArmEvidence;
use crate::grid::Grid;
use crate::load::Study;
use crate::samples::Metric;
use crate::tails::Refusal;
use regauge_traces::study::Design;

/// A block that holds more than this share of an arm's exceedances is the tail.
const ONE_BLOCK_MOST: f64 = 0.5;
/// More blocks than this are out of reach, and are not named.
const BLOCKS_REACHABLE: u64 = 10_000;

/// What primary cells are computed from. Arms are numbered as in the evidence: the base is 0.
pub struct Primary<'a> {
    /// The question.
    pub design: &'a Design,
    /// Its percentile; `None` when the design names one that there is not.
    pub percentile: Option<Percentile>,
    evidence: &'a [ArmEvidence],
    blocks: Vec<u32>,
    grid: Grid,
    /// Blocks of the first stage and their grid, in a sized study.
    first: Option<(usize, Grid)>,
    first_asked: u64,
    flagged: Flagged,
}

/// Per arm: blocks with samples, those of runs that failed a gate included. Empty when no run failed.
pub type Flagged = Vec<Vec<(u32, Counts)>>;

impl<'a> Primary<'a> {
    /// Over the given (complete) blocks.
    pub fn new(
        study: &Study,
        design: &'a Design,
        evidence: &'a [ArmEvidence],
        blocks: &[u32],
        flagged: Flagged,
    ) -> Self {
        let first = first_stage(&study.manifest).filter(|&first| first < blocks.len());
        let first =
            first.map(|first| (first, grid(evidence, &design.primary_step, blocks.get(..first).unwrap_or(blocks))));
        Primary {
            design,
            percentile: PERCENTILES.into_iter().find(|percentile| percentile.key == design.primary_percentile),
            evidence,
            blocks: blocks.to_vec(),
            grid: grid(evidence, &design.primary_step, blocks),
            first,
            first_asked: u64::from(study.manifest.stages.first().map_or(study.manifest.blocks, |stage| stage.blocks)),
            flagged,
        }
    }

    /// The name of an arm.
    pub fn name(&self, arm: usize) -> &'a str {
        self.evidence.get(arm).map_or("", |arm| arm.name.as_str())
    }

    /// Arms that are compared with the base: all but it and the control.
    pub fn compared(&self) -> Vec<usize> {
        let is_control = |arm: usize| self.design.control.as_deref() == Some(self.name(arm));
        (1..self.evidence.len()).filter(|&arm| !is_control(arm)).collect()
    }

    /// `P99.9 of all requests`, `P99 of connect`.
    pub fn label(&self) -> String {
        words::primary(self.design)
    }

    /// Complete blocks.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The percentile of an arm over complete blocks, ns, refused or not.
    pub fn quantile(&self, arm: usize) -> Option<u64> {
        self.grid.quantile(&self.grid.columns(arm, None), self.percentile?.ppm)
    }

    /// What stands behind the percentile of an arm; `None` without a reply.
    pub fn support(&self, arm: usize) -> Option<Support> {
        self.support_at(arm, self.percentile?.ppm)
    }

    fn support_at(&self, arm: usize, ppm: u64) -> Option<Support> {
        self.evidence.get(arm)?.support(&self.blocks, &self.design.primary_step, Metric::Latency, ppm)
    }

    /// Whether the percentile is refused for either arm.
    pub fn refusal(&self, arm: usize, against: usize) -> Option<Refusal> {
        self.refusal_at(arm, against, self.percentile?.ppm)
    }

    /// Whether any percentile of the primary's step is refused for either arm.
    pub fn refusal_at(&self, arm: usize, against: usize, ppm: u64) -> Option<Refusal> {
        let supports = [arm, against].map(|arm| self.support_at(arm, ppm));
        Refusal::of_any(supports.iter().flatten(), ppm)
    }

    /// Complete blocks that the first stage was to have.
    pub fn first_stage_asked(&self) -> u64 {
        self.first_asked
    }

    /// Blocks of the first stage: all of them where there is only one.
    pub fn first_stage_blocks(&self) -> usize {
        self.first.as_ref().map_or(self.blocks.len(), |(first, _)| *first)
    }

    /// The contrast of the first stage alone.
    pub fn first_stage_contrast(&self, arm: usize, against: usize) -> Option<Contrast> {
        contrast_in(self.first.as_ref().map_or(&self.grid, |(_, grid)| grid), arm, against, self.percentile?.ppm)
    }

    /// Contrast of any percentile of the primary's step, with Stein's spread in a sized study.
    pub fn contrast(&self, arm: usize, against: usize, ppm: u64) -> Option<Contrast> {
        let all = contrast_in(&self.grid, arm, against, ppm)?;
        match &self.first {
            Some((_, first)) => Some(all.sized_by(&contrast_in(first, arm, against, ppm)?, self.blocks.len())),
            None => Some(all),
        }
    }

    /// One arm against another.
    pub fn cell(&self, arm: usize, against: usize) -> PrimaryCell {
        let mut cell = PrimaryCell {
            arm: self.name(arm).to_owned(),
            against: self.name(against).to_owned(),
            tier: Tier::Refused,
            blocks: self.blocks.len() as u64,
            ratio: None,
            delta_ms: None,
            slo_ratio: None,
            slo_why: None,
            paired: None,
            p: None,
            p_holm: None,
            p_bar: None,
            p_bar_holm: None,
            refused: self.refusal(arm, against),
            low_confidence: false,
            excludes_worth: false,
            largest_block_share: None,
            blocks_needed: None,
            why: String::new(),
            with_flagged: self.with_flagged(arm, against),
        };
        match exceedance_ratio(&self.grid, arm, against, self.objective_ns()) {
            Ok(spread) => cell.slo_ratio = Some(estimate(self.sized(spread, arm, against).interval().map(f64::exp))),
            Err(why) => cell.slo_why = Some(why),
        }
        let Some((percentile, supports)) = self.percentile.zip(self.support(arm).zip(self.support(against))) else {
            cell.why =
                format!("{} has no reply in the complete blocks of {} or {}.", self.label(), cell.arm, cell.against);
            return cell;
        };
        let weaker = if supports.0.episodes <= supports.1.episodes { supports.0 } else { supports.1 };
        cell.low_confidence = [supports.0, supports.1].iter().any(|support| support.confidence() != Confidence::Fine);
        // More blocks do not make a late driver punctual, whichever arm it was late for.
        if cell.low_confidence && !(supports.0.driver_owned || supports.1.driver_owned) {
            let blocks =
                weaker.samples_needed(percentile.ppm) as f64 / (weaker.samples as f64 / self.blocks.len() as f64);
            cell.blocks_needed = reachable(blocks.ceil() as u64);
        }
        cell.largest_block_share = Some(supports.0.largest_block_share.max(supports.1.largest_block_share));
        if let Some(refusal) = &cell.refused {
            cell.why = words::refused(&cell, refusal, &self.label());
            return cell;
        }
        let Some(contrast) = self.contrast(arm, against, percentile.ppm) else {
            cell.why = format!(
                "{} of {} or {} is 0 ns, or without one of the blocks there is no reply.",
                self.label(),
                cell.arm,
                cell.against
            );
            return cell;
        };
        self.fill(&mut cell, &contrast);
        cell
    }

    /// The spread of the shares beyond the objective, that of the first stage in a sized study.
    fn sized(&self, spread: Spread, arm: usize, against: usize) -> Spread {
        let Some((_, first)) = &self.first else { return spread };
        match exceedance_ratio(first, arm, against, self.objective_ns()) {
            Ok(first) => spread.sized_by(&first, self.blocks.len()),
            Err(_) => Spread { se: None, ..spread },
        }
    }

    fn objective_ns(&self) -> u64 {
        (self.design.slo_ms * 1e6) as u64
    }

    fn fill(&self, cell: &mut PrimaryCell, contrast: &Contrast) {
        cell.ratio = Some(estimate(contrast.ratio));
        let ms = |ns: f64| ns / 1e6;
        let delta = estimate(contrast.delta_ns);
        let delta = Estimate { value: ms(delta.value), low: delta.low.map(ms), high: delta.high.map(ms) };
        cell.delta_ms = Some(delta);
        cell.paired = contrast.paired.map(estimate);
        cell.p = contrast.log_ratio.p_two_sided(0.0);
        // Beyond the bar takes both: a ratio below it and a gain beyond the floor.
        let of_bar = contrast.log_ratio.p_at_least(self.design.worth_ratio.ln());
        let of_floor = contrast.delta.p_at_least(-self.design.floor_ms * 1e6);
        cell.p_bar = of_bar.zip(of_floor).map(|(bar, floor)| bar.max(floor));
        cell.tier = Tier::Inconclusive;
        let Some((ends, delta_ends)) = contrast.ratio.ends.zip(delta.low.zip(delta.high)) else {
            cell.why = words::no_interval(cell, &self.label());
            return;
        };
        cell.excludes_worth = excludes_worth(ends.0, delta_ends.0, self.design);
        let pooled = tier(ends, delta_ends.1, self.design);
        let paired = contrast.paired.and_then(|paired| paired.ends);
        let agree = paired.is_some_and(|paired| same_verdict(ends, paired, delta_ends, self.design));
        let one_block = cell.largest_block_share.is_some_and(|share| share > ONE_BLOCK_MOST);
        cell.tier = if one_block || !agree { Tier::RunHeterogeneous } else { pooled };
        if cell.blocks_needed.is_none() && matches!(pooled, Tier::Inconclusive | Tier::BetterBelowBar) {
            cell.blocks_needed = self.blocks_to_decide(&contrast.log_ratio, ends);
        }
        cell.why = match cell.tier {
            Tier::RunHeterogeneous => words::heterogeneous(cell, self.design, one_block),
            _ => words::cell(cell, self.design, &self.label()),
        };
    }

    /// Blocks with which an interval of the spread seen would lie on its estimate's side of the bar.
    fn blocks_to_decide(&self, log_ratio: &Spread, (low, high): (f64, f64)) -> Option<u64> {
        let bar = self.design.worth_ratio;
        if low >= bar || high < bar {
            return None;
        }
        let distance = (log_ratio.estimate - bar.ln()).abs();
        let blocks = blocks_for(per_block(log_ratio)?, log_ratio.df + 1, distance);
        reachable(blocks.max(self.blocks.len() as u64 + 1))
    }

    /// The ratio with the runs that failed a gate; `None` when none did, or they leave no ratio.
    fn with_flagged(&self, arm: usize, against: usize) -> Option<Estimate> {
        let (of_arm, of_base) = (self.flagged.get(arm)?, self.flagged.get(against)?);
        let other = |block: u32| of_base.iter().find(|(other, _)| *other == block).map(|(_, counts)| counts);
        let pairs = of_arm.iter().filter_map(|(block, counts)| Some((counts, other(*block)?)));
        let (a, b): (Vec<&Counts>, Vec<&Counts>) = pairs.unzip();
        crate::compare::contrast(&a, &b, self.percentile?.ppm).map(|contrast| estimate(contrast.ratio))
    }
}

fn grid(evidence: &[ArmEvidence], step: &str, blocks: &[u32]) -> Grid {
    let counts: Vec<Vec<Counts>> = evidence.iter().map(|arm| arm.counts_in(step, Metric::Latency, blocks)).collect();
    Grid::new(&counts.iter().map(|blocks| blocks.iter().collect()).collect::<Vec<_>>())
}

fn reachable(blocks: u64) -> Option<u64> {
    (blocks <= BLOCKS_REACHABLE).then_some(blocks)
}

fn estimate(interval: Interval) -> Estimate {
    let (low, high) = interval.ends.unzip();
    Estimate { value: interval.estimate, low, high }
}
