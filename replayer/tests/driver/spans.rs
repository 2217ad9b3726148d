//! Short ways to write spans.

use regauge_replayer::plan::{Plan, PlanOptions};
use regauge_traces::{Kind, Span, flags};

pub const MS: u64 = 1_000_000;

/// A root on connection `connection` of the session of the same number.
pub fn root(kind: Kind, connection: u32, start_ns: u64, bytes: u64) -> Span {
    let mut span = Span::new(0, kind, start_ns);
    span.session = Some(0xabcd_0000 + u64::from(connection));
    span.connection = Some(connection);
    span.bytes = bytes;
    span
}

pub fn connect(connection: u32, start_ns: u64) -> Span {
    let mut span = root(Kind::Connect, connection, start_ns, 24);
    span.flags = flags::CLEAN_START;
    span.keep_alive_s = 60;
    span
}

pub fn publish(connection: u32, start_ns: u64, qos: u8, bytes: u64) -> Span {
    let mut span = root(Kind::Publish, connection, start_ns, bytes);
    span.qos = qos;
    span.target = Some("somewhere/deep".to_owned());
    span
}

pub fn subscribe(connection: u32, start_ns: u64) -> Span {
    let mut span = root(Kind::Subscribe, connection, start_ns, 22);
    span.target = Some("somewhere/deep@1".to_owned());
    span
}

/// Makes every span MQTT 5.
pub fn v5(mut spans: Vec<Span>) -> Vec<Span> {
    spans.iter_mut().for_each(|span| span.flags |= flags::V5);
    spans
}

/// The plan of these spans, numbered as they stand.
pub fn plan(mut spans: Vec<Span>) -> Plan {
    number(&mut spans);
    Plan::build(&spans, &PlanOptions::default()).unwrap()
}

pub fn number(spans: &mut [Span]) {
    for (id, span) in (1..).zip(spans) {
        span.id = id;
    }
}
