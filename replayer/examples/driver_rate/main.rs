//! How exactly and how fast the driver sends: the numbers behind `just bench-driver`.
//!
//! ```text
//! driver_rate drive --rate 20000 --seconds 5 --connections 4 --bytes 220 --cpu 0 --sink-cpu 1 [--sleep]
//! driver_rate drive --rate 0 …          as fast as it can
//! driver_rate sink  --rate 20000 --connections 4 --sink-cpu 1
//! ```
//! `drive` runs our driver against a sink on a thread of this process; `sink` is the same sink alone, for other tools:
//! it prints its address, and its findings when its stdin ends. Both judge a sender from outside, by when its publishes
//! arrive, and by one rule: on each connection publish k should arrive k intervals after the first, and the offset is
//! chosen in the sender's favour (its most punctual publish counts as exactly on time). `drive` adds what the driver
//! says of itself. Every line printed is JSON.

mod sink;

use regauge_replayer::drive::{DriveOptions, run};
use regauge_replayer::plan::{Plan, PlanOptions};
use regauge_traces::{Kind, Span, flags};
use serde_json::json;
use sink::Sink;
use std::collections::HashMap;
use std::error::Error;
use std::io::Read;
use std::time::Duration;

/// From CONNECT to the first publish, ns.
const LEAD_NS: u64 = 200_000_000;

/// The rate that stands for "as fast as it can": beyond what one core reaches.
const BEYOND_PER_S: f64 = 20e6;

struct Arguments(HashMap<String, String>);

impl Arguments {
    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        match self.0.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("--{name} {text} is not a number")),
        }
    }

    fn cpu(&self, name: &str) -> Result<Option<usize>, String> {
        self.0.get(name).map(|_| self.number(name, 0)).transpose()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1).peekable();
    let verb = words.next().unwrap_or_default();
    let mut arguments = HashMap::new();
    while let Some(word) = words.next() {
        let name = word.strip_prefix("--").ok_or_else(|| format!("`{word}` is not an option"))?;
        let value = words.next_if(|next| !next.starts_with("--")).unwrap_or_default();
        arguments.insert(name.to_owned(), value);
    }
    let arguments = Arguments(arguments);
    match verb.as_str() {
        "drive" => drive(&arguments),
        "sink" => serve(&arguments),
        _ => Err("usage: driver_rate drive|sink [--rate N] [--seconds S] [--connections N] [--bytes N] [--cpu N] [--sink-cpu N] [--sleep]".into()),
    }
}

/// The sink alone, until stdin ends.
fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let sink = Sink::start(arguments.cpu("sink-cpu")?)?;
    println!("{}", json!({ "addr": sink.address.to_string() }));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let arrivals = sink.stop()?;
    let (rate, connections) = (arguments.number("rate", 0.0)?, arguments.number("connections", 1_u32)?);
    println!("{}", sink::findings(&arrivals, rate, connections, arguments.number("skip", 1.0)?));
    Ok(())
}

/// The driver against a sink.
fn drive(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let rate: f64 = arguments.number("rate", 20_000.0)?;
    let seconds: f64 = arguments.number("seconds", 5.0)?;
    let connections: u32 = arguments.number("connections", 4)?;
    let bytes: u64 = arguments.number("bytes", 220)?;
    let skip: f64 = arguments.number("skip", 1.0)?;
    let saturate = rate == 0.0;
    let (pace, count) =
        if saturate { (BEYOND_PER_S, arguments.number("count", 2_000_000)?) } else { (rate, (rate * seconds) as u64) };
    let plan = Plan::build(&spans(pace, count, connections, bytes), &PlanOptions::default())?;
    let sink = Sink::start(arguments.cpu("sink-cpu")?)?;
    let options = DriveOptions {
        cpu: arguments.cpu("cpu")?,
        spin: !arguments.0.contains_key("sleep"),
        warmup_ns: Some(LEAD_NS + if saturate { 0 } else { Duration::from_secs_f64(skip).as_nanos() as u64 }),
        drain_ns: 30_000_000_000,
        speed: 1.0,
    };
    let outcome = run(&plan, sink.address, &options)?;
    let arrivals = sink.stop()?;
    let sent: Vec<u64> = outcome.rows.iter().filter(|row| row.is_measured()).filter_map(|row| row.sent_ns).collect();
    let span_ns = sent.iter().max().unwrap_or(&0).saturating_sub(sent.iter().min().copied().unwrap_or(0));
    let mut findings = sink::findings(&arrivals, rate, connections, if saturate { 0.0 } else { skip });
    let own = json!({
        "sent_per_s": sent.len().saturating_sub(1) as f64 * 1e9 / span_ns.max(1) as f64,
        "send_lag_ns": outcome.record.send_lag_ns,
        "driver_lag_ns": outcome.record.driver_lag_ns,
        "held": outcome.record.held,
        "errors": outcome.record.errors,
        "cpu_ns_per_publish": outcome.record.cpu_ns / count.max(1),
    });
    findings["driver"] = own;
    println!("{findings}");
    Ok(())
}

/// `count` QoS 0 publishes at even intervals, dealt out to the connections in turn.
fn spans(rate: f64, count: u64, connections: u32, bytes: u64) -> Vec<Span> {
    let span = |id: u64, kind, connection: u32, start_ns| {
        let mut span = Span::new(id, kind, start_ns);
        span.connection = Some(connection);
        span.session = Some(u64::from(connection));
        span
    };
    let connects = (0..connections).map(|connection| {
        let mut span = span(u64::from(connection), Kind::Connect, connection, 0);
        (span.bytes, span.flags) = (30, flags::CLEAN_START);
        span
    });
    let publishes = (0..count).map(|index| {
        let at_ns = LEAD_NS + (index as f64 * 1e9 / rate) as u64;
        let connection = (index % u64::from(connections)) as u32;
        let mut span = span(u64::from(connections) + index, Kind::Publish, connection, at_ns);
        (span.bytes, span.target) = (bytes, Some("bench".to_owned()));
        span
    });
    connects.chain(publishes).collect()
}
