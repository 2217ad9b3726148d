//! From an interval to a tier: what the primary cell says of one arm against another.

use crate::decision::Tier;
use regauge_traces::study::Design;

/// The tier of a ratio's interval, by the margins that were fixed beforehand. `delta_ms_high` is the upper end of the
/// difference: a gain counts beyond the floor alone.
pub fn tier((low, high): (f64, f64), delta_ms_high: f64, design: &Design) -> Tier {
    if high < design.worth_ratio && delta_ms_high < -design.floor_ms {
        Tier::MigrationEffect
    } else if low >= design.equivalent_low && high <= design.equivalent_high {
        Tier::Equivalent
    } else if low > design.equivalent_high {
        Tier::Worse
    } else if high < 1.0 {
        Tier::BetterBelowBar
    } else {
        Tier::Inconclusive
    }
}

/// Whether the data exclude an effect worth a migration: the ratio surely at or above the bar, or the gain surely within
/// the floor.
pub fn excludes_worth(ratio_low: f64, delta_ms_low: f64, design: &Design) -> bool {
    ratio_low >= design.worth_ratio || delta_ms_low >= -design.floor_ms
}

/// Whether two intervals of one effect say the same for a verdict: both beyond the bar or neither, and both without an
/// effect worth it or neither. That one of them crosses a margin on which no verdict rests (1, or the region of
/// equivalence) is no disagreement: two procedures with intervals of unlike width would nearly always have one.
pub fn same_verdict(one: (f64, f64), other: (f64, f64), delta_ms: (f64, f64), design: &Design) -> bool {
    let said = |ends: (f64, f64)| {
        let beyond = tier(ends, delta_ms.1, design) == Tier::MigrationEffect;
        (beyond, excludes_worth(ends.0, delta_ms.0, design))
    };
    said(one) == said(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tier_by_its_margins() {
        let design = Design::default();
        for (ends, delta, wanted) in [
            ((0.3, 0.79), -0.6, Tier::MigrationEffect),
            ((0.3, 0.79), -0.4, Tier::BetterBelowBar),
            ((0.3, 0.80), -0.6, Tier::BetterBelowBar),
            ((0.92, 1.09), 0.1, Tier::Equivalent),
            ((0.92, 0.99), -0.6, Tier::Equivalent),
            ((0.91, 1.10), 0.1, Tier::Equivalent),
            ((1.11, 1.5), 3.0, Tier::Worse),
            ((1.05, 1.5), 3.0, Tier::Inconclusive),
            ((0.7, 1.2), 0.3, Tier::Inconclusive),
            ((0.85, 0.99), -0.1, Tier::BetterBelowBar),
        ] {
            assert_eq!(tier(ends, delta, &design), wanted, "{ends:?} {delta}");
        }
    }

    #[test]
    fn what_excludes_an_effect() {
        let design = Design::default();
        assert!(excludes_worth(0.80, -9.0, &design));
        assert!(excludes_worth(0.2, -0.5, &design));
        assert!(!excludes_worth(0.79, -0.51, &design));
    }

    #[test]
    fn what_counts_as_a_disagreement() {
        let (design, delta) = (Design::default(), (-2.0, -1.0));
        // Inconclusive and equivalent: both exclude an effect worth it.
        assert!(same_verdict((0.85, 1.2), (0.92, 1.05), delta, &design));
        // Beyond the bar and not; excluding an effect and not.
        assert!(!same_verdict((0.5, 0.79), (0.5, 0.81), delta, &design));
        assert!(!same_verdict((0.81, 1.2), (0.79, 1.1), delta, &design));
        assert!(same_verdict((0.5, 0.9), (0.6, 1.1), delta, &design));
    }
}
