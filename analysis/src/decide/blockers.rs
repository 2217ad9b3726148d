//! What forbids a verdict, whatever the figures: each with what would remove it.

use super::Frame;
use super::primary::Primary;
use super::verdict::BLOCKS_MIN;
use crate::counts::PERCENTILES;
use crate::decision::{Control, Sizing, SteadyState};
use crate::episodes::EPISODES_FINE;
use crate::units::{plural, rough_count};

/// One reason, and its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// One sentence.
    pub why: String,
    /// One sentence.
    pub change: String,
}

fn blocker(why: impl Into<String>, change: impl Into<String>) -> Blocker {
    Blocker { why: why.into(), change: change.into() }
}

/// All that forbids a verdict, the weightiest first.
pub fn blockers(
    frame: &Frame<'_>,
    primary: &Primary<'_>,
    control: Option<&Control>,
    steady: &SteadyState,
    sizing: Option<&Sizing>,
) -> Vec<Blocker> {
    let mut found = Vec::new();
    if frame.arms() < 2 {
        found.push(blocker(
            "The study has one arm, so there is nothing to compare it with.",
            "A study with further arms: of another runtime, and cheaper ones of today's.",
        ));
        return found;
    }
    if !frame.registered {
        found.push(blocker(
            "No primary percentile, bar and region of equivalence were fixed before the runs, so any difference below was \
             found by looking.",
            "A new study that fixes its question beforehand.",
        ));
    }
    found.extend(of_question(frame));
    if frame.peeked {
        found.push(blocker(
            "Blocks were added after ratios could be seen (from two blocks on), and not by the sizing rule: to stop when a \
             result pleases makes chance findings several times likelier.",
            "A new study with all its blocks asked for at once, or sized with `--until`.",
        ));
    }
    let complete = primary.blocks() as u64;
    if complete < BLOCKS_MIN {
        found.push(blocker(
            format!(
                "{} in which every arm's run is valid, where {BLOCKS_MIN} are the minimum: {}.",
                plural(complete, "complete block"),
                match complete {
                    0 => "no two arms can be compared",
                    1 => "no interval can be given",
                    _ => "intervals were not shown to cover at this size",
                }
            ),
            format!("{} more.", plural(BLOCKS_MIN - complete, "complete block")),
        ));
    } else if complete < frame.wanted {
        found.push(blocker(
            format!(
                "{complete} of the {} complete blocks fixed beforehand are there: to decide now is to stop at a look.",
                frame.wanted
            ),
            "The same command again: it runs the others (with a larger --reruns where flagged blocks used them up).",
        ));
    }
    found.extend(of_stages(frame, primary, sizing));
    found.extend(of_control(frame, control));
    found.extend(of_steady_state(steady));
    if complete > 0 {
        found.extend(of_base(primary));
    }
    if frame.roles.others.is_empty() && frame.roles.today.is_empty() {
        found.push(blocker(
            "No arm is an alternative to the base: each promises clients less, or there is none beside the control.",
            "An arm that promises clients at least what the base does.",
        ));
    }
    found
}

/// Runs that were made for another question.
fn of_question(frame: &Frame<'_>) -> Option<Blocker> {
    let (first, more) = frame.other_question.split_first()?;
    let others = match more.len() {
        0 => String::new(),
        n => format!(" and {}", plural(n as u64, "other run")),
    };
    Some(blocker(
        format!(
            "study.json asks another question than {first}{others} had been made for: it was changed after the runs."
        ),
        "The study.json of before the change, or a new study.",
    ))
}

/// What is wrong with the stages of a study that is sized by precision.
fn of_stages(frame: &Frame<'_>, primary: &Primary<'_>, sizing: Option<&Sizing>) -> Option<Blocker> {
    let until = frame.design.until?;
    if !frame.sized {
        let (why, change) = match sizing.filter(|sizing| sizing.beyond_max) {
            Some(sizing) => (
                format!("takes {}, more than --max-blocks allows", plural(sizing.blocks, "complete block")),
                "A larger --max-blocks with the same command, or a new study of less precision.",
            ),
            None => (
                "was not reached: the second stage was not run".to_owned(),
                "The same command again: it sizes the study and runs its second stage.",
            ),
        };
        return Some(blocker(
            format!("The precision fixed beforehand, ± {} %, {why}.", rounded_percent(until)),
            change,
        ));
    }
    let first = primary.first_stage_asked();
    (first < BLOCKS_MIN || !frame.first_complete).then(|| {
        blocker(
            format!(
                "The second stage was sized before {} complete blocks of a first one were there, so the spread that sized \
                 it, and that all intervals keep, is not the one the rule takes.",
                first.max(BLOCKS_MIN)
            ),
            "A new study whose first stage is complete before it is sized.",
        )
    })
}

/// A share as a percentage without digits that say nothing.
fn rounded_percent(share: f64) -> f64 {
    (share * 1e4).round() / 100.0
}

fn of_control(frame: &Frame<'_>, control: Option<&Control>) -> Option<Blocker> {
    let Some(control) = control else {
        let why = match &frame.design.control {
            Some(name) => format!("The control arm `{name}` is none of the study's arms."),
            None => {
                "No control arm repeats the base (A/A), so it is not known which ratio this setup shows between equals."
                    .to_owned()
            }
        };
        return Some(blocker(why, "A study with a control arm."));
    };
    (!control.trusted).then(|| {
        blocker(
            format!("The instrument is not trusted. {}", control.why.join(" ")),
            "A quieter host, longer runs or more blocks, until the same code under two names shows no difference.",
        )
    })
}

fn of_steady_state(steady: &SteadyState) -> Option<Blocker> {
    if let Some(untested) = &steady.untested {
        return Some(blocker(untested.clone(), "Runs of at least ten seconds with replies throughout."));
    }
    let (first, more) = steady.not_reached.split_first()?;
    let others = match more.len() {
        0 => String::new(),
        n => format!(" and {}", plural(n as u64, "other run")),
    };
    Some(blocker(
        format!("No steady state: {first}{others} had not settled by the middle of the run."),
        "Longer runs, or a trace whose load does not change over time.",
    ))
}

/// The base's own percentile: all comparisons rest on it.
fn of_base(primary: &Primary<'_>) -> Option<Blocker> {
    let (label, base) = (primary.label(), primary.name(0));
    let Some((percentile, support)) = primary.percentile.zip(primary.support(0)) else {
        let keys = PERCENTILES.map(|percentile| percentile.key).join(", ");
        let why = match primary.percentile {
            Some(_) => format!("{label} of {base} cannot be computed: it has no reply in the complete blocks."),
            None => format!("`{}` is no percentile of the analysis ({keys}).", primary.design.primary_percentile),
        };
        return Some(blocker(why, "A study whose question names a step with replies and a percentile of the tables."));
    };
    if support.driver_owned {
        return Some(blocker(
            format!("{label} of {base} may be the driver's own lateness."),
            "A driver that is on time: a CPU of its own, or a lower load.",
        ));
    }
    if support.episodes < EPISODES_FINE {
        let needed = rough_count(support.samples_needed(percentile.ppm));
        return Some(blocker(
            format!(
                "{:.0} independent episodes stand behind {label} of {base}, and a verdict takes {EPISODES_FINE:.0}.",
                support.episodes.floor()
            ),
            format!("About {needed} samples per arm instead of {}.", rough_count(support.samples)),
        ));
    }
    (support.largest_block_share > 0.5).then(|| {
        blocker(
            format!(
                "One block holds {:.0} % of what lies beyond {label} of {base}: its tail is that block.",
                support.largest_block_share * 100.0
            ),
            "More blocks, on a host where such a block is either normal or absent.",
        )
    })
}
