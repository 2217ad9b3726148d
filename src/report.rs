//! `regauge report`: one self-contained HTML file.

use anyhow::Result;
use std::path::PathBuf;

/// Write a study's report: one self-contained HTML file that works offline
#[derive(clap::Args)]
pub struct Args {
    /// The study's directory
    study: PathBuf,
    /// Print the path as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let bar = crate::ui::progress(None, "{spinner} drawing the report ({elapsed})");
    let path = regauge_analysis::report(&args.study);
    bar.finish_and_clear();
    let path = path?;
    if args.json {
        crate::ui::print_json(&serde_json::json!({"report": path}))
    } else {
        crate::ui::print(&format!("report: {}", path.display()))
    }
}
