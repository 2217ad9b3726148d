//! The first page: the decision and what it rests on, in the order in which it is asked.

use super::consequences::{Consequences, shown};
use super::reproduce;
use super::table::{Cell, Row, Table};
use crate::analysis::Analysis;
use crate::decide::words;
use crate::decision::{Attribution, Decision, Estimate, LoadCell, LoadCurves, PrimaryCell, Tier};
use crate::load::Study;
use crate::report::figures::interval_bar::{Bars, axis, bar};
use crate::report::plot::key;
use crate::units::{ratio, round_time, time, time_difference};
use serde::Serialize;

/// The decision in words.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    verdict: &'static str,
    class: &'static str,
    headline: String,
    why: Vec<String>,
    would_change: Vec<String>,
    question: String,
    bar: Vec<(&'static str, String)>,
    registered: String,
    is_registered: bool,
    primary: Option<Table>,
    notes: Vec<String>,
    floor: String,
    is_trusted: bool,
    trade_offs: Vec<String>,
    gaps: Vec<String>,
    attribution: Option<Table>,
    loads: Option<Table>,
    load_notes: Vec<String>,
    against_today: Option<Table>,
    no_alternatives: Vec<String>,
    threats: Vec<String>,
    consequences: Consequences,
    reproduce: Vec<(&'static str, String)>,
}

impl Record {
    /// Puts the decision into words.
    pub fn of(study: &Study, analysis: &Analysis) -> Self {
        let decision = &analysis.decision;
        let question = &decision.question;
        let design = &question.design;
        Record {
            verdict: decision.verdict,
            class: verdict_class(decision.verdict),
            headline: decision.headline.clone(),
            why: decision.why.clone(),
            would_change: decision.would_change.clone(),
            question: format!(
                "Does an arm bring {} below × {} of {}, and by more than {}?",
                words::primary(design),
                ratio(design.worth_ratio),
                analysis.base,
                round_time(design.floor_ms * 1e6)
            ),
            bar: bar_facts(decision),
            registered: registered(decision),
            is_registered: question.registered && !question.peeked,
            primary: cells(
                analysis,
                &decision.primary.iter().collect::<Vec<_>>(),
                "The primary percentile of every arm against the base",
            ),
            notes: decision.primary.iter().map(note).collect(),
            floor: floor(decision),
            is_trusted: decision.control.as_ref().is_some_and(|control| control.trusted),
            trade_offs: decision.trade_offs.clone(),
            gaps: decision
                .attribution
                .iter()
                .filter(|of| is_headline(analysis, of))
                .map(|of| of.finding.clone())
                .collect(),
            attribution: attribution(&decision.attribution),
            loads: decision.loads.as_ref().and_then(loads),
            load_notes: load_notes(decision),
            against_today: cells(
                analysis,
                // What stands against the base itself is in the table above.
                &decision.against_today.iter().filter(|cell| cell.against != analysis.base).collect::<Vec<_>>(),
                "Every arm of another runtime against each arm of today's runtime",
            ),
            no_alternatives: decision.no_alternatives.clone(),
            threats: decision.threats.clone(),
            consequences: Consequences::of(analysis),
            reproduce: reproduce::facts(study, decision),
        }
    }
}

/// What a cell says, and what it would say without the gates.
fn note(cell: &PrimaryCell) -> String {
    let mut text = format!("{}: {}", cell.arm, cell.why);
    if let Some(estimate) = cell.with_flagged {
        text += &format!(" With the flagged blocks it is × {}.", shown(estimate));
    }
    text
}

fn verdict_class(verdict: &str) -> &'static str {
    match verdict {
        "MIGRATE" => "migrate",
        "FIX IN PLACE" => "fix",
        "STAY" => "stay",
        _ => "insufficient",
    }
}

fn bar_facts(decision: &Decision) -> Vec<(&'static str, String)> {
    let design = &decision.question.design;
    let mut facts = vec![
        ("Primary", words::primary(design)),
        ("Worth it below", format!("× {}, beyond {}", ratio(design.worth_ratio), round_time(design.floor_ms * 1e6))),
        ("Equivalent", format!("× {} to {}", ratio(design.equivalent_low), ratio(design.equivalent_high))),
        ("Objective", format!("answered within {}", round_time(design.slo_ms * 1e6))),
        ("Control (A/A)", design.control.clone().unwrap_or_else(|| "none".to_owned())),
    ];
    if let Some(until) = design.until {
        let how = match (&decision.sizing, &decision.sizing_why) {
            (Some(sizing), _) if sizing.beyond_max => {
                format!(": {} blocks, more than the {} allowed", sizing.blocks, design.blocks_max)
            }
            (Some(sizing), _) => format!(": {} blocks", sizing.blocks),
            (None, Some(why)) => format!(": {why}"),
            (None, None) => String::new(),
        };
        facts.push(("Sized for", format!("± {:.0} %{how}", until * 100.0)));
    }
    if let Some(load) = design.load {
        facts.push(("Load", format!("{:.0} % of the base's knee", load * 100.0)));
    }
    facts
}

fn registered(decision: &Decision) -> String {
    let question = &decision.question;
    let hash = if question.hash.is_empty() { String::new() } else { format!(" Hash {}.", question.hash) };
    match (question.registered, question.peeked) {
        (true, false) => format!("Fixed in study.json before the first run.{hash}"),
        (true, true) => format!("Fixed before the first run, but blocks were added after results could be seen.{hash}"),
        (false, _) => {
            "Not fixed before the first run: these are the defaults, and no verdict can rest on them.".to_owned()
        }
    }
}

fn tier_class(tier: Tier) -> &'static str {
    match tier {
        Tier::MigrationEffect | Tier::BetterBelowBar => "lower",
        Tier::Worse => "higher",
        Tier::Refused | Tier::RunHeterogeneous => "refused",
        Tier::Equivalent | Tier::Inconclusive => "",
    }
}

/// Primary cells as a table with a drawn interval, the control last.
fn cells(analysis: &Analysis, cells: &[&PrimaryCell], caption: &'static str) -> Option<Table> {
    if cells.is_empty() {
        return None;
    }
    let decision = &analysis.decision;
    let control = decision.control.as_ref().filter(|_| cells.iter().all(|cell| cell.against == analysis.base));
    let intervals = cells.iter().map(|cell| cell.ratio).chain([control.and_then(|control| control.ratio)]);
    let bars = Bars::of(&decision.question.design, intervals.flatten());
    let series = |arm: &str| analysis.arms.iter().position(|summary| summary.name == arm).unwrap_or(0);
    let is_same_base = cells.iter().all(|cell| cell.against == analysis.base);
    let mut rows: Vec<Row> = cells
        .iter()
        .map(|cell| {
            let delta = cell.delta_ms.map_or_else(|| Cell::of("–"), difference);
            let p = cell.p_holm.or(cell.p);
            let p = p.map(|p| if p < 0.001 { "p < 0.001".to_owned() } else { format!("p {p:.3}") });
            let small = [p, cell.low_confidence.then(|| "low confidence".to_owned())];
            let small: Vec<String> = small.into_iter().flatten().collect();
            let head = match is_same_base {
                true => cell.arm.clone(),
                false => format!("{} ÷ {}", cell.arm, cell.against),
            };
            Row {
                head,
                key: key(series(&cell.arm)),
                class: "",
                cells: vec![
                    cell.ratio.map_or_else(|| Cell::of("–"), |estimate| Cell::of(shown(estimate))),
                    Cell { picture: bar(&bars, cell.ratio, series(&cell.arm)), ..Cell::default() },
                    delta,
                    Cell { more: small.join(", "), ..Cell::classed(cell.tier.label(), tier_class(cell.tier)) },
                ],
            }
        })
        .collect();
    if let Some(control) = control {
        let at = series(&control.arm);
        rows.push(Row {
            head: control.arm.clone(),
            key: key(at),
            class: "control",
            cells: vec![
                control.ratio.map_or_else(|| Cell::of("–"), |estimate| Cell::of(shown(estimate))),
                Cell { picture: bar(&bars, control.ratio, at), ..Cell::default() },
                Cell::of(""),
                Cell::of("the base again (A/A)"),
            ],
        });
    }
    rows.push(Row {
        head: String::new(),
        key: String::new(),
        class: "axis",
        cells: vec![
            Cell::default(),
            Cell { picture: axis(&bars), ..Cell::default() },
            Cell::default(),
            Cell::default(),
        ],
    });
    Some(Table::new(caption, "arm", &["ratio", "95 % interval", "difference", "what it shows"], rows))
}

fn difference(estimate: Estimate) -> Cell {
    let cell = Cell::of(time_difference(estimate.value * 1e6));
    match estimate.low.zip(estimate.high) {
        Some((low, high)) => cell.note(format!("{} to {}", time_difference(low * 1e6), time_difference(high * 1e6))),
        None => cell,
    }
}

fn floor(decision: &Decision) -> String {
    let Some(control) = &decision.control else {
        return "No arm repeats the base, so it is not known which ratio this setup shows between equals.".to_owned();
    };
    let mut text = format!("A/A: {} runs the base's code under another name", control.arm);
    match (control.ratio, control.floor) {
        (Some(estimate), Some(floor)) => {
            text += &format!(" and comes out at × {}: the noise floor is ± {:.0} %.", shown(estimate), floor * 100.0);
        }
        (Some(estimate), None) => text += &format!(" and comes out at × {}.", shown(estimate)),
        (None, _) => text += "; its primary percentile has no number.",
    }
    if control.trusted {
        return text + " The instrument sees no difference where there is none.";
    }
    text += " The instrument is not trusted:";
    control.why.iter().for_each(|why| text += &format!(" {why}"));
    text
}

/// How a lane is called where people read it.
fn lane_name(name: &str) -> String {
    match name {
        "driver_lag" => "driver lag".to_owned(),
        "woken_polled" => "woken→polled".to_owned(),
        "on_cpu" => "on CPU".to_owned(),
        "wal" | "memtable" | "delay" => format!("storage ({name})"),
        "thread_wait" => "storage (other writers)".to_owned(),
        "other_storage" => "storage (other)".to_owned(),
        other => other.to_owned(),
    }
}

/// A gap to the base in whole requests; those to other arms and in single steps stand with the evidence.
fn is_headline(analysis: &Analysis, of: &Attribution) -> bool {
    of.against == analysis.base && of.step != crate::lanes::aggregate::SET_LAST_APPLIED
}

fn attribution(attributions: &[Attribution]) -> Option<Table> {
    const SHOWN: usize = 3;
    let rows = attributions.iter().map(|of| {
        let mut lanes: Vec<&(String, f64)> = of.lanes_ns.iter().collect();
        lanes.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        let largest = lanes.iter().take(SHOWN).filter(|(_, ns)| ns.abs() >= 1.0);
        let largest: Vec<String> =
            largest.map(|(name, ns)| format!("{} {}", lane_name(name), time_difference(-ns))).collect();
        let share = of.runtime_share.map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0));
        let cells = vec![
            Cell::of(time_difference(-of.gap_ns)).note(of.step.clone()),
            Cell::of(share),
            Cell::classed(largest.join(", "), "words"),
        ];
        Row { head: format!("{} − {}", of.arm, of.against), key: String::new(), class: "", cells }
    });
    let rows: Vec<Row> = rows.collect();
    let columns = ["mean of the slowest 1 %", "of it woken→polled", "largest lanes"];
    (!rows.is_empty()).then(|| Table::new("Where the gap between the tails lies", "arm", &columns, rows))
}

fn loads(curves: &LoadCurves) -> Option<Table> {
    let arms: Vec<&str> = curves.loads.first()?.cells.iter().map(|cell| cell.arm.as_str()).collect();
    let cell = |(i, cell): (usize, &LoadCell)| {
        let at = cell.percentile_ns.map(|ns| time(ns as f64));
        match (cell.ratio, at) {
            (_, Some(at)) if i == 0 => Cell::of(at),
            (Some(estimate), at) => Cell::of(format!("×\u{a0}{}", shown(estimate))).note(at.unwrap_or_default()),
            (None, _) => Cell::classed("–", "refused").note(cell.why_none.clone().unwrap_or_default()),
        }
    };
    let mut rows: Vec<Row> = curves
        .loads
        .iter()
        .map(|load| Row {
            head: format!(
                "{:.0} %, {:.0} /s{}",
                load.share * 100.0,
                load.offered_per_s,
                if load.primary { " (primary)" } else { "" }
            ),
            key: String::new(),
            class: "",
            cells: load.cells.iter().enumerate().map(cell).collect(),
        })
        .collect();
    let knee = |arm: &str| {
        let found = curves.knees.iter().find(|(name, ..)| name == arm);
        let Some((_, kept, missed, limited)) = found else { return Cell::of("not sought") };
        let text = match (kept, missed) {
            (Some(kept), Some(missed)) => format!("{kept:.0}–{missed:.0} /s"),
            (Some(kept), None) => format!("≥ {kept:.0} /s"),
            (None, _) => "none".to_owned(),
        };
        Cell::of(text).note(format!("limited by {limited}"))
    };
    rows.push(Row {
        head: "knee".to_owned(),
        key: String::new(),
        class: "",
        cells: arms.iter().map(|arm| knee(arm)).collect(),
    });
    Some(Table::new("The primary ratio against load", "load, share of the base's knee", &arms, rows))
}

fn load_notes(decision: &Decision) -> Vec<String> {
    match &decision.loads {
        Some(curves) => curves.flips.clone(),
        None => vec![
            "The study ran at one load. Whether the ratio holds at another is not known; --load measures it."
                .to_owned(),
        ],
    }
}
