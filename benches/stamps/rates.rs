//! QoS 1 publishes per second of every stack, with stamps and without.

use crate::{Options, Result, client, median};
use regauge_runtimes::settings::{Durability, Settings, Stack};
use regauge_runtimes::{ServeConfig, Stop};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use tempfile::TempDir;

/// Of a publish, bytes.
const PAYLOAD: usize = 256;

pub fn run(options: &Options) -> Result<()> {
    let mut cpus: Vec<usize> = core_affinity::get_core_ids().ok_or("no CPUs")?.iter().map(|c| c.id).collect();
    let own = cpus.pop().ok_or("no CPU")?;
    client::pin(own)?;
    println!(
        "\nQoS 1 publishes/s, durability none, {} clients × window {}, {PAYLOAD} B; broker on CPU {cpus:?}, client on CPU {own}; \
         {} rounds of {} s with stamps off, on, and off again as a control; medians, with 95 % intervals of the ratios'",
        options.clients, options.window, options.rounds, options.seconds
    );
    println!(
        "{:<13} {:>8} {:>8}  {:>19} {:>19} {:>18} {:>18}  {:>6}",
        "stack", "off/s", "on/s", "on ÷ off (≥ .97)", "off ÷ off", "CPU each: on ÷ off", "off ÷ off", "MiB"
    );
    for &stack in &options.stacks {
        let (mut rates, mut cpu, mut stamp_bytes): ([Vec<f64>; 3], [Vec<f64>; 3], u64) = Default::default();
        for round in 0..options.rounds {
            let start = |with_stamps| Server::start(stack, with_stamps, &cpus, options);
            // The third is the control: it is what the first is, so what their ratio differs from 1 by is noise.
            let servers = [start(false)?, start(true)?, start(false)?];
            // The order turns, so that none always comes first.
            for i in (0..3).map(|i| (i + round) % 3) {
                let Options { clients, window, seconds, .. } = *options;
                rates[i].push(client::rate(servers[i].addr, clients, window, PAYLOAD, seconds)?.per_second);
            }
            for (i, server) in servers.into_iter().enumerate() {
                let measured = server.stop()?;
                cpu[i].push(measured.cpu_ns_per_publish);
                stamp_bytes = measured.stamp_bytes.max(stamp_bytes);
            }
        }
        println!(
            "{:<13} {:>8.0} {:>8.0}  {:>19} {:>19} {:>18} {:>18}  {:>6.1}",
            stack.name(),
            median(&rates[0]),
            median(&rates[1]),
            ratio(&rates[0], &rates[1]),
            ratio(&rates[0], &rates[2]),
            ratio(&cpu[0], &cpu[1]),
            ratio(&cpu[0], &cpu[2]),
            stamp_bytes as f64 / f64::from(1 << 20)
        );
    }
    Ok(())
}

/// The median of what the second is of the first in each round, and its interval.
fn ratio(first: &[f64], second: &[f64]) -> String {
    let ratios: Vec<f64> = first.iter().zip(second).map(|(first, second)| second / first).collect();
    let interval = median_interval(&ratios).map_or("–".to_owned(), |(low, high)| format!("{low:.2}…{high:.2}"));
    format!("{:.3} ({interval})", median(&ratios))
}

/// The distribution-free interval of a median: the pair of order statistics that covers it in at least 95 % of all
/// samples, by the binomial distribution. `None` when there are too few values for one.
fn median_interval(values: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    // P(at most k of n lie below the median), summed until it would pass 2.5 %.
    let (mut below, mut term, mut k) = (0.0, 0.5f64.powi(i32::try_from(n).ok()?), 0);
    while below + term <= 0.025 && k < n / 2 {
        below += term;
        term *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
    (k > 0).then(|| (sorted[k - 1], sorted[n - k]))
}

struct Measured {
    /// Of the server; what others take of its CPU does not count.
    cpu_ns_per_publish: f64,
    stamp_bytes: u64,
}

/// A server in a process of its own, with a data directory of its own. All of a round live at once and all but one
/// have nothing to do: the host's speed changes from second to second, so what is compared must lie close together.
struct Server {
    process: Child,
    stdout: BufReader<ChildStdout>,
    addr: SocketAddr,
    dir: TempDir,
}

impl Server {
    fn start(stack: Stack, with_stamps: bool, cpus: &[usize], options: &Options) -> Result<Server> {
        let switch = if with_stamps { "on" } else { "off" };
        let dir = tempfile::Builder::new().prefix("bench-stamps-").tempdir_in(&options.dir)?;
        let cpus = cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", stack.name(), switch, &cpus])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let mut stdout = BufReader::new(process.stdout.take().ok_or("no stdout")?);
        stdout.read_line(&mut line)?;
        let addr = line.trim().parse().map_err(|_| format!("{stack} did not start: {line}"))?;
        Ok(Server { process, stdout, addr, dir })
    }

    fn stop(mut self) -> Result<Measured> {
        drop(self.process.stdin.take());
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        if !self.process.wait()?.success() {
            return Err("a server failed".into());
        }
        let stamp_bytes = std::fs::metadata(self.dir.path().join("stamps.parquet")).map_or(0, |file| file.len());
        self.dir.close()?;
        Ok(Measured { cpu_ns_per_publish: line.trim().parse()?, stamp_bytes })
    }
}

/// The server's process: `serve STACK on|off CPUS DIR`, until its standard input ends. Says its address, and at the end its
/// CPU time per publish, ns.
pub fn serve(args: &[String]) -> Result<()> {
    let [stack, switch, cpus, dir] = args else { return Err("serve needs STACK, on or off, CPUS and DIR".into()) };
    let (stack, dir, with_stamps) = (stack.parse::<Stack>()?, PathBuf::from(dir), switch == "on");
    let cpus: Vec<usize> = cpus.split(',').filter_map(|cpu| cpu.parse().ok()).collect();
    let settings = Settings { threads: cpus.len().max(1), cpus, durability: Durability::None, ..Settings::default() };
    let stop = Stop::new();
    let asked = stop.clone();
    std::thread::spawn(move || {
        let _until_it_ends = std::io::stdin().read_to_end(&mut Vec::new());
        asked.stop();
    });
    let stamps = with_stamps.then(|| dir.join("stamps.parquet"));
    let config = ServeConfig { stamps, ..ServeConfig::local(stack, settings, dir.join("data")) };
    let record = regauge_runtimes::serve(config, stop, |ready| println!("{}", ready.mqtt))?;
    let publishes = record.counters.broker.publishes.max(1);
    println!("{}", (record.cpu_user_ns + record.cpu_system_ns) as f64 / publishes as f64);
    Ok(())
}
