//! Our side of `just bench-analysis`: writes the data set, and makes the percentile table of it in one of the ways that
//! are compared. bench.py runs each in a process of its own, so that memory is measured apart.
//!
//! Usage: `bench-analysis generate DIR SAMPLES`, `bench-analysis study DIR`, `bench-analysis (raw|exact|histograms) DIR`.
//! The latter three print JSON: the seconds from opening the files to the table, and the table.

#[path = "../../analysis/tests/common/mod.rs"]
mod common;
mod generate;

use generate::{ARMS, BLOCKS};
use regauge_analysis::counts::{Counts, PERCENTILES};
use regauge_analysis::quick_table::{self, Selection};
use regauge_analysis::samples::{Metric, read_histograms};
use regauge_traces::study::run_dir;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Per group (`arm/step`) its percentiles, ns.
type Table = BTreeMap<String, Vec<u64>>;

fn main() {
    if let Err(error) = run() {
        eprintln!("bench-analysis: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let table: fn(&Path) -> Result<Table> = match words.as_slice() {
        ["generate", dir, samples] => return generate::generate(Path::new(dir), samples.parse()?),
        ["study", dir] => return study(Path::new(dir)),
        ["raw", _] => raw,
        ["exact", _] => exact,
        ["histograms", _] => histograms,
        _ => return Err("say generate DIR SAMPLES, study DIR, or raw, exact or histograms with DIR".into()),
    };
    let begin = Instant::now();
    let table = table(Path::new(words[1]))?;
    let seconds = begin.elapsed().as_secs_f64();
    println!("{}", serde_json::json!({"seconds": seconds, "table": table}));
    Ok(())
}

/// The same file of all blocks, per arm.
fn files(dir: &Path, name: &str) -> Vec<Vec<PathBuf>> {
    ARMS.iter().map(|arm| (0..BLOCKS).map(|block| run_dir(dir, block, arm).join(name)).collect()).collect()
}

fn percentiles(counts: &Counts) -> Vec<u64> {
    PERCENTILES.iter().filter_map(|percentile| counts.quantile(percentile.ppm)).collect()
}

fn table<T>(groups: Vec<BTreeMap<String, T>>, of: impl Fn(T) -> Vec<u64>) -> Table {
    let rows = groups
        .into_iter()
        .zip(ARMS)
        .flat_map(|(steps, arm)| steps.into_iter().map(move |(step, value)| (format!("{arm}/{step}"), value)));
    rows.map(|(group, value)| (group, of(value))).collect()
}

fn raw(dir: &Path) -> Result<Table> {
    let groups = quick_table::bucketed(&files(dir, "requests.parquet"), &Selection::by_step(Metric::Latency))?;
    Ok(table(groups, |counts| percentiles(&counts)))
}

fn exact(dir: &Path) -> Result<Table> {
    let ppms = PERCENTILES.map(|percentile| percentile.ppm);
    let selection = Selection::by_step(Metric::Latency);
    Ok(table(quick_table::exact(&files(dir, "requests.parquet"), &selection, &ppms)?, |values| values))
}

fn histograms(dir: &Path) -> Result<Table> {
    let mut groups = Vec::new();
    for paths in files(dir, "histograms.parquet") {
        let mut steps: BTreeMap<String, Vec<Counts>> = BTreeMap::new();
        for path in paths {
            for row in read_histograms(&path)? {
                if row.metric == Metric::Latency {
                    steps.entry(row.step).or_default().push(row.counts);
                }
            }
        }
        groups.push(steps);
    }
    Ok(table(groups, |blocks| percentiles(&Counts::merged(&blocks))))
}

/// A study of six arms and ten blocks with known truth, as tests write it, for timing the report.
fn study(dir: &Path) -> Result<()> {
    let small = common::Spec::small();
    let arm = |name, median, rate| common::ArmSpec::new(name, "tokio-shared", median).stalls(rate, 6e6);
    let mut arms = vec![arm("control", 180e3, 2e-3), arm("tokio-offload", 170e3, 1e-3)];
    arms.splice(0..0, small.arms.first().cloned());
    arms.extend(small.arms.into_iter().skip(1).map(|arm| arm.invalid(&[])));
    let spec = common::Spec {
        blocks: BLOCKS,
        requests: 40_000,
        interval_ns: 500_000,
        warmup_ns: 2_000_000_000,
        arms,
        ..common::Spec::small()
    };
    common::write_study(dir, &spec);
    Ok(())
}
