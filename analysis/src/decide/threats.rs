//! Threats to validity, as far as the data show them: what a reader must weigh and no procedure removes.

use super::words::{list, sentence};
use super::{Frame, primary::Primary};
use crate::analysis::ArmSummary;
use crate::counts::PERCENTILES;
use crate::decision::SteadyState;
use crate::load::Study;
use crate::units::plural;
use std::collections::BTreeMap;

/// One sentence each, those of this study first.
pub fn threats(
    study: &Study,
    frame: &Frame<'_>,
    steady: &SteadyState,
    primary: &Primary<'_>,
    arms: &[ArmSummary],
) -> Vec<String> {
    let manifest = &study.manifest;
    let mut found: Vec<String> =
        manifest.layout.limits.iter().map(|limit| format!("This host: {}", sentence(limit))).collect();
    if manifest.trace_source.to_lowercase().contains("synth") {
        found.push(format!(
            "The trace is not of production ({}), so the workload is as real as its profile.",
            manifest.trace_source.trim_end_matches('.')
        ));
    }
    found.extend(flagged(study, frame));
    found.extend(frame.roles.faulty.iter().map(|(_, why)| why.clone()));
    found.extend(moved(steady));
    if steady.cut_ns > steady.planned_ns {
        found.push(format!(
            "Warm-up lasted longer than planned: the first {:.1} s of every run are left out instead of {:.1} s; lanes are \
             those after the planned warm-up.",
            steady.cut_ns as f64 / 1e9,
            steady.planned_ns as f64 / 1e9
        ));
    }
    found.extend(refused(arms));
    if manifest.stamps {
        found.push(
            "Servers stamped what they did during the runs; what the stamps cost is in the latencies.".to_owned(),
        );
    }
    if study.runs.iter().any(|run| run.errors > 0 && run.valid) {
        let errors: u64 = study.runs.iter().filter(|run| run.valid).map(|run| run.errors).sum();
        found.push(format!("{} ended in an error and have no latency.", plural(errors, "request")));
    }
    if frame.roles.today.is_empty() && frame.arms() > 1 {
        found.push("No cheaper arm of today's runtime is in the study, so FIX IN PLACE could not come out.".to_owned());
    }
    if primary.blocks() > 0 {
        found.push(format!(
            "Bad runs that come more rarely than once in {} were probably not seen, and are in no interval.",
            plural(primary.blocks() as u64, "block")
        ));
    }
    found.push(
        "The broker is a model of a broker on one host: what another one spends elsewhere is not in its tail."
            .to_owned(),
    );
    found
}

fn flagged(study: &Study, frame: &Frame<'_>) -> Option<String> {
    let count = frame.count(study);
    let by_arm = |gate: &str| {
        let failed = |arm: &str| {
            let gates = study.runs_of(arm).flat_map(|run| &run.gates);
            gates.filter(|other| !other.passed && other.name == gate).count()
        };
        let arms = study.manifest.arms.iter().map(|arm| (arm.name.as_str(), failed(&arm.name)));
        let arms: Vec<String> = arms.filter(|(_, n)| *n > 0).map(|(arm, n)| format!("{arm} {n}×")).collect();
        arms.join(", ")
    };
    let gates: Vec<String> =
        count.failed_gates.iter().map(|(name, n)| format!("{name} {n}×: {}", by_arm(name))).collect();
    (count.flagged > 0).then(|| {
        format!(
            "{} failed a gate ({}) and {} in no figure of the decision; `with_flagged` says what they would change.",
            plural(count.flagged, "block"),
            gates.join("; "),
            if count.flagged == 1 { "is" } else { "are" }
        )
    })
}

fn moved(steady: &SteadyState) -> Option<String> {
    let first = steady.moved.first()?;
    let how = format!(
        "{:+.0} % at {:.0} s in block {} of {}",
        first.change * 100.0,
        first.at_ns as f64 / 1e9,
        first.block,
        first.arm
    );
    Some(match steady.moved.len() {
        1 => format!("The level of one run moved after the warm-up ({how})."),
        n => format!("The level of {n} runs moved after the warm-up (the first: {how})."),
    })
}

/// Percentiles of all requests that have no number.
fn refused(arms: &[ArmSummary]) -> Vec<String> {
    let mut by_percentile: BTreeMap<u64, (&str, Vec<&str>)> = BTreeMap::new();
    for percentile in PERCENTILES {
        for arm in arms.iter().filter(|arm| arm.refused.contains_key(percentile.key)) {
            by_percentile.entry(percentile.ppm).or_insert((percentile.label, Vec::new())).1.push(&arm.name);
        }
    }
    let sentence = |(label, names): (&str, Vec<&str>)| {
        let who = if names.len() == arms.len() { "every arm".to_owned() } else { list(&names) };
        format!("{label} is refused for {who}, so nothing is known of what lies beyond.")
    };
    by_percentile.into_values().map(sentence).collect()
}
