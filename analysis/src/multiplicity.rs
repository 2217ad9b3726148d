//! Several questions at once: Holm's step-down adjustment (1979, "A simple sequentially rejective multiple test procedure",
//! Scand. J. Statist. 6).

/// Holm-adjusted p-values, in the order given. A missing one counts as a question that was asked, and stays missing.
pub fn holm(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<(usize, f64)> = p.iter().enumerate().filter_map(|(i, p)| Some((i, (*p)?))).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut adjusted = vec![None; p.len()];
    let mut most = 0.0_f64;
    for (rank, (i, value)) in order.into_iter().enumerate() {
        most = most.max((value * (p.len() - rank) as f64).min(1.0));
        if let Some(slot) = adjusted.get_mut(i) {
            *slot = Some(most);
        }
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        let adjusted = holm(&[Some(0.01), Some(0.04), Some(0.03), Some(0.5)]);
        // Sorted .01·4, .03·3, max(.04·2, .09), .5·1.
        for (found, wanted) in adjusted.iter().zip([0.04, 0.09, 0.09, 0.5]) {
            assert!(found.is_some_and(|p| (p - wanted).abs() < 1e-12), "{adjusted:?}");
        }
        assert_eq!(holm(&[None, Some(0.01)]), [None, Some(0.02)]);
        assert!(holm(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn between_the_raw_p_and_bonferroni(p in prop::collection::vec(0.0_f64..=1.0, 1..8)) {
            let given: Vec<Option<f64>> = p.iter().copied().map(Some).collect();
            for (raw, adjusted) in p.iter().zip(holm(&given)) {
                let adjusted = adjusted.unwrap_or(f64::NAN);
                prop_assert!(*raw <= adjusted && adjusted <= (raw * p.len() as f64).min(1.0) + 1e-12);
            }
        }
    }
}
