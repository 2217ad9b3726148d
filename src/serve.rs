//! `regauge serve`: one stack as a plain MQTT broker, for real clients and for the replayer.

use anyhow::{Context, Result, anyhow};
use regauge_recorder::layer::{LayerOptions, Recording};
use regauge_runtimes::settings::{
    Durability, Files, LastApplied, MetaStore, Placement, RaftSync, Roles, Settings, Stack,
};
use regauge_runtimes::{Ready, ServeConfig, Stop, serve};
use regauge_traces::RedactionKey;
use serde_json::json;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Run one stack as a plain MQTT broker (3.1.1 and 5), for real clients
///
/// Stops on Ctrl-C and then tells what it really used (threads, pools, back-end) and the digest of its state.
#[derive(clap::Args)]
pub struct Args {
    /// The runtime: tokio-shared, tokio-pinned, monoio or compio
    #[arg(long, value_name = "NAME")]
    stack: Stack,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1883")]
    listen: SocketAddr,
    /// Address of the meta-service's gRPC
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    meta_listen: SocketAddr,
    /// Directory of sessions (RocksDB) and segment files; made when it is not there
    #[arg(long, value_name = "DIR", default_value = "regauge-data")]
    data: PathBuf,
    #[command(flatten)]
    arm: ArmArgs,
    /// All settings as one JSON object (what arms.toml resolves to); flags override it
    #[arg(long, value_name = "JSON", help_heading = "Scripting")]
    settings: Option<String>,
    /// Where the stamps of every effect and RocksDB call go (Parquet)
    #[arg(long, value_name = "FILE", help_heading = "Scripting")]
    stamps: Option<PathBuf>,
    /// Record the broker's own steps (sessions, raft, segment writes) into this trace; join it with the tap's
    #[arg(long, value_name = "FILE")]
    layer: Option<PathBuf>,
    /// File with the layer's redaction key (32 hex digits): the tap's, if the two recordings are to be joined
    #[arg(long, value_name = "FILE", requires = "layer")]
    key_file: Option<PathBuf>,
    /// Speak JSON lines on stdout and stop when stdin ends (how the replayer runs a stack)
    #[arg(long, help_heading = "Scripting")]
    machine: bool,
    /// Print the record at the end as JSON
    #[arg(long, help_heading = "Scripting")]
    json: bool,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Arm settings")]
pub struct ArmArgs {
    /// Shards: workers of tokio-shared, pinned runtimes of the others
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// CPUs to bind the server to, e.g. 0,2,3
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cpus: Option<Vec<usize>>,
    /// When an acknowledged publish is on the disk: none, fdatasync, every=N or on-seal
    #[arg(long, value_name = "WHEN")]
    durability: Option<Durability>,
    /// Where RocksDB calls run: inline, offload or own-thread
    #[arg(long, value_name = "WHERE", value_parser = named::<Placement>)]
    placement: Option<Placement>,
    /// How segment files are written: native (as the runtime does file I/O) or inline (plain system calls)
    #[arg(long, value_name = "HOW", value_parser = named::<Files>)]
    files: Option<Files>,
    /// Threads of the blocking pools, all shards together
    #[arg(long, value_name = "N")]
    blocking_threads: Option<usize>,
    /// Bounded io-wq workers per ring
    #[arg(long, value_name = "N")]
    iowq_bounded: Option<u32>,
    /// Submission queue entries per ring
    #[arg(long, value_name = "N")]
    ring_entries: Option<u32>,
    /// Partitions that topics are hashed onto
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,
    /// A segment is sealed when it would grow beyond this many bytes
    #[arg(long, value_name = "BYTES")]
    segment_bytes: Option<u64>,
    /// Runtimes of the broker's roles: one, meta-apart, or three (connections, gRPC server, raft)
    #[arg(long, value_name = "WHICH", value_parser = named::<Roles>)]
    roles: Option<Roles>,
    /// Threads of each runtime besides the connections'
    #[arg(long, value_name = "N")]
    role_threads: Option<usize>,
    /// tokio-shared: hand epoll over before a long poll
    #[arg(long, value_name = "BOOL")]
    eager_handoff: Option<bool>,
    /// Threads that burn CPU beside the server's
    #[arg(long, value_name = "N")]
    neighbours: Option<usize>,
    /// Raft log writes that are on the disk before they count: none, log or all
    #[arg(long, value_name = "WHICH", value_parser = named::<RaftSync>)]
    raft_sync: Option<RaftSync>,
    /// How the last applied log id is written: own-write, merged, no-wal or own-db
    #[arg(long, value_name = "HOW", value_parser = named::<LastApplied>)]
    last_applied: Option<LastApplied>,
    /// Whether sessions are written to RocksDB when applied
    #[arg(long, value_name = "BOOL")]
    durable_sessions: Option<bool>,
    /// Where the meta-service's databases lie: disk or memory
    #[arg(long, value_name = "WHERE", value_parser = named::<MetaStore>)]
    meta_store: Option<MetaStore>,
    /// Most sessions that one proposal opens; 1 gathers nothing
    #[arg(long, value_name = "N")]
    session_batch: Option<u32>,
    /// Nodes of the meta-service: 1, or 3 processes on loopback
    #[arg(long, value_name = "N")]
    nodes: Option<u32>,
}

/// A setting that is one of a few words.
fn named<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(json!(text)).map_err(|error| error.to_string())
}

impl ArmArgs {
    fn apply(self, settings: &mut Settings) {
        fn set<T>(slot: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *slot = value;
            }
        }
        set(&mut settings.threads, self.threads);
        set(&mut settings.cpus, self.cpus);
        set(&mut settings.durability, self.durability);
        set(&mut settings.placement, self.placement);
        set(&mut settings.files, self.files);
        set(&mut settings.blocking_threads, self.blocking_threads);
        set(&mut settings.iowq_bounded, self.iowq_bounded);
        set(&mut settings.ring_entries, self.ring_entries);
        set(&mut settings.partitions, self.partitions);
        set(&mut settings.segment_bytes, self.segment_bytes);
        set(&mut settings.roles, self.roles);
        set(&mut settings.role_threads, self.role_threads);
        set(&mut settings.eager_handoff, self.eager_handoff);
        set(&mut settings.neighbours, self.neighbours);
        set(&mut settings.raft_sync, self.raft_sync);
        set(&mut settings.last_applied, self.last_applied);
        set(&mut settings.durable_sessions, self.durable_sessions);
        set(&mut settings.meta_store, self.meta_store);
        set(&mut settings.session_batch, self.session_batch);
        set(&mut settings.nodes, self.nodes);
    }
}

/// What `--settings` and the flags say.
pub fn settings_of(json: Option<&str>, flags: ArmArgs) -> Result<Settings> {
    let mut settings: Settings = match json {
        Some(text) => serde_json::from_str(text).context("--settings is no valid JSON object of arm settings")?,
        None => Settings::default(),
    };
    flags.apply(&mut settings);
    Ok(settings)
}

pub fn run(args: Args) -> Result<()> {
    let recording = args.layer.map(|out| record_steps(out, args.key_file.as_deref())).transpose()?;
    let settings = settings_of(args.settings.as_deref(), args.arm)?;
    let config = ServeConfig {
        stack: args.stack,
        settings,
        listen: args.listen,
        meta_listen: args.meta_listen,
        data: args.data,
        stamps: args.stamps,
        program: Some(std::env::current_exe().context("this program cannot be found again")?),
    };
    let stop = stop_on_signals()?;
    if args.machine {
        stop_at_end_of_stdin(stop.clone())?;
    }
    let (machine, json, stack) = (args.machine, args.json, config.stack);
    let shown = config.settings.clone();
    let ready = move |Ready { mqtt: addr, meta }: Ready| {
        let said = if machine {
            let (addr, meta, pid) = (addr.to_string(), meta.to_string(), std::process::id());
            crate::ui::print_json_line(&json!({"ready": {"addr": addr, "meta": meta, "pid": pid}}))
        } else if json {
            Ok(())
        } else {
            crate::ui::print(&format!(
                "{stack} serves MQTT on {addr}, its meta-service on {meta} (durability {}, {} shard{}); Ctrl-C stops it",
                shown.durability,
                shown.threads,
                if shown.threads == 1 { "" } else { "s" }
            ))
        };
        // Nobody listens to what is said: the server serves on.
        drop(said);
    };
    let served = serve(config, stop, ready);
    if let Some(recording) = recording {
        recording.finish().context("the recording of the broker's steps is not complete")?;
    }
    match served {
        Ok(record) if machine => crate::ui::print_json_line(&json!({"stopped": record})),
        Ok(record) if json => crate::ui::print_json(&record),
        Ok(record) => {
            let record = serde_json::to_value(&record)?;
            crate::ui::print(&summary(&record))
        }
        Err(error) if machine => {
            crate::ui::print_json_line(&json!({"failed": error.to_string()}))?;
            Err(anyhow!(error))
        }
        Err(error) => Err(anyhow!(error)),
    }
}

/// Records this process's own steps.
fn record_steps(out: PathBuf, key_file: Option<&Path>) -> Result<Recording> {
    let key = key_file.map(RedactionKey::from_file).transpose().context("cannot use the redaction key")?;
    // openraft has spans of its own, one of them called `apply` too.
    let targets = vec!["regauge_runtimes::spans".to_owned()];
    let options = LayerOptions { key, targets, ..LayerOptions::new(out) };
    options.record().context("cannot record the broker's steps")
}

/// Stops on signals.
pub fn stop_on_signals() -> Result<Stop> {
    let stop = Stop::new();
    let flag = crate::ui::stop_flag()?;
    let watched = stop.clone();
    std::thread::Builder::new().name("stop".into()).spawn(move || {
        while !flag.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        watched.stop();
    })?;
    Ok(stop)
}

/// Stops when whoever started this process has no more to say: it ended, or asks so.
pub fn stop_at_end_of_stdin(stop: Stop) -> Result<()> {
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut sink = [0; 256];
        while matches!(std::io::stdin().read(&mut sink), Ok(n) if n > 0) {}
        stop.stop();
    })?;
    Ok(())
}

fn summary(record: &serde_json::Value) -> String {
    let (counters, attested, digest) = (&record["counters"], &record["attestation"], &record["digest"]);
    let n = |value: &serde_json::Value| crate::ui::number(value.as_u64().unwrap_or(0));
    format!(
        "\nserved {} connects, {} publishes, {} deliveries; {} appends, {} syncs\nused {} with {} threads; state {} ({} records)",
        n(&counters["connects"]),
        n(&counters["publishes"]),
        n(&counters["deliveries"]),
        n(&counters["appends"]),
        n(&counters["syncs"]),
        attested["back_end"].as_str().unwrap_or("?"),
        attested["threads"].as_array().map_or(0, Vec::len),
        digest["segments"].as_str().unwrap_or("?").chars().take(12).collect::<String>(),
        n(&digest["records"]),
    )
}
