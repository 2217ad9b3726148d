//! What follows from a verdict: what to do, how to confirm it in production, when to ask again.
//!
//! The words are the same for every study with the same verdict; arms and numbers are the study's own. What a migration
//! costs is no measurement, and says so.

use crate::analysis::Analysis;
use crate::decide::words;
use crate::decision::{Decision, Estimate, PrimaryCell};
use crate::units::{ratio, ratio_with_interval, round_time};
use serde::Serialize;

/// What follows, sentence by sentence.
#[derive(Debug, Clone, Serialize)]
pub struct Consequences {
    /// What to do now.
    pub now: Vec<String>,
    /// How to see whether production agrees.
    pub confirm: Vec<String>,
    /// When to ask again.
    pub revisit: Vec<String>,
    /// What a migration costs besides, which no study measures.
    pub cost: Vec<String>,
}

/// The arm that the verdict names, against the base.
pub fn chosen(decision: &Decision) -> Option<&PrimaryCell> {
    let arm = decision.chosen.as_ref()?;
    decision.primary.iter().find(|cell| cell.arm == *arm)
}

/// An estimate with its interval.
pub fn shown(estimate: Estimate) -> String {
    ratio_with_interval(estimate.value, estimate.low.zip(estimate.high))
}

impl Consequences {
    /// Puts them into words.
    pub fn of(analysis: &Analysis) -> Self {
        let decision = &analysis.decision;
        let (primary, base) = (words::primary(&decision.question.design), analysis.base.as_str());
        let chosen = chosen(decision);
        let arm = chosen.map_or("the arm named above", |cell| cell.arm.as_str());
        let mut now = Vec::new();
        match decision.verdict {
            "MIGRATE" => {
                now.push(format!(
                    "Plan the migration to the runtime of {arm}, behind a switch that leads back to {base}."
                ));
                if let Some(best) = decision.best_of_today.as_deref().filter(|best| *best != base) {
                    now.push(format!("Until it is done, run {best}: it is today's best arm and costs a setting."));
                }
            }
            "FIX IN PLACE" => {
                now.push(format!("Change the settings from those of {base} to those of {arm}; the runtime stays."));
                now.push("The settings that differ are marked under “The arms’ settings”.".to_owned());
            }
            "STAY" => now
                .push(format!("Change nothing for the sake of {primary}: no arm gains what was said to be worth it.")),
            _ => now.push("Decide nothing on this study: neither a migration nor that none is needed.".to_owned()),
        }
        let mut consequences = Consequences { now, confirm: Vec::new(), revisit: Vec::new(), cost: Vec::new() };
        consequences.confirmation(decision, &primary, base, chosen);
        consequences.triggers(decision, &primary);
        consequences
    }

    fn confirmation(&mut self, decision: &Decision, primary: &str, base: &str, chosen: Option<&PrimaryCell>) {
        let design = &decision.question.design;
        if let Some((cell, estimate)) = chosen.and_then(|cell| Some((cell, cell.ratio?))) {
            self.confirm.push(format!(
                "Run {} beside {base} on a share of production's connections, chosen by hash; the metric is {primary}, \
                 counted from arrival. This study predicts × {}; above × {} go back.",
                cell.arm,
                shown(estimate),
                ratio(design.worth_ratio),
            ));
        } else if decision.verdict == "STAY" {
            self.confirm.push(format!(
                "Watch {primary} and the share of requests over {} in production; they should stay where they are.",
                round_time(design.slo_ms * 1e6)
            ));
        } else {
            self.confirm.push("There is nothing to confirm yet.".to_owned());
        }
    }

    fn triggers(&mut self, decision: &Decision, primary: &str) {
        let mut say = |text: String| self.revisit.push(text);
        say("The runtime, openraft, RocksDB or the kernel changes its version.".to_owned());
        say("The workload leaves the trace: another rate, mix of requests or packet size. Record again.".to_owned());
        say(format!("{primary} in production moves by more than the region of equivalence."));
        let cost = match decision.verdict {
            "MIGRATE" => &[
                "RocksDB blocks its thread under any runtime; gRPC, HTTP/2 and openraft need adapters on another one.",
                "io_uring may be forbidden where containers run (seccomp, RLIMIT_MEMLOCK); check it before the first commit.",
                "State that lives across awaits on one thread is a new class of defects; plan for months with both stacks.",
            ][..],
            _ => &[],
        };
        self.cost.extend(cost.iter().map(|&text| text.to_owned()));
    }
}
