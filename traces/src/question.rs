//! The hash of a study's question: what is fixed before the first run, and what every run was made for.
//!
//! The replayer writes it into each run's record and the analysis computes it from study.json, so that a question that
//! was changed after the runs is seen. The two budgets that may grow ([`crate::study::Design`]) are left out.

use crate::study::{Design, Manifest};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Bytes of the hash that are kept.
const BYTES: usize = 8;

impl Manifest {
    /// SHA-256 of design, arms, base and plan's hash, its first eight bytes as lowercase hex.
    pub fn question_hash(&self) -> String {
        let fixed = |design: &Design| Design { reruns_max: 0, blocks_max: 0, ..design.clone() };
        let mut question = json!({"design": self.design.as_ref().map(fixed), "arms": self.arms, "base": self.base,
                                  "plan_hash": self.plan_hash});
        settle(&mut question);
        let digest = Sha256::digest(question.to_string().as_bytes());
        digest.iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Writes fractions with ten digits: one that was read from a file may differ from the one that was written in its last.
fn settle(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            *value = Value::String(format!("{:.9e}", number.as_f64().unwrap_or(f64::NAN)));
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(fields) => fields.values_mut().for_each(settle),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn manifest(change: impl Fn(&mut Value)) -> Manifest {
        let mut value = json!({"version": 2, "regauge": "", "created": "", "command": [], "seed": 1, "blocks": 10,
            "design": Design { until: Some(0.1), ..Design::default() }, "base": "a", "workload_hash": "", "plan_hash": "p",
            "arms": [{"name": "a", "stack": "compio", "settings": {"threads": 2, "share": 0.1}}], "trace_source": "",
            "requests": 1, "duration_ns": 1, "warmup_ns": 0, "host": {}, "gates": {},
            "layout": {"name": "", "driver_cpus": [], "server_cpus": [], "why": "", "limits": []}});
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_fixed_is_in_the_hash_and_what_may_grow_is_not() {
        let hash = manifest(|_| {}).question_hash();
        assert_eq!(hash.len(), 2 * BYTES);
        let same = |change: &dyn Fn(&mut Value)| manifest(change).question_hash() == hash;
        assert!(same(&|m| m["design"]["reruns_max"] = json!(77)));
        assert!(same(&|m| m["design"]["blocks_max"] = json!(770)));
        assert!(same(&|m| m["blocks"] = json!(20)));
        assert!(same(&|m| m["arms"][0]["settings"]["share"] = json!(0.1 + 1e-17)));
        assert!(!same(&|m| m["design"]["worth_ratio"] = json!(0.81)));
        assert!(!same(&|m| m["design"]["primary_percentile"] = json!("p99")));
        assert!(!same(&|m| m["design"]["control"] = json!("b")));
        assert!(!same(&|m| m["arms"][0]["settings"]["threads"] = json!(3)));
        assert!(!same(&|m| m["plan_hash"] = json!("q")));
        assert!(!same(&|m| m["design"] = Value::Null));
    }

    #[test]
    fn a_speed_that_is_not_written_down_is_that_of_the_trace() {
        assert_eq!(manifest(|_| {}).speed, 1.0);
        assert_eq!(manifest(|m| m["speed"] = json!(2.5)).speed, 2.5);
    }
}
