//! Work on whole traces: facts ([`info`]), invariants ([`check`]), and new traces from old ([`slice`], [`scale`],
//! [`join`]).
//!
//! A trace is never changed: what makes one anew says so in its `derived` list.

mod check;
mod info;
mod join;
mod scale;
mod slice;

pub use check::{Problem, check};
pub use info::{Info, info};
pub use join::{CLOCK_ERROR_NS, Counts, Joined, join, join_files};
pub use scale::{Scale, scale};
pub use slice::{Slice, slice};

use crate::reader::Trace;
use crate::span::Span;
use std::collections::HashMap;

/// A trace in memory, made from `old` by what `words` say.
fn derive(old: &Trace, spans: Vec<Span>, words: String) -> Trace {
    let mut meta = old.meta.clone();
    meta.derived.push(words);
    Trace { meta, spans, form: None, file_bytes: 0, torn_bytes: 0 }
}

/// Sorts by start, keeping the order among equals, and gives ids from 0; parents follow.
fn renumber(spans: &mut [Span]) {
    spans.sort_by_key(|span| (span.start_ns, span.id));
    let ids: HashMap<u64, u64> = spans.iter().zip(0..).map(|(span, id)| (span.id, id)).collect();
    for span in spans {
        span.id = ids.get(&span.id).copied().unwrap_or(span.id);
        span.parent = span.parent.and_then(|parent| ids.get(&parent).copied());
    }
}
