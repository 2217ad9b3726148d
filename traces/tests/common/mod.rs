//! Strategies and helpers of the tests.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use regauge_traces::*;
use std::path::{Path, PathBuf};

pub fn meta() -> Meta {
    Meta::recording("a test", Redaction { method: "none".into(), key_id: String::new() })
}

/// Any span: the format holds what its types hold, sensible or not.
pub fn any_span() -> impl Strategy<Value = Span> {
    let some = (
        proptest::option::of(any::<u64>()),
        0..Kind::ALL.len(),
        any::<u64>(),
        proptest::option::of(any::<u64>()),
        proptest::option::of(any::<u64>()),
        proptest::option::of(any::<u64>()),
        proptest::option::of(any::<u32>()),
        proptest::option::of(".{0,40}"),
    );
    let rest = (any::<u64>(), any::<u32>(), any::<u8>(), any::<u32>(), any::<u8>(), any::<u16>(), any::<u32>());
    (some, rest, any::<u32>()).prop_map(|(some, rest, thread)| Span {
        id: 0,
        parent: some.0,
        kind: Kind::ALL[some.1],
        start_ns: some.2,
        duration_ns: some.3,
        busy_ns: some.4,
        session: some.5,
        connection: some.6,
        target: some.7,
        bytes: rest.0,
        count: rest.1,
        qos: rest.2,
        flags: rest.3,
        status: rest.4,
        keep_alive_s: rest.5,
        expiry_s: rest.6,
        thread,
    })
}

/// Spans with ids that ascend, in gaps.
pub fn any_spans(most: usize) -> impl Strategy<Value = Vec<Span>> {
    (proptest::collection::vec((any_span(), 1u64..1000), 0..most), any::<u32>()).prop_map(|(spans, first)| {
        let mut id = u64::from(first);
        let with_id = |(span, gap): (Span, u64)| {
            id += gap;
            Span { id, ..span }
        };
        spans.into_iter().map(with_id).collect()
    })
}

pub fn write_live(path: &Path, spans: &[Span], rows: usize) -> LiveSummary {
    let options = LiveOptions { rows, ..LiveOptions::default() };
    let mut writer = LiveWriter::create(path, &meta(), options).unwrap();
    spans.iter().for_each(|span| writer.push(span.clone()).unwrap());
    writer.finish(Drops::default()).unwrap()
}

/// A directory, and a small trace of real variety in both forms in it: live, sealed.
pub fn both_forms() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let params =
        SynthParams { duration_s: 0.5, rate_per_s: 400.0, clients: 20, ..SynthParams::new(Profile::Production) };
    let trace = synth(&params).unwrap();
    assert!(trace.spans.len() > 60, "{}", trace.spans.len());
    let live = directory.path().join("live.arrows");
    write_live(&live, &trace.spans, 50);
    let sealed = directory.path().join("sealed.parquet");
    seal(&live, &sealed).unwrap();
    (directory, live, sealed)
}
