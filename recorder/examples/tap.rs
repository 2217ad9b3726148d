//! The smallest program that records: a tap between clients and a broker, until its standard input ends.
//!
//! ```text
//! cargo run --release -p regauge-recorder --example tap -- 127.0.0.1:1884 127.0.0.1:1883 trace.parquet
//! ```
//! It prints `listening ADDRESS` when it is ready, and how many spans it wrote at the end. The tests use
//! it as the child that they kill.

use regauge_recorder::tap::{Tap, TapOptions, TapSummary};
use std::error::Error;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn main() -> ExitCode {
    match record() {
        Ok(summary) => {
            println!("{} spans in {}", summary.stats.spans_written, summary.out.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn record() -> Result<TapSummary, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, out] = arguments.as_slice() else {
        return Err("usage: tap LISTEN UPSTREAM OUT, for example: tap 127.0.0.1:1884 127.0.0.1:1883 t.parquet".into());
    };
    let tap = Tap::bind(TapOptions { listen: listen.parse()?, ..TapOptions::new(upstream, out) })?;
    println!("listening {}", tap.local_addr());
    std::io::stdout().flush()?;

    let stop = Arc::new(AtomicBool::new(false));
    let on_end_of_input = Arc::clone(&stop);
    std::thread::spawn(move || {
        // An error on standard input ends it as well.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        on_end_of_input.store(true, Ordering::Relaxed);
    });
    Ok(tap.run(&stop, None, |_| {})?)
}
