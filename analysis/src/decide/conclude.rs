//! Puts a conclusion into words: the headline, what it rests on, and what would change it.

use super::Frame;
use super::blockers::Blocker;
use super::primary::Primary;
use super::verdict::{Cells, Conclusion, FIX_IN_PLACE, INSUFFICIENT, MIGRATE, P_BAR_MOST, STAY};
use super::words;
use crate::decision::{PrimaryCell, Tier};
use crate::units::{plural, ratio, round_time, time};

/// A verdict in words.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// One of the four.
    pub verdict: &'static str,
    /// In one sentence, with its numbers.
    pub headline: String,
    /// What it rests on or lacks.
    pub why: Vec<String>,
    /// What would change it; never empty.
    pub would_change: Vec<String>,
    /// The arm that it names, for MIGRATE and FIX IN PLACE.
    pub chosen: Option<String>,
}

/// The verdict of a study.
pub fn conclude(frame: &Frame<'_>, primary: &Primary<'_>, cells: &Cells, blockers: &[Blocker]) -> Verdict {
    if blockers.is_empty() {
        return match cells.conclude(&frame.roles) {
            Conclusion::Migrate(arm) => migrate(frame, primary, cells, &arm),
            Conclusion::FixInPlace(arm) => fix_in_place(frame, primary, cells, &arm),
            Conclusion::Stay => stay(frame, primary, cells),
            Conclusion::Open(arms) => open(frame, primary, cells, &arms),
        };
    }
    let mut why: Vec<String> = blockers.iter().map(|blocker| blocker.why.clone()).collect();
    why.extend(frame.left_out());
    // Refused cells say what they lack even when something else blocks the verdict too.
    why.extend(cells.against_base.iter().filter(|cell| cell.refused.is_some()).map(|cell| cell.why.clone()));
    let mut would_change: Vec<String> = blockers.iter().map(|blocker| blocker.change.clone()).collect();
    would_change.dedup();
    Verdict {
        verdict: INSUFFICIENT,
        headline: format!("The evidence does not suffice. {}", so_far(primary, cells)),
        why,
        would_change,
        chosen: None,
    }
}

/// What the primary cells show so far, for a study without a verdict.
fn so_far(primary: &Primary<'_>, cells: &Cells) -> String {
    let shown: Vec<String> = cells.against_base.iter().filter(|cell| cell.ratio.is_some()).map(words::effect).collect();
    if shown.is_empty() {
        return format!("So far {} cannot be compared.", primary.label());
    }
    format!(
        "So far, over {}, {}: {}.",
        plural(primary.blocks() as u64, "complete block"),
        primary.label(),
        shown.join("; ")
    )
}

fn migrate(frame: &Frame<'_>, primary: &Primary<'_>, cells: &Cells, arm: &str) -> Verdict {
    let mut why: Vec<String> = cells.against_base(arm).into_iter().map(|cell| cell.why.clone()).collect();
    let beaten: Vec<&PrimaryCell> = cells.against_today.iter().filter(|cell| cell.arm == arm).collect();
    why.extend(beaten.iter().map(|cell| cell.why.clone()));
    if frame.roles.today.is_empty() {
        why.push(
            "No cheaper arm of today's runtime was tried, so that fixing it in place is not ruled out by this study."
                .to_owned(),
        );
    }
    why.extend(frame.gate_passed());
    let against = cells.of_arm(arm).filter_map(|cell| cell.ratio.and_then(|ratio| ratio.high));
    let nearest = against.fold(0.0_f64, f64::max);
    let best =
        frame.roles.today.iter().filter_map(|name| primary.quantile(frame.index(name)?)).chain(primary.quantile(0));
    let mut would_change = vec![format!(
        "The upper end of an interval at the bar of {} or above: the nearest is at {}.",
        ratio(frame.design.worth_ratio),
        ratio(nearest)
    )];
    if let Some((own, best)) = frame.index(arm).and_then(|arm| primary.quantile(arm)).zip(best.min()) {
        would_change.push(format!(
            "An arm of today's runtime whose {} is below {}; the best of those tried has {}.",
            primary.label(),
            time(own as f64 / frame.design.worth_ratio),
            time(best as f64)
        ));
    }
    let effect = cells.against_base(arm).map(words::effect).unwrap_or_default();
    let headline = match beaten.len() {
        0 => format!("Migrate to {arm}: {}: {effect}.", primary.label()),
        n => format!(
            "Migrate to {arm}: {}: {effect}; it also beats {} of today's runtime by the bar.",
            primary.label(),
            plural(n as u64, "cheaper arm")
        ),
    };
    why.extend(spoiled(frame));
    Verdict { verdict: MIGRATE, headline, why, would_change, chosen: Some(arm.to_owned()) }
}

fn fix_in_place(frame: &Frame<'_>, primary: &Primary<'_>, cells: &Cells, arm: &str) -> Verdict {
    let mut why: Vec<String> = cells.against_base(arm).into_iter().map(|cell| cell.why.clone()).collect();
    let against: Vec<&PrimaryCell> = cells.against_today.iter().filter(|cell| cell.against == arm).collect();
    why.extend(against.iter().map(|cell| cell.why.clone()));
    why.extend(spoiled(frame));
    why.extend(frame.gate_passed());
    let mut would_change: Vec<String> = against
        .iter()
        .filter_map(|cell| Some((cell, cell.blocks_needed?)))
        .map(|(cell, blocks)| {
            format!("{} would show whether {} beats {arm} by the bar.", capital(&about_blocks(blocks)), cell.arm)
        })
        .collect();
    let own = frame.index(arm).and_then(|arm| primary.quantile(arm)).unwrap_or(0) as f64;
    would_change.push(format!(
        "An arm of another runtime whose {} is shown to be below {}, which is the bar times that of {arm}.",
        primary.label(),
        time(own * frame.design.worth_ratio)
    ));
    Verdict {
        verdict: FIX_IN_PLACE,
        headline: format!(
            "Fix in place with {arm}: {}: {}; no other runtime is shown to beat it by the bar of {}.",
            primary.label(),
            cells.against_base(arm).map(words::effect).unwrap_or_default(),
            ratio(frame.design.worth_ratio)
        ),
        why,
        would_change,
        chosen: Some(arm.to_owned()),
    }
}

/// Arms that may not win, whatever their figures.
fn spoiled<'a>(frame: &'a Frame<'_>) -> impl Iterator<Item = String> + 'a {
    frame.roles.faulty.iter().filter(|(arm, _)| frame.roles.is_alternative(arm)).map(|(_, why)| why.clone())
}

fn stay(frame: &Frame<'_>, primary: &Primary<'_>, cells: &Cells) -> Verdict {
    let alternatives = cells.against_base.iter().filter(|cell| frame.roles.is_alternative(&cell.arm));
    let value = |cell: &&PrimaryCell| cell.ratio.map_or(f64::MAX, |ratio| ratio.value);
    let strongest = alternatives.clone().min_by(|a, b| value(a).total_cmp(&value(b)));
    let mut why: Vec<String> = alternatives.clone().map(|cell| cell.why.clone()).collect();
    why.extend(frame.gate_passed());
    why.extend(spoiled(frame));
    let bar = frame.design.worth_ratio;
    let floor = round_time(frame.design.floor_ms * 1e6);
    // An alternative whose ratio may be below the bar is excluded by the floor alone.
    let may_reach = |cell: &&PrimaryCell| cell.ratio.and_then(|ratio| ratio.low).is_some_and(|low| low < bar);
    let (by_floor, by_bar): (Vec<&PrimaryCell>, Vec<&PrimaryCell>) = alternatives.partition(may_reach);
    let names: Vec<&str> = by_floor.iter().map(|cell| cell.arm.as_str()).collect();
    let mut would_change = Vec::new();
    if !by_bar.is_empty() {
        let lowest = by_bar.iter().filter_map(|cell| cell.ratio?.low).fold(f64::MAX, f64::min);
        would_change.push(format!(
            "A bar above the lower ends of the intervals (the lowest is {}; the bar is {}), fixed before a new study.",
            ratio(lowest),
            ratio(bar)
        ));
    }
    if !by_floor.is_empty() {
        let most = by_floor.iter().filter_map(|cell| cell.delta_ms?.low).fold(0.0, f64::min);
        would_change.push(format!(
            "A floor below {}, the largest gain that the intervals allow (the floor is {floor}), fixed before a new study.",
            time(-most * 1e6)
        ));
    }
    would_change.push(format!("An arm that was not tried and whose interval lies below {}.", ratio(bar)));
    would_change.push("Another workload: a higher load, or a trace in which the tail has another cause.".to_owned());
    let because = match names.is_empty() {
        true => String::new(),
        false => format!(" What {} may gain lies within the floor of {floor}.", words::list(&names)),
    };
    Verdict {
        verdict: STAY,
        headline: format!(
            "Stay on {}: no alternative has an effect worth it. {}: the lowest is {}.{because}",
            primary.name(0),
            primary.label(),
            strongest.map(words::effect).unwrap_or_default()
        ),
        why,
        would_change,
        chosen: None,
    }
}

fn open(frame: &Frame<'_>, primary: &Primary<'_>, cells: &Cells, arms: &[String]) -> Verdict {
    let mut why = Vec::new();
    let mut would_change = Vec::new();
    for arm in arms {
        for cell in cells.of_arm(arm).filter(|cell| cell.tier != Tier::MigrationEffect || cell.low_confidence) {
            why.push(cell.why.clone());
            would_change.push(remedy(cell));
        }
        let all_beyond = cells.of_arm(arm).all(|cell| cell.tier == Tier::MigrationEffect && !cell.low_confidence);
        if all_beyond {
            for (reason, remedy) in beyond_and_open(frame, cells, arm) {
                why.push(reason);
                would_change.push(remedy);
            }
        }
    }
    why.extend(frame.gate_passed());
    would_change.dedup();
    Verdict {
        verdict: INSUFFICIENT,
        headline: format!(
            "The evidence does not suffice to tell whether {} {} an effect worth it. {}",
            words::list(&arms.iter().map(String::as_str).collect::<Vec<_>>()),
            if arms.len() == 1 { "has" } else { "have" },
            so_far(primary, cells)
        ),
        why,
        would_change,
        chosen: None,
    }
}

/// Why an arm that is beyond the bar in every comparison of its own is not chosen, and what would help.
fn beyond_and_open(frame: &Frame<'_>, cells: &Cells, arm: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if let Some(why) = frame.roles.fault(arm) {
        found.push((why.to_owned(), format!("{arm} with no more failed runs of its own than {}.", frame.base())));
    }
    if cells.of_arm(arm).any(|cell| cell.p_bar_holm.is_none_or(|p| p > P_BAR_MOST)) {
        found.push((
            format!(
                "{arm} is beyond the bar taken alone, but not after adjustment for all arms that might have been (Holm)."
            ),
            "More blocks, or fewer arms that might win.".to_owned(),
        ));
    }
    for rival in cells.beaten_by(arm) {
        found.push((
            format!("{arm} is beyond the bar, but {rival} is shown to beat it by the bar."),
            format!("{rival} shown to be beyond the bar against everything that it must beat."),
        ));
    }
    found
}

/// What would decide a cell.
fn remedy(cell: &PrimaryCell) -> String {
    let pair = format!("{} against {}", cell.arm, cell.against);
    match (cell.tier, cell.blocks_needed) {
        (Tier::RunHeterogeneous, _) => {
            format!("{pair}: a quieter host, or more blocks, until pooled and block by block say the same.")
        }
        (Tier::Refused, None) => match &cell.refused {
            Some(refusal) => format!("{pair}: {}.", refusal.need()),
            None => format!("{pair}: replies of the primary step."),
        },
        (_, Some(blocks)) => format!("{pair}: {}, if the spread stays as it is.", about_blocks(blocks)),
        (_, None) => format!("{pair}: no number of blocks within reach, since the ratio lies so near to the bar."),
    }
}

/// A new study, because blocks that are added after a look at the ratios forbid a verdict.
fn about_blocks(blocks: u64) -> String {
    format!("a new study of about {}", plural(blocks, "complete block"))
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
