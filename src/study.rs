//! `regauge study`: the main job. Record (unless a trace is given), replay on every arm, analyse, report.

use crate::design::Planned;
use crate::replay::{Experiment, complaints, stop_of_signals};
use anyhow::{Context, Result, anyhow, bail};
use regauge_recorder::tap::{Tap, TapOptions};
use regauge_runtimes::Stop;
use regauge_traces::ops::join_files;
use regauge_traces::{Profile, RedactionKey, SynthParams, synth, write_sealed};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The main job: record a workload, replay it on every arm, analyse, decide, write a report
///
/// Without --trace it starts a broker of its own (tokio-shared), drives production-like clients at it through the tap,
/// and replays what the tap recorded. Stopped with Ctrl-C, the same command with the same --out continues.
#[derive(clap::Args)]
pub struct Args {
    /// A short study: ends within three minutes on two cores. Enough to look at, too little to decide on
    #[arg(long)]
    quick: bool,
    /// Replay this trace instead of recording one
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    experiment: Experiment,
    #[command(flatten)]
    planned: Planned,
    /// The study's directory (default: studies/DATE-TIME)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the analysis as JSON
    #[arg(long)]
    json: bool,
}

/// Length and rate of the recording that a study makes for itself.
struct Recording {
    seconds: f64,
    rate_per_s: f64,
    devices: u32,
}

/// What is recorded for a study: longer when it is to be replayed several times as fast.
fn recording(quick: bool, loads: bool) -> &'static Recording {
    match (quick, loads) {
        (true, _) => &QUICK,
        (false, false) => &FULL,
        (false, true) => &LONG,
    }
}

const QUICK: Recording = Recording { seconds: 7.0, rate_per_s: 2000.0, devices: 200 };
const FULL: Recording = Recording { seconds: 20.0, rate_per_s: 2000.0, devices: 500 };
const LONG: Recording = Recording { seconds: 180.0, rate_per_s: 2000.0, devices: 500 };

/// Blocks of a quick study: enough for an interval, which is then honestly wide.
const QUICK_BLOCKS: u32 = 3;

pub fn run(mut args: Args) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(default_out);
    let stop = stop_of_signals()?;
    if args.quick {
        args.experiment.blocks = args.experiment.blocks.or(Some(QUICK_BLOCKS));
    }
    // What is wrong with the flags is said before a recording is made in vain.
    crate::series::check((&args.experiment, &args.planned, args.quick), &out)?;
    let trace = match (&args.trace, out.join("trace.parquet")) {
        (Some(trace), _) => trace.clone(),
        // An earlier call with this --out made its recording: the study goes on with it.
        (None, made) if ["study.json", "loads.json"].iter().any(|begun| out.join(begun).exists()) => made,
        (None, _) => record(&out, recording(args.quick, args.planned.loads()?.is_some()), &stop)?,
    };
    let series = crate::series::run(&trace, &out, (&args.experiment, &args.planned, args.quick), &stop)?;
    for complaint in series.summary.iter().chain(&series.loads).flat_map(complaints) {
        eprintln!("{complaint}");
    }
    if series.interrupted {
        bail!("{}; the same command with --out {} continues", series.so_far(), out.display());
    }
    let bar = crate::ui::progress(None, "{spinner} analysing");
    let evaluation = regauge_analysis::Evaluation::of(&out)?;
    evaluation.write_tables()?;
    let report = evaluation.write_report()?;
    bar.finish_and_clear();
    if args.json {
        return crate::ui::print_json(&evaluation.analysis);
    }
    crate::ui::print(&format!(
        "{}\nreport    {}\nsamples   {}\nnotebook  just notebooks {}",
        regauge_analysis::terminal::render(&evaluation.analysis).trim_end(),
        report.display(),
        out.join("runs").display(),
        out.display()
    ))
}

/// `studies/2026-01-31T12-00-00`: sorts by time and has no character that a shell minds.
pub fn default_out() -> PathBuf {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    Path::new("studies").join(now.trim_end_matches('Z').replace(':', "-"))
}

/// A child that does not outlive the recording.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Records production-like clients at a broker of our own, through the tap.
fn record(out: &Path, length: &Recording, stop: &Stop) -> Result<PathBuf> {
    let work = out.join("recording");
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let params = SynthParams {
        duration_s: length.seconds,
        rate_per_s: length.rate_per_s,
        clients: length.devices,
        ..SynthParams::new(Profile::Production)
    };
    let clients = synth(&params)?;
    let synthetic = work.join("clients.parquet");
    write_sealed(&synthetic, &clients.meta, &clients.spans)?;

    let (wire, steps, recorded) = (work.join("wire.parquet"), work.join("steps.trace"), work.join("recorded.parquet"));
    // What an earlier attempt left is of another key.
    std::fs::remove_file(&steps).ok();
    let key_file = KeyFile::fresh(work.join("key"))?;
    let key = RedactionKey::from_file(&key_file.0).context("cannot use the fresh redaction key")?;
    let (mut server, stdout, addr) = serve(&work.join("data"), &steps, &key_file.0)?;
    // Both have read it.
    drop(key_file);
    let options = TapOptions { overwrite: true, key: Some(key), ..TapOptions::new(addr.to_string(), &wire) };
    let tap = Tap::bind(options).context("cannot record from our own broker")?;
    let (listens, done) = (tap.local_addr(), Arc::new(AtomicBool::new(false)));
    let ended = Arc::clone(&done);
    let taping = std::thread::Builder::new().name("tap".into()).spawn(move || tap.run(&ended, None, |_| {}))?;

    let bar = crate::ui::progress(
        Some((length.seconds * 10.0) as u64),
        "{bar:24} {percent:>3} %  recording production-like clients at our own broker (tokio-shared)",
    );
    let driven = drive(&synthetic, listens, &work.join("drive"), &bar, stop);
    bar.finish_and_clear();
    done.store(true, Ordering::SeqCst);
    let taped = taping.join().map_err(|_| anyhow!("the tap's thread died"))?;
    driven?;
    let summary = taped?;
    drop(server.0.stdin.take());
    server.0.wait()?;
    drop(stdout);
    let (_sealed, joined) = join_files(&wire, &steps, &recorded).context("cannot join the wire with the steps")?;
    let (found, all) = joined.kinds.values().fold((0, 0), |(found, all), kind| {
        let known = kind.recorded + kind.joined;
        (found + known, all + known + kind.unjoined)
    });
    eprintln!(
        "recorded {} packets of {} connections in {} through the tap, and {} steps of the broker ({} with their cause)",
        crate::ui::number(summary.stats.spans_written),
        crate::ui::number(summary.stats.connections),
        crate::ui::duration(summary.duration_ns),
        crate::ui::number(all),
        crate::ui::number(found),
    );
    for part in [&wire, &steps] {
        std::fs::remove_file(part).ok();
    }
    std::fs::remove_dir_all(work.join("data")).ok();
    std::fs::remove_dir_all(work.join("drive")).ok();
    Ok(recorded)
}

/// A redaction key that the tap and the broker's layer share for one recording, and nobody afterwards.
struct KeyFile(PathBuf);

impl KeyFile {
    fn fresh(path: PathBuf) -> Result<KeyFile> {
        let mut key = [0; 16];
        File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut key)).context("no random bytes")?;
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let wrote = options.open(&path).and_then(|mut file| file.write_all(hex.as_bytes()));
        wrote.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(KeyFile(path))
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

/// Our own broker as a child, which records its steps. Its stdout is kept open: it reports there when it ends.
fn serve(data: &Path, steps: &Path, key_file: &Path) -> Result<(Guard, BufReader<ChildStdout>, SocketAddr)> {
    let mut child = Guard(
        Command::new(std::env::current_exe()?)
            .args(["serve", "--machine", "--stack", "tokio-shared", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .arg("--layer")
            .arg(steps)
            .arg("--key-file")
            .arg(key_file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start our own broker")?,
    );
    let mut stdout = BufReader::new(child.0.stdout.take().context("no stdout")?);
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    let said: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
    match said["ready"]["addr"].as_str().map(str::parse) {
        Some(Ok(addr)) => Ok((child, stdout, addr)),
        _ => bail!("our own broker did not start: {}", said["failed"].as_str().unwrap_or(line.trim())),
    }
}

/// The clients as a child, until they are done or somebody stops the study.
fn drive(trace: &Path, target: SocketAddr, out: &Path, bar: &indicatif::ProgressBar, stop: &Stop) -> Result<()> {
    let mut child = Guard(
        Command::new(std::env::current_exe()?)
            .arg("drive")
            .arg(trace)
            .args(["--target", &target.to_string(), "--options", &json!({}).to_string(), "--out"])
            .arg(out)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the clients")?,
    );
    loop {
        if let Some(status) = child.0.try_wait()? {
            if status.success() {
                return Ok(());
            }
            bail!("the clients of the recording failed ({status})");
        }
        if stop.is_stopped() {
            bail!("interrupted while recording; nothing was kept");
        }
        std::thread::sleep(Duration::from_millis(100));
        bar.inc(1);
    }
}
