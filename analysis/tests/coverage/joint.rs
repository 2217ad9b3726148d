//! The whole procedure at once: from the samples of A, A′ and B to a verdict, through the code that judges a study.

use super::generator::SPACING_NS;
use super::scenario::{BLOCKS, SAMPLES, SEED, Scenario};
use super::tally::Share;
use regauge_analysis::decision::{Decision, Tier};
use regauge_analysis::simulate::{Experiment, SimulatedArm};
use regauge_traces::study::Design;

/// One simulated study and what was true.
#[derive(Debug)]
pub struct Study {
    /// What it ended in.
    pub decision: Decision,
    /// The true ratio of the primary percentile.
    pub truth: f64,
    /// Blocks that it ran.
    pub blocks: u64,
    /// Whether it was given up after the first stage, since it would have taken more blocks than it may.
    pub given_up: bool,
}

/// The question of every simulated study; `until` sizes it (Stein's second stage).
pub fn design(until: Option<f64>) -> Design {
    Design { control: Some("control".to_owned()), until, ..Design::default() }
}

/// One study of a scenario: ten blocks, and with [`Design::until`] as many as its first ten say.
pub fn study(scenario: &Scenario, truth: f64, design: &Design, repetition: u64) -> Study {
    let first = run(scenario, design, BLOCKS, repetition).decide().unwrap();
    let of = |decision, blocks, given_up| Study { decision, truth, blocks, given_up };
    match first.sizing.clone() {
        Some(sizing) if design.until.is_some() => {
            if sizing.beyond_max {
                return of(first, BLOCKS, true);
            }
            let all = run(scenario, design, sizing.blocks, repetition);
            of(all.decide_sized(BLOCKS as u32).unwrap(), sizing.blocks, false)
        }
        _ => of(first, BLOCKS, false),
    }
}

fn run(scenario: &Scenario, design: &Design, blocks: u64, repetition: u64) -> Experiment {
    let mut runs = scenario.runs(&[scenario.base, scenario.base, scenario.arm], blocks, repetition).into_iter();
    let mut arm = |name, stack| SimulatedArm::new(name, stack, runs.next().unwrap());
    Experiment {
        design: design.clone(),
        arms: vec![arm("tokio", "tokio-shared"), arm("control", "tokio-shared"), arm("compio", "compio")],
        warmup_ns: 0,
        duration_ns: SAMPLES * SPACING_NS,
        seed: SEED ^ repetition,
    }
}

impl Study {
    /// The verdict claims what is not so: an effect beyond the bar where there is none, or the absence of one that is
    /// there. Of A and B with the same distribution no verdict may say that they differ.
    pub fn is_wrong(&self) -> bool {
        // A planted ratio at the bar itself is none beyond it; the integral may miss it by a rounding.
        let worth = self.decision.question.design.worth_ratio - 1e-6;
        match self.decision.verdict {
            "MIGRATE" | "FIX IN PLACE" => self.truth >= worth,
            "STAY" => self.truth < worth,
            _ => false,
        }
    }

    /// The interval that the study shows lies wholly below 1: the difference was found.
    pub fn is_found(&self) -> bool {
        self.interval().is_some_and(|(_, high)| high < 1.0)
    }

    /// The study shows an interval, and the truth is in it.
    pub fn covers(&self) -> bool {
        self.interval().is_some_and(|(low, high)| low <= self.truth && self.truth <= high)
    }

    /// The interval of B against A, where the study shows one.
    pub fn interval(&self) -> Option<(f64, f64)> {
        let ratio = self.decision.primary.first()?.ratio?;
        ratio.low.zip(ratio.high)
    }

    fn tier(&self) -> Option<Tier> {
        self.decision.primary.first().map(|cell| cell.tier)
    }
}

/// The head of the table that [`row`] fills.
pub const HEAD: &str = "\
| scenario | truth | blocks | MIGRATE | STAY | INSUFFICIENT | wrong | found | covers | A/A not trusted | never steady | moved | unlike runs | refused | given up |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

/// What the studies of a scenario ended in.
pub fn row(scenario: &Scenario, studies: &[Study]) -> String {
    let share = |holds: &dyn Fn(&Study) -> bool| Share::of(studies, holds);
    let verdict = |name: &'static str| share(&move |study| study.decision.verdict == name);
    let shown: Vec<&Study> = studies.iter().filter(|study| study.interval().is_some()).collect();
    let cells = [
        format!("{}: {}", scenario.name, scenario.what),
        format!("{:.3}", studies[0].truth),
        format!("{:.0}", super::tally::median(studies.iter().map(|study| study.blocks as f64))),
        verdict("MIGRATE").to_string(),
        verdict("STAY").to_string(),
        verdict("INSUFFICIENT EVIDENCE").to_string(),
        share(&Study::is_wrong).to_string(),
        share(&Study::is_found).to_string(),
        Share::of(&shown, |study| study.covers()).to_string(),
        share(&|study| study.decision.control.as_ref().is_none_or(|control| !control.trusted)).to_string(),
        share(&|study| !study.decision.steady.not_reached.is_empty()).to_string(),
        share(&|study| !study.decision.steady.moved.is_empty()).to_string(),
        share(&|study| study.tier() == Some(Tier::RunHeterogeneous)).to_string(),
        share(&|study| study.tier() == Some(Tier::Refused)).to_string(),
        share(&|study| study.given_up).to_string(),
    ];
    format!("| {} |", cells.join(" | "))
}
