//! Structural invariants of a trace. A file can be whole and still not make sense; this says where.

use serde::Serialize;
use std::collections::{HashMap, HashSet};

use crate::reader::Trace;
use crate::redact::parse_subscriptions;
use crate::span::{Kind, Span};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The first span that shows it; `None` if it concerns the whole trace.
    pub id: Option<u64>,
    /// How many spans show it.
    pub spans: u64,
    /// One sentence, about the first.
    pub sentence: String,
}

/// Checks every invariant of `SPEC.md`; an empty list means that all hold. Problems of one sort are counted together.
pub fn check(trace: &Trace) -> Vec<Problem> {
    let mut found = Found::default();
    torn(trace, &mut found);
    rows(trace, &mut found);
    connections(&trace.spans, &mut found);
    found.problems
}

#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    sorts: HashMap<&'static str, usize>,
}

impl Found {
    /// Notes one occurrence of a sort of problem; only the first makes its sentence.
    fn add(&mut self, sort: &'static str, id: Option<u64>, sentence: impl FnOnce() -> String) {
        let known = self.sorts.get(sort).and_then(|at| self.problems.get_mut(*at));
        if let Some(problem) = known {
            problem.spans += 1;
        } else {
            self.sorts.insert(sort, self.problems.len());
            self.problems.push(Problem { id, spans: 1, sentence: sentence() });
        }
    }
}

fn torn(trace: &Trace, found: &mut Found) {
    if trace.torn_bytes > 0 {
        found.add("torn", None, || {
            format!("the recording was cut off: {} bytes of an unfinished batch were passed over", trace.torn_bytes)
        });
    } else if !trace.meta.finished {
        found.add("unfinished", None, || "the recording was not ended in an orderly way".to_owned());
    }
    match &trace.meta.drops {
        None => found.add("drops", None, || "nobody counted what the recording lost".to_owned()),
        Some(drops) if drops.total() > 0 => {
            found.add("drops", None, || format!("the recording lost {} spans or connections", drops.total()));
        }
        Some(_) => {}
    }
}

fn rows(trace: &Trace, found: &mut Found) {
    let starts: HashMap<u64, u64> = trace.spans.iter().map(|s| (s.id, s.start_ns)).collect();
    let recorded_ns = trace.meta.recorded_ns();
    let mut ids = HashSet::with_capacity(trace.spans.len());
    for span in &trace.spans {
        let id = Some(span.id);
        if !ids.insert(span.id) {
            found.add("twice", id, || format!("span {} has the id of an earlier one", span.id));
        }
        match span.parent.map(|parent| (parent, starts.get(&parent))) {
            None if !span.kind.can_be_root() && span.kind != Kind::Deliver => {
                found.add("orphan", id, || format!("span {} is a step ({}) without a parent", span.id, span.kind));
            }
            Some((parent, None)) => {
                found.add("parent", id, || format!("span {} names a parent, {parent}, that is not there", span.id));
            }
            Some((parent, Some(start))) if *start > span.start_ns => {
                found.add("before", id, || format!("span {} starts before its parent {parent}", span.id));
            }
            _ => {}
        }
        if span.parent == id {
            found.add("self", id, || format!("span {} is its own parent", span.id));
        }
        if recorded_ns.is_some_and(|length| span.end_ns() > length) {
            found.add("late", id, || format!("span {} ends after the recording did", span.id));
        }
        if span.qos > 2 {
            found.add("qos", id, || format!("span {} has QoS {}", span.id, span.qos));
        }
        target(span, found);
    }
}

fn target(span: &Span, found: &mut Found) {
    let id = Some(span.id);
    match (span.kind, span.target.as_deref()) {
        (Kind::Publish | Kind::Subscribe | Kind::Unsubscribe, None) => {
            found.add("target", id, || format!("span {} ({}) has no target", span.id, span.kind));
        }
        (Kind::Subscribe, Some(target)) => match parse_subscriptions(target) {
            Err(what) => found.add("filters", id, || format!("span {} has an unreadable target: {what}", span.id)),
            Ok(filters) if filters.len() as u64 != u64::from(span.count) => {
                let filters = filters.len();
                found
                    .add("count", id, || format!("span {} counts {} filters and names {filters}", span.id, span.count));
            }
            Ok(_) => {}
        },
        _ => {}
    }
}

/// Within a connection, by time: a CONNECT first and once, one session, nothing after its end.
fn connections(spans: &[Span], found: &mut Found) {
    let mut wire: Vec<&Span> = spans.iter().filter(|s| s.kind.is_on_wire()).collect();
    wire.sort_by_key(|s| (s.start_ns, s.id));
    let mut open: HashMap<u32, Option<u64>> = HashMap::new();
    let mut closed: HashSet<u32> = HashSet::new();
    for span in wire {
        let id = Some(span.id);
        let Some(connection) = span.connection else {
            found.add("unconnected", id, || format!("span {} ({}) names no connection", span.id, span.kind));
            continue;
        };
        if closed.contains(&connection) && !matches!(span.kind, Kind::Close | Kind::Deliver) {
            found.add("closed", id, || {
                format!("span {} ({}) comes after the end of connection {connection}", span.id, span.kind)
            });
        }
        match (span.kind, open.get(&connection)) {
            (Kind::Connect, None) => {
                open.insert(connection, span.session);
            }
            (Kind::Connect, Some(_)) => {
                found
                    .add("reconnect", id, || format!("connection {connection} has a second CONNECT, span {}", span.id));
            }
            // A connection may open and close without a word.
            (Kind::Close, None) => {}
            (_, None) => {
                found.add("unopened", id, || {
                    format!("span {} ({}) uses connection {connection} before its CONNECT", span.id, span.kind)
                });
                // Once said is enough for this connection.
                open.insert(connection, span.session);
            }
            (_, Some(session)) if span.session.is_some() && *session != span.session => {
                found.add("session", id, || {
                    format!("span {} has another session than the CONNECT of connection {connection}", span.id)
                });
            }
            _ => {}
        }
        if matches!(span.kind, Kind::Disconnect | Kind::Close) {
            closed.insert(connection);
        }
    }
}
