//! A program that knows nothing of Regauge but one line: `regauge_recorder::record(…)`.
//!
//! `stranger OUT` serves sessions of its own making on tokio until its standard input ends. Its spans are plain
//! `tracing` spans; those whose names are steps of a trace are in OUT afterwards.

use std::time::Duration;
use tracing::{Instrument, info_span, instrument};

/// A session is opened: some waiting, some work.
#[instrument(fields(session = client), skip_all)]
async fn session_process(client: &str) {
    tokio::time::sleep(Duration::from_millis(1)).await;
    async { tokio::task::yield_now().await }.instrument(info_span!("route", count = 1)).await;
}

async fn serve() {
    for n in 0u64.. {
        let sessions: Vec<_> = (0..20)
            .map(|client| tokio::spawn(async move { session_process(&format!("client-{n}-{client}")).await }))
            .collect();
        for session in sessions {
            drop(session.await);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = std::env::args_os().nth(1).ok_or("usage: stranger OUT")?;
    let _recording = regauge_recorder::record(out)?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.spawn(serve());
    println!("serving");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(())
}
