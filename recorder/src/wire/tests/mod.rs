//! Tests of the observer against packets of an independent encoder (mqtt-protocol-core), and against bytes that no
//! encoder would make.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod malformed;
mod packets;
mod spans;
mod splits;

use super::{Chunk, Ending, Malformed, Observer, Side};
use regauge_traces::redact::{RedactionKey, Redactor};
use regauge_traces::span::Span;

const CONNECTION: u32 = 3;
const ORIGIN_NS: u64 = 1_000;

fn redactor() -> Redactor {
    Redactor::new(&RedactionKey::from_bytes([7; 16]))
}

/// An observed connection whose clock advances by 100 ns with each chunk; bytes are handed over 10 ns after reading.
struct Watched {
    observer: Observer,
    redactor: Redactor,
    spans: Vec<Span>,
    now_ns: u64,
}

impl Watched {
    fn new() -> Self {
        let observer = Observer::new(CONNECTION, ORIGIN_NS);
        Self { observer, redactor: redactor(), spans: Vec::new(), now_ns: ORIGIN_NS }
    }

    fn send(&mut self, from: Side, bytes: &[u8]) -> Result<(), Malformed> {
        self.now_ns += 100;
        let chunk = Chunk { from, bytes, read_ns: self.now_ns, written_ns: self.now_ns + 10 };
        self.observer.observe(chunk, &self.redactor, &mut |span| self.spans.push(span))
    }

    fn client(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.send(Side::Client, bytes.as_ref()).unwrap();
        self
    }

    fn broker(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.send(Side::Broker, bytes.as_ref()).unwrap();
        self
    }

    fn finish(mut self, ending: Ending) -> Vec<Span> {
        self.now_ns += 100;
        self.observer.finish(ending, self.now_ns, &mut |span| self.spans.push(span));
        self.spans
    }
}
