//! The workload hash: a name for what a trace asks of a broker.
//!
//! Two traces with the same hash replay the same requests at the same times, whatever their form, their row order or
//! how the recorded broker answered. It covers the roots only and of these only what was asked: no durations, no
//! status, no threads. Sessions, connections and targets enter by value, because replayed client ids and topics are
//! made from them; so the same clients recorded under another redaction key are another workload.

use sha2::{Digest, Sha256};

use crate::span::{Span, flags};

/// Hash of the replayable content of the roots: SHA-256, lowercase hex (64 digits).
///
/// Roots are taken by `(start_ns, id)`. `SPEC.md` has the bytes that each contributes.
pub fn workload_hash(spans: &[Span]) -> String {
    let mut roots: Vec<&Span> = spans.iter().filter(|span| span.is_root()).collect();
    roots.sort_by_key(|span| (span.start_ns, span.id));
    let mut hash = Sha256::new();
    hash.update(b"regauge workload 1\n");
    let mut row = Vec::with_capacity(128);
    for span in roots {
        row.clear();
        add_text(&mut row, span.kind.name());
        row.extend(span.start_ns.to_le_bytes());
        row.push(u8::from(span.session.is_some()));
        row.extend(span.session.unwrap_or(0).to_le_bytes());
        row.push(u8::from(span.connection.is_some()));
        row.extend(span.connection.unwrap_or(0).to_le_bytes());
        row.push(u8::from(span.target.is_some()));
        add_text(&mut row, span.target.as_deref().unwrap_or(""));
        row.extend(span.bytes.to_le_bytes());
        row.extend(span.count.to_le_bytes());
        row.push(span.qos);
        row.extend((span.flags & flags::WORKLOAD).to_le_bytes());
        row.extend(span.keep_alive_s.to_le_bytes());
        row.extend(span.expiry_s.to_le_bytes());
        hash.update(&row);
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        hex.push_str(&format!("{byte:02x}"));
        hex
    })
}

fn add_text(row: &mut Vec<u8>, text: &str) {
    row.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    row.extend(text.as_bytes());
}
