//! Decisions with known content, one per verdict, for looking at what report and terminal make of them. Numbers are made
//! up: these tests are about words and pictures, never about statistics.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use regauge_analysis::analysis::Analysis;
use regauge_analysis::decision::{
    Attribution, BlockCount, Control, Decision, Estimate, LoadCell, LoadCurves, LoadRow, PrimaryCell, Question, Sizing,
    SteadyState, Step, Tier,
};
use regauge_analysis::tails::Refusal;
use regauge_traces::study::Design;

pub const VERDICTS: [&str; 4] = ["MIGRATE", "FIX IN PLACE", "STAY", "INSUFFICIENT EVIDENCE"];

fn estimate(value: f64, low: f64, high: f64) -> Option<Estimate> {
    Some(Estimate { value, low: Some(low), high: Some(high) })
}

fn cell(arm: &str, against: &str, tier: Tier, (value, low, high): (f64, f64, f64)) -> PrimaryCell {
    let blocks = 12;
    PrimaryCell {
        arm: arm.into(),
        against: against.into(),
        tier,
        blocks,
        ratio: estimate(value, low, high),
        delta_ms: estimate(6.0 * (value - 1.0), 6.0 * (low - 1.0), 6.0 * (high - 1.0)),
        slo_ratio: estimate(value * 0.8, low * 0.6, high * 1.1),
        slo_why: None,
        paired: estimate(value * 1.02, low * 0.97, high * 1.05),
        p: Some(0.0004),
        p_holm: Some(0.0012),
        p_bar: Some(0.006),
        p_bar_holm: (tier == Tier::MigrationEffect).then_some(0.012),
        refused: None,
        low_confidence: false,
        excludes_worth: low >= 0.8,
        largest_block_share: Some(0.14),
        blocks_needed: (tier == Tier::Inconclusive).then_some(31),
        why: format!("{arm} against {against}: {}, from {blocks} complete blocks.", tier.label()),
        with_flagged: estimate(value * 1.01, low * 0.95, high * 1.08),
    }
}

/// A rich decision about the arms of `analysis`: the second is of today's runtime, the last two of others.
pub fn decision(analysis: &Analysis, verdict: &'static str) -> Decision {
    let arms: Vec<&str> = analysis.arms.iter().map(|arm| arm.name.as_str()).collect();
    let (base, today, first, second) = (arms[0], arms[1], arms[2], arms[3]);
    let far = (0.38, 0.29, 0.50);
    let near = (1.02, 0.95, 1.09);
    let ratios = match verdict {
        "MIGRATE" => [
            (Tier::BetterBelowBar, (0.88, 0.79, 0.97)),
            (Tier::MigrationEffect, far),
            (Tier::MigrationEffect, (0.52, 0.41, 0.66)),
        ],
        "FIX IN PLACE" => {
            [(Tier::MigrationEffect, far), (Tier::Inconclusive, (0.61, 0.35, 1.06)), (Tier::Worse, (1.42, 1.21, 1.66))]
        }
        "STAY" => [(Tier::Equivalent, near), (Tier::Equivalent, (0.99, 0.93, 1.06)), (Tier::Worse, (1.42, 1.21, 1.66))],
        _ => [(Tier::Inconclusive, (0.8, 0.45, 1.42)), (Tier::RunHeterogeneous, (0.7, 0.3, 1.6)), (Tier::Refused, far)],
    };
    let names = [today, first, second];
    let mut primary: Vec<PrimaryCell> =
        names.iter().zip(ratios).map(|(arm, (tier, ratio))| cell(arm, base, tier, ratio)).collect();
    if let Some(last) = primary.last_mut().filter(|cell| cell.tier == Tier::Refused) {
        last.refused =
            Some(Refusal { episodes: 11.0, exceedances: 60, samples: 60_000, needed: 273_000, driver_owned: false });
        (last.ratio, last.delta_ms, last.slo_ratio, last.p, last.p_holm) = (None, None, None, None, None);
    }
    let is_settled = verdict != "INSUFFICIENT EVIDENCE";
    let headline = match verdict {
        "MIGRATE" => format!(
            "{first} brings P99.9 of all requests to × 0.38 [0.29–0.50] of {base}, −3.72 ms, and beats {today}."
        ),
        "FIX IN PLACE" => {
            format!("{today} brings P99.9 of all requests to × 0.38 [0.29–0.50] of {base}; no other runtime beats it.")
        }
        "STAY" => format!("No arm brings P99.9 of all requests below × 0.80 of {base}; every interval excludes it."),
        _ => format!("Whether an arm brings P99.9 below × 0.80 of {base} cannot be told from these blocks."),
    };
    Decision {
        question: Question {
            design: Design {
                control: Some(format!("{base}-again")),
                until: Some(0.2),
                load: Some(0.75),
                ..Design::default()
            },
            registered: is_settled,
            peeked: false,
            hash: "9f3c01d24be7".into(),
        },
        blocks: BlockCount {
            wanted: 12,
            complete: 12,
            flagged: 2,
            unfinished: 0,
            failed_gates: vec![("steal".into(), 2), ("driver_lag_p99".into(), 1)],
        },
        steady: SteadyState {
            cut_ns: 400_000_000,
            planned_ns: 400_000_000,
            mser_ns: Some(350_000_000),
            not_reached: vec![],
            moved: vec![Step { block: 3, arm: first.into(), at_ns: 1_500_000_000, change: 0.12, p: 0.005 }],
            untested: None,
        },
        control: Some(Control {
            arm: format!("{base}-again"),
            ratio: if is_settled { estimate(1.01, 0.93, 1.10) } else { estimate(1.31, 1.06, 1.61) },
            floor: Some(if is_settled { 0.09 } else { 0.24 }),
            smallest_p: Some(if is_settled { 0.41 } else { 0.02 }),
            trusted: is_settled,
            why: if is_settled { vec![] } else { vec!["Its interval excludes 1 [1.06–1.61].".into()] },
        }),
        against_today: [first, second]
            .iter()
            .flat_map(|arm| [base, today].map(|against| cell(arm, against, Tier::BetterBelowBar, (0.71, 0.55, 0.92))))
            .collect(),
        primary,
        best_of_today: Some(today.into()),
        no_alternatives: vec![
            "fast-and-loose promises less than the base: durability none instead of fdatasync.".into(),
        ],
        sizing: Some(Sizing {
            first_stage: 10,
            sd: 0.26,
            arm: first.into(),
            against: base.into(),
            wanted: 0.2,
            blocks: 12,
            beyond_max: false,
        }),
        sizing_why: None,
        attribution: names
            .iter()
            .map(|arm| Attribution {
                arm: (*arm).into(),
                against: base.into(),
                gap_ns: 4_100_000.0,
                step: "publish".into(),
                lanes_ns: vec![
                    ("queued".into(), 2_600_000.0),
                    ("woken_polled".into(), 400_000.0),
                    ("wal".into(), 1_200_000.0),
                    ("on_cpu".into(), -100_000.0),
                ],
                runtime_share: Some(0.1),
                finding: "Under 20 % of the gap is woken→polled: the runtime's queue is not the cause.".into(),
            })
            .collect(),
        loads: Some(loads(&arms)),
        trade_offs: vec![format!("{second}: the median falls (× 0.82) while P99.9 rises (× 1.42).")],
        chosen: match verdict {
            "MIGRATE" => Some(first.into()),
            "FIX IN PLACE" => Some(today.into()),
            _ => None,
        },
        verdict,
        headline,
        why: vec![
            "12 complete blocks; the A/A control stays within ± 9 %.".into(),
            "The paired t-test agrees with the jackknife in every arm.".into(),
            "Two flagged blocks were run again; with them the ratios move by less than 2 %.".into(),
            "Holm-adjusted over two candidate runtimes.".into(),
            "No percentile that the decision rests on is refused.".into(),
        ],
        would_change: vec![
            "A bar above × 0.97 instead of × 0.80.".into(),
            "About 31 complete blocks would tell the inconclusive arm.".into(),
        ],
        threats: vec![
            "The trace is synthetic: it is as representative as its profile.".into(),
            "Driver and server share their CPUs.".into(),
            "P99.99 is refused for every arm.".into(),
        ],
    }
}

fn loads(arms: &[&str]) -> LoadCurves {
    let row = |share: f64| LoadRow {
        share,
        offered_per_s: 8_000.0 * share,
        blocks: 12,
        primary: share == 0.75,
        cells: arms
            .iter()
            .enumerate()
            .map(|(i, arm)| {
                let value = (1.3 - share * 0.9).max(0.3) * (1.0 + 0.1 * i as f64);
                LoadCell {
                    arm: (*arm).into(),
                    percentile_ns: Some((2e6 * (1.0 + 8.0 * share.powi(4)) * if i == 0 { 1.0 } else { value }) as u64),
                    ratio: if i == 0 { None } else { estimate(value, value * 0.85, value * 1.18) },
                    why_none: None,
                    p: (i > 0).then_some(0.01),
                    p_holm: (i > 0).then_some(0.04),
                    decided: i > 0,
                }
            })
            .collect(),
    };
    LoadCurves {
        knees: arms.iter().map(|arm| ((*arm).to_owned(), Some(8_000.0), Some(8_400.0), "server".to_owned())).collect(),
        loads: [0.25, 0.5, 0.75, 0.9].map(row).to_vec(),
        flips: vec![format!("{}: slower than the base at 25 % and faster from about 45 % of its knee.", arms[2])],
    }
}
