//! The trace format of Regauge: a recorded workload as a forest of spans.
//!
//! This crate knows no other crate of the workspace. It holds what crosses a process boundary: the trace itself
//! (`SPEC.md` is its definition, [`span`] its words) and the layout of a study's directory ([`study`]), which the
//! replayer writes and the analysis reads without knowing each other.

pub mod span;
pub mod study;
