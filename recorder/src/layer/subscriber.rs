//! The two ways into a program: beside other layers on a registry, or as the only subscriber, which costs half.

use std::sync::Arc;
use std::sync::atomic::Ordering::*;
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::{Event, Interest, LevelFilter, Metadata};
use tracing_subscriber::layer::Context;

use super::shared::{Ids, Shared};

/// Stands for a span that is not recorded: no slot has this number.
const LOST: u64 = u64::MAX;

/// Records spans beside whatever else a program's registry does with them.
///
/// It asks for nothing: which spans a program enables at all is decided by its other layers and filters, and this one
/// takes those that its options name. (A layer that asked would switch off what others want to see.) Add it without a
/// filter of its own: what a filter hides from it cannot hand on an ancestor.
#[derive(Debug, Clone)]
pub struct Layer {
    pub(super) shared: Arc<Shared>,
}

impl<S: tracing_core::Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        self.shared.open(Ids::Foreign, attrs, Some(id.into_u64()));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.shared.record(Ids::Foreign, id.into_u64(), values);
    }

    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        self.shared.enter(Ids::Foreign, id.into_u64());
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        self.shared.exit(id.into_u64());
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.shared.close(Ids::Foreign, id.into_u64());
    }
}

/// Records spans as the program's only subscriber.
///
/// Every span and event that its options do not name is switched off where it stands, for the cost of a load. A span
/// whose explicit parent is switched off has no parent.
#[derive(Debug)]
pub struct Subscriber {
    pub(super) shared: Arc<Shared>,
}

impl tracing_core::Subscriber for Subscriber {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.shared.options.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.shared.options.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.shared.options.max_level)
    }

    fn new_span(&self, attrs: &Attributes<'_>) -> Id {
        Id::from_u64(self.shared.open(Ids::Own, attrs, None).unwrap_or(LOST))
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        self.shared.record(Ids::Own, id.into_u64(), values);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, id: &Id) {
        self.shared.enter(Ids::Own, id.into_u64());
    }

    fn exit(&self, id: &Id) {
        self.shared.exit(id.into_u64());
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some((_, slot)) = self.shared.table.find_own(id.into_u64()) {
            // As with an Arc: whoever clones holds a reference, so the count cannot reach 0 meanwhile.
            slot.refs.fetch_add(1, Relaxed);
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let Some((_, slot)) = self.shared.table.find_own(id.into_u64()) else { return false };
        // The only reference needs no counting down: nobody else can make another of it.
        let last = slot.refs.load(Acquire) == 1 || slot.refs.fetch_sub(1, AcqRel) == 1;
        if last {
            self.shared.close(Ids::Own, id.into_u64());
        }
        last
    }

    fn current_span(&self) -> Current {
        match self.shared.current() {
            Some((key, metadata)) => Current::new(Id::from_u64(key), metadata),
            None => Current::none(),
        }
    }
}
