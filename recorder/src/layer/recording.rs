//! Starting a recording, and ending it.

use regauge_traces::{Drops, LiveOptions, LiveWriter, Meta, RedactionKey, Redactor, TraceError, ticks};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::*;
use std::thread::JoinHandle;
use tracing_core::dispatcher::{self, Dispatch};

use super::options::LayerOptions;
use super::shared::Shared;
use super::subscriber::{Layer, Subscriber};
use super::write::Writer;

/// Why a program's spans could not be recorded, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A file stands there already.
    #[error("{} exists already: choose another name for the recording, or remove it", .0.display())]
    OutputExists(PathBuf),
    /// The output cannot be written.
    #[error("cannot write the recording: {0}")]
    Output(#[source] TraceError),
    /// No thread for the writer.
    #[error("cannot start the recording's writer ({0})")]
    Thread(#[source] io::Error),
    /// The program has a subscriber.
    #[error("this program's tracing subscriber is already set: add regauge_recorder::layer(…) to its registry instead")]
    SubscriberIsSet,
    /// Writing failed while the program ran.
    #[error("the recording of spans stopped early: {0}; the program went on without it")]
    Stopped(#[source] TraceError),
    /// The writer's thread ended by a panic: an error of Regauge itself.
    #[error("the recording's writer ended unexpectedly: this is an error in Regauge; please report it")]
    Internal,
}

/// What a recording wrote.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LayerSummary {
    /// The recording.
    pub out: PathBuf,
    /// Spans in it.
    pub spans: u64,
    /// Its size, bytes.
    pub bytes: u64,
    /// What was lost.
    pub drops: Drops,
    /// What gave the time: `tsc` or `clock_gettime`.
    pub clock: &'static str,
    /// How far a time may be from CLOCK_MONOTONIC, ns.
    pub clock_error_ns: u64,
}

/// A recording that runs. Dropping it ends the recording: what was closed is written, what is still open is written
/// without an end, and the program goes on unrecorded. If writing failed meanwhile, the drop says so on stderr.
#[derive(Debug)]
#[must_use = "dropping it ends the recording"]
pub struct Recording {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<Result<LayerSummary, TraceError>>>,
}

impl Recording {
    /// Ends the recording.
    ///
    /// # Errors
    /// When the file could not be written to the end; it is then readable up to its last batch.
    pub fn finish(mut self) -> Result<LayerSummary, LayerError> {
        match self.end() {
            Some(ended) => ended,
            None => Err(LayerError::Internal),
        }
    }

    fn end(&mut self) -> Option<Result<LayerSummary, LayerError>> {
        let writer = self.writer.take()?;
        self.shared.ended.store(true, Release);
        writer.thread().unpark();
        Some(match writer.join() {
            Ok(written) => written.map_err(LayerError::Stopped),
            Err(_) => Err(LayerError::Internal),
        })
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.end() {
            // The last chance to say it; where stderr is closed, nobody listens.
            let _ = writeln!(io::stderr(), "{error}");
        }
    }
}

impl LayerOptions {
    /// Starts recording and gives a layer for the program's registry.
    ///
    /// # Errors
    /// When the file exists or cannot be created.
    pub fn layer(self) -> Result<(Layer, Recording), LayerError> {
        let (shared, recording) = self.start()?;
        Ok((Layer { shared }, recording))
    }

    /// Starts recording and gives a subscriber, for a program that needs no other.
    ///
    /// # Errors
    /// As [`LayerOptions::layer`].
    pub fn subscriber(self) -> Result<(Subscriber, Recording), LayerError> {
        let (shared, recording) = self.start()?;
        Ok((Subscriber { shared }, recording))
    }

    /// Starts recording the whole program, which must have no other subscriber.
    ///
    /// # Errors
    /// [`LayerError::SubscriberIsSet`]; otherwise as [`LayerOptions::layer`].
    pub fn record(self) -> Result<Recording, LayerError> {
        if dispatcher::has_been_set() {
            return Err(LayerError::SubscriberIsSet);
        }
        let (subscriber, recording) = self.subscriber()?;
        dispatcher::set_global_default(Dispatch::new(subscriber)).map_err(|_| LayerError::SubscriberIsSet)?;
        Ok(recording)
    }

    fn start(self) -> Result<(Arc<Shared>, Recording), LayerError> {
        if !self.overwrite && self.out.symlink_metadata().is_ok() {
            return Err(LayerError::OutputExists(self.out));
        }
        let key = match &self.key {
            Some(key) => key.clone(),
            None => RedactionKey::generate().map_err(LayerError::Output)?,
        };
        let redactor = Redactor::new(&key);
        let meta = Meta::recording(format!("layer ({})", ticks::clock()), redactor.redaction());
        let batches = LiveOptions { age: self.flush, ..LiveOptions::default() };
        let live = LiveWriter::create(&self.out, &meta, batches).map_err(LayerError::Output)?;
        let shared = Arc::new(Shared::new(self, redactor));
        let writer = Writer::new(Arc::clone(&shared), live, meta.origin.monotonic_ns);
        let thread = std::thread::Builder::new().name("regauge-layer".to_owned());
        let writer = thread.spawn(move || writer.run()).map_err(LayerError::Thread)?;
        Ok((Arc::clone(&shared), Recording { shared, writer: Some(writer) }))
    }
}
