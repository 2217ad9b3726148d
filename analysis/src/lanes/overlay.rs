//! What explains a stretch of a request's time between two stamps: claims laid over it, the strongest first.
//!
//! A claim says: of the time between `from` and `to`, `ns` belong to this lane, nobody knows where in it. Within a piece
//! of the stretch each claim takes its proportional part of what stronger claims left over; what nobody claims goes to
//! the lane that the caller names. So the lanes add up to the stretch to the nanosecond, whatever the stamps say: a
//! pure function without a clock.

use super::lane::{Lane, Lanes};

/// How strong a claim is: the smaller, the earlier it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The thread was ready and had no CPU.
    RunDelay,
    /// Other work ran in the queue in which the request waited.
    OtherWork,
    /// A task of the request was woken and waited to be polled.
    Wait,
    /// The thread was in a storage call.
    Call,
    /// The thread polled a task.
    Poll,
}

/// A claim to a part of a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Its strength.
    pub rank: Rank,
    /// Begin, ns.
    pub from: u64,
    /// End, ns.
    pub to: u64,
    /// The lane that it is for.
    pub lane: Lane,
    /// How much of it, ns; more than its length counts as its length.
    pub ns: u64,
}

impl Claim {
    /// A claim to all of its time.
    pub fn whole(rank: Rank, from: u64, to: u64, lane: Lane) -> Self {
        Claim { rank, from, to, lane, ns: to.saturating_sub(from) }
    }
}

/// Splits `from..to` by the claims; `rest` gets what nobody claims. The lanes add up to `to − from` exactly.
pub fn lay_over(from: u64, to: u64, claims: &[Claim], rest: Lane) -> Lanes {
    let mut lanes = Lanes::default();
    if to <= from {
        return lanes;
    }
    let mut claims: Vec<Claim> =
        claims.iter().filter(|c| c.ns > 0 && c.from < c.to && c.from < to && c.to > from).copied().collect();
    // A stable order for equal ranks: as given.
    claims.sort_by_key(|claim| claim.rank);
    let mut edges: Vec<u64> = claims.iter().flat_map(|c| [c.from, c.to]).filter(|e| (from..to).contains(e)).collect();
    edges.extend([from, to]);
    edges.sort_unstable();
    edges.dedup();
    let mut by_start: Vec<usize> = (0..claims.len()).collect();
    by_start.sort_by_key(|&i| claims.get(i).map_or(0, |claim| claim.from));
    let mut next = by_start.into_iter().peekable();
    let mut active: Vec<usize> = Vec::new();
    for pair in edges.windows(2) {
        let [low, high] = *pair else { continue };
        while let Some(i) = next.next_if(|&i| claims.get(i).is_some_and(|claim| claim.from <= low)) {
            // Claims are sorted by rank, so active ones in rising index are in order of strength.
            let at = active.partition_point(|&other| other < i);
            active.insert(at, i);
        }
        active.retain(|&i| claims.get(i).is_some_and(|claim| claim.to > low));
        let mut left = high - low;
        for claim in active.iter().filter_map(|&i| claims.get(i)) {
            let taken = part(claim, high - low).min(left);
            lanes.add(claim.lane, taken);
            left -= taken;
        }
        lanes.add(rest, left);
    }
    lanes
}

/// What a claim asks of a piece that lies within it.
fn part(claim: &Claim, piece: u64) -> u64 {
    let length = claim.to - claim.from;
    let ns = claim.ns.min(length);
    // ns ≤ length, so the quotient fits.
    u64::try_from(u128::from(ns) * u128::from(piece) / u128::from(length)).unwrap_or(piece)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(rank: Rank, from: u64, to: u64, lane: Lane, ns: u64) -> Claim {
        Claim { rank, from, to, lane, ns }
    }

    #[test]
    fn the_stronger_claim_takes_first() {
        // 100 ns: run delay in the first half, a poll of 80 ns with 60 on the CPU over all but the end.
        let claims = [
            claim(Rank::Poll, 0, 80, Lane::OnCpu, 60),
            claim(Rank::RunDelay, 0, 50, Lane::Runnable, 50),
            Claim::whole(Rank::Wait, 40, 60, Lane::WokenPolled),
        ];
        let lanes = lay_over(0, 100, &claims, Lane::Network);
        assert_eq!(lanes.get(Lane::Runnable), 50);
        assert_eq!(lanes.get(Lane::WokenPolled), 10, "50..60; before it the run delay has taken all");
        assert_eq!(lanes.get(Lane::OnCpu), 15, "three quarters of 60..80");
        assert_eq!(lanes.get(Lane::Network), 25);
    }

    #[test]
    fn a_claim_that_is_cut_off_asks_for_its_part() {
        let lanes = lay_over(50, 100, &[claim(Rank::RunDelay, 0, 100, Lane::Runnable, 30)], Lane::Unattributed);
        assert_eq!((lanes.get(Lane::Runnable), lanes.get(Lane::Unattributed)), (15, 35));
    }

    fn any_claim() -> impl Strategy<Value = Claim> {
        let rank = prop_oneof![
            Just(Rank::RunDelay),
            Just(Rank::OtherWork),
            Just(Rank::Wait),
            Just(Rank::Call),
            Just(Rank::Poll)
        ];
        let edge = || prop_oneof![0_u64..1_000, any::<u64>()];
        (rank, edge(), edge(), 0_usize..Lane::ALL.len(), edge()).prop_map(|(rank, from, to, lane, ns)| Claim {
            rank,
            from,
            to,
            lane: Lane::ALL[lane],
            ns,
        })
    }

    proptest! {
        #[test]
        fn lanes_add_up_to_the_stretch(from in 0_u64..1_000, length in 0_u64..2_000,
                                       claims in prop::collection::vec(any_claim(), 0..30)) {
            let lanes = lay_over(from, from + length, &claims, Lane::Unattributed);
            prop_assert_eq!(lanes.total(), length);
        }
    }
}
