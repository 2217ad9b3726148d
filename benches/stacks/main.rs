//! QoS 1 publishes per second of every stack beside Mosquitto, rumqttd and fio; of every stack with and without the layer
//! that records its steps; and many connections on every stack.
//!
//! Closed loop on purpose: it asks for capacity, not for latency (the study does that, open loop). One thread on a CPU
//! of its own drives all connections, each with a window of unacknowledged publishes; every broker gets the other
//! CPUs. All targets run once per round in random order, each as a fresh process with a fresh data directory.
//!
//! Usage: `bench-stacks (rates|sync|layer|connections) --regauge PATH [--rounds N] [--seconds S] [--clients C]
//! [--window W] [--payload BYTES] [--rumqttd PATH] [--dir DIR]`

mod client;
mod targets;

use std::error::Error;
use std::path::PathBuf;

/// What the command line asked for.
pub struct Options {
    mode: String,
    regauge: PathBuf,
    rumqttd: Option<PathBuf>,
    dir: PathBuf,
    rounds: usize,
    seconds: f64,
    clients: usize,
    window: usize,
    payload: usize,
}

fn main() {
    if let Err(error) = options().and_then(run) {
        eprintln!("bench-stacks: {error}");
        std::process::exit(1);
    }
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut options = Options {
        mode: args.next().ok_or("say rates, sync, layer or connections")?,
        regauge: PathBuf::from("regauge"),
        rumqttd: None,
        dir: std::env::temp_dir(),
        rounds: 5,
        seconds: 3.0,
        clients: 32,
        window: 64,
        payload: 256,
    };
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--regauge" => options.regauge = value.into(),
            "--rumqttd" => options.rumqttd = Some(value.into()),
            "--dir" => options.dir = value.into(),
            "--rounds" => options.rounds = value.parse()?,
            "--seconds" => options.seconds = value.parse()?,
            "--clients" => options.clients = value.parse()?,
            "--window" => options.window = value.parse()?,
            "--payload" => options.payload = value.parse()?,
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    Ok(options)
}

fn run(options: Options) -> Result<(), Box<dyn Error>> {
    match options.mode.as_str() {
        "rates" => rates(&options, "none"),
        "sync" => rates(&options, "fdatasync"),
        "layer" => layer(&options),
        "connections" => connections(&options),
        other => Err(format!("no mode is called {other}; say rates, sync, layer or connections").into()),
    }
}

/// Rates of all targets, interleaved; medians and the ratio to the fastest peer.
fn rates(options: &Options, durability: &str) -> Result<(), Box<dyn Error>> {
    let cpus = targets::cpus()?;
    let list = targets::list(options, durability)?;
    let mut results: Vec<Vec<f64>> = vec![Vec::new(); list.len()];
    let mut notes: Vec<String> = vec![String::new(); list.len()];
    let mut random = targets::Lcg::seeded();
    client::pin(cpus.client)?;
    for round in 0..options.rounds {
        for i in random.permutation(list.len()) {
            let target = &list[i];
            let outcome = target.measure(options, &cpus)?;
            eprintln!("round {} {:<16} {:>9.0}/s {}", round + 1, target.name(), outcome.per_second, outcome.note);
            results[i].push(outcome.per_second);
            notes[i] = outcome.note;
        }
    }
    let medians: Vec<f64> = results.iter().map(|r| median(r)).collect();
    let best_peer = list.iter().zip(&medians).filter(|(t, _)| t.is_peer()).map(|(_, m)| *m).fold(0.0, f64::max);
    println!(
        "\nQoS 1 publishes/s, durability {durability}, {} clients × window {}, {} B payload, {} rounds of {} s, random order; \
         broker on CPU {:?}, client on CPU {}",
        options.clients, options.window, options.payload, options.rounds, options.seconds, cpus.broker, cpus.client
    );
    println!("{:<18} {:>10} {:>21} {:>14}", "target", "median/s", "min … max", "÷ fastest peer");
    for (i, target) in list.iter().enumerate() {
        let low = results[i].iter().copied().fold(f64::INFINITY, f64::min);
        let high = results[i].iter().copied().fold(0.0, f64::max);
        let ratio = if best_peer > 0.0 { format!("{:.2}", medians[i] / best_peer) } else { "–".into() };
        println!("{:<18} {:>10.0} {:>9.0} … {:>9.0} {:>14}  {}", target.name(), medians[i], low, high, ratio, notes[i]);
    }
    Ok(())
}

/// What the recording of its own steps leaves of every stack's rate: on and off in turn, each a fresh process.
fn layer(options: &Options) -> Result<(), Box<dyn Error>> {
    let cpus = targets::cpus()?;
    client::pin(cpus.client)?;
    println!(
        "\nQoS 1 publishes/s, durability none, {} clients × window {}, {} B, {} rounds of {} s, without and with the layer in \
         turn; broker on CPU {:?}, client on CPU {}",
        options.clients, options.window, options.payload, options.rounds, options.seconds, cpus.broker, cpus.client
    );
    println!("{:<14} {:>12} {:>12} {:>28}", "stack", "off/s", "on/s", "on ÷ off (at least .97)");
    for (off, on) in targets::stacks("none", false).iter().zip(&targets::stacks("none", true)) {
        let (mut offs, mut ons) = (Vec::new(), Vec::new());
        for round in 0..options.rounds {
            for is_on in [round % 2 == 1, round % 2 == 0] {
                let (target, rates) = if is_on { (on, &mut ons) } else { (off, &mut offs) };
                rates.push(target.measure(options, &cpus)?.per_second);
            }
        }
        let ratios: Vec<f64> = offs.iter().zip(&ons).map(|(off, on)| on / off).collect();
        let (low, high) = ratios.iter().fold((f64::INFINITY, 0.0f64), |(low, high), r| (low.min(*r), high.max(*r)));
        let ratio = format!("{:.3} ({low:.2} … {high:.2})", median(&ratios));
        println!("{:<14} {:>12.0} {:>12.0} {ratio:>28}", off.name(), median(&offs), median(&ons));
    }
    Ok(())
}

/// Opens many connections on every stack, publishes once on each, and counts errors.
fn connections(options: &Options) -> Result<(), Box<dyn Error>> {
    let cpus = targets::cpus()?;
    let mut failed = 0;
    client::pin(cpus.client)?;
    println!("{} concurrent connections, one QoS 1 publish on each while all are open", options.clients);
    for target in targets::list(options, "none")?.iter().filter(|t| !t.is_peer()) {
        let outcome = target.connections(options, &cpus)?;
        failed += outcome.errors;
        println!(
            "{:<16} connected {:>6}  acknowledged {:>6}  errors {:>3}  in {:.2} s",
            target.name(),
            outcome.connected,
            outcome.acknowledged,
            outcome.errors,
            outcome.seconds
        );
    }
    if failed > 0 { Err(format!("{failed} connections failed").into()) } else { Ok(()) }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}
