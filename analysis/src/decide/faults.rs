//! Runs that an arm spoiled itself: gates that a server answers for, by arm.
//!
//! Gates of the driver and the host are blind to the arm and to the tail: what they refuse, they refuse of every arm alike.
//! A reply that is wrong or lost, a connection that failed, a state that differs are the arm's own doing, and likely in
//! the very moments in which it is slow. Running such a block again leaves out just the arm's worst runs, so an arm with
//! more of them than the base may not win by the figures of the others.

use super::words;
use crate::load::Study;
use crate::units::plural;
use regauge_traces::study::{Gate, RunRecord};
use std::collections::BTreeSet;

/// Gates of which the arm's server is the cause.
const OF_THE_SERVER: [&str; 7] =
    ["connections", "replies", "protocol", "errors", "state_digest", "replies_digest", "digest"];

/// Arms that failed such gates in more blocks than the base, and a sentence each.
pub fn faulty(study: &Study, names: &[&str]) -> Vec<(String, String)> {
    let Some((base, others)) = names.split_first() else { return Vec::new() };
    let of_base = blocks(study, base).len();
    let more = others.iter().filter_map(|arm| Some((arm, blocks(study, arm))).filter(|(_, own)| own.len() > of_base));
    let sentence = |arm: &str, own: &BTreeSet<u32>| {
        let failed = study.runs_of(arm).flat_map(of_server).map(|gate| gate.name.as_str());
        let gates: BTreeSet<&str> = failed.collect();
        let gates: Vec<&str> = gates.into_iter().collect();
        format!(
            "{arm} failed {} in {}, {base} in {of_base}; a rerun leaves out just its worst runs.",
            words::list(&gates),
            plural(own.len() as u64, "block")
        )
    };
    more.map(|(arm, own)| ((*arm).to_owned(), sentence(arm, &own))).collect()
}

/// Blocks that an arm's own run spoiled.
fn blocks(study: &Study, arm: &str) -> BTreeSet<u32> {
    study.runs_of(arm).filter(|run| of_server(run).next().is_some()).map(|run| run.block).collect()
}

/// The failed gates of a run that its server answers for.
fn of_server(run: &RunRecord) -> impl Iterator<Item = &Gate> {
    // A run that did not come to its end says who ended it.
    let is_own = |gate: &&Gate| {
        OF_THE_SERVER.contains(&gate.name.as_str())
            || gate.name == "completed" && gate.measured.starts_with("the server")
    };
    run.gates.iter().filter(|gate| !gate.passed).filter(is_own)
}
