//! `regauge replay`: the experiment on a given trace. `regauge study` is this with a recording before it.

use anyhow::{Context, Result, bail};
use regauge_replayer::arms::Arms;
use regauge_replayer::experiment::{Event, Phase, Progress, StudyConfig, StudySummary, Workload, run_study};
use regauge_replayer::plan::{Plan, PlanOptions};
use regauge_replayer::process::Timeouts;
use regauge_runtimes::Stop;
use std::io::IsTerminal;
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
    /// Blocks: each runs every arm once (default 10); more than a study has so far adds the others
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
    let summary = experiment(&args.trace, &args.out, &args.experiment, &stop)?;
    if args.json {
        crate::ui::print_json(&summary)?;
    } else {
        crate::ui::print(&words(&summary))?;
    }
    if summary.interrupted {
        bail!(
            "interrupted after {} of {} runs; the same command continues",
            summary.runs_finished,
            summary.runs_planned
        );
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

/// Plans the trace and runs the blocks.
pub fn experiment(trace: &Path, out: &Path, asked: &Experiment, stop: &Stop) -> Result<StudySummary> {
    let arms = Arms::load(&asked.arms)?;
    let bar = crate::ui::progress(None, "{spinner} planning");
    let opened = regauge_traces::open(trace)?;
    let plan = Plan::build(&opened.spans, &PlanOptions { speed: asked.speed })?;
    bar.finish_and_clear();
    let workload = Workload {
        workload_hash: regauge_traces::workload_hash(&opened.spans),
        plan_hash: plan.hash(),
        trace_source: opened.meta.source.clone(),
        requests: plan.requests(),
        duration_ns: plan.duration_ns(),
    };
    if plan.resized > 0 {
        eprintln!("note: {} packets could not be given their recorded length", plan.resized);
    }
    let warmup_ns = match asked.warmup {
        Some(warmup) => warmup.as_nanos() as u64,
        None => (workload.duration_ns / 10).min(2_000_000_000),
    };
    let config = StudyConfig {
        exe: std::env::current_exe().context("cannot find this program's own file")?,
        trace: trace.to_owned(),
        workload,
        arms,
        blocks: asked.blocks.unwrap_or(10),
        seed: asked.seed,
        out: out.to_owned(),
        warmup_ns,
        drain_ns: 5_000_000_000,
        speed: asked.speed,
        pilot_ns: 2_000_000_000,
        layout: asked.layout.clone(),
        stamps: asked.stamps,
        design: None,
        gates: None,
        timeouts: Timeouts::default(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        command: std::env::args().collect(),
        stop: stop.clone(),
    };
    let mut watcher = Watcher::new();
    let summary = run_study(config, &mut watcher);
    watcher.bar.finish_and_clear();
    Ok(summary?)
}

/// A progress bar with an honest guess of what is left; without a terminal, one line a block.
struct Watcher {
    bar: indicatif::ProgressBar,
    told: Option<u32>,
}

impl Watcher {
    fn new() -> Watcher {
        Watcher { bar: crate::ui::progress(Some(1000), "{bar:24} {percent:>3} %  {msg}"), told: None }
    }
}

impl Progress for Watcher {
    fn update(&mut self, event: &Event<'_>) {
        self.bar.set_position((event.fraction * 1000.0) as u64);
        let what = match event.phase {
            Phase::Pilot => format!("trying the {} layout", event.arm),
            Phase::Probe => format!("probing {}", event.arm),
            _ => format!("block {}/{}  {}", event.block + 1, event.blocks, event.arm),
        };
        let left = event
            .eta
            .map_or(String::new(), |eta| format!("  about {} left", crate::ui::duration(eta.as_nanos() as u64)));
        self.bar.set_message(format!("{what}{left}"));
        let runs = !matches!(event.phase, Phase::Pilot | Phase::Probe);
        if runs && self.told != Some(event.block) && !std::io::stderr().is_terminal() {
            self.told = Some(event.block);
            eprintln!("block {} of {}{left}", event.block + 1, event.blocks);
        }
    }

    fn note(&mut self, sentence: &str) {
        self.bar.suspend(|| eprintln!("note: {sentence}"));
    }
}

/// What came of it, for a person.
pub fn words(summary: &StudySummary) -> String {
    let mut text = format!("{} of {} runs are done", summary.runs_finished, summary.runs_planned);
    if summary.runs_resumed > 0 {
        text.push_str(&format!(" ({} from an earlier call)", summary.runs_resumed));
    }
    for invalid in &summary.invalid {
        text.push_str(&format!("\ninvalid: block {} {}: {}", invalid.block, invalid.arm, invalid.why.join("; ")));
    }
    for warning in &summary.warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    text.push_str(&format!("\nnext: regauge analyze {0}   and   regauge report {0}", summary.study.display()));
    text
}
