//! What an alternative pays for its gain: a median or a further tail that moves against it, throughput, CPU time, memory.

use super::Frame;
use super::primary::Primary;
use super::words;
use crate::analysis::ArmSummary;
use crate::compare::Interval;
use crate::counts::{PERCENTILES, Percentile};
use crate::resources::Resources;

/// Costs within this factor are not worth a sentence.
const COST_MOST: f64 = 1.1;
/// P50, parts per million.
const MEDIAN_PPM: u64 = 500_000;

/// One sentence per price of an alternative.
pub fn trade_offs(frame: &Frame<'_>, primary: &Primary<'_>, arms: &[ArmSummary]) -> Vec<String> {
    let mut found = Vec::new();
    let base = arms.first();
    for arm in arms.iter().filter(|arm| frame.roles.is_alternative(&arm.name)) {
        found.extend(frame.index(&arm.name).into_iter().flat_map(|index| opposite(primary, index)));
        found.extend(base.into_iter().flat_map(|base| costs(&arm.name, &arm.resources, &base.name, &base.resources)));
    }
    found
}

/// Two percentiles of the primary's step, both beyond chance and in opposite directions: the primary against the median
/// and against the highest percentile beyond it that goes the other way.
fn opposite(primary: &Primary<'_>, arm: usize) -> Vec<String> {
    let Some(own) = primary.percentile else { return Vec::new() };
    let median = PERCENTILES.into_iter().find(|percentile| percentile.ppm == MEDIAN_PPM);
    let below = median.filter(|median| median.ppm < own.ppm).and_then(|low| between(primary, arm, (low, own)));
    let mut beyond = PERCENTILES.into_iter().rev().filter(|percentile| percentile.ppm > own.ppm);
    below.into_iter().chain(beyond.find_map(|high| between(primary, arm, (own, high)))).collect()
}

fn between(primary: &Primary<'_>, arm: usize, (low, high): (Percentile, Percentile)) -> Option<String> {
    let ratio = |percentile: Percentile| {
        let is_refused = primary.refusal_at(arm, 0, percentile.ppm).is_some();
        primary.contrast(arm, 0, percentile.ppm).filter(|_| !is_refused).map(|contrast| contrast.ratio)
    };
    let (of_low, of_high) = (ratio(low)?, ratio(high)?);
    (direction(&of_low) * direction(&of_high) < 0).then(|| {
        let word = |ratio: &Interval| if direction(ratio) < 0 { "lower" } else { "higher" };
        let (name, far) = match low.ppm == MEDIAN_PPM {
            true => ("the median", "the tail"),
            false => (low.label, high.label),
        };
        format!(
            "{}: {name} is {} and {far} {}: {} {}, {} {} of {}'s.",
            primary.name(arm),
            word(&of_low),
            word(&of_high),
            low.label,
            shown(&of_low),
            high.label,
            shown(&of_high),
            primary.name(0)
        )
    })
}

fn shown(ratio: &Interval) -> String {
    let (low, high) = ratio.ends.unzip();
    words::ratio_of(&crate::decision::Estimate { value: ratio.estimate, low, high })
}

/// −1 or 1 where the interval excludes 1, else 0.
fn direction(ratio: &Interval) -> i32 {
    match ratio.ends {
        Some((_, high)) if high < 1.0 => -1,
        Some((low, _)) if low > 1.0 => 1,
        _ => 0,
    }
}

fn costs(name: &str, arm: &Resources, base_name: &str, base: &Resources) -> Vec<String> {
    let factor = |of: fn(&Resources) -> Option<f64>| Some(of(arm)? / of(base).filter(|&value| value > 0.0)?);
    let mut found = Vec::new();
    let mut say = |factor: Option<f64>, what: &str| {
        if let Some(factor) = factor.filter(|&factor| factor.is_finite() && factor > COST_MOST) {
            found.push(format!("{name} takes {factor:.2} times the {what} of {base_name}."));
        }
    };
    say(factor(|of| of.cpu_ns_per_request), "CPU time per request");
    say(factor(|of| Some(of.max_rss_bytes? as f64)), "memory (largest resident set)");
    if let Some(share) = factor(|of| of.throughput_per_s).filter(|&share| share < 1.0 / COST_MOST) {
        found.push(format!("{name} gets {:.0} % of {base_name}'s requests done per second.", share * 100.0));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_take_the_whole_interval() {
        let ratio = |low, high| Interval { estimate: 1.0, ends: Some((low, high)) };
        assert_eq!([ratio(0.5, 0.9), ratio(0.9, 1.1), ratio(1.1, 2.0)].map(|r| direction(&r)), [-1, 0, 1]);
        assert_eq!(direction(&Interval { estimate: 0.2, ends: None }), 0);
    }

    #[test]
    fn costs_beyond_a_tenth_are_said() {
        let base = Resources {
            cpu_ns_per_request: Some(100.0),
            throughput_per_s: Some(1_000.0),
            max_rss_bytes: Some(50),
            ..Resources::default()
        };
        let dear = Resources {
            cpu_ns_per_request: Some(130.0),
            throughput_per_s: Some(850.0),
            max_rss_bytes: Some(54),
            ..Resources::default()
        };
        let said = costs("b", &dear, "a", &base);
        assert_eq!(
            said,
            ["b takes 1.30 times the CPU time per request of a.", "b gets 85 % of a's requests done per second."]
        );
        assert!(costs("b", &base, "a", &base).is_empty());
        assert!(costs("b", &base, "a", &Resources::default()).is_empty());
    }
}
