//! What a span costs its thread, by way of recording.
//!
//! Each subject runs in a process of its own, as a program's global subscriber does; the subjects take turns, round by
//! round, so that what disturbs the machine disturbs all. A sample is the mean of one burst of spans, short enough for
//! every recorder's buffer; between bursts the writers get time. Printed are the median of all samples, their 10th and
//! 90th percentile, and the ratio of medians to fastrace's local span. `layer_bench [--rounds N]`.
//!
//! What one reading of the clock costs stands last: it differs much between machines, above all virtual ones. A span that
//! is recorded with its busy time takes four of them (made, entered, left, closed), an enter or exit one, and fastrace's
//! span, which knows no busy time, two.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fastrace::collector::{Config, Reporter, SpanContext, SpanRecord};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};
use tracing::info_span;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const BURST: u32 = 1000;
const BURSTS: usize = 60;

const SUBJECTS: [(&str, &str); 6] = [
    ("none", "no subscriber"),
    ("registry", "tracing's registry, no layer"),
    ("layer", "our layer on the registry"),
    ("alone", "our layer alone"),
    ("fastrace", "fastrace, local span"),
    ("fmt", "tracing's fmt layer, on close, to a sink"),
];

struct Nowhere;

impl Reporter for Nowhere {
    fn report(&mut self, spans: Vec<SpanRecord>) {
        drop(black_box(spans));
    }
}

/// ns per call, burst by burst.
fn bursts(mut one: impl FnMut()) -> Vec<f64> {
    let mut sample = || {
        std::thread::sleep(Duration::from_millis(7));
        let start = Instant::now();
        (0..BURST).for_each(|_| one());
        start.elapsed().as_nanos() as f64 / f64::from(BURST)
    };
    // The first ones fill caches and buffers.
    for _ in 0..3 {
        black_box(sample());
    }
    (0..BURSTS).map(|_| sample()).collect()
}

fn say(what: &str, samples: &[f64]) {
    samples.iter().for_each(|sample| println!("{what} {sample}"));
}

/// One subject, in this process.
fn subject(name: &str) {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("bench.arrows");
    let mut recording = None;
    match name {
        "none" => say(
            "clock",
            &bursts(|| {
                black_box(regauge_traces::ticks::now());
            }),
        ),
        "registry" => tracing_subscriber::registry().init(),
        "layer" => {
            let (layer, running) = regauge_recorder::layer(out).unwrap();
            tracing_subscriber::registry().with(layer).init();
            recording = Some(running);
        }
        "alone" => recording = Some(regauge_recorder::record(out).unwrap()),
        "fmt" => {
            let layer = tracing_subscriber::fmt::layer().with_span_events(FmtSpan::CLOSE).with_writer(std::io::sink);
            tracing_subscriber::registry().with(layer).init();
        }
        "fastrace" => {
            fastrace::set_reporter(Nowhere, Config::default());
            let samples: Vec<f64> = (0..BURSTS)
                .map(|_| {
                    std::thread::sleep(Duration::from_millis(7));
                    let root = fastrace::Span::root("root", SpanContext::random());
                    let _parent = root.set_local_parent();
                    let start = Instant::now();
                    for _ in 0..BURST {
                        drop(black_box(fastrace::local::LocalSpan::enter_with_local_parent("apply")));
                    }
                    start.elapsed().as_nanos() as f64 / f64::from(BURST)
                })
                .collect();
            return say("span", samples.get(3..).unwrap());
        }
        other => panic!("no subject {other}"),
    }
    say("span", &bursts(|| info_span!("apply").in_scope(|| black_box(()))));
    say("fields", &bursts(|| info_span!("apply", session = "client-1234", count = 1u64).in_scope(|| black_box(()))));
    let span = info_span!("apply");
    let both = bursts(|| span.in_scope(|| black_box(())));
    say("enter or exit", &both.iter().map(|both| both / 2.0).collect::<Vec<_>>());
    drop(span);
    if let Some(recording) = recording {
        // Losing a span is cheaper than keeping it, so losses must be told.
        println!("lost {}", recording.finish().unwrap().drops.total());
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = arguments.as_slice()
        && flag == "--subject"
    {
        return subject(name);
    }
    let rounds = match arguments.as_slice() {
        [] => 9,
        [flag, rounds] if flag == "--rounds" => rounds.parse().expect("--rounds N"),
        _ => panic!("usage: layer_bench [--rounds N]"),
    };
    let mut samples: BTreeMap<(String, &str), Vec<f64>> = BTreeMap::new();
    for round in 0..rounds {
        for turn in 0..SUBJECTS.len() {
            let (name, _) = SUBJECTS[(round + turn) % SUBJECTS.len()];
            let child = Command::new(std::env::current_exe().unwrap()).args(["--subject", name]).output().unwrap();
            assert!(child.status.success(), "{name}: {}", String::from_utf8_lossy(&child.stderr));
            for line in String::from_utf8(child.stdout).unwrap().lines() {
                let (what, value) = line.rsplit_once(' ').unwrap();
                samples.entry((what.to_owned(), name)).or_default().push(value.parse().unwrap());
            }
        }
    }
    let lost: f64 = samples.iter().filter(|((what, _), _)| what == "lost").flat_map(|(_, lost)| lost).sum();
    if lost > 0.0 {
        println!("{lost} spans found a ring full and were lost: the machine is too busy for the writer");
    }
    samples.values_mut().for_each(|all| all.sort_by(f64::total_cmp));
    let at = |what: &str, name, part: f64| -> Option<f64> {
        let all = samples.get(&(what.to_owned(), name))?;
        all.get((part * (all.len() - 1) as f64).round() as usize).copied()
    };
    let peer = at("span", "fastrace", 0.5).unwrap();
    for (what, title) in [
        ("span", "a span without fields: create, enter, exit, close"),
        ("fields", "a span with a client id (hashed) and a count"),
        ("enter or exit", "an enter or an exit (half of both)"),
    ] {
        println!("\n{title}, ns: median [10 %, 90 %] of {rounds} rounds × {BURSTS} bursts × {BURST}");
        for (name, words) in SUBJECTS {
            let Some(median) = at(what, name, 0.5) else { continue };
            let (low, high) = (at(what, name, 0.1).unwrap(), at(what, name, 0.9).unwrap());
            let ratio = match what {
                "span" => format!("   {:5.2} × fastrace", median / peer),
                _ => String::new(),
            };
            println!("  {words:42} {median:7.1} [{low:.1}, {high:.1}]{ratio}");
        }
    }
    if let Some(clock) = at("clock", "none", 0.5) {
        println!("\none reading of the clock: {clock:.1} ns");
    }
}
