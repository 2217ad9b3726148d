//! How to ask the same question again: the command with every flag that decides what is measured, and the hashes that say
//! whether it was the same.

use crate::decision::Decision;
use crate::load::Study;
use regauge_traces::study::Manifest;

/// What stands under “Reproduce”.
pub fn facts(study: &Study, decision: &Decision) -> Vec<(&'static str, String)> {
    let manifest = &study.manifest;
    let mut facts =
        vec![("Again, in the study's directory", again(manifest, decision)), ("Made by", manifest.command.join(" "))];
    if !decision.question.hash.is_empty() {
        facts.push(("Question's hash", decision.question.hash.clone()));
    }
    facts.extend([
        ("Workload's hash", manifest.workload_hash.clone()),
        ("Plan's hash", manifest.plan_hash.clone()),
        ("Trace", manifest.trace_source.clone()),
        ("Regauge", format!("{}, study of {}", manifest.regauge, manifest.created)),
    ]);
    facts
}

/// The command that asks the same question of the same load again.
fn again(manifest: &Manifest, decision: &Decision) -> String {
    // Of a sized study the first stage: its second one follows.
    let first = manifest.stages.first().filter(|_| manifest.stages.iter().any(|stage| stage.sized));
    let mut again = match &decision.loads {
        Some(curves) => {
            let shares: Vec<String> = curves.loads.iter().map(|load| load.share.to_string()).collect();
            let primary = curves.loads.iter().find(|load| load.primary);
            let primary = primary.map(|load| format!(" --primary-load {}", load.share)).unwrap_or_default();
            format!("regauge study --trace trace.parquet --arms arms.toml --load {}{primary}", shares.join(","))
        }
        None => format!("regauge replay trace.parquet --arms arms.toml --speed {}", manifest.speed),
    };
    again += &format!(
        " --blocks {} --seed {} --layout {} --stamps {}",
        first.map_or(manifest.blocks, |stage| stage.blocks),
        manifest.seed,
        manifest.layout.name,
        manifest.stamps
    );
    // Unless it was asked for, each load has a warm-up of its own length.
    let by_default = (manifest.duration_ns / 10).min(2_000_000_000);
    if decision.loads.is_none() || manifest.warmup_ns != by_default {
        again += &format!(" --warmup {}us", manifest.warmup_ns / 1_000);
    }
    if let Some(design) = &manifest.design {
        again += &format!(
            " --primary {}:{} --worth {} --equivalence {}..{} --floor {}ms --slo {}ms --control {} --reruns {} \
             --max-blocks {}",
            design.primary_step,
            design.primary_percentile,
            design.worth_ratio,
            design.equivalent_low,
            design.equivalent_high,
            design.floor_ms,
            design.slo_ms,
            design.control.is_some(),
            design.reruns_max,
            design.blocks_max
        );
        if let Some(until) = design.until {
            again += &format!(" --until {until}");
        }
    }
    again + " --out another-study"
}
