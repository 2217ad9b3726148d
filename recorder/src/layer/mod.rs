//! The layer: one line in a program that uses `tracing`, and its spans become a trace.
//!
//! ```no_run
//! # fn main() -> Result<(), regauge_recorder::LayerError> {
//! // A program without a subscriber of its own:
//! let recording = regauge_recorder::record("broker.trace")?;
//! # recording.finish()?; Ok(()) }
//! ```
//!
//! ```no_run
//! # use tracing_subscriber::layer::SubscriberExt;
//! # fn main() -> Result<(), regauge_recorder::LayerError> {
//! // A program with one: the layer stands beside its others.
//! let (layer, _recording) = regauge_recorder::layer("broker.trace")?;
//! let subscriber = tracing_subscriber::registry().with(layer);
//! # let _ = subscriber; Ok(()) }
//! ```
//!
//! A span becomes one row when it is closed: its parent (the span it was opened in, or the explicit one; if that is not
//! recorded, its nearest ancestor that is), begin and end, the time that threads spent within it (between enter and
//! exit: a future's polls) apart from the time it lay idle, and the thread that was within it last. Of its fields only
//! `session` (client id; becomes a keyed hash), `target` (a topic, redacted like the tap does; or a partition's number),
//! `bytes`, `count`, `qos`, `status` and `proposal` are read. No other field, and no event, reaches the trace.
//!
//! ```text
//!  threads: open, enter, exit in a table of open spans │ close → ring per thread, newest dropped and counted
//!                                                      ▼
//!                                        writer thread → live trace, a batch every 200 ms
//! ```
//!
//! It takes no lock on the way of a span but to get slots and ids by the dozen, and never waits for the disk. When the
//! disk is full, recording ends and the program goes on.
//!
//! Left out: spans that overlap in time on one task but are not nested; the runtime's own queues (see the stamps).

mod fields;
mod options;
mod plan;
mod recording;
mod ring;
mod shared;
mod subscriber;
mod table;
mod thread;
mod write;

pub use options::{LayerOptions, Steps};
pub use recording::{LayerError, LayerSummary, Recording};
pub use subscriber::{Layer, Subscriber};

use std::path::PathBuf;

/// Records into the file `out`, beside the other layers of a registry. See [`LayerOptions`] for more.
///
/// # Errors
/// When the file exists or cannot be created.
pub fn layer(out: impl Into<PathBuf>) -> Result<(Layer, Recording), LayerError> {
    LayerOptions::new(out).layer()
}

/// Records into the file `out`, as the program's only subscriber: half the cost of a registry with a layer.
///
/// # Errors
/// When the program has a subscriber, or the file exists or cannot be created.
pub fn record(out: impl Into<PathBuf>) -> Result<Recording, LayerError> {
    LayerOptions::new(out).record()
}
