//! Where the gap between two arms' tails lies, and whether the runtime can be its cause.
//!
//! The gap is the difference of the mean latencies of the slowest 1 %; its lanes are the differences of the mean lanes,
//! which add up to it. What a runtime owns is the wait from wake to poll: where that is under a fifth of the gap, another
//! runtime is not what shortens the tail (a threshold of judgement, not of measurement). Time that nothing explains may be
//! the runtime's too: where both together reach the fifth, it cannot be told.

use super::{Frame, words};
use crate::decision::Attribution;
use crate::lanes::aggregate::{ArmLanes, At, Group, SET_LAST_APPLIED};
use crate::lanes::lane::{Lane, Lanes};
use crate::units::time;

/// Below this share of the gap in woken→polled the runtime is not the cause.
const RUNTIME_SHARE_LEAST: f64 = 0.2;
/// A gap below this share of the slower tail is too small to be divided.
const GAP_LEAST: f64 = 0.05;
/// From this share of the slowest requests without stamps on, the means may be those of other requests.
const WITHOUT_STAMPS_MOST: f64 = 0.1;

/// The gaps of every arm but base and control to the base and to the best of today's arms: at the primary's step, or the
/// step with most requests in the tail, and of the meta-service's write of the last applied id where it was stamped.
pub fn attribute(frame: &Frame<'_>, lanes: &[ArmLanes], best_of_today: Option<&str>) -> Vec<Attribution> {
    let of = |name: &str| lanes.iter().find(|arm| arm.arm == name);
    let Some(base) = lanes.first() else { return Vec::new() };
    let mut found = Vec::new();
    for arm in lanes.iter().skip(1).filter(|arm| Some(arm.arm.as_str()) != frame.design.control.as_deref()) {
        let best = best_of_today.filter(|best| *best != base.arm && *best != arm.arm).and_then(of);
        for against in [Some(base), best].into_iter().flatten() {
            for step in
                [main_step(&frame.design.primary_step, arm, against), Some(SET_LAST_APPLIED)].into_iter().flatten()
            {
                found.extend(gap(arm, against, step));
            }
        }
    }
    found
}

/// The primary's step; `all` has no lanes of its own, and the step with most requests in both tails stands for it.
fn main_step<'a>(primary: &'a str, arm: &'a ArmLanes, against: &'a ArmLanes) -> Option<&'a str> {
    if tail(arm, primary).is_some() && tail(against, primary).is_some() {
        return Some(primary);
    }
    let both = arm.groups.iter().filter(|group| group.at == At::Tail && group.step != SET_LAST_APPLIED);
    let both = both.filter_map(|group| Some((group.requests.min(tail(against, &group.step)?.requests), &group.step)));
    both.max().map(|(_, step)| step.as_str())
}

fn tail<'a>(arm: &'a ArmLanes, step: &str) -> Option<&'a Group> {
    arm.groups.iter().find(|group| group.at == At::Tail && group.step == step && group.lanes_ns.is_some())
}

fn gap(arm: &ArmLanes, against: &ArmLanes, step: &str) -> Option<Attribution> {
    let (group, group_of_base) = (tail(arm, step)?, tail(against, step)?);
    let (of_arm, of_base) = (group.lanes_ns?, group_of_base.lanes_ns?);
    let by_lane = |lane: Lane| of_base.get(lane) as f64 - of_arm.get(lane) as f64;
    let total = |lanes: &Lanes| lanes.total() as f64;
    let gap_ns = total(&of_base) - total(&of_arm);
    let slower = total(&of_base).max(total(&of_arm));
    let runtime_share =
        (gap_ns.abs() >= GAP_LEAST * slower && slower > 0.0).then(|| by_lane(Lane::WokenPolled) / gap_ns);
    let names = format!("{step}, slowest 1 %: {} against {}", arm.arm, against.arm);
    let finding = match runtime_share {
        None => format!("{names}: the tails differ by {}, too little to be divided.", time(gap_ns.abs())),
        Some(share) => {
            let direction = if gap_ns > 0.0 { "shorter" } else { "longer" };
            let largest =
                Lane::ALL.into_iter().max_by(|a, b| (by_lane(*a) / gap_ns).total_cmp(&(by_lane(*b) / gap_ns)));
            let most = largest.map(|lane| format!("{} ({:.0} %)", lane.label(), by_lane(lane) / gap_ns * 100.0));
            let unexplained = (by_lane(Lane::Unattributed) / gap_ns).max(0.0);
            let cause = if share >= RUNTIME_SHARE_LEAST {
                "the runtime may be the cause".to_owned()
            } else if share + unexplained >= RUNTIME_SHARE_LEAST {
                let percent = unexplained * 100.0;
                format!("it cannot be told whether the runtime is the cause ({percent:.0} % is unattributed)")
            } else {
                "the runtime is not the cause".to_owned()
            };
            format!(
                "{names}: {} {direction}, of which woken→polled is {:.0} %, so {cause}; the largest part is {}.",
                time(gap_ns.abs()),
                share * 100.0,
                words::list(&most.iter().map(String::as_str).collect::<Vec<_>>())
            )
        }
    };
    let finding = [(arm, group), (against, group_of_base)]
        .into_iter()
        .filter_map(|(arm, group)| unseen(&arm.arm, group))
        .fold(finding, |finding, unseen| format!("{finding} {unseen}"));
    Some(Attribution {
        arm: arm.arm.clone(),
        against: against.arm.clone(),
        gap_ns,
        step: step.to_owned(),
        lanes_ns: Lane::ALL.into_iter().map(|lane| (lane.name().to_owned(), by_lane(lane))).collect(),
        runtime_share,
        finding,
    })
}

/// That many of an arm's slowest requests have no stamps, if so.
fn unseen(arm: &str, group: &Group) -> Option<String> {
    let all = group.requests + group.without_stamps;
    let share = group.without_stamps as f64 / all.max(1) as f64;
    (share > WITHOUT_STAMPS_MOST).then(|| {
        let percent = share * 100.0;
        format!("Of {arm}'s slowest requests {percent:.0} % have no stamps and are in none of this.")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn arm(name: &str, parts: &[(Lane, u64)]) -> ArmLanes {
        let mut lanes = Lanes::default();
        parts.iter().for_each(|&(lane, ns)| lanes.add(lane, ns));
        let group = Group {
            step: "connect".into(),
            at: At::Tail,
            requests: 100,
            without_stamps: 0,
            refused: None,
            latency_ns: Some(lanes.total()),
            lanes_ns: Some(lanes),
            shares: None,
        };
        ArmLanes {
            arm: name.into(),
            runs: 1,
            runs_without_stamps: 0,
            groups: vec![group],
            unattributed_tail: None,
            disagreeing: 0,
            largest_disagreement_ns: 0,
            largest_gap_ns: 0,
        }
    }

    #[test]
    fn the_runtime_is_the_cause_or_is_not() {
        let base = arm("base", &[(Lane::WokenPolled, 900), (Lane::Wal, 5_100)]);
        let disk = gap(&arm("disk", &[(Lane::WokenPolled, 800), (Lane::Wal, 1_200)]), &base, "connect").unwrap();
        // 4 000 shorter, 100 of it in woken→polled.
        assert_eq!((disk.gap_ns, disk.runtime_share), (4_000.0, Some(0.025)));
        assert!(
            disk.finding.contains("4.00 µs shorter") && disk.finding.contains("runtime is not the cause"),
            "{disk:?}"
        );
        assert_eq!(disk.lanes_ns.iter().map(|(_, ns)| ns).sum::<f64>(), disk.gap_ns);
        let queue = gap(&arm("queue", &[(Lane::WokenPolled, 100), (Lane::Wal, 4_900)]), &base, "connect").unwrap();
        assert_eq!(queue.runtime_share, Some(0.8));
        assert!(queue.finding.contains("may be the cause; the largest part is woken→polled (80 %)"), "{queue:?}");
        let same = gap(&arm("same", &[(Lane::WokenPolled, 890), (Lane::Wal, 5_000)]), &base, "connect").unwrap();
        assert_eq!(same.runtime_share, None);
        assert!(same.finding.contains("too little"), "{same:?}");
        let slower = gap(&arm("slower", &[(Lane::WokenPolled, 8_900), (Lane::Wal, 5_100)]), &base, "connect").unwrap();
        assert_eq!((slower.gap_ns, slower.runtime_share), (-8_000.0, Some(1.0)));
        assert!(slower.finding.contains("longer"), "{slower:?}");
        assert_eq!(gap(&base, &base, "publish"), None);
    }

    #[test]
    fn what_is_unattributed_may_be_the_runtime_s() {
        let base = arm("base", &[(Lane::WokenPolled, 500), (Lane::Unattributed, 1_500), (Lane::Wal, 4_000)]);
        // Of 4 000 shorter 400 are woken→polled and 1 000 unattributed: 10 % and 25 %.
        let mut dark = arm("dark", &[(Lane::WokenPolled, 100), (Lane::Unattributed, 500), (Lane::Wal, 1_400)]);
        let found = gap(&dark, &base, "connect").unwrap();
        assert_eq!(found.runtime_share, Some(0.1));
        assert!(
            found.finding.contains("so it cannot be told whether the runtime is the cause (25 % is unattributed);"),
            "{found:?}"
        );
        // Together under a fifth; and less unattributed time than the base has takes nothing off the runtime's share.
        for unattributed in [1_200, 2_500] {
            let lanes = [(Lane::WokenPolled, 100), (Lane::Unattributed, unattributed), (Lane::Wal, 400)];
            let found = gap(&arm("lit", &lanes), &base, "connect").unwrap();
            assert!(found.finding.contains("the runtime is not the cause"), "{found:?}");
        }
        dark.groups[0].without_stamps = 25;
        let said = gap(&dark, &base, "connect").unwrap().finding;
        assert!(said.ends_with("Of dark's slowest requests 20 % have no stamps and are in none of this."), "{said}");
    }

    #[test]
    fn all_stands_for_the_step_with_most_requests() {
        let base = arm("base", &[(Lane::Wal, 5)]);
        assert_eq!(main_step("all", &base, &base), Some("connect"));
        assert_eq!(main_step("connect", &base, &base), Some("connect"));
    }
}
