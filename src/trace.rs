//! `regauge trace`: look at traces, and make new ones from them.

use crate::trace_ops as ops;
use anyhow::{Result, bail};
use regauge_traces::ops::{check, info};
use regauge_traces::{Span, TraceReader, open};
use serde_json::json;
use std::path::PathBuf;

/// Work with traces: info, cat, check, seal, slice, scale, join, synth
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// What a trace holds: kinds, sessions, duration, losses, workload hash
    Info {
        /// The trace, live or sealed
        trace: PathBuf,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the spans, one a line
    Cat {
        /// The trace, live or sealed
        trace: PathBuf,
        /// Only the first N
        #[arg(long, short = 'n', value_name = "N")]
        head: Option<u64>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Check that a trace makes sense; exit code 1 when it does not
    Check {
        /// The trace, live or sealed
        trace: PathBuf,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    Seal(ops::SealArgs),
    Slice(ops::SliceArgs),
    Join(ops::JoinArgs),
    Scale(ops::ScaleArgs),
    Synth(ops::SynthArgs),
}

pub fn run(args: Args) -> Result<()> {
    match args.verb {
        Verb::Info { trace, json } => show_info(&trace, json),
        Verb::Cat { trace, head, json } => cat(&trace, head, json),
        Verb::Check { trace, json } => check_trace(&trace, json),
        Verb::Seal(args) => ops::seal(args),
        Verb::Slice(args) => ops::slice(args),
        Verb::Join(args) => ops::join(args),
        Verb::Scale(args) => ops::scale(args),
        Verb::Synth(args) => ops::synth(args),
    }
}

fn show_info(path: &PathBuf, as_json: bool) -> Result<()> {
    let info = info(&open(path)?);
    if as_json {
        return crate::ui::print_json(&info);
    }
    let kinds: Vec<String> = info.kinds.iter().map(|(kind, n)| format!("{} {kind}", crate::ui::number(*n))).collect();
    let dropped = match info.dropped {
        Some(0) => "nothing".into(),
        Some(n) => format!("{} spans or connections", crate::ui::number(n)),
        None => "unknown".into(),
    };
    let form = match (info.sealed, info.finished) {
        (true, true) => "sealed",
        (true, false) => "sealed from a recording that was cut off",
        (false, true) => "live, finished; seal it with `regauge trace seal`",
        (false, false) => "live, cut off or still running; seal it with `regauge trace seal`",
    };
    crate::ui::print(&format!(
        "source     {}\nform       {form}, schema version {}\nrecorded   {} (kernel {}, {} CPUs, {})\n\
         roots      {} ({:.0}/s) in {} spans: {}\nsessions   {} over {} connections, {} targets\nlength     {}\nlost       {dropped}\n\
         size       {}, {:.1} bytes a row\nworkload   {}",
        info.source,
        info.schema_version,
        crate::ui::when(info.origin.realtime_ns),
        info.host.kernel,
        info.host.cpus,
        info.host.arch,
        crate::ui::number(info.roots),
        info.rate_per_s,
        crate::ui::number(info.spans),
        kinds.join(", "),
        crate::ui::number(info.sessions),
        crate::ui::number(info.connections),
        crate::ui::number(info.targets),
        crate::ui::duration(info.duration_ns),
        crate::ui::bytes(info.file_bytes),
        info.bytes_per_row,
        info.workload_hash,
    ))
}

fn cat(path: &PathBuf, head: Option<u64>, as_json: bool) -> Result<()> {
    let mut reader = TraceReader::open(path)?;
    let mut left = head.unwrap_or(u64::MAX);
    while let Some(batch) = reader.next_batch()? {
        let mut text = String::new();
        for span in batch.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            text.push_str(&if as_json { json_line(span) } else { line(span) });
            text.push('\n');
            left -= 1;
        }
        if !text.is_empty() {
            crate::ui::print(&text)?;
        }
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// One span for a person: within 80 columns as long as the target is short.
fn line(span: &Span) -> String {
    let duration = span.duration_ns.map_or("–".into(), crate::ui::duration);
    let place = match (span.connection, span.parent) {
        (Some(connection), _) => format!("c{connection}"),
        (None, Some(parent)) => format!("↳{parent}"),
        (None, None) => String::new(),
    };
    format!(
        "{:>12.6} s  {:<6} {:<12} {:>8}  q{} {:>8}  {}",
        span.start_ns as f64 / 1e9,
        place,
        span.kind.name(),
        duration,
        span.qos,
        crate::ui::bytes(span.bytes),
        span.target.as_deref().unwrap_or("")
    )
}

fn json_line(span: &Span) -> String {
    json!({
        "id": span.id, "parent": span.parent, "kind": span.kind.name(), "start_ns": span.start_ns,
        "duration_ns": span.duration_ns, "busy_ns": span.busy_ns, "session": span.session,
        "connection": span.connection, "target": span.target, "bytes": span.bytes, "count": span.count,
        "qos": span.qos, "flags": span.flags, "status": span.status, "keep_alive_s": span.keep_alive_s,
        "expiry_s": span.expiry_s, "thread": span.thread,
    })
    .to_string()
}

fn check_trace(path: &PathBuf, as_json: bool) -> Result<()> {
    let problems = check(&open(path)?);
    if as_json {
        crate::ui::print_json(&json!({"problems": problems}))?;
    } else if problems.is_empty() {
        crate::ui::print("the trace makes sense")?;
    } else {
        for problem in &problems {
            let span =
                problem.id.map_or(String::new(), |id| format!(" (first at span {id}, {} in all)", problem.spans));
            crate::ui::print(&format!("{}{span}", problem.sentence))?;
        }
    }
    if problems.is_empty() { Ok(()) } else { bail!("{}: {} sorts of problems", path.display(), problems.len()) }
}
