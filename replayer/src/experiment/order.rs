//! The order of arms within a block: random, and the same for the same seed on every machine and version.

use sha2::{Digest, Sha256};

/// Indices of `names` in the order in which block `block` runs them.
///
/// Each arm draws SHA-256(seed, block, name) and the draws are sorted. That is a uniform shuffle as far as anyone can
/// tell, and unlike a generator from a library it cannot change with a version. It also does not depend on the order of
/// arms.toml.
pub fn order(seed: u64, block: u32, names: &[&str]) -> Vec<usize> {
    let draw = |name: &str| {
        let mut hash = Sha256::new();
        hash.update(b"regauge order of arms 1");
        hash.update(seed.to_le_bytes());
        hash.update(block.to_le_bytes());
        hash.update(name.as_bytes());
        let drawn: [u8; 32] = hash.finalize().into();
        drawn
    };
    let mut drawn: Vec<_> = names.iter().enumerate().map(|(index, name)| (draw(name), index)).collect();
    drawn.sort_unstable();
    drawn.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARMS: [&str; 4] = ["tokio-shared", "tokio-pinned", "monoio", "compio"];

    #[test]
    fn the_seed_decides_and_blocks_differ() {
        // Computed apart from this code: the order is part of what makes a study repeatable.
        let expected = [[2, 1, 0, 3], [3, 1, 2, 0], [3, 0, 1, 2], [2, 1, 0, 3]];
        for (block, expected) in (0..).zip(expected) {
            assert_eq!(order(7, block, &ARMS), expected);
        }
        assert_ne!(order(7, 0, &ARMS), order(8, 0, &ARMS));
    }

    #[test]
    fn each_arm_stands_at_each_place_about_equally_often() {
        let mut counts = [[0_u32; 4]; 4];
        for block in 0..4000 {
            for (place, arm) in order(1, block, &ARMS).into_iter().enumerate() {
                if let Some(count) = counts.get_mut(place).and_then(|row| row.get_mut(arm)) {
                    *count += 1;
                }
            }
        }
        // 1000 expected, standard deviation 27: five of them.
        assert!(counts.iter().flatten().all(|n| (865..=1135).contains(n)), "{counts:?}");
    }

    #[test]
    fn the_order_of_the_file_does_not_matter() {
        let names = |arms: &[&'static str]| -> Vec<&str> {
            order(3, 5, arms).into_iter().filter_map(|i| arms.get(i).copied()).collect()
        };
        let reversed: Vec<&str> = ARMS.iter().rev().copied().collect();
        assert_eq!(names(&ARMS), names(&reversed));
    }
}
