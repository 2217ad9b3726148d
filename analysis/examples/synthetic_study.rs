//! Writes a study with known truth, for trying the analysis, the report and the notebooks without a measurement.
//!
//! `cargo run --release -p regauge-analysis --example synthetic_study -- DIR [small|full]`

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(dir) = arguments.next() else {
        eprintln!("name the directory to write: synthetic_study DIR [small|full]");
        std::process::exit(2);
    };
    let mut spec = common::Spec::small();
    if arguments.next().as_deref() == Some("full") {
        spec = common::Spec { blocks: 10, requests: 60_000, interval_ns: 500_000, warmup_ns: 3_000_000_000, ..spec };
    }
    common::write_study(Path::new(&dir), &spec);
    println!("{dir}: {} blocks of {} requests, {} arms", spec.blocks, spec.requests, spec.arms.len());
}
