//! Percentiles of one arm and step, each shown or refused.
//!
//! A percentile is a sample of integer rank of the merged histogram ([`crate::counts`]). It is shown when enough
//! independent episodes stand behind it ([`crate::episodes`]); otherwise there is no number, but what was seen (the
//! maximum, the exceedances) and how many samples it would take.

use crate::counts::{Counts, PERCENTILES};
use crate::episodes::{Confidence, Support};
use crate::evidence::ArmEvidence;
use crate::samples::Metric;
use crate::units::rough_count;
use serde::Serialize;
use std::collections::BTreeMap;

/// What it takes where the driver was late.
pub(crate) const ON_TIME: &str = "a driver that is on time";

/// Why a percentile has no number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Refusal {
    /// Independent episodes beyond it, rounded to a tenth.
    pub episodes: f64,
    /// Samples beyond it.
    pub exceedances: u64,
    /// Samples there are.
    pub samples: u64,
    /// Samples that would be needed: at the rate seen, or at the very least where no exceedance was seen.
    pub needed: u64,
    /// Refused because the driver's own lateness may be what stands there: more samples do not help.
    pub driver_owned: bool,
}

impl Refusal {
    /// The refusal of a percentile with this support, if it is one.
    pub fn of(support: &Support, ppm: u64) -> Option<Self> {
        (support.confidence() == Confidence::Refused).then(|| Refusal {
            episodes: (support.episodes * 10.0).round() / 10.0,
            exceedances: support.exceedances,
            samples: support.samples,
            needed: support.samples_needed(ppm),
            driver_owned: support.driver_owned,
        })
    }

    /// The weightiest refusal of several arms, if any is refused: the driver's own lateness before too few episodes, since
    /// more samples do not mend it; then the larger need.
    pub fn of_any<'a>(supports: impl Iterator<Item = &'a Support>, ppm: u64) -> Option<Self> {
        supports.filter_map(|support| Refusal::of(support, ppm)).max_by_key(|found| (found.driver_owned, found.needed))
    }

    /// What it would take, in words: `about 188 thousand samples`.
    pub fn need(&self) -> String {
        if self.driver_owned {
            return ON_TIME.to_owned();
        }
        let how = if self.exceedances == 0 { "at least" } else { "about" };
        format!("{how} {} samples", rough_count(self.needed))
    }
}

/// Percentiles of one step by one metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tails {
    /// Samples pooled.
    pub samples: u64,
    /// Keys `p50` … `p99_99`; `None` where refused or without samples.
    pub percentiles_ns: BTreeMap<&'static str, Option<u64>>,
    /// The refused ones.
    pub refused: BTreeMap<&'static str, Refusal>,
    /// Shown, but from fewer than 50 episodes.
    pub low_confidence: Vec<&'static str>,
    /// What stands behind each.
    pub support: BTreeMap<&'static str, Support>,
    /// The largest sample, ns.
    pub max_ns: Option<u64>,
}

/// The percentiles of an arm over all its valid blocks.
pub fn tails(arm: &ArmEvidence, step: &str, metric: Metric) -> Tails {
    let counts: Counts = arm.pooled(step, metric);
    let mut tails = Tails {
        samples: counts.total(),
        percentiles_ns: BTreeMap::new(),
        refused: BTreeMap::new(),
        low_confidence: Vec::new(),
        support: BTreeMap::new(),
        max_ns: counts.max(),
    };
    for percentile in PERCENTILES {
        let support = arm.support(&arm.blocks, step, metric, percentile.ppm);
        let refusal = support.as_ref().and_then(|support| Refusal::of(support, percentile.ppm));
        let value = counts.quantile(percentile.ppm).filter(|_| support.is_some() && refusal.is_none());
        tails.percentiles_ns.insert(percentile.key, value);
        if let Some(support) = support {
            tails.support.insert(percentile.key, support);
            if support.confidence() == Confidence::Low {
                tails.low_confidence.push(percentile.key);
            }
        }
        if let Some(refusal) = refusal {
            tails.refused.insert(percentile.key, refusal);
        }
    }
    tails
}
