//! Writes the study of a diagnosis with a planted cause, for trying `diagnose`, `explain`, the lanes of the report and
//! of `analyze` without a measurement, and prints what they say.
//!
//! `cargo run --release -p regauge-analysis --example synthetic_diagnosis -- DIR`

#[path = "../tests/common/mod.rs"]
mod common;

use common::planted::write_planted;
use common::stamps::Planted;
use regauge_analysis::{Evaluation, diagnose, explain, terminal};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(dir) = std::env::args().nth(1) else { return Err("name the directory to write".into()) };
    let dir = Path::new(&dir);
    let planted = Planted { runnable: 9_000_000, thread_wait: 1_500_000, ..Planted::default() };
    write_planted(dir, 4, planted, &["quiet"], &[3]);
    print!("{}", diagnose::terminal::render(&diagnose::diagnose(dir, false)?));
    print!("\n{}", explain::render(&explain::explain(dir, &"slowest".parse()?)?));
    let evaluation = Evaluation::of(dir)?;
    print!("\n{}", terminal::render(&evaluation.analysis));
    println!("\n{}", evaluation.write_report()?.display());
    Ok(())
}
