//! `regauge explain`: one request's timeline.

use anyhow::Result;
use regauge_analysis::explain::{Which, explain, render};
use std::path::PathBuf;

/// Draw one request's timeline: where each part of its latency went
#[derive(clap::Args)]
pub struct Args {
    /// The study's directory
    study: PathBuf,
    /// Which request: BLOCK/ARM/OP_ID, or slowest, slowest:ARM, slowest:ARM:STEP
    #[arg(default_value = "slowest")]
    request: Which,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let bar = crate::ui::progress(None, "{spinner} reading stamps ({elapsed})");
    let explained = explain(&args.study, &args.request);
    bar.finish_and_clear();
    let explained = explained?;
    if args.json { crate::ui::print_json(&explained) } else { crate::ui::print(&render(&explained)) }
}
