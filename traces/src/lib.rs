//! The trace format of Regauge: a recorded workload as a forest of spans.
//!
//! This crate knows no other crate of the workspace. It holds what crosses a process boundary: the trace itself
//! (`SPEC.md` is its definition, [`span`] its words) and the layout of a study's directory ([`study`]), which the
//! replayer writes and the analysis reads without knowing each other.
//!
//! A recorder uses [`Redactor`], [`Meta`] and [`LiveWriter`], then [`seal`](seal::seal). Everyone else starts with
//! [`open`] (the whole trace in memory) or [`TraceReader`] (batch by batch). [`ops`] and [`synth`] make new traces;
//! no function changes one.

pub mod error;
pub mod frame;
pub mod live;
pub mod meta;
pub mod ops;
mod question;
pub mod reader;
pub mod redact;
pub mod schema;
pub mod seal;
pub mod span;
pub mod stamps;
pub mod study;
pub mod synth;
pub mod ticks;
pub mod workload;
pub mod writer;

pub use error::TraceError;
pub use meta::{Clocks, Drops, Host, Meta, Redaction};
pub use reader::{Form, Trace, TraceReader, open};
pub use redact::{RedactionKey, Redactor};
pub use schema::{META_KEY, SCHEMA_VERSION};
pub use seal::{SealReport, seal, write_sealed};
pub use span::{Kind, Span, flags};
pub use synth::{Profile, SynthParams, synth};
pub use workload::workload_hash;
pub use writer::{LiveOptions, LiveSummary, LiveWriter};
