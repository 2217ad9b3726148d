//! `regauge meta`: one node of the meta-service as a process.

use crate::serve::{ArmArgs, settings_of};
use anyhow::{Result, anyhow};
use regauge_runtimes::meta::{MetaConfig, serve_meta};
use regauge_runtimes::settings::Stack;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Run one node of the meta-service (raft and gRPC, without a broker)
///
/// `regauge serve --nodes 3` starts two of these by itself. With --machine and without --peer the node says
/// {"bound":{"meta":ADDR}} and reads {"peers":{"1":ADDR,…}} from stdin before it starts.
#[derive(clap::Args)]
pub struct Args {
    /// The runtime: tokio-shared, tokio-pinned, monoio or compio
    #[arg(long, value_name = "NAME")]
    stack: Stack,
    /// This node's number, from 1
    #[arg(long, value_name = "N", default_value = "1")]
    id: u64,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A node of the cluster and its address, e.g. 2=127.0.0.1:1229; once for each
    #[arg(long = "peer", value_name = "N=ADDR", value_parser = peer)]
    peers: Vec<(u64, SocketAddr)>,
    /// Directory of the raft log and the sessions (RocksDB); made when it is not there
    #[arg(long, value_name = "DIR", default_value = "regauge-meta")]
    data: PathBuf,
    #[command(flatten)]
    arm: ArmArgs,
    /// All settings as one JSON object (what arms.toml resolves to); flags override it
    #[arg(long, value_name = "JSON", help_heading = "Scripting")]
    settings: Option<String>,
    /// Speak JSON lines on stdout and stop when stdin ends
    #[arg(long, help_heading = "Scripting")]
    machine: bool,
}

fn peer(text: &str) -> Result<(u64, SocketAddr), String> {
    let parsed = text.split_once('=').and_then(|(id, addr)| Some((id.parse().ok()?, addr.parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is not a number, `=` and an address, as in 2=127.0.0.1:1229"))
}

/// What a node is told on stdin.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    peers: BTreeMap<u64, SocketAddr>,
}

pub fn run(args: Args) -> Result<()> {
    let settings = settings_of(args.settings.as_deref(), args.arm)?;
    let (machine, stack, id) = (args.machine, args.stack, args.id);
    let config = MetaConfig { stack, settings, id, listen: args.listen, data: args.data };
    let peers: BTreeMap<u64, SocketAddr> = args.peers.into_iter().collect();
    let stop = crate::serve::stop_on_signals()?;
    let watched = stop.clone();
    let peers = move |addr: SocketAddr| {
        if machine {
            crate::ui::print_json_line(&json!({"bound": {"meta": addr.to_string()}})).map_err(|e| e.to_string())?;
        }
        let peers = if machine && peers.is_empty() { told()? } else { peers };
        if machine {
            crate::serve::stop_at_end_of_stdin(watched).map_err(|error| error.to_string())?;
        }
        Ok(peers)
    };
    let ready = move |addr: SocketAddr| {
        let said = if machine {
            crate::ui::print_json_line(&json!({"ready": {"meta": addr.to_string(), "pid": std::process::id()}}))
        } else {
            crate::ui::print(&format!(
                "node {id} of the meta-service on {stack} serves gRPC on {addr}; Ctrl-C stops it"
            ))
        };
        // Nobody listens to what is said: the node serves on.
        drop(said);
    };
    match serve_meta(config, stop, peers, ready) {
        Ok(record) if machine => crate::ui::print_json_line(&json!({"stopped": record})),
        Ok(record) => crate::ui::print(&format!("holds {} sessions", crate::ui::number(record.sessions))),
        Err(error) => {
            if machine {
                crate::ui::print_json_line(&json!({"failed": error.to_string()}))?;
            }
            Err(anyhow!(error))
        }
    }
}

fn told() -> Result<BTreeMap<u64, SocketAddr>, String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| error.to_string())?;
    let told: Result<Told, _> = serde_json::from_str(&line);
    Ok(told.map_err(|error| format!("`{}` does not say where the nodes listen: {error}", line.trim_end()))?.peers)
}
