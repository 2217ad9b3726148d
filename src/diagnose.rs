//! `regauge diagnose`: which of the rival causes makes `set_last_applied` slow. It sets the experiment up and has it
//! run; what follows from it is decided in `regauge_analysis::diagnose`.

use crate::replay::{Experiment, experiment, stop_of_signals};
use anyhow::{Context, Result, bail};
use clap::Parser;
use regauge_analysis::diagnose::{diagnose, terminal};
use regauge_replayer::arms::Arms;
use regauge_replayer::host;
use regauge_traces::{Profile, SynthParams, Trace, TraceError, synth, write_sealed};
use std::path::{Path, PathBuf};

/// Find the cause of a slow set_last_applied: one arm per rival cause with just that cause removed
///
/// Without --trace it replays clients that connect as `mqttx bench conn` makes them (100/s), with a burst every second.
/// Takes about 8 minutes on two cores, --quick about 3. Stopped with Ctrl-C, the same command with the same --out
/// continues; on a finished study it only judges again.
#[derive(clap::Args)]
pub struct Args {
    /// Replay this trace instead of the embedded workload
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// The study's directory (default: studies/DATE-TIME)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A short one: enough to see the table, seldom enough to decide
    #[arg(long)]
    quick: bool,
    /// Blocks: each runs every arm once (default 5, with --quick 3)
    #[arg(long, value_name = "N")]
    blocks: Option<u32>,
    /// Seed of the order of arms
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Use runs that failed a gate too, and mark the answer as such
    #[arg(long)]
    keep_invalid: bool,
    /// Print the diagnosis as JSON
    #[arg(long)]
    json: bool,
}

const BLOCKS: u32 = 5;
const QUICK_BLOCKS: u32 = 3;
/// Length of the embedded workload, s.
const SECONDS: u32 = 5;
const QUICK_SECONDS: u32 = 3;
/// `mqttx bench conn` at its defaults.
const CONNECTS_PER_S: f64 = 100.0;
/// Clients of the burst in each second, 0.4 ms apart: several fall into one proposal's time, and the driver keeps up.
const BURST: u32 = 25;
const BURST_PER_S: f64 = 2500.0;

/// The name of the built-in arms, and the setting in them that is the host's.
const ARMS: &str = "diagnose";
const ROLE_THREADS: &str = "role_threads = 2\n";
/// What follows this line are arms that need io_uring.
const NEEDS_URING: &str = "# Another runtime";

/// An experiment as `regauge replay` has it without options.
#[derive(Parser)]
struct Defaults {
    #[command(flatten)]
    experiment: Experiment,
}

pub fn run(args: Args) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(crate::study::default_out);
    let stop = stop_of_signals()?;
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let arms = out.join("diagnose.toml");
    if !arms.exists() {
        let has_uring = host::gather(&out).uring.works;
        let text = arms_for(host::cpu::allowed().len(), has_uring)?;
        std::fs::write(&arms, text).with_context(|| format!("cannot write {}", arms.display()))?;
        if !has_uring {
            eprintln!("note: without io_uring there is no compio here, so `another runtime` cannot be told");
        }
    }
    let trace = match (&args.trace, out.join("trace.parquet")) {
        (Some(trace), _) => trace.clone(),
        (None, made) if out.join("study.json").exists() => made,
        (None, _) => {
            let path = out.join("workload.parquet");
            let made = workload(if args.quick { QUICK_SECONDS } else { SECONDS })?;
            write_sealed(&path, &made.meta, &made.spans)?;
            path
        }
    };
    let mut asked = Defaults::try_parse_from(["diagnose"]).context("the defaults of an experiment")?.experiment;
    asked.arms = arms.display().to_string();
    asked.blocks = Some(args.blocks.unwrap_or(if args.quick { QUICK_BLOCKS } else { BLOCKS }));
    asked.seed = args.seed;
    let summary = experiment(&trace, &out, &asked, &stop)?;
    if summary.interrupted {
        let (done, all) = (summary.runs_finished, summary.runs_planned);
        bail!("interrupted after {done} of {all} runs; continue with --out {}", out.display());
    }
    for warning in &summary.warnings {
        eprintln!("warning: {warning}");
    }
    report(&out, args.keep_invalid, args.json)
}

fn report(out: &Path, keep_invalid: bool, json: bool) -> Result<()> {
    let bar = crate::ui::progress(None, "{spinner} reading stamps");
    let diagnosis = diagnose(out, keep_invalid);
    bar.finish_and_clear();
    let diagnosis = diagnosis?;
    if json {
        return crate::ui::print_json(&diagnosis);
    }
    crate::ui::print(&format!("{}\nstudy     {}", terminal::render(&diagnosis), out.display()))
}

/// The built-in arms for a host: as many workers per CPU as RobustMQ had (16 on 14 CPUs for each runtime), and without
/// those that need io_uring where there is none.
fn arms_for(cpus: usize, has_uring: bool) -> Result<String> {
    let arms = Arms::load(ARMS)?;
    let workers = ((cpus as f64 * 16.0 / 14.0).round() as usize).max(1);
    let mut text = arms.text().replacen(ROLE_THREADS, &format!("role_threads = {workers}\n"), 1);
    if !has_uring && let Some(at) = text.find(NEEDS_URING) {
        text.truncate(at);
    }
    Ok(text)
}

/// The article's clients: connects at an even pace, and each second a burst.
fn workload(seconds: u32) -> Result<Trace, TraceError> {
    let connects = |rate_per_s, clients, seed| {
        let profile = Profile::MqttxConn;
        synth(&SynthParams { rate_per_s, clients, seed, duration_s: 0.0, ..SynthParams::new(profile) })
    };
    let mut trace = connects(CONNECTS_PER_S, seconds * CONNECTS_PER_S as u32, 1)?;
    let mut connections = seconds * CONNECTS_PER_S as u32;
    for second in 0..seconds {
        let burst = connects(BURST_PER_S, BURST, u64::from(second) + 2)?;
        trace.spans.extend(burst.spans.into_iter().map(|mut span| {
            span.start_ns += u64::from(second) * 1_000_000_000 + 500_000_000;
            span.connection = span.connection.map(|connection| connection + connections);
            span
        }));
        connections += BURST;
    }
    trace.spans.sort_by_key(|span| span.start_ns);
    (0..).zip(&mut trace.spans).for_each(|(id, span)| span.id = id);
    trace.meta.source = format!("mqttx-conn (100 connects/s) with a burst of {BURST} each second");
    Ok(trace)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use regauge_analysis::diagnose::hypotheses::HYPOTHESES;

    #[test]
    fn every_hypothesis_has_its_arms() {
        let text = arms_for(28, true).unwrap();
        let arms = Arms::parse(&text, "diagnose").unwrap();
        let names: Vec<&str> = arms.names().collect();
        let wanted: Vec<&str> = HYPOTHESES.iter().flat_map(|hypothesis| hypothesis.arms).copied().collect();
        assert!(wanted.iter().all(|arm| names.contains(arm)), "{wanted:?} of {names:?}");
        // And no arm runs for nothing.
        assert_eq!(names.len(), wanted.len() + 1);
        assert_eq!(arms.base(), "as-deployed");
    }

    #[test]
    fn arms_differ_from_the_base_in_the_one_setting_of_their_cause() {
        let arms = Arms::parse(&arms_for(28, true).unwrap(), "diagnose").unwrap();
        let cpus: Vec<usize> = (0..28).collect();
        let records = arms.resolve(&cpus, &cpus, None).unwrap();
        let base = records.iter().find(|arm| arm.name == arms.base()).unwrap();
        assert_eq!((&base.settings["threads"], &base.settings["role_threads"]), (&28.into(), &32.into()));
        for arm in records.iter().filter(|arm| arm.name != base.name) {
            let all = base.settings.as_object().unwrap();
            let differ: Vec<&String> = all.keys().filter(|key| arm.settings[*key] != all[*key]).collect();
            // Without runtimes of their own the roles have no threads either.
            let settings = if arm.name == "one-runtime" { 2 } else { 1 };
            assert_eq!(differ.len(), settings, "{}: {differ:?}", arm.name);
        }
    }

    #[test]
    fn without_io_uring_the_arms_that_need_it_are_left_out() {
        let arms = Arms::parse(&arms_for(2, false).unwrap(), "diagnose").unwrap();
        assert!(arms.stacks().iter().all(|stack| !stack.needs_uring()));
        assert_eq!(arms.names().count(), 10);
    }

    #[test]
    fn the_workload_can_be_replayed() {
        let trace = workload(2).unwrap();
        let mut sessions: Vec<_> = trace.spans.iter().map(|span| span.session).collect();
        sessions.sort_unstable();
        sessions.dedup();
        assert_eq!((trace.spans.len(), sessions.len()), (250, 250));
        let plan = regauge_replayer::plan::Plan::build(&trace.spans, &Default::default()).unwrap();
        assert_eq!(plan.requests(), 250);
        assert!(plan.duration_ns() < 2_000_000_000);
    }
}
