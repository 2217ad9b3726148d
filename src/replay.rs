//! `regauge replay`: the study of a given trace, without its analysis. `regauge study` is this with a recording before
//! it and an answer behind it.

use crate::design::Planned;
use crate::series::Series;
use crate::watch::Watcher;
use anyhow::{Context, Result, bail};
use regauge_replayer::arms::Arms;
use regauge_replayer::experiment::{StudyConfig, StudySummary, Workload, run_study};
use regauge_replayer::plan::{Plan, PlanOptions};
use regauge_replayer::process::Timeouts;
use regauge_runtimes::Stop;
use regauge_traces::Trace;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Replay a trace on every arm, block by block, into a study's directory
///
/// Each block runs all arms in random order, each in a fresh process with a fresh data directory. Stopped with Ctrl-C,
/// the same command continues where it was.
#[derive(clap::Args)]
pub struct Args {
    /// The trace
    trace: PathBuf,
    #[command(flatten)]
    experiment: Experiment,
    #[command(flatten)]
    planned: Planned,
    /// The study's directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// What an experiment is asked for, here and in `regauge study`.
#[derive(clap::Args)]
pub struct Experiment {
    /// The arms: a file, or one of the embedded sets `default` and `factorial`
    #[arg(long, value_name = "FILE", default_value = "default")]
    pub arms: String,
    /// Complete blocks: each runs every arm once (default 10); more than a study has so far adds the others
    #[arg(long, value_name = "N")]
    pub blocks: Option<u32>,
    /// Seed of the order of arms
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Replay this many times as fast
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub speed: f64,
    /// Requests planned before this are warm-up and enter no table (default: a tenth of the trace, 2 s at most)
    #[arg(long, value_name = "TIME", value_parser = crate::ui::parse_duration)]
    pub warmup: Option<Duration>,
    /// Whether servers stamp what they do, for the lanes: true (the default) or false
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub stamps: bool,
    /// CPU layout: disjoint or shared (default: what the host allows and the gates pass)
    #[arg(long, value_name = "NAME", value_parser = ["disjoint", "shared"])]
    pub layout: Option<String>,
}

pub fn run(args: Args) -> Result<()> {
    let stop = stop_of_signals()?;
    let series = crate::series::run(&args.trace, &args.out, (&args.experiment, &args.planned, false), &stop)?;
    if args.json {
        crate::ui::print_json(&series)?;
    } else {
        crate::ui::print(&words(&series))?;
    }
    if series.interrupted {
        bail!("{}; the same command continues", series.so_far());
    }
    Ok(())
}

/// The stop flag of the experiment, set by Ctrl-C.
pub fn stop_of_signals() -> Result<Stop> {
    let (stop, flag) = (Stop::new(), crate::ui::stop_flag()?);
    let watched = stop.clone();
    std::thread::Builder::new().name("stop".into()).spawn(move || {
        while !flag.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(50));
        }
        watched.stop();
    })?;
    Ok(stop)
}

/// A trace that is to be replayed, read once.
pub struct Opened {
    path: PathBuf,
    trace: Trace,
}

impl Opened {
    /// Reads it.
    pub fn open(path: &Path) -> Result<Opened> {
        let bar = crate::ui::progress(None, "{spinner} reading the trace");
        let trace = regauge_traces::open(path);
        bar.finish_and_clear();
        Ok(Opened { path: path.to_owned(), trace: trace? })
    }

    /// An experiment on it at a speed, without a design.
    pub fn config(&self, out: &Path, asked: &Experiment, speed: f64, arms: Arms, stop: &Stop) -> Result<StudyConfig> {
        let bar = crate::ui::progress(None, "{spinner} planning");
        let plan = Plan::build(&self.trace.spans, &PlanOptions { speed });
        bar.finish_and_clear();
        let plan = plan?;
        let workload = Workload::of(&self.trace, &plan);
        if plan.resized > 0 {
            eprintln!("note: {} packets could not be given their recorded length", plan.resized);
        }
        let warmup_ns = match asked.warmup {
            Some(warmup) => warmup.as_nanos() as u64,
            None => (workload.duration_ns / 10).min(2_000_000_000),
        };
        Ok(StudyConfig {
            exe: std::env::current_exe().context("cannot find this program's own file")?,
            trace: self.path.clone(),
            workload,
            arms,
            blocks: asked.blocks.unwrap_or(10),
            sized: None,
            seed: asked.seed,
            out: out.to_owned(),
            warmup_ns,
            drain_ns: 5_000_000_000,
            speed,
            pilot_ns: 2_000_000_000,
            layout: asked.layout.clone(),
            settled: None,
            stamps: asked.stamps,
            design: None,
            gates: None,
            timeouts: Timeouts::default(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            command: std::env::args().collect(),
            stop: stop.clone(),
        })
    }
}

/// Plans the trace and runs the blocks of an experiment that ends in no verdict: no design, no control, no reruns.
pub fn experiment(trace: &Path, out: &Path, asked: &Experiment, stop: &Stop) -> Result<StudySummary> {
    let config = Opened::open(trace)?.config(out, asked, asked.speed, Arms::load(&asked.arms)?, stop)?;
    let mut watcher = Watcher::new();
    let summary = run_study(config, &mut watcher);
    watcher.finish();
    Ok(summary?)
}

/// What came of it, for a person.
pub fn words(series: &Series) -> String {
    let mut lines = Vec::new();
    for summary in series.summary.iter().chain(&series.loads) {
        let mut done = format!("{} of {} runs are done", summary.runs_finished, summary.runs_planned);
        if summary.runs_resumed > 0 {
            done.push_str(&format!(" ({} from an earlier call)", summary.runs_resumed));
        }
        done.push_str(&format!(", {} of {} blocks complete", summary.blocks_complete, summary.blocks_wanted));
        if !series.loads.is_empty() {
            done.push_str(&format!(": {}", summary.study.display()));
        }
        lines.push(done);
        lines.extend(complaints(summary));
    }
    if let Some(summary) = &series.summary {
        lines.push(format!("next: regauge analyze {0}   and   regauge report {0}", summary.study.display()));
    }
    lines.join("\n")
}

/// Invalid runs and warnings, one line each.
pub fn complaints(summary: &StudySummary) -> Vec<String> {
    let invalid = summary.invalid.iter().map(|run| {
        let of = if summary.blocks_flagged > 0 { "invalid" } else { "invalid so far" };
        format!("{of}: block {} {}: {}", run.block, run.arm, run.why.join("; "))
    });
    invalid.chain(summary.warnings.iter().map(|warning| format!("warning: {warning}"))).collect()
}
