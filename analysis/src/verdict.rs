//! What may be concluded: so far, honestly, nothing but what is lacking.
//!
//! A verdict other than INSUFFICIENT EVIDENCE rests on a percentile, a bar and a region of equivalence that were fixed
//! before the study ran, and on a control arm that shows what the instrument itself calls a difference. Neither exists
//! yet in a study, so this module never decides; it lists what is lacking, and says in one sentence what the data show.

use crate::analysis::{ArmSummary, Comparison};
use crate::counts::{PERCENTILES, Percentile};
use crate::evidence::ALL;
use crate::load::Study;
use crate::tails::Refusal;
use crate::units::{plural, ratio_with_interval, time};
use regauge_traces::study::ArmRecord;

/// The first-class answer that evidence does not suffice.
pub const INSUFFICIENT: &str = "INSUFFICIENT EVIDENCE";

/// Blocks below which the procedure was not shown to hold its error rates.
pub const BLOCKS_MIN: u64 = 10;

/// A verdict and what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// [`INSUFFICIENT`], for now.
    pub verdict: &'static str,
    /// What is lacking, one sentence each, the weightiest first.
    pub why: Vec<String>,
    /// What the data show so far, in one sentence.
    pub finding: String,
}

/// Judges a study.
pub fn judge(study: &Study, arms: &[ArmSummary], comparisons: &[Comparison]) -> Verdict {
    let mut why = Vec::new();
    if arms.len() < 2 {
        why.push("The study has one arm, so there is nothing to compare it with.".to_owned());
    }
    why.push(
        "No primary percentile, bar and region of equivalence were fixed before the runs, so any difference below was \
         found by looking."
            .to_owned(),
    );
    why.push(control(study));
    why.extend(blocks(comparisons));
    why.extend(refused(arms));
    why.extend(left_out(arms));
    why.push(
        "Whether each run had reached its steady state was not tested: the warm-up cut is the plan's, the same for all."
            .to_owned(),
    );
    why.extend(study.manifest.layout.limits.iter().map(|limit| format!("This host: {}", sentence(limit))));
    Verdict { verdict: INSUFFICIENT, why, finding: finding(study, arms, comparisons) }
}

/// The A/A control: an arm that repeats the base under another name.
fn control(study: &Study) -> String {
    let base = study.manifest.arms.iter().find(|arm| arm.name == study.manifest.base);
    let repeats = |arm: &&ArmRecord| {
        base.is_some_and(|base| arm.name != base.name && arm.stack == base.stack && arm.settings == base.settings)
    };
    match study.manifest.arms.iter().find(repeats) {
        Some(arm) => format!(
            "Arm {} repeats the base and could serve as the A/A control, but no gate judges it yet; read its ratio as the \
             noise floor.",
            arm.name
        ),
        None => {
            "No arm repeats the base (A/A control), so it is not known which ratio this setup shows between equals."
                .to_owned()
        }
    }
}

fn blocks(comparisons: &[Comparison]) -> Option<String> {
    let fewest = comparisons.iter().map(|row| row.blocks).min()?;
    (fewest < BLOCKS_MIN).then(|| {
        let consequence = match fewest {
            0 => "an arm cannot be compared at all",
            1 => "no interval can be given",
            _ => "intervals are wide and were not shown to cover at this size",
        };
        format!("{} where {BLOCKS_MIN} are the minimum: {consequence}.", capital(&plural(fewest, "common valid block")))
    })
}

/// Refused headline percentiles, lowest first.
fn refused(arms: &[ArmSummary]) -> Vec<String> {
    let sentence_of = |percentile: Percentile| {
        let of: Vec<(&str, &Refusal)> =
            arms.iter().filter_map(|arm| Some((arm.name.as_str(), arm.refused.get(percentile.key)?))).collect();
        let need = of.iter().map(|(_, refusal)| refusal).max_by_key(|refusal| refusal.needed)?.need();
        let who = if of.len() == arms.len() && arms.len() > 1 {
            "every arm".to_owned()
        } else {
            of.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        };
        Some(format!(
            "{} is refused for {who}: too few independent episodes; it takes {need} per arm.",
            percentile.label
        ))
    };
    PERCENTILES.into_iter().filter_map(sentence_of).collect()
}

fn left_out(arms: &[ArmSummary]) -> Option<String> {
    let missing: u64 = arms.iter().map(|arm| arm.why_invalid.len() as u64).sum();
    let without: Vec<&str> = arms.iter().filter(|arm| !arm.valid).map(|arm| arm.name.as_str()).collect();
    (missing > 0).then(|| {
        let verb = if missing == 1 { "was" } else { "were" };
        let mut text = format!("{} {verb} left out as invalid or unfinished", plural(missing, "run"));
        if !without.is_empty() {
            text += &format!(", and nothing is left of {}", without.join(", "));
        }
        text + "."
    })
}

/// One sentence on the highest percentile that every comparison shows.
fn finding(study: &Study, arms: &[ArmSummary], comparisons: &[Comparison]) -> String {
    let headline = |percentile: &Percentile| -> Vec<&Comparison> {
        comparisons.iter().filter(|row| row.step == ALL && row.percentile == percentile.key).collect()
    };
    let compared: Vec<&ArmSummary> = arms.iter().filter(|arm| arm.valid && arm.name != study.manifest.base).collect();
    // The highest percentile that is shown for every arm; one of low confidence only where there is no other.
    let shown = |with_low: bool| {
        PERCENTILES.iter().rev().find_map(|percentile| {
            let fits = |row: &&Comparison| row.ratio.is_some() && (with_low || !row.low_confidence);
            let rows: Vec<&Comparison> = headline(percentile).into_iter().filter(fits).collect();
            (!rows.is_empty() && rows.len() == compared.len()).then_some((percentile, rows))
        })
    };
    let Some((percentile, rows)) = shown(false).or_else(|| shown(true)) else {
        return "So far no percentile can be compared between all arms.".to_owned();
    };
    let base = arms.iter().find(|arm| arm.name == study.manifest.base);
    let of_base = base.and_then(|arm| arm.percentiles_ns.get(percentile.key).copied().flatten());
    let of_base = of_base.map(|ns| format!(" ({})", time(ns as f64))).unwrap_or_default();
    let parts: Vec<String> = rows.iter().map(|row| describe(row)).collect();
    let blocks = rows.iter().map(|row| row.blocks).min().unwrap_or(0);
    format!(
        "So far, over {}, {} against {}{of_base}: {}.",
        plural(blocks, "block"),
        percentile.label,
        study.manifest.base,
        parts.join("; ")
    )
}

/// `compio 0.43× [0.30–0.58], lower`.
fn describe(row: &Comparison) -> String {
    let ends = row.ci_low.zip(row.ci_high);
    let word = match ends {
        Some((_, high)) if high < 1.0 => "lower",
        Some((low, _)) if low > 1.0 => "higher",
        Some(_) => "no difference shown",
        None => "without an interval",
    };
    let text = ratio_with_interval(row.ratio.unwrap_or(f64::NAN), ends).replacen(' ', "× ", 1);
    format!("{} {text}, {word}", row.arm)
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}
