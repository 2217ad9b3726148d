//! Writes a study with known truth, for trying the analysis, the report and the notebooks without a measurement.
//!
//! `synthetic_study DIR [small|full|sample] [MIGRATE|FIX|STAY|INSUFFICIENT]`
//!
//! `small` is what tests use, `full` is as large as a real study, `sample` is notebooks/sample-study, tables and report
//! included. With a verdict, tables and report are written too, with a
//! made-up decision of that verdict: for looking at the page, never for reading it.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/decisions.rs"]
mod decisions;
#[path = "../tests/common/sample.rs"]
mod sample;

use common::{ArmSpec, Spec};
use regauge_analysis::{Evaluation, terminal};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(dir) = arguments.next() else {
        return Err("name the directory to write: synthetic_study DIR [small|full] [VERDICT]".into());
    };
    let size = arguments.next();
    if size.as_deref() == Some("sample") {
        sample::write_sample(Path::new(&dir));
        let evaluation = Evaluation::of(Path::new(&dir))?;
        evaluation.write_tables()?;
        print!("{}", terminal::render(&evaluation.analysis));
        println!("\n{}", evaluation.write_report()?.display());
        return Ok(());
    }
    let mut spec = Spec::small();
    if size.as_deref() == Some("full") {
        spec = Spec { blocks: 10, requests: 60_000, interval_ns: 500_000, warmup_ns: 3_000_000_000, ..spec };
        let again = ArmSpec { name: "tokio-shared-again", ..spec.arms[0].clone() };
        spec.arms.extend([again, ArmSpec::new("tokio-own-thread", "tokio-shared", 170e3).stalls(1.7e-3, 7e6)]);
    }
    let dir = Path::new(&dir);
    common::write_study(dir, &spec);
    println!("{}: {} blocks of {} requests, {} arms", dir.display(), spec.blocks, spec.requests, spec.arms.len());
    if let Some(verdict) = arguments.next() {
        let verdict = decisions::VERDICTS.into_iter().find(|name| name.starts_with(&verdict));
        let mut evaluation = Evaluation::of(dir)?;
        let analysis = &mut evaluation.analysis;
        analysis.verdict = verdict.ok_or("no such verdict")?;
        analysis.decision = decisions::decision(analysis, analysis.verdict);
        print!("{}", terminal::render(analysis));
        evaluation.write_tables()?;
        println!("\n{}", evaluation.write_report()?.display());
    }
    Ok(())
}
