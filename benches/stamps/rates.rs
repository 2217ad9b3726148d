//! QoS 1 publishes per second of every stack, with stamps and without.

use crate::{Options, Result, client, median};
use regauge_runtimes::settings::{Durability, Settings, Stack};
use regauge_runtimes::{ServeConfig, Stop, stamps};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
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
    println!("{:<14} {:>12} {:>12} {:>24} {:>14}", "stack", "off/s", "on/s", "on ÷ off (at least .97)", "stamps, MiB");
    for stack in Stack::ALL {
        let (mut off, mut on, mut ratios, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for round in 0..options.rounds {
            let mut pair = [0.0; 2];
            for i in (0..2).map(|i| (i + round) % 2) {
                let (rate, written) = measure(stack, i == 1, &cpus, options)?;
                pair[i] = rate;
                bytes = bytes.max(written);
            }
            off.push(pair[0]);
            on.push(pair[1]);
            ratios.push(pair[1] / pair[0]);
        }
        let (low, high) = ratios.iter().fold((f64::INFINITY, 0.0f64), |(l, h), r| (l.min(*r), h.max(*r)));
        let ratio = format!("{:.3} ({low:.2} … {high:.2})", median(&ratios));
        let mib = bytes as f64 / f64::from(1 << 20);
        println!("{:<14} {:>12.0} {:>12.0} {ratio:>24} {mib:>14.1}", stack.name(), median(&off), median(&on));
    }
    Ok(())
}

/// One fresh server; its rate, and the bytes of its stamps.
fn measure(stack: Stack, with_stamps: bool, cpus: &[usize], options: &Options) -> Result<(f64, u64)> {
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
    BufReader::new(server.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
    let addr: SocketAddr = line.trim().parse().map_err(|_| format!("{stack} did not start: {line}"))?;
    let outcome = client::rate(addr, options.clients, options.window, PAYLOAD, options.seconds);
    drop(server.stdin.take());
    if !server.wait()?.success() {
        return Err(format!("{stack} failed").into());
    }
    let bytes = std::fs::metadata(dir.join("stamps.parquet")).map_or(0, |file| file.len());
    std::fs::remove_dir_all(&dir)?;
    Ok((outcome?.per_second, bytes))
}

/// The server's process: `serve STACK on|off CPUS DIR`, until its standard input ends.
pub fn serve(args: &[String]) -> Result<()> {
    let [stack, switch, cpus, dir] = args else { return Err("serve needs STACK, on or off, CPUS and DIR".into()) };
    let (stack, dir, with_stamps) = (stack.parse::<Stack>()?, PathBuf::from(dir), switch == "on");
    let cpus: Vec<usize> = cpus.split(',').filter_map(|cpu| cpu.parse().ok()).collect();
    let settings = Settings { threads: cpus.len().max(1), cpus, durability: Durability::None, ..Settings::default() };
    if with_stamps {
        stamps::start();
    }
    let stop = Stop::new();
    let asked = stop.clone();
    std::thread::spawn(move || {
        let _until_it_ends = std::io::stdin().read_to_end(&mut Vec::new());
        asked.stop();
    });
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let config = ServeConfig { stack, settings, listen, data: dir.join("data") };
    regauge_runtimes::serve(config, stop, |addr| println!("{addr}"))?;
    if with_stamps {
        stamps::write(&Path::join(&dir, "stamps.parquet"))?;
    }
    Ok(())
}
