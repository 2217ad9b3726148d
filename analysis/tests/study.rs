//! A study with known truth, from its files to analysis.json, tables and report.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{ArmSpec, Spec, write_study};
use polars::prelude::*;
use regauge_analysis::counts::{Counts, PERCENTILES};
use regauge_analysis::decision::Tier;
use regauge_analysis::samples::{Metric, read_exact, read_requests};
use regauge_analysis::{Evaluation, analyze, terminal};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn study(spec: &Spec) -> (tempfile::TempDir, Evaluation) {
    let dir = tempfile::tempdir().unwrap();
    write_study(dir.path(), spec);
    let evaluation = Evaluation::of(dir.path()).unwrap();
    (dir, evaluation)
}

#[test]
fn the_json_contract() {
    let dir = tempfile::tempdir().unwrap();
    write_study(dir.path(), &Spec::small());
    analyze(dir.path()).unwrap();
    let json: Value = serde_json::from_slice(&fs::read(dir.path().join("analysis.json")).unwrap()).unwrap();
    let arms = json["arms"].as_array().unwrap();
    assert_eq!(arms.len(), 4);
    assert_eq!(arms[0]["name"], "tokio-shared");
    assert_eq!(arms[3]["stack"], "compio");
    assert_eq!(arms[3]["valid"], true);
    assert_eq!(arms[3]["valid_runs"], 2);
    assert_eq!(arms[3]["why_invalid"][0], "block 1: driver lag p99 1.84 ms exceeds 1.00 ms");
    // 3 blocks of 3 000 requests, 400 of them warm-up.
    assert_eq!(arms[0]["requests"], 3 * 2_600);
    assert!(arms[0]["percentiles_ns"]["p50"].as_u64().unwrap() > 100_000);
    assert!(arms[0]["percentiles_ns"]["p99_99"].is_null());
    let refused = &arms[0]["refused"]["p99_99"];
    // Of fewer than 10 000 samples the largest is P99.99 itself: nothing lies beyond, and 500 000 are the least.
    assert_eq!((refused["exceedances"].as_u64(), refused["needed"].as_u64()), (Some(0), Some(500_000)), "{refused}");
    let refused = &arms[0]["refused"]["p99_9"];
    assert!(refused["episodes"].as_f64().unwrap() < 20.0 && refused["needed"].as_u64().unwrap() > 50_000, "{refused}");
    assert!(arms[0]["cpu_ns_per_request"].as_f64().unwrap() > 0.0);
    assert!(arms[0]["throughput_per_s"].as_f64().unwrap() > 900.0);
    // A kind without replies has requests and no latency.
    let disconnect = &arms[0]["steps"]["disconnect"];
    assert!(disconnect["requests"].as_u64().unwrap() > 0 && disconnect["latency"].is_null());
    assert_eq!(disconnect["errors"], 0);
    let row = json["comparisons"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["arm"] == "monoio" && row["step"] == "all" && row["percentile"] == "p50");
    let row = row.unwrap();
    assert_eq!((row["base"].as_str(), row["blocks"].as_u64()), (Some("tokio-shared"), Some(3)));
    let [ratio, low, high] = ["ratio", "ci_low", "ci_high"].map(|key| row[key].as_f64().unwrap());
    // The truth is 125/180; three blocks with 6 % spread leave a wide interval around it.
    assert!(low < ratio && ratio < high && (0.6..0.8).contains(&ratio), "{ratio} [{low}, {high}]");
    assert!(row["refused"].is_null() && row["delta_ms"].as_f64().unwrap() < 0.0);
    let compio = json["comparisons"].as_array().unwrap().iter().find(|row| row["arm"] == "compio").unwrap();
    assert_eq!(compio["blocks"], 2);
    assert_eq!(json["verdict"], "INSUFFICIENT EVIDENCE");
    assert!(json["verdict_why"].as_array().unwrap().len() >= 5);
    assert!(json["check"]["largest_difference"].as_f64().unwrap() <= 0.001);
}

#[test]
fn histograms_agree_with_exact_quantiles() {
    let spec = Spec { blocks: 2, requests: 20_000, ..Spec::small() };
    let (_dir, evaluation) = study(&spec);
    for arm in &evaluation.evidence {
        let files: Vec<_> =
            arm.blocks.iter().map(|&b| evaluation.study.run_file(b, &arm.name, "requests.parquet")).collect();
        for metric in Metric::BOTH {
            let exact = read_exact(&files, metric, evaluation.analysis.decision.steady.cut_ns).unwrap();
            assert_eq!(exact.len(), 2, "connect and publish have replies, disconnect has none");
            for (step, exact) in exact {
                for percentile in PERCENTILES {
                    let raw = exact.quantile(percentile.ppm).unwrap() as f64;
                    let bucketed = arm.pooled(&step, metric).quantile(percentile.ppm).unwrap() as f64;
                    assert!(
                        (bucketed / raw - 1.0).abs() < 0.001,
                        "{} {step} {}: {bucketed} {raw}",
                        arm.name,
                        percentile.key
                    );
                }
            }
        }
    }
}

#[test]
fn polars_opens_the_hive_layout_by_glob() {
    let dir = tempfile::tempdir().unwrap();
    write_study(dir.path(), &Spec::small());
    let glob = dir.path().join("runs/**/requests.parquet");
    let hive_options = polars::io::HiveOptions { try_parse_dates: false, ..polars::io::HiveOptions::new_enabled() };
    let args = ScanArgsParquet { hive_options, ..Default::default() };
    let frame = LazyFrame::scan_parquet(PlRefPath::try_from_path(&glob).unwrap(), args)
        .unwrap()
        .filter(col("arm").eq(lit("monoio")))
        .group_by_stable([col("block")])
        .agg([col("latency_ns").count().alias("replies"), col("latency_ns").null_count().alias("without")])
        .collect()
        .unwrap();
    assert_eq!(frame.height(), 3);
    for (block, replies) in frame.column("replies").unwrap().u32().unwrap().iter().enumerate() {
        let run =
            read_requests(&dir.path().join(format!("runs/block={block:03}/arm=monoio/requests.parquet"))).unwrap();
        let counted = run.rows.iter().filter(|row| row.latency_ns.is_some()).count();
        assert_eq!(replies.unwrap() as usize, counted);
    }
}

#[test]
fn invalid_runs_and_warm_up_enter_no_figure() {
    let (_dir, with) = study(&Spec::small());
    let compio = with.evidence.iter().find(|arm| arm.name == "compio").unwrap();
    assert_eq!(compio.blocks, [0, 2]);
    let mut pooled = Vec::new();
    for block in [0, 2] {
        let run = read_requests(&with.study.run_file(block, "compio", "requests.parquet")).unwrap();
        pooled.extend(run.rows.iter().filter(|row| row.planned_ns >= 400_000_000).filter_map(|row| row.latency_ns));
    }
    let exact = Counts::from_values(pooled);
    assert_eq!(compio.pooled("all", Metric::Latency).total(), exact.total());
    // Damage to a run that enters nothing is no error.
    let broken = with.study.run_file(1, "compio", "requests.parquet");
    fs::write(&broken, b"damaged").unwrap();
    assert!(Evaluation::of(&with.study.dir).is_ok());
}

#[test]
fn a_planted_ratio_is_found() {
    let arms = vec![
        ArmSpec::new("base", "tokio-shared", 200e3).stalls(3e-3, 8e6),
        ArmSpec::new("half", "monoio", 100e3).stalls(3e-3, 4e6),
        ArmSpec::new("same", "tokio-shared", 200e3).stalls(3e-3, 8e6),
    ];
    let spec = Spec { blocks: 6, requests: 20_000, seed: 5, arms, ..Spec::small() };
    let (_dir, evaluation) = study(&spec);
    for percentile in ["p50", "p99"] {
        let of = |arm: &str| {
            let mut rows = evaluation.analysis.comparisons.iter();
            rows.find(|row| row.arm == arm && row.step == "all" && row.percentile == percentile).unwrap()
        };
        let half = of("half");
        assert!(half.ci_high.unwrap() < 1.0, "{half:?}");
        assert!((0.4..0.63).contains(&half.ratio.unwrap()), "{half:?}");
        let same = of("same");
        assert!(same.ci_low.unwrap() < 1.0 && same.ci_high.unwrap() > 1.0, "{same:?}");
    }
    let why = evaluation.analysis.verdict_why.join("\n");
    assert!(why.contains("No control arm repeats the base"), "{why}");
}

#[test]
fn one_block_and_one_arm_say_what_they_lack() {
    let (_dir, one_block) = study(&Spec { blocks: 1, ..Spec::small() });
    let row = &one_block.analysis.comparisons[0];
    assert!(row.ratio.is_some() && row.ci_low.is_none());
    assert_eq!(row.why_none.as_deref(), Some("one block in common; an interval takes at least two"));
    assert!(one_block.analysis.verdict_why.iter().any(|why| why.starts_with("1 complete block in which")));
    let alone = Spec { arms: vec![ArmSpec::new("alone", "tokio-shared", 200e3)], ..Spec::small() };
    let (_dir, alone) = study(&alone);
    assert!(alone.analysis.comparisons.is_empty());
    assert!(alone.analysis.verdict_why[0].contains("one arm"));
    assert!(!terminal::render(&alone.analysis).is_empty());
    alone.write_report().unwrap();
}

#[test]
fn an_arm_without_a_valid_run_stays_visible() {
    let mut spec = Spec::small();
    spec.arms[3].invalid = vec![0, 1, 2];
    let (_dir, evaluation) = study(&spec);
    let compio = evaluation.analysis.arms.iter().find(|arm| arm.name == "compio").unwrap();
    assert!(!compio.valid && compio.why_invalid.len() == 3 && compio.percentiles_ns.values().all(Option::is_none));
    let row = evaluation.analysis.comparisons.iter().find(|row| row.arm == "compio").unwrap();
    assert_eq!(row.why_none.as_deref(), Some("the two arms have no valid block in common"));
    assert!(evaluation.analysis.verdict_why.iter().any(|why| why.contains("nothing is left of compio")));
    assert!(terminal::render(&evaluation.analysis).contains("invalid"));
    evaluation.write_report().unwrap();
}

#[test]
fn tables_open_with_polars() {
    let (dir, evaluation) = study(&Spec::small());
    evaluation.write_tables().unwrap();
    let open = |name: &str| {
        let path = dir.path().join("tables").join(name);
        LazyFrame::scan_parquet(PlRefPath::try_from_path(&path).unwrap(), Default::default())
            .unwrap()
            .collect()
            .unwrap()
    };
    let comparisons = open("comparisons.parquet");
    assert_eq!(comparisons.height(), evaluation.analysis.comparisons.len());
    let percentiles = open("percentiles.parquet");
    // 4 arms × 3 steps with replies (all, connect, publish) × 2 metrics × 5 percentiles.
    assert_eq!(percentiles.height(), 4 * 3 * 2 * 5);
    assert_eq!(open("over_time.parquet").height() % 4, 0);
    let csv = fs::read_to_string(dir.path().join("tables/percentiles.csv")).unwrap();
    assert_eq!(csv.lines().count(), 121);
    assert!(csv.starts_with("arm,step,metric,percentile,value_ns,"), "{csv}");
}

#[test]
fn an_awkward_directory_name_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("load=5").join("a [b]*");
    write_study(&path, &Spec { blocks: 2, ..Spec::small() });
    assert!(Evaluation::of(Path::new(&path)).is_ok());
}

/// An arm with a stall of this length now and then.
fn stalling(name: &'static str, stack: &'static str, stall_ns: f64) -> ArmSpec {
    let mut arm = ArmSpec::new(name, stack, 150e3).stalls(0.03, stall_ns);
    arm.stall_requests = 1;
    arm
}

/// A planted study that ends in a verdict: compio's tail is 0.4 of the base's.
fn planted() -> Spec {
    Spec::decided(vec![
        stalling("base", "tokio-shared", 9e6),
        stalling("again", "tokio-shared", 9e6),
        stalling("apart", "tokio-shared", 8.5e6),
        stalling("compio", "compio", 3.6e6),
    ])
}

fn decision_of(spec: &Spec) -> Value {
    let (_dir, evaluation) = study(spec);
    serde_json::to_value(&evaluation.analysis).unwrap()
}

#[test]
fn a_verdict_from_files() {
    // The median differs too: half of all relabelings pool a tail from both arms, so that tails have little power there.
    let mut spec = planted();
    spec.arms[3].median_ns = 110e3;
    let json = decision_of(&spec);
    assert_eq!(json["verdict"], "MIGRATE", "{:#}", json["decision"]["why"]);
    assert_eq!(json["verdict_why"], json["decision"]["why"]);
    assert_eq!(json["finding"], json["decision"]["headline"]);
    let question = &json["decision"]["question"];
    assert_eq!((&question["registered"], &question["primary_percentile"]), (&Value::Bool(true), &Value::from("p99")));
    assert_eq!(question["hash"].as_str().unwrap().len(), 16);
    let blocks = &json["decision"]["blocks"];
    assert_eq!(
        (blocks["wanted"].as_u64(), blocks["complete"].as_u64(), blocks["flagged"].as_u64()),
        (Some(10), Some(10), Some(0))
    );
    // Secondary cells have adjusted p-values, the primary and refused ones none.
    for row in json["comparisons"].as_array().unwrap() {
        let is_primary = row["step"] == "all" && row["percentile"] == "p99";
        assert_eq!(row["p_adjusted"].is_null(), is_primary || row["ratio"].is_null(), "{row}");
    }
    let p = |arm: &str, percentile: &str| {
        let rows = json["comparisons"].as_array().unwrap();
        let row =
            rows.iter().find(|row| row["arm"] == arm && row["step"] == "publish" && row["percentile"] == percentile);
        row.unwrap()["p_adjusted"].as_f64().unwrap()
    };
    assert!(p("compio", "p50") <= 0.05 && p("again", "p50") > 0.05, "{} {}", p("compio", "p50"), p("again", "p50"));
}

#[test]
fn a_study_without_a_question_or_with_peeking_has_no_verdict() {
    let insufficient = |spec: &Spec, why: &str| {
        let json = decision_of(spec);
        assert_eq!(json["verdict"], "INSUFFICIENT EVIDENCE");
        let text = json["decision"]["why"].to_string();
        assert!(text.contains(why), "no `{why}` in {text}");
        json
    };
    let json = insufficient(&Spec { design: None, ..planted() }, "fixed before the runs");
    assert_eq!(json["decision"]["question"]["registered"], false);
    let peeked = Spec { blocks: 12, stages: vec![(10, false), (12, false)], ..planted() };
    let json = insufficient(&peeked, "not by the sizing rule");
    assert_eq!(json["decision"]["question"]["peeked"], true);
    // Tables show ratios from two blocks on.
    insufficient(&Spec { blocks: 12, stages: vec![(2, false), (12, false)], ..planted() }, "not by the sizing rule");
    // By the sizing rule, or before two blocks, is no peeking.
    for stages in [vec![(10, false), (12, true)], vec![(1, false), (12, false)]] {
        let json = decision_of(&Spec { blocks: 12, stages, ..planted() });
        assert_eq!(json["verdict"], "MIGRATE", "{:#}", json["decision"]["why"]);
    }
}

/// A study's file, changed.
fn change(path: &Path, change: impl Fn(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

fn reasons(dir: &Path) -> (&'static str, String) {
    let decision = Evaluation::of(dir).unwrap().analysis.decision;
    (decision.verdict, decision.why.join("\n"))
}

#[test]
fn a_part_of_a_study_has_no_verdict() {
    let (dir, whole) = study(&planted());
    assert_eq!(whole.analysis.verdict, "MIGRATE");
    let manifest = dir.path().join("study.json");
    let said = |to: &dyn Fn(&mut Value)| {
        let before = fs::read(&manifest).unwrap();
        change(&manifest, to);
        let said = reasons(dir.path());
        fs::write(&manifest, before).unwrap();
        said
    };
    let (verdict, why) = said(&|m| (m["blocks"], m["stages"][0]["blocks"]) = (40.into(), 40.into()));
    assert_eq!(verdict, "INSUFFICIENT EVIDENCE");
    assert!(why.contains("10 of the 40 complete blocks fixed beforehand are there"), "{why}");
    // Sized to 60, and ten are there.
    let stage = |created: &str, blocks: u32, sized: bool| serde_json::json!({"created": created, "blocks": blocks, "sized": sized});
    let (early, late) = ("2026-11-23T09:00:00Z", "2026-11-23T11:00:00Z");
    let sized = |m: &mut Value, created: &str, blocks: u32| {
        m["design"]["until"] = 0.5.into();
        m["blocks"] = blocks.into();
        m["stages"] = vec![stage(early, 10, false), stage(created, blocks, true)].into();
    };
    let (verdict, why) = said(&|m| sized(m, late, 60));
    assert_eq!(verdict, "INSUFFICIENT EVIDENCE");
    assert!(why.contains("10 of the 60 complete blocks"), "{why}");
    // Sized when the first stage was complete, and before a run of it had begun.
    assert_eq!(said(&|m| sized(m, late, 10)).0, "MIGRATE");
    let (verdict, why) = said(&|m| sized(m, early, 10));
    assert_eq!(verdict, "INSUFFICIENT EVIDENCE");
    assert!(why.contains("was sized before 10 complete blocks"), "{why}");
}

#[test]
fn a_question_that_was_changed_after_the_runs_has_no_verdict() {
    let (dir, evaluation) = study(&planted());
    let hash = evaluation.study.manifest.question_hash();
    assert_eq!(evaluation.analysis.decision.question.hash, hash);
    for run in &evaluation.study.runs {
        change(&evaluation.study.run_file(run.block, &run.arm, "run.json"), |r| r["question"] = hash.clone().into());
    }
    assert_eq!(reasons(dir.path()).0, "MIGRATE");
    change(&dir.path().join("study.json"), |m| m["design"]["worth_ratio"] = 0.9.into());
    let (verdict, why) = reasons(dir.path());
    assert_eq!(verdict, "INSUFFICIENT EVIDENCE");
    assert!(why.contains("asks another question than block 0 base and 39 other runs had been made for"), "{why}");
}

#[test]
fn an_arm_that_loses_replies_may_not_win() {
    let (dir, _) = study(&Spec { reruns: 2, ..planted() });
    let fail = |block: u32, arm: &str, gate: &str| {
        change(&dir.path().join(format!("runs/block={block:03}/arm={arm}/run.json")), |r| {
            r["valid"] = false.into();
            let failed = serde_json::json!({"name": gate, "passed": false, "measured": "3 lost", "required": "0"});
            r["gates"].as_array_mut().unwrap().push(failed);
        });
    };
    // What the host did to it is nobody's fault.
    fail(1, "compio", "steal");
    assert_eq!(reasons(dir.path()).0, "MIGRATE");
    fail(3, "compio", "errors");
    let (verdict, why) = reasons(dir.path());
    assert_eq!(verdict, "INSUFFICIENT EVIDENCE", "{why}");
    assert!(
        why.contains("compio failed errors in 1 block, base in 0; a rerun leaves out just its worst runs."),
        "{why}"
    );
    let threats = Evaluation::of(dir.path()).unwrap().analysis.decision.threats.join("\n");
    assert!(threats.contains("errors 1×: compio 1×") && threats.contains("steal 1×: compio 1×"), "{threats}");
    // As often as the base, it says nothing against it.
    fail(3, "base", "replies");
    assert_eq!(reasons(dir.path()).0, "MIGRATE");
}

#[test]
fn an_arm_that_a_rival_beats_is_no_fix() {
    let mut spec = planted();
    spec.arms[2] = stalling("apart", "tokio-shared", 5.4e6);
    spec.arms[3] = stalling("compio", "compio", 2.7e6);
    spec.arms.push(stalling("pinned", "tokio-pinned", 8e6));
    let (dir, before) = study(&spec);
    assert_eq!(before.analysis.decision.chosen.as_deref(), Some("compio"));
    // compio still beats apart by the bar, but can no longer be compared with another arm of today's.
    for run in before.study.runs_of("pinned") {
        change(&before.study.run_file(run.block, "pinned", "run.json"), |r| {
            r["driver"]["lag_refuses_above"] = 95.0.into();
        });
    }
    let decision = Evaluation::of(dir.path()).unwrap().analysis.decision;
    let cell = decision.against_today.iter().find(|cell| cell.arm == "compio" && cell.against == "apart").unwrap();
    assert_eq!((cell.tier, cell.p_bar_holm), (Tier::MigrationEffect, None));
    assert_eq!((decision.verdict, decision.chosen), ("INSUFFICIENT EVIDENCE", None), "{}", decision.headline);
    let why = decision.why.join("\n");
    assert!(why.contains("apart is beyond the bar, but compio is shown to beat it by the bar."), "{why}");
    // Without compio, apart is what suffices.
    fs::remove_dir_all(dir.path()).unwrap();
    spec.arms.retain(|arm| arm.name != "compio");
    write_study(dir.path(), &spec);
    let decision = Evaluation::of(dir.path()).unwrap().analysis.decision;
    assert_eq!((decision.verdict, decision.chosen.as_deref()), ("FIX IN PLACE", Some("apart")));
}

#[test]
fn a_percentile_that_the_driver_owns_in_either_arm_has_no_ratio() {
    for (arm, others) in [("base", "again, apart, compio"), ("compio", "base, again, apart")] {
        let (dir, before) = study(&planted());
        for run in before.study.runs_of(arm) {
            let path = before.study.run_file(run.block, arm, "run.json");
            change(&path, |r| r["driver"]["lag_refuses_above"] = 95.0.into());
        }
        let analysis = Evaluation::of(dir.path()).unwrap().analysis;
        let of = |arm: &str, percentile: &str| {
            let mut rows = analysis.comparisons.iter();
            rows.find(|row| row.arm == arm && row.step == "all" && row.percentile == percentile).unwrap()
        };
        let row = of("compio", "p99");
        assert!(row.refused.is_some_and(|refusal| refusal.driver_owned) && row.ratio.is_none(), "{arm}: {row:?}");
        assert_eq!(row.why_none.as_deref(), Some("the driver's own lateness may own it"));
        assert!(of("compio", "p50").ratio.is_some());
        let cell = analysis.decision.primary.iter().find(|cell| cell.arm == "compio").unwrap();
        assert!(cell.refused.is_some_and(|refusal| refusal.driver_owned), "{arm}: {cell:?}");
        assert_eq!(cell.blocks_needed, None, "{arm}");
        // One line for what the driver's lateness refuses, apart from what too few episodes refuse.
        let text = regauge_analysis::terminal::render(&analysis);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = format!("P99, P99.9, P99.99 refused for {arm}: more than a tenth may be the driver's own lateness;");
        let apart = format!("P99.99 refused for {others}: as few as");
        assert!(words.contains(&line) && words.contains(&apart), "{text}");
    }
}

#[test]
fn a_flagged_block_is_counted_and_run_again() {
    let mut spec = Spec { reruns: 1, ..planted() };
    spec.arms[2] = spec.arms[2].clone().invalid(&[4]);
    let json = decision_of(&spec);
    let decision = &json["decision"];
    let blocks = &decision["blocks"];
    assert_eq!((blocks["complete"].as_u64(), blocks["flagged"].as_u64()), (Some(10), Some(1)));
    assert_eq!(blocks["failed_gates"], serde_json::json!([["driver_lag", 1]]));
    assert_eq!(json["verdict"], "MIGRATE", "{:#}", decision["why"]);
    let compio = &decision["primary"][1];
    let (without, with) = (&compio["ratio"]["value"], &compio["with_flagged"]["value"]);
    assert!(with.is_number() && with != without, "{compio}");
    assert!(decision["threats"].to_string().contains("1 block failed a gate (driver_lag 1×: apart 1×)"));
}

#[test]
fn loads_below_a_study() {
    let dir = tempfile::tempdir().unwrap();
    write_study(dir.path(), &planted());
    // At a quarter of the knee compio's tail is longer than the base's.
    let mut low = planted();
    low.arms[3].stall_ns = 25e6;
    write_study(&dir.path().join("load=0.25"), &low);
    let point = |share: f64, dir: &str| serde_json::json!({"share": share, "speed": share, "offered_per_s": 1e3 * share, "dir": dir});
    let loads = serde_json::json!({"version": 2, "loads": [point(0.25, "load=0.25"), point(0.75, "."), point(0.9, "load=0.9")],
        "knees": [{"arm": "base", "kept_per_s": 1000.0, "missed_per_s": 1050.0, "limited_by": "server", "probes": []}]});
    fs::write(dir.path().join("loads.json"), loads.to_string()).unwrap();
    let evaluation = Evaluation::of(dir.path()).unwrap();
    let curves = evaluation.analysis.decision.loads.as_ref().unwrap();
    assert_eq!(
        curves.loads.iter().map(|row| (row.blocks, row.primary)).collect::<Vec<_>>(),
        [(10, false), (10, true), (0, false)]
    );
    assert_eq!(curves.knees[0].1, Some(1000.0));
    let none = &curves.loads[2].cells[0];
    assert_eq!(none.why_none.as_deref(), Some("this load was not run"));
    let flip = curves.flips.iter().find(|flip| flip.starts_with("compio")).unwrap();
    assert!(flip.starts_with("compio begins higher than base and flips near ") && flip.contains("at 90 %"), "{flip}");
    // A load that has fewer blocks than were asked for, an untrusted instrument or too few blocks tells no sign.
    let nested = dir.path().join("load=0.25/study.json");
    let flip_of = |dir: &Path| {
        let curves = Evaluation::of(dir).unwrap().analysis.decision.loads.unwrap();
        curves.flips.into_iter().find(|flip| flip.starts_with("compio")).unwrap()
    };
    let before = fs::read(&nested).unwrap();
    for spoil in [|m: &mut Value| m["blocks"] = 40.into(), |m: &mut Value| m["design"]["control"] = Value::Null] {
        change(&nested, spoil);
        let flip = flip_of(dir.path());
        assert!(flip.starts_with("compio is lower than base at 75 % of the knee; at 25 % and 90 %"), "{flip}");
        fs::write(&nested, &before).unwrap();
    }
    // A load of other arms or another trace is none of this study.
    change(&nested, |m| m["workload_hash"] = "another".into());
    let text = Evaluation::of(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("it is no load of the study above it, since its workload differs"), "{text}");
    change(&nested, |m| m["arms"][3]["settings"]["threads"] = 9.into());
    let text = Evaluation::of(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("since its arms and workload differ"), "{text}");
    fs::write(&nested, &before).unwrap();
    // A path out of the study is not followed, and a broken file is an error of one sentence.
    fs::write(dir.path().join("loads.json"), r#"{"version": 2, "knees": [], "loads": [{"share": 1}]}"#).unwrap();
    let text = Evaluation::of(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("loads.json cannot be read as the loads of a study"), "{text}");
}
