//! `regauge drive`: one run of a trace's plan against any MQTT broker, open loop.

use anyhow::{Context, Result};
use regauge_replayer::drive::{DriveOptions, Target, drive};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Drive a trace once at any MQTT broker, open loop, and record every request
///
/// Sends each packet at its planned time whether or not earlier replies came; latency counts from the planned time.
/// The replayer runs this for every arm of every block; by hand it is useful against a broker of your own.
#[derive(clap::Args)]
pub struct Args {
    /// The trace to drive
    trace: PathBuf,
    /// Address of the broker
    #[arg(long, value_name = "ADDR")]
    target: SocketAddr,
    /// Address of the meta-service's gRPC port, for the trace's raft proposals
    #[arg(long, value_name = "ADDR")]
    meta: Option<SocketAddr>,
    /// Directory for requests.parquet, histograms.parquet and connections.parquet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Bind the driver to this CPU
    #[arg(long, value_name = "CPU")]
    cpu: Option<usize>,
    /// Busy-poll the last ~100 µs before each send: only where the driver owns its CPU
    #[arg(long)]
    spin: bool,
    /// Speed up (2) or slow down (0.5) the arrivals
    #[arg(long, value_name = "FACTOR")]
    speed: Option<f64>,
    /// Leave requests planned before this out of histograms (default: what the options say)
    #[arg(long, value_name = "TIME", value_parser = crate::ui::parse_duration)]
    warmup: Option<std::time::Duration>,
    /// All options as one JSON object (how the replayer calls it; the driver then ends with its stdin); flags override it
    #[arg(long, value_name = "JSON", help_heading = "Scripting")]
    options: Option<String>,
    /// Print the record of the run as one line of JSON
    #[arg(long, help_heading = "Scripting")]
    json: bool,
}

/// Ends this process when its stdin does: what was started by a study must not outlive it and load the host that the
/// next one measures. Nobody writes there, so the thread sleeps until then.
fn end_with_parent() -> Result<()> {
    let wait = || {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
        std::process::exit(1);
    };
    std::thread::Builder::new().name("parent".into()).spawn(wait).context("cannot start a thread")?;
    Ok(())
}

pub fn run(args: Args) -> Result<()> {
    let mut options: DriveOptions = match &args.options {
        Some(text) => serde_json::from_str(text).context("--options is no valid JSON object of driver options")?,
        None => DriveOptions::default(),
    };
    options.cpu = args.cpu.or(options.cpu);
    options.spin |= args.spin;
    options.speed = args.speed.unwrap_or(options.speed);
    if let Some(warmup) = args.warmup {
        options.warmup_ns = Some(warmup.as_nanos() as u64);
    }
    if args.options.is_some() {
        end_with_parent()?;
    }
    let target = Target { mqtt: args.target, meta: args.meta };
    let record = drive(&args.trace, target, &args.out, &options)?;
    if args.json || args.options.is_some() {
        return crate::ui::print_json_line(&record);
    }
    let record = serde_json::to_value(&record)?;
    let n = |key: &str| record[key].as_u64().unwrap_or(0);
    let lag = |key: &str| crate::ui::duration(record["send_lag_ns"][key].as_u64().unwrap_or(0));
    crate::ui::print(&format!(
        "{} requests, {} errors; offered {:.0}/s, achieved {:.0}/s; send lag p50 {}, p99 {}, p99.9 {}\nsamples in {}",
        crate::ui::number(n("requests")),
        n("errors"),
        record["offered_per_s"].as_f64().unwrap_or(0.0),
        record["achieved_per_s"].as_f64().unwrap_or(0.0),
        lag("p50"),
        lag("p99"),
        lag("p99_9"),
        args.out.display()
    ))
}
