//! `regauge`: would this broker's tail latency really get better on another async runtime, and why?
//!
//! One file per verb; this one only chooses between them.

mod analyze;
mod completions;
mod design;
mod diagnose;
mod doctor;
mod drive;
mod explain;
mod meta;
mod record;
mod replay;
mod report;
mod series;
mod serve;
mod study;
mod trace;
mod trace_ops;
mod ui;
mod watch;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Would this broker's tail latency really get better on another async runtime, and why?
///
/// Record a trace from a running broker, replay it against the same broker built on several runtimes, and look at the
/// tails. `regauge study --quick` does all of it with a workload of its own, in about three minutes.
#[derive(Parser)]
#[command(name = "regauge", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Study(study::Args),
    Record(record::Args),
    Trace(trace::Args),
    Serve(serve::Args),
    Meta(meta::Args),
    Drive(drive::Args),
    Replay(replay::Args),
    Analyze(analyze::Args),
    Report(report::Args),
    Explain(explain::Args),
    Diagnose(diagnose::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Study(args) => study::run(args),
        Verb::Record(args) => record::run(args),
        Verb::Trace(args) => trace::run(args),
        Verb::Serve(args) => serve::run(args),
        Verb::Meta(args) => meta::run(args),
        Verb::Drive(args) => drive::run(args),
        Verb::Replay(args) => replay::run(args),
        Verb::Analyze(args) => analyze::run(args),
        Verb::Report(args) => report::run(args),
        Verb::Explain(args) => explain::run(args),
        Verb::Diagnose(args) => diagnose::run(args),
        Verb::Doctor(args) => doctor::run(args),
        Verb::Completions(args) => completions::run::<Cli>(args),
    };
    ui::exit(outcome)
}
