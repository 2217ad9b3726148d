//! Planted truth, from samples to a verdict: each class comes out where it is true, and each reason that forbids a verdict
//! forbids it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::Random;
use regauge_analysis::decision::{Decision, Tier};
use regauge_analysis::simulate::{Experiment, SimulatedArm, SimulatedRequest};
use regauge_traces::study::Design;
use serde_json::json;

const INTERVAL_NS: u64 = 5_000_000;
const REQUESTS: u64 = 6_000;

/// How an arm behaves.
#[derive(Clone, Copy)]
struct Truth {
    /// Scales the tail: the length of stalls.
    tail: f64,
    /// Scales everything else.
    body: f64,
    /// Spread of runs, log scale.
    run: f64,
    /// Stalls per request.
    stalls: f64,
    /// Requests that one stall holds up.
    burst: u32,
}

const SAME: Truth = Truth { tail: 1.0, body: 1.0, run: 0.04, stalls: 0.03, burst: 1 };

fn tail(tail: f64) -> Truth {
    Truth { tail, ..SAME }
}

fn run(random: &mut Random, truth: &Truth, block_effect: f64) -> Vec<SimulatedRequest> {
    let effect = block_effect * random.log_normal(1.0, truth.run);
    let mut left = 0;
    (0..REQUESTS)
        .map(|i| {
            if left == 0 && random.uniform() < truth.stalls {
                left = truth.burst;
            }
            let mut latency = random.log_normal(200e3 * truth.body, 0.2);
            if left > 0 {
                left -= 1;
                latency += random.log_normal(8e6 * truth.tail, 0.3);
            }
            (i * INTERVAL_NS, (latency * effect) as u64)
        })
        .collect()
}

/// Base, control and others; blocks have an effect that all arms share.
fn experiment(seed: u64, blocks: usize, arms: &[(&str, &str, Truth)]) -> Experiment {
    let mut random = Random(seed);
    let all = [&[("tokio-shared", "tokio-shared", SAME), ("again", "tokio-shared", SAME)], arms].concat();
    let mut made: Vec<SimulatedArm> =
        all.iter().map(|(name, stack, _)| SimulatedArm::new(name, stack, Vec::new())).collect();
    for _ in 0..blocks {
        let block_effect = random.log_normal(1.0, 0.1);
        for (arm, (_, _, truth)) in made.iter_mut().zip(&all) {
            arm.blocks.push(run(&mut random, truth, block_effect));
        }
    }
    let design =
        Design { primary_percentile: "p99".into(), control: Some("again".into()), slo_ms: 8.0, ..Design::default() };
    Experiment { design, arms: made, warmup_ns: 1_000_000_000, duration_ns: REQUESTS * INTERVAL_NS, seed }
}

fn decide(experiment: &Experiment) -> Decision {
    let decision = experiment.decide().unwrap();
    assert!(!decision.would_change.is_empty(), "{decision:#?}");
    assert!(!decision.why.is_empty() && !decision.threats.is_empty() && !decision.headline.is_empty());
    for text in decision.why.iter().chain(&decision.would_change).chain(&decision.threats).chain([&decision.headline]) {
        assert!(text.ends_with('.') && !text.contains("NaN") && !text.contains("inf"), "{text}");
    }
    decision
}

/// The decision is INSUFFICIENT EVIDENCE, and says why.
fn blocked(experiment: &Experiment, why: &str) -> Decision {
    let decision = decide(experiment);
    assert_eq!(decision.verdict, "INSUFFICIENT EVIDENCE", "{}", decision.headline);
    assert!(decision.why.iter().any(|sentence| sentence.contains(why)), "no `{why}` in {:#?}", decision.why);
    decision
}

/// Another runtime that beats all of today's arms.
fn migration() -> Vec<(&'static str, &'static str, Truth)> {
    vec![("offload", "tokio-shared", tail(0.95)), ("monoio", "monoio", tail(0.9)), ("compio", "compio", tail(0.4))]
}

#[test]
fn migrate() {
    let decision = decide(&experiment(1, 10, &migration()));
    assert_eq!(decision.verdict, "MIGRATE", "{:#?}", decision.why);
    assert!(
        decision.headline.starts_with("Migrate to compio: P99 of all requests: compio 0."),
        "{}",
        decision.headline
    );
    let cell = decision.primary.iter().find(|cell| cell.arm == "compio").unwrap();
    let ratio = cell.ratio.unwrap();
    assert!(ratio.low.unwrap() < 0.42 && ratio.high.unwrap() > 0.38, "{ratio:?}");
    assert!(cell.slo_ratio.unwrap().high.unwrap() < 1.0 && cell.p_bar_holm.unwrap() < 0.025);
    assert!(decision.against_today.iter().any(|cell| cell.arm == "compio" && cell.against == "offload"));
    let control = decision.control.unwrap();
    assert!(control.trusted && control.floor.unwrap() > 0.0 && control.smallest_p.unwrap() > 0.05, "{control:?}");
    assert_eq!(decision.steady.cut_ns, 1_000_000_000);
}

#[test]
fn fix_in_place() {
    let arms = [("offload", "tokio-shared", tail(0.4)), ("compio", "compio", tail(0.4))];
    let decision = decide(&experiment(2, 10, &arms));
    assert_eq!(decision.verdict, "FIX IN PLACE", "{:#?}", decision.why);
    assert!(decision.headline.starts_with("Fix in place with offload"), "{}", decision.headline);
    assert_eq!(decision.best_of_today.as_deref(), Some("offload"));
}

#[test]
fn stay() {
    let arms = [("pinned", "tokio-pinned", tail(1.3)), ("compio", "compio", SAME)];
    let decision = decide(&experiment(3, 10, &arms));
    assert_eq!(decision.verdict, "STAY", "{:#?}", decision.why);
    assert!(decision.headline.starts_with("Stay on tokio-shared"), "{}", decision.headline);
}

#[test]
fn a_gain_within_the_floor_is_none() {
    let mut tiny = experiment(4, 10, &[("compio", "compio", tail(0.4)), ("monoio", "monoio", SAME)]);
    tiny.design.floor_ms = 100.0;
    let decision = decide(&tiny);
    assert_eq!(decision.verdict, "STAY");
    // The ratio is far below the bar: it is the floor that says no, and the words say so.
    let cell = &decision.primary[0];
    assert!(cell.ratio.unwrap().high.unwrap() < 0.5 && cell.p_bar.unwrap() > 0.9, "{cell:?}");
    assert!(
        decision.headline.ends_with("What compio may gain lies within the floor of 100 ms."),
        "{}",
        decision.headline
    );
    assert!(cell.why.contains("what it gains lies within the floor of 100 ms"), "{}", cell.why);
    let changes = decision.would_change.join(" ");
    assert!(changes.contains("A floor below ") && changes.contains("(the lowest is 0.9"), "{changes}");
}

#[test]
fn a_gain_near_the_floor_is_adjusted_too() {
    // The ratio is far below the bar, and the gain just beyond the floor: the p-value is the gain's.
    let mut near = experiment(4, 10, &[("compio", "compio", tail(0.4))]);
    let delta = decide(&near).primary[0].delta_ms.unwrap();
    near.design.floor_ms = -(delta.high.unwrap() + 0.2 * (delta.value - delta.high.unwrap()));
    let cell = &decide(&near).primary[0];
    assert!((0.005..=0.06).contains(&cell.p_bar.unwrap()), "{cell:?}");
}

#[test]
fn a_faster_arm_that_promises_less_is_no_alternative() {
    let mut weaker = experiment(5, 10, &[("compio", "compio", tail(0.4)), ("monoio", "monoio", SAME)]);
    for arm in &mut weaker.arms {
        let durability = if arm.name == "compio" { "none" } else { "fdatasync" };
        arm.settings = json!({"durability": durability});
    }
    let decision = decide(&weaker);
    assert_eq!(decision.verdict, "STAY", "{:#?}", decision.why);
    assert!(decision.no_alternatives[0].contains("durability is none instead of fdatasync"));
    // A weaker arm of today's runtime is no bar to a migration either.
    let mut weaker = experiment(6, 10, &[("unsynced", "tokio-shared", tail(0.4)), ("compio", "compio", tail(0.4))]);
    for arm in &mut weaker.arms {
        arm.settings = json!({"durability": if arm.name == "unsynced" { "none" } else { "fdatasync" }});
    }
    assert_eq!(decide(&weaker).verdict, "MIGRATE");
}

#[test]
fn too_few_blocks() {
    let decision = blocked(&experiment(1, 9, &migration()), "9 complete blocks in which every arm's run is valid");
    assert!(decision.would_change.contains(&"1 complete block more.".to_owned()));
}

#[test]
fn no_control() {
    let mut without = experiment(1, 10, &migration());
    without.design.control = None;
    blocked(&without, "No control arm repeats the base");
    without.design.control = Some("nobody".into());
    blocked(&without, "control arm `nobody` is none of the study's arms");
}

#[test]
fn an_instrument_that_differs_from_itself() {
    let mut broken = experiment(1, 10, &migration());
    let mut random = Random(99);
    broken.arms[1].blocks = (0..10).map(|_| run(&mut random, &tail(2.0), 1.0)).collect();
    let decision = blocked(&broken, "The instrument is not trusted. The same code differs from itself");
    assert!(!decision.control.unwrap().trusted);
}

#[test]
fn no_steady_state() {
    let mut drifting = experiment(1, 10, &migration());
    // One run of one block drifts to twice its level.
    for (planned, latency) in &mut drifting.arms[3].blocks[4] {
        *latency = (*latency as f64 * (1.0 + *planned as f64 / 30e9)) as u64;
    }
    let decision = blocked(&drifting, "No steady state: block 4 monoio had not settled");
    assert_eq!(decision.steady.not_reached, ["block 4 monoio"]);
    let mut short = experiment(1, 10, &migration());
    short.duration_ns = 4_000_000_000;
    short.arms.iter_mut().flat_map(|arm| &mut arm.blocks).for_each(|block| block.truncate(800));
    blocked(&short, "Steady state was not tested");
}

#[test]
fn a_long_warm_up_is_cut_for_all() {
    let mut verdicts = Vec::new();
    for seed in 1..=5 {
        let mut warm = experiment(seed, 10, &migration());
        let mut slow = |block: &mut Vec<SimulatedRequest>| {
            for (planned, latency) in block {
                *latency = (*latency as f64 * (1.0 + 3.0 * (-(*planned as f64) / 2e9).exp())) as u64;
            }
        };
        warm.arms.iter_mut().flat_map(|arm| &mut arm.blocks).for_each(&mut slow);
        let decision = decide(&warm);
        assert!((3_000_000_000..=12_000_000_000).contains(&decision.steady.cut_ns), "{seed}: {:?}", decision.steady);
        assert_eq!(Some(decision.steady.cut_ns), decision.steady.mser_ns);
        verdicts.push(decision.verdict);
    }
    // A against A differs beyond chance in one study of twenty, whatever the warm-up.
    assert!(verdicts.iter().filter(|verdict| **verdict == "MIGRATE").count() >= 4, "{verdicts:?}");
}

#[test]
fn a_refused_percentile() {
    let mut far = experiment(1, 10, &migration());
    far.design.primary_percentile = "p99_99".into();
    // 60 000 samples have six exceedances beyond P99.99.
    let decision = blocked(&far, "independent episodes stand behind P99.99 of all requests of tokio-shared");
    assert!(decision.primary.iter().all(|cell| cell.tier == Tier::Refused && cell.ratio.is_none()));
    far.design.primary_percentile = "p98".into();
    blocked(&far, "`p98` is no percentile of the analysis");
    far.design.primary_percentile = "p99".into();
    far.design.primary_step = "connect".into();
    blocked(&far, "cannot be computed");
}

#[test]
fn stalls_of_many_requests_are_few_episodes() {
    let burst = Truth { stalls: 1e-4, burst: 120, ..SAME };
    let mut bursts = experiment(1, 10, &[("compio", "compio", burst)]);
    let mut random = Random(5);
    for arm in &mut bursts.arms {
        arm.blocks = (0..10).map(|_| run(&mut random, &burst, 1.0)).collect();
    }
    // About six stalls of 120 requests: hundreds of exceedances, and six episodes.
    blocked(&bursts, "a verdict takes 50");
}

#[test]
fn one_block_that_holds_the_tail() {
    let mut one = experiment(1, 10, &migration());
    one.arms[0].blocks[3].iter_mut().skip(1_000).step_by(8).for_each(|(_, latency)| *latency += 80_000_000);
    let decision = blocked(&one, "of what lies beyond P99 of all requests of tokio-shared: its tail is that block");
    assert!(decision.primary.iter().all(|cell| cell.tier == Tier::RunHeterogeneous));
    // In an arm that the verdict does not rest on it takes nothing away.
    let mut other = experiment(1, 10, &migration());
    other.arms[3].blocks[3].iter_mut().skip(1_000).step_by(8).for_each(|(_, latency)| *latency += 80_000_000);
    assert_eq!(decide(&other).verdict, "MIGRATE");
}

#[test]
fn an_open_question_says_how_many_blocks_it_takes() {
    let wild = Truth { run: 0.5, ..tail(0.7) };
    let decision = blocked(&experiment(8, 10, &[("compio", "compio", wild)]), "compio");
    let cell = &decision.primary[0];
    assert!(matches!(cell.tier, Tier::Inconclusive | Tier::BetterBelowBar | Tier::RunHeterogeneous), "{cell:?}");
    assert!(cell.blocks_needed.is_some_and(|blocks| blocks > 10), "{cell:?}");
}

#[test]
fn a_sized_study_keeps_the_first_stage_s_spread() {
    let mut sized = experiment(9, 14, &migration());
    sized.design.until = Some(0.05);
    let decision = sized.decide_sized(10).unwrap();
    let sizing = decision.sizing.clone().unwrap();
    assert_eq!((sizing.first_stage, sizing.wanted), (10, 0.05));
    // The first ten blocks alone give the same size.
    let mut first = sized.clone();
    first.arms.iter_mut().for_each(|arm| arm.blocks.truncate(10));
    let alone = first.decide().unwrap();
    assert_eq!(alone.sizing.unwrap(), sizing);
    // Half-width: t(9)·s/√14 of this arm, which is its half-width over ten blocks times √(10/14).
    let half = |decision: &Decision| {
        let ratio = decision.primary[2].ratio.unwrap();
        (ratio.high.unwrap() / ratio.low.unwrap()).ln() / 2.0
    };
    assert!((half(&decision) / half(&first.decide().unwrap()) - (10.0_f64 / 14.0).sqrt()).abs() < 1e-9);
    let half_of_slo = |decision: &Decision| {
        let ratio = decision.primary[2].slo_ratio.unwrap();
        (ratio.high.unwrap() / ratio.low.unwrap()).ln() / 2.0
    };
    let shrunk = half_of_slo(&decision) / half_of_slo(&first.decide().unwrap());
    assert!((shrunk - (10.0_f64 / 14.0).sqrt()).abs() < 1e-9, "{shrunk}");
}

#[test]
fn the_widest_pair_sizes_a_study() {
    let until = |study: &Experiment| Experiment {
        design: Design { until: Some(0.1), ..study.design.clone() },
        ..study.clone()
    };
    let arms = [("offload", "tokio-shared", SAME), ("compio", "compio", tail(0.9))];
    let even = until(&experiment(11, 10, &arms));
    let size = |study: &Experiment| study.decide().unwrap().sizing.unwrap();
    // The control alone is wild: the A/A gate takes as many blocks as the question.
    let mut random = Random(5);
    let mut wild = |at: usize| {
        let mut study = even.clone();
        study.arms[at].blocks = (0..10).map(|_| run(&mut random, &Truth { run: 0.3, ..SAME }, 1.0)).collect();
        size(&study)
    };
    let control = wild(1);
    assert_eq!((control.arm.as_str(), control.against.as_str()), ("again", "tokio-shared"));
    assert!(control.blocks > size(&even).blocks);
    // What a migration must beat counts as well, also where it stands out against one arm of today's alone.
    let offload = wild(2);
    assert!(offload.arm == "offload" || offload.against == "offload", "{offload:?}");
}

#[test]
fn a_first_stage_of_fewer_than_ten_blocks_sizes_nothing() {
    let mut few = experiment(9, 9, &migration());
    few.design.until = Some(0.2);
    let decision = decide(&few);
    assert_eq!(decision.sizing, None);
    let why = decision.sizing_why.unwrap();
    assert!(why.ends_with("9 of its 10 complete blocks are there."), "{why}");
    let mut early = experiment(9, 14, &migration());
    early.design.until = Some(0.05);
    let decision = early.decide_sized(5).unwrap();
    assert_eq!(decision.verdict, "INSUFFICIENT EVIDENCE");
    assert!(decision.why[0].starts_with("The second stage was sized before 10 complete blocks"), "{:#?}", decision.why);
}

#[test]
fn a_sized_study_without_its_second_stage_has_no_verdict() {
    let mut sized = experiment(1, 10, &migration());
    sized.design.until = Some(0.2);
    let decision = blocked(&sized, "± 20 %, was not reached: the second stage was not run.");
    assert!(decision.would_change[0].starts_with("The same command again: it sizes the study"));
    sized.design.until = Some(0.01);
    sized.design.blocks_max = 15;
    let decision = blocked(&sized, "complete blocks, more than --max-blocks allows.");
    assert!(decision.would_change[0].starts_with("A larger --max-blocks"));
    // Where the first stage suffices, its second one is written down all the same, and then there is a verdict.
    sized.design.until = Some(0.5);
    assert_eq!(sized.decide().unwrap().verdict, "INSUFFICIENT EVIDENCE");
    assert_eq!(sized.decide_sized(10).unwrap().verdict, "MIGRATE");
}

#[test]
fn median_and_tail_in_opposite_directions() {
    let traded = Truth { body: 1.5, ..tail(0.4) };
    let decision = decide(&experiment(10, 10, &[("compio", "compio", traded)]));
    let said = decision.trade_offs.join(" ");
    assert!(said.contains("compio: the median is higher and the tail lower"), "{said}");
    // A question about the median is answered with what the tail pays for it.
    let traded = Truth { body: 0.6, ..tail(2.5) };
    let mut median = experiment(10, 10, &[("compio", "compio", traded)]);
    median.design.primary_percentile = "p50".into();
    let said = decide(&median).trade_offs.join(" ");
    assert!(said.contains("compio: the median is lower and the tail higher: P50 0.6"), "{said}");
    assert!(said.contains(", P99.9 "), "{said}");
    // And one about a tail with what lies beyond it.
    median.design.primary_percentile = "p90".into();
    let said = decide(&median).trade_offs.join(" ");
    assert!(said.contains("compio: P90 is lower and P99.9 higher: P90 0.6"), "{said}");
}

#[test]
fn equal_arms_are_never_a_reason_to_move() {
    let arms = [("offload", "tokio-shared", SAME), ("monoio", "monoio", SAME), ("compio", "compio", SAME)];
    let mut verdicts = std::collections::BTreeMap::new();
    for seed in 100..140 {
        let decision = experiment(seed, 10, &arms).decide().unwrap();
        *verdicts.entry(decision.verdict).or_insert(0) += 1;
    }
    assert!(!verdicts.contains_key("MIGRATE") && !verdicts.contains_key("FIX IN PLACE"), "{verdicts:?}");
    // And the gates do not turn every study away.
    assert!(verdicts.get("STAY").is_some_and(|&n| n >= 20), "{verdicts:?}");
}

#[test]
fn the_same_samples_give_the_same_decision() {
    let one = experiment(1, 10, &migration());
    assert_eq!(one.decide().unwrap(), one.decide().unwrap());
}
