//! Gates over all arms of a block: did every stack answer the same and end in the same state?
//!
//! Two arms that disagree show that one of them is wrong, not which. The rule says only what is known:
//! a value that more than half of at least three sound arms share is taken as right, and who differs is wrong, the base
//! included. Without such a majority the base's value is the measure: who differs from it is marked, with both values,
//! and the sentence says that either may be wrong. Where arms differ and no base can be asked, every arm is marked.
//! Arms are *sound* when every request got its right reply and the gates that bear on the state passed; that a driver
//! was late or a CPU stolen changes latencies, not states. A run with tolerated errors has another state for that
//! reason, so it is neither asked nor compared. Nor is the only sound arm of a block: there is nobody to compare it with.

use super::gate;
use regauge_traces::study::{Gate, RunRecord};
use serde_json::Value;

/// Names of the gates of this module; they are replaced when a block is judged again.
const NAMES: [&str; 2] = ["state_digest", "replies_digest"];
/// Gates whose failure can change the state that a run ends in.
const STATE_GATES: [&str; 8] =
    ["completed", "driver_record", "plan", "connections", "replies", "protocol", "errors", "attestation"];
/// So many sound arms it takes for a majority to mean something.
const VOTERS_MIN: usize = 3;

/// Judges the runs of one block and brings their gates, validity and reasons up to date. Judging twice changes nothing.
/// `control` is the arm that repeats the base, if there is one: it is judged as any other and has no vote, since the same
/// code twice is one opinion.
pub fn judge(runs: &mut [RunRecord], base: &str, control: Option<&str>) {
    for run in runs.iter_mut() {
        run.gates.retain(|g| !NAMES.contains(&g.name.as_str()));
    }
    let bears = |gate: &&Gate| STATE_GATES.contains(&gate.name.as_str());
    let sound = |run: &RunRecord| run.errors == 0 && run.gates.iter().filter(bears).all(|g| g.passed);
    let voter = |run: &RunRecord| sound(run) && control != Some(run.arm.as_str());
    let sound: Vec<bool> = runs.iter().map(voter).collect();
    let state = |run: &RunRecord| run.server.get("digest").filter(|d| d.is_object()).map(canonical);
    let replies = |run: &RunRecord| run.driver.get("replies_digest").and_then(Value::as_str).map(str::to_owned);
    let [state_name, replies_name] = NAMES;
    let mut gates = compare(state_name, runs, &sound, base, state);
    for (mine, more) in gates.iter_mut().zip(compare(replies_name, runs, &sound, base, replies)) {
        mine.extend(more);
    }
    for (run, gates) in runs.iter_mut().zip(gates) {
        // A run that never came to an end has nothing to compare; its own gates say why.
        run.gates.extend(gates);
        run.valid = !run.gates.is_empty() && run.gates.iter().all(|g| g.passed);
        run.why_invalid = super::sentences(&run.gates);
    }
}

fn compare(
    name: &str,
    runs: &[RunRecord],
    sound: &[bool],
    base: &str,
    value: impl Fn(&RunRecord) -> Option<String>,
) -> Vec<Vec<Gate>> {
    let values: Vec<Option<String>> = runs.iter().map(value).collect();
    let voters: Vec<(&RunRecord, &String)> = runs
        .iter()
        .zip(&values)
        .zip(sound)
        .filter_map(|((run, value), sound)| Some((run, value.as_ref().filter(|_| *sound)?)))
        .collect();
    let votes = |v: &String| voters.iter().filter(|(_, other)| *other == v).count();
    let majority = voters.iter().map(|(_, v)| *v).find(|v| voters.len() >= VOTERS_MIN && 2 * votes(v) > voters.len());
    let of_base = voters.iter().find(|(run, _)| run.arm == base).map(|(_, v)| *v);
    let judge = |run: &RunRecord, mine: &Option<String>| {
        let Some(mine) = mine else {
            let ended = !run.driver.is_null() && !run.server.is_null();
            return if ended { vec![gate(name, false, "none", "a digest from both sides")] } else { Vec::new() };
        };
        if run.errors > 0 {
            let why = format!("compared only where every request has its reply ({} have not)", run.errors);
            return vec![gate(name, true, mine, why)];
        }
        if let [(only, _)] = voters[..]
            && only.arm == run.arm
        {
            // Equal to itself says nothing.
            let measured = format!("not compared ({mine})");
            return vec![gate(name, true, measured, "another sound arm of this block, which there is not")];
        }
        let verdict = match (majority, of_base) {
            (Some(right), _) if mine == right => {
                gate(name, true, mine, format!("that of {} of {} sound arms", votes(right), voters.len()))
            }
            (Some(right), _) => {
                gate(name, false, mine, format!("{right}, that of {} of {} sound arms", votes(right), voters.len()))
            }
            (None, Some(right)) if mine == right => gate(name, true, mine, format!("that of the base `{base}`")),
            (None, Some(right)) => {
                gate(name, false, mine, format!("{right}, that of the base `{base}` (either of the two may be wrong)"))
            }
            (None, None) if voters.iter().all(|(_, v)| *v == mine) => {
                gate(name, true, mine, "no sound arm of this block that differs")
            }
            (None, None) => {
                gate(name, false, mine, format!("a sound run of the base `{base}` in this block to compare with"))
            }
        };
        vec![verdict]
    };
    runs.iter().zip(&values).map(|(run, mine)| judge(run, mine)).collect()
}

/// `meta=…, records=…`: the fields in the order of their names, so that equal states are equal texts.
fn canonical(digest: &Value) -> String {
    let mut fields: Vec<String> = digest
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        })
        .collect();
    fields.sort();
    fields.join(", ")
}
