//! The verbs of `regauge trace` that make a new trace. No verb changes one.

use anyhow::{Result, bail};
use regauge_traces::ops::{Scale, Slice, scale as scale_trace, slice as slice_trace};
use regauge_traces::{Kind, Profile, SealReport, SynthParams, Trace, open, write_sealed};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Seal a live recording into Parquet (also one that was killed)
#[derive(clap::Args)]
pub struct SealArgs {
    /// The live recording
    trace: PathBuf,
    #[command(flatten)]
    to: To,
}

/// Cut a part out of a trace, by time, kind and session, that can still be replayed
#[derive(clap::Args)]
pub struct SliceArgs {
    /// The trace
    trace: PathBuf,
    /// From this time on, e.g. 10s
    #[arg(long, value_name = "TIME", value_parser = crate::ui::parse_duration)]
    from: Option<Duration>,
    /// Up to this time
    #[arg(long, value_name = "TIME", value_parser = crate::ui::parse_duration)]
    to: Option<Duration>,
    /// Only these kinds of roots, e.g. connect,publish
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Only these sessions (the numbers that `trace cat --json` shows)
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    sessions: Vec<u64>,
    #[command(flatten)]
    out: To,
}

/// Make a workload larger in one of three ways, which are not the same thing
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("how").required(true).args(["speed", "clones", "partitions"]))]
pub struct ScaleArgs {
    /// The trace
    trace: PathBuf,
    /// All arrivals this many times as fast (0.5: half as fast)
    #[arg(long, value_name = "FACTOR")]
    speed: Option<f64>,
    /// This many times the sessions, each at its own pace
    #[arg(long, value_name = "N")]
    clones: Option<u32>,
    /// The same requests over this many times the topics
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,
    /// Seed of the clones' offsets
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    out: To,
}

/// Make a synthetic trace
///
/// Profiles: mqttx-conn (1000 connects, 10 ms apart), connect-burst (1000 at once), publish-qos1, iggy-8x8, iggy-16x16,
/// iggy-32x32 (producers × streams, batches of 250 × 1000 B, 1000 MB/s divided by --scale), production (devices that
/// come, publish and go; the study's own workload), raft-apply (proposals to the raft meta-service, each opening 1 to
/// 100 sessions, 0.15 to 13 KB, as RobustMQ's session batcher makes them).
#[derive(clap::Args)]
pub struct SynthArgs {
    /// Which workload
    #[arg(long, value_name = "NAME")]
    profile: Profile,
    /// Length, e.g. 30s
    #[arg(long, value_name = "TIME", value_parser = crate::ui::parse_duration)]
    duration: Option<Duration>,
    /// Requests per second before --scale
    #[arg(long, value_name = "PER_S")]
    rate: Option<f64>,
    /// Clients
    #[arg(long, value_name = "N")]
    clients: Option<u32>,
    /// raft-apply: sessions that a proposal opens, e.g. 1-100 or 1
    #[arg(long, value_name = "MIN-MAX", value_parser = batch)]
    batch: Option<(u32, u32)>,
    /// raft-apply: bytes of the longest session
    #[arg(long, value_name = "BYTES")]
    session_bytes: Option<u32>,
    /// Divide the rate, for machines smaller than the published ones
    #[arg(long, value_name = "FACTOR")]
    scale: Option<f64>,
    /// Seed of every random choice
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    out: To,
}

/// `1-100`, or `5` for 5-5.
fn batch(text: &str) -> Result<(u32, u32), String> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number; say e.g. 1-100"));
    Ok((number(min)?, number(max)?))
}

/// Where a new trace goes.
#[derive(clap::Args)]
struct To {
    /// The new trace (Parquet)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    overwrite: bool,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

impl To {
    fn refuse_existing(&self, source: Option<&Path>) -> Result<()> {
        if let (Some(source), Ok(out)) = (source, self.out.canonicalize())
            && source.canonicalize().is_ok_and(|source| source == out)
        {
            bail!("--out names the trace itself; a trace is never changed, so name another file");
        }
        if self.out.exists() && !self.overwrite {
            bail!("{} is there already; name another file or say --overwrite", self.out.display());
        }
        Ok(())
    }

    fn tell(&self, report: &SealReport) -> Result<()> {
        if self.json {
            return crate::ui::print_json(&serde_json::json!({"out": self.out, "report": report}));
        }
        let torn = match report.torn_bytes {
            0 => String::new(),
            n => format!("; {} of an unfinished batch were passed over", crate::ui::bytes(n)),
        };
        crate::ui::print(&format!(
            "{} spans, {} in {}{torn}",
            crate::ui::number(report.rows),
            crate::ui::bytes(report.bytes),
            self.out.display()
        ))
    }

    fn write(&self, trace: &Trace) -> Result<()> {
        self.tell(&write_sealed(&self.out, &trace.meta, &trace.spans)?)
    }
}

pub fn seal(args: SealArgs) -> Result<()> {
    args.to.refuse_existing(Some(&args.trace))?;
    let report = regauge_traces::seal(&args.trace, &args.to.out)?;
    args.to.tell(&report)
}

pub fn slice(args: SliceArgs) -> Result<()> {
    args.out.refuse_existing(Some(&args.trace))?;
    let ns = |time: Duration| time.as_nanos() as u64;
    let what = Slice { from_ns: args.from.map(ns), to_ns: args.to.map(ns), kinds: args.kinds, sessions: args.sessions };
    args.out.write(&slice_trace(&open(&args.trace)?, &what)?)
}

pub fn scale(args: ScaleArgs) -> Result<()> {
    args.out.refuse_existing(Some(&args.trace))?;
    let how = match (args.speed, args.clones, args.partitions) {
        (Some(factor), ..) => Scale::Speed(factor),
        (_, Some(copies), _) => Scale::Sessions { copies, seed: args.seed },
        (.., Some(copies)) => Scale::Partitions(copies),
        (None, None, None) => bail!("say how: --speed, --clones or --partitions"),
    };
    args.out.write(&scale_trace(&open(&args.trace)?, how)?)
}

pub fn synth(args: SynthArgs) -> Result<()> {
    args.out.refuse_existing(None)?;
    let mut params = SynthParams::new(args.profile);
    params.seed = args.seed;
    params.duration_s = args.duration.map_or(params.duration_s, |d| d.as_secs_f64());
    params.rate_per_s = args.rate.unwrap_or(params.rate_per_s);
    params.clients = args.clients.unwrap_or(params.clients);
    params.batch = args.batch.unwrap_or(params.batch);
    params.session_bytes = args.session_bytes.unwrap_or(params.session_bytes);
    if params.profile != Profile::RaftApply && (args.batch.is_some() || args.session_bytes.is_some()) {
        bail!("--batch and --session-bytes belong to --profile raft-apply; {} has no proposals", params.profile);
    }
    params.scale = args.scale.unwrap_or(params.scale);
    args.out.write(&regauge_traces::synth(&params)?)
}
