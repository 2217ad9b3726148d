//! What is measured: our four stacks as child processes, and the peers Mosquitto, rumqttd and fio.

use crate::Options;
use crate::client::{self, Opened, Outcome};
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Which CPUs each side uses: the client owns the last one.
pub struct Cpus {
    pub client: usize,
    pub broker: Vec<usize>,
}

/// One thing to measure.
pub enum Target {
    /// With `layer` it records its own steps while it serves.
    Stack {
        name: &'static str,
        durability: String,
        layer: bool,
    },
    Mosquitto,
    Rumqttd(PathBuf),
    Fio,
}

/// A small random generator for the order of a round.
pub struct Lcg(u64);

impl Lcg {
    pub fn seeded() -> Lcg {
        Lcg(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64) | 1)
    }

    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            order.swap(i, (self.0 >> 33) as usize % (i + 1));
        }
        order
    }
}

/// The CPUs of this process, split.
pub fn cpus() -> Result<Cpus> {
    let mut all: Vec<usize> =
        core_affinity::get_core_ids().ok_or("cannot read the CPUs of this process")?.iter().map(|c| c.id).collect();
    let client = all.pop().ok_or("no CPU")?;
    let broker = if all.is_empty() { vec![client] } else { all };
    Ok(Cpus { client, broker })
}

/// Our stacks.
pub fn stacks(durability: &str, layer: bool) -> [Target; 4] {
    ["tokio-shared", "tokio-pinned", "monoio", "compio"].map(|name| Target::Stack {
        name,
        durability: durability.into(),
        layer,
    })
}

/// All targets for a durability: brokers in memory are peers only where nothing is synced; fio only where all is.
pub fn list(options: &Options, durability: &str) -> Result<Vec<Target>> {
    let mut list: Vec<Target> = stacks(durability, false).into();
    if durability == "none" {
        list.push(Target::Mosquitto);
        if let Some(path) = &options.rumqttd {
            list.push(Target::Rumqttd(path.clone()));
        }
    } else {
        list.push(Target::Fio);
    }
    Ok(list)
}

impl Target {
    pub fn name(&self) -> &'static str {
        match self {
            Target::Stack { name, .. } => name,
            Target::Mosquitto => "mosquitto",
            Target::Rumqttd(_) => "rumqttd",
            Target::Fio => "fio appends",
        }
    }

    pub fn is_peer(&self) -> bool {
        !matches!(self, Target::Stack { .. })
    }

    /// Starts the target afresh and measures it once.
    pub fn measure(&self, options: &Options, cpus: &Cpus) -> Result<Outcome> {
        let dir = scratch(&options.dir)?;
        let outcome = match self {
            Target::Fio => fio(&dir, options, cpus),
            _ => {
                let mut server = self.start(&dir, options, cpus)?;
                let outcome =
                    client::rate(server.addr, options.clients, options.window, options.payload, options.seconds);
                let note = server.stop()?;
                outcome.map(|o| Outcome { note, ..o })
            }
        };
        std::fs::remove_dir_all(&dir)?;
        outcome.map_err(|e| format!("{}: {e}", self.name()).into())
    }

    /// Starts the target afresh and opens many connections.
    pub fn connections(&self, options: &Options, cpus: &Cpus) -> Result<Opened> {
        let dir = scratch(&options.dir)?;
        let mut server = self.start(&dir, options, cpus)?;
        let opened = client::open_many(server.addr, options.clients);
        server.stop()?;
        std::fs::remove_dir_all(&dir)?;
        opened
    }

    fn start(&self, dir: &Path, options: &Options, cpus: &Cpus) -> Result<Server> {
        match self {
            Target::Stack { name, durability, layer } => {
                let settings = serde_json::json!({
                    "durability": durability, "cpus": cpus.broker, "threads": cpus.broker.len(),
                });
                let mut command = Command::new(&options.regauge);
                command
                    .args(["serve", "--machine", "--listen", "127.0.0.1:0", "--stack", name])
                    .args(["--settings", &settings.to_string(), "--data"])
                    .arg(dir.join("data"));
                if *layer {
                    command.arg("--layer").arg(dir.join("steps.trace"));
                }
                Server::machine(command)
            }
            Target::Mosquitto => {
                let port = free_port()?;
                let conf = dir.join("mosquitto.conf");
                std::fs::write(
                    &conf,
                    format!(
                        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_inflight_messages 0\n\
                         max_queued_messages 0\nset_tcp_nodelay true\nlog_dest none\n"
                    ),
                )?;
                let program = ["/usr/sbin/mosquitto", "mosquitto"].into_iter().find(|p| Path::new(p).exists());
                let mut command = Command::new(program.unwrap_or("mosquitto"));
                command.arg("-c").arg(&conf);
                Server::plain(command, port, cpus)
            }
            Target::Rumqttd(program) => {
                let port = free_port()?;
                let conf = dir.join("rumqttd.toml");
                std::fs::write(
                    &conf,
                    format!(
                        "id = 0\n[router]\nid = 0\nmax_connections = 10010\nmax_outgoing_packet_count = 200\n\
                         max_segment_size = 104857600\nmax_segment_count = 10\n[v4.1]\nname = \"v4-1\"\n\
                         listen = \"127.0.0.1:{port}\"\nnext_connection_delay_ms = 0\n[v4.1.connections]\n\
                         connection_timeout_ms = 60000\nmax_payload_size = 1048576\nmax_inflight_count = 500\n\
                         dynamic_filters = true\n"
                    ),
                )?;
                let mut command = Command::new(program);
                command.arg("-c").arg(&conf);
                Server::plain(command, port, cpus)
            }
            Target::Fio => Err("fio is no broker".into()),
        }
    }
}

struct Server {
    child: Child,
    addr: SocketAddr,
    /// Of ours only: where the record comes at the end.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Server {
    /// One of ours: tells its address, and its record when it stops.
    fn machine(mut command: Command) -> Result<Server> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let ready: serde_json::Value = serde_json::from_str(&line).map_err(|_| format!("server said: {line}"))?;
        let addr = ready["ready"]["addr"].as_str().ok_or_else(|| format!("server said: {line}"))?.parse()?;
        Ok(Server { child, addr, stdout: Some(stdout) })
    }

    /// Somebody else's, bound to the same CPUs.
    fn plain(mut command: Command, port: u16, cpus: &Cpus) -> Result<Server> {
        let set = cpus.broker.clone();
        // SAFETY: between fork and exec only sched_setaffinity is called, on memory that was allocated before.
        unsafe {
            command.pre_exec(move || {
                let mut mask: libc::cpu_set_t = std::mem::zeroed();
                set.iter().for_each(|cpu| libc::CPU_SET(*cpu, &mut mask));
                match libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &mask) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut server = Server { child, addr, stdout: None };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(addr).is_err() {
            if Instant::now() > deadline {
                server.stop()?;
                return Err("did not start listening within 10 s".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    fn stop(&mut self) -> Result<String> {
        let mut note = String::new();
        if let Some(mut stdout) = self.stdout.take() {
            drop(self.child.stdin.take());
            let mut line = String::new();
            stdout.read_line(&mut line)?;
            let said: serde_json::Value = serde_json::from_str(&line)?;
            let counters = &said["stopped"]["counters"];
            if counters.is_null() {
                return Err(format!("server said: {line}").into());
            }
            note = format!("{} appends, {} syncs", counters["appends"], counters["syncs"]);
        } else {
            self.child.kill()?;
        }
        self.child.wait()?;
        Ok(note)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// fdatasync'ed appends of one record each on as many files as there are partitions: what the disk gives without a
/// broker and without grouping.
fn fio(dir: &Path, options: &Options, cpus: &Cpus) -> Result<Outcome> {
    let list = cpus.broker.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let record = options.payload + 64;
    let output = Command::new("fio")
        .args(["--name=append", "--rw=write", "--ioengine=psync", "--fdatasync=1", "--numjobs=8", "--group_reporting"])
        .args(["--size=256m", "--time_based=1", "--fallocate=none", "--file_append=1", "--output-format=json"])
        .arg(format!("--bs={record}"))
        .arg(format!("--runtime={}", options.seconds))
        .arg(format!("--cpus_allowed={list}"))
        .arg(format!("--directory={}", dir.display()))
        .output()?;
    if !output.status.success() {
        std::io::stderr().write_all(&output.stderr)?;
        return Err("fio failed".into());
    }
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let per_second = json["jobs"][0]["write"]["iops"].as_f64().ok_or("fio's JSON has no write.iops")?;
    Ok(Outcome { per_second, note: format!("8 files, {record} B per append, one sync each") })
}

fn scratch(base: &Path) -> Result<PathBuf> {
    let dir = base.join(format!("regauge-bench-{}-{:x}", std::process::id(), Lcg::seeded().0));
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
