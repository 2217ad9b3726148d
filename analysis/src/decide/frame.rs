//! What is fixed before any figure: the question, the blocks, and which arm plays which part.

use super::faults;
use super::primary::{Flagged, Primary};
use super::promises::{family, less};
use super::sizing::first_stage;
use super::words;
use crate::counts::Counts;
use crate::decision::{BlockCount, Question};
use crate::evidence::{ALL, ArmEvidence, complete_blocks};
use crate::load::Study;
use crate::samples::Metric;
use crate::source::Source;
use crate::units::plural;
use regauge_traces::study::{ArmRecord, Design};
use std::collections::{BTreeMap, BTreeSet};

/// From so many blocks on tables show ratios with intervals, so that whoever adds blocks may have seen them.
const SEEN_MIN: u32 = 2;

/// Which arm plays which part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    /// Number of the control arm.
    pub control: Option<usize>,
    /// Alternatives of today's runtime: what could be had without a migration.
    pub today: Vec<String>,
    /// Alternatives of another runtime.
    pub others: Vec<String>,
    /// All arms of today's runtime but base and control, alternatives or not.
    pub today_all: Vec<String>,
    /// All arms of other runtimes.
    pub others_all: Vec<String>,
    /// Arms that promise clients less, and why.
    pub no_alternatives: Vec<String>,
    /// Arms whose own runs failed a gate in more blocks than the base's, where the server answers for the gate, and how
    /// often: they may not win.
    pub faulty: Vec<(String, String)>,
}

impl Roles {
    /// Whether the arm may be chosen.
    pub fn is_alternative(&self, arm: &str) -> bool {
        self.today.iter().chain(&self.others).any(|name| name == arm)
    }

    /// Why an arm may not win although its figures would: it loses what it does not answer.
    pub fn fault(&self, arm: &str) -> Option<&str> {
        self.faulty.iter().find(|(name, _)| name == arm).map(|(_, why)| why.as_str())
    }
}

/// What is fixed before any figure.
pub struct Frame<'a> {
    /// From study.json, or the defaults.
    pub design: Design,
    /// Whether study.json has it.
    pub registered: bool,
    /// Blocks were added after results could be seen.
    pub peeked: bool,
    /// Complete blocks that were asked for: to decide on fewer is to stop at a look.
    pub wanted: u64,
    /// A second stage was sized by the first.
    pub sized: bool,
    /// Whether the first stage of a sized study was complete when its second was asked for; true in any other study.
    pub first_complete: bool,
    /// Runs that were made for another question than study.json has, as `block 3 compio`.
    pub other_question: Vec<String>,
    /// Blocks in which every arm's run is valid.
    pub complete: Vec<u32>,
    /// Who plays which part.
    pub roles: Roles,
    study: &'a Study,
    names: Vec<&'a str>,
}

impl<'a> Frame<'a> {
    /// Reads it from the records.
    pub fn of(study: &'a Study, evidence: &'a [ArmEvidence]) -> Self {
        let manifest = &study.manifest;
        let design = manifest.design.clone().unwrap_or_default();
        let names: Vec<&str> = evidence.iter().map(|arm| arm.name.as_str()).collect();
        let mut roles = roles(study, &design, &names);
        roles.faulty = faults::faulty(study, &names);
        // A stage that adds blocks after some could be seen, and whose number nobody's rule fixed.
        let later = manifest.stages.windows(2);
        let peeked = later.into_iter().any(|pair| {
            matches!(pair, [seen, added] if !added.sized && added.blocks > seen.blocks && seen.blocks >= SEEN_MIN)
        });
        let complete = complete_blocks(study);
        let hash = manifest.question_hash();
        let other = study.runs.iter().filter(|run| run.question.as_ref().is_some_and(|asked| *asked != hash));
        Frame {
            registered: manifest.design.is_some(),
            peeked,
            wanted: u64::from(manifest.blocks),
            sized: manifest.stages.iter().any(|stage| stage.sized),
            first_complete: first_complete(study, &complete),
            other_question: other.map(|run| format!("block {} {}", run.block, run.arm)).collect(),
            complete,
            roles,
            design,
            study,
            names,
        }
    }

    /// Name of the base arm.
    pub fn base(&self) -> &'a str {
        self.names.first().copied().unwrap_or_default()
    }

    /// Number of arms.
    pub fn arms(&self) -> usize {
        self.names.len()
    }

    /// The number of an arm.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|other| *other == name)
    }

    /// The question as it is quoted.
    pub fn question(&self, study: &Study) -> Question {
        let hash = study.manifest.question_hash();
        Question { design: self.design.clone(), registered: self.registered, peeked: self.peeked, hash }
    }

    /// How the blocks became figures.
    pub fn count(&self, study: &Study) -> BlockCount {
        let seen: BTreeSet<u32> =
            study.runs.iter().map(|run| run.block).chain(study.unfinished.iter().map(|(block, _)| *block)).collect();
        let flagged = |block: &&u32| study.runs.iter().any(|run| run.block == **block && !run.valid);
        let finished = |block: u32| study.runs.iter().filter(|run| run.block == block).count();
        let mut failed: BTreeMap<&str, u64> = BTreeMap::new();
        for gate in study.runs.iter().flat_map(|run| &run.gates).filter(|gate| !gate.passed) {
            *failed.entry(&gate.name).or_default() += 1;
        }
        let mut failed: Vec<(String, u64)> = failed.into_iter().map(|(name, times)| (name.to_owned(), times)).collect();
        failed.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        BlockCount {
            wanted: u64::from(study.manifest.blocks),
            complete: self.complete.len() as u64,
            flagged: seen.iter().filter(flagged).count() as u64,
            unfinished: seen.iter().filter(|&&block| finished(block) < study.manifest.arms.len()).count() as u64,
            failed_gates: failed,
        }
    }

    /// Samples of the primary's step per arm and block, runs that failed a gate included; empty when none failed. A run
    /// without readable histograms is left out: it enters no figure of the decision.
    pub fn flagged_samples(&self, source: &dyn Source, evidence: &[ArmEvidence]) -> Flagged {
        if self.study.runs.iter().all(|run| run.valid) {
            return Vec::new();
        }
        let step = self.design.primary_step.as_str();
        let of_run = |block: u32, arm: &ArmEvidence| {
            if arm.blocks.contains(&block) {
                return arm.counts_in(step, Metric::Latency, &[block]).pop();
            }
            let rows = source.histograms(block, &arm.name).ok()?;
            let wanted = rows.iter().filter(|row| row.metric == Metric::Latency && (step == ALL || row.step == step));
            Some(Counts::merged(wanted.map(|row| &row.counts)))
        };
        let of_arm = |arm: &ArmEvidence| {
            let runs = self.study.runs_of(&arm.name).filter_map(|run| Some((run.block, of_run(run.block, arm)?)));
            runs.filter(|(_, counts)| !counts.is_empty()).collect()
        };
        evidence.iter().map(of_arm).collect()
    }

    /// Pairs of arms whose spread decides how many blocks a study takes: every comparison that a verdict may rest on, and
    /// the control's.
    pub fn pairs(&self, primary: &Primary<'_>) -> Vec<(usize, usize)> {
        let index = |names: &[String]| -> Vec<usize> { names.iter().filter_map(|name| self.index(name)).collect() };
        let (today, others) = (index(&self.roles.today), index(&self.roles.others));
        let base = primary.compared().into_iter().chain(self.roles.control).map(|arm| (arm, 0));
        base.chain(others.iter().flat_map(|&arm| today.iter().map(move |&against| (arm, against)))).collect()
    }

    /// The arm of today's runtime with the lowest primary percentile, the base included; none where it is refused.
    pub fn best_of_today(&self, primary: &Primary<'_>) -> Option<String> {
        let today = std::iter::once(0).chain(self.roles.today.iter().filter_map(|name| self.index(name)));
        let shown = today.filter(|&arm| primary.support(arm).is_some() && primary.refusal(arm, arm).is_none());
        let best = shown.filter_map(|arm| Some((primary.quantile(arm)?, arm))).min()?;
        Some(primary.name(best.1).to_owned())
    }

    /// Runs that entered no figure, in one sentence.
    pub fn left_out(&self) -> Option<String> {
        let invalid = self.study.runs.iter().filter(|run| !run.valid).count() + self.study.unfinished.len();
        let without: Vec<&str> =
            self.names.iter().filter(|name| self.study.valid_blocks(name).is_empty()).copied().collect();
        (invalid > 0).then(|| {
            let verb = if invalid == 1 { "was" } else { "were" };
            let nothing = match without.is_empty() {
                true => String::new(),
                false => format!(", and nothing is left of {}", words::list(&without)),
            };
            format!("{} {verb} left out as invalid or unfinished{nothing}.", plural(invalid as u64, "run"))
        })
    }

    /// That the gates were passed, for a verdict that rests on it.
    pub fn gate_passed(&self) -> Option<String> {
        let control = self.design.control.as_deref()?;
        Some(format!(
            "{control}, the same code as {}, does not differ from it, over {}.",
            self.names.first()?,
            plural(self.complete.len() as u64, "complete block")
        ))
    }
}

/// Whether the blocks that sized a second stage were there when it was asked for: the first stage's number of complete
/// blocks, all of whose runs had begun by then.
fn first_complete(study: &Study, complete: &[u32]) -> bool {
    let Some(first) = first_stage(&study.manifest) else { return true };
    let Some(second) = study.manifest.stages.iter().find(|stage| stage.sized) else { return true };
    // RFC 3339 in UTC, which sorts as text.
    let is_before = |block: u32| study.runs.iter().all(|run| run.block != block || run.started <= second.created);
    complete.iter().filter(|&&block| is_before(block)).count() >= first
}

fn roles(study: &Study, design: &Design, names: &[&str]) -> Roles {
    let record = |name: &str| study.manifest.arms.iter().find(|arm| arm.name == name);
    let mut roles = Roles {
        control: design.control.as_deref().and_then(|control| names.iter().position(|name| *name == control)),
        ..Roles::default()
    };
    let Some(base) = names.first().and_then(|name| record(name)) else { return roles };
    let others = names.iter().skip(1).filter(|name| Some(**name) != design.control.as_deref());
    for arm in others.filter_map(|name| record(name)) {
        let is_today = family(&arm.stack) == family(&base.stack);
        let (all, alternatives) = match is_today {
            true => (&mut roles.today_all, &mut roles.today),
            false => (&mut roles.others_all, &mut roles.others),
        };
        all.push(arm.name.clone());
        match promises_less(arm, base) {
            Some(why) => roles.no_alternatives.push(why),
            None => alternatives.push(arm.name.clone()),
        }
    }
    roles
}

fn promises_less(arm: &ArmRecord, base: &ArmRecord) -> Option<String> {
    let why = less(arm, base);
    (!why.is_empty())
        .then(|| format!("{} promises clients something else than {}: {}.", arm.name, base.name, why.join("; ")))
}
