//! The table that the benchmark prints: medians over rounds, with the range of the rounds beside them.

use super::Way;

pub fn print(direct: &Way, through: &Way) {
    println!("{:<36}{:>14}{:>14}{:>14}{:>9}   range of the rounds", "", "direct", "tap", "tap - direct", "ratio");
    for (name, quantile) in [("QoS 1, 1 in flight: p50, µs", 0.5), ("QoS 1, 1 in flight: p99, µs", 0.99)] {
        let at = |way: &Way| -> Vec<f64> {
            way.latency_ns.iter().map(|h| h.value_at_quantile(quantile) as f64 / 1e3).collect()
        };
        row(name, &at(direct), &at(through));
    }
    let pooled = |way: &Way, quantile| {
        let mut all = super::histogram();
        for histogram in &way.latency_ns {
            all.add(histogram).expect("the same bounds");
        }
        all.value_at_quantile(quantile) as f64 / 1e3
    };
    for (name, quantile) in [("  all rounds together: p50, µs", 0.5), ("  all rounds together: p99, µs", 0.99)] {
        row(name, &[pooled(direct, quantile)], &[pooled(through, quantile)]);
    }
    row("QoS 1, 16 in flight: messages/s", &direct.qos1_per_s, &through.qos1_per_s);
    row("QoS 0, as fast as it goes: messages/s", &direct.qos0_per_s, &through.qos0_per_s);
    let measures = ["1 in flight", "16 in flight", "QoS 0"];
    for (measure, name) in measures.into_iter().enumerate() {
        let us = |values: &[Vec<f64>; 3]| -> Vec<f64> { values[measure].iter().map(|ns| ns / 1e3).collect() };
        row(&format!("broker CPU a message, {name}, µs"), &us(&direct.broker_ns), &us(&through.broker_ns));
        println!("{:<36}{:>14}{:>14.2}", format!("tap CPU a message, {name}, µs"), "", median(&us(&through.tap_ns)));
    }
}

/// The difference is the median of the rounds' differences: both ways of a round saw the same machine.
fn row(name: &str, direct: &[f64], through: &[f64]) {
    let differences: Vec<f64> = through.iter().zip(direct).map(|(t, d)| t - d).collect();
    let ratios: Vec<f64> = through.iter().zip(direct).map(|(t, d)| t / d).collect();
    let (low, high) = (
        differences.iter().copied().fold(f64::INFINITY, f64::min),
        differences.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    );
    let digits = if median(direct) < 10_000.0 { 2 } else { 0 };
    println!(
        "{name:<36}{:>14.digits$}{:>14.digits$}{:>+14.digits$}{:>9.3}   {low:+.digits$} … {high:+.digits$}",
        median(direct),
        median(through),
        median(&differences),
        median(&ratios),
    );
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}
