//! Retained messages of the topics that this shard owns.
//!
//! In memory: they do not survive a restart.

use super::effect::Message;
use super::filter;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// By topic, in order, so that what a filter matches comes in a fixed order.
///
/// A QoS 1 or 2 message is retained once it is written, a QoS 0 message at once; the one that *came* last must win. So
/// every message draws its turn when it comes. While messages that have drawn are still to be written, a topic that was
/// emptied keeps its turn, lest an older message fill it again.
#[derive(Debug, Default)]
pub(super) struct Retained {
    by_topic: BTreeMap<Arc<str>, Kept>,
    turns: u64,
    /// Messages that have drawn and are not written.
    unwritten: usize,
    /// Topics that were emptied meanwhile.
    emptied: Vec<Arc<str>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Kept {
    pub message: Message,
    /// When it came, ns monotonic: its expiry counts from then.
    pub since_ns: u64,
    turn: u64,
}

impl Retained {
    /// A message to be retained has come, and will be kept once it is written ([`Self::written`]). Returns its turn.
    pub fn draw(&mut self) -> u64 {
        self.unwritten += 1;
        self.turns += 1;
        self.turns
    }

    /// Keeps a message that came now for its topic; an empty payload forgets what was kept.
    pub fn keep(&mut self, message: Message, since_ns: u64) {
        self.turns += 1;
        self.set(Kept { message, since_ns, turn: self.turns });
    }

    /// Keeps a message that drew its turn when it came.
    pub fn written(&mut self, turn: u64, message: Message, since_ns: u64) {
        self.set(Kept { message, since_ns, turn });
        self.unwritten -= 1;
        if self.unwritten == 0 {
            for topic in self.emptied.drain(..) {
                if self.by_topic.get(&topic).is_some_and(|k| k.message.payload.is_empty()) {
                    self.by_topic.remove(&topic);
                }
            }
        }
    }

    fn set(&mut self, new: Kept) {
        let topic = new.message.topic.clone();
        if self.by_topic.get(&topic).is_some_and(|old| old.turn > new.turn) {
            return;
        }
        if !new.message.payload.is_empty() {
            self.by_topic.insert(topic, new);
        } else if self.unwritten > 0 {
            self.by_topic.insert(topic.clone(), new);
            self.emptied.push(topic);
        } else {
            self.by_topic.remove(&topic);
        }
    }

    /// Those that a filter matches.
    pub fn matching<'a>(&'a self, filter: &'a str) -> impl Iterator<Item = &'a Kept> + 'a {
        let prefix = filter::literal_prefix(filter);
        self.by_topic
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(topic, _)| topic.starts_with(prefix))
            .filter(move |(topic, _)| filter::matches(filter, topic))
            .map(|(_, kept)| kept)
            .filter(|kept| !kept.message.payload.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(topic: &str, payload: &'static str) -> Message {
        Message {
            topic: topic.into(),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: 0,
            retain: true,
            properties: Bytes::new(),
            publisher: "p".into(),
            sequence: 0,
        }
    }

    #[test]
    fn kept_found_and_forgotten() {
        let mut r = Retained::default();
        for t in ["a/b/c", "a", "a/b", "ab", "$SYS/x", "b"] {
            r.keep(message(t, "x"), 0);
        }
        let found = |r: &Retained, f: &str| r.matching(f).map(|k| k.message.topic.to_string()).collect::<Vec<_>>();
        assert_eq!(found(&r, "a/#"), ["a", "a/b", "a/b/c"]);
        assert_eq!(found(&r, "#"), ["a", "a/b", "a/b/c", "ab", "b"]);
        assert_eq!(found(&r, "a/+"), ["a/b"]);
        assert_eq!(found(&r, "+"), ["a", "ab", "b"]);
        assert_eq!(found(&r, "$SYS/#"), ["$SYS/x"]);
        r.keep(message("a/b", ""), 0);
        assert_eq!(found(&r, "a/#"), ["a", "a/b/c"]);
    }

    #[test]
    fn the_last_that_came_wins_though_written_late() {
        let mut r = Retained::default();
        let found = |r: &Retained| r.matching("#").map(|k| k.message.payload.clone()).collect::<Vec<_>>();
        let (first, third) = (r.draw(), r.draw());
        r.keep(message("t", "by QoS 0, after both"), 0);
        r.written(first, message("t", "first"), 0);
        assert_eq!(found(&r), ["by QoS 0, after both"]);
        r.keep(message("t", ""), 0);
        r.written(third, message("t", "third"), 0);
        assert!(found(&r).is_empty() && r.by_topic.is_empty() && r.emptied.is_empty());
        let last = r.draw();
        r.written(last, message("t", "last"), 0);
        assert_eq!(found(&r), ["last"]);
    }
}
