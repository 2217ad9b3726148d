//! Reads the few columns that a percentile table needs from many requests.parquet files at once.
//!
//! With the `parquet` crate and not with polars: per batch there are a dictionary of steps and two slices of integers,
//! and nothing is gathered into a frame. Each thread takes the next file, and keeps what it made of it to itself.

use super::Selection;
use crate::error::AnalysisError;
use crate::evidence::ALL;
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
    selection: &Selection,
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
            one(path, selection, steps, &|step| blank(*group, step), &add)?;
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
    selection: &Selection,
    steps: &mut Steps<T>,
    blank: &impl Fn(&str) -> T,
    add: &impl Fn(&mut T, u64),
) -> Result<(), AnalysisError> {
    let bad = |reason: String| AnalysisError::BadParquet { path: path.to_path_buf(), reason };
    let file = File::open(path).map_err(|error| AnalysisError::io("read", path, error))?;
    let columns = Columns::of(selection);
    let metadata = metadata(&file, path, &columns)?;
    let wanted = ProjectionMask::columns(metadata.parquet_schema(), columns.all().map(|(name, _)| name));
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_projection(wanted)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| bad(error.to_string()))?;
    for batch in reader {
        let batch = batch.map_err(|error| bad(error.to_string()))?;
        columns.take(&batch, steps, blank, add).map_err(bad)?;
    }
    Ok(())
}

/// Which columns are read.
struct Columns {
    time: String,
    by_step: bool,
    from_ns: u64,
}

impl Columns {
    fn of(selection: &Selection) -> Self {
        let time = format!("{}_ns", selection.metric.name());
        Columns { time, by_step: selection.by_step, from_ns: selection.from_ns }
    }

    /// Names and types of those that this selection needs.
    fn all(&self) -> impl Iterator<Item = (&str, DataType)> {
        let always = [("flags", DataType::UInt32), (self.time.as_str(), DataType::UInt64)];
        let step = self.by_step.then_some(("step", DataType::Utf8));
        let planned = (self.from_ns > 0).then_some(("planned_ns", DataType::UInt64));
        always.into_iter().chain(step).chain(planned)
    }

    /// Gives every measured time of a batch to the state of its step.
    fn take<T>(
        &self,
        batch: &RecordBatch,
        steps: &mut Steps<T>,
        blank: &impl Fn(&str) -> T,
        add: &impl Fn(&mut T, u64),
    ) -> Result<(), String> {
        let flags = column(batch, "flags", |array| array.as_primitive_opt::<UInt32Type>())?;
        let times = column(batch, &self.time, |array| array.as_primitive_opt::<UInt64Type>())?;
        without_nulls(flags, "flags")?;
        let planned = match self.from_ns {
            0 => None,
            _ => Some(column(batch, "planned_ns", |array| array.as_primitive_opt::<UInt64Type>())?),
        };
        let is_measured = |row: usize| {
            let after = planned.is_none_or(|planned| planned.value(row) >= self.from_ns);
            after && flags.value(row) & WARMUP == 0 && times.is_valid(row)
        };
        if !self.by_step {
            let all = steps.index_of(ALL, blank);
            if let Some(state) = steps.states.get_mut(all) {
                (0..batch.num_rows()).filter(|row| is_measured(*row)).for_each(|row| add(state, times.value(row)));
            }
            return Ok(());
        }
        let step = column(batch, "step", |array| array.as_dictionary_opt::<Int32Type>())?;
        without_nulls(step, "step")?;
        let names = column(batch, "step", |_| step.values().as_string_opt::<i32>())?;
        let of_key: Vec<usize> = names.iter().map(|name| steps.index_of(name.unwrap_or_default(), blank)).collect();
        for (row, key) in step.keys().values().iter().enumerate() {
            let at = usize::try_from(*key).ok().and_then(|key| of_key.get(key));
            if let (Some(state), true) = (at.and_then(|at| steps.states.get_mut(*at)), is_measured(row)) {
                add(state, times.value(row));
            }
        }
        Ok(())
    }
}

/// A column of a batch, as the type that its file was checked for.
fn column<'a, A>(
    batch: &'a RecordBatch,
    name: &str,
    of: impl Fn(&'a dyn Array) -> Option<&'a A>,
) -> Result<&'a A, String> {
    let array = batch.column_by_name(name).ok_or_else(|| format!("its column `{name}` was not read"))?;
    of(array.as_ref()).ok_or_else(|| format!("its column `{name}` was read as {}", array.data_type()))
}

fn without_nulls(array: &dyn Array, name: &str) -> Result<(), String> {
    match array.null_count() {
        0 => Ok(()),
        nulls => Err(format!("{nulls} values of its column `{name}` are null")),
    }
}

/// The file's metadata, with its steps to be read as a dictionary; checks that the columns are there.
fn metadata(file: &File, path: &Path, columns: &Columns) -> Result<ArrowReaderMetadata, AnalysisError> {
    let bad = |error: parquet::errors::ParquetError| AnalysisError::BadParquet {
        path: path.to_path_buf(),
        reason: error.to_string(),
    };
    let found = ArrowReaderMetadata::load(file, ArrowReaderOptions::new()).map_err(bad)?;
    let mut fields: Vec<Field> = found.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    for (name, wanted) in columns.all() {
        let bad_column =
            |reason: String| AnalysisError::BadColumn { path: path.to_path_buf(), column: name.to_owned(), reason };
        let field = fields.iter_mut().find(|field| field.name() == name);
        let field = field.ok_or_else(|| bad_column("it is missing".to_owned()))?;
        if wanted == DataType::Utf8 && is_text(field.data_type()) {
            let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            *field = field.clone().with_data_type(dictionary);
        } else if *field.data_type() != wanted {
            return Err(bad_column(format!("it holds {} instead of {wanted}", field.data_type())));
        }
    }
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
    ArrowReaderMetadata::try_new(Arc::clone(found.metadata()), options).map_err(bad)
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => is_text(values),
        other => matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}
