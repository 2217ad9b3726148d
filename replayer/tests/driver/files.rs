//! From a trace file to the files of a run.

use crate::server::{Server, id_of};
use crate::spans::{MS, connect, number, publish};
use arrow_array::cast::AsArray;
use arrow_array::types::{UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use regauge_replayer::drive::{DriveError, DriveOptions, DriverRecord, drive};
use regauge_traces::study::{CONNECTION_COLUMNS, REQUEST_COLUMNS, sample_flags};
use regauge_traces::{Meta, Redaction};
use std::fs::File;
use std::path::Path;

fn read(path: &Path) -> RecordBatch {
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    reader.next().unwrap().unwrap()
}

#[test]
fn a_run_leaves_its_samples_and_histograms() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace.parquet");
    let mut spans = vec![connect(0, 0)];
    spans.extend((0..50).map(|at| publish(0, (10 + at) * MS, (at % 2) as u8, 90)));
    number(&mut spans);
    let redaction = Redaction { method: "siphash-2-4".to_owned(), key_id: "00000000".to_owned() };
    regauge_traces::write_sealed(&trace, &Meta::recording("test", redaction), &spans).unwrap();

    // The publishes at QoS 1 have the ids 1 to 25; one gets no reply.
    let server = Server::start(|peer, packet| {
        if packet[0] >> 4 != 3 || packet[0] >> 1 & 3 == 0 || id_of(packet) != 20 {
            peer.answer(packet);
        }
    });
    let out = directory.path().join("runs/block=000/arm=a");
    let options = DriveOptions { warmup_ns: Some(20 * MS), drain_ns: 2000 * MS, speed: 2.0, ..DriveOptions::default() };
    let record = drive(&trace, server.address, &out, &options).unwrap();
    assert_eq!((record.requests, record.lost, record.errors), (51, 1, 1), "{record:?}");
    let text = serde_json::to_string(&record).unwrap();
    // Compared as JSON: serde_json reads most floating-point numbers, not all, back to the last bit.
    let again: DriverRecord = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_value(again).unwrap(), serde_json::from_str::<serde_json::Value>(&text).unwrap());

    let rows = read(&out.join("requests.parquet"));
    let names: Vec<&str> = rows.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, REQUEST_COLUMNS);
    assert_eq!(rows.num_rows(), 51);
    let u64s = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<UInt64Type>();
    assert_eq!(u64s("op_id").values().as_ref(), (1..=51).collect::<Vec<u64>>());
    let step = rows.column_by_name("step").unwrap().as_string::<i32>();
    assert_eq!((step.value(0), step.value(1)), ("connect", "publish"));
    assert_eq!(rows.column_by_name("session").unwrap().as_primitive::<UInt32Type>().value(7), 0);
    assert_eq!(rows.column_by_name("status").unwrap().as_primitive::<UInt32Type>().value(7), 0);
    assert_eq!(u64s("planned_ns").value(50), 59 * MS / 2);
    let flags = rows.column_by_name("flags").unwrap().as_primitive::<UInt32Type>();
    let (latency, service, sent) = (u64s("latency_ns"), u64s("service_ns"), u64s("sent_ns"));
    for row in 0..51 {
        let replied = flags.value(row) & (sample_flags::NO_REPLY | sample_flags::LOST) == 0;
        assert_eq!((latency.is_valid(row), service.is_valid(row)), (replied, replied));
        assert!(sent.value(row) >= u64s("planned_ns").value(row));
        assert_eq!(flags.value(row) & sample_flags::WARMUP != 0, u64s("planned_ns").value(row) < 20 * MS);
    }

    // What joins a request to what the server saw: the CONNECT has 24 bytes and a publish 90, a reply 4.
    let (sent_offset, reply_offset) = (u64s("sent_offset"), u64s("reply_offset"));
    let mut replies = 0;
    for row in 0..51 {
        assert_eq!(sent_offset.value(row), 24 + 90 * row as u64);
        let replied = latency.is_valid(row);
        assert_eq!(reply_offset.is_valid(row), replied);
        assert_eq!(u64s("read_lag_ns").is_valid(row), replied);
        assert!(u64s("driver_lag_ns").is_valid(row));
        replies += u64::from(replied);
        assert!(!replied || reply_offset.value(row) == 4 * replies);
    }
    assert_eq!(rows.column_by_name("connection").unwrap().as_primitive::<UInt32Type>().value(50), 0);
    let connections = read(&out.join("connections.parquet"));
    let names: Vec<&str> = connections.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!((names.as_slice(), connections.num_rows()), (CONNECTION_COLUMNS.as_slice(), 1));
    let port = connections.column_by_name("port").unwrap().as_primitive::<UInt32Type>().value(0);
    assert_eq!(port, u32::from(server.port(0)));
    let opened = connections.column_by_name("opened_ns").unwrap().as_primitive::<UInt64Type>().value(0);
    assert!(opened <= sent.value(0), "a connection that was opened at {opened} sent at {}", sent.value(0));
    assert!(record.t0_ns < regauge_replayer::drive::poll::monotonic_ns());

    let histograms = read(&out.join("histograms.parquet"));
    let text = |name: &str, row| histograms.column_by_name(name).unwrap().as_string::<i32>().value(row).to_owned();
    // The CONNECT was warm-up.
    assert_eq!(histograms.num_rows(), 2);
    assert_eq!((text("step", 0), text("metric", 0)), ("publish".to_owned(), "latency".to_owned()));
    assert_eq!((text("step", 1), text("metric", 1)), ("publish".to_owned(), "service".to_owned()));
    let mut blob = histograms.column_by_name("blob").unwrap().as_binary::<i32>().value(0);
    let histogram: hdrhistogram::Histogram<u64> =
        hdrhistogram::serialization::Deserializer::new().deserialize(&mut blob).unwrap();
    let measured = (0..51).filter(|&row| flags.value(row) & sample_flags::WARMUP == 0 && latency.is_valid(row));
    assert_eq!(histogram.len(), measured.count() as u64);
    assert_eq!(histogram.sigfig(), 3);
}

#[test]
fn errors_before_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let address: std::net::SocketAddr = "127.0.0.1:9".parse().unwrap();
    let missing = drive(&directory.path().join("none"), address, directory.path(), &DriveOptions::default());
    assert!(matches!(missing.unwrap_err(), DriveError::Plan(_)));

    let trace = directory.path().join("trace.parquet");
    let redaction = Redaction { method: "siphash-2-4".to_owned(), key_id: "00000000".to_owned() };
    regauge_traces::write_sealed(&trace, &Meta::recording("test", redaction), &[connect(0, 0)]).unwrap();
    let cpu = DriveOptions { cpu: Some(100_000), ..DriveOptions::default() };
    let error = drive(&trace, address, directory.path(), &cpu).unwrap_err();
    assert!(error.to_string().contains("CPU 100000"), "{error}");

    let file = directory.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let error = drive(&trace, address, &file, &DriveOptions::default()).unwrap_err();
    assert!(error.to_string().contains("a-file"), "{error}");
}

#[test]
fn options_come_from_json_and_typos_are_refused() {
    let options: DriveOptions = serde_json::from_str(r#"{"cpu":1,"spin":true}"#).unwrap();
    assert_eq!(options, DriveOptions { cpu: Some(1), spin: true, ..DriveOptions::default() });
    assert!(serde_json::from_str::<DriveOptions>(r#"{"drainns":1}"#).is_err());
}
