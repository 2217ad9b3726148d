//! The ways in: how a running broker's workload becomes a trace.
//!
//! This crate is light enough to be linked into someone else's broker: it depends on no async runtime and no polars, and
//! each way in stands behind a feature of its own.
//!
//! * [`layer`](mod@layer) (feature `layer`, on by default): one line in a broker that uses `tracing`; its spans, from inside.
//! * [`tap`] (feature `tap`, on by default): a transparent proxy in front of any broker.
//! * [`wire`]: what every recorder that watches the wire shares: bytes in, redacted spans out, no I/O.

#[cfg(feature = "layer")]
pub mod layer;
#[cfg(feature = "tap")]
pub mod tap;
#[cfg(feature = "tap")]
pub mod wire;

#[cfg(feature = "layer")]
pub use layer::{Layer, LayerError, LayerOptions, LayerSummary, Recording, Steps, layer, record};
