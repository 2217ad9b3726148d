//! Of the rows that a thread holds.

use super::*;

#[test]
fn what_something_slow_began_with_is_held_until_it_ends() {
    let mut rows = Rows::<GapRow>::new(1);
    let gap = |ended| GapRow { began: ended, ended, run_delay_ns: 0 };
    // The one that is kept anyhow, and the one in question.
    [90, 5].into_iter().for_each(|ended| rows.push(gap(ended), false));
    // Half a second of a thread that notes a row every 8 µs.
    (0..60_000).for_each(|n| rows.push(gap(100 + n), false));
    rows.settle(usize::MAX, &[(0, 10)]);
    assert_eq!((rows.rows.len(), rows.thinned), (2, 60_000));
}

#[test]
fn what_is_held_is_bounded() {
    let mut rows = Rows::<GapRow>::new(0);
    let gap = |ended| GapRow { began: ended, ended, run_delay_ns: 0 };
    (0..3 * HELD_ROWS as u64).for_each(|n| rows.push(gap(n), false));
    assert!(rows.held.len() < HELD_ROWS && rows.rows.len() as u64 + rows.thinned >= 2 * HELD_ROWS as u64);
}
