//! MSER: how much of a run's begin is warm-up (White 1997, "An effective truncation heuristic for bias reduction in
//! simulation output", Simulation 69).
//!
//! d* = argmin over d ≤ n/2 of Var(z_d..)/(n−d): cutting more takes the drift out of the variance until it only takes
//! samples away. A minimum at n/2 means that the run had not settled by its middle.

/// The number of leading values to cut, and whether the minimum lies at the last one tried.
pub fn truncation(z: &[f64]) -> (usize, bool) {
    let last = z.len() / 2;
    // From the end, so that each tail adds one value (Welford).
    let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
    let mut best = (f64::INFINITY, 0);
    for (d, value) in z.iter().enumerate().rev() {
        n += 1.0;
        let distance = value - mean;
        mean += distance / n;
        squares += distance * (value - mean);
        // Of equals the earlier cut stands: it keeps more.
        if d <= last && squares / (n * n) <= best.0 {
            best = (squares / (n * n), d);
        }
    }
    (best.1, last > 0 && best.1 == last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        // d = 0: mean 4, Σ² = 36 + 4·4 + ... : [10, 2, 2, 2, 4]: values of Σ(z−mean)²/(n−d)²:
        // d=0: mean 4, Σ²=36+4+4+4+0=48, /25 = 1.92; d=1: mean 2.5, Σ²=3, /16 = 0.1875; d=2: mean 8/3, Σ²=8/3, /9 = 0.296.
        assert_eq!(truncation(&[10.0, 2.0, 2.0, 2.0, 4.0]), (1, false));
        // A level that changes at the middle: everything before it goes, and it is the last cut tried.
        assert_eq!(truncation(&[9.0, 9.0, 1.0, 1.0]), (2, true));
        // A flat run keeps everything.
        assert_eq!(truncation(&[3.0; 8]), (0, false));
        assert_eq!(truncation(&[]), (0, false));
        assert_eq!(truncation(&[1.0]), (0, false));
    }

    proptest! {
        #[test]
        fn it_is_the_smallest_of_the_definition(z in prop::collection::vec(-5.0_f64..5.0, 2..60)) {
            let (d, at_last) = truncation(&z);
            let score = |d: usize| {
                let rest = &z[d..];
                let n = rest.len() as f64;
                let mean = rest.iter().sum::<f64>() / n;
                rest.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n / n
            };
            for other in 0..=z.len() / 2 {
                prop_assert!(score(d) <= score(other) + 1e-9);
            }
            prop_assert_eq!(at_last, d == z.len() / 2);
        }
    }
}
