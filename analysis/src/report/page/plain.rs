//! JSON of records as people read it: flat, with units where the field's name has one.

use crate::units::{bytes, time};
use serde_json::Value;

/// Nested JSON as (dotted name, value).
pub fn flatten(value: &Value) -> Vec<(String, String)> {
    fn walk(prefix: &str, value: &Value, into: &mut Vec<(String, String)>) {
        match value {
            Value::Object(map) => {
                for (name, inner) in map {
                    let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                    walk(&name, inner, into);
                }
            }
            Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
                for (i, inner) in items.iter().enumerate() {
                    walk(&format!("{prefix}.{}", i + 1), inner, into);
                }
            }
            Value::Array(items) if items.is_empty() => into.push((prefix.to_owned(), "none".to_owned())),
            Value::Array(items) => {
                into.push((prefix.to_owned(), items.iter().map(plain).collect::<Vec<_>>().join(", ")))
            }
            other => into.push((prefix.to_owned(), with_unit(prefix, other))),
        }
    }
    let mut list = Vec::new();
    walk("", value, &mut list);
    list
}

/// Fields that end in a unit are shown with it.
fn with_unit(name: &str, value: &Value) -> String {
    match value.as_f64() {
        Some(ns) if name.ends_with("_ns") => time(ns),
        Some(n) if name.ends_with("_bytes") => bytes(n),
        _ => plain(value),
    }
}

/// A single value.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}
