//! The bytes that wait to be sent on one connection. Pure: the shell writes, this remembers.
//!
//! Replies are small (a PUBACK is four bytes) and come in bursts, so small pieces are copied together while large ones
//! keep their own buffer: one write carries everything that is pending. A client that does not read is cut off at a cap
//! instead of filling the memory; the broker's own bounds (receive maximum) are met long before it.

use crate::server::SocketCounters;
use crate::stamps::Replies;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};

/// Pending bytes beyond which a connection counts as a slow consumer and is closed.
pub const OUTBOX_CAP_BYTES: usize = 64 << 20;
/// Most slices that one vectored write carries; the kernel's own bound is 1024.
pub const OUTBOX_SLICES_MAX: usize = 64;
/// Pieces up to this size are copied together; beyond it the copy would cost more than a slice of its own.
const COPY_BYTES_MAX: usize = 4096;

/// The bytes that wait to be sent on one connection, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    whole: VecDeque<Bytes>,
    tail: BytesMut,
    pending_bytes: usize,
    /// Counts what enters and what leaves.
    stamps: Replies,
}

/// The connection's pending bytes reached [`OUTBOX_CAP_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowConsumer;

/// How [`Outbox::write_with`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// Nothing waits any more.
    All,
    /// The socket takes no more for now.
    Full,
    /// The client is gone; what waited is forgotten.
    Gone,
}

impl Outbox {
    /// Empty; `stamps` are those of its connection.
    pub fn new(stamps: Replies) -> Outbox {
        Outbox { stamps, ..Outbox::default() }
    }

    /// Adds whole packets behind what is there.
    ///
    /// # Errors
    /// [`SlowConsumer`] when the cap is exceeded: nothing is added, and the connection is to be closed.
    pub fn push(&mut self, bytes: Bytes) -> Result<(), SlowConsumer> {
        if self.pending_bytes + bytes.len() > OUTBOX_CAP_BYTES {
            return Err(SlowConsumer);
        }
        self.pending_bytes += bytes.len();
        self.stamps.pushed(bytes.len());
        if bytes.len() <= COPY_BYTES_MAX {
            self.tail.extend_from_slice(&bytes);
        } else {
            self.seal_tail();
            self.whole.push_back(bytes);
        }
        Ok(())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pending_bytes == 0
    }

    /// Bytes that wait.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Fills `slices` with what waits, in order, for one vectored write; returns how many were filled. Follow it with
    /// [`Outbox::advance`]. For runtimes that lend buffers.
    pub fn fill<'a>(&'a mut self, slices: &mut [IoSlice<'a>]) -> usize {
        self.seal_tail();
        let mut filled = 0;
        for (slice, bytes) in slices.iter_mut().zip(&self.whole) {
            *slice = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    /// Forgets the first `written` bytes: they were sent.
    pub fn advance(&mut self, mut written: usize) {
        self.pending_bytes = self.pending_bytes.saturating_sub(written);
        self.seal_tail();
        while written > 0 {
            let Some(mut front) = self.whole.pop_front() else { return };
            if front.len() > written {
                let _sent = front.split_to(written);
                self.whole.push_front(front);
                return;
            }
            written -= front.len();
        }
    }

    /// Writes what waits by `write` (a vectored write that does not block) until nothing waits or the socket is full. For
    /// runtimes that say when a socket is ready.
    pub fn write_with(
        &mut self,
        counters: &mut SocketCounters,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Wrote {
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); OUTBOX_SLICES_MAX];
            let filled = self.fill(&mut slices);
            match write(slices.get(..filled).unwrap_or_default()) {
                Ok(written) => {
                    counters.count_write(written);
                    self.stamps.wrote(written);
                    self.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Wrote::Full,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.clear();
                    return Wrote::Gone;
                }
            }
        }
        Wrote::All
    }

    /// Takes out what waits, up to [`OUTBOX_SLICES_MAX`] pieces, for one vectored write that owns its buffers. The
    /// caller writes all of it, and says so by [`Outbox::sent`], before it takes again. For runtimes that take buffers
    /// along.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.seal_tail();
        let pieces = self.whole.len().min(OUTBOX_SLICES_MAX);
        let taken: Vec<Bytes> = self.whole.drain(..pieces).collect();
        self.pending_bytes -= taken.iter().map(Bytes::len).sum::<usize>();
        taken
    }

    /// What was taken out has been written: so many bytes.
    pub fn sent(&mut self, bytes: usize) {
        self.stamps.wrote(bytes);
    }

    /// What this connection counts.
    pub fn stamps(&mut self) -> &mut Replies {
        &mut self.stamps
    }

    /// Forgets everything: the client is gone.
    pub fn clear(&mut self) {
        *self = Outbox::default();
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.whole.push_back(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_pieces_leave_as_one() {
        let mut outbox = Outbox::default();
        for _ in 0..1000 {
            outbox.push(Bytes::from_static(b"ack!")).unwrap();
        }
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(outbox.fill(&mut slices), 1);
        assert_eq!(slices[0].len(), 4000);
    }

    #[test]
    fn a_slow_consumer_is_found_at_the_cap() {
        let mut outbox = Outbox::default();
        let half = Bytes::from(vec![0; OUTBOX_CAP_BYTES / 2]);
        outbox.push(half.clone()).unwrap();
        outbox.push(half).unwrap();
        assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(SlowConsumer));
        outbox.advance(1);
        outbox.push(Bytes::from_static(b"x")).unwrap();
    }

    #[test]
    fn writing_stops_when_the_socket_is_full_or_gone() {
        let (mut outbox, mut counters) = (Outbox::default(), SocketCounters::default());
        outbox.push(Bytes::from(vec![1; 10_000])).unwrap();
        let mut room = 3000;
        let wrote = outbox.write_with(&mut counters, |slices| match std::mem::take(&mut room) {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n.min(slices[0].len())),
        });
        assert_eq!((wrote, outbox.pending_bytes(), counters.socket_write_bytes), (Wrote::Full, 7000, 3000));
        assert_eq!(outbox.write_with(&mut counters, |_| Err(io::ErrorKind::BrokenPipe.into())), Wrote::Gone);
        assert!(outbox.is_empty());
        assert_eq!(outbox.write_with(&mut counters, |_| Err(io::ErrorKind::BrokenPipe.into())), Wrote::All);
    }

    proptest! {
        /// However pieces come and writes fall short, the bytes leave complete and in order, on both ways out.
        #[test]
        fn bytes_leave_in_order(
            pieces in prop::collection::vec(1usize..10_000, 1..40),
            steps in prop::collection::vec(0usize..20_000, 0..40),
            owned in any::<bool>(),
        ) {
            let mut outbox = Outbox::default();
            let (mut sent, mut expected, mut byte) = (Vec::new(), Vec::new(), 0u8);
            let mut steps = steps.into_iter();
            for len in pieces {
                let piece: Vec<u8> = (0..len).map(|_| { byte = byte.wrapping_add(1); byte }).collect();
                expected.extend_from_slice(&piece);
                outbox.push(piece.into()).unwrap();
                let Some(step) = steps.next() else { continue };
                if owned {
                    sent.extend(outbox.take().concat());
                } else {
                    let mut slices = [IoSlice::new(&[]); 4];
                    let filled = outbox.fill(&mut slices);
                    let ready: Vec<u8> = slices[..filled].iter().flat_map(|s| s.iter().copied()).take(step).collect();
                    outbox.advance(ready.len());
                    sent.extend(ready);
                }
                prop_assert_eq!(outbox.pending_bytes(), expected.len() - sent.len());
            }
            while !outbox.is_empty() {
                sent.extend(outbox.take().concat());
            }
            prop_assert_eq!(sent, expected);
        }
    }
}
