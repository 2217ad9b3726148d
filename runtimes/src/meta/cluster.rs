//! The other nodes of the meta-service, as child processes on loopback.
//!
//! A child binds a port that the kernel chooses, reports it, and is then told where all nodes listen, so that no port is
//! known before it is bound. It ends when its stdin does, which the kernel sees to even when this process is killed. What
//! it leaves out: nodes on other machines.

use super::raft::Membership;
use crate::server::ServeError;
use crate::shell::Node;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// This node's number.
const OWN: u64 = 1;
/// How long a child may take to end before it is killed.
const END_LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(5);

/// This node and the processes beside it; they end with it.
#[derive(Debug)]
pub(crate) struct Cluster {
    peers: BTreeMap<u64, SocketAddr>,
    others: Vec<Other>,
}

#[derive(Debug)]
struct Other {
    child: Child,
    stdin: Option<ChildStdin>,
}

/// The first line of a child.
#[derive(Deserialize)]
struct Said {
    bound: Option<Bound>,
    failed: Option<String>,
}

#[derive(Deserialize)]
struct Bound {
    meta: SocketAddr,
}

impl Cluster {
    /// Starts the other nodes, if the settings want any; this one listens on `own`.
    ///
    /// # Errors
    /// When a child cannot be started or does not say where it listens.
    pub fn start(node: &Node, own: SocketAddr, data: &Path, program: Option<&Path>) -> Result<Cluster, ServeError> {
        let mut cluster = Cluster { peers: BTreeMap::from([(OWN, own)]), others: Vec::new() };
        let mut said = Vec::new();
        for id in OWN + 1..=u64::from(node.settings.nodes) {
            let Some(program) = program else {
                let reason =
                    "nodes is 3, but there is no program to run the others; start the server with `regauge serve`";
                return Err(ServeError::Settings(reason.to_owned()));
            };
            let failed = |reason: String| node.runtime_error(format!("node {id} of the meta-service: {reason}"));
            let (addr, stdout) = cluster.spawn(node, id, data, program).map_err(failed)?;
            cluster.peers.insert(id, addr);
            said.push(stdout);
        }
        let peers = json!({"peers": cluster.peers});
        for (other, stdout) in cluster.others.iter_mut().zip(said) {
            let told = other.stdin.as_mut().map(|stdin| writeln!(stdin, "{peers}").and_then(|()| stdin.flush()));
            if let Some(Err(error)) = told {
                return Err(node.runtime_error(format!("a node of the meta-service did not listen: {error}")));
            }
            // What it says further on is not needed, but must not fill the pipe.
            let drain = move || _ = io::copy(&mut { stdout }, &mut io::sink());
            let drained = std::thread::Builder::new().name("node-output".to_owned()).spawn(drain);
            drained.map_err(|error| node.runtime_error(error.to_string()))?;
        }
        Ok(cluster)
    }

    fn spawn(
        &mut self,
        node: &Node,
        id: u64,
        data: &Path,
        program: &Path,
    ) -> Result<(SocketAddr, BufReader<ChildStdout>), String> {
        let settings = serde_json::to_string(&node.settings).map_err(|error| error.to_string())?;
        let any_port = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let mut command = Command::new(program);
        command.args(["meta", "--machine", "--stack", node.stack.name(), "--settings", &settings]);
        command.args(["--id", &id.to_string(), "--listen", &any_port.to_string()]);
        command.arg("--data").arg(data.join(format!("node-{id}")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{} does not start: {error}", program.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        self.others.push(Other { child, stdin });
        let mut stdout = BufReader::new(stdout.ok_or("it has no output")?);
        let mut line = String::new();
        stdout.read_line(&mut line).map_err(|error| error.to_string())?;
        match serde_json::from_str(&line) {
            Ok(Said { bound: Some(Bound { meta }), .. }) => Ok((meta, stdout)),
            Ok(Said { failed: Some(reason), .. }) => Err(reason),
            _ => Err(format!("it said `{}` instead of where it listens", line.trim_end())),
        }
    }

    /// This node among all.
    pub fn membership(&self) -> Membership {
        Membership { id: OWN, peers: self.peers.clone() }
    }

    /// Ends the other nodes; returns how many nodes had run until now.
    pub fn end(mut self) -> u32 {
        let running = |other: &mut Other| matches!(other.child.try_wait(), Ok(None));
        1 + self.others.iter_mut().filter_map(|other| running(other).then_some(())).count() as u32
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All at once, then one after the other.
        self.others.iter_mut().for_each(|other| drop(other.stdin.take()));
        let started = Instant::now();
        for other in &mut self.others {
            while matches!(other.child.try_wait(), Ok(None)) {
                if started.elapsed() > END_LIMIT {
                    let _it_has_just_ended = other.child.kill();
                    let _reaped = other.child.wait();
                    break;
                }
                std::thread::sleep(POLL);
            }
        }
    }
}
