//! `regauge analyze`: the tables of a study.

use anyhow::Result;
use std::path::PathBuf;

/// Compute a study's tables: pooled percentiles, ratios to the base arm with intervals, refusals
#[derive(clap::Args)]
pub struct Args {
    /// The study's directory
    study: PathBuf,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let bar = crate::ui::progress(None, "{spinner} reading the samples of the study ({elapsed})");
    let analysis = regauge_analysis::analyze(&args.study);
    bar.finish_and_clear();
    let analysis = analysis?;
    if args.json {
        crate::ui::print_json(&analysis)
    } else {
        crate::ui::print(&regauge_analysis::terminal::render(&analysis))
    }
}
