//! What one span becomes.

use crate::{WAYS, key, marked, record, record_with};
use regauge_recorder::Steps;
use regauge_traces::meta::monotonic_ns;
use regauge_traces::{Kind, Redactor, flags};
use std::time::Duration;
use tracing::{Dispatch, info_span, trace_span};

#[test]
fn the_fields_of_a_span_become_columns_and_nothing_else_does() {
    for way in WAYS {
        let file = tempfile::NamedTempFile::new().unwrap();
        let out = file.path().to_path_buf();
        let change = |options: &mut regauge_recorder::LayerOptions| {
            options.out = out.clone();
            options.overwrite = true;
        };
        let program = || {
            drop(info_span!("session_process", session = "pump-7", bytes = 1, password = "hunter2", qos = 1));
            drop(info_span!("meta_call", session = %format!("pump-{}", 7), bytes = 2, status = 135u8));
            drop(info_span!("segment_append", session = 7u32, target = 3, count = 250, bytes = 3));
            drop(info_span!("raft_proposal", proposal = 99u64, count = 5, bytes = 4));
            drop(info_span!("storage", target = "site/7", proposal = 1, bytes = 5, bytes_read = 77));
            drop(info_span!("route", bytes = -6, count = -1, proposal = -2, target = ?"x", qos = 1.5));
            tracing::info!(session = "event-secret", "message-secret");
        };
        let (trace, summary) = record_with(way, change, program);
        assert_eq!((trace.spans.len(), summary.drops.total()), (6, 0), "{way:?}");
        let redactor = Redactor::new(&key());
        let pump = Some(redactor.session(b"pump-7"));
        let session = marked(&trace, 1);
        assert_eq!((session.kind, session.session, session.qos), (Kind::SessionProcess, pump, 1));
        assert_eq!((session.count, session.target.clone(), session.parent), (1, None, None));
        let call = marked(&trace, 2);
        assert_eq!((call.kind, call.session, call.status), (Kind::MetaCall, pump, 135));
        let append = marked(&trace, 3);
        assert_eq!((append.target.as_deref(), append.count), (Some("p/3"), 250));
        assert_eq!(append.session, Some(redactor.session(b"7")));
        let proposal = marked(&trace, 4);
        assert_eq!((proposal.target.as_deref(), proposal.count), (Some("proposal=99"), 5));
        assert_eq!(marked(&trace, 5).target, Some(redactor.topic("site/7")), "a target says more than a proposal");
        let route = marked(&trace, 0);
        assert_eq!((route.kind, route.count, route.qos), (Kind::Route, 1, 0), "what is no such value is passed over");
        // Nothing that was said in clear is anywhere in the file.
        let bytes = std::fs::read(&out).unwrap();
        for secret in ["pump", "hunter2", "site/7", "event-secret", "message-secret", "bytes_read", "password"] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} is in the trace");
        }
    }
}

#[test]
fn fields_that_become_known_later_are_kept() {
    for way in WAYS {
        let trace = record(way, || {
            let span = info_span!(
                "raft_proposal",
                proposal = tracing::field::Empty,
                status = tracing::field::Empty,
                session = tracing::field::Empty,
                target = tracing::field::Empty,
                bytes = 8
            );
            span.record("proposal", 12);
            span.record("status", 3);
            span.record("session", "late");
            let another = info_span!("storage", target = "a", status = 1, bytes = 9);
            another.record("status", 2).record("target", "b/c");
        });
        let span = marked(&trace, 8);
        assert_eq!((span.target.as_deref(), span.status), (Some("proposal=12"), 3));
        assert_eq!(span.session, Some(Redactor::new(&key()).session(b"late")));
        let another = marked(&trace, 9);
        assert_eq!((another.status, another.target.clone()), (2, Some(Redactor::new(&key()).topic("b/c"))));
    }
}

#[test]
fn busy_time_is_apart_from_idle_time_and_summed_over_threads() {
    const BUSY: Duration = Duration::from_millis(20);
    const IDLE: Duration = Duration::from_millis(40);
    for way in WAYS {
        let mut around = (0, 0);
        let trace = record(way, || {
            around.0 = monotonic_ns();
            let span = info_span!("apply", bytes = 1);
            span.in_scope(|| {
                std::thread::sleep(BUSY);
                // Being in it twice is being in it once.
                span.in_scope(|| std::thread::sleep(BUSY));
            });
            std::thread::sleep(IDLE);
            let here = Dispatch::default();
            let there = span.clone();
            std::thread::spawn(move || {
                tracing::dispatcher::with_default(&here, || there.in_scope(|| std::thread::sleep(BUSY)));
                // The last reference goes on this thread.
            })
            .join()
            .unwrap();
            drop(span);
            around.1 = monotonic_ns();
        });
        let span = marked(&trace, 1);
        let (duration, busy) = (span.duration_ns.unwrap(), span.busy_ns.unwrap());
        let ns = |time: Duration| time.as_nanos() as u64;
        let error = 100_000;
        assert!(busy + error >= ns(3 * BUSY), "{way:?}: {busy} ns busy");
        assert!(duration + error >= busy + ns(IDLE), "{way:?}: {busy} of {duration} ns busy");
        // The times are CLOCK_MONOTONIC's.
        let start = trace.meta.origin.monotonic_ns + span.start_ns;
        assert!(start + error >= around.0 && start + duration <= around.1 + error, "{way:?}: {start} in {around:?}");
    }
}

#[test]
fn a_parent_that_is_not_recorded_hands_on_its_ancestor() {
    for way in WAYS {
        let trace = record(way, || {
            let apply = info_span!("apply", bytes = 1);
            let _entered = apply.enter();
            let between = info_span!("not_recorded");
            between.in_scope(|| drop(info_span!("route", bytes = 2)));
            let deeper = trace_span!(parent: &between, "nor_this");
            deeper.in_scope(|| drop(info_span!("membership", bytes = 3)));
            drop(info_span!(parent: None, "raft_append", bytes = 4));
            drop(info_span!(parent: &apply, "set_last_applied", bytes = 5));
        });
        let apply = marked(&trace, 1);
        assert_eq!(trace.spans.len(), 5, "{way:?}");
        for child in [2, 3, 5] {
            assert_eq!(marked(&trace, child).parent, Some(apply.id), "{way:?}, child {child}");
        }
        assert_eq!((apply.parent, marked(&trace, 4).parent), (None, None));
    }
}

#[test]
fn other_spans_are_steps_when_asked_for() {
    let program = || {
        let publish = info_span!("publish", bytes = 1, target = "a/secret/topic");
        let _entered = publish.enter();
        drop(info_span!(target: "elsewhere::deep", "storage", bytes = 2));
        drop(trace_span!("route", bytes = 3));
        drop(info_span!("fsync_batch", bytes = 4));
    };
    let kinds = |trace: &regauge_traces::Trace| {
        let mut kinds: Vec<(u64, Kind, Option<String>)> =
            trace.spans.iter().map(|span| (span.bytes, span.kind, span.target.clone())).collect();
        kinds.sort();
        kinds
    };
    for way in WAYS {
        let known = [(2, Kind::Storage, None), (3, Kind::Route, None)];
        assert_eq!(kinds(&record(way, program)), known, "packets are the wire's to tell of");
        let (trace, _) = record_with(way, |o| o.steps = Steps::All, program);
        let step = |bytes, name: &str| (bytes, Kind::Step, Some(name.to_owned()));
        let [storage, route] = known.clone();
        assert_eq!(kinds(&trace), [step(1, "publish"), storage, route.clone(), step(4, "fsync_batch")]);
        let named = |o: &mut regauge_recorder::LayerOptions| {
            o.steps = Steps::Named(vec!["fsync_batch".into()]);
            o.targets = vec!["layer".into()];
        };
        assert_eq!(kinds(&record_with(way, named, program).0), [route, step(4, "fsync_batch")], "{way:?}");
        let (trace, _) = record_with(way, |o| o.max_level = tracing::level_filters::LevelFilter::INFO, program);
        assert_eq!(kinds(&trace), [(2, Kind::Storage, None)], "{way:?}");
    }
}

#[test]
fn the_current_span_can_be_asked_for() {
    for way in WAYS {
        let trace = record(way, || {
            assert!(tracing::Span::current().is_none());
            let apply = info_span!("apply", bytes = 1).entered();
            let current = tracing::Span::current();
            assert_eq!(current.metadata().unwrap().name(), "apply");
            drop(apply);
            // Still open: `current` holds it.
            drop(info_span!(parent: &current, "route", bytes = 2));
        });
        assert_eq!(marked(&trace, 2).parent, Some(marked(&trace, 1).id), "{way:?}");
    }
}

#[test]
fn a_span_that_is_open_at_the_end_is_there_without_an_end() {
    for way in WAYS {
        let mut held = None;
        let trace = record(way, || {
            let span = info_span!("storage", target = "x", bytes = 1);
            span.in_scope(|| drop(info_span!("route", bytes = 2)));
            held = Some(span);
        });
        let span = marked(&trace, 1);
        assert!(span.has(flags::UNFINISHED) && span.duration_ns.is_none(), "{way:?}");
        assert_eq!(marked(&trace, 2).parent, Some(span.id));
        assert!(!marked(&trace, 2).has(flags::UNFINISHED));
        drop(held);
    }
}
