//! Prints what a row costs in both forms, per synthetic profile, and with modelled durations as a recording has them.
//!
//! `cargo run --release -p regauge-traces --example bytes_per_row [-- DIR]` — with DIR the sealed traces stay there, as
//! small samples for trying out readers.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regauge_traces::ops::{Scale, scale};
use regauge_traces::{Drops, LiveOptions, LiveWriter, Profile, Span, SynthParams, Trace, seal, synth};
use std::path::{Path, PathBuf};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let kept = std::env::args_os().nth(1).map(PathBuf::from);
    let scratch = tempfile::tempdir()?;
    let directory = kept.as_deref().unwrap_or(scratch.path());
    std::fs::create_dir_all(directory)?;
    println!("{:<32} {:>9} {:>10} {:>10}", "trace", "rows", "live B/row", "sealed B/row");
    for profile in Profile::ALL {
        let params = SynthParams::new(profile);
        // An Iggy trace is long because its rate is high; a tenth shows the same.
        let params = if params.rate_per_s > 3000.0 { SynthParams { scale: 10.0, ..params } } else { params };
        let trace = synth(&params)?;
        measure(directory, profile.name(), &trace)?;
        if profile == Profile::Production || profile == Profile::PublishQos1 {
            measure(directory, &format!("{profile}-durations"), &answered(&trace))?;
        }
        if profile == Profile::Production {
            let big = scale(&trace, Scale::Sessions { copies: 20, seed: 1 })?;
            measure(directory, "production-x20-durations", &answered(&big))?;
        }
    }
    Ok(())
}

fn measure(directory: &Path, name: &str, trace: &Trace) -> Result<(), Failure> {
    let live = directory.join(format!("{name}.arrows"));
    let mut writer = LiveWriter::create(&live, &trace.meta, LiveOptions::default())?;
    for span in &trace.spans {
        writer.push(span.clone())?;
    }
    let written = writer.finish(Drops::default())?;
    let sealed = seal(&live, directory.join(format!("{name}.parquet")))?;
    let rows = written.rows as f64;
    println!(
        "{name:<32} {:>9} {:>10.2} {:>10.2}",
        written.rows,
        written.bytes as f64 / rows,
        sealed.bytes as f64 / rows
    );
    Ok(())
}

/// Gives every request with a reply a duration: log-normal around 150 µs, in ns, as a tap on loopback sees them.
fn answered(trace: &Trace) -> Trace {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut normal = move || {
        // Box and Muller (1958).
        let (u, v): (f64, f64) = (random.random(), random.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    let has_reply = |span: &Span| span.qos > 0 || !matches!(span.kind.name(), "publish" | "disconnect" | "close");
    let spans = trace.spans.iter().cloned().map(|mut span| {
        if has_reply(&span) {
            span.duration_ns = Some((150_000.0 * (0.5 * normal()).exp()) as u64);
        }
        span
    });
    Trace { spans: spans.collect(), ..trace.clone() }
}
