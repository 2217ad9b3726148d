//! Did the server run on what the arm asks for?

use crate::arms::list;
use crate::host::cpu::parse_list;
use regauge_runtimes::attest::Attestation;
use regauge_runtimes::settings::{Roles, Settings, Stack};
use regauge_traces::study::{ArmRecord, Gate, LayoutRecord};
use serde::Deserialize;
use serde_json::Value;

const NAME: &str = "attestation";

/// Settings of which the server attests what it used under the same name, compared as JSON.
const SAME_NAMES: [&str; 9] = [
    "roles",
    "eager_handoff",
    "neighbours",
    "raft_sync",
    "last_applied",
    "durable_sessions",
    "meta_store",
    "session_batch",
    "nodes",
];

/// Compares what the server attests with the arm.
pub(super) fn gate(arm: &ArmRecord, layout: &LayoutRecord, server: &Value) -> Gate {
    let required = format!("{} exactly as asked", arm.stack);
    match deviations(arm, layout, server) {
        Ok(deviations) if deviations.is_empty() => super::gate(NAME, true, "as asked", required),
        Ok(deviations) => super::gate(NAME, false, deviations.join(", "), required),
        Err(unreadable) => super::gate(NAME, false, unreadable, required),
    }
}

fn deviations(arm: &ArmRecord, layout: &LayoutRecord, server: &Value) -> Result<Vec<String>, String> {
    let stack: Stack = arm.stack.parse()?;
    let asked = Settings::deserialize(&arm.settings).map_err(|e| format!("settings that cannot be read ({e})"))?;
    let attested = server.get("attestation").ok_or("no attestation")?;
    let used = Attestation::deserialize(attested).map_err(|e| format!("an attestation that cannot be read ({e})"))?;
    let mut found = Vec::new();
    let mut expect = |what: &str, used: String, asked: String| {
        if used != asked {
            found.push(format!("{what} {used} instead of {asked}"));
        }
    };
    expect("stack", used.stack.to_string(), stack.to_string());
    expect("back-end", used.back_end.clone(), if stack.needs_uring() { "io_uring" } else { "epoll" }.to_owned());
    expect("durability", used.durability.to_string(), asked.durability.to_string());
    expect("placement", format!("{:?}", used.placement), format!("{:?}", asked.placement));
    expect("files", format!("{:?}", used.files), format!("{:?}", asked.files));
    let settings = serde_json::to_value(&asked).map_err(|e| e.to_string())?;
    for name in SAME_NAMES {
        expect(name, word(&attested[name]), word(&settings[name]));
    }
    let beside = match asked.roles {
        Roles::One => 0,
        Roles::MetaApart => 1,
        Roles::Three => 2,
    };
    expect("runtimes beside the connections':", used.role_runtimes.len().to_string(), beside.to_string());
    for runtime in &used.role_runtimes {
        expect(
            &format!("threads of the {} runtime:", runtime.role),
            runtime.threads.to_string(),
            asked.role_threads.to_string(),
        );
    }
    if stack.needs_uring() {
        let ring = |n: Option<u32>| n.map_or("unknown".to_owned(), |n| n.to_string());
        expect("io-wq width", ring(used.iowq_bounded), asked.iowq_bounded.to_string());
        expect("ring entries", ring(used.ring_entries), asked.ring_entries.to_string());
    }
    // Pinned stacks spread the pool over their shards and give each at least one thread: the sum may be off by the
    // remainder of that division, never by more.
    let slack = if stack.is_pinned() { asked.threads.saturating_sub(1) } else { 0 };
    let width = asked.blocking_threads.max(if stack.is_pinned() { asked.threads } else { 1 });
    if used.blocking_threads.abs_diff(width) > slack {
        found.push(format!("a blocking pool of {} instead of {width}", used.blocking_threads));
    }
    found.extend(misplaced(stack, &asked, layout, &used));
    Ok(found)
}

/// Threads that ran where they must not, and CPUs without their shard.
fn misplaced(stack: Stack, asked: &Settings, layout: &LayoutRecord, used: &Attestation) -> Vec<String> {
    let mut found = Vec::new();
    let mut granted = layout.server_cpus.clone();
    granted.extend(&asked.cpus);
    let mut alone = Vec::new();
    for thread in &used.threads {
        let Some(cpus) = parse_list(&thread.cpus_allowed) else {
            found.push(format!("thread {} on unreadable CPUs `{}`", thread.name, thread.cpus_allowed));
            continue;
        };
        if cpus.iter().any(|c| !granted.contains(c)) {
            found.push(format!("thread {} may run on CPUs {}", thread.name, thread.cpus_allowed));
        }
        if let [one] = cpus[..] {
            alone.push(one);
        }
    }
    if stack.is_pinned() {
        let without: Vec<usize> = asked.cpus.iter().copied().filter(|c| !alone.contains(c)).collect();
        if !without.is_empty() {
            found.push(format!("no thread bound to CPU {}", list(&without)));
        }
    }
    found.truncate(3);
    found
}

/// A JSON value without quotes.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
