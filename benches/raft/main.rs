//! client_write/s of the meta-service's core beside a bare openraft loop, one column per runtime.
//!
//! Both sides have the same runtime, log store, state machine, store settings and number of clients in a closed loop,
//! in a fresh directory each. Ours calls `RaftNode::propose` (limits, stamps, errors); the bare loop calls openraft's
//! `client_write` itself. Rounds are interleaved, and each round takes both sides in the other order than the last. The
//! ratio is the median of the rounds' ratios, so that a disk that is slow for a while slows both.
//!
//! Usage: `bench-raft [--quick] [--rounds N] [--seconds S] [--clients C] [--dir DIR]`

use regauge_runtimes::broker::effect::{MetaCall, SessionRecord};
use regauge_runtimes::meta::Store;
use regauge_runtimes::meta::api::Core;
use regauge_runtimes::meta::native::{CompioNative, MonoioNative, Native, TokioNative};
use regauge_runtimes::meta::network::Alone;
use regauge_runtimes::meta::raft::{Membership, RaftNode};
use regauge_runtimes::meta::types::Proposal;
use regauge_runtimes::settings::{Placement, RaftSync, Settings};
use regauge_runtimes::stamps::Role;
use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const LEADER_LIMIT: Duration = Duration::from_secs(30);

struct Options {
    rounds: usize,
    seconds: f64,
    clients: usize,
    dir: PathBuf,
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Ours,
    Bare,
}

/// Proposals per second in each round.
#[derive(Clone, Default)]
struct Rates {
    ours: Vec<f64>,
    bare: Vec<f64>,
}

impl Rates {
    fn ratios(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.bare).map(|(ours, bare)| ours / bare).collect()
    }
}

type Measure = fn(&Options, &Settings, Side) -> Result<f64, String>;
const RUNTIMES: [(&str, Measure); 3] =
    [("tokio", measure::<TokioNative>), ("monoio", measure::<MonoioNative>), ("compio", measure::<CompioNative>)];

fn main() {
    if let Err(error) = options().and_then(|options| run(&options)) {
        eprintln!("bench-raft: {error}");
        std::process::exit(1);
    }
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options { rounds: 7, seconds: 3.0, clients: 32, dir: std::env::temp_dir() };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        if flag == "--quick" {
            options = Options { rounds: 3, seconds: 1.0, ..options };
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--rounds" => options.rounds = value.parse()?,
            "--seconds" => options.seconds = value.parse()?,
            "--clients" => options.clients = value.parse()?,
            "--dir" => options.dir = value.into(),
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    if options.rounds == 0 || options.clients == 0 {
        return Err("--rounds and --clients must be 1 or more".into());
    }
    Ok(options)
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    // Without waiting for a disk or another thread our share of the work is largest.
    let bound = Settings { placement: Placement::Inline, raft_sync: RaftSync::None, ..Settings::default() };
    for (name, settings) in [("RocksDB inline, no sync", bound), ("RocksDB offloaded, log synced", Settings::default())]
    {
        table(options, name, &settings)?;
    }
    Ok(())
}

fn table(options: &Options, name: &str, settings: &Settings) -> Result<(), Box<dyn Error>> {
    let mut rates = vec![Rates::default(); RUNTIMES.len()];
    for round in 0..options.rounds {
        for ((runtime, measure), Rates { ours, bare }) in RUNTIMES.iter().zip(&mut rates) {
            for side in if round % 2 == 0 { [Side::Ours, Side::Bare] } else { [Side::Bare, Side::Ours] } {
                let rate = measure(options, settings, side)?;
                if side == Side::Ours { ours.push(rate) } else { bare.push(rate) }
            }
            eprintln!("round {} {runtime:<8} ours {:>9.0}/s bare {:>9.0}/s", round + 1, ours[round], bare[round]);
        }
    }
    let row = |title: &str, cell: &dyn Fn(&Rates) -> String| {
        println!("{title:<22}{}", rates.iter().map(|rates| format!("{:>14}", cell(rates))).collect::<String>());
    };
    let Options { rounds, seconds, clients, .. } = options;
    println!("\nclient_write/s, one node, {name}, {clients} clients, {rounds} rounds of {seconds} s; medians");
    println!("{:<22}{}", "", RUNTIMES.map(|(runtime, _)| format!("{runtime:>14}")).concat());
    row("ours (propose)", &|rates| format!("{:.0}", median(rates.ours.clone())));
    row("bare openraft loop", &|rates| format!("{:.0}", median(rates.bare.clone())));
    row("ours ÷ bare", &|rates| format!("{:.3}", median(rates.ratios())));
    row("  lowest … highest", &|rates| {
        let all = rates.ratios();
        let (low, high) = (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(0.0, f64::max));
        format!("{low:.2} … {high:.2}")
    });
    Ok(())
}

/// Proposals per second of one side, on a fresh node.
fn measure<N: Native>(options: &Options, settings: &Settings, side: Side) -> Result<f64, String> {
    let dir = tempfile::tempdir_in(&options.dir).map_err(|error| format!("{}: {error}", options.dir.display()))?;
    N::default().block_on(async {
        let node = start::<N>(settings, dir.path()).await?;
        // Clients look at the clock themselves: monoio fires no timer while tasks are ready without a pause, so a sleep that
        // ends the round would never end.
        let done = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        // The first part warms memtables and caches up.
        let (from, to) = (options.seconds / 5.0, options.seconds * 1.2);
        let (ended, mut end) = mpsc::channel(1);
        for client in 0..options.clients {
            let (node, done, ended) = (node.clone(), Arc::clone(&done), ended.clone());
            N::start(Role::Raft, async move {
                for n in 0u64.. {
                    let call = open(format!("client-{client}-{}", n % 1024));
                    let answered = match side {
                        Side::Ours => node.propose(n, vec![call]).await.map(drop).map_err(|error| error.to_string()),
                        Side::Bare => {
                            let written =
                                node.openraft().client_write(Proposal { id: n, caller: 0, calls: vec![call] }).await;
                            written.map(drop).map_err(|error| error.to_string())
                        }
                    };
                    let now = began.elapsed().as_secs_f64();
                    if answered.is_err() || now >= to {
                        let _the_bench_ended = ended.send(answered).await;
                        return;
                    }
                    done.fetch_add(u64::from(now >= from), Ordering::Relaxed);
                }
            });
        }
        drop(ended);
        while let Some(answered) = end.recv().await {
            answered?;
        }
        node.shutdown().await?;
        Ok(done.load(Ordering::Relaxed) as f64 / options.seconds)
    })
}

async fn start<N: Native>(settings: &Settings, dir: &Path) -> Result<RaftNode<N>, String> {
    let store = Store::open_for(&dir.join("meta"), settings).map_err(|error| error.to_string())?;
    let member = Membership { id: 1, peers: [(1, SocketAddr::from(([127, 0, 0, 1], 1)))].into() };
    let node = RaftNode::<N>::start(&member, settings, Arc::new(store), Alone, || {}).await;
    let node = node.map_err(|error| error.to_string())?;
    node.wait_for_leader(LEADER_LIMIT).await?;
    Ok(node)
}

/// About as large as RobustMQ's (0.1 kB).
fn open(client: String) -> MetaCall {
    let record = SessionRecord {
        client,
        expiry_s: 3600,
        subscriptions: vec![("sensors/+/temperature".to_owned(), 1)],
        left_unix_s: None,
    };
    MetaCall::OpenSession { record, clean: true, unix_s: 0 }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}
