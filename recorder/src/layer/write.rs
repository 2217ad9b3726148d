//! The writer: a thread that empties the rings into the live file.
//!
//! It looks at short intervals instead of waiting, since a waiting writer would have to be woken by the broker's threads.
//! Each time it empties the rings first and anchors the clock after, so that no time is ever extrapolated.

use regauge_traces::ticks::{Anchor, Calibration};
use regauge_traces::{Drops, Kind, LiveWriter, Span, TraceError, flags, ticks};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::thread;
use std::time::Duration;

use super::fields::Target;
use super::recording::LayerSummary;
use super::ring::{Closed, Ring};
use super::shared::Shared;

/// Between two looks at the rings.
const NAP: Duration = Duration::from_millis(5);

pub(super) struct Writer {
    shared: Arc<Shared>,
    live: LiveWriter,
    origin_ns: u64,
    calibration: Calibration,
    rings: Vec<Ring>,
    /// Losses of threads that are gone.
    full: u64,
    drained: Vec<Closed>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, live: LiveWriter, origin_ns: u64) -> Writer {
        let first = Anchor::take();
        let calibration = Calibration::between(first, first);
        Writer { shared, live, origin_ns, calibration, rings: Vec::new(), full: 0, drained: Vec::new() }
    }

    /// Writes until the recording ends or the file takes no more. Runs as a thread.
    pub(super) fn run(mut self) -> Result<LayerSummary, TraceError> {
        let written = self.write();
        // Threads stop recording whatever the reason.
        self.shared.ended.store(true, Release);
        written?;
        let drops = self.drops();
        let out = self.live.path().to_path_buf();
        let summary = self.live.finish(drops.clone())?;
        Ok(LayerSummary {
            out,
            spans: summary.rows,
            bytes: summary.bytes,
            drops,
            clock: ticks::clock(),
            clock_error_ns: self.calibration.error_ns(),
        })
    }

    fn write(&mut self) -> Result<(), TraceError> {
        loop {
            // Looked at before the rings: what was closed before the end is then in them.
            let ended = self.shared.ended.load(Acquire);
            self.drain();
            if ended {
                self.drained.extend(self.shared.still_open());
            }
            self.calibration.add(Anchor::take());
            for closed in std::mem::take(&mut self.drained) {
                self.live.push_unordered(self.span(closed))?;
            }
            self.live.set_drops(&self.drops());
            if ended {
                return Ok(());
            }
            self.live.flush_if_due()?;
            thread::park_timeout(NAP);
        }
    }

    fn drain(&mut self) {
        self.rings.extend(self.shared.take_new_rings());
        for ring in &mut self.rings {
            // Only what is there now: a busy thread must not keep the writer from the others.
            let there = ring.spans.slots();
            self.drained.extend(ring.spans.read_chunk(there).into_iter().flatten());
        }
        self.rings.retain(|ring| {
            let over = ring.is_over();
            if over {
                self.full += ring.full.load(Relaxed);
            }
            !over
        });
    }

    fn span(&self, closed: Closed) -> Span {
        let plan = self.shared.plan(closed.plan);
        let kind = plan.and_then(|plan| plan.kind).unwrap_or(Kind::Step);
        let start_ns = self.calibration.monotonic_ns(closed.start);
        let ended = closed.end != 0;
        let fields = closed.fields;
        let target = match fields.target {
            Target::None if kind == Kind::Step => plan.map(|plan| plan.metadata.name().to_owned()),
            Target::None => None,
            Target::Partition(number) => Some(format!("p/{number}")),
            Target::Proposal(number) => Some(format!("proposal={number}")),
            Target::Text(text) => Some(text.into()),
        };
        Span {
            parent: (closed.parent != 0).then_some(closed.parent),
            duration_ns: ended.then(|| self.calibration.monotonic_ns(closed.end).saturating_sub(start_ns)),
            busy_ns: Some(self.calibration.ns_of(closed.busy, closed.start)),
            session: fields.session,
            target,
            bytes: fields.bytes,
            count: fields.count,
            qos: fields.qos,
            status: fields.status,
            flags: if ended { 0 } else { flags::UNFINISHED },
            thread: closed.thread,
            ..Span::new(closed.id, kind, start_ns.saturating_sub(self.origin_ns))
        }
    }

    fn drops(&self) -> Drops {
        let lost = &self.shared.lost;
        let named = [("open_spans", &lost.open_spans), ("thread_ended", &lost.thread_ended), ("nested", &lost.nested)];
        let count = |(name, counter): (&str, &AtomicU64)| {
            let count = counter.load(Relaxed);
            (count > 0).then(|| (name.to_owned(), count))
        };
        let full: u64 = self.rings.iter().map(|ring| ring.full.load(Relaxed)).sum();
        Drops {
            queue_full: self.full + full,
            other: named.into_iter().filter_map(count).collect::<BTreeMap<_, _>>(),
            ..Drops::default()
        }
    }
}
