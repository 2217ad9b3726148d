//! Files that are not traces, or not any more: each gets its own sentence, and none a panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arrow_array::{ArrayRef, RecordBatch, UInt64Array};
use arrow_ipc::writer::StreamWriter;
use common::both_forms;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use proptest::prelude::*;
use regauge_traces::*;
use std::path::Path;
use std::sync::{Arc, LazyLock};

fn complaint(path: &Path) -> String {
    open(path).unwrap_err().to_string().replace(&path.display().to_string(), "FILE")
}

fn complaint_about(bytes: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t");
    std::fs::write(&path, bytes).unwrap();
    complaint(&path)
}

fn some_column() -> RecordBatch {
    RecordBatch::try_from_iter([("id", Arc::new(UInt64Array::from(vec![1, 2])) as ArrayRef)]).unwrap()
}

/// A Parquet file with one column, with or without a trace's metadata.
fn parquet(meta: Option<&str>) -> Vec<u8> {
    let batch = some_column();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    if let Some(meta) = meta {
        writer.append_key_value_metadata(KeyValue::new(META_KEY.to_owned(), meta.to_owned()));
        writer.append_key_value_metadata(KeyValue::new("regauge.crc32".to_owned(), "00000000".to_owned()));
    }
    writer.close().unwrap();
    bytes
}

fn arrow_stream(metadata: &[(&str, String)]) -> Vec<u8> {
    let batch = some_column();
    let schema = batch.schema().as_ref().clone().with_metadata(
        metadata.iter().map(|(k, v)| (k.to_string(), v.clone())).collect::<std::collections::HashMap<_, _>>(),
    );
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &schema).unwrap();
    writer.write(&batch.with_schema(Arc::new(schema.clone())).unwrap()).unwrap();
    writer.finish().unwrap();
    drop(writer);
    bytes
}

fn meta_json(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut json = serde_json::to_value(common::meta()).unwrap();
    change(&mut json);
    json.to_string()
}

#[test]
fn every_failure_has_its_own_sentence() {
    let (directory, live, sealed) = both_forms();
    let sealed = std::fs::read(sealed).unwrap();
    let live = std::fs::read(live).unwrap();
    let mut flipped = sealed.clone();
    flipped[sealed.len() / 3] ^= 0x10;
    let mut flipped_live = live.clone();
    flipped_live[live.len() / 2] ^= 0x10;
    let newer = meta_json(|json| json["schema_version"] = 7.into());
    let current = meta_json(|_| {});
    let crc = |text: &str| format!("{:08x}", crc32fast::hash(text.as_bytes()));

    let cases = [
        ("not found", complaint(&directory.path().join("nothing"))),
        ("directory", complaint(directory.path())),
        ("empty", complaint_about(b"")),
        ("text", complaint_about(b"id,kind\n1,connect\n")),
        ("binary", complaint_about(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0])),
        ("arrow file", complaint_about(b"ARROW1\0\0whatever")),
        ("pcapng", complaint_about(&[0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 0])),
        ("other parquet", complaint_about(&parquet(None))),
        ("other stream", complaint_about(&arrow_stream(&[]))),
        ("truncated parquet", complaint_about(&sealed[..sealed.len() - 9])),
        ("truncated header", complaint_about(&live[..40])),
        ("newer parquet", complaint_about(&parquet(Some(&newer)))),
        ("newer stream", complaint_about(&arrow_stream(&[("regauge", newer.clone())]))),
        ("missing columns", complaint_about(&parquet(Some(&current)))),
        (
            "missing columns, stream",
            complaint_about(&arrow_stream(&[("regauge", current.clone()), ("regauge.crc32", crc(&current))])),
        ),
        ("header checksum", complaint_about(&arrow_stream(&[("regauge", current)]))),
        ("no version", complaint_about(&parquet(Some("{}")))),
    ];
    let listed: Vec<String> = cases.iter().map(|(name, sentence)| format!("{name}: {sentence}")).collect();
    insta::assert_snapshot!(listed.join("\n"));
    for bytes in [flipped, flipped_live] {
        let sentence = complaint_about(&bytes);
        assert!(sentence.starts_with("FILE is corrupt ("), "{sentence}");
        assert!(sentence.ends_with("): restore it from a copy") && !sentence.contains('\n'), "{sentence}");
    }
}

#[test]
fn rows_after_the_end_are_corruption() {
    let (_directory, live, _) = both_forms();
    let mut bytes = std::fs::read(live).unwrap();
    bytes.extend(b"more");
    assert_eq!(complaint_about(&bytes), "FILE is corrupt (bytes follow its end): restore it from a copy");
}

#[test]
fn no_permission() {
    use std::os::unix::fs::PermissionsExt;
    let (_directory, live, _) = both_forms();
    std::fs::set_permissions(&live, std::fs::Permissions::from_mode(0o0)).unwrap();
    // Root may read anything; then there is nothing to see here but the sentence itself.
    match std::fs::File::open(&live) {
        Ok(_) => assert_eq!(
            TraceError::Permission("FILE".into()).to_string(),
            "no permission to open FILE: check the file's owner and mode"
        ),
        Err(_) => assert_eq!(complaint(&live), "no permission to open FILE: check the file's owner and mode"),
    }
}

/// /dev/full refuses every write with ENOSPC.
#[test]
fn a_full_disk_is_told_as_such() {
    let error = LiveWriter::create("/dev/full", &common::meta(), LiveOptions::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the disk is full: /dev/full ends after 0 rows, all of them readable; free space and record again"
    );
}

struct Valid {
    forms: [Vec<u8>; 2],
    spans: Vec<Span>,
}

static VALID: LazyLock<Valid> = LazyLock::new(|| {
    let (_directory, live, sealed) = both_forms();
    let spans = open(&live).unwrap().spans;
    Valid { forms: [live, sealed].map(|path| std::fs::read(path).unwrap()), spans }
});

/// Reads hostile bytes: an error, or rows that were really written. Damage may shorten a live trace (its tail counts
/// as torn, and is counted), never change a row.
fn damage_is_seen(bytes: &[u8]) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t");
    std::fs::write(&path, bytes).unwrap();
    match open(&path) {
        Err(error) => prop_assert!(!error.to_string().contains('\n'), "{}", error),
        Ok(read) => {
            prop_assert!(VALID.spans.starts_with(&read.spans), "rows were changed unseen");
            prop_assert!(read.spans.len() == VALID.spans.len() || read.torn_bytes > 0 || !read.meta.finished);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits(form in 0usize..2, flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4)) {
        let mut bytes = VALID.forms[form].clone();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        damage_is_seen(&bytes)?;
    }

    #[test]
    fn overwritten_bytes(form in 0usize..2, at in any::<prop::sample::Index>(), junk in proptest::collection::vec(any::<u8>(), 1..64)) {
        let mut bytes = VALID.forms[form].clone();
        let at = at.index(bytes.len());
        let end = (at + junk.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&junk[..end - at]);
        damage_is_seen(&bytes)?;
    }

    #[test]
    fn cut_off(form in 0usize..2, at in any::<prop::sample::Index>()) {
        let bytes = &VALID.forms[form];
        damage_is_seen(&bytes[..at.index(bytes.len())])?;
    }

    #[test]
    fn junk(start in prop::sample::select(vec![&b""[..], b"PAR1", b"\xff\xff\xff\xff", b"ARROW1"]), junk in proptest::collection::vec(any::<u8>(), 0..600), tail in prop::sample::select(vec![&b""[..], b"PAR1"])) {
        damage_is_seen(&[start, &junk[..], tail].concat())?;
    }
}
