//! Time: keep-alive, connections without CONNECT, sessions that expire.

use super::broker::Broker;
use super::conn::Phase;
use super::effect::MetaCall;
use super::wire::Fault;

/// What a timer is for. Timers are ordered by time and then by this, so that they fire in a fixed order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The connection with this key.
    Conn(usize),
    /// The session with this key and serial.
    Session(usize, u64),
}

impl Broker {
    /// Sets a connection's timer. An earlier one that is still set finds another time noted and does nothing.
    pub(super) fn arm(&mut self, key: usize, at_ns: u64) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.timer_ns = at_ns;
            self.timers.insert((at_ns, Timer::Conn(key)));
        }
    }

    /// Time has passed. A connection's timer is not moved when bytes come (that would cost a reordering per packet): it
    /// fires where it stands, and is set anew if the client was heard since.
    pub(super) fn on_tick(&mut self) {
        let now_ns = self.now.mono_ns;
        while let Some(&(at_ns, timer)) = self.timers.first()
            && at_ns <= now_ns
        {
            self.timers.pop_first();
            match timer {
                Timer::Conn(key) => self.on_conn_timer(key, at_ns),
                Timer::Session(key, serial) => self.on_session_timer(key, serial),
            }
        }
    }

    fn on_conn_timer(&mut self, key: usize, at_ns: u64) {
        let Some(conn) = self.conns.get(key).filter(|c| c.timer_ns == at_ns) else { return };
        match conn.phase {
            Phase::New => {
                self.counters.timeouts += 1;
                self.close(key, false);
            }
            Phase::Live if conn.keep_alive_ns > 0 => {
                let due_ns = conn.last_seen_ns.saturating_add(conn.keep_alive_ns);
                if due_ns <= self.now.mono_ns {
                    self.fail(key, Fault::KEEP_ALIVE);
                } else {
                    self.arm(key, due_ns);
                }
            }
            // The client waits for us, not we for it.
            Phase::Opening | Phase::Live | Phase::Closing => {}
        }
    }

    fn on_session_timer(&mut self, key: usize, serial: u64) {
        if self.sessions.get(key).is_some_and(|s| s.serial == serial && s.conn.is_none()) {
            let Some(client) = self.sessions.get(key).map(|s| s.client.clone()) else { return };
            self.forget(key);
            self.meta_call(&client, MetaCall::DropSession { client: client.to_string() });
        }
    }
}
