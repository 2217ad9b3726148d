//! QoS 1 publishes per second of every stack, with stamps and without.

use crate::{Options, Result, client, median};
use regauge_runtimes::settings::{Durability, Settings, Stack};
use regauge_runtimes::{ServeConfig, Stop};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Of a publish, bytes.
const PAYLOAD: usize = 256;

pub fn run(options: &Options) -> Result<()> {
    let mut cpus: Vec<usize> = core_affinity::get_core_ids().ok_or("no CPUs")?.iter().map(|c| c.id).collect();
    let own = cpus.pop().ok_or("no CPU")?;
    client::pin(own)?;
    println!(
        "\nQoS 1 publishes/s, durability none, {} clients × window {}, {PAYLOAD} B, {} rounds of {} s, on and off in turn; \
         broker on CPU {cpus:?}, client on CPU {own}",
        options.clients, options.window, options.rounds, options.seconds
    );
    println!(
        "{:<14} {:>12} {:>12} {:>24} {:>24} {:>12}",
        "stack", "off/s", "on/s", "on ÷ off (at least .97)", "CPU per publish on ÷ off", "stamps, MiB"
    );
    for stack in Stack::ALL {
        let (mut off, mut on) = (Vec::new(), Vec::new());
        for round in 0..options.rounds {
            for with_stamps in if round % 2 == 0 { [false, true] } else { [true, false] } {
                let measured = measure(stack, with_stamps, &cpus, options)?;
                if with_stamps { on.push(measured) } else { off.push(measured) }
            }
        }
        let rates = |runs: &[Measured]| median(&runs.iter().map(|run| run.per_second).collect::<Vec<_>>());
        let ratio = |of: fn(&Measured) -> f64| {
            let ratios: Vec<f64> = off.iter().zip(&on).map(|(off, on)| of(on) / of(off)).collect();
            let (low, high) = ratios.iter().fold((f64::INFINITY, 0.0f64), |(l, h), r| (l.min(*r), h.max(*r)));
            format!("{:.3} ({low:.2} … {high:.2})", median(&ratios))
        };
        let mib = on.iter().map(|run| run.stamp_bytes).max().unwrap_or(0) as f64 / f64::from(1 << 20);
        println!(
            "{:<14} {:>12.0} {:>12.0} {:>24} {:>24} {mib:>12.1}",
            stack.name(),
            rates(&off),
            rates(&on),
            ratio(|run| run.per_second),
            ratio(|run| run.cpu_ns_per_publish)
        );
    }
    Ok(())
}

struct Measured {
    per_second: f64,
    /// Of the server; what others take of its CPU does not count.
    cpu_ns_per_publish: f64,
    stamp_bytes: u64,
}

/// One fresh server.
fn measure(stack: Stack, with_stamps: bool, cpus: &[usize], options: &Options) -> Result<Measured> {
    let dir = options.dir.join(format!("bench-stamps-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let cpus = cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut server = Command::new(std::env::current_exe()?)
        .args(["serve", stack.name(), if with_stamps { "on" } else { "off" }, &cpus])
        .arg(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let mut stdout = BufReader::new(server.stdout.take().ok_or("no stdout")?);
    stdout.read_line(&mut line)?;
    let addr: SocketAddr = line.trim().parse().map_err(|_| format!("{stack} did not start: {line}"))?;
    let outcome = client::rate(addr, options.clients, options.window, PAYLOAD, options.seconds);
    drop(server.stdin.take());
    line.clear();
    stdout.read_line(&mut line)?;
    if !server.wait()?.success() {
        return Err(format!("{stack} failed").into());
    }
    let stamp_bytes = std::fs::metadata(dir.join("stamps.parquet")).map_or(0, |file| file.len());
    std::fs::remove_dir_all(&dir)?;
    Ok(Measured { per_second: outcome?.per_second, cpu_ns_per_publish: line.trim().parse()?, stamp_bytes })
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
