//! The experiment against a stand-in for the regauge binary, which speaks the protocol and misbehaves on demand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use regauge_replayer::arms::Arms;
use regauge_replayer::experiment::{
    Event, ExperimentError, LoadsAsked, LoadsFound, Phase, Progress, Silent, StudyConfig, StudySummary, find_loads,
    order, run_study,
};
use regauge_replayer::gates::GateLimits;
use regauge_runtimes::Stop;
use regauge_traces::study::{Design, Loads, Manifest, RunRecord, run_dir};
use regauge_traces::{Kind, Meta, Redaction, Span, write_sealed};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const ARMS: &str = "base = \"a\"\n[[arm]]\nname = \"a\"\nstack = \"tokio-shared\"\n[[arm]]\nname = \"b\"\n\
                    stack = \"compio\"\nthreads = 1\n[[arm]]\nname = \"c\"\nstack = \"monoio\"\nthreads = 1\n";
const TWO_ARMS: &str = "base = \"a\"\n[[arm]]\nname = \"a\"\nstack = \"tokio-shared\"\n[[arm]]\nname = \"b\"\n\
                        stack = \"tokio-pinned\"\nthreads = 1\n";

/// Two clients that connect and publish over one second.
fn spans() -> Vec<Span> {
    (0..20)
        .map(|i| {
            let kind = if i < 2 { Kind::Connect } else { Kind::Publish };
            let mut span = Span::new(i, kind, 1_000_000_000 + i * 50_000_000);
            (span.session, span.connection) = (Some(100 + i % 2), Some((i % 2) as u32));
            (span.bytes, span.duration_ns) = (60, Some(1000));
            if kind == Kind::Publish {
                (span.qos, span.target) = (1, Some("topic".into()));
            }
            span
        })
        .collect()
}

struct Bench {
    dir: TempDir,
}

impl Bench {
    /// `behaviour` is sourced by the stand-in.
    fn new(behaviour: &str) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake-regauge.sh");
        symlink(script, dir.path().join("regauge")).unwrap();
        fs::write(dir.path().join("behaviour.sh"), behaviour).unwrap();
        write_sealed(dir.path().join("trace"), &Meta::recording("a test", Redaction::default()), &spans()).unwrap();
        Bench { dir }
    }

    fn behave(&self, behaviour: &str) {
        fs::write(self.dir.path().join("behaviour.sh"), behaviour).unwrap();
    }

    fn study(&self) -> PathBuf {
        self.dir.path().join("study")
    }

    fn config(&self, arms: &str, blocks: u32) -> StudyConfig {
        // Host gates are off: the host that tests run on is busy, and their judgement is tested elsewhere.
        let gates = GateLimits {
            achieved_ratio_min: 0.99,
            lag_p99_ns_max: 200_000,
            lag_p99_9_ns_max: 1_000_000,
            lag_p99_9_requests_min: 1000,
            lost_ratio_max: 1e-4,
            steal_percent_max: 100.0,
            spin_drift_max: 1e9,
            sync_drift_max: 1e9,
        };
        let exe = self.dir.path().join("regauge");
        let trace = self.dir.path().join("trace");
        let arms = Arms::parse(arms, "arms.toml").unwrap();
        let mut config = StudyConfig::new(exe, trace, self.study(), arms, 1.0).unwrap();
        config.workload.plan_hash = "plan-hash".into();
        (config.blocks, config.seed, config.warmup_ns) = (blocks, 7, 100_000_000);
        (config.layout, config.gates) = (Some("shared".into()), Some(gates));
        config
    }

    /// A study with a design: with a control arm, and `reruns` blocks that may be run again.
    fn designed(&self, blocks: u32, reruns: u32) -> StudyConfig {
        let mut config = self.config(TWO_ARMS, blocks);
        let control = config.arms.add_control();
        config.design = Some(Design { control, reruns_max: reruns, ..Design::default() });
        config
    }

    /// A study of two loads, sought with the stand-in's knee.
    fn find(&self, config: &StudyConfig, shares: &[f64]) -> Result<Option<LoadsFound>, ExperimentError> {
        let asked = LoadsAsked { trial_ns: 500_000_000, ..LoadsAsked::new(shares.to_vec(), None).unwrap() };
        find_loads(config, &asked, &mut Silent)
    }

    fn loads(&self) -> Loads {
        serde_json::from_str(&fs::read_to_string(self.study().join("loads.json")).unwrap()).unwrap()
    }

    fn run(&self, arms: &str, blocks: u32) -> StudySummary {
        run_study(self.config(arms, blocks), &mut Silent).unwrap()
    }

    fn record(&self, block: u32, arm: &str) -> RunRecord {
        let text = fs::read_to_string(run_dir(&self.study(), block, arm).join("run.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn manifest(&self) -> Manifest {
        serde_json::from_str(&fs::read_to_string(self.study().join("study.json")).unwrap()).unwrap()
    }

    /// Arms of the summary's invalid runs, each with its reasons in one text.
    fn invalid(&self, summary: &StudySummary) -> Vec<(String, String)> {
        summary.invalid.iter().map(|run| (run.arm.clone(), run.why.join("; "))).collect()
    }
}

#[test]
fn every_arm_runs_once_per_block_in_the_seeded_order() {
    let bench = Bench::new("");
    let summary = bench.run(ARMS, 2);
    assert_eq!(bench.invalid(&summary), []);
    assert_eq!(
        (summary.runs_planned, summary.runs_finished, summary.runs_resumed, summary.interrupted),
        (6, 6, 0, false)
    );
    let names = ["a", "b", "c"];
    for block in 0..2 {
        for (position, index) in order(7, block, &names).into_iter().enumerate() {
            let record = bench.record(block, names[index]);
            assert_eq!((record.block, record.position as usize), (block, position));
            assert!(record.valid && record.why_invalid.is_empty());
            assert_eq!((record.requests, record.errors), (90, 0));
            assert!(record.environment["data"]["mount_point"].is_string(), "{}", record.environment);
            assert!(record.environment["server_usage"]["minor_faults"].as_u64() > Some(0));
        }
    }
    let manifest = bench.manifest();
    assert_eq!(bench.record(1, "b").question, Some(manifest.question_hash()));
    assert_eq!((manifest.seed, manifest.blocks, manifest.base.as_str()), (7, 2, "a"));
    assert_eq!(manifest.arms[1].settings["threads"], 1);
    assert!(manifest.host["findings"].as_array().unwrap().len() > 10);
    assert_eq!(fs::read_to_string(bench.study().join("arms.toml")).unwrap(), ARMS);
    assert_eq!((manifest.requests, manifest.duration_ns, manifest.trace_source.as_str()), (20, 950_000_000, "a test"));
    assert_eq!(
        fs::read(bench.study().join("trace.parquet")).unwrap(),
        fs::read(bench.dir.path().join("trace")).unwrap()
    );
    assert!(!bench.study().join("tmp").exists());
    // The stacks differ in threads where the host has more than one CPU, and the summary names it.
    let differ: Vec<&str> = summary.differences.iter().map(|d| d.setting.as_str()).collect();
    let expected: &[&str] = if summary.layout.server_cpus.len() > 1 { &["cpus", "threads"] } else { &[] };
    assert_eq!(differ, expected);
}

#[test]
fn a_study_continues_with_whole_blocks() {
    let bench = Bench::new("");
    bench.run(TWO_ARMS, 2);
    let kept = bench.record(0, "a");
    fs::remove_file(run_dir(&bench.study(), 1, "b").join("run.json")).unwrap();
    fs::write(run_dir(&bench.study(), 1, "b").join("left over"), "").unwrap();
    // Whatever runs now is invalid: both runs of the second block, and none of the first.
    bench.behave("wrong=1");
    let summary = bench.run(TWO_ARMS, 2);
    assert_eq!((summary.runs_finished, summary.runs_resumed), (4, 2));
    assert_eq!(summary.invalid.iter().map(|run| run.block).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(serde_json::to_value(bench.record(0, "a")).unwrap(), serde_json::to_value(kept).unwrap());
    assert!(!run_dir(&bench.study(), 1, "b").join("left over").exists());
}

#[test]
fn a_study_does_not_go_on_where_the_host_is_another() {
    let bench = Bench::new("");
    bench.run(TWO_ARMS, 1);
    let path = bench.study().join("study.json");
    let mut manifest = bench.manifest();
    manifest.host["facts"]["kernel"] = "2.4.0".into();
    // What was not known before cannot differ.
    manifest.host["facts"]["cpu"]["model"] = serde_json::Value::Null;
    fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    let error = run_study(bench.config(TWO_ARMS, 2), &mut Silent).unwrap_err().to_string();
    assert!(error.contains("(different: the host's kernel (2.4.0 before, "), "{error}");
}

#[test]
fn a_damaged_record_costs_its_block_and_not_the_study() {
    let bench = Bench::new("");
    bench.run(TWO_ARMS, 2);
    fs::write(run_dir(&bench.study(), 1, "b").join("run.json"), "{").unwrap();
    let error = run_study(bench.config(TWO_ARMS, 2), &mut Silent).unwrap_err().to_string();
    assert!(error.contains("remove the directory of its block"), "{error}");
    fs::remove_dir_all(run_dir(&bench.study(), 1, "b").parent().unwrap()).unwrap();
    let summary = bench.run(TWO_ARMS, 2);
    assert_eq!((summary.runs_finished, summary.runs_resumed), (4, 2));
}

#[test]
fn another_study_in_the_same_place_is_refused_by_what_differs() {
    let bench = Bench::new("");
    bench.run(TWO_ARMS, 1);
    let mut config = bench.config(TWO_ARMS, 1);
    config.seed = 8;
    config.warmup_ns = 1;
    let error = run_study(config, &mut Silent).unwrap_err();
    assert!(matches!(&error, ExperimentError::OtherStudy { differs, .. } if differs == "seed, warmup_ns"), "{error}");

    let mut config = bench.config(TWO_ARMS, 1);
    config.layout = Some("disjoint".into());
    let error = run_study(config, &mut Silent).unwrap_err();
    assert!(matches!(&error, ExperimentError::OtherStudy { differs, .. } if differs == "layout"), "{error}");

    let rebuilt = fs::read_to_string(bench.dir.path().join("regauge")).unwrap() + "# rebuilt\n";
    fs::remove_file(bench.dir.path().join("regauge")).unwrap();
    fs::write(bench.dir.path().join("regauge"), rebuilt).unwrap();
    let error = run_study(bench.config(TWO_ARMS, 1), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("different: the regauge binary"), "{error}");

    fs::write(bench.study().join("study.json"), "{\"version\": 99}").unwrap();
    let error = run_study(bench.config(TWO_ARMS, 1), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("layout 99"), "{error}");
    fs::remove_file(bench.study().join("study.json")).unwrap();
    let error = run_study(bench.config(TWO_ARMS, 1), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("no study.json"), "{error}");
}

#[test]
fn a_study_may_get_more_blocks_later_and_never_fewer() {
    let bench = Bench::new("");
    bench.run(TWO_ARMS, 2);
    let first = bench.record(1, "a");
    let summary = bench.run(TWO_ARMS, 4);
    assert_eq!((summary.runs_planned, summary.runs_finished, summary.runs_resumed), (8, 8, 4));
    assert_eq!(serde_json::to_value(bench.record(1, "a")).unwrap(), serde_json::to_value(first).unwrap());
    let manifest = bench.manifest();
    let stages: Vec<u32> = manifest.stages.iter().map(|stage| stage.blocks).collect();
    assert_eq!((manifest.blocks, stages.as_slice()), (4, [2, 4].as_slice()));
    // The new blocks have the order that they would have had from the start.
    for (position, index) in order(7, 3, &["a", "b"]).into_iter().enumerate() {
        assert_eq!(bench.record(3, ["a", "b"][index]).position as usize, position);
    }
    let error = run_study(bench.config(TWO_ARMS, 3), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("blocks (4 were asked for before, 3 now)"), "{error}");
    // Asked again, nothing is left to do and no stage is added.
    assert_eq!(bench.run(TWO_ARMS, 4).runs_resumed, 8);
    assert_eq!(bench.manifest().stages.len(), 2);
}

#[test]
fn stamps_are_part_of_the_study_and_every_run_has_them() {
    let bench = Bench::new("");
    bench.run(TWO_ARMS, 1);
    assert!(bench.manifest().stamps);
    assert!(run_dir(&bench.study(), 0, "a").join("stamps.parquet").exists());
    let mut config = bench.config(TWO_ARMS, 1);
    config.stamps = false;
    let error = run_study(config, &mut Silent).unwrap_err();
    assert!(matches!(&error, ExperimentError::OtherStudy { differs, .. } if differs == "stamps"), "{error}");

    // A server that was asked for them and wrote none.
    let bench = Bench::new("[ \"$arm\" = b ] && stamps=");
    let summary = bench.run(TWO_ARMS, 1);
    let invalid = bench.invalid(&summary);
    assert_eq!((invalid.len(), invalid[0].0.as_str()), (1, "b"));
    assert!(invalid[0].1.starts_with("samples: without stamps.parquet"), "{invalid:?}");
}

#[test]
fn wrong_replies_make_a_run_invalid_and_the_study_goes_on() {
    let bench = Bench::new("[ \"$arm\" = b ] && wrong=3");
    let summary = bench.run(TWO_ARMS, 2);
    let invalid = bench.invalid(&summary);
    assert_eq!((summary.runs_finished, invalid.len()), (4, 2));
    assert!(invalid.iter().all(|(arm, why)| arm == "b" && why.starts_with("replies: 3 wrong")), "{invalid:?}");
    let record = bench.record(1, "b");
    assert!(!record.valid && record.errors == 3);
}

#[test]
fn a_server_that_crashes_is_an_invalid_run_with_its_last_words() {
    let bench =
        Bench::new("before_stopped() { [ \"$arm\" = b ] && { echo one >&2; echo the last words >&2; exit 3; }; }");
    let summary = bench.run(TWO_ARMS, 1);
    let invalid = bench.invalid(&summary);
    assert_eq!(invalid.len(), 1);
    assert_eq!(invalid[0].0, "b");
    assert!(invalid[0].1.contains("the server ended early with exit code 3: the last words"), "{}", invalid[0].1);
    let log = fs::read_to_string(run_dir(&bench.study(), 0, "b").join("server.log")).unwrap();
    assert_eq!(log, "one\nthe last words\n");
    assert!(!run_dir(&bench.study(), 0, "a").join("server.log").exists());
}

#[test]
fn a_server_that_dies_under_load_ends_the_driver_at_once() {
    // The driver would never end by itself, so only the server's death can have ended the run.
    let bench = Bench::new(
        "if [ \"$arm\" = b ]; then if [ $verb = serve ]; then echo '{\"ready\":{\"addr\":\"127.0.0.1:9\",\"pid\":1}}'; \
         echo '{\"failed\":\"no space left on device\"}'; exit 1; else while :; do sleep 0.2; done; fi; fi",
    );
    let summary = bench.run(TWO_ARMS, 1);
    let invalid = bench.invalid(&summary);
    assert_eq!(invalid.len(), 1);
    assert!(invalid[0].1.contains("the server failed: no space left on device"), "{}", invalid[0].1);
}

#[test]
fn an_arm_that_cannot_start_ends_the_study_before_its_first_block() {
    let bench = Bench::new(
        "[ \"$stack\" = compio ] && { echo '{\"failed\":\"io_uring is not permitted\"}'; echo noise >&2; exit 1; }",
    );
    let error = run_study(bench.config(ARMS, 1), &mut Silent).unwrap_err();
    assert!(matches!(&error, ExperimentError::ArmCannotStart { arm, .. } if arm == "b"), "{error}");
    assert!(error.to_string().contains("the server failed: io_uring is not permitted"), "{error}");
    assert!(!bench.study().join("study.json").exists() && !bench.study().join("runs").exists());
}

#[test]
fn a_server_that_hangs_is_ended_in_time() {
    let bench = Bench::new(
        "echo $$ >> \"$here/pids\"\n\
         before_ready() { [ \"$arm\" = a ] && while :; do sleep 0.2; done; }\n\
         before_stopped() { [ \"$arm\" = b ] && while :; do sleep 0.2; done; }",
    );
    let mut config = bench.config(TWO_ARMS, 1);
    (config.timeouts.start, config.timeouts.stop) = (Duration::from_secs(5), Duration::from_secs(5));
    let summary = run_study(config, &mut Silent).unwrap();
    let mut invalid = bench.invalid(&summary);
    invalid.sort();
    assert!(invalid[0].1.contains("the server did not get ready within 5 s and was ended"), "{invalid:?}");
    assert!(invalid[1].1.contains("the server did not stop within 5 s and was ended"), "{invalid:?}");
    for pid in fs::read_to_string(bench.dir.path().join("pids")).unwrap().lines() {
        assert!(!Path::new("/proc").join(pid).exists(), "process {pid} is still there");
    }
}

#[test]
fn a_driver_that_fails_or_talks_nonsense_is_an_invalid_run() {
    let bench = Bench::new(
        "if [ $verb = drive ]; then case $arm in b) echo cannot connect >&2; exit 1;; c) echo hello; exit 0;; esac; fi",
    );
    let summary = bench.run(ARMS, 1);
    let mut invalid = bench.invalid(&summary);
    invalid.sort();
    assert_eq!(invalid.len(), 2);
    assert!(invalid[0].1.contains("the driver ended early with exit code 1: cannot connect"), "{invalid:?}");
    assert!(invalid[1].1.contains("the driver wrote `hello`"), "{invalid:?}");
}

#[test]
fn arms_that_end_in_different_states_are_told_apart() {
    let bench = Bench::new("[ \"$arm\" = a ] && meta=m2");
    let summary = bench.run(ARMS, 1);
    let invalid = bench.invalid(&summary);
    // Two of three agree, so the base itself is the odd one.
    assert_eq!(invalid.len(), 1);
    assert_eq!(invalid[0].0, "a");
    assert!(invalid[0].1.contains("meta=m2") && invalid[0].1.contains("meta=m1"), "{}", invalid[0].1);

    let bench = Bench::new("[ \"$arm\" = b ] && replies=r2");
    let summary = bench.run(TWO_ARMS, 1);
    let invalid = bench.invalid(&summary);
    assert_eq!(invalid.len(), 1);
    assert_eq!(invalid[0].0, "b");
    assert!(
        invalid[0].1.contains("replies_digest: r2") && invalid[0].1.contains("either of the two"),
        "{}",
        invalid[0].1
    );
}

/// Stops the study as soon as a driver has run for a moment.
struct Impatient(Stop);

impl Progress for Impatient {
    fn update(&mut self, event: &Event<'_>) {
        assert!((0.0..=1.0).contains(&event.fraction));
        if event.phase == Phase::Drive {
            self.0.stop();
        }
    }
}

#[test]
fn an_interrupted_study_leaves_no_process_and_goes_on_later() {
    let slow = "echo $$ >> \"$here/pids\"\nbefore_driven() { if [ -e \"$here/slow\" ]; then while :; do sleep 0.2; done; fi; }";
    let bench = Bench::new(slow);
    fs::write(bench.dir.path().join("slow"), "").unwrap();
    let config = bench.config(TWO_ARMS, 1);
    let mut impatient = Impatient(config.stop.clone());
    let summary = run_study(config, &mut impatient).unwrap();
    assert_eq!((summary.interrupted, summary.runs_finished), (true, 0));
    for pid in fs::read_to_string(bench.dir.path().join("pids")).unwrap().lines() {
        assert!(!Path::new("/proc").join(pid).exists(), "process {pid} is still there");
    }
    fs::remove_file(bench.dir.path().join("slow")).unwrap();
    let summary = bench.run(TWO_ARMS, 1);
    assert_eq!((summary.interrupted, summary.runs_finished, summary.invalid.len()), (false, 2, 0));
}

#[test]
fn a_full_disk_ends_the_study_with_one_clear_sentence() {
    let bench =
        Bench::new("before_driven() { case $out in *block=001*) ln -s /dev/full \"$out/run.json.tmp\";; esac; }");
    let error = run_study(bench.config(TWO_ARMS, 2), &mut Silent).unwrap_err();
    assert!(matches!(error, ExperimentError::DiskFull { .. }), "{error}");
    assert!(error.to_string().starts_with("the disk is full: cannot write"), "{error}");
    assert!(bench.record(0, "a").valid && bench.record(0, "b").valid);
}

#[test]
fn two_processes_cannot_work_on_one_study() {
    let bench = Bench::new("");
    fs::create_dir(bench.study()).unwrap();
    let lock = fs::File::create(bench.study().join(".lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let error = run_study(bench.config(TWO_ARMS, 1), &mut Silent).unwrap_err();
    assert!(matches!(error, ExperimentError::Busy { .. }), "{error}");
}

#[test]
fn senseless_requests_are_refused_before_anything_is_written() {
    let bench = Bench::new("");
    let refuse = |change: &dyn Fn(&mut StudyConfig), words: &str| {
        let mut config = bench.config(TWO_ARMS, 1);
        change(&mut config);
        let error = run_study(config, &mut Silent).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refuse(&|c| c.blocks = 0, "0 blocks");
    refuse(&|c| c.warmup_ns = c.workload.duration_ns + 1, "leaves nothing");
    refuse(&|c| c.warmup_ns = c.workload.duration_ns, "leaves nothing");
    refuse(&|c| c.workload.requests = 0, "no request");
    refuse(&|c| c.exe = c.exe.join("absent"), "no program");
    assert!(!bench.study().exists());
    refuse(&|c| c.layout = Some("sideways".into()), "not possible on this host");
}

#[test]
fn on_two_cpus_a_pilot_takes_the_layout_in_which_the_driver_is_on_time() {
    let allowed = regauge_replayer::host::cpu::allowed();
    let Some(two) = allowed.get(..2) else {
        eprintln!("this host has one CPU: there is no choice to test");
        return;
    };
    regauge_runtimes::affinity::bind_thread(two).unwrap();
    // Late whenever it spins on a CPU of its own.
    let bench = Bench::new(
        "[ \"$arm\" = pilot ] && [ $verb = drive ] && [ \"$(field \"$options\" spin)\" = true ] && lag_p99=9000000",
    );
    let mut config = bench.config(TWO_ARMS, 1);
    config.layout = None;
    let summary = run_study(config, &mut Silent).unwrap();
    assert_eq!(summary.layout.name, "shared");
    assert!(summary.layout.why.contains("disjoint: driver_lag_p99: 9000.0 µs late"), "{}", summary.layout.why);
    assert_eq!(bench.manifest().layout, summary.layout);

    let bench = Bench::new("");
    let mut config = bench.config(TWO_ARMS, 1);
    config.layout = None;
    let summary = run_study(config, &mut Silent).unwrap();
    assert_eq!((summary.layout.name.as_str(), bench.invalid(&summary)), ("disjoint", vec![]));
    assert_eq!(summary.layout.driver_cpus, [two[1]]);
}

#[test]
fn the_control_runs_in_every_block_as_any_other_arm() {
    let bench = Bench::new("");
    let summary = run_study(bench.designed(2, 2), &mut Silent).unwrap();
    assert_eq!((summary.runs_finished, summary.blocks_complete, summary.blocks_rerun), (6, 2, 0));
    let manifest = bench.manifest();
    let arms: Vec<&str> = manifest.arms.iter().map(|arm| arm.name.as_str()).collect();
    assert_eq!(
        (arms.as_slice(), manifest.design.unwrap().control.unwrap().as_str()),
        (["a", "b", "a-again"].as_slice(), "a-again")
    );
    assert_eq!(manifest.arms[0].settings, manifest.arms[2].settings);
    for (position, index) in order(7, 1, &arms).into_iter().enumerate() {
        assert_eq!(bench.record(1, arms[index]).position as usize, position);
    }
    // The file stays as it was asked for.
    assert_eq!(fs::read_to_string(bench.study().join("arms.toml")).unwrap(), TWO_ARMS);
}

#[test]
fn a_flagged_block_stays_and_a_whole_one_follows_the_last() {
    // The driver of one arm is late in block 1 alone.
    let late = "case $out in *block=001*arm=b*) lag_p99=9000000;; esac";
    let bench = Bench::new(late);
    let summary = run_study(bench.designed(3, 5), &mut Silent).unwrap();
    assert_eq!((summary.blocks_wanted, summary.blocks_complete, summary.blocks_flagged), (3, 3, 1));
    assert_eq!((summary.blocks_rerun, summary.runs_finished, summary.runs_planned), (1, 12, 12));
    assert_eq!(bench.invalid(&summary).len(), 1);
    assert!(!bench.record(1, "b").valid && bench.record(1, "a").valid && bench.record(3, "b").valid);
    assert_eq!(bench.manifest().blocks, 3);
    // The same command finds everything done: the count follows from the files.
    bench.behave("wrong=1");
    let again = run_study(bench.designed(3, 5), &mut Silent).unwrap();
    assert_eq!((again.runs_resumed, again.runs_finished, again.blocks_complete), (12, 12, 3));
}

#[test]
fn reruns_end_with_their_budget_and_a_larger_one_goes_on() {
    let bench = Bench::new("[ \"$arm\" = b ] && wrong=1");
    let summary = run_study(bench.designed(2, 1), &mut Silent).unwrap();
    assert_eq!((summary.blocks_complete, summary.blocks_flagged, summary.blocks_rerun), (0, 3, 1));
    // Without a design no block is run again.
    let plain = Bench::new("[ \"$arm\" = b ] && wrong=1");
    assert_eq!(plain.run(TWO_ARMS, 2).blocks_flagged, 2);

    bench.behave("");
    let more = run_study(bench.designed(2, 4), &mut Silent).unwrap();
    assert_eq!((more.blocks_complete, more.blocks_flagged, more.runs_resumed), (2, 3, 9));
    assert_eq!(bench.manifest().design.unwrap().reruns_max, 4);
    let error = run_study(bench.designed(2, 3), &mut Silent).unwrap_err().to_string();
    assert!(error.contains("design.reruns_max (4 were allowed before, 3 now)"), "{error}");
}

/// Counts what the watcher is told.
#[derive(Default)]
struct Seen {
    blocks: Vec<(u32, u32, u32, u32)>,
    notes: Vec<String>,
}

impl Progress for Seen {
    fn update(&mut self, event: &Event<'_>) {
        assert!((0.0..=1.0).contains(&event.fraction) && event.eta.is_some());
        if event.phase == Phase::Prepare {
            self.blocks.push((event.block, event.blocks, event.complete, event.flagged));
        }
    }

    fn note(&mut self, sentence: &str) {
        self.notes.push(sentence.to_owned());
    }
}

#[test]
fn progress_counts_complete_and_flagged_blocks_and_says_when_the_budget_is_spent() {
    let bench = Bench::new("case $out in *block=000*arm=b*) wrong=1;; esac");
    let mut config = bench.config(TWO_ARMS, 2);
    config.design = Some(Design { reruns_max: 1, ..Design::default() });
    let mut seen = Seen::default();
    run_study(config, &mut seen).unwrap();
    let each: Vec<_> = seen.blocks.iter().step_by(2).copied().collect();
    assert_eq!(each, [(0, 2, 0, 0), (1, 2, 0, 1), (2, 2, 1, 1)]);
    assert!(seen.notes.is_empty(), "{:?}", seen.notes);

    let bench = Bench::new("wrong=1");
    let mut seen = Seen::default();
    run_study(bench.designed(2, 1), &mut seen).unwrap();
    assert!(seen.notes[0].starts_with("0 of the 2 blocks wanted are complete"), "{:?}", seen.notes);
}

#[test]
fn what_was_registered_cannot_change() {
    let bench = Bench::new("");
    run_study(bench.designed(1, 1), &mut Silent).unwrap();
    let refused = |change: &dyn Fn(&mut Design)| {
        let mut config = bench.designed(1, 1);
        change(config.design.as_mut().unwrap());
        run_study(config, &mut Silent).unwrap_err().to_string()
    };
    let said = refused(&|d| d.worth_ratio = 0.7);
    assert!(said.contains("design.worth_ratio (0.8 was registered, 0.7 is asked for now)"), "{said}");
    assert!(refused(&|d| d.primary_step = "connect".into()).contains("design.primary_step"));
    assert!(refused(&|d| d.until = Some(0.2)).contains("design.until"));
    assert!(refused(&|d| d.primary_step = "subscribe".into()).contains("choose one of all, connect, publish"));
    assert!(refused(&|d| d.control = None).contains("design.control"));
    // A study that was begun without a design gets none afterwards.
    let bench = Bench::new("");
    bench.run(TWO_ARMS, 1);
    let mut config = bench.config(TWO_ARMS, 1);
    config.design = Some(Design::default());
    let error = run_study(config, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("design (it is fixed before the first run, or never)"), "{error}");
}

#[test]
fn a_second_stage_is_sized_once_and_goes_on_from_there() {
    let bench = Bench::new("");
    let config = || {
        let mut config = bench.designed(2, 2);
        config.design.as_mut().unwrap().until = Some(0.2);
        config
    };
    let first = run_study(config(), &mut Silent).unwrap();
    assert_eq!((first.blocks_wanted, first.sized), (2, false));
    assert!(first.block_s.is_some_and(|seconds| seconds > 0.0));
    // Asked again before it was sized, nothing happens.
    assert_eq!(run_study(config(), &mut Silent).unwrap().runs_resumed, 6);

    // The second stage is stopped in its first run, and its size is written down by then.
    bench.behave("before_driven() { if [ -e \"$here/slow\" ]; then while :; do sleep 0.2; done; fi; }");
    fs::write(bench.dir.path().join("slow"), "").unwrap();
    let second = StudyConfig { sized: Some(4), ..config() };
    let mut impatient = Impatient(second.stop.clone());
    assert!(run_study(second, &mut impatient).unwrap().interrupted);
    fs::remove_file(bench.dir.path().join("slow")).unwrap();
    let stages: Vec<(u32, bool)> = bench.manifest().stages.iter().map(|stage| (stage.blocks, stage.sized)).collect();
    assert_eq!((stages.as_slice(), bench.manifest().blocks), ([(2, false), (4, true)].as_slice(), 4));

    // The first command goes on in the second stage.
    let summary = run_study(config(), &mut Silent).unwrap();
    assert_eq!((summary.blocks_wanted, summary.blocks_complete, summary.sized), (4, 4, true));
    assert_eq!(summary.runs_resumed, 6);
    let refused = |config: StudyConfig| run_study(config, &mut Silent).unwrap_err().to_string();
    assert!(refused(StudyConfig { sized: Some(9), ..config() }).contains("blocks (4 were asked for before, 9 now)"));
    assert!(refused(StudyConfig { blocks: 3, ..config() }).contains("blocks (2 were asked for before, 3 now)"));
    assert!(refused(StudyConfig { sized: Some(9), ..bench.designed(2, 2) }).contains("does not follow"));
    assert_eq!(bench.manifest().stages.len(), 2);
}

/// The stand-in keeps up to a speed: beyond it the last reply comes late.
fn knees(a: &str, b: &str) -> String {
    format!(
        "speed=$(field \"$options\" speed)\n\
         if [ $verb = drive ]; then stack=$(cat \"$out/stack\"); else case $data in *knee*) echo \"$stack\" \
         >\"$data/../stack\";; esac; fi\n\
         case $stack in tokio-shared) knee={a};; *) knee={b};; esac\n\
         if awk \"BEGIN {{exit !($speed+0 > $knee)}}\"; then {{ makespan=9000000000; }}; fi"
    )
}

#[test]
fn loads_are_shares_of_the_knee_of_the_base() {
    let bench = Bench::new(&knees("0.5", "0.3"));
    let config = bench.designed(1, 0);
    let found = bench.find(&config, &[0.25, 0.9, 0.75]).unwrap().unwrap();
    let knees = &found.loads.knees;
    // The control is the base's code: its knee is not sought.
    let arms: Vec<&str> = knees.iter().map(|knee| knee.arm.as_str()).collect();
    assert_eq!(arms, ["a", "b"]);
    for (knee, planted) in knees.iter().zip([0.5, 0.3]) {
        let kept = knee.probes.iter().filter(|p| p.kept).map(|p| p.speed).fold(0.0, f64::max);
        let missed = knee.probes.iter().filter(|p| !p.kept).map(|p| p.speed).fold(f64::MAX, f64::min);
        assert!(kept <= planted && planted < missed && missed <= kept * 1.051, "{knee:?}");
        assert_eq!(knee.limited_by, "server");
        assert!(knee.probes.iter().all(|p| p.kept == p.why.is_empty()), "{knee:?}");
    }
    let dirs: Vec<&str> = found.loads.loads.iter().map(|load| load.dir.as_str()).collect();
    assert_eq!(dirs, ["load=0.25", ".", "load=0.9"]);
    let kept = knees[0].probes.iter().filter(|p| p.kept).map(|p| p.speed).fold(0.0, f64::max);
    assert!((found.loads.loads[2].speed / kept - 0.9).abs() < 1e-3);
    assert_eq!(bench.loads(), found.loads);
    assert!(!bench.study().join("tmp").exists() && !bench.study().join("study.json").exists());

    // Found knees are not sought again: nothing would keep up now.
    bench.behave("wrong=1");
    assert_eq!(bench.find(&config, &[0.25, 0.75, 0.9]).unwrap().unwrap(), found);
    let other = bench.find(&config, &[0.25, 0.75]).unwrap_err().to_string();
    assert!(other.contains("different: loads)"), "{other}");
    let mut seed = bench.designed(1, 0);
    seed.seed = 8;
    assert!(bench.find(&seed, &[0.25, 0.75, 0.9]).unwrap_err().to_string().contains("different: seed)"));
    // Nor can a study of one load be begun in its place.
    let error = run_study(bench.designed(1, 0), &mut Silent).unwrap_err().to_string();
    assert!(error.contains("loads (it was begun with several)"), "{error}");
    // The study itself follows, in the layout that the knees were found in.
    bench.behave("");
    let mut config = bench.designed(1, 0);
    config.settled = Some(found.layout.clone());
    assert_eq!(run_study(config, &mut Silent).unwrap().blocks_complete, 1);
    assert_eq!(bench.manifest().layout, found.layout);
}

#[test]
fn a_search_that_is_stopped_keeps_its_trials() {
    let bench = Bench::new(&knees("0.5", "0.3"));
    /// Stops in the third trial.
    struct Third(Stop, u32);
    impl Progress for Third {
        fn update(&mut self, event: &Event<'_>) {
            assert!((0.0..=1.0).contains(&event.fraction));
            self.1 += u32::from(event.phase == Phase::Knee);
            if self.1 > 2 {
                self.0.stop();
            }
        }
    }
    let config = bench.designed(1, 0);
    let asked = LoadsAsked { trial_ns: 500_000_000, ..LoadsAsked::new(vec![0.5], None).unwrap() };
    let mut third = Third(config.stop.clone(), 0);
    assert_eq!(find_loads(&config, &asked, &mut third).unwrap(), None);
    let kept = bench.loads().knees[0].probes.clone();
    assert!((1..=3).contains(&kept.len()), "{kept:?}");
    let found = bench.find(&bench.designed(1, 0), &[0.5]).unwrap().unwrap();
    assert_eq!(found.loads.knees[0].probes[..kept.len()], kept);
}

#[test]
fn a_driver_that_is_late_first_ends_the_search_as_such() {
    let bench =
        Bench::new(&knees("9", "9").replace("makespan=9000000000", "lag_p99=9000000").replace("knee=9", "knee=0.2"));
    let found = bench.find(&bench.designed(1, 0), &[0.5]).unwrap().unwrap();
    assert!(found.loads.knees.iter().all(|knee| knee.limited_by == "driver"), "{:?}", found.loads.knees);

    let bench = Bench::new("makespan=9000000000");
    let error = bench.find(&bench.designed(1, 0), &[0.5]).unwrap_err().to_string();
    assert!(
        error.starts_with("the base arm `a` kept up at no rate; at 100/s the server answered 11 of 100"),
        "{error}"
    );
}
