//! What the stamps cost, on against off, interleaved.
//!
//! `cycles`: ns for one wake and poll of a task that yields, on every runtime, without the wrapper, with it switched off,
//! and with it switched on. `rates`: QoS 1 publishes per second of every stack, servers that live at once and are asked
//! in turn, with stamps, without, and without again as a control, and the ratios.
//!
//! Usage: `bench-stamps (cycles|rates) [--rounds N] [--seconds S] [--clients C] [--window W]
//! [--stack STACK] [--dir DIR]`

#[path = "../stacks/client.rs"]
#[allow(dead_code)]
mod client;
mod cycles;
mod rates;

use regauge_runtimes::settings::Stack;
use std::error::Error;
use std::path::PathBuf;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What the command line asked for.
struct Options {
    rounds: usize,
    seconds: f64,
    clients: usize,
    window: usize,
    dir: PathBuf,
    stacks: Vec<Stack>,
}

fn main() {
    if let Err(error) = run() {
        eprintln!("bench-stamps: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mode = args.next().ok_or("say cycles or rates")?;
    if mode == "serve" {
        return rates::serve(&args.collect::<Vec<_>>());
    }
    let dir = std::env::temp_dir();
    let mut options = Options {
        rounds: if mode == "rates" { 30 } else { 7 },
        seconds: 0.7,
        clients: 32,
        window: 64,
        dir,
        stacks: Stack::ALL.to_vec(),
    };
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--rounds" => options.rounds = value.parse()?,
            "--seconds" => options.seconds = value.parse()?,
            "--clients" => options.clients = value.parse()?,
            "--window" => options.window = value.parse()?,
            "--stack" => options.stacks = vec![value.parse()?],
            "--dir" => options.dir = value.into(),
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    match mode.as_str() {
        "cycles" => cycles::run(&options),
        "rates" => rates::run(&options),
        other => Err(format!("no mode is called {other}; say cycles or rates").into()),
    }
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
