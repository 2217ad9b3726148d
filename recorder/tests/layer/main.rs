//! The layer: what a program's spans become, whichever way it is added, and what happens when things go wrong.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod faults;
mod programs;
mod rows;

use regauge_recorder::{LayerOptions, LayerSummary, Recording};
use regauge_traces::{RedactionKey, Span, Trace};
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt;

/// The two ways into a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A layer on a registry.
    Layer,
    /// The only subscriber.
    Alone,
}

pub const WAYS: [Way; 2] = [Way::Layer, Way::Alone];

pub fn key() -> RedactionKey {
    RedactionKey::from_bytes(*b"sixteen bytes !!")
}

pub fn start(way: Way, options: LayerOptions) -> (Dispatch, Recording) {
    match way {
        Way::Layer => {
            let (layer, recording) = options.layer().unwrap();
            (Dispatch::new(tracing_subscriber::registry().with(layer)), recording)
        }
        Way::Alone => {
            let (subscriber, recording) = options.subscriber().unwrap();
            (Dispatch::new(subscriber), recording)
        }
    }
}

/// Records what `program` does and reads it back.
pub fn record_with(way: Way, change: impl FnOnce(&mut LayerOptions), program: impl FnOnce()) -> (Trace, LayerSummary) {
    let directory = tempfile::tempdir().unwrap();
    let mut options = LayerOptions { key: Some(key()), ..LayerOptions::new(directory.path().join("layer.arrows")) };
    change(&mut options);
    let out = options.out.clone();
    let (dispatch, recording) = start(way, options);
    tracing::dispatcher::with_default(&dispatch, program);
    let summary = recording.finish().unwrap();
    let trace = regauge_traces::open(&out).unwrap();
    assert!(trace.meta.finished);
    assert_eq!(trace.spans.len() as u64, summary.spans);
    (trace, summary)
}

pub fn record(way: Way, program: impl FnOnce()) -> Trace {
    record_with(way, |_| {}, program).0
}

/// The one span with this many bytes: tests mark their spans so.
pub fn marked(trace: &Trace, bytes: u64) -> &Span {
    let mut found = trace.spans.iter().filter(|span| span.bytes == bytes);
    let span = found.next().unwrap_or_else(|| panic!("no span marked {bytes}"));
    assert!(found.next().is_none(), "two spans marked {bytes}");
    span
}
