//! The worked example of SPEC.md is true: everything in it is computed here and looked for there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use regauge_traces::frame::{RowSum, State};
use regauge_traces::*;

const SPEC: &str = include_str!("../SPEC.md");

fn example() -> (Meta, Vec<Span>) {
    let redactor = Redactor::new(&RedactionKey::from_bytes(std::array::from_fn(|i| i as u8)));
    let meta = Meta {
        schema_version: 2,
        regauge: "0.1.0".into(),
        source: "an example".into(),
        origin: Clocks::default(),
        end: None,
        host: Host::default(),
        drops: None,
        redaction: redactor.redaction(),
        sealed: false,
        finished: false,
        synth: None,
        derived: Vec::new(),
    };
    let session = Some(redactor.session(b"pump-7"));
    let connect = Span {
        duration_ns: Some(310_000),
        session,
        connection: Some(0),
        bytes: 20,
        flags: flags::CLEAN_START,
        keep_alive_s: 60,
        ..Span::new(0, Kind::Connect, 1_000_000)
    };
    let publish = Span {
        duration_ns: Some(95_000),
        session,
        connection: Some(0),
        target: Some(redactor.topic("site/7/temp")),
        bytes: 24,
        qos: 1,
        ..Span::new(2, Kind::Publish, 4_000_000)
    };
    let append = Span {
        parent: Some(2),
        duration_ns: Some(60_000),
        target: Some("p/3".into()),
        bytes: 53,
        ..Span::new(1, Kind::SegmentAppend, 4_020_000)
    };
    (meta, vec![connect, append, publish])
}

fn said(what: &str) {
    assert!(SPEC.contains(what), "SPEC.md does not say: {what}");
}

/// Everything in the example that can be wrong, as SPEC.md has it.
fn computed() -> String {
    let (meta, spans) = example();
    let mut lines = vec![format!("key_id            {}", meta.redaction.key_id)];
    lines.push(format!("H(1, \"pump-7\")    {0:016x} = {0}", spans[0].session.unwrap()));
    lines.push(format!("site/7/temp       {}", spans[2].target.as_deref().unwrap()));
    let text = serde_json::to_string(&meta).unwrap();
    lines.push(format!("header, regauge        {text}"));
    lines.push(format!("header, regauge.crc32  {}", RowSum::default().finish(&text)));
    let state = State { rows: 3, drops: Drops::default(), now: Clocks::default(), finished: true };
    let text = serde_json::to_string(&state).unwrap();
    let mut sum = RowSum::default();
    sum.add(&spans);
    lines.push(format!("batch, regauge         {text}"));
    lines.push(format!("batch, regauge.crc32   {}", sum.finish(&text)));
    lines.push(format!("workload hash     {}", workload_hash(&spans)));
    lines.join("\n")
}

#[test]
fn the_worked_example_is_true() {
    let computed = computed();
    assert!(SPEC.contains(&computed), "SPEC.md does not contain:\n{computed}");
}

#[test]
fn every_column_kind_and_flag_is_in_the_tables() {
    for field in regauge_traces::schema::schema().fields() {
        let kind = match field.data_type().to_string().as_str() {
            "UInt64" => "u64",
            "UInt32" => "u32",
            "UInt16" => "u16",
            "UInt8" => "u8",
            "Utf8" => "utf8",
            other => panic!("{other}"),
        };
        let nullable = if field.is_nullable() { "yes" } else { "no" };
        said(&format!("| `{}` | {kind} | {nullable} |", field.name()));
    }
    for kind in Kind::ALL {
        said(&format!("| `{kind}` | "));
        assert_eq!(kind.name().parse(), Ok(kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
    let named = [
        (flags::V5, "V5"),
        (flags::CLEAN_START, "CLEAN_START"),
        (flags::USERNAME, "USERNAME"),
        (flags::PASSWORD, "PASSWORD"),
        (flags::WILL, "WILL"),
        (flags::RETAIN, "RETAIN"),
        (flags::DUP, "DUP"),
        (flags::UNFINISHED, "UNFINISHED"),
        (flags::SESSION_PRESENT, "SESSION_PRESENT"),
    ];
    for (bit, name) in named {
        said(&format!("| {} | {bit} | {name} |", bit.trailing_zeros()));
    }
    assert_eq!(flags::WORKLOAD, 0x7f);
}
