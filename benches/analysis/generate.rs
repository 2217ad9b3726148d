//! Writes many raw samples in the layout of a study, with the encodings that the replayer writes with.

use crate::Result;
use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use regauge_traces::study::sample_flags::{LOST, WARMUP};
use regauge_traces::study::{REQUEST_COLUMNS, run_dir};
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Blocks of the data set.
pub const BLOCKS: u32 = 10;
/// Its arms; with the steps, 24 groups.
pub const ARMS: [&str; 6] = ["tokio-shared", "control", "tokio-offload", "tokio-pinned", "monoio", "compio"];
/// Its steps, each with the share of requests (in percent) and the median latency, ns.
const STEPS: [(&str, u64, f64); 4] =
    [("connect", 10, 900e3), ("publish", 75, 180e3), ("raft_proposal", 10, 400e3), ("segment_append", 5, 120e3)];
/// Rows per row group, as the replayer's.
const GROUP_ROWS: u64 = 128 * 1024;
/// Requests are due every 100 µs; the first hundredth is warm-up.
const SPACING_NS: u64 = 100_000;

/// Writes about `samples` rows into `dir`, evenly over arms and blocks, unless they are there.
pub fn generate(dir: &Path, samples: u64) -> Result<()> {
    let runs: Vec<(u32, usize)> = (0..BLOCKS).flat_map(|block| (0..ARMS.len()).map(move |arm| (block, arm))).collect();
    let rows = samples / runs.len() as u64;
    let stamp = dir.join("rows-per-run");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == rows.to_string()) {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let work = || -> std::result::Result<(), String> {
            while let Some((block, arm)) = runs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                write_run(dir, *block, *arm, rows).map_err(|error| error.to_string())?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a writer failed".to_owned())))
    })?;
    fs::write(stamp, rows.to_string())?;
    Ok(())
}

/// One request of a run.
struct Row {
    step: usize,
    planned: u64,
    lag: u64,
    latency: Option<u64>,
    flags: u32,
}

fn write_run(dir: &Path, block: u32, arm: usize, rows: u64) -> Result<()> {
    let run = run_dir(dir, block, ARMS[arm]);
    fs::create_dir_all(&run)?;
    let mut random = Random(u64::from(block) << 32 | arm as u64);
    let effect = (0.1 * random.normal()).exp() * (1.0 - 0.08 * arm as f64);
    let mut stall = 0.0;
    let mut histograms = Vec::new();
    for _ in 0..STEPS.len() * 2 {
        histograms.push(Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3)?);
    }
    let mut writer: Option<ArrowWriter<File>> = None;
    for first in (0..rows).step_by(GROUP_ROWS as usize) {
        let group: Vec<Row> =
            (first..rows.min(first + GROUP_ROWS)).map(|op| row(op, rows, effect, &mut stall, &mut random)).collect();
        for row in group.iter().filter(|row| row.flags & WARMUP == 0) {
            let Some(latency) = row.latency else { continue };
            histograms[row.step * 2].saturating_record(latency);
            histograms[row.step * 2 + 1].saturating_record(latency - row.lag);
        }
        let batch = batch(first, &group)?;
        let open = match writer.take() {
            Some(open) => Ok(open),
            None => ArrowWriter::try_new(File::create(run.join("requests.parquet"))?, batch.schema(), Some(delta()?)),
        };
        writer.insert(open?).write(&batch)?;
    }
    if let Some(writer) = writer {
        writer.close()?;
    }
    write_histograms(&run.join("histograms.parquet"), &histograms)
}

fn row(op: u64, rows: u64, effect: f64, stall: &mut f64, random: &mut Random) -> Row {
    let mut pick = random.next() % 100;
    let step = STEPS.iter().position(|(_, share, _)| {
        let hit = pick < *share;
        pick = pick.saturating_sub(*share);
        hit
    });
    let step = step.unwrap_or(0);
    if *stall <= 0.0 && random.next().is_multiple_of(5_000) {
        *stall = 2e6 * (0.6 * random.normal()).exp();
    }
    let own = STEPS[step].2 * effect * (0.4 * random.normal()).exp();
    let latency = own + stall.max(0.0);
    *stall -= SPACING_NS as f64;
    let lost = random.next().is_multiple_of(20_000);
    let lag = random.next() % 30_000;
    let flags = if op * 100 < rows { WARMUP } else { 0 } | if lost { LOST } else { 0 };
    Row { step, planned: op * SPACING_NS, lag, latency: (!lost).then_some(latency as u64 + lag), flags }
}

fn batch(first: u64, rows: &[Row]) -> Result<RecordBatch> {
    let u64s = |of: &dyn Fn(u64, &Row) -> Option<u64>| -> ArrayRef {
        Arc::new(rows.iter().zip(first..).map(|(row, op)| of(op, row)).collect::<UInt64Array>())
    };
    let u32s = |of: &dyn Fn(u64, &Row) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(rows.iter().zip(first..).map(|(row, op)| of(op, row))))
    };
    let columns: Vec<ArrayRef> = vec![
        u64s(&|op, _| Some(op)),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| STEPS[row.step].0))),
        u32s(&|op, _| (op % 512) as u32),
        u64s(&|_, row| Some(row.planned)),
        u64s(&|_, row| Some(row.planned + row.lag)),
        u64s(&|_, row| row.latency),
        u64s(&|_, row| row.latency.map(|latency| latency - row.lag)),
        u32s(&|_, _| 0),
        u32s(&|_, row| row.flags),
        u32s(&|op, _| (op % 512) as u32),
        u64s(&|op, _| Some(op / 512 * 180)),
        u64s(&|op, row| row.latency.map(|_| op / 512 * 4)),
        u64s(&|_, row| Some(row.lag)),
        u64s(&|_, row| row.latency.map(|_| row.lag / 2)),
    ];
    Ok(RecordBatch::try_from_iter(REQUEST_COLUMNS.into_iter().zip(columns))?)
}

/// Times and counters delta-encoded, the rest as the writer likes, as in the replayer.
fn delta() -> Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(GROUP_ROWS as usize));
    for name in REQUEST_COLUMNS.into_iter().filter(|name| !["step", "status", "flags"].contains(name)) {
        let column = ColumnPath::from(name);
        properties = properties.set_column_dictionary_enabled(column.clone(), false);
        properties = properties.set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}

fn write_histograms(path: &Path, histograms: &[Histogram<u64>]) -> Result<()> {
    let keys = || STEPS.iter().flat_map(|(step, ..)| ["latency", "service"].map(|metric| (*step, metric)));
    let mut blobs = Vec::new();
    for histogram in histograms {
        let mut blob = Vec::new();
        V2Serializer::new().serialize(histogram, &mut blob).map_err(|error| format!("{error:?}"))?;
        blobs.push(blob);
    }
    let columns: [(&str, ArrayRef); 3] = [
        ("step", Arc::new(StringArray::from_iter_values(keys().map(|key| key.0)))),
        ("metric", Arc::new(StringArray::from_iter_values(keys().map(|key| key.1)))),
        ("blob", Arc::new(BinaryArray::from_iter_values(blobs))),
    ];
    let batch = RecordBatch::try_from_iter(columns)?;
    let mut writer = ArrowWriter::try_new(File::create(path)?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Close to a standard normal: the sum of twelve uniform numbers, less six. Enough for a data set that is only timed.
    fn normal(&mut self) -> f64 {
        let bits = [self.next(), self.next(), self.next()];
        let words = bits.iter().flat_map(|word| (0..4).map(move |at| (word >> (16 * at)) & 0xffff));
        words.map(|word| (word as f64 + 0.5) / 65_536.0).sum::<f64>() - 6.0
    }
}
