//! The layer as the program's global subscriber: what only a process of its own can test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use regauge_recorder::{LayerError, LayerOptions};
use regauge_traces::{Kind, RedactionKey, Redactor};
use std::cell::RefCell;
use tracing::{Span, info_span};

/// Opens a span while one of its user's fields is formatted.
struct Chatty;

impl std::fmt::Display for Chatty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        info_span!("storage").in_scope(|| f.write_str("chatty"))
    }
}

thread_local! {
    /// Closed after the recorder's own thread-local storage, which is newer, is gone.
    static LATE: RefCell<Option<Span>> = const { RefCell::new(None) };
}

#[test]
fn the_only_subscriber_of_a_process() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("alone.arrows");
    let key = RedactionKey::from_bytes([7; 16]);
    let recording = LayerOptions { key: Some(key.clone()), ..LayerOptions::new(&out) }.record().unwrap();

    let second = regauge_recorder::record(directory.path().join("second.arrows")).unwrap_err();
    assert!(matches!(second, LayerError::SubscriberIsSet), "{second}");
    assert!(!directory.path().join("second.arrows").exists());

    info_span!("apply", session = %Chatty).in_scope(|| drop(info_span!("route")));
    std::thread::spawn(|| {
        LATE.with(|late| late.replace(None));
        LATE.with(|late| late.replace(Some(info_span!("membership"))));
    })
    .join()
    .unwrap();

    let summary = recording.finish().unwrap();
    let trace = regauge_traces::open(&out).unwrap();
    let find = |kind| trace.spans.iter().find(|span| span.kind == kind);
    let apply = find(Kind::Apply).unwrap();
    assert_eq!(apply.session, Some(Redactor::new(&key).session(b"chatty")));
    assert_eq!(find(Kind::Route).unwrap().parent, Some(apply.id));
    assert!(find(Kind::Storage).is_none());
    assert_eq!(summary.drops.other.get("nested"), Some(&1));
    // Whichever storage the system destroys first, the span is either there or counted.
    let late = summary.drops.other.get("thread_ended").copied().unwrap_or(0);
    assert_eq!(u64::from(find(Kind::Membership).is_some()) + late, 1, "{:?}", summary.drops);
}
