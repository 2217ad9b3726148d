//! `regauge explain`: one request of a study, stage by stage.
//!
//! A request is named by its run and id (`block/arm/op_id`, as slow lines print it), or as the slowest one
//! (`slowest`, `slowest:ARM`, `slowest:ARM:STEP`).

mod terminal;

pub use terminal::render;

use crate::error::AnalysisError;
use crate::lanes::load::{LoadedRun, load};
use crate::lanes::{Lanes, RunLanes, Timeline, timeline_of};
use crate::load::Study;
use regauge_traces::study::RunRecord;
use serde::Serialize;
use std::path::Path;

/// Which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// One by its id.
    One {
        /// Block.
        block: u32,
        /// Arm.
        arm: String,
        /// Id of the root span.
        op_id: u64,
    },
    /// The slowest with stamps.
    Slowest {
        /// Of this arm instead of the base.
        arm: Option<String>,
        /// Of this kind of root.
        step: Option<String>,
    },
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let how = "write it as block/arm/op_id (for example 0/tokio-shared/5922), or as slowest, slowest:ARM or \
                   slowest:ARM:STEP";
        if let Some(rest) = text.strip_prefix("slowest") {
            let mut parts = rest.split(':');
            let named = |part: Option<&str>| part.filter(|name| !name.is_empty()).map(str::to_owned);
            if parts.next() == Some("") {
                let (arm, step) = (named(parts.next()), named(parts.next()));
                if parts.next().is_none() {
                    return Ok(Which::Slowest { arm, step });
                }
            }
            return Err(format!("`{text}` names no request; {how}"));
        }
        match text.split('/').collect::<Vec<_>>().as_slice() {
            [block, arm, op_id] => {
                let number = |part: &str| part.parse::<u64>().map_err(|_| format!("`{part}` is no number; {how}"));
                let block = u32::try_from(number(block)?).map_err(|_| format!("`{block}` is no block; {how}"))?;
                Ok(Which::One { block, arm: (*arm).to_owned(), op_id: number(op_id)? })
            }
            _ => Err(format!("`{text}` names no request; {how}")),
        }
    }
}

/// One stage for readers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageShown {
    /// What happened.
    pub stage: &'static str,
    /// Begin after the planned time, ns.
    pub start_ns: u64,
    /// Length, ns.
    pub length_ns: u64,
    /// Name of the thread at its end, where known.
    pub thread: Option<String>,
    /// The lane with most of it.
    pub lane: &'static str,
    /// Its split.
    pub lanes_ns: Lanes,
}

/// A request explained: the JSON contract of `regauge explain --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Block of its run.
    pub block: u32,
    /// Arm of its run.
    pub arm: String,
    /// Id of the root span.
    pub op_id: u64,
    /// Kind of the root.
    pub step: String,
    /// Whether its run passed all gates.
    pub valid: bool,
    /// Planned → reply, ns.
    pub latency_ns: u64,
    /// Operation handed over → its result, ns.
    pub session_ns: Option<u64>,
    /// Its stages, without a break.
    pub stages: Vec<StageShown>,
    /// All of them together.
    pub lanes_ns: Lanes,
    /// By how much stamps contradicted each other, ns.
    pub disagreement_ns: u64,
}

/// Explains a request of the study in `dir`.
///
/// # Errors
/// An unreadable study, no such run or request, or one without stamps.
pub fn explain(dir: &Path, which: &Which) -> Result<Explanation, AnalysisError> {
    let study = Study::open_any(dir)?;
    match which {
        Which::One { block, arm, op_id } => one(&study, *block, arm, *op_id),
        Which::Slowest { arm, step } => slowest(&study, arm.as_deref(), step.as_deref()),
    }
}

fn missing(what: String) -> AnalysisError {
    AnalysisError::NoRequest { what }
}

fn one(study: &Study, block: u32, arm: &str, op_id: u64) -> Result<Explanation, AnalysisError> {
    known_arm(study, arm)?;
    let run = study.runs_of(arm).find(|run| run.block == block);
    let run = run.ok_or_else(|| {
        let blocks: Vec<String> = study.runs_of(arm).map(|run| run.block.to_string()).collect();
        missing(format!("arm {arm} has no finished run in block {block}; it has them in block {}", blocks.join(", ")))
    })?;
    let loaded = load(study, run)?.map_err(|why| missing(format!("block {block}, {arm}: {why}")))?;
    let request = loaded.requests.iter().find(|request| request.op_id == op_id);
    let request = request.ok_or_else(|| missing(format!("block {block}, {arm} has no request {op_id}")))?;
    if request.latency_ns.is_none() {
        return Err(missing(format!("request {op_id} has no right reply, so it has no latency to explain")));
    }
    let timeline = timeline_of(&loaded.input(), request)
        .ok_or_else(|| missing(format!("nothing of request {op_id} was stamped by the server")))?;
    Ok(shown(run, op_id, &request.step, &loaded, &timeline))
}

fn known_arm(study: &Study, arm: &str) -> Result<(), AnalysisError> {
    let names: Vec<&str> = study.manifest.arms.iter().map(|arm| arm.name.as_str()).collect();
    match names.contains(&arm) {
        true => Ok(()),
        false => Err(missing(format!("the study has no arm `{arm}`; choose one of {}", names.join(", ")))),
    }
}

fn slowest(study: &Study, arm: Option<&str>, step: Option<&str>) -> Result<Explanation, AnalysisError> {
    let arm = arm.unwrap_or(&study.manifest.base);
    known_arm(study, arm)?;
    let any_valid = study.runs_of(arm).any(|run| run.valid);
    let mut best: Option<(u64, u32, u64)> = None;
    let mut why = format!("arm {arm} has no finished run");
    for run in study.runs_of(arm).filter(|run| run.valid || !any_valid) {
        let loaded = match load(study, run)? {
            Ok(loaded) => loaded,
            Err(reason) => {
                why = format!("block {}, {arm}: {reason}", run.block);
                continue;
            }
        };
        why = format!(
            "no request{} of {arm} has both a reply and stamps",
            step.map(|s| format!(" of step {s}")).unwrap_or_default()
        );
        let lanes = RunLanes::of(&loaded.input());
        let stamped = lanes.requests.iter().filter(|request| request.lanes.is_some() && !request.is_warmup);
        let fitting = stamped.filter(|request| step.is_none_or(|step| request.step == step));
        let slowest = fitting.max_by_key(|request| request.latency_ns);
        best = best.max(slowest.map(|request| (request.latency_ns, run.block, request.op_id)));
    }
    let (_, block, op_id) = best.ok_or_else(|| missing(why))?;
    one(study, block, arm, op_id)
}

fn shown(run: &RunRecord, op_id: u64, step: &str, loaded: &LoadedRun, timeline: &Timeline) -> Explanation {
    let name = |id: u32| {
        let named = loaded.meta.threads.iter().find(|(thread, _, _)| *thread == id);
        named.map_or_else(|| id.to_string(), |(_, name, _)| name.clone())
    };
    let stages = timeline.stages.iter().map(|stage| StageShown {
        stage: stage.name,
        start_ns: stage.from_ns - timeline.planned_ns,
        length_ns: stage.to_ns - stage.from_ns,
        thread: stage.thread.map(name),
        lane: stage.lanes.largest().name(),
        lanes_ns: stage.lanes,
    });
    Explanation {
        block: run.block,
        arm: run.arm.clone(),
        op_id,
        step: step.to_owned(),
        valid: run.valid,
        latency_ns: timeline.latency_ns,
        session_ns: timeline.session_ns,
        stages: stages.collect(),
        lanes_ns: timeline.lanes,
        disagreement_ns: timeline.disagreement_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_named_in_two_ways() {
        let slowest = |arm: Option<&str>, step: Option<&str>| Which::Slowest {
            arm: arm.map(str::to_owned),
            step: step.map(str::to_owned),
        };
        assert_eq!("2/tokio-shared/77".parse(), Ok(Which::One { block: 2, arm: "tokio-shared".into(), op_id: 77 }));
        assert_eq!("slowest".parse(), Ok(slowest(None, None)));
        assert_eq!("slowest:compio".parse(), Ok(slowest(Some("compio"), None)));
        assert_eq!("slowest::connect".parse(), Ok(slowest(None, Some("connect"))));
        for wrong in ["", "7", "a/b/c", "1/b", "slowestx", "slowest:a:b:c", "1/b/2/3"] {
            let error = wrong.parse::<Which>();
            assert!(error.as_ref().is_err_and(|text| text.contains("block/arm/op_id")), "{wrong}: {error:?}");
        }
    }
}
