//! Bytes from a client: framing, and which packet goes where.

use super::broker::Broker;
use super::conn::Phase;
use super::effect::Effect;
use super::wire::frame::{self, Frame};
use super::wire::{Fault, acks, connect, replies};

/// Room that a connection keeps for unfinished packets when it has none, bytes.
const KEPT_BYTES: usize = 4 << 10;

impl Broker {
    /// Bytes came. Whole packets are handled where they stand; what is left over is kept with the connection.
    pub(super) fn receive(&mut self, key: usize, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.last_seen_ns = self.now.mono_ns;
        if conn.phase == Phase::Closing {
            return;
        }
        if conn.kept.is_empty() {
            let used = self.packets(key, bytes);
            self.keep(key, &bytes[used..]);
        } else {
            let mut kept = std::mem::take(&mut conn.kept);
            kept.extend_from_slice(bytes);
            self.replay(key, kept);
        }
    }

    /// Handles what was kept while the connection opened.
    pub(super) fn resume(&mut self, key: usize) {
        if let Some(conn) = self.conns.get_mut(key) {
            let kept = std::mem::take(&mut conn.kept);
            self.replay(key, kept);
        }
    }

    fn replay(&mut self, key: usize, mut kept: Vec<u8>) {
        let used = self.packets(key, &kept);
        if self.conns.get(key).is_none_or(|c| c.phase == Phase::Closing) {
            return;
        }
        if used == kept.len() && kept.capacity() > KEPT_BYTES {
            // A large packet is over: its buffer would otherwise stay with every connection that once sent one.
            return;
        }
        kept.drain(..used);
        if let Some(conn) = self.conns.get_mut(key) {
            conn.kept = kept;
        }
        self.check_early(key);
    }

    fn keep(&mut self, key: usize, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        let limit = self.config.limits.packet_bytes;
        if let Some(conn) = self.conns.get_mut(key)
            && conn.phase != Phase::Closing
        {
            if let Frame::Incomplete { total: Some(total) } = frame::next(rest, limit) {
                // As much as the packet will take, but no more than came twice over: the length is only a claim.
                conn.kept.reserve(total.min(2 * rest.len() + 64));
            }
            conn.kept.extend_from_slice(rest);
        }
        self.check_early(key);
    }

    /// A client that does not wait for its CONNACK may only send so much.
    fn check_early(&mut self, key: usize) {
        if self
            .conns
            .get(key)
            .is_some_and(|c| c.phase == Phase::Opening && c.kept.len() > self.config.limits.early_bytes)
        {
            self.fail(key, Fault::QUOTA);
        }
    }

    /// Handles the whole packets at the front of `bytes`; returns how many bytes are done with.
    fn packets(&mut self, key: usize, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        loop {
            let Some(conn) = self.conns.get(key) else { return bytes.len() };
            match conn.phase {
                Phase::Closing => return bytes.len(),
                Phase::Opening => return bytes.len() - rest.len(),
                Phase::New if rest.first().is_some_and(|first| *first != 0x10) => {
                    self.fail(key, Fault::PROTOCOL);
                    return bytes.len();
                }
                Phase::New | Phase::Live => {}
            }
            match frame::next(rest, self.config.limits.packet_bytes) {
                Frame::Incomplete { .. } => return bytes.len() - rest.len(),
                Frame::Bad(fault) => {
                    self.fail(key, fault);
                    return bytes.len();
                }
                Frame::Whole { first, body, rest: after } => {
                    let outcome =
                        if first == 0x10 { self.on_connect(key, body, rest) } else { self.packet(key, first, body) };
                    if let Err(fault) = outcome {
                        self.fail(key, fault);
                        return bytes.len();
                    }
                    rest = after;
                }
            }
        }
    }

    /// One packet of a live connection.
    fn packet(&mut self, key: usize, first: u8, body: &[u8]) -> Result<(), Fault> {
        let v5 = self.conns.get(key).is_some_and(|c| c.v5);
        match first >> 4 {
            3 => self.on_publish(key, first, body),
            4..=7 => {
                let (id, reason) = acks::decode(first, body, v5)?;
                self.on_ack(key, first, id, reason);
                Ok(())
            }
            8 => self.on_subscribe(key, body),
            10 => self.on_unsubscribe(key, body),
            12 if body.is_empty() => {
                self.push(key, |out| out.extend_from_slice(&replies::PINGRESP));
                Ok(())
            }
            14 => {
                let (reason, expiry_s) = connect::disconnect(body, v5)?;
                self.on_disconnect(key, reason, expiry_s)
            }
            12 => Err(Fault::MALFORMED),
            // AUTH and what only a server sends.
            _ => Err(Fault::PROTOCOL),
        }
    }

    /// A client's DISCONNECT.
    fn on_disconnect(&mut self, key: usize, reason: u8, expiry_s: Option<u32>) -> Result<(), Fault> {
        if let Some(session) = self.session_of(key)
            && let Some(expiry_s) = expiry_s
        {
            // A session that was to end with its connection cannot be prolonged (MQTT-3.14.2.2.2).
            if session.expiry_s == 0 && expiry_s != 0 {
                return Err(Fault::PROTOCOL);
            }
            session.expiry_s = expiry_s;
        }
        self.close(key, reason == 4);
        Ok(())
    }

    /// Ends a connection because of what the client did.
    pub(super) fn fail(&mut self, key: usize, fault: Fault) {
        let Some(conn) = self.conns.get(key) else { return };
        let (tell, live) = (conn.v5 && conn.phase == Phase::Live, conn.phase);
        match fault {
            Fault::KEEP_ALIVE => self.counters.timeouts += 1,
            Fault::TAKEN_OVER => {}
            _ => self.counters.violations += 1,
        }
        if tell {
            self.reply(key, None, |out| replies::disconnect(fault, out));
        }
        self.close(key, live == Phase::Live);
    }

    /// Closes a connection; its session goes the way of its expiry.
    pub(super) fn close(&mut self, key: usize, will: bool) {
        self.leave(key, will);
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.out.flush(conn.id, &mut self.fx);
        conn.phase = Phase::Closing;
        conn.kept = Vec::new();
        conn.aliases = Vec::new();
        self.fx.push(Effect::Close { conn: conn.id });
    }
}
