//! What is written is read, in both forms, whatever the values.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{any_spans, both_forms, meta, write_live};
use proptest::prelude::*;
use regauge_traces::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn live_then_sealed(spans in any_spans(300), rows in 1usize..200) {
        let directory = tempfile::tempdir().unwrap();
        let live = directory.path().join("t.arrows");
        let summary = write_live(&live, &spans, rows);
        prop_assert_eq!(summary.rows, spans.len() as u64);
        prop_assert_eq!(summary.bytes, std::fs::metadata(&live).unwrap().len());
        let read = open(&live).unwrap();
        prop_assert_eq!(&read.spans, &spans);
        prop_assert_eq!((read.form, read.torn_bytes), (Some(Form::Live), 0));
        prop_assert!(read.meta.finished && !read.meta.sealed);

        let sealed = directory.path().join("t.parquet");
        let report = seal(&live, &sealed).unwrap();
        prop_assert_eq!(report.rows, spans.len() as u64);
        prop_assert_eq!(report.bytes_before, summary.bytes);
        prop_assert_eq!(report.bytes, std::fs::metadata(&sealed).unwrap().len());
        let again = open(&sealed).unwrap();
        prop_assert_eq!(&again.spans, &spans);
        prop_assert_eq!(workload_hash(&again.spans), workload_hash(&read.spans));
        prop_assert_eq!(&again.meta, &Meta { sealed: true, ..read.meta });
        prop_assert_eq!(again.form, Some(Form::Sealed));
    }
}

#[test]
fn metadata_survives_both_forms() {
    let directory = tempfile::tempdir().unwrap();
    let (live, sealed) = (directory.path().join("t"), directory.path().join("s"));
    let mut told = meta();
    told.derived = vec!["slice".into()];
    let mut writer = LiveWriter::create(&live, &told, LiveOptions::default()).unwrap();
    writer.push(Span::new(0, Kind::Ping, 5)).unwrap();
    let other = BTreeMap::from([("ring_overrun".to_owned(), 3)]);
    let drops = Drops { queue_full: 1, undecodable_connections: 2, other };
    assert_eq!(drops.total(), 6);
    writer.finish(drops.clone()).unwrap();
    seal(&live, &sealed).unwrap();
    for path in [live, sealed] {
        let read = open(path).unwrap().meta;
        assert_eq!(read.drops.as_ref(), Some(&drops));
        assert_eq!((read.origin, &read.host, &read.source), (told.origin, &told.host, &told.source));
        assert_eq!(read.derived, told.derived);
        assert!(read.recorded_ns().unwrap() > 0);
        assert!(read.drift_ns().is_some());
    }
}

#[test]
fn host_facts_are_this_host() {
    let host = Host::here();
    assert_eq!(host.arch, std::env::consts::ARCH);
    assert_eq!(host.kernel, std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim());
    assert!(host.cpus > 0);
}

/// What is in the file when the process dies without a word: everything that was flushed, with losses and clocks.
#[test]
fn a_recording_that_just_stops_is_readable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t");
    let mut writer = LiveWriter::create(&path, &meta(), LiveOptions { rows: 10, ..LiveOptions::default() }).unwrap();
    assert_eq!(open(&path).unwrap().spans, [], "the header alone is a trace without rows");
    for id in 0..25 {
        writer.push(Span::new(id, Kind::Publish, id)).unwrap();
    }
    let read = open(&path).unwrap();
    assert_eq!((read.spans.len(), read.torn_bytes), (20, 0));
    assert!(!read.meta.finished);
    assert_eq!(read.meta.drops, Some(Drops::default()));
    let drops = Drops { queue_full: 7, ..Drops::default() };
    writer.set_drops(&drops);
    writer.flush_if_due().unwrap();
    std::mem::forget(writer);
    let read = open(&path).unwrap();
    assert_eq!((read.spans.len(), read.meta.drops), (25, Some(drops)));
    assert!(read.meta.end.is_some());
}

#[test]
fn old_rows_do_not_wait_for_a_full_batch() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t");
    let options = LiveOptions { rows: 1000, age: Duration::ZERO };
    let mut writer = LiveWriter::create(&path, &meta(), options).unwrap();
    writer.push(Span::new(0, Kind::Ping, 0)).unwrap();
    assert_eq!(writer.rows(), 0);
    writer.flush_if_due().unwrap();
    assert_eq!((writer.rows(), open(&path).unwrap().spans.len()), (1, 1));
}

#[test]
fn ids_must_ascend() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = LiveWriter::create(directory.path().join("t"), &meta(), LiveOptions::default()).unwrap();
    writer.push(Span::new(4, Kind::Ping, 0)).unwrap();
    let error = writer.push(Span::new(4, Kind::Ping, 0)).unwrap_err();
    assert_eq!(error.to_string(), "span id 4 does not come after 4: ids must ascend in the order of writing");
    writer.push(Span::new(5, Kind::Ping, 0)).unwrap();
    let sealed = directory.path().join("s");
    let spans = [Span::new(1, Kind::Ping, 0), Span::new(0, Kind::Ping, 0)];
    assert!(matches!(write_sealed(&sealed, &meta(), &spans), Err(TraceError::IdOrder { id: 0, last: 1 })));
    assert!(!sealed.exists());
}

/// A layer numbers spans when they begin: a child stands before the parent that it names.
#[test]
fn rows_that_do_not_ascend_keep_their_order_in_both_forms() {
    let directory = tempfile::tempdir().unwrap();
    let (live, sealed) = (directory.path().join("live"), directory.path().join("sealed"));
    let mut writer = LiveWriter::create(&live, &meta(), LiveOptions { rows: 2, ..LiveOptions::default() }).unwrap();
    let child = |id| Span { parent: Some(1), ..Span::new(id, Kind::Route, id) };
    let spans = [child(3), child(2), Span::new(1, Kind::RaftProposal, 0)];
    spans.iter().for_each(|span| writer.push_unordered(span.clone()).unwrap());
    assert!(matches!(writer.push(child(3)), Err(TraceError::IdOrder { id: 3, last: 3 })));
    writer.finish(Drops::default()).unwrap();
    assert_eq!(open(&live).unwrap().spans, spans);
    seal(&live, &sealed).unwrap();
    assert_eq!(open(&sealed).unwrap().spans, spans);
}

#[test]
fn traces_of_version_1_still_open() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    for (name, spans) in [("mosquitto-production.parquet", 2000), ("mqttx-conn.parquet", 1000)] {
        let trace = open(samples.join(name)).unwrap();
        assert_eq!(trace.meta.schema_version, 1);
        assert!(trace.spans.len() >= spans, "{name}: {}", trace.spans.len());
    }
    // Sealed anew, a trace has the version of its writer.
    let directory = tempfile::tempdir().unwrap();
    let anew = directory.path().join("anew");
    seal(samples.join("mqttx-conn.parquet"), &anew).unwrap();
    assert_eq!(open(&anew).unwrap().meta.schema_version, SCHEMA_VERSION);
}

/// Cut anywhere, a live trace is a prefix of itself.
#[test]
fn a_torn_tail_is_passed_over_and_counted() {
    let (directory, live, _) = both_forms();
    let bytes = std::fs::read(&live).unwrap();
    let whole = open(&live).unwrap();
    let torn = directory.path().join("torn");
    // Where the first batch starts: the size of a file that holds only a header of the same length.
    let header = (0..bytes.len()).find(|cut| {
        std::fs::write(&torn, &bytes[..*cut]).unwrap();
        open(&torn).is_ok()
    });
    let header = header.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for cut in (header..bytes.len()).step_by(97) {
        std::fs::write(&torn, &bytes[..cut]).unwrap();
        let read = open(&torn).unwrap();
        assert_eq!(read.spans[..], whole.spans[..read.spans.len()]);
        assert!(read.torn_bytes < bytes.len() as u64);
        let kept = usize::try_from(read.torn_bytes).unwrap();
        std::fs::write(&torn, &bytes[..cut - kept]).unwrap();
        assert_eq!(open(&torn).unwrap().torn_bytes, 0, "what is left after the torn bytes is whole");
        seen.insert(read.spans.len());
        // A file system may have allocated blocks for what was never written.
        let mut zeros = bytes[..cut].to_vec();
        zeros.resize(cut + 5000, 0);
        std::fs::write(&torn, zeros).unwrap();
        // (If only zeros were cut off, they are back, and so is the batch: its checksum tells.)
        let padded = open(&torn).unwrap();
        assert!(whole.spans.starts_with(&padded.spans) && padded.spans.len() >= read.spans.len());
        assert!(padded.torn_bytes > 0 && padded.torn_bytes <= read.torn_bytes + 5000);
    }
    assert!(seen.len() > 2, "{seen:?}");
    // Sealing a torn trace keeps what is whole, and says what is not.
    std::fs::write(&torn, &bytes[..bytes.len() - 20]).unwrap();
    let report = seal(&torn, directory.path().join("s")).unwrap();
    assert!(report.torn_bytes > 0);
    assert!(!open(directory.path().join("s")).unwrap().meta.finished);
}

#[test]
fn sealing_replaces_at_once_or_not_at_all() {
    let (directory, live, sealed) = both_forms();
    let before = std::fs::read(&sealed).unwrap();
    let broken = directory.path().join("broken");
    let mut bytes = std::fs::read(&live).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0x55);
    std::fs::write(&broken, bytes).unwrap();
    assert!(matches!(seal(&broken, &sealed), Err(TraceError::Corrupt { .. })));
    assert_eq!(std::fs::read(&sealed).unwrap(), before);
    let names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|n| n.to_string_lossy().ends_with(".tmp")), "{names:?}");
    // Sealing twice gives the same file.
    seal(&sealed, directory.path().join("again")).unwrap();
    assert_eq!(std::fs::read(directory.path().join("again")).unwrap(), before);
}
