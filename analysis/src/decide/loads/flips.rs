//! Where the sign of an arm's ratio flips between two loads.

use crate::decide::words;
use crate::decision::{Estimate, LoadCell, LoadRow};

/// A sign is told at this p-value or below, after Holm.
const P_SIGN_MOST: f64 = 0.05;

/// Where an arm's ratio crosses 1, in one sentence; or that it does not, or cannot be told.
pub fn flip(arm: &str, base: &str, rows: &[LoadRow]) -> String {
    let cell = |row: &LoadRow| row.cells.iter().find(|cell| cell.arm == arm).cloned();
    let sign_at = |row: &LoadRow| cell(row).map_or(0, |cell| sign(&cell));
    let signed: Vec<(f64, Estimate, i32)> = rows
        .iter()
        .filter(|row| sign_at(row) != 0)
        .filter_map(|row| Some((row.share, cell(row)?.ratio?, sign_at(row))))
        .collect();
    let open: Vec<String> = rows.iter().filter(|row| sign_at(row) == 0).map(|row| percent(row.share)).collect();
    let open = match open.is_empty() {
        true => String::new(),
        false => {
            let loads: Vec<&str> = open.iter().map(String::as_str).collect();
            format!("; at {} the sign cannot be told", words::list(&loads))
        }
    };
    let flips: Vec<String> = signed.windows(2).filter_map(crossing).collect();
    let word = |sign: i32| if sign < 0 { "lower" } else { "higher" };
    match (signed.first(), flips.is_empty()) {
        (None, _) => {
            format!("{arm}: at no load is the ratio to {base} shown to differ from 1, so no sign can be told.")
        }
        (Some((share, _, sign)), true) if signed.len() == 1 => {
            format!("{arm} is {} than {base} at {} of the knee{open}.", word(*sign), percent(*share))
        }
        (Some((_, _, sign)), true) => {
            let shares: Vec<String> = signed.iter().map(|(share, _, _)| percent(*share)).collect();
            let shares: Vec<&str> = shares.iter().map(String::as_str).collect();
            format!("{arm} is {} than {base} at {} of the knee{open}.", word(*sign), words::list(&shares))
        }
        (Some((_, _, sign)), false) => {
            format!("{arm} begins {} than {base} and {}{open}.", word(*sign), flips.join(", then "))
        }
    }
}

/// The load between two decided ones of opposite signs at which the log of the ratio, taken as linear, is 0.
fn crossing(pair: &[(f64, Estimate, i32)]) -> Option<String> {
    let [(from, first, before), (to, second, after)] = pair else { return None };
    if before == after {
        return None;
    }
    let (a, b) = (first.value.ln(), second.value.ln());
    let share = from + (to - from) * a / (a - b);
    Some(format!("flips near {} of the knee (between {} and {})", percent(share), percent(*from), percent(*to)))
}

/// −1 or 1 where the cell is shown to lie below or above 1, else 0.
fn sign(cell: &LoadCell) -> i32 {
    let is_shown = cell.decided && cell.p_holm.is_some_and(|p| p <= P_SIGN_MOST);
    match cell.ratio.filter(|_| is_shown) {
        Some(ratio) if ratio.value < 1.0 => -1,
        Some(ratio) if ratio.value > 1.0 => 1,
        _ => 0,
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (share, ratio, adjusted p-value, whether the cell decides anything).
    fn rows(cells: &[(f64, f64, f64, bool)]) -> Vec<LoadRow> {
        let row = |&(share, value, p, decided): &(f64, f64, f64, bool)| LoadRow {
            share,
            offered_per_s: 1.0,
            blocks: 10,
            primary: false,
            cells: vec![LoadCell {
                arm: "b".into(),
                percentile_ns: None,
                ratio: Some(Estimate { value, low: None, high: None }),
                why_none: None,
                p: Some(p),
                p_holm: Some(p),
                decided,
            }],
        };
        cells.iter().map(row).collect()
    }

    #[test]
    fn a_flip_takes_two_decided_loads() {
        // ln 1/2 at 25 % and ln 2 at 75 %: 0 in the middle, whatever the undecided load between them says.
        let (low, high) = ((0.25, 0.5, 0.01, true), (0.75, 2.0, 0.01, true));
        for between in [(0.5, 1.5, 0.2, true), (0.5, 0.4, 0.001, false)] {
            let text = flip("b", "a", &rows(&[low, between, high]));
            assert_eq!(
                text,
                "b begins lower than a and flips near 50 % of the knee (between 25 % and 75 %); at 50 % the sign cannot be \
                 told."
            );
        }
        let text = flip("b", "a", &rows(&[low, (0.5, 1.5, 0.2, true)]));
        assert_eq!(text, "b is lower than a at 25 % of the knee; at 50 % the sign cannot be told.");
        let text = flip("b", "a", &rows(&[low, (0.5, 0.7, 0.05, true)]));
        assert_eq!(text, "b is lower than a at 25 % and 50 % of the knee.");
        let text = flip("b", "a", &rows(&[(0.5, 1.5, 0.051, true), (0.75, 0.3, 0.0, false)]));
        assert!(text.ends_with("so no sign can be told."), "{text}");
    }
}
