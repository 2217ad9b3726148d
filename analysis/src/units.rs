//! Numbers as people read them: times with three significant digits in ns, µs, ms or s; ratios; large counts.

/// A time in ns for people: `850 ns`, `123 µs`, `2.31 ms`, `1.20 s`.
pub fn time(ns: f64) -> String {
    let magnitude = ns.abs();
    // 999.5 rounds to 1000, which belongs to the next unit.
    let (scale, unit) = match magnitude {
        m if m < 999.5 => (1.0, "ns"),
        m if m < 999.5e3 => (1e3, "µs"),
        m if m < 999.5e6 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let value = ns / scale;
    let decimals = match value.abs() {
        _ if unit == "ns" => 0,
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    // A true minus sign; -0.00 is 0.00.
    let text = format!("{:.decimals$} {unit}", value.abs());
    let is_zero = text.bytes().all(|b| !b.is_ascii_digit() || b == b'0');
    if ns < 0.0 && !is_zero { format!("−{text}") } else { text }
}

/// A round time as people say it, without zeros after the point: `10 ms`, `0.5 ms`, `1.25 s`.
pub fn round_time(ns: f64) -> String {
    let text = time(ns);
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// A signed difference of times: `+1.20 ms`, `−340 µs`.
pub fn time_difference(ns: f64) -> String {
    let text = time(ns);
    if ns > 0.0 { format!("+{text}") } else { text }
}

/// A ratio: `0.43`, `12.3`, `.043`, `310`.
pub fn ratio(value: f64) -> String {
    match value {
        v if !v.is_finite() => "∞".to_owned(),
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v if v >= 0.0995 => format!("{v:.2}"),
        v => format!("{v:.3}").trim_start_matches('0').to_owned(),
    }
}

/// A ratio with its interval: `0.43 [0.30–0.58]`, or `0.43 [no CI]`.
pub fn ratio_with_interval(value: f64, ends: Option<(f64, f64)>) -> String {
    match ends {
        Some((low, high)) => format!("{} [{}–{}]", ratio(value), ratio(low), ratio(high)),
        None => format!("{} [no CI]", ratio(value)),
    }
}

/// A count with thousands separated by commas: `60,000`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count rounded to two digits, for estimates: `2.7 million`, `340 thousand`, `1.2 billion`.
pub fn rough_count(n: u64) -> String {
    let value = n as f64;
    let (scale, word) = match value {
        v if v < 999.5 => return n.to_string(),
        v if v < 999.5e3 => (1e3, "thousand"),
        v if v < 999.5e6 => (1e6, "million"),
        _ => (1e9, "billion"),
    };
    let scaled = value / scale;
    if scaled >= 9.95 { format!("{scaled:.0} {word}") } else { format!("{scaled:.1} {word}") }
}

/// A number with a noun in the right number: `1 block`, `3 blocks`.
pub fn plural(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// Bytes for people: `64.0 MiB`.
pub fn bytes(n: f64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    if n >= 1024.0 * MIB { format!("{:.2} GiB", n / (1024.0 * MIB)) } else { format!("{:.1} MiB", n / MIB) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let shown: Vec<String> = [
            0.0,
            850.0,
            999.4,
            999.6,
            1_234.0,
            12_345.0,
            123_456.0,
            999_600.0,
            2_310_000.0,
            11_400_000.0,
            1.2e9,
            123e9,
        ]
        .map(time)
        .to_vec();
        assert_eq!(
            shown,
            [
                "0 ns", "850 ns", "999 ns", "1.00 µs", "1.23 µs", "12.3 µs", "123 µs", "1.00 ms", "2.31 ms", "11.4 ms",
                "1.20 s", "123 s"
            ]
        );
        assert_eq!([10e6, 500e3, 1.25e9, 200e6].map(round_time), ["10 ms", "500 µs", "1.25 s", "200 ms"]);
        assert_eq!(time_difference(-1_234_000.0), "−1.23 ms");
        assert_eq!(time_difference(340_000.0), "+340 µs");
        assert_eq!(time_difference(-0.2), "0 ns");
    }

    #[test]
    fn ratios_and_counts() {
        assert_eq!(ratio_with_interval(0.43, Some((0.3, 0.58))), "0.43 [0.30–0.58]");
        assert_eq!(ratio_with_interval(12.34, Some((9.994, 1234.0))), "12.3 [9.99–1234]");
        assert_eq!(ratio_with_interval(0.0434, None), ".043 [no CI]");
        assert_eq!((count(7), count(60_000), count(1_234_567)), ("7".into(), "60,000".into(), "1,234,567".into()));
        assert_eq!(
            [340, 60_000, 2_727_273, 1_200_000_000].map(rough_count),
            ["340", "60 thousand", "2.7 million", "1.2 billion"]
        );
    }
}
