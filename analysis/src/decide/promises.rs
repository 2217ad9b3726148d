//! What an arm promises to clients, and which runtime it is: who may be compared with whom.
//!
//! A faster arm that loses more in a crash is no alternative. The settings that say what a client may rely on are ranked;
//! an arm that ranks below the base in any of them is named with the reason and stands outside of the verdict.

use regauge_traces::study::ArmRecord;
use serde_json::Value;

/// The runtime's family: the stack's name up to its first `-`, so that tokio-shared and tokio-pinned are one.
pub fn family(stack: &str) -> &str {
    stack.split('-').next().unwrap_or(stack)
}

/// A setting that is a promise, for people, and its rank by value; `None` for a value that this version does not know.
type Promise = (&'static str, &'static str, fn(&Value) -> Option<u64>);

const PROMISES: [Promise; 6] = [
    ("durability", "acknowledged publishes", durability),
    ("raft_sync", "acknowledged sessions", |value| rank(value, &["none", "log", "all"])),
    ("durable_sessions", "sessions after a restart", |value| value.as_bool().map(u64::from)),
    ("last_applied", "entries applied once", last_applied),
    ("meta_store", "sessions after a restart of the host", |value| rank(value, &["memory", "disk"])),
    ("nodes", "sessions after the loss of a node", Value::as_u64),
];

/// Why the arm promises less than the base, one clause each; empty when it promises at least as much.
pub fn less(arm: &ArmRecord, base: &ArmRecord) -> Vec<String> {
    let clause = |(key, what, rank): &Promise| {
        let (of_arm, of_base) = (arm.settings.get(key), base.settings.get(key));
        if of_arm == of_base {
            return None;
        }
        let shown = |value: Option<&Value>| match value {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => "unset".to_owned(),
        };
        let differs = format!("{key} is {} instead of {}", shown(of_arm), shown(of_base));
        match (of_arm.and_then(rank), of_base.and_then(rank)) {
            (Some(of_arm), Some(of_base)) if of_arm >= of_base => None,
            (Some(_), Some(_)) => Some(format!("{differs} (what it promises: {what})")),
            _ => Some(format!("{differs}, and which promises more is not known")),
        }
    };
    PROMISES.iter().filter_map(clause).collect()
}

fn rank(value: &Value, rising: &[&str]) -> Option<u64> {
    rising.iter().position(|name| value.as_str() == Some(name)).map(|at| at as u64)
}

/// `none` < `on-seal` < `every=N` (the more often the more) < `fdatasync`.
fn durability(value: &Value) -> Option<u64> {
    const EVERY: u64 = 1 << 32;
    match value.as_str()? {
        "none" => Some(0),
        "on-seal" => Some(1),
        "fdatasync" => Some(2 + EVERY),
        other => other.strip_prefix("every=")?.parse::<u32>().ok().map(|n| 2 + EVERY - u64::from(n.max(1))),
    }
}

/// Written with or after what the entries changed, in the same log: after a crash it never runs ahead of them, and entries
/// are applied once. Without a log, or in a database of its own, it may fall back or run ahead.
fn last_applied(value: &Value) -> Option<u64> {
    match value.as_str()? {
        "own-write" | "merged" => Some(1),
        "no-wal" | "own-db" => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn arm(settings: Value) -> ArmRecord {
        ArmRecord { name: "a".into(), stack: "tokio-shared".into(), settings }
    }

    #[test]
    fn families() {
        assert_eq!(["tokio-shared", "tokio-pinned", "compio"].map(family), ["tokio", "tokio", "compio"]);
    }

    #[test]
    fn who_promises_less() {
        let base = arm(json!({"durability": "every=4", "raft_sync": "log", "durable_sessions": true, "threads": 2}));
        let with = |key: &str, value: Value| {
            let mut settings = base.settings.clone();
            settings[key] = value;
            less(&arm(settings), &base)
        };
        assert!(less(&base, &base).is_empty());
        // What is no promise may differ, and a stronger promise is no loss.
        for (key, value) in
            [("threads", json!(8)), ("durability", json!("fdatasync")), ("durability", json!("every=2"))]
        {
            assert!(with(key, value.clone()).is_empty(), "{key} {value}");
        }
        for (key, value) in [
            ("durability", json!("none")),
            ("durability", json!("on-seal")),
            ("durability", json!("every=5")),
            ("raft_sync", json!("none")),
            ("durable_sessions", json!(false)),
        ] {
            let why = with(key, value.clone());
            assert!(why.len() == 1 && why[0].starts_with(&format!("{key} is ")), "{key} {value}: {why:?}");
        }
        assert!(with("durability", json!("sometimes"))[0].ends_with("not known"));
        assert!(with("last_applied", json!("merged"))[0].ends_with("not known"), "the base says nothing of it");
    }

    #[test]
    fn the_last_applied_id_may_be_merged_but_not_lost() {
        let base = arm(json!({"last_applied": "own-write"}));
        assert!(less(&arm(json!({"last_applied": "merged"})), &base).is_empty());
        assert_eq!(less(&arm(json!({"last_applied": "no-wal"})), &base).len(), 1);
        assert_eq!(less(&arm(json!({"last_applied": "own-db"})), &base).len(), 1);
    }
}
