#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use regauge_traces::study::RunRecord;
use serde_json::json;

fn layout() -> LayoutRecord {
    LayoutRecord {
        name: "disjoint".into(),
        driver_cpus: vec![3],
        server_cpus: vec![0, 1, 2],
        why: String::new(),
        limits: Vec::new(),
    }
}

fn arm(stack: &str) -> ArmRecord {
    let settings = regauge_runtimes::settings::Settings { threads: 2, cpus: vec![0, 1], ..Default::default() };
    ArmRecord { name: "x".into(), stack: stack.into(), settings: json!(settings) }
}

fn driver() -> Value {
    json!({
        "plan_hash": "p", "requests": 10_000, "measured": 9_000, "errors": 0, "lost": 0, "wrong": 0, "unsent": 0,
        "offered_per_s": 1000.0, "achieved_per_s": 700.0, "tried_per_s": 999.0, "cpu": 3, "spin": true, "replies_digest": "r",
        "driver_lag_ns": {"p50": 900, "p99": 20_000, "p99_9": 90_000, "max": 400_000},
        // A server that does not read: the gates do not look at it.
        "send_lag_ns": {"p50": 900, "p99": 70_000_000, "p99_9": 90_000_000, "max": 400_000_000},
        "read_lag_ns": {"p50": 900, "p99": 20_000, "p99_9": 90_000, "max": 400_000},
        "run_delay_ns": 5, "lag_refuses_above": 99.99, "setup_failed": 0, "violations": 0,
        "held": {"requests": 300, "max_ns": 400_000_000}, "makespan_ns": 10_000_000_000_u64, "deliveries": 0,
        "cpu_ns": 1, "connections": 2, "failed_connections": 0, "first_fault": null, "resized": 0, "t0_ns": 1,
    })
}

fn server() -> Value {
    json!({
        "attestation": {
            "stack": "compio", "back_end": "io_uring", "rings": 2, "epolls": 0, "blocking_threads": 32,
            "threads": [{"name": "main", "cpus_allowed": "0-2"}, {"name": "shard-0", "cpus_allowed": "0"},
                        {"name": "shard-1", "cpus_allowed": "1"}],
            "iowq_bounded": 32, "ring_entries": 1024, "durability": "fdatasync", "placement": "offload",
            "files": "native", "kernel": "6.1.0", "roles": "one", "role_runtimes": [], "eager_handoff": false,
            "neighbours": 0, "raft_sync": "log", "last_applied": "own-write", "durable_sessions": true,
            "meta_store": "disk", "session_batch": 100, "nodes": 1,
        },
        "digest": {"meta": "m", "records": 5},
    })
}

fn surroundings() -> Surroundings {
    let canary = Canary { spin_ns: 1_000_000, sync_p50_ns: 100_000, sync_max_ns: 900_000 };
    Surroundings { steal_percent: Some(0.4), canary_before: Some(canary), canary_after: Some(canary) }
}

fn judge(driver: &Value, server: &Value, surroundings: &Surroundings) -> Vec<Gate> {
    let dir = tempfile::tempdir().unwrap();
    for name in ["requests.parquet", "histograms.parquet", "connections.parquet", "stamps.parquet"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    let (arm, layout) = (arm("compio"), layout());
    let facts = RunFacts {
        arm: &arm,
        layout: &layout,
        plan_hash: "p",
        driver,
        server,
        dir: dir.path(),
        stamps: true,
        surroundings,
    };
    of_run(&facts, &GateLimits::for_layout(&layout))
}

fn failed(gates: &[Gate]) -> Vec<&str> {
    gates.iter().filter(|g| !g.passed).map(|g| g.name.as_str()).collect()
}

#[test]
fn a_sound_run_passes_every_gate() {
    let gates = judge(&driver(), &server(), &surroundings());
    assert_eq!(failed(&gates), [] as [&str; 0], "{gates:?}");
    assert_eq!(gates.len(), 17);
    assert!(sentences(&gates).is_empty());
}

#[test]
fn each_fault_of_the_driver_fails_its_own_gate() {
    let cases = [
        ("/plan_hash", json!("other"), "plan"),
        ("/cpu", json!(null), "driver_cpu"),
        ("/spin", json!(false), "driver_cpu"),
        ("/tried_per_s", json!(989.0), "offered"),
        ("/offered_per_s", json!(0.0), ""),
        ("/driver_lag_ns/p99", json!(200_001), "driver_lag_p99"),
        ("/driver_lag_ns/p99_9", json!(1_000_001), "driver_lag_p99_9"),
        ("/read_lag_ns/p99", json!(200_001), "read_lag_p99"),
        ("/read_lag_ns/p99_9", json!(1_000_001), "read_lag_p99_9"),
        ("/measured", json!(0), "measured"),
        ("/failed_connections", json!(1), "connections"),
        ("/setup_failed", json!(1), "connections"),
        ("/violations", json!(1), "protocol"),
        // What a slow server held back was sent late, but tried on time.
        ("/achieved_per_s", json!(1.0), ""),
        ("/wrong", json!(1), "replies"),
        ("/lost", json!(2), "errors"),
        ("/unsent", json!(2), "errors"),
        ("/lost", json!(null), "driver_record"),
    ];
    for (field, value, gate) in cases {
        let mut driver = driver();
        *driver.pointer_mut(field).unwrap() = value;
        let gates = judge(&driver, &server(), &surroundings());
        let expected: Vec<&str> = if gate.is_empty() { vec![] } else { vec![gate] };
        // A planned rate of zero gives an infinite ratio, and NaN when nothing was achieved either: only that fails.
        assert_eq!(failed(&gates), expected, "{field}");
    }
    let mut nothing = driver();
    nothing["offered_per_s"] = json!(0.0);
    nothing["tried_per_s"] = json!(0.0);
    assert_eq!(failed(&judge(&nothing, &server(), &surroundings())), ["offered"]);
    let mut none = driver();
    none["requests"] = json!(0);
    assert_eq!(failed(&judge(&none, &server(), &surroundings())), ["errors"]);
}

#[test]
fn few_requests_are_not_asked_for_their_p99_9() {
    let mut driver = driver();
    driver["requests"] = json!(300);
    driver["driver_lag_ns"]["p99_9"] = json!(50_000_000);
    driver["read_lag_ns"]["p99_9"] = json!(50_000_000);
    assert_eq!(failed(&judge(&driver, &server(), &surroundings())), [] as [&str; 0]);
}

#[test]
fn each_deviation_from_the_arm_fails_the_attestation_and_is_named() {
    let cases = [
        ("/attestation/stack", json!("monoio"), "stack monoio instead of compio"),
        ("/attestation/back_end", json!("epoll"), "back-end epoll instead of io_uring"),
        ("/attestation/durability", json!("none"), "durability none instead of fdatasync"),
        ("/attestation/iowq_bounded", json!(8), "io-wq width 8 instead of 32"),
        ("/attestation/ring_entries", json!(null), "ring entries unknown instead of 1024"),
        ("/attestation/blocking_threads", json!(30), "a blocking pool of 30 instead of 32"),
        ("/attestation/placement", json!("inline"), "placement Inline instead of Offload"),
        ("/attestation/files", json!("inline"), "files Inline instead of Native"),
        ("/attestation/roles", json!("three"), "roles three instead of one"),
        (
            "/attestation/role_runtimes",
            json!([{"role": "meta", "threads": 4, "blocking_threads": 32, "iowq_bounded": null, "ring_entries": null}]),
            "threads of the meta runtime: 4 instead of 1",
        ),
        ("/attestation/eager_handoff", json!(true), "eager_handoff true instead of false"),
        ("/attestation/neighbours", json!(1), "neighbours 1 instead of 0"),
        ("/attestation/raft_sync", json!("all"), "raft_sync all instead of log"),
        ("/attestation/last_applied", json!("merged"), "last_applied merged instead of own-write"),
        ("/attestation/durable_sessions", json!(false), "durable_sessions false instead of true"),
        ("/attestation/meta_store", json!("memory"), "meta_store memory instead of disk"),
        ("/attestation/session_batch", json!(1), "session_batch 1 instead of 100"),
        ("/attestation/nodes", json!(3), "nodes 3 instead of 1"),
        ("/attestation/threads/0/cpus_allowed", json!("0-3"), "thread main may run on CPUs 0-3"),
        ("/attestation/threads/2/cpus_allowed", json!("0"), "no thread bound to CPU 1"),
        ("/attestation/threads", json!(7), "cannot be read"),
        ("/attestation", json!(null), "cannot be read"),
    ];
    for (field, value, words) in cases {
        let mut server = server();
        *server.pointer_mut(field).unwrap() = value;
        let gates = judge(&driver(), &server, &surroundings());
        assert_eq!(failed(&gates), ["attestation"], "{field}");
        assert!(sentences(&gates)[0].contains(words), "{:?}", sentences(&gates));
    }
    let mut silent = server();
    silent["attestation"].as_object_mut().unwrap().remove("nodes");
    assert!(sentences(&judge(&driver(), &silent, &surroundings()))[0].contains("missing field `nodes`"));
    // Two shards share 31 threads as 15 + 15 or 15 + 16: a remainder is no deviation.
    let mut server = server();
    server["attestation"]["blocking_threads"] = json!(31);
    assert_eq!(failed(&judge(&driver(), &server, &surroundings())), [] as [&str; 0]);
}

#[test]
fn a_host_that_changed_fails_and_so_does_one_that_was_not_watched() {
    let with = |change: &dyn Fn(&mut Surroundings)| {
        let mut surroundings = surroundings();
        change(&mut surroundings);
        failed(&judge(&driver(), &server(), &surroundings)).join(" ")
    };
    let slower = |spin: u64, sync: u64| Some(Canary { spin_ns: spin, sync_p50_ns: sync, sync_max_ns: sync });
    assert_eq!(with(&|s| s.steal_percent = Some(3.1)), "steal");
    assert_eq!(with(&|s| s.steal_percent = None), "steal");
    assert_eq!(with(&|s| s.canary_after = slower(1_600_000, 100_000)), "canary_spin");
    assert_eq!(with(&|s| s.canary_before = slower(1_600_000, 100_000)), "canary_spin");
    assert_eq!(with(&|s| s.canary_after = slower(1_000_000, 600_000)), "canary_sync");
    assert_eq!(with(&|s| s.canary_before = None), "canary");
    // Both below what a device needs: noise of a cache, no change of the host.
    assert_eq!(with(&|s| (s.canary_before, s.canary_after) = (slower(1_000_000, 900), slower(1_000_000, 9_000))), "");
}

#[test]
fn absent_samples_fail() {
    let (arm, layout) = (arm("compio"), layout());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("requests.parquet"), "").unwrap();
    let (driver, server, surroundings) = (driver(), server(), surroundings());
    let mut facts = RunFacts {
        arm: &arm,
        layout: &layout,
        plan_hash: "p",
        driver: &driver,
        server: &server,
        dir: dir.path(),
        stamps: true,
        surroundings: &surroundings,
    };
    let limits = GateLimits::for_layout(&layout);
    assert_eq!(failed(&of_run(&facts, &limits)), ["samples"]);
    for name in ["requests.parquet", "histograms.parquet", "connections.parquet"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    let gates = of_run(&facts, &limits);
    assert!(sentences(&gates)[0].starts_with("samples: without stamps.parquet"), "{:?}", sentences(&gates));
    facts.stamps = false;
    assert_eq!(failed(&of_run(&facts, &limits)), [] as [&str; 0]);
}

fn run(arm: &str, state: Option<&str>, sound: bool) -> RunRecord {
    RunRecord {
        block: 0,
        arm: arm.into(),
        position: 0,
        started: String::new(),
        question: None,
        valid: sound,
        why_invalid: Vec::new(),
        gates: vec![gate("plan", sound, "", "")],
        requests: 1,
        errors: 0,
        driver: json!({"replies_digest": "r"}),
        server: state.map_or(json!({}), |s| json!({"digest": {"meta": s, "records": 1}})),
        environment: Value::Null,
    }
}

/// Judges a block with base `a` and gives the names of its invalid runs.
fn invalid(mut runs: Vec<RunRecord>) -> String {
    block::judge(&mut runs, "a", None);
    let once = json!(runs);
    block::judge(&mut runs, "a", None);
    assert_eq!(once, json!(runs), "judging twice changes something");
    runs.iter().filter(|r| !r.valid).map(|r| r.arm.as_str()).collect()
}

#[test]
fn equal_states_pass() {
    assert_eq!(invalid(vec![run("a", Some("1"), true), run("b", Some("1"), true), run("c", Some("1"), true)]), "");
    assert_eq!(invalid(vec![run("a", Some("1"), true)]), "");
}

#[test]
fn the_only_sound_arm_of_a_block_is_not_compared_with_itself() {
    let words = |runs: &mut [RunRecord], at: usize| {
        block::judge(runs, "a", None);
        runs[at].gates.iter().filter(|g| g.name.ends_with("_digest")).map(|g| g.measured.clone()).collect::<String>()
    };
    let mut alone = vec![run("a", Some("1"), true), run("b", Some("1"), false)];
    assert_eq!(words(&mut alone, 0).matches("not compared").count(), 2, "{alone:?}");
    let mut two = vec![run("a", Some("1"), true), run("b", Some("1"), true)];
    assert!(!words(&mut two, 0).contains("not compared"));
}

#[test]
fn a_majority_of_three_or_more_names_the_odd_one_even_if_it_is_the_base() {
    assert_eq!(invalid(vec![run("a", Some("1"), true), run("b", Some("1"), true), run("c", Some("2"), true)]), "c");
    assert_eq!(invalid(vec![run("a", Some("2"), true), run("b", Some("1"), true), run("c", Some("1"), true)]), "a");
}

#[test]
fn without_a_majority_the_base_is_the_measure() {
    assert_eq!(invalid(vec![run("a", Some("1"), true), run("b", Some("2"), true)]), "b");
    let four = ["1", "1", "2", "2"].iter().zip(["a", "b", "c", "d"]).map(|(s, arm)| run(arm, Some(s), true)).collect();
    assert_eq!(invalid(four), "cd");
    let three = ["1", "2", "3"].iter().zip(["a", "b", "c"]).map(|(s, arm)| run(arm, Some(s), true)).collect();
    assert_eq!(invalid(three), "bc");
}

#[test]
fn unsound_runs_have_no_vote() {
    // The base lost requests: its state differs for that reason, and the others agree.
    assert_eq!(invalid(vec![run("a", Some("9"), false), run("b", Some("1"), true), run("c", Some("1"), true)]), "a");
    // The others disagree and no base can be asked: nobody knows who is right.
    assert_eq!(invalid(vec![run("a", Some("9"), false), run("b", Some("1"), true), run("c", Some("2"), true)]), "abc");
}

#[test]
fn what_changes_latencies_only_takes_no_vote_away() {
    let mut late = run("a", Some("1"), true);
    late.gates.push(gate("driver_lag_p99", false, "", ""));
    // Invalid for its lateness, but its state is still the measure.
    assert_eq!(invalid(vec![late, run("b", Some("2"), true)]), "ab");
}

#[test]
fn tolerated_errors_explain_another_state() {
    let mut lossy = run("b", Some("2"), true);
    lossy.errors = 1;
    assert_eq!(invalid(vec![run("a", Some("1"), true), lossy.clone()]), "");
    // And it has no vote: without it there is no majority of three.
    assert_eq!(invalid(vec![run("a", Some("2"), true), lossy, run("c", Some("1"), true)]), "c");
}

#[test]
fn a_missing_digest_fails() {
    assert_eq!(invalid(vec![run("a", Some("1"), true), run("b", None, true)]), "b");
}

#[test]
fn the_control_repeats_the_base_and_so_has_no_vote() {
    let mut runs = vec![run("a", Some("1"), true), run("again", Some("1"), true), run("b", Some("2"), true)];
    block::judge(&mut runs, "a", Some("again"));
    let said: String = runs[2].why_invalid.concat();
    // Two of three would be a majority; the same code twice is not.
    assert!(said.contains("either of the two may be wrong"), "{said}");
    assert!(runs[0].valid && runs[1].valid && !runs[2].valid);
    // One that ends in another state than the code that it repeats is invalid itself.
    let mut odd = vec![run("a", Some("1"), true), run("again", Some("2"), true), run("b", Some("1"), true)];
    block::judge(&mut odd, "a", Some("again"));
    assert_eq!(odd.iter().map(|r| r.valid).collect::<Vec<_>>(), [true, false, true]);
}
