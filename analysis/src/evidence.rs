//! Everything that is read from a study's samples, in one place: histograms, tallies, episodes, time windows.
//!
//! Each valid run is read one at a time from its [`Source`], so that memory holds the samples of one run and not of the
//! study.
//! What may be concluded from the evidence is decided elsewhere ([`crate::compare`], [`crate::verdict`]).

use crate::counts::{Counts, PERCENTILES};
use crate::episodes::{BlockTail, Support};
use crate::error::AnalysisError;
use crate::load::Study;
use crate::samples::{Metric, RunSamples};
use crate::source::Source;
use crate::windows::Windows;
use regauge_traces::study::RunRecord;
use std::collections::{BTreeMap, BTreeSet};

/// The step that stands for all roots with a reply, pooled.
pub const ALL: &str = "all";

/// Significant digits that a histogram must have: three err by at most 0.05 %, two by 0.7 %.
const DIGITS_MIN: u8 = 3;

/// Percentiles at which the plots ask how far an arm's tail carries: quarter decades of nines from P90 to P99.999.
pub const GRID_PPM: [u64; 17] = [
    900_000, 943_766, 968_377, 982_217, 990_000, 994_377, 996_838, 998_222, 999_000, 999_438, 999_684, 999_822,
    999_900, 999_944, 999_968, 999_982, 999_990,
];

/// Requests of one step by their outcome, over an arm's valid runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Planned after warm-up.
    pub requests: u64,
    /// Of these, with a right reply.
    pub replies: u64,
    /// Ended in an error, warm-up included.
    pub errors: u64,
    /// Planned in all, warm-up included.
    pub planned: u64,
}

/// Names one percentile's support: which blocks are pooled, which step, metric and percentile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    blocks: Vec<u32>,
    step: String,
    metric: Metric,
    ppm: u64,
}

/// What was read of one arm.
#[derive(Debug, Clone)]
pub struct ArmEvidence {
    /// Arm name.
    pub name: String,
    /// Blocks in which its run is valid, rising. The vectors below follow this order.
    pub blocks: Vec<u32>,
    /// Histograms per block.
    counts: BTreeMap<(String, Metric), Vec<Counts>>,
    /// Outcomes per step, [`ALL`] included.
    pub tallies: BTreeMap<String, Tally>,
    /// Latency over the run's time.
    pub windows: Windows,
    support: BTreeMap<Cell, Support>,
}

impl ArmEvidence {
    /// Steps with at least one reply in any block; [`ALL`] first.
    pub fn steps(&self) -> Vec<&str> {
        let kinds = self.counts.keys().filter(|(step, metric)| step != ALL && *metric == Metric::Latency);
        std::iter::once(ALL).chain(kinds.map(|(step, _)| step.as_str())).collect()
    }

    /// Histograms of the given blocks, in their order; empty ones where the step has no reply.
    pub fn counts_in(&self, step: &str, metric: Metric, blocks: &[u32]) -> Vec<Counts> {
        let all = self.counts.get(&(step.to_owned(), metric));
        blocks
            .iter()
            .map(|block| {
                let at = self.blocks.iter().position(|b| b == block);
                at.and_then(|at| all?.get(at)).cloned().unwrap_or_default()
            })
            .collect()
    }

    /// The merged histogram of all valid blocks.
    pub fn pooled(&self, step: &str, metric: Metric) -> Counts {
        Counts::merged(self.counts.get(&(step.to_owned(), metric)).into_iter().flatten())
    }

    /// Episodes behind a percentile of the given blocks, pooled. `None` for a cell that was not asked for.
    pub fn support(&self, blocks: &[u32], step: &str, metric: Metric, ppm: u64) -> Option<Support> {
        self.support.get(&Cell { blocks: blocks.to_vec(), step: step.to_owned(), metric, ppm }).copied()
    }
}

/// Reads all valid runs of a study, arm by arm in the order of [`Study::arms`].
///
/// # Errors
/// An unreadable file of a valid run, or histograms and samples of a run that disagree.
pub fn gather(study: &Study, source: &dyn Source) -> Result<Vec<ArmEvidence>, AnalysisError> {
    let names: Vec<String> = study.arms().iter().map(|arm| arm.name.clone()).collect();
    let mut digits = None;
    names.iter().map(|name| gather_arm(study, source, name, &pools(study, &names, name), &mut digits)).collect()
}

/// Blocks that two arms have in common.
pub fn common_blocks(study: &Study, arm: &str, base: &str) -> Vec<u32> {
    study.valid_blocks(arm).intersection(&study.valid_blocks(base)).copied().collect()
}

/// Blocks in which every arm's run is valid: what a decision rests on.
pub fn complete_blocks(study: &Study) -> Vec<u32> {
    let mut arms = study.manifest.arms.iter().map(|arm| study.valid_blocks(&arm.name));
    let first = arms.next().unwrap_or_default();
    arms.fold(first, |common, blocks| common.intersection(&blocks).copied().collect()).into_iter().collect()
}

/// The sets of blocks over which an arm is pooled: its own, those that it shares with what it is compared with, and the
/// complete ones.
fn pools(study: &Study, names: &[String], arm: &str) -> BTreeSet<Vec<u32>> {
    let base = study.manifest.base.as_str();
    let partners = names.iter().filter(|other| (arm == base) != (other.as_str() == base));
    let own = study.valid_blocks(arm).into_iter().collect();
    let common = partners.map(|other| common_blocks(study, arm, other));
    common.chain([own, complete_blocks(study)]).filter(|blocks| !blocks.is_empty()).collect()
}

fn gather_arm(
    study: &Study,
    source: &dyn Source,
    name: &str,
    pools: &BTreeSet<Vec<u32>>,
    digits: &mut Option<u8>,
) -> Result<ArmEvidence, AnalysisError> {
    let blocks: Vec<u32> = study.valid_blocks(name).into_iter().collect();
    let counts = gather_histograms(study, source, name, &blocks, digits)?;
    let expected = study.manifest.requests.saturating_mul(u64::from(study.manifest.blocks));
    let mut arm = ArmEvidence {
        name: name.to_owned(),
        blocks,
        counts,
        tallies: BTreeMap::new(),
        windows: Windows::new(study.manifest.duration_ns, expected),
        support: BTreeMap::new(),
    };
    let mut cells = cells(&arm, pools);
    for (at, block) in arm.blocks.clone().into_iter().enumerate() {
        let samples = source.requests(block, name)?;
        check_totals(&arm, at, block, &samples)?;
        tally(&mut arm.tallies, &samples);
        arm.windows.add(&samples);
        walk(&mut cells, block, &samples);
    }
    arm.windows.close();
    let driver_stands = driver_stands(study, name);
    let support = |open: OpenCell| {
        let limit = open.cell.blocks.iter().filter_map(|block| driver_stands.get(block)).min();
        let driver_owned = open.cell.metric == Metric::Latency && limit.is_some_and(|limit| open.cell.ppm > *limit);
        let support = Support { driver_owned, ..Support::of(&open.tails) };
        (open.cell, support)
    };
    arm.support = cells.into_iter().map(support).collect();
    Ok(arm)
}

/// Per block, the highest percentile (ppm) that the driver's own lateness does not own, as its record says. Studies from
/// before it was recorded have none.
fn driver_stands(study: &Study, arm: &str) -> BTreeMap<u32, u64> {
    let of = |run: &RunRecord| {
        let percentile = run.driver.get("lag_refuses_above")?.as_f64().unwrap_or(0.0);
        Some((run.block, (percentile * 10_000.0).round() as u64))
    };
    study.runs_of(arm).filter(|run| run.valid).filter_map(of).collect()
}

/// Histograms of every block by step and metric, with the pooled step added.
fn gather_histograms(
    study: &Study,
    source: &dyn Source,
    name: &str,
    blocks: &[u32],
    digits: &mut Option<u8>,
) -> Result<BTreeMap<(String, Metric), Vec<Counts>>, AnalysisError> {
    let mut counts: BTreeMap<(String, Metric), Vec<Counts>> = BTreeMap::new();
    for metric in Metric::BOTH {
        counts.insert((ALL.to_owned(), metric), vec![Counts::default(); blocks.len()]);
    }
    for (at, &block) in blocks.iter().enumerate() {
        let path = study.run_file(block, name, "histograms.parquet");
        for row in source.histograms(block, name)? {
            let refuse = |reason: String| AnalysisError::BadHistogram {
                path: path.clone(),
                step: row.step.clone(),
                metric: row.metric.name().to_owned(),
                reason,
            };
            if row.digits < DIGITS_MIN {
                let reason = format!("it was recorded with {} significant digits", row.digits);
                return Err(refuse(format!("{reason}, and percentiles here need {DIGITS_MIN}")));
            }
            let expected = *digits.get_or_insert(row.digits);
            if row.digits != expected {
                let reason = format!("it has {} significant digits where others have {expected}", row.digits);
                return Err(refuse(reason + ", so they cannot be merged exactly"));
            }
            if row.step == ALL {
                return Err(refuse(format!("`{ALL}` is the name of all steps pooled, not of a step")));
            }
            if row.counts.is_empty() {
                continue;
            }
            let of_step = counts.entry((row.step.clone(), row.metric)).or_insert(vec![Counts::default(); blocks.len()]);
            if of_step.get(at).is_some_and(|there| !there.is_empty()) {
                return Err(refuse("the file holds another one of the same step and metric".to_owned()));
            }
            if let Some(slot) = of_step.get_mut(at) {
                *slot = row.counts.clone();
            }
            if let Some(slot) = counts.get_mut(&(ALL.to_owned(), row.metric)).and_then(|all| all.get_mut(at)) {
                *slot = Counts::merged([&*slot, &row.counts]);
            }
        }
    }
    Ok(counts)
}

/// A run's histograms must count what its raw samples hold.
fn check_totals(arm: &ArmEvidence, at: usize, block: u32, samples: &RunSamples) -> Result<(), AnalysisError> {
    let mut exact: BTreeMap<(&str, Metric), u64> = BTreeMap::new();
    for sample in samples.rows.iter().filter(|sample| sample.is_measured()) {
        let Some(step) = samples.steps.get(sample.step) else { continue };
        for metric in Metric::BOTH {
            *exact.entry((step, metric)).or_default() += u64::from(sample.time(metric).is_some());
        }
    }
    let counted = arm.counts.iter().filter(|((step, _), _)| step != ALL);
    let counted: BTreeMap<(&str, Metric), u64> = counted
        .map(|((step, metric), blocks)| ((step.as_str(), *metric), blocks.get(at).map_or(0, Counts::total)))
        .collect();
    let keys: BTreeSet<_> = exact.keys().chain(counted.keys()).collect();
    for key in keys {
        let (raw, histogram) = (exact.get(key).copied().unwrap_or(0), counted.get(key).copied().unwrap_or(0));
        if raw != histogram {
            let what = format!(
                "block {block}, arm `{}`, step `{}`: requests.parquet holds {raw} values of {}, histograms.parquet {histogram}",
                arm.name,
                key.0,
                key.1.name()
            );
            return Err(AnalysisError::Disagreement { what });
        }
    }
    Ok(())
}

fn tally(tallies: &mut BTreeMap<String, Tally>, samples: &RunSamples) {
    let mut by_step = vec![Tally::default(); samples.steps.len()];
    for sample in &samples.rows {
        let Some(tally) = by_step.get_mut(sample.step) else { continue };
        tally.planned += 1;
        tally.errors += u64::from(sample.is_error());
        tally.requests += u64::from(sample.is_measured());
        tally.replies += u64::from(sample.is_measured() && sample.latency_ns.is_some());
    }
    for (step, run) in samples.steps.iter().zip(by_step) {
        for name in [step.as_str(), ALL] {
            let sum = tallies.entry(name.to_owned()).or_default();
            sum.requests += run.requests;
            sum.replies += run.replies;
            sum.errors += run.errors;
            sum.planned += run.planned;
        }
    }
}

/// A cell whose exceedances are being counted.
struct OpenCell {
    cell: Cell,
    threshold_ns: u64,
    tails: Vec<BlockTail>,
}

/// Every cell that a table, a comparison or a plot will ask about, with its threshold: the pooled percentile.
fn cells(arm: &ArmEvidence, pools: &BTreeSet<Vec<u32>>) -> Vec<OpenCell> {
    let mut cells = Vec::new();
    for blocks in pools {
        for step in arm.steps() {
            for metric in Metric::BOTH {
                let counts = Counts::merged(&arm.counts_in(step, metric, blocks));
                let is_plotted = step == ALL && metric == Metric::Latency && *blocks == arm.blocks;
                let grid = GRID_PPM.into_iter().filter(|_| is_plotted);
                let ppms: BTreeSet<u64> = PERCENTILES.iter().map(|percentile| percentile.ppm).chain(grid).collect();
                for ppm in ppms {
                    let Some(threshold_ns) = counts.quantile(ppm) else { continue };
                    let cell = Cell { blocks: blocks.clone(), step: step.to_owned(), metric, ppm };
                    cells.push(OpenCell { cell, threshold_ns, tails: Vec::new() });
                }
            }
        }
    }
    cells
}

/// Adds one block to every cell that pools it.
///
/// A sample exceeds a percentile when it is greater than it. The percentile is the middle of a histogram's bucket, so
/// samples of that bucket may fall on either side, as they would by chance.
fn walk(cells: &mut [OpenCell], block: u32, samples: &RunSamples) {
    for metric in Metric::BOTH {
        // Steps in the run's numbering, then all of them.
        for step in samples.steps.iter().map(Some).chain([None]) {
            let name = step.map_or(ALL, String::as_str);
            let mut of_step: Vec<(u64, &mut BlockTail)> = Vec::new();
            for open in cells.iter_mut().filter(|open| {
                open.cell.metric == metric && open.cell.step == name && open.cell.blocks.contains(&block)
            }) {
                open.tails.push(BlockTail::default());
                if let Some(tail) = open.tails.last_mut() {
                    of_step.push((open.threshold_ns, tail));
                }
            }
            of_step.sort_by_key(|(threshold, _)| *threshold);
            let wanted = step.and_then(|step| samples.steps.iter().position(|s| s == step));
            let mut position = 0;
            for sample in samples.rows.iter().filter(|sample| sample.is_measured()) {
                if wanted.is_some_and(|wanted| wanted != sample.step) {
                    continue;
                }
                let Some(value) = sample.time(metric) else { continue };
                for (_, tail) in of_step.iter_mut().take_while(|(threshold, _)| value > *threshold) {
                    tail.exceed(position);
                }
                position += 1;
            }
            of_step.iter_mut().for_each(|(_, tail)| tail.finish(position));
        }
    }
}
