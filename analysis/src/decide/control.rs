//! The A/A gate: the same code under two names must not differ, or the instrument is not trusted.

use super::primary::Primary;
use super::words::ratio_of;
use crate::decision::Control;

/// The largest p-value over all cells at which the control counts as different.
pub const P_LEAST: f64 = 0.05;

/// Judges the control arm (`arm` in the primary's numbering). `smallest_p` is over all its cells, adjusted by maxT.
pub fn judge(primary: &Primary<'_>, arm: usize, smallest_p: Option<f64>) -> Control {
    let cell = primary.cell(arm, 0);
    let bar = primary.design.worth_ratio;
    let mut why = Vec::new();
    let ends = cell.ratio.and_then(|ratio| ratio.low.zip(ratio.high));
    match (&cell.ratio, ends) {
        (Some(ratio), Some((low, high))) => {
            if low > 1.0 || high < 1.0 {
                why.push(format!("The same code differs from itself: {} is {}.", primary.label(), ratio_of(ratio)));
            }
            if low <= bar || high >= 1.0 / bar {
                why.push(format!(
                    "The noise floor is as wide as an effect worth a migration: {} of the same code is {}, and the margin \
                     is {:.2}–{:.2}.",
                    primary.label(),
                    ratio_of(ratio),
                    bar,
                    1.0 / bar
                ));
            }
        }
        _ => why.push(format!("The control has no interval of the primary percentile: {}", cell.why)),
    }
    match smallest_p {
        Some(p) if p <= P_LEAST => why.push(format!(
            "In at least one step and percentile the same code differs from itself beyond chance (p = {p:.3} after \
             adjustment for all of them)."
        )),
        Some(_) => {}
        None => why.push("No step and percentile of the control can be tested.".to_owned()),
    }
    Control {
        arm: cell.arm,
        ratio: cell.ratio,
        floor: ends.map(|(low, high)| ((high.ln() - low.ln()) / 2.0).exp() - 1.0),
        smallest_p,
        trusted: why.is_empty(),
        why,
    }
}
