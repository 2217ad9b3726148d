//! The workloads of published benchmarks.

use rand::Rng;

use super::forge::{Client, Forge};
use super::{Profile, SynthParams};

const MS: u64 = 1_000_000;

/// `mqttx bench conn`: MQTT 5, clean start, keep-alive 30 s, one client every 10 ms (its defaults); and the burst.
pub(super) fn connects(params: &SynthParams) -> Forge {
    let mut forge = Forge::new(params.seed);
    let gap_ns = match params.profile {
        Profile::ConnectBurst => 0.0,
        _ => 1e9 / params.rate(),
    };
    for number in 0..params.clients {
        let name: u32 = forge.random.random();
        let client = Client::plain(format!("mqttx_{name:08x}_{number}"), 30);
        forge.connect((f64::from(number) * gap_ns) as u64, &client);
    }
    forge
}

/// QoS 1 publishes of 256 B to one topic per client, Poisson arrivals over all clients; one subscriber hears
/// everything at QoS 0, another one topic at QoS 1.
pub(super) fn publishes(params: &SynthParams) -> Forge {
    let mut forge = Forge::new(params.seed);
    let all = forge.connect(0, &Client::plain("bench_sub_all".to_owned(), 60));
    forge.subscribe(5 * MS, all, &[("bench/+/data", 0)]);
    let one = forge.connect(MS, &Client::plain("bench_sub_one".to_owned(), 60));
    forge.subscribe(6 * MS, one, &[("bench/0/data", 1)]);
    // Clients connect over the first tenth of the run, and publish once all of them are there.
    let ramp_ns = params.duration_s * 1e8;
    let publishers: Vec<_> = (0..params.clients)
        .map(|number| {
            let at = ramp_ns * 0.9 * f64::from(number) / f64::from(params.clients);
            forge.connect(10 * MS + at as u64, &Client::plain(format!("bench_pub_{number}"), 60))
        })
        .collect();
    let end_ns = (params.duration_s * 1e9) as u64;
    let mean_ns = 1e9 / params.rate();
    let mut at = (ramp_ns as u64).max(20 * MS);
    loop {
        at = at.saturating_add(forge.exponential_ns(mean_ns));
        if at >= end_ns {
            return forge;
        }
        let number = forge.random.random_range(0..publishers.len());
        if let Some(publisher) = publishers.get(number) {
            forge.publish(at, *publisher, &format!("bench/{number}/data"), 1, 256);
        }
    }
}

/// Iggy's pinned producers: each sends batches of 250 × 1000 B to its own stream at an even pace. Its benchmark waits
/// for each reply; here arrivals are given, as Regauge replays them.
pub(super) fn batches(params: &SynthParams) -> Forge {
    const MESSAGES: u32 = 250;
    const MESSAGE_BYTES: usize = 1000;
    let mut forge = Forge::new(params.seed);
    let producers: Vec<_> = (0..params.clients)
        .map(|number| forge.connect(u64::from(number) * MS, &Client::plain(format!("producer_{number}"), 60)))
        .collect();
    let start_ns = u64::from(params.clients) * MS + 100 * MS;
    let end_ns = start_ns + (params.duration_s * 1e9) as u64;
    let period_ns = 1e9 * f64::from(params.clients) / params.rate();
    for (number, producer) in producers.into_iter().enumerate() {
        let topic = format!("iggy/{number}/1");
        let phase_ns = forge.random.random::<f64>() * period_ns;
        for batch in 0u32.. {
            let at = start_ns + (phase_ns + f64::from(batch) * period_ns) as u64;
            if at >= end_ns {
                break;
            }
            forge.publish(at, producer, &topic, 1, MESSAGES as usize * MESSAGE_BYTES).count = MESSAGES;
        }
    }
    forge
}
