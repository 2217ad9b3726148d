//! Percentiles straight from raw samples are those of the sorted list (`exact`) and of the run's histograms (`bucketed`).

#![allow(clippy::unwrap_used)]

mod common;

use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt32Array, UInt64Array};
use common::{Random, write_parquet};
use proptest::prelude::*;
use regauge_analysis::counts::Counts;
use regauge_analysis::evidence::ALL;
use regauge_analysis::quick_table::{Selection, bucketed, exact};
use regauge_analysis::samples::{Metric, read_histograms, read_requests};
use regauge_traces::study::{run_dir, sample_flags::WARMUP};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PPMS: [u64; 7] = [0, 500_000, 900_000, 990_000, 999_000, 999_900, 1_000_000];

/// Step, latency, flags.
type Row = (&'static str, Option<u64>, u32);

fn write(path: &Path, rows: &[Row]) {
    let columns: [(&str, ArrayRef); 4] = [
        ("step", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)))),
        ("latency_ns", Arc::new(UInt64Array::from_iter(rows.iter().map(|row| row.1)))),
        ("service_ns", Arc::new(UInt64Array::from_iter(rows.iter().map(|row| row.1.map(|t| t / 2))))),
        ("flags", Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.2)))),
    ];
    write_parquet(path, RecordBatch::try_from_iter(columns).unwrap());
}

/// What the table of these files must say, by sorting.
fn by_sorting(runs: &[Vec<Row>]) -> BTreeMap<String, Counts> {
    let mut values: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (step, time, flags) in runs.iter().flatten() {
        if let (Some(time), 0) = (time, flags & WARMUP) {
            values.entry((*step).to_owned()).or_default().push(*time);
        }
    }
    values.into_iter().map(|(step, values)| (step, Counts::from_values(values))).collect()
}

fn files(dir: &Path, runs: &[Vec<Row>]) -> Vec<PathBuf> {
    let paths: Vec<PathBuf> = (0..runs.len()).map(|at| dir.join(format!("{at}.parquet"))).collect();
    runs.iter().zip(&paths).for_each(|(rows, path)| write(path, rows));
    paths
}

fn check(runs: &[Vec<Row>]) {
    let dir = tempfile::tempdir().unwrap();
    let paths = files(dir.path(), runs);
    let wanted: BTreeMap<String, Vec<u64>> = by_sorting(runs)
        .into_iter()
        .map(|(step, counts)| (step, PPMS.iter().map(|ppm| counts.quantile(*ppm).unwrap()).collect()))
        .collect();
    assert_eq!(exact(&[paths], &Selection::by_step(Metric::Latency), &PPMS).unwrap(), [wanted]);
}

#[test]
fn exact_is_the_sorted_list_with_millions_in_one_bucket_too() {
    let mut random = Random(3);
    let mut rows: Vec<Row> = (0..150_000)
        .map(|_| {
            let step = ["connect", "publish", "raft_proposal"][random.next() as usize % 3];
            let time = random.log_normal(2e5, 1.5) as u64;
            (
                step,
                (!random.next().is_multiple_of(50)).then_some(time),
                if random.next().is_multiple_of(20) { WARMUP } else { 0 },
            )
        })
        .collect();
    // Nearly equal values: all in one bucket, more than are kept singly.
    rows.extend((0..100_000).map(|at| ("segment_append", Some(40_000_000 + at % 97), 0)));
    // What no histogram tells apart: nothing at all, and hours.
    rows.extend((0..5_000).map(|at| ("publish", Some(if at % 2 == 0 { 0 } else { u64::MAX / 2 - at }), 0)));
    check(&rows.chunks(60_000).map(<[Row]>::to_vec).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn exact_is_the_sorted_list(times in prop::collection::vec((0_usize..3, prop::option::of(0_u64..9_000_000), 0_u32..3),
                                                               0..300)) {
        let rows: Vec<Row> = times.into_iter().map(|(step, time, flags)| (["a", "b", "c"][step], time, flags)).collect();
        check(&[rows.clone(), rows]);
    }
}

#[test]
fn bucketed_is_what_the_histograms_of_a_study_say() {
    let dir = tempfile::tempdir().unwrap();
    let spec = common::Spec::small();
    common::write_study(dir.path(), &spec);
    let of = |name: &str| -> Vec<Vec<PathBuf>> {
        let blocks = |arm: &str| (0..spec.blocks).map(|block| run_dir(dir.path(), block, arm).join(name)).collect();
        spec.arms.iter().map(|arm| blocks(arm.name)).collect()
    };
    for metric in Metric::BOTH {
        let tables = bucketed(&of("requests.parquet"), &Selection::by_step(metric)).unwrap();
        for (table, paths) in tables.iter().zip(of("histograms.parquet")) {
            let rows: Vec<_> = paths.iter().flat_map(|path| read_histograms(path).unwrap()).collect();
            let steps: Vec<&String> = table.keys().collect();
            assert_eq!(steps, ["connect", "publish"], "a step without replies has no row");
            for (step, counts) in table {
                let of_step = rows.iter().filter(|row| row.step == *step && row.metric == metric);
                assert_eq!(*counts, Counts::merged(of_step.map(|row| &row.counts)), "{step}");
            }
        }
    }
    assert!(bucketed(&[], &Selection::by_step(Metric::Latency)).unwrap().is_empty());
}

#[test]
fn a_later_cut_and_all_steps_pooled() {
    let dir = tempfile::tempdir().unwrap();
    let spec = common::Spec::small();
    common::write_study(dir.path(), &spec);
    let file = run_dir(dir.path(), 1, "monoio").join("requests.parquet");
    let rows = read_requests(&file).unwrap().rows;
    for from_ns in [0, 1_234_000_000, u64::MAX] {
        let measured = rows.iter().filter(|row| row.is_measured() && row.planned_ns >= from_ns);
        let times = Counts::from_values(measured.filter_map(|row| row.latency_ns).collect());
        let wanted = times.quantile(990_000).map(|value| (ALL.to_owned(), vec![value]));
        let selection = Selection { metric: Metric::Latency, from_ns, by_step: false };
        let table = exact(&[vec![file.clone()]], &selection, &[990_000]).unwrap();
        assert_eq!(table, [wanted.into_iter().collect()], "from {from_ns} ns");
    }
}

#[test]
fn bad_files_are_named_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let says = |path: &Path| {
        bucketed(&[vec![path.to_path_buf()]], &Selection::by_step(Metric::Service)).unwrap_err().to_string()
    };
    let path = dir.path().join("none.parquet");
    assert!(says(&path).contains("none.parquet"), "{}", says(&path));
    fs::write(&path, b"PAR1 but nothing of it").unwrap();
    assert!(says(&path).contains("cannot be read as Parquet"), "{}", says(&path));
    let flags: ArrayRef = Arc::new(UInt64Array::from(vec![0]));
    let step: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    write_parquet(&path, RecordBatch::try_from_iter([("step", step.clone()), ("flags", flags.clone())]).unwrap());
    assert!(says(&path).contains("`flags` (it holds UInt64 instead of UInt32)"), "{}", says(&path));
    let (number, flags): (ArrayRef, ArrayRef) = (flags, Arc::new(UInt32Array::from_iter_values([0])));
    let columns = [("step", number.clone()), ("flags", flags.clone()), ("service_ns", number)];
    write_parquet(&path, RecordBatch::try_from_iter(columns).unwrap());
    assert!(says(&path).contains("`step` (it holds UInt64 instead of Utf8)"), "{}", says(&path));
    write_parquet(&path, RecordBatch::try_from_iter([("step", step), ("flags", flags)]).unwrap());
    assert!(says(&path).contains("`service_ns` (it is missing)"), "{}", says(&path));
    // Cut or flipped anywhere, a file is an error or still a table, never a panic.
    write(&path, &(0..5_000).map(|at| ("a", Some(at * 977), 0)).collect::<Vec<Row>>());
    let bytes = fs::read(&path).unwrap();
    let mut random = Random(5);
    for _ in 0..60 {
        let mut damaged = bytes.clone();
        let at = random.next() as usize % bytes.len();
        if random.next().is_multiple_of(2) {
            damaged.truncate(at)
        } else {
            damaged[at] ^= 0x55
        }
        fs::write(&path, &damaged).unwrap();
        let _ = bucketed(&[vec![path.clone()]], &Selection::by_step(Metric::Latency));
    }
}
