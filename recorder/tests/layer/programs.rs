//! Whole programs: random ones against a model, and many threads.

use crate::{WAYS, Way, record, record_with};
use proptest::prelude::*;
use regauge_traces::Trace;
use std::collections::{BTreeMap, BTreeSet};
use tracing::{Dispatch, Span, info_span};

/// One thing that a program does with its spans, which are numbered in the order of opening.
#[derive(Debug, Clone)]
enum Act {
    /// Opens a span; `recorded` ones have a kind's name.
    Open {
        recorded: bool,
        parent: Parent,
    },
    Enter(usize),
    Exit(usize),
    Clone(usize),
    Drop(usize),
}

#[derive(Debug, Clone)]
enum Parent {
    Context,
    None,
    Span(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let parent = prop_oneof![
        3 => Just(Parent::Context),
        1 => Just(Parent::None),
        1 => (0usize..20).prop_map(Parent::Span),
    ];
    let act = prop_oneof![
        3 => (prop::bool::weighted(0.7), parent).prop_map(|(recorded, parent)| Act::Open { recorded, parent }),
        3 => (0usize..20).prop_map(Act::Enter),
        3 => (0usize..20).prop_map(Act::Exit),
        1 => (0usize..20).prop_map(Act::Clone),
        2 => (0usize..20).prop_map(Act::Drop),
    ];
    prop::collection::vec(act, 0..80)
}

/// What the program should leave: parent by span, both by number.
#[derive(Debug, Default, PartialEq)]
struct Model {
    parents: BTreeMap<usize, Option<usize>>,
    /// In what order they closed.
    closed: Vec<usize>,
}

/// Runs the program, and says what it should have left.
fn run(way: Way, acts: &[Act]) -> Model {
    let mut model = Model::default();
    let mut handles: Vec<Vec<Span>> = Vec::new();
    // For every span, its nearest recorded ancestor or itself.
    let mut nearest: Vec<Option<usize>> = Vec::new();
    let mut entered: Vec<usize> = Vec::new();
    let mut recorded_spans = BTreeSet::new();
    // A span whose last handle goes while it is entered: tracing's own guards exclude it, so the program does not do it.
    for act in acts {
        match act {
            Act::Open { recorded, parent } => {
                let number = handles.len();
                let (explicit, ancestor) = match parent {
                    Parent::Context => (None, entered.last().and_then(|at| nearest[*at])),
                    Parent::None => (Some(Span::none()), None),
                    Parent::Span(at) => match handles.get(*at).and_then(|handles| handles.first()) {
                        // A span that is switched off knows no ancestor.
                        Some(handle) if way == Way::Alone && !recorded_spans.contains(at) => {
                            (Some(handle.clone()), None)
                        }
                        Some(handle) => (Some(handle.clone()), nearest[*at]),
                        None => continue,
                    },
                };
                let bytes = number as u64;
                let span = match (recorded, explicit) {
                    (true, None) => info_span!("apply", bytes),
                    (true, Some(parent)) => info_span!(parent: &parent, "apply", bytes),
                    (false, None) => info_span!("unrecorded", bytes),
                    (false, Some(parent)) => info_span!(parent: &parent, "unrecorded", bytes),
                };
                if *recorded {
                    recorded_spans.insert(number);
                    model.parents.insert(number, ancestor);
                    nearest.push(Some(number));
                } else {
                    nearest.push(ancestor);
                }
                handles.push(vec![span]);
            }
            Act::Enter(at) => {
                let Some(handle) = handles.get(*at).and_then(|handles| handles.first()) else { continue };
                // Switched off where it stands: nothing is entered.
                if !handle.is_disabled() {
                    handle.with_subscriber(|(id, dispatch)| dispatch.enter(id));
                    entered.push(*at);
                }
            }
            Act::Exit(at) => {
                let Some(position) = entered.iter().rposition(|entered| entered == at) else { continue };
                handles[*at][0].with_subscriber(|(id, dispatch)| dispatch.exit(id));
                entered.remove(position);
            }
            Act::Clone(at) => {
                let Some(clone) = handles.get(*at).and_then(|handles| handles.first().cloned()) else { continue };
                handles[*at].push(clone);
            }
            Act::Drop(at) => {
                let Some(held) = handles.get_mut(*at) else { continue };
                if held.len() > 1 || !entered.contains(at) {
                    let last = held.len() == 1;
                    held.pop();
                    if last && recorded_spans.contains(at) {
                        model.closed.push(*at);
                    }
                }
            }
        }
    }
    for at in entered.into_iter().rev() {
        handles[at][0].with_subscriber(|(id, dispatch)| dispatch.exit(id));
    }
    for (number, held) in handles.into_iter().enumerate() {
        if !held.is_empty() && recorded_spans.contains(&number) {
            model.closed.push(number);
        }
        drop(held);
    }
    model
}

fn read(trace: &Trace) -> Model {
    let number = |id: u64| trace.spans.iter().find(|span| span.id == id).unwrap().bytes as usize;
    Model {
        parents: trace.spans.iter().map(|span| (span.bytes as usize, span.parent.map(number))).collect(),
        closed: trace.spans.iter().map(|span| span.bytes as usize).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_random_program_leaves_its_tree(acts in acts()) {
        for way in WAYS {
            let mut model = Model::default();
            let mut trace = record(way, || model = run(way, &acts));
            if way == Way::Layer {
                // A registry keeps a parent open for its children, so only the set of closed ones is the model's.
                model.closed.sort();
                trace.spans.sort_by_key(|span| span.bytes);
            }
            prop_assert_eq!(read(&trace), model, "{:?}", way);
            for span in &trace.spans {
                let parent = span.parent.map(|id| trace.spans.iter().find(|other| other.id == id).unwrap());
                prop_assert!(parent.is_none_or(|parent| parent.start_ns <= span.start_ns));
                prop_assert!(span.busy_ns.unwrap() <= span.duration_ns.unwrap() + 1);
            }
        }
    }
}

#[test]
fn every_span_of_many_threads_is_there_once() {
    const THREADS: u64 = 8;
    const SPANS: u64 = 2000;
    for way in WAYS {
        let (trace, summary) = record_with(
            way,
            // One thread closes half of all.
            |options| options.ring = 1 << 16,
            || {
                let root = info_span!("storage", bytes = u64::MAX);
                let dispatch = Dispatch::default();
                let (give, take) = std::sync::mpsc::channel::<Span>();
                // Closes what the others opened: slots wander between threads.
                let closing = std::thread::spawn(move || take.into_iter().for_each(drop));
                let threads: Vec<_> = (0..THREADS)
                    .map(|thread| {
                        let (dispatch, root, give) = (dispatch.clone(), root.clone(), give.clone());
                        std::thread::spawn(move || {
                            tracing::dispatcher::with_default(&dispatch, || {
                                for n in 0..SPANS {
                                    let span = info_span!(parent: &root, "apply", bytes = thread * SPANS + n);
                                    span.in_scope(|| drop(info_span!("route", bytes = (1 << 32) + thread * SPANS + n)));
                                    give.send(span).unwrap();
                                }
                            });
                        })
                    })
                    .collect();
                drop(give);
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                closing.join().unwrap();
            },
        );
        assert_eq!(summary.drops.total(), 0, "{way:?}: {:?}", summary.drops);
        assert_eq!(trace.spans.len() as u64, 2 * THREADS * SPANS + 1);
        let ids: BTreeMap<u64, u64> = trace.spans.iter().map(|span| (span.id, span.bytes)).collect();
        assert_eq!(ids.len(), trace.spans.len(), "ids are unique");
        let root = trace.spans.iter().find(|span| span.bytes == u64::MAX).unwrap().id;
        for span in &trace.spans {
            match span.bytes {
                u64::MAX => assert_eq!(span.parent, None),
                n if n >= 1 << 32 => assert_eq!(ids[&span.parent.unwrap()], n - (1 << 32)),
                _ => assert_eq!(span.parent, Some(root)),
            }
        }
        let threads: BTreeSet<u32> = trace.spans.iter().map(|span| span.thread).collect();
        assert!(threads.len() as u64 >= THREADS, "{threads:?}");
    }
}
