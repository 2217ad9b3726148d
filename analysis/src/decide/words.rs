//! Sentences of a decision: numbers with their units and intervals, so that no reader needs the JSON beside them.

use crate::counts::PERCENTILES;
use crate::decision::{Estimate, PrimaryCell, Tier};
use crate::tails::Refusal;
use crate::units::{plural, ratio, ratio_with_interval, round_time, time_difference};
use regauge_traces::study::Design;

/// `P99.9 of all requests`, `P99 of connect`.
pub fn primary(design: &Design) -> String {
    let percentile = PERCENTILES.into_iter().find(|percentile| percentile.key == design.primary_percentile);
    let percentile = percentile.map_or(design.primary_percentile.as_str(), |percentile| percentile.label);
    match design.primary_step.as_str() {
        "all" => format!("{percentile} of all requests"),
        step => format!("{percentile} of {step}"),
    }
}

/// `0.43× [0.30–0.58]`.
pub fn ratio_of(estimate: &Estimate) -> String {
    ratio_with_interval(estimate.value, estimate.low.zip(estimate.high)).replacen(' ', "× ", 1)
}

/// `compio 0.43× [0.30–0.58] tokio-shared's, −4.10 ms`.
pub fn effect(cell: &PrimaryCell) -> String {
    match (&cell.ratio, &cell.delta_ms) {
        (Some(ratio), Some(delta)) => {
            format!("{} {} {}'s, {}", cell.arm, ratio_of(ratio), cell.against, time_difference(delta.value * 1e6))
        }
        _ => format!("{} against {}: no number", cell.arm, cell.against),
    }
}

/// What a cell with a number says.
pub fn cell(cell: &PrimaryCell, design: &Design, label: &str) -> String {
    let meaning = match cell.tier {
        Tier::MigrationEffect => format!("the whole interval lies below the bar of {}", ratio(design.worth_ratio)),
        Tier::BetterBelowBar => {
            format!("better, but not shown to be below the bar of {} by more than the floor", ratio(design.worth_ratio))
        }
        Tier::Equivalent => format!(
            "no difference that counts: the whole interval lies within {}–{}",
            ratio(design.equivalent_low),
            ratio(design.equivalent_high)
        ),
        Tier::Worse => format!("worse: the whole interval lies above {}", ratio(design.equivalent_high)),
        Tier::Inconclusive | Tier::RunHeterogeneous | Tier::Refused => {
            "the interval allows too much to say more".to_owned()
        }
    };
    let by_floor =
        cell.excludes_worth && cell.ratio.and_then(|ratio| ratio.low).is_some_and(|low| low < design.worth_ratio);
    let floor = match by_floor {
        true => format!(", and what it gains lies within the floor of {}", round_time(design.floor_ms * 1e6)),
        false => String::new(),
    };
    let low = if cell.low_confidence { ", of low confidence (fewer than 50 independent episodes)" } else { "" };
    format!("{label}: {}; {meaning}{floor}{low}.", effect(cell))
}

/// Why a cell is refused.
pub fn refused(cell: &PrimaryCell, refusal: &Refusal, label: &str) -> String {
    if refusal.driver_owned {
        return format!(
            "{label} is refused for {} against {}: the driver's own lateness may own it, and it takes {}.",
            cell.arm,
            cell.against,
            refusal.need()
        );
    }
    format!(
        "{label} is refused for {} against {}: {} independent episodes stand behind it, and it takes {} per arm.",
        cell.arm,
        cell.against,
        refusal.episodes,
        refusal.need()
    )
}

/// Why a cell has a ratio and no interval.
pub fn no_interval(cell: &PrimaryCell, label: &str) -> String {
    format!("{label}: {}, without an interval from {}.", effect(cell), plural(cell.blocks, "block"))
}

/// Why runs are too unlike for a statement.
pub fn heterogeneous(cell: &PrimaryCell, design: &Design, one_block: bool) -> String {
    if one_block {
        let share = cell.largest_block_share.unwrap_or(0.0) * 100.0;
        return format!(
            "{}: one block holds {share:.0} % of an arm's exceedances, so what is seen is that block and not the arm.",
            effect(cell)
        );
    }
    match &cell.paired {
        Some(paired) => format!(
            "{}: that is pooled over blocks, and block by block it is {}; one of the two reaches across the bar of {} and \
             the other does not, so runs differ too much for a statement.",
            effect(cell),
            ratio_of(paired),
            ratio(design.worth_ratio)
        ),
        None => format!("{}: in one of the blocks an arm has no sample, so blocks cannot be paired.", effect(cell)),
    }
}

/// `a`, `a and b`, `a, b and c`.
pub fn list(items: &[&str]) -> String {
    match items {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The text with a full stop.
pub fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_labels() {
        assert_eq!([list(&["a"]), list(&["a", "b"]), list(&["a", "b", "c"])], ["a", "a and b", "a, b and c"]);
        assert_eq!(primary(&Design::default()), "P99.9 of all requests");
        assert_eq!(primary(&Design { primary_step: "connect".into(), ..Design::default() }), "P99.9 of connect");
        assert_eq!(sentence(" So it is"), "So it is.");
    }
}
