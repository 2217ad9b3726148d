//! Each cause planted in a study is the one that is supported, and no other.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;

use common::planted::{write_planted, write_planted_lossy, write_planted_with};
use common::stamps::Planted;
use regauge_analysis::diagnose::{Diagnosis, Verdict, diagnose, terminal};
use regauge_analysis::{Evaluation, lanes::slow::Kind};

const MS: u64 = 1_000_000;

fn diagnosis(blocks: u32, planted: Planted, without: &[&str], invalid: &[u32], keep: bool) -> Diagnosis {
    let dir = tempfile::tempdir().unwrap();
    write_planted(dir.path(), blocks, planted, without, invalid);
    diagnose(dir.path(), keep).unwrap()
}

fn with(diagnosis: &Diagnosis, verdict: Verdict) -> Vec<&'static str> {
    diagnosis.hypotheses.iter().filter(|judged| judged.verdict == verdict).map(|judged| judged.name).collect()
}

#[test]
fn the_planted_cause_and_only_that_one_is_supported() {
    let cases: [(&str, Planted, &[&str], &[&str]); 8] = [
        (
            "runtime_queue",
            Planted { woken: 10 * MS, ..Planted::default() },
            &["offload", "raft-alone", "eager-handoff"],
            &["another_runtime"],
        ),
        ("os_preemption", Planted { runnable: 10 * MS, ..Planted::default() }, &["quiet"], &["oversubscription"]),
        ("oversubscription", Planted { runnable: 10 * MS, ..Planted::default() }, &["one-runtime"], &["os_preemption"]),
        ("write_queue", Planted { thread_wait: 10 * MS, ..Planted::default() }, &["own-db"], &[]),
        ("wal", Planted { wal: 10 * MS, ..Planted::default() }, &["no-wal"], &["disk"]),
        ("disk", Planted { delay: 10 * MS, ..Planted::default() }, &["memory"], &[]),
        ("batching", Planted { queued: 10 * MS, ..Planted::default() }, &["batch-1"], &[]),
        ("another_runtime", Planted { woken: 10 * MS, ..Planted::default() }, &["compio"], &["runtime_queue"]),
    ];
    for (cause, planted, without, same_lane) in cases {
        let diagnosis = diagnosis(4, planted, without, &[], false);
        assert_eq!(with(&diagnosis, Verdict::Supported), [cause], "{}", terminal::render(&diagnosis));
        // Who shares the lane, but whose arm does not help, is left open; all others are refuted.
        assert_eq!(with(&diagnosis, Verdict::CannotTell), same_lane, "{}", terminal::render(&diagnosis));
    }
}

#[test]
fn a_busy_thread_supports_no_cause_of_waiting() {
    let diagnosis = diagnosis(4, Planted { spin: 10 * MS, ..Planted::default() }, &[], &[], false);
    assert_eq!(with(&diagnosis, Verdict::Refuted).len(), 8, "{}", terminal::render(&diagnosis));
}

#[test]
fn too_few_blocks_leave_it_open_and_say_how_many_it_takes() {
    let diagnosis = diagnosis(1, Planted { wal: 10 * MS, ..Planted::default() }, &["no-wal"], &[], false);
    let wal = diagnosis.hypotheses.iter().find(|judged| judged.name == "wal").unwrap();
    assert_eq!(wal.verdict, Verdict::CannotTell);
    assert!(wal.why.as_ref().unwrap().contains("blocks"), "{wal:?}");
    assert!(wal.share.unwrap() > 0.9);
}

#[test]
fn invalid_runs_are_left_out_unless_asked_for() {
    let planted = Planted { wal: 10 * MS, ..Planted::default() };
    let left_out = diagnosis(3, planted, &["no-wal"], &[0, 1, 2], false);
    assert_eq!(with(&left_out, Verdict::CannotTell).len(), 8);
    assert_eq!((left_out.runs, left_out.valid_runs, left_out.runs_used), (33, 0, 0));
    let kept = diagnosis(3, planted, &["no-wal"], &[0, 1, 2], true);
    assert_eq!(with(&kept, Verdict::Supported), ["wal"]);
    let text = terminal::render(&kept);
    assert!(text.starts_with("INVALID RUNS ARE INCLUDED"), "{text}");
}

#[test]
fn without_run_delay_nothing_is_said_of_preemption_and_storage() {
    for (planted, arm) in [
        (Planted { runnable: 10 * MS, ..Planted::default() }, "quiet"),
        (Planted { wal: 10 * MS, ..Planted::default() }, "no-wal"),
        (Planted { woken: 10 * MS, ..Planted::default() }, "compio"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write_planted_with(dir.path(), 4, planted, &[arm], &[], |meta| meta.run_delay = false);
        let diagnosis = diagnose(dir.path(), false).unwrap();
        let text = terminal::render(&diagnosis);
        assert_eq!(with(&diagnosis, Verdict::Supported), [""; 0], "{text}");
        let open = with(&diagnosis, Verdict::CannotTell);
        for name in ["os_preemption", "oversubscription", "write_queue", "wal", "disk"] {
            assert!(open.contains(&name), "{name}: {text}");
        }
        assert_eq!(with(&diagnosis, Verdict::Refuted).contains(&"another_runtime"), arm != "compio", "{text}");
        assert!(diagnosis.lanes_missing.iter().any(|sentence| sentence.contains("no schedstat")), "{text}");
        let why = diagnosis.hypotheses.iter().find(|judged| judged.name == "wal").unwrap().why.clone().unwrap();
        assert!(why.contains("preemption"), "{why}");
    }
}

#[test]
fn of_calls_that_are_not_all_there_nothing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let planted = Planted { wal: 10 * MS, ..Planted::default() };
    write_planted_with(dir.path(), 4, planted, &["no-wal"], &[], |meta| {
        (meta.thinned, meta.calls_left_out) = (9, 2);
    });
    let diagnosis = diagnose(dir.path(), false).unwrap();
    assert_eq!(with(&diagnosis, Verdict::Refuted), ["batching"], "CONNECTs are counted by the driver");
    assert_eq!(with(&diagnosis, Verdict::Supported), [""; 0]);
    assert!(diagnosis.lanes_missing.iter().any(|sentence| sentence.contains("396 rows left out")), "{diagnosis:?}");
}

#[test]
fn of_a_tail_without_stamps_nothing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let planted = Planted { queued: 10 * MS, ..Planted::default() };
    write_planted_lossy(dir.path(), 4, planted, &["batch-1"], |stamp| {
        // Of a third of the slow CONNECTs.
        stamp.conn.is_some_and(|conn| conn % 150 == 149)
    });
    let diagnosis = diagnose(dir.path(), false).unwrap();
    let batching = diagnosis.hypotheses.iter().find(|judged| judged.name == "batching").unwrap();
    assert_eq!((batching.verdict, batching.share), (Verdict::CannotTell, None), "{batching:?}");
    assert!(batching.why.as_ref().unwrap().contains("lack stamps"), "{batching:?}");
    assert!(batching.seen.starts_with("stamps of "), "{batching:?}");
    let text = terminal::render(&diagnosis);
    assert!(text.lines().all(|line| line.chars().count() <= 80 || line.contains("regauge explain")), "{text}");
}

#[test]
fn waits_in_openraft_are_no_support_for_batching() {
    // Ten milliseconds behind the read-back of the log, and not in the batcher.
    let diagnosis = diagnosis(4, Planted { behind: 10 * MS, ..Planted::default() }, &["batch-1"], &[], false);
    let batching = diagnosis.hypotheses.iter().find(|judged| judged.name == "batching").unwrap();
    assert!(batching.share.unwrap() < 0.1, "{batching:?}");
    assert_ne!(batching.verdict, Verdict::Supported);
}

#[test]
fn slow_lines_are_those_of_the_article_with_lanes() {
    let diagnosis = diagnosis(2, Planted { runnable: 10 * MS, ..Planted::default() }, &["quiet"], &[], false);
    let apply = diagnosis.slow_lines.iter().find(|line| line.kind == Kind::Apply).unwrap();
    assert!(apply.reaches_threshold && (9 * MS..12 * MS).contains(&apply.total_ns));
    let head = "[meta_0] apply batch slow: total=1";
    assert!(apply.line.starts_with(head) && apply.line.contains("route=0.00ms membership=0.00ms set_last_applied=1"));
    assert!(apply.line.contains("| woken_polled=0.0") && apply.line.contains("runnable=1"), "{}", apply.line);
    let connect = diagnosis.slow_lines.iter().find(|line| line.kind == Kind::Connect).unwrap();
    assert!(!connect.reaches_threshold);
    assert!(connect.line.starts_with("[connect] slow connect_id="), "{}", connect.line);
    let text = terminal::render(&diagnosis);
    assert!(text.contains("No CONNECTs reached RobustMQ's threshold of 30.0 ms"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80 || line.contains("regauge explain")), "{text}");
}

#[test]
fn the_evaluation_of_a_stamped_study_has_lanes() {
    let dir = tempfile::tempdir().unwrap();
    write_planted(dir.path(), 2, Planted { wal: 10 * MS, ..Planted::default() }, &["no-wal"], &[]);
    let evaluation = Evaluation::of(dir.path()).unwrap();
    evaluation.write_tables().unwrap();
    let json = serde_json::to_value(&evaluation.analysis).unwrap();
    let tail = &json["lanes"][0]["groups"][1];
    assert_eq!((&tail["step"], &tail["at"]), (&"connect".into(), &"tail".into()));
    assert!(tail["lanes_ns"]["storage"].as_u64().unwrap() > 8 * MS, "{tail}");
    assert!(tail["lanes_ns"]["storage_parts"]["wal"].as_u64().unwrap() > 8 * MS);
    assert!(json["lanes"][0]["unattributed_tail"].as_f64().unwrap() < 0.05);
    assert_eq!(json["lanes"][0]["largest_gap_ns"], 0);
    assert!(dir.path().join("tables/lanes/block=000/arm=as-deployed/lanes.parquet").is_file());
}
