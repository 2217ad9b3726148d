//! What the tap costs: latency and throughput of a private Mosquitto, with and without it, interleaved.
//!
//! ```text
//! benches/tap/run.sh [--rounds N] [--spin-us N] [--quick]
//! ```
//! The broker, the tap and this client are three processes. In every round each measurement is taken directly and
//! through the tap, in an order drawn anew, over connections opened for that round; so what the machine does besides
//! falls on both. Latency is that of a QoS 1 publish of 64 bytes with one message in flight, in alternating turns of 200
//! messages; throughput is QoS 1 with 16 in flight, and QoS 0 as fast as it goes (ended by a PINGRESP, so that the broker
//! has read everything). CPU time per message is the broker's and the tap's own, from the scheduler's accounts: a proxy
//! also changes how the broker reads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod processes;
mod table;

use client::Client;
use hdrhistogram::Histogram;
use processes::{Broker, TapProcess, serve_as_tap};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::SocketAddr;

/// Messages before the first measured one of a connection: its buffers and the broker's session have settled.
const WARM_UP: usize = 500;
/// Messages of a turn: short against what changes on a shared machine, long against its first message.
const TURN: usize = 200;

/// How much is measured.
#[derive(Debug, Clone)]
struct Plan {
    rounds: usize,
    latency_turns: usize,
    qos1_messages: usize,
    qos0_messages: usize,
    spin_us: u64,
}

/// One way to the broker, and what was measured on it, one entry per round.
#[derive(Default)]
struct Way {
    latency_ns: Vec<Histogram<u64>>,
    qos1_per_s: Vec<f64>,
    qos0_per_s: Vec<f64>,
    /// CPU of the broker per message: latency, QoS 1, QoS 0.
    broker_ns: [Vec<f64>; 3],
    /// CPU of the tap per message; 0 on the direct way.
    tap_ns: [Vec<f64>; 3],
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("as-tap", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return serve_as_tap(rest);
    }
    let plan = plan(&arguments);
    let broker = Broker::start();
    let tap = TapProcess::start(broker.addr, plan.spin_us);
    let mut ways = [Way::default(), Way::default()];
    for round in 0..plan.rounds {
        eprintln!("round {} of {}", round + 1, plan.rounds);
        run_round(&plan, &broker, &tap, &mut ways);
    }
    let recorded = tap.finish();
    let [direct, through] = ways;
    table::print(&direct, &through);
    println!("\n{recorded}");
}

fn plan(arguments: &[String]) -> Plan {
    let mut plan = Plan { rounds: 9, latency_turns: 20, qos1_messages: 20_000, qos0_messages: 200_000, spin_us: 0 };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse().ok()).expect("a number must follow this option");
        match argument.as_str() {
            "--rounds" => plan.rounds = number(),
            "--spin-us" => plan.spin_us = number() as u64,
            "--quick" => {
                plan = Plan { rounds: 3, latency_turns: 8, qos1_messages: 5_000, qos0_messages: 50_000, ..plan }
            }
            other => panic!("unknown option {other}: use --rounds N, --spin-us N, --quick"),
        }
    }
    assert!(plan.rounds > 0, "--rounds must be at least 1");
    plan
}

fn run_round(plan: &Plan, broker: &Broker, tap: &TapProcess, ways: &mut [Way; 2]) {
    let addresses = [broker.addr, tap.addr];
    latency(plan, broker, tap, addresses, ways);
    for (measure, messages) in [(1, plan.qos1_messages), (2, plan.qos0_messages)] {
        for way in coin() {
            let mut client = Client::connect(addresses[way]);
            client.window(WARM_UP, 16);
            let before = [broker.cpu_ns(), tap.cpu_ns()];
            let elapsed = if measure == 1 { client.window(messages, 16) } else { client.flood(messages) };
            let rate = messages as f64 / elapsed.as_secs_f64();
            if measure == 1 {
                ways[way].qos1_per_s.push(rate)
            } else {
                ways[way].qos0_per_s.push(rate)
            }
            charge(&mut ways[way], measure, before, [broker.cpu_ns(), tap.cpu_ns()], messages, way == 1);
        }
    }
}

/// Both ways in turns, over one connection each.
fn latency(plan: &Plan, broker: &Broker, tap: &TapProcess, addresses: [SocketAddr; 2], ways: &mut [Way; 2]) {
    let mut clients = addresses.map(Client::connect);
    let mut histograms = [(); 2].map(|()| histogram());
    let mut cpu = [[0u64; 2]; 2];
    for client in &mut clients {
        client.window(WARM_UP, 1);
    }
    for _ in 0..plan.latency_turns {
        for way in coin() {
            let before = [broker.cpu_ns(), tap.cpu_ns()];
            for _ in 0..TURN {
                let ns = clients[way].round_trip().as_nanos() as u64;
                histograms[way].record(ns).expect("within the time-out");
            }
            let after = [broker.cpu_ns(), tap.cpu_ns()];
            for (sum, (after, before)) in cpu[way].iter_mut().zip(after.into_iter().zip(before)) {
                *sum += after - before;
            }
        }
    }
    for (n, (way, histogram)) in ways.iter_mut().zip(histograms).enumerate() {
        charge(way, 0, [0, 0], cpu[n], plan.latency_turns * TURN, n == 1);
        way.latency_ns.push(histogram);
    }
}

fn charge(way: &mut Way, measure: usize, before: [u64; 2], after: [u64; 2], messages: usize, tapped: bool) {
    let per_message = |n: usize| (after[n] - before[n]) as f64 / messages as f64;
    way.broker_ns[measure].push(per_message(0));
    way.tap_ns[measure].push(if tapped { per_message(1) } else { 0.0 });
}

/// Three digits, up to the time-out of a read: nothing can be cut off.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(client::TIMEOUT.as_nanos() as u64, 3).expect("valid bounds")
}

/// Both ways in an order drawn from the system's randomness.
fn coin() -> [usize; 2] {
    if RandomState::new().hash_one(0) & 1 == 0 { [0, 1] } else { [1, 0] }
}
