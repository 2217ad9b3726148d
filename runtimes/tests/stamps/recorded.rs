//! The shells' own spans: one per call to the store and per append, with what they are about.

use super::TURN;
use super::common::{Server, settings};
use super::stacks::{PUBLISHES, client};
use regauge_runtimes::settings::{Files, Placement, Settings, Stack};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps what every span was about, and whether it was entered and closed.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

#[derive(Default, Debug)]
struct Seen {
    name: &'static str,
    session: String,
    count: u64,
    entered: bool,
    closed: bool,
}

impl Visit for Seen {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "count" {
            self.count = value;
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "session" {
            self.session = value.to_owned();
        }
    }
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl Spans {
    fn with(&self, id: &Id, change: impl FnOnce(&mut Seen)) {
        change(&mut self.0.lock().unwrap()[id.into_u64() as usize - 1]);
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("regauge_runtimes")
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut seen = Seen { name: attributes.metadata().name(), ..Seen::default() };
        attributes.record(&mut seen);
        let mut spans = self.0.lock().unwrap();
        spans.push(seen);
        Id::from_u64(spans.len() as u64)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, id: &Id) {
        self.with(id, |seen| seen.entered = true);
    }
    fn exit(&self, _: &Id) {}
    fn try_close(&self, id: Id) -> bool {
        self.with(&id, |seen| seen.closed = true);
        true
    }
}

#[test]
fn calls_and_appends_are_spans_of_their_client() {
    let spans = Spans::default();
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    tracing::subscriber::set_global_default(spans.clone()).unwrap();
    for stack in Stack::ALL {
        for inline in [false, true] {
            spans.0.lock().unwrap().clear();
            let data = tempfile::tempdir().unwrap();
            let (placement, files) =
                if inline { (Placement::Inline, Files::Inline) } else { (Placement::Offload, Files::Native) };
            let server = Server::start(stack, Settings { placement, files, ..settings() }, data.path());
            client(server.addr, "somebody");
            server.stop();
            let seen = spans.0.lock().unwrap();
            let named = |name: &'static str| seen.iter().filter(move |s| s.name == name);
            assert_eq!(named("session_process").count(), 1, "{stack}: {seen:?}");
            let appended: u64 = named("segment_append").map(|s| s.count).sum();
            assert_eq!(appended, u64::from(PUBLISHES), "{stack}: every record lies in one span");
            let ours = seen.iter().filter(|s| ["session_process", "meta_call", "segment_append"].contains(&s.name));
            for span in ours {
                assert!(span.entered && span.closed && span.session == "somebody", "{stack}: {span:?}");
            }
        }
    }
}
