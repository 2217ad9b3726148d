//! Reads the samples of runs with polars: histograms.parquet and requests.parquet.
//!
//! Each scan names its files, those of valid runs alone, instead of a glob with Hive columns: a parent directory called
//! `load=5` would become a column, an arm called `007` a number, and a broken file of an invalid run an error. The
//! layout stays Hive-partitioned for whoever opens it by hand (the notebooks do, and a test does).

use crate::counts::Counts;
use crate::error::AnalysisError;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use polars::prelude::*;
use regauge_traces::study::sample_flags::{LOST, NO_REPLY, UNSENT, WARMUP, WRONG};
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Which clock a time starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// From the planned time: what a user who does not wait for others sees.
    Latency,
    /// From the real send: what the server took, blind to a driver held up by earlier replies.
    Service,
}

impl Metric {
    /// Both, headline first.
    pub const BOTH: [Metric; 2] = [Metric::Latency, Metric::Service];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Latency => "latency",
            Metric::Service => "service",
        }
    }

    fn column(self) -> &'static str {
        match self {
            Metric::Latency => "latency_ns",
            Metric::Service => "service_ns",
        }
    }
}

/// One row of requests.parquet, without what the analysis does not need.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Index into [`RunSamples::steps`].
    pub step: usize,
    /// [`regauge_traces::study::sample_flags`].
    pub flags: u32,
    /// When it was due, ns from the run's start.
    pub planned_ns: u64,
    /// Reply − planned; `None` without a right reply.
    pub latency_ns: Option<u64>,
    /// Reply − sent; `None` likewise.
    pub service_ns: Option<u64>,
}

impl Sample {
    /// Planned after the warm-up cut.
    pub fn is_measured(&self) -> bool {
        self.flags & WARMUP == 0
    }

    /// Ended in an error.
    pub fn is_error(&self) -> bool {
        self.flags & (LOST | WRONG | UNSENT) != 0
    }

    /// Has no reply by protocol.
    pub fn is_without_reply(&self) -> bool {
        self.flags & NO_REPLY != 0
    }

    /// The time of a metric.
    pub fn time(&self, metric: Metric) -> Option<u64> {
        match metric {
            Metric::Latency => self.latency_ns,
            Metric::Service => self.service_ns,
        }
    }
}

/// The samples of one run in order of planned time, ties by operation id.
#[derive(Debug, Clone, Default)]
pub struct RunSamples {
    /// Root kinds in order of appearance.
    pub steps: Vec<String>,
    /// The samples.
    pub rows: Vec<Sample>,
}

/// Reads one requests.parquet.
///
/// # Errors
/// Unreadable file, missing column or column of another type, each named.
pub fn read_requests(path: &Path) -> Result<RunSamples, AnalysisError> {
    let wanted = [
        ("op_id", DataType::UInt64),
        ("step", DataType::String),
        ("planned_ns", DataType::UInt64),
        ("latency_ns", DataType::UInt64),
        ("service_ns", DataType::UInt64),
        ("flags", DataType::UInt32),
    ];
    let frame = scan(&[path.to_path_buf()], &wanted)?.sort(["planned_ns", "op_id"], SortMultipleOptions::default());
    let frame = collect(frame, path)?;
    let bad = |error: PolarsError| bad_parquet(path, &error);
    let planned = frame.column("planned_ns").and_then(|c| c.u64()).map_err(bad)?;
    let step = frame.column("step").and_then(|c| c.str()).map_err(bad)?;
    let latency = frame.column("latency_ns").and_then(|c| c.u64()).map_err(bad)?;
    let service = frame.column("service_ns").and_then(|c| c.u64()).map_err(bad)?;
    let flags = frame.column("flags").and_then(|c| c.u32()).map_err(bad)?;
    for (name, nulls) in
        [("planned_ns", planned.null_count()), ("step", step.null_count()), ("flags", flags.null_count())]
    {
        if nulls > 0 {
            return Err(bad_column(path, name, format!("{nulls} of its values are null")));
        }
    }
    let mut samples = RunSamples { steps: Vec::new(), rows: Vec::with_capacity(frame.height()) };
    let mut index: HashMap<&str, usize> = HashMap::new();
    let columns = planned.iter().zip(step.iter()).zip(flags.iter()).zip(latency.iter().zip(service.iter()));
    for (((planned_ns, step), flags), (latency_ns, service_ns)) in columns {
        let (Some(planned_ns), Some(step), Some(flags)) = (planned_ns, step, flags) else { continue };
        let step = *index.entry(step).or_insert_with(|| {
            samples.steps.push(step.to_owned());
            samples.steps.len() - 1
        });
        samples.rows.push(Sample { step, flags, planned_ns, latency_ns, service_ns });
    }
    Ok(samples)
}

/// Every measured time of a metric over several runs, exact: per step, as polars reads it from the raw samples. What was
/// planned before `cut_ns` is left out, beside what the files call warm-up.
///
/// # Errors
/// As [`read_requests`].
pub fn read_exact(paths: &[PathBuf], metric: Metric, cut_ns: u64) -> Result<HashMap<String, Counts>, AnalysisError> {
    let Some(first) = paths.first() else { return Ok(HashMap::new()) };
    let wanted = [
        ("step", DataType::String),
        (metric.column(), DataType::UInt64),
        ("flags", DataType::UInt32),
        ("planned_ns", DataType::UInt64),
    ];
    let frame =
        scan(paths, &wanted)?.filter(col(metric.column()).is_not_null().and(col("planned_ns").gt_eq(lit(cut_ns))));
    let frame = collect(frame, first)?;
    let bad = |error: PolarsError| bad_parquet(first, &error);
    let step = frame.column("step").and_then(|c| c.str()).map_err(bad)?;
    let flags = frame.column("flags").and_then(|c| c.u32()).map_err(bad)?;
    let times = frame.column(metric.column()).and_then(|c| c.u64()).map_err(bad)?;
    let mut values: HashMap<&str, Vec<u64>> = HashMap::new();
    for ((step, flags), time) in step.iter().zip(flags.iter()).zip(times.iter()) {
        if let (Some(step), Some(flags), Some(time)) = (step, flags, time)
            && flags & WARMUP == 0
        {
            values.entry(step).or_default().push(time);
        }
    }
    Ok(values.into_iter().map(|(step, values)| (step.to_owned(), Counts::from_values(values))).collect())
}

/// One row of histograms.parquet, decoded.
#[derive(Debug, Clone)]
pub struct StepHistogram {
    /// Root kind.
    pub step: String,
    /// Which clock.
    pub metric: Metric,
    /// Its non-empty buckets.
    pub counts: Counts,
    /// Significant digits that it was recorded with.
    pub digits: u8,
}

/// Reads one histograms.parquet.
///
/// # Errors
/// Unreadable file, missing column, unknown metric, a blob that does not decode.
pub fn read_histograms(path: &Path) -> Result<Vec<StepHistogram>, AnalysisError> {
    let wanted = [("step", DataType::String), ("metric", DataType::String), ("blob", DataType::Binary)];
    let frame = collect(scan(&[path.to_path_buf()], &wanted)?, path)?;
    let bad = |error: PolarsError| bad_parquet(path, &error);
    let steps = frame.column("step").and_then(|c| c.str()).map_err(bad)?;
    let metrics = frame.column("metric").and_then(|c| c.str()).map_err(bad)?;
    let blobs = frame.column("blob").and_then(|c| c.binary()).map_err(bad)?;
    let mut found = Vec::with_capacity(frame.height());
    for ((step, metric), blob) in steps.iter().zip(metrics.iter()).zip(blobs.iter()) {
        let (step, name) = (step.unwrap_or_default(), metric.unwrap_or_default());
        let metric = Metric::BOTH
            .into_iter()
            .find(|metric| metric.name() == name)
            .ok_or_else(|| bad_column(path, "metric", format!("`{name}` is neither `latency` nor `service`")))?;
        let histogram = decode(blob.unwrap_or_default()).map_err(|reason| AnalysisError::BadHistogram {
            path: path.to_path_buf(),
            step: step.to_owned(),
            metric: name.to_owned(),
            reason,
        })?;
        let counts = Counts::from_histogram(&histogram);
        found.push(StepHistogram { step: step.to_owned(), metric, counts, digits: histogram.sigfig() });
    }
    Ok(found)
}

/// Decodes an HdrHistogram in its V2 serialisation. The length that the header claims is checked first, since the
/// decoder allocates it.
fn decode(blob: &[u8]) -> Result<Histogram<u64>, String> {
    const HEADER: usize = 40;
    const COOKIE_V2: u32 = 0x1c84_9303;
    let word = |at: usize| {
        blob.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(u32::from_be_bytes).unwrap_or(0)
    };
    // The low byte's upper half says how wide a count is; V2 as written here has variable width (0x10).
    if blob.len() < HEADER || word(0) & !0xf0 != COOKIE_V2 {
        return Err("it does not begin as the V2 serialisation of an HdrHistogram".to_owned());
    }
    let claimed = word(4) as usize;
    if claimed != blob.len() - HEADER {
        return Err(format!("its header announces {claimed} bytes of counts, and {} follow", blob.len() - HEADER));
    }
    Deserializer::new().deserialize(&mut &*blob).map_err(|error| error.to_string())
}

/// A lazy scan of files that must have these columns; steps may be dictionary-encoded.
pub(crate) fn scan(paths: &[PathBuf], wanted: &[(&str, DataType)]) -> Result<LazyFrame, AnalysisError> {
    let first = paths.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
    for path in paths {
        // polars reports a missing file as a missing schema; the operating system's words are clearer.
        std::fs::File::open(path).map_err(|error| AnalysisError::io("read", path, error))?;
        let mut one = open(std::slice::from_ref(path))?;
        let schema = guarded(path, || one.collect_schema())?;
        for (name, dtype) in wanted {
            match schema.get(name) {
                None => return Err(bad_column(path, name, "it is missing".to_owned())),
                Some(found) if found == dtype || (*dtype == DataType::String && found.is_categorical()) => {}
                Some(found) => return Err(bad_column(path, name, format!("it holds {found} instead of {dtype}"))),
            }
        }
    }
    let columns: Vec<Expr> = wanted
        .iter()
        .map(|(name, dtype)| if *dtype == DataType::String { col(*name).cast(DataType::String) } else { col(*name) })
        .collect();
    let lazy = guarded(first, || open(paths).map_err(|error| PolarsError::ComputeError(error.to_string().into())))?;
    Ok(lazy.select(columns))
}

/// Whether a file has all of these columns, of whatever type.
pub(crate) fn has_columns(path: &Path, names: &[&str]) -> Result<bool, AnalysisError> {
    let mut one = open(&[path.to_path_buf()])?;
    let schema = guarded(path, || one.collect_schema())?;
    Ok(names.iter().all(|name| schema.contains(name)))
}

/// A column of a frame that was scanned with its type.
pub(crate) fn column_u64(frame: &DataFrame, name: &str, path: &Path) -> Result<Vec<Option<u64>>, AnalysisError> {
    let column = frame.column(name).and_then(|column| column.u64()).map_err(|error| bad_parquet(path, &error))?;
    Ok(column.iter().collect())
}

/// A column of a frame that was scanned with its type.
pub(crate) fn column_u32(frame: &DataFrame, name: &str, path: &Path) -> Result<Vec<Option<u32>>, AnalysisError> {
    let column = frame.column(name).and_then(|column| column.u32()).map_err(|error| bad_parquet(path, &error))?;
    Ok(column.iter().collect())
}

fn open(paths: &[PathBuf]) -> Result<LazyFrame, AnalysisError> {
    let first = paths.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
    let bad = |error: PolarsError| bad_parquet(first, &error);
    let files =
        paths.iter().map(|path| PlRefPath::try_from_path(path)).collect::<PolarsResult<Vec<_>>>().map_err(bad)?;
    let args =
        ScanArgsParquet { glob: false, hive_options: polars::io::HiveOptions::new_disabled(), ..Default::default() };
    LazyFrame::scan_parquet_files(files.into_iter().collect(), args).map_err(bad)
}

pub(crate) fn collect(frame: LazyFrame, path: &Path) -> Result<DataFrame, AnalysisError> {
    guarded(path, || frame.collect())
}

/// Runs a polars call on a file from outside. Damaged pages can make the reader panic instead of failing; to the
/// caller both are a file that cannot be read.
fn guarded<T>(path: &Path, call: impl FnOnce() -> PolarsResult<T>) -> Result<T, AnalysisError> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(bad_parquet(path, &error)),
        Err(_) => {
            Err(AnalysisError::BadParquet { path: path.to_path_buf(), reason: "its content is damaged".to_owned() })
        }
    }
}

pub(crate) fn bad_parquet(path: &Path, error: &PolarsError) -> AnalysisError {
    // The first line says it; the rest is the query plan.
    let text = error.to_string();
    let reason = text.lines().next().unwrap_or("unknown error").to_owned();
    AnalysisError::BadParquet { path: path.to_path_buf(), reason }
}

fn bad_column(path: &Path, column: &str, reason: String) -> AnalysisError {
    AnalysisError::BadColumn { path: path.to_path_buf(), column: column.to_owned(), reason }
}
