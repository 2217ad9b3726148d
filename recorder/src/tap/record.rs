//! The way of a span from the relay into the file: a bounded queue, and a thread that writes.
//!
//! The relay never waits for the disk. When the queue is full the newest span is lost and counted; when writing fails
//! (disk full) the writer leaves, its file readable to the last batch, and the relay goes on without it, counting.
//! The writer looks into the queue at short intervals instead of waiting on it: a waiting writer would have to be woken
//! by a system call of the relay for every span.

use super::stats::{Counters, add};
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use regauge_traces::{Drops, LiveWriter, Span, TraceError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Spans that may wait for the writer: about 10 MB, and 20 ms at three million spans a second.
const QUEUE_SPANS: usize = 1 << 16;

/// Spans written between two looks at everything else.
const SPANS_PER_ROUND: usize = 4096;

/// How often the writer looks into the queue, at most and at least.
const NAP: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// The relay's end of the queue.
#[derive(Debug)]
pub(super) struct SpanQueue {
    sender: Sender<Span>,
    counters: Arc<Counters>,
}

/// The queue's two ends.
pub(super) fn queue(counters: Arc<Counters>) -> (SpanQueue, Receiver<Span>) {
    let (sender, receiver) = bounded(QUEUE_SPANS);
    (SpanQueue { sender, counters }, receiver)
}

impl SpanQueue {
    pub(super) fn push(&self, span: Span) {
        add(&self.counters.spans_seen, 1);
        match self.sender.try_send(span) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => add(&self.counters.queue_full, 1),
            Err(TrySendError::Disconnected(_)) => add(&self.counters.not_recorded, 1),
        }
    }
}

/// Writes until the relay lets go of the queue, then finishes the live file. Runs as a thread.
pub(super) fn write(
    mut live: LiveWriter,
    spans: Receiver<Span>,
    counters: &Counters,
    flush: Duration,
) -> Result<(), TraceError> {
    let nap = (flush / 8).clamp(NAP.0, NAP.1);
    let mut id = 0;
    loop {
        let mut next = Ok(());
        for _ in 0..SPANS_PER_ROUND {
            match spans.try_recv() {
                Ok(span) => {
                    live.push(Span { id, ..span })?;
                    id += 1;
                    add(&counters.spans_written, 1);
                }
                Err(why) => {
                    next = Err(why);
                    break;
                }
            }
        }
        live.set_drops(&drops(counters));
        match next {
            Ok(()) => {}
            Err(TryRecvError::Disconnected) => {
                live.finish(drops(counters))?;
                return Ok(());
            }
            Err(TryRecvError::Empty) => {
                live.flush_if_due()?;
                std::thread::sleep(nap);
            }
        }
    }
}

fn drops(counters: &Counters) -> Drops {
    Drops {
        queue_full: counters.queue_full.load(Ordering::Relaxed),
        undecodable_connections: counters.undecodable.load(Ordering::Relaxed),
        ..Drops::default()
    }
}
