//! A part of a trace, by time, kind and session, that can still be replayed.

use std::collections::{HashMap, HashSet};

use super::{derive, renumber};
use crate::error::TraceError;
use crate::reader::Trace;
use crate::span::{Kind, Span};

/// What to keep. The default keeps everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slice {
    /// Roots that arrive at or after this, ns since origin.
    pub from_ns: Option<u64>,
    /// Roots that arrive before this, ns since origin.
    pub to_ns: Option<u64>,
    /// Only these kinds of roots; empty: all.
    pub kinds: Vec<Kind>,
    /// Only these sessions; empty: all.
    pub sessions: Vec<u64>,
}

/// Cuts a slice out of a trace.
///
/// A root is kept if it fits; a step, if its root is kept. Of every connection that something is kept of, the CONNECT
/// is kept too, whatever `kinds` says: nothing can be replayed without it. What set a connection up before the slice
/// begins (CONNECT, SUBSCRIBE, UNSUBSCRIBE), if it is still open then, moves to its first moment, order kept. The
/// origin moves to `from_ns`.
///
/// # Errors
/// [`TraceError::Parameter`] if the range is empty, or nothing is left.
pub fn slice(trace: &Trace, what: &Slice) -> Result<Trace, TraceError> {
    let from = what.from_ns.unwrap_or(0);
    let to = what.to_ns.unwrap_or(u64::MAX);
    if from >= to {
        return Err(TraceError::Parameter(format!("the slice from {from} ns to {to} ns is empty: give --from < --to")));
    }
    let order = by_arrival(&trace.spans);
    let setup = open_setup(&order, from);
    let session_of = |span: &Span| span.session;
    let wanted_session =
        |span: &Span| what.sessions.is_empty() || session_of(span).is_some_and(|s| what.sessions.contains(&s));
    let fits = |span: &Span| {
        span.start_ns >= from
            && span.start_ns < to
            && wanted_session(span)
            && (what.kinds.is_empty() || what.kinds.contains(&span.kind))
    };
    let tops = || order.iter().copied().filter(|span| span.parent.is_none());
    let mut kept: HashSet<u64> = tops().filter(|span| fits(span)).map(|span| span.id).collect();
    let used: HashSet<u32> = tops().filter(|s| kept.contains(&s.id)).filter_map(|s| s.connection).collect();
    // Without a filter on kinds, open connections are kept even if they are silent: they are load too.
    let keeps_connection = |span: &Span| {
        span.connection.is_some_and(|c| used.contains(&c)) || (what.kinds.is_empty() && wanted_session(span))
    };
    for span in tops() {
        let within = span.start_ns >= from && span.start_ns < to && span.kind == Kind::Connect;
        if (within || setup.contains(&span.id)) && keeps_connection(span) {
            kept.insert(span.id);
        }
    }
    let roots = root_of(&trace.spans);
    let mut spans: Vec<Span> = trace
        .spans
        .iter()
        .filter(|span| roots.get(&span.id).is_some_and(|root| kept.contains(root)))
        .cloned()
        .collect();
    if spans.is_empty() {
        return Err(TraceError::Parameter("the slice keeps no span: choose a wider range".to_owned()));
    }
    // Ids carry the old order of arrival, so that what moves to one moment stays in order.
    let ranks: HashMap<u64, u64> = order.iter().zip(0..).map(|(span, rank)| (span.id, rank)).collect();
    let starts: HashMap<u64, u64> = trace.spans.iter().map(|s| (s.id, s.start_ns)).collect();
    for span in &mut spans {
        let root_start = roots.get(&span.id).and_then(|root| starts.get(root)).copied().unwrap_or(from);
        // A step keeps its distance to its root.
        let shift = root_start.max(from) - root_start;
        span.start_ns = span.start_ns.saturating_add(shift).saturating_sub(from);
        span.id = ranks.get(&span.id).copied().unwrap_or(span.id);
        span.parent = span.parent.and_then(|parent| ranks.get(&parent).copied());
    }
    renumber(&mut spans);
    let mut slice = derive(trace, spans, words(what, from, to));
    slice.meta.origin.monotonic_ns = slice.meta.origin.monotonic_ns.saturating_add(from);
    slice.meta.origin.realtime_ns = slice.meta.origin.realtime_ns.saturating_add(from);
    Ok(slice)
}

fn words(what: &Slice, from: u64, to: u64) -> String {
    let mut words = format!("slice from {from} ns");
    if to != u64::MAX {
        words.push_str(&format!(" to {to} ns"));
    }
    if !what.kinds.is_empty() {
        let kinds: Vec<&str> = what.kinds.iter().map(|kind| kind.name()).collect();
        words.push_str(&format!(", kinds {}", kinds.join("+")));
    }
    if !what.sessions.is_empty() {
        words.push_str(&format!(", {} sessions", what.sessions.len()));
    }
    words
}

fn by_arrival(spans: &[Span]) -> Vec<&Span> {
    let mut order: Vec<&Span> = spans.iter().collect();
    order.sort_by_key(|span| (span.start_ns, span.id));
    order
}

/// Ids of what set up the connections that are open at `from`.
fn open_setup(order: &[&Span], from: u64) -> HashSet<u64> {
    let mut open: HashMap<u32, Vec<u64>> = HashMap::new();
    for span in order.iter().take_while(|span| span.start_ns < from) {
        let Some(connection) = span.connection else { continue };
        match span.kind {
            Kind::Connect => {
                open.insert(connection, vec![span.id]);
            }
            Kind::Subscribe | Kind::Unsubscribe => {
                if let Some(ids) = open.get_mut(&connection) {
                    ids.push(span.id);
                }
            }
            Kind::Disconnect | Kind::Close => {
                open.remove(&connection);
            }
            _ => {}
        }
    }
    open.into_values().flatten().collect()
}

/// The topmost ancestor of every span. A parent that is missing, or a ring of parents, makes a span its own.
pub(super) fn root_of(spans: &[Span]) -> HashMap<u64, u64> {
    let parents: HashMap<u64, Option<u64>> = spans.iter().map(|s| (s.id, s.parent)).collect();
    let root = |id: u64| {
        let mut at = id;
        // A forest of this depth is far beyond any broker; the bound ends rings.
        for _ in 0..64 {
            match parents.get(&at) {
                Some(Some(parent)) if parents.contains_key(parent) => at = *parent,
                _ => return at,
            }
        }
        id
    };
    spans.iter().map(|s| (s.id, root(s.id))).collect()
}
