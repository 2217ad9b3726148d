//! Reads the three columns that a percentile table needs from many requests.parquet files at once.
//!
//! With the `parquet` crate and not with polars: per batch there are a dictionary of steps and two slices of integers,
//! and nothing is gathered into a frame. Each thread takes the next file, and keeps what it made of it to itself.

use crate::error::AnalysisError;
use crate::samples::Metric;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use regauge_traces::study::sample_flags::WARMUP;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows decoded at once: three columns of it stay in a core's cache.
const BATCH_ROWS: usize = 8 * 1024;

/// What one thread made of one step of one group.
type Part<T> = (usize, String, T);

/// Reads all files of all groups and gives every measured time to `add`, with a state of its own per thread, group and
/// step, which `blank` makes. The states come back in no particular order.
pub(super) fn all<T: Send>(
    groups: &[Vec<PathBuf>],
    metric: Metric,
    blank: impl Fn(usize, &str) -> T + Sync,
    add: impl Fn(&mut T, u64) + Sync,
) -> Result<Vec<Part<T>>, AnalysisError> {
    let files: Vec<(usize, &Path)> = groups
        .iter()
        .enumerate()
        .flat_map(|(group, paths)| paths.iter().map(move |path| (group, path.as_path())))
        .collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len());
    let next = AtomicUsize::new(0);
    let work = || -> Result<BTreeMap<usize, Steps<T>>, AnalysisError> {
        let mut states: BTreeMap<usize, Steps<T>> = BTreeMap::new();
        while let Some((group, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let steps = states.entry(*group).or_default();
            one(path, metric, steps, &|step| blank(*group, step), &add)?;
        }
        Ok(states)
    };
    let results: Vec<Result<BTreeMap<usize, Steps<T>>, AnalysisError>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        // A damaged page can make the reader panic instead of failing; to the caller both are a file that is damaged.
        let lost = || AnalysisError::BadParquet {
            path: files.first().map(|(_, path)| path.to_path_buf()).unwrap_or_default(),
            reason: "its content, or that of another run, is damaged".to_owned(),
        };
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(lost()))).collect()
    });
    let mut parts = Vec::new();
    for states in results {
        for (group, steps) in states? {
            parts.extend(steps.names.into_iter().zip(steps.states).map(|(name, state)| (group, name, state)));
        }
    }
    Ok(parts)
}

/// The states of one group in one thread.
struct Steps<T> {
    names: Vec<String>,
    states: Vec<T>,
}

impl<T> Default for Steps<T> {
    fn default() -> Self {
        Steps { names: Vec::new(), states: Vec::new() }
    }
}

impl<T> Steps<T> {
    fn index_of(&mut self, name: &str, blank: &impl Fn(&str) -> T) -> usize {
        self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.states.push(blank(name));
            self.names.len() - 1
        })
    }
}

fn one<T>(
    path: &Path,
    metric: Metric,
    steps: &mut Steps<T>,
    blank: &impl Fn(&str) -> T,
    add: &impl Fn(&mut T, u64),
) -> Result<(), AnalysisError> {
    let bad = |reason: String| AnalysisError::BadParquet { path: path.to_path_buf(), reason };
    let file = File::open(path).map_err(|error| AnalysisError::io("read", path, error))?;
    let time = format!("{}_ns", metric.name());
    let metadata = metadata(&file, path, &time)?;
    let columns = ProjectionMask::columns(metadata.parquet_schema(), ["step", "flags", time.as_str()]);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_projection(columns)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| bad(error.to_string()))?;
    for batch in reader {
        let batch = batch.map_err(|error| bad(error.to_string()))?;
        take(&batch, &time, steps, blank, add).map_err(bad)?;
    }
    Ok(())
}

/// The file's metadata, with its steps to be read as a dictionary; checks that the columns are there.
fn metadata(file: &File, path: &Path, time: &str) -> Result<ArrowReaderMetadata, AnalysisError> {
    let bad = |error: parquet::errors::ParquetError| AnalysisError::BadParquet {
        path: path.to_path_buf(),
        reason: error.to_string(),
    };
    let found = ArrowReaderMetadata::load(file, ArrowReaderOptions::new()).map_err(bad)?;
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields: Vec<Field> = found.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    for (name, wanted) in [("step", &DataType::Utf8), ("flags", &DataType::UInt32), (time, &DataType::UInt64)] {
        let bad_column =
            |reason: String| AnalysisError::BadColumn { path: path.to_path_buf(), column: name.to_owned(), reason };
        let field = fields.iter_mut().find(|field| field.name() == name);
        let field = field.ok_or_else(|| bad_column("it is missing".to_owned()))?;
        if *wanted == DataType::Utf8 {
            let is_text = match field.data_type() {
                DataType::Dictionary(_, values) => matches!(**values, DataType::Utf8 | DataType::LargeUtf8),
                other => matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
            };
            if is_text {
                *field = field.clone().with_data_type(dictionary.clone());
                continue;
            }
        }
        if field.data_type() != wanted {
            return Err(bad_column(format!("it holds {} instead of {wanted}", field.data_type())));
        }
    }
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
    ArrowReaderMetadata::try_new(Arc::clone(found.metadata()), options).map_err(bad)
}

fn take<T>(
    batch: &RecordBatch,
    time: &str,
    steps: &mut Steps<T>,
    blank: &impl Fn(&str) -> T,
    add: &impl Fn(&mut T, u64),
) -> Result<(), String> {
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("its column `{name}` was not read"));
    let other = |name: &str| format!("its column `{name}` was read as another type");
    let step = column("step")?.as_dictionary_opt::<Int32Type>().ok_or_else(|| other("step"))?;
    let flags = column("flags")?.as_primitive_opt::<UInt32Type>().ok_or_else(|| other("flags"))?;
    let times = column(time)?.as_primitive_opt::<UInt64Type>().ok_or_else(|| other(time))?;
    for (name, array) in [("step", step as &dyn Array), ("flags", flags)] {
        if array.null_count() > 0 {
            return Err(format!("{} values of its column `{name}` are null", array.null_count()));
        }
    }
    let names = step.values().as_string_opt::<i32>().ok_or_else(|| other("step"))?;
    let of_key: Vec<usize> = names.iter().map(|name| steps.index_of(name.unwrap_or_default(), blank)).collect();
    let rows = step.keys().values().iter().zip(flags.values()).zip(times.values());
    let mut one = |key: i32, flags: u32, time: u64| {
        let state = usize::try_from(key).ok().and_then(|key| of_key.get(key)).and_then(|at| steps.states.get_mut(*at));
        if let (Some(state), 0) = (state, flags & WARMUP) {
            add(state, time);
        }
    };
    match times.nulls() {
        None => rows.for_each(|((key, flags), time)| one(*key, *flags, *time)),
        Some(nulls) => rows.zip(nulls.iter()).filter(|(_, valid)| *valid).for_each(|(((key, flags), time), _)| {
            one(*key, *flags, *time);
        }),
    }
    Ok(())
}
