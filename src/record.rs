//! `regauge record`: ways to record a trace from a running broker. So far the tap.

use anyhow::{Context, Result};
use regauge_recorder::tap::{Tap, TapOptions, TapSummary};
use regauge_traces::RedactionKey;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Record a trace from a running MQTT broker
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    way: Way,
}

#[derive(clap::Subcommand)]
enum Way {
    Tap(TapArgs),
}

/// Stand in front of a broker as a transparent proxy, and record what crosses the wire
///
/// Point the clients at --listen instead of at the broker. Bytes pass unchanged. User names, passwords, wills and
/// payloads are never stored; client ids and topics become keyed hashes. Stops on Ctrl-C or after --for, and seals the
/// trace. Killed, it leaves OUT.live, which `regauge trace seal` turns into a sealed trace.
#[derive(clap::Args)]
struct TapArgs {
    /// Address where clients connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1884")]
    listen: SocketAddr,
    /// The running broker, host:port
    #[arg(long, value_name = "HOST:PORT")]
    upstream: String,
    /// The trace to write (Parquet)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Stop after this long, e.g. 30s or 5min (default: until Ctrl-C)
    #[arg(long = "for", value_name = "TIME", value_parser = crate::ui::parse_duration)]
    limit: Option<Duration>,
    /// File with a redaction key (32 hex digits), so that names can be compared across traces (default: a fresh key)
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Look for new bytes this long without sleeping, e.g. 50us: only where the tap has a CPU of its own
    #[arg(long, value_name = "TIME", value_parser = crate::ui::parse_duration)]
    spin: Option<Duration>,
    /// Replace a trace that is there
    #[arg(long)]
    overwrite: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    match args.way {
        Way::Tap(args) => tap(args),
    }
}

fn tap(args: TapArgs) -> Result<()> {
    let key =
        args.key_file.as_ref().map(RedactionKey::from_file).transpose().context("cannot use the redaction key")?;
    let options = TapOptions {
        listen: args.listen,
        key,
        spin: args.spin.unwrap_or_default(),
        overwrite: args.overwrite,
        ..TapOptions::new(args.upstream.clone(), args.out)
    };
    let stop = crate::ui::stop_flag()?;
    let tap = Tap::bind(options)?;
    if !args.json {
        let until = if args.limit.is_some() { "" } else { "; Ctrl-C ends the recording" };
        crate::ui::print(&format!(
            "recording: clients connect to {}, the broker is {}{until}",
            tap.local_addr(),
            args.upstream
        ))?;
    }
    let bar = crate::ui::progress(None, "{spinner} {elapsed} {msg}");
    let summary = tap.run(&stop, args.limit, |stats| {
        bar.set_message(format!(
            "{} connections open, {} spans, {} to the broker",
            crate::ui::number(stats.open),
            crate::ui::number(stats.spans_seen),
            crate::ui::bytes(stats.bytes_to_broker)
        ));
    });
    bar.finish_and_clear();
    let summary = summary?;
    if args.json { crate::ui::print_json(&summary) } else { crate::ui::print(&words(&summary)) }
}

fn words(summary: &TapSummary) -> String {
    let stats = &summary.stats;
    let mut text = format!(
        "recorded {} spans of {} connections in {} into {}",
        crate::ui::number(stats.spans_written),
        crate::ui::number(stats.connections),
        crate::ui::duration(summary.duration_ns),
        summary.out.display()
    );
    if stats.queue_full + stats.not_recorded > 0 {
        text.push_str(&format!("\nlost {} spans: the disk was too slow", stats.queue_full + stats.not_recorded));
    }
    if stats.undecodable > 0 {
        let why = stats.undecodable_why.as_deref().unwrap_or("unknown reason");
        text.push_str(&format!("\n{} connections were passed on without being understood ({why})", stats.undecodable));
    }
    text.push_str(&format!("\nnext: regauge trace info {0}   or   regauge study --trace {0}", summary.out.display()));
    text
}
