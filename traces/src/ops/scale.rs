//! Three ways to make a workload larger, which are not the same thing.
//!
//! Twice the speed shortens the think times of the same users; twice the sessions doubles the users and keeps their
//! pace; more partitions spread the same requests over more targets. ("500 users working at double speed is not really
//! the same as 1000", as pgreplay's manual says.) A scaled trace is a workload that nobody has run: it holds roots
//! only, without durations.

use siphasher::sip::SipHasher24;
use std::collections::HashMap;

use super::{derive, renumber};
use crate::error::TraceError;
use crate::reader::Trace;
use crate::redact::{LEVEL_CHARS, parse_filters, parse_subscriptions, push_base32};
use crate::span::{Kind, Span, flags};

/// One way to scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// All arrivals this many times as fast (0.5: half as fast).
    Speed(f64),
    /// This many times the sessions.
    Sessions {
        /// Copies, the original included.
        copies: u32,
        /// Seed of the clones' offsets.
        seed: u64,
    },
    /// This many times the distinct targets.
    Partitions(u32),
}

/// Makes a scaled trace.
///
/// - [`Scale::Speed`]: `start_ns` is divided by the factor.
/// - [`Scale::Sessions`]: each clone of a session has its own session hash and connections, keeps the targets, and
///   runs behind the original by one offset, drawn by the seed within the mean gap between roots. Roots off the wire
///   (no session, no connection) are not cloned.
/// - [`Scale::Partitions`]: the n-th publish to a target goes to its copy n mod `copies`, whose last topic level is
///   another; subscriptions to it are widened to all copies, and their sizes with them.
///
/// # Errors
/// [`TraceError::Parameter`] for a factor that makes no sense.
pub fn scale(trace: &Trace, how: Scale) -> Result<Trace, TraceError> {
    let roots: Vec<Span> = trace.spans.iter().filter(|s| s.is_root()).map(bare).collect();
    let (mut spans, words) = match how {
        Scale::Speed(factor) if factor.is_finite() && factor > 0.0 => {
            (faster(roots, factor), format!("scale speed ×{factor}"))
        }
        Scale::Speed(factor) => {
            return Err(TraceError::Parameter(format!("a speed of {factor} is not a positive number")));
        }
        Scale::Sessions { copies: 0, .. } | Scale::Partitions(0) => {
            return Err(TraceError::Parameter("a trace cannot be scaled to no copies: give 1 or more".to_owned()));
        }
        Scale::Sessions { copies, seed } => {
            (cloned(roots, copies, seed)?, format!("scale sessions ×{copies}, seed {seed}"))
        }
        Scale::Partitions(copies) => (spread(roots, copies), format!("scale partitions ×{copies}")),
    };
    renumber(&mut spans);
    let mut scaled = derive(trace, spans, words);
    scaled.meta.end = None;
    Ok(scaled)
}

/// The request without how it went.
fn bare(span: &Span) -> Span {
    Span { duration_ns: None, busy_ns: None, thread: 0, flags: span.flags & flags::WORKLOAD, ..span.clone() }
}

fn faster(mut roots: Vec<Span>, factor: f64) -> Vec<Span> {
    for span in &mut roots {
        span.start_ns = (span.start_ns as f64 / factor).round() as u64;
    }
    roots
}

fn cloned(roots: Vec<Span>, copies: u32, seed: u64) -> Result<Vec<Span>, TraceError> {
    let first = roots.iter().map(|s| s.start_ns).min().unwrap_or(0);
    let last = roots.iter().map(|s| s.start_ns).max().unwrap_or(0);
    let gap = (last - first) / (roots.len() as u64).max(1);
    let connections = roots.iter().filter_map(|s| s.connection).max().map_or(0, |c| u64::from(c) + 1);
    if connections * u64::from(copies) > u64::from(u32::MAX) {
        return Err(TraceError::Parameter(format!("{copies} copies of {connections} connections are too many")));
    }
    let stride = u32::try_from(connections).unwrap_or(u32::MAX);
    // What belongs together moves together: by session where the connection has one, else by connection.
    let sessions: HashMap<u32, u64> = roots.iter().filter_map(|s| s.connection.zip(s.session)).collect();
    let owner = |span: &Span| {
        span.session
            .or_else(|| span.connection.and_then(|c| sessions.get(&c).copied()))
            .or(span.connection.map(u64::from))
    };
    // Every span sits beside the copy it belongs to; ids keep the order of arrival within a copy.
    let ranked = {
        let mut roots = roots;
        roots.sort_by_key(|s| (s.start_ns, s.id));
        roots
    };
    let total = ranked.len() as u64;
    let mut spans = Vec::with_capacity(ranked.len() * copies as usize);
    for copy in 0..copies {
        for (rank, root) in (0u64..).zip(&ranked) {
            let mut span = root.clone();
            span.id = u64::from(copy) * total + rank;
            if copy > 0 {
                let Some(owner) = owner(root) else { continue };
                span.session = root.session.map(|session| mix(seed, copy, session, b"session"));
                span.connection = root.connection.map(|connection| connection + copy * stride);
                let offset = if gap == 0 { 0 } else { mix(seed, copy, owner, b"offset") % gap };
                span.start_ns = span.start_ns.saturating_add(offset);
            }
            spans.push(span);
        }
    }
    Ok(spans)
}

/// A hash that every machine and version computes alike.
fn mix(seed: u64, copy: u32, value: u64, purpose: &[u8]) -> u64 {
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.extend(purpose);
    SipHasher24::new_with_keys(seed, u64::from(copy)).hash(&bytes)
}

fn spread(mut roots: Vec<Span>, copies: u32) -> Vec<Span> {
    roots.sort_by_key(|s| (s.start_ns, s.id));
    let mut turns: HashMap<String, u32> = HashMap::new();
    for span in &mut roots {
        let Some(target) = span.target.take() else { continue };
        let widened = match span.kind {
            Kind::Subscribe => match parse_subscriptions(&target) {
                Ok(filters) => {
                    let widened = filters.iter().flat_map(|(filter, options)| {
                        all_copies(filter, copies).into_iter().map(move |copy| (copy, format!("@{options}")))
                    });
                    // A filter takes its length and its options byte besides its text.
                    widen(span, &filters.iter().map(|f| f.0).collect::<Vec<_>>(), widened, 3)
                }
                // `check` reports it; here it stays what it is.
                Err(_) => target,
            },
            Kind::Unsubscribe => {
                let filters = parse_filters(&target);
                let widened = filters.iter().flat_map(|f| all_copies(f, copies)).map(|copy| (copy, String::new()));
                widen(span, &filters, widened, 2)
            }
            Kind::Connect => target,
            _ => {
                let turn = turns.entry(target.clone()).or_insert(0);
                let copy = *turn % copies;
                *turn = turn.wrapping_add(1) % copies;
                copy_of(&target, copy)
            }
        };
        span.target = Some(widened);
    }
    roots
}

/// Joins the entries; the span's size and count grow by what is new.
fn widen(span: &mut Span, old: &[&str], new: impl Iterator<Item = (String, String)>, overhead: usize) -> String {
    let old_bytes: usize = old.iter().map(|filter| filter.len() + overhead).sum();
    let (mut new_bytes, mut count, mut joined) = (0, 0u32, String::new());
    for (filter, options) in new {
        if count > 0 {
            joined.push(',');
        }
        new_bytes += filter.len() + overhead;
        count = count.saturating_add(1);
        joined.push_str(&filter);
        joined.push_str(&options);
    }
    span.bytes = span.bytes.saturating_add(new_bytes.saturating_sub(old_bytes) as u64);
    span.count = count;
    joined
}

/// The copies of a filter; one that ends in a wildcard matches them all by itself.
fn all_copies(filter: &str, copies: u32) -> Vec<String> {
    let last = filter.rsplit('/').next().unwrap_or(filter);
    let copies = if last == "+" || last == "#" { 1 } else { copies };
    (0..copies).map(|copy| copy_of(filter, copy)).collect()
}

/// Copy 0 is the target itself; the others differ in the last level, as a function of that level alone, so that
/// wildcards in the levels before it still match.
fn copy_of(target: &str, copy: u32) -> String {
    if copy == 0 {
        return target.to_owned();
    }
    let (before, last) = target.rsplit_once('/').map_or(("", target), |(before, last)| (before, last));
    let mut copied = String::with_capacity(target.len() + LEVEL_CHARS);
    if target.contains('/') {
        copied.push_str(before);
        copied.push('/');
    }
    if last.starts_with('$') {
        copied.push('$');
    }
    push_base32(SipHasher24::new_with_keys(0, u64::from(copy)).hash(last.as_bytes()), &mut copied);
    copied
}
