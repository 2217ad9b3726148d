//! The main job, end to end and small: replay on all stacks, tables, report; and a stall that no clock hides.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::run;
use serde_json::Value;

/// Two blocks of the default arms and the control over a short trace; only structure is asserted, never a timing. On a
/// machine that is busy with other tests runs may be invalid; then they must say why and enter no table. No block is run
/// again, so that the number of runs does not depend on that.
#[test]
fn a_small_study_ends_in_tables_and_a_report() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let trace = dir.path().join("t.parquet");
    let trace = trace.to_str().unwrap();
    run(&["trace", "synth", "--profile", "production", "--duration", "2s", "--rate", "300", "--out", trace]);
    let study = dir.path().join("study");
    let study = study.to_str().unwrap();
    let summary: Value =
        serde_json::from_str(&run(&["replay", trace, "--blocks", "2", "--reruns", "0", "--out", study, "--json"]))
            .unwrap();
    // Four stacks, today's runtime tuned, and the base once more.
    assert_eq!(summary["runs_finished"], 2 * 6, "{summary}");

    for block in 0..2 {
        for stack in common::STACKS {
            let path = format!("{study}/runs/block={block:03}/arm={stack}/run.json");
            let run: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let why = run["why_invalid"].as_array().unwrap();
            assert_eq!(run["valid"] == true, why.is_empty(), "{path}: {why:?}");
            let gate = |name: &str| {
                let gates = run["gates"].as_array().unwrap();
                gates.iter().find(|g| g["name"] == name).unwrap_or_else(|| panic!("{path} lacks gate {name}"))["passed"]
                    == true
            };
            assert!(
                ["plan", "replies", "errors", "attestation", "state_digest", "replies_digest"].into_iter().all(gate),
                "{path}: {why:?}"
            );
        }
    }
    if summary["invalid"].as_array().unwrap().len() == 2 * 6 {
        let said = common::fail(&["analyze", study]);
        assert!(said.contains("valid"), "{said}");
    }
    // The same command finds everything done; another seed is another study.
    let again = ["replay", trace, "--blocks", "2", "--reruns", "0", "--out", study];
    let found: Value = serde_json::from_str(&run(&[&again[..], &["--json"]].concat())).unwrap();
    assert_eq!(found["runs_resumed"], 2 * 6, "{found}");
    common::fail(&[&again[..], &["--seed", "9"]].concat());

    // What follows is about real files, not about this host: every run is declared valid, however busy it is.
    for block in 0..2 {
        for arm in std::fs::read_dir(format!("{study}/runs/block={block:03}")).unwrap() {
            let path = arm.unwrap().path().join("run.json");
            let mut run: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            (run["valid"], run["why_invalid"]) = (true.into(), Vec::<Value>::new().into());
            run["gates"].as_array_mut().unwrap().iter_mut().for_each(|gate| gate["passed"] = true.into());
            std::fs::write(&path, run.to_string()).unwrap();
        }
    }
    let analysis: Value = serde_json::from_str(&run(&["analyze", study, "--json"])).unwrap();
    assert_eq!(analysis["verdict"], "INSUFFICIENT EVIDENCE");
    for arm in analysis["arms"].as_array().unwrap() {
        for key in ["name", "stack", "requests", "errors", "valid", "why_invalid", "percentiles_ns"] {
            assert!(arm.get(key).is_some(), "an arm lacks {key}: {arm}");
        }
        // 2 × 600 requests are far too few for P99.99: it must be refused, not guessed.
        assert!(arm["percentiles_ns"]["p99_99"].is_null(), "{arm}");
    }
    for comparison in analysis["comparisons"].as_array().unwrap() {
        for key in ["arm", "base", "percentile", "ratio", "ci_low", "ci_high", "refused"] {
            assert!(comparison.get(key).is_some(), "a comparison lacks {key}: {comparison}");
        }
    }
    run(&["report", study]);
    let html = std::fs::read_to_string(format!("{study}/report.html")).unwrap();
    assert!(html.contains("INSUFFICIENT EVIDENCE") && html.contains("<svg"));
    for outside in ["src=\"http", "href=\"http", "url(http", "@import", "<link"] {
        assert!(!html.contains(outside), "the report reaches outside: {outside}");
    }
}
