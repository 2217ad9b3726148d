//! Axes: from a value to a place, with ticks where people expect them.

use crate::units;

/// How values are laid along an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By powers of ten. Values must be above zero.
    Log,
}

/// A tick: where, what it says (empty for a mere line), and whether a narrow screen may drop its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// Value on the axis.
    pub at: f64,
    /// Label.
    pub label: String,
    /// Not needed on a narrow screen.
    pub minor: bool,
}

/// One axis of a plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Its scale.
    pub scale: Scale,
    /// Value at its beginning.
    pub low: f64,
    /// Value at its end.
    pub high: f64,
    /// Its ticks.
    pub ticks: Vec<Tick>,
    /// What it shows, with the unit unless the ticks have it.
    pub label: String,
}

impl Axis {
    /// Where a value lies, 0 at the beginning and 1 at the end; values outside are moved to the nearer end.
    pub fn place(&self, value: f64) -> f64 {
        let (value, low, high) = match self.scale {
            Scale::Linear => (value, self.low, self.high),
            Scale::Log => (value.max(f64::MIN_POSITIVE).ln(), self.low.ln(), self.high.ln()),
        };
        if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 }
    }

    /// A logarithmic axis of times in ns, wide enough for all values (those above zero count).
    pub fn of_times(values: impl IntoIterator<Item = f64>, label: &str) -> Self {
        let (low, high) = positive_range(values).unwrap_or((1e3, 1e6));
        let (low, high) = widen(low, high);
        let ticks = log_ticks(low, high, units::round_time);
        Axis { scale: Scale::Log, low, high, ticks, label: label.to_owned() }
    }

    /// A logarithmic axis of ratios that shows 1.
    pub fn of_ratios(values: impl IntoIterator<Item = f64>, label: &str) -> Self {
        let (low, high) = positive_range(values.into_iter().chain([0.8, 1.25])).unwrap_or((0.5, 2.0));
        // An interval from a handful of blocks can reach to any height; the axis need not.
        let (low, high) = widen(low.max(0.02), high.min(50.0));
        let ticks = log_ticks(low, high, |value| format!("{}×", trimmed(value)));
        Axis { scale: Scale::Log, low, high, ticks, label: label.to_owned() }
    }

    /// Percentiles by their nines: P90 at 1, P99 at 2, P99.9 at 3, up to the last whole one below `nines`.
    pub fn of_nines(nines: f64, label: &str) -> Self {
        let mut ticks = Vec::new();
        let names = ["P50", "P90", "P99", "P99.9", "P99.99", "P99.999", "P99.9999"];
        let places = [2.0_f64.log10(), 1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        for (name, at) in names.into_iter().zip(places).filter(|(_, at)| *at <= nines + 1e-9) {
            ticks.push(Tick { at, label: name.to_owned(), minor: name == "P50" });
        }
        Axis { scale: Scale::Linear, low: 0.0, high: nines, ticks, label: label.to_owned() }
    }

    /// The share of requests that are slower as its power of ten: from `-nines` up to 0, which is all of them.
    pub fn of_shares(nines: f64, label: &str) -> Self {
        let names = ["100 %", "10 %", "1 %", "0.1 %", "0.01 %", "0.001 %", "0.0001 %"];
        let ticks = names
            .into_iter()
            .enumerate()
            .map(|(i, name)| Tick { at: -(i as f64), label: name.to_owned(), minor: false })
            .filter(|tick| tick.at >= -nines - 1e-9)
            .collect();
        Axis { scale: Scale::Linear, low: -nines, high: 0.0, ticks, label: label.to_owned() }
    }

    /// Seconds from 0 to the end of a run.
    pub fn of_run_time(duration_ns: f64, label: &str) -> Self {
        let seconds = (duration_ns / 1e9).max(1e-3);
        let step = round_step(seconds / 6.0);
        let ticks = (0..)
            .map(|i| f64::from(i) * step)
            .take_while(|at| *at <= seconds * 1.0001)
            .enumerate()
            .map(|(i, at)| Tick { at, label: format!("{} s", trimmed(at)), minor: i % 2 == 1 })
            .collect();
        Axis { scale: Scale::Linear, low: 0.0, high: seconds, ticks, label: label.to_owned() }
    }
}

fn positive_range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|v| v.is_finite() && *v > 0.0).fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((v.min(low), v.max(high))),
    })
}

/// A little air at both ends, and at least a factor of two in all.
fn widen(low: f64, high: f64) -> (f64, f64) {
    let air = ((high / low).ln() * 0.04).max((2.0 / (high / low)).ln() / 2.0).max(0.03).exp();
    (low / air, high * air)
}

/// Ticks at 1, 2 and 5 times powers of ten; on long axes only the powers carry labels.
fn log_ticks(low: f64, high: f64, name: impl Fn(f64) -> String) -> Vec<Tick> {
    let decades = (high / low).log10();
    let labelled: &[u32] = match decades {
        d if d < 1.7 => &[1, 2, 5],
        d if d < 2.6 => &[1, 3],
        _ => &[1],
    };
    let lines: &[u32] = if decades < 1.7 { &[1, 2, 3, 4, 5, 6, 7, 8, 9] } else { &[1, 2, 3, 5] };
    let mut ticks = Vec::new();
    for power in low.log10().floor() as i32..=high.log10().ceil() as i32 {
        for &digit in lines {
            let at = f64::from(digit) * 10.0_f64.powi(power);
            if at < low || at > high {
                continue;
            }
            let label = if labelled.contains(&digit) { name(at) } else { String::new() };
            ticks.push(Tick { at, label, minor: digit != 1 });
        }
    }
    // An axis within one decade would lose every label on a narrow screen.
    if ticks.iter().filter(|tick| !tick.minor).count() < 2 {
        ticks.iter_mut().for_each(|tick| tick.minor = false);
    }
    ticks
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10.0_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= step * 0.999).unwrap_or(10.0 * power)
}

/// Without trailing zeros: 0.5, 2, 10.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.label.as_str()).filter(|label| !label.is_empty()).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(&Axis::of_times([90e3, 12e6], "")), ["100 µs", "300 µs", "1 ms", "3 ms", "10 ms"]);
        assert_eq!(labels(&Axis::of_times([2e3, 900e6], "")), ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]);
        assert_eq!(labels(&Axis::of_ratios([0.4, 1.1], "")), ["0.5×", "1×"]);
        assert_eq!(labels(&Axis::of_nines(4.2, "")), ["P50", "P90", "P99", "P99.9", "P99.99"]);
        assert_eq!(labels(&Axis::of_run_time(30e9, "")), ["0 s", "5 s", "10 s", "15 s", "20 s", "25 s", "30 s"]);
    }

    #[test]
    fn places_stay_on_the_axis() {
        let axis = Axis::of_times([1e3, 1e6], "");
        assert_eq!(axis.place(0.0), 0.0);
        assert_eq!(axis.place(1e12), 1.0);
        assert!((axis.place((axis.low * axis.high).sqrt()) - 0.5).abs() < 1e-9);
        // One value, or none, still makes an axis.
        assert!((0.0..=1.0).contains(&Axis::of_times([5.0], "").place(5.0)));
        assert!(Axis::of_times([], "").ticks.len() > 1);
    }
}
