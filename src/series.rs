//! A study from its design to its last block: knees and loads if several are asked for, the first stage, the size that
//! follows from it, the second stage, and the further loads. Any of it may be interrupted; the same command goes on
//! where it was, because each step looks at what stands in the files.

use crate::design::Planned;
use crate::replay::{Experiment, Opened};
use crate::watch::Watcher;
use anyhow::{Result, anyhow};
use regauge_analysis::decision::Sizing;
use regauge_replayer::arms::Arms;
use regauge_replayer::experiment::{
    LoadsAsked, LoadsFound, Part, Progress, StudyConfig, StudySummary, find_loads, run_guess, run_study,
};
use regauge_runtimes::Stop;
use regauge_traces::study::{Design, LoadPoint};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// Blocks of a study, or of its first stage, unless others are asked for: fewer cannot reach significance under the
/// exact permutation test of the analysis.
const BLOCKS: u32 = 10;
/// Fewest blocks on which the analysis rests a verdict.
const DECIDING: u32 = 10;
/// The analysis cannot tell whether a shorter replay came to a steady state, s.
const SHORT_S: f64 = 10.0;

/// What a study came to.
#[derive(Debug, Serialize)]
pub struct Series {
    /// The study itself; `None` when it was stopped while knees were searched.
    #[serde(flatten)]
    pub summary: Option<StudySummary>,
    /// Studies of further loads, as far as they were begun.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<StudySummary>,
    /// Something was stopped; the same command goes on.
    #[serde(skip)]
    pub interrupted: bool,
}

impl Series {
    /// How far it is, for who stopped it.
    pub fn so_far(&self) -> String {
        let Some(summary) = &self.summary else {
            return "interrupted while it was looked how fast each arm can go; every trial is kept".to_owned();
        };
        let all = || std::iter::once(summary).chain(&self.loads);
        let (done, planned) = (all().map(|s| s.runs_finished).sum::<u64>(), all().map(|s| s.runs_planned).sum::<u64>());
        let of = if self.loads.is_empty() { "" } else { " of the loads begun" };
        format!("interrupted after {done} of {planned} runs{of}")
    }
}

/// Refuses what cannot be meant, without looking at a trace.
pub fn check((asked, planned, quick): (&Experiment, &Planned, bool), out: &Path) -> Result<()> {
    planned.design(&mut Arms::load(&asked.arms)?, asked.blocks.unwrap_or(BLOCKS), out, quick).map(drop)
}

/// Does all of it, or what is missing of it.
pub fn run(
    trace: &Path,
    out: &Path,
    (asked, planned, quick): (&Experiment, &Planned, bool),
    stop: &Stop,
) -> Result<Series> {
    let mut arms = Arms::load(&asked.arms)?;
    let blocks = asked.blocks.unwrap_or(BLOCKS);
    let design = planned.design(&mut arms, blocks, out, quick)?;
    if design.control.is_none() {
        eprintln!("note: without a control arm this study can give no verdict");
    }
    if blocks < DECIDING && !quick {
        eprintln!("note: with {blocks} blocks this study can give no verdict; that takes {DECIDING}");
    }
    let opened = Opened::open(trace)?;
    let arms_count = arms.names().count();
    let config = |speed: f64, out: &Path, design: Design| -> Result<StudyConfig> {
        let mut config = opened.config(out, asked, speed, arms.clone(), stop)?;
        (config.blocks, config.design) = (blocks, Some(design));
        Ok(config)
    };
    let mut watcher = Watcher::new();
    let study_guess = |config: &StudyConfig| {
        run_guess(Duration::from_nanos(config.workload.duration_ns)).mul_f64(f64::from(blocks) * arms_count as f64)
    };
    let Some(loads) = planned.loads()? else {
        let config = config(asked.speed, out, design)?;
        if let Some(note) = short(&config).filter(|_| !quick) {
            watcher.note(&note);
        }
        let summary = staged(&config, &mut watcher)?;
        watcher.finish();
        return Ok(Series { interrupted: summary.interrupted, summary: Some(summary), loads: Vec::new() });
    };

    let found = find(&config(1.0, out, design.clone())?, &loads, &mut watcher, study_guess, arms_count)?;
    let Some(found) = found else {
        return Ok(Series { summary: None, loads: Vec::new(), interrupted: true });
    };
    say(&found, arms.base(), &mut watcher);
    // The primary load first: whoever stops early has the study that the verdict is about.
    let (primary, others): (Vec<_>, Vec<_>) = found.loads.loads.iter().partition(|point| point.dir == ".");
    let points: Vec<&LoadPoint> = primary.into_iter().chain(others).collect();
    let mut configs = Vec::new();
    for point in &points {
        let main = point.dir == ".";
        let dir = if main { out.to_owned() } else { out.join(&point.dir) };
        // Sized for the primary load alone: the curve over loads is no claim of its own.
        let until = design.until.filter(|_| main);
        let mut config = config(point.speed, &dir, Design { load: Some(point.share), until, ..design.clone() })?;
        config.settled = Some(found.layout.clone());
        if let Some(note) = short(&config) {
            watcher.note(&format!("at load {}, {note}", point.share));
        }
        configs.push(config);
    }
    let guesses: Vec<Duration> = configs.iter().map(study_guess).collect();
    let mut series = Series { summary: None, loads: Vec::new(), interrupted: false };
    for (index, config) in configs.iter().enumerate() {
        let before: Duration = guesses.iter().take(index).sum();
        let own = guesses.get(index).copied().unwrap_or_default();
        let after: Duration = guesses.iter().skip(index + 1).sum();
        let mut part = Part::new(&mut watcher, before, own, after);
        let summary = staged(config, &mut part)?;
        series.interrupted = summary.interrupted;
        match index {
            0 => series.summary = Some(summary),
            _ => series.loads.push(summary),
        }
        if series.interrupted {
            break;
        }
    }
    watcher.finish();
    Ok(series)
}

/// That a replay is too short for a verdict, if it is.
fn short(config: &StudyConfig) -> Option<String> {
    let seconds = config.workload.duration_ns as f64 / 1e9;
    (seconds < SHORT_S).then(|| {
        format!("the replay lasts {seconds:.1} s and gives no verdict, which takes {SHORT_S} s; record a longer trace")
    })
}

/// The search for knees as the first part of the whole.
fn find(
    config: &StudyConfig,
    asked: &LoadsAsked,
    watcher: &mut Watcher,
    study_guess: impl Fn(&StudyConfig) -> Duration,
    arms: usize,
) -> Result<Option<LoadsFound>> {
    // As if at the trace's own rate: nobody knows better before the knee is found.
    let after = study_guess(config).mul_f64(asked.shares.len() as f64);
    let mut part = Part::new(watcher, Duration::ZERO, asked.guess(arms), after);
    Ok(find_loads(config, asked, &mut part)?)
}

/// Says what the knees are and what the loads come to.
fn say(found: &LoadsFound, base: &str, watcher: &mut Watcher) {
    let knees = found.loads.knees.iter().map(|knee| {
        let rate = knee.kept_per_s.map_or("no rate".to_owned(), |rate| format!("{rate:.0}/s"));
        match knee.limited_by.as_str() {
            "server" => format!("{} {rate}", knee.arm),
            "driver" => format!("{} {rate} or more (the driver was late first)", knee.arm),
            _ => format!("{} {rate} or more (the trace allows no faster replay)", knee.arm),
        }
    });
    let knees: Vec<String> = knees.collect();
    watcher.note(&format!("the arms keep up to {}", knees.join(", ")));
    let loads = found.loads.loads.iter().map(|load| format!("{} ({:.0}/s)", load.share, load.offered_per_s));
    watcher.note(&format!("loads, as shares of {base}'s: {}", loads.collect::<Vec<_>>().join(", ")));
}

/// One study with its second stage, if it is sized.
fn staged(config: &StudyConfig, progress: &mut dyn Progress) -> Result<StudySummary> {
    let summary = run_study(config.clone(), &mut *progress)?;
    let until = config.design.as_ref().and_then(|design| design.until);
    let (Some(until), false, false) = (until, summary.interrupted, summary.sized) else {
        return Ok(summary);
    };
    if let Some(why) = too_short(&summary) {
        progress.note(&why);
        return Ok(summary);
    }
    let sizing = match size(&config.out) {
        Ok(sizing) => sizing,
        Err(why) => {
            let percent = until * 100.0;
            progress.note(&format!("how many blocks ± {percent} % takes cannot be told: {why:#}; nothing more is run"));
            return Ok(summary);
        }
    };
    let max = config.design.as_ref().map_or(0, |design| design.blocks_max);
    progress.note(&sized_words(&sizing, &summary, max));
    if sizing.beyond_max {
        return Ok(summary);
    }
    // Written down even when the first stage suffices: from here on no other size may follow.
    let second = u32::try_from(sizing.blocks)?.max(config.blocks);
    Ok(run_study(StudyConfig { sized: Some(second), ..config.clone() }, progress)?)
}

/// Why the first stage cannot be sized by yet, if so: a size from fewer blocks than were fixed beforehand would rest on
/// another spread than the intervals do.
fn too_short(summary: &StudySummary) -> Option<String> {
    let (complete, wanted) = (summary.blocks_complete, summary.blocks_wanted);
    (complete < wanted).then(|| {
        format!(
            "the first stage has {complete} of its {wanted} complete blocks, so it does not tell how many more it takes; a \
             larger --reruns with the same command completes it"
        )
    })
}

/// What the first stage says about the size of the study.
fn size(study: &Path) -> Result<Sizing> {
    match regauge_analysis::size(study)? {
        Ok(sizing) => sizing.ok_or_else(|| anyhow!("no precision was asked for")),
        Err(why) => Err(anyhow!(why.trim_end_matches('.').to_owned())),
    }
}

/// How many blocks, why, and how long that is at the pace so far.
fn sized_words(sizing: &Sizing, summary: &StudySummary, max: u32) -> String {
    let more = sizing.blocks.saturating_sub(u64::from(summary.blocks_complete));
    // Flagged blocks are run again, so each complete one has cost more than one.
    let judged = f64::from(summary.blocks_complete + summary.blocks_flagged);
    let cost = judged / f64::from(summary.blocks_complete.max(1));
    let seconds = summary.block_s.unwrap_or(0.0) * cost * more as f64;
    let long = crate::ui::duration((seconds * 1e9) as u64);
    let takes = format!(
        "± {} % takes {} complete blocks, since the log-ratio of {} to {} varies by {:.2} between the first {}",
        sizing.wanted * 100.0,
        sizing.blocks,
        sizing.arm,
        sizing.against,
        sizing.sd,
        sizing.first_stage
    );
    if sizing.beyond_max {
        return format!(
            "INCONCLUSIVE up front: {takes}, and --max-blocks allows {max}; nothing more is run. {more} more would take \
             about {long}: raise --max-blocks, or ask for less precision in a new study"
        );
    }
    match more {
        0 => format!("{takes}: they are there"),
        _ => format!("{takes}: {more} more, about {long}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn summary() -> StudySummary {
        StudySummary {
            study: "s".into(),
            blocks_wanted: 10,
            blocks_complete: 10,
            blocks_flagged: 5,
            blocks_rerun: 5,
            sized: false,
            runs_planned: 45,
            runs_finished: 45,
            runs_resumed: 0,
            block_s: Some(60.0),
            invalid: Vec::new(),
            layout: serde_json::from_value(
                json!({"name": "", "driver_cpus": [], "server_cpus": [], "why": "", "limits": []}),
            )
            .unwrap(),
            differences: Vec::new(),
            warnings: Vec::new(),
            interrupted: false,
        }
    }

    fn sizing(blocks: u64, beyond_max: bool) -> Sizing {
        Sizing {
            first_stage: 10,
            sd: 0.3,
            arm: "compio".into(),
            against: "base".into(),
            wanted: 0.2,
            blocks,
            beyond_max,
        }
    }

    #[test]
    fn the_size_comes_with_its_reason_and_its_price() {
        // 20 more at a minute each, half as much again for blocks that fail.
        let words = sized_words(&sizing(30, false), &summary(), 100);
        assert_eq!(
            words,
            "± 20 % takes 30 complete blocks, since the log-ratio of compio to base varies by 0.30 between the first 10: 20 \
             more, about 30.0 min"
        );
        assert!(sized_words(&sizing(10, false), &summary(), 100).ends_with("they are there"));
        let beyond = sized_words(&sizing(300, true), &summary(), 100);
        assert!(beyond.starts_with("INCONCLUSIVE up front") && beyond.contains("--max-blocks allows 100"), "{beyond}");
    }

    #[test]
    fn an_unfinished_first_stage_sizes_nothing() {
        assert_eq!(too_short(&summary()), None);
        let why = too_short(&StudySummary { blocks_complete: 7, ..summary() }).unwrap();
        assert!(
            why.starts_with("the first stage has 7 of its 10 complete blocks") && why.contains("--reruns"),
            "{why}"
        );
    }

    #[test]
    fn who_stops_it_learns_how_far_it_is() {
        let mut series = Series { summary: None, loads: Vec::new(), interrupted: true };
        assert!(series.so_far().contains("every trial is kept"));
        series.summary = Some(summary());
        assert_eq!(series.so_far(), "interrupted after 45 of 45 runs");
        series.loads.push(StudySummary { runs_finished: 5, ..summary() });
        assert_eq!(series.so_far(), "interrupted after 50 of 90 runs of the loads begun");
    }
}
