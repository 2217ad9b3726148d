//! Subscriptions by topic level: which sessions of this shard, and which other shards, want a topic.

use super::effect::ShardId;
use std::collections::HashMap;

/// A subscription's options byte, as in SUBSCRIBE of MQTT 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Options(pub u8);

impl Options {
    pub fn qos(self) -> u8 {
        self.0 & 3
    }
    pub fn no_local(self) -> bool {
        self.0 & 4 != 0
    }
    pub fn retain_as_published(self) -> bool {
        self.0 & 8 != 0
    }
    /// 0: send retained messages, 1: only for a new subscription, 2: do not.
    pub fn retain_handling(self) -> u8 {
        self.0 >> 4 & 3
    }
}

/// A session's subscription that matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    /// The session's key.
    pub session: usize,
    pub options: Options,
    /// Subscription identifier; 0: none.
    pub id: u32,
}

/// What a topic matched. Kept between calls, so that a match allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Matches {
    /// By session; a session stands as often as subscriptions of it matched.
    pub local: Vec<Match>,
    /// Other shards, each once, ascending.
    pub shards: Vec<ShardId>,
}

/// Sorted vectors: matching walks them, and their order never depends on a hash.
#[derive(Debug, Default)]
struct Leaf {
    subs: Vec<Match>,
    shards: Vec<ShardId>,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    plus: Option<Box<Node>>,
    /// Filters that end here.
    here: Leaf,
    /// Filters that end here with `/#`.
    below: Leaf,
}

/// The subscriptions that this shard knows.
#[derive(Debug, Default)]
pub(super) struct Trie {
    root: Node,
    entries: usize,
}

impl Leaf {
    fn is_empty(&self) -> bool {
        self.subs.is_empty() && self.shards.is_empty()
    }

    fn collect(&self, out: &mut Matches) {
        out.local.extend_from_slice(&self.subs);
        out.shards.extend_from_slice(&self.shards);
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.plus.is_none() && self.here.is_empty() && self.below.is_empty()
    }

    /// The leaf of a filter, created on the way.
    fn leaf(&mut self, filter: &str) -> &mut Leaf {
        let mut node = self;
        for level in filter.split('/') {
            match level {
                "#" => return &mut node.below,
                "+" => node = node.plus.get_or_insert_default(),
                _ => node = node.children.entry(level.into()).or_default(),
            }
        }
        &mut node.here
    }

    /// Changes the leaf of a filter, if it exists, and removes nodes that hold nothing any more. Depth is bounded by
    /// [`super::filter::LEVELS_MAX`].
    fn change<R>(&mut self, filter: Option<&str>, act: impl FnOnce(&mut Leaf) -> R) -> Option<R> {
        let Some(filter) = filter else { return Some(act(&mut self.here)) };
        let (level, rest) = match filter.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (filter, None),
        };
        match level {
            "#" => Some(act(&mut self.below)),
            "+" => {
                let result = self.plus.as_mut()?.change(rest, act);
                self.plus.take_if(|n| n.is_empty());
                result
            }
            _ => {
                let child = self.children.get_mut(level)?;
                let result = child.change(rest, act);
                if child.is_empty() {
                    self.children.remove(level);
                }
                result
            }
        }
    }

    fn collect(&self, topic: Option<&str>, first: bool, out: &mut Matches) {
        // Wildcards at the front do not match topics that begin with `$`.
        let wild = !(first && topic.is_some_and(|t| t.starts_with('$')));
        if wild && !self.below.is_empty() {
            self.below.collect(out);
        }
        let Some(topic) = topic else { return self.here.collect(out) };
        let (level, rest) = match topic.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (topic, None),
        };
        if !self.children.is_empty()
            && let Some(child) = self.children.get(level)
        {
            child.collect(rest, false, out);
        }
        if wild && let Some(plus) = &self.plus {
            plus.collect(rest, false, out);
        }
    }
}

impl Trie {
    /// Adds or replaces a session's subscription.
    pub fn subscribe(&mut self, filter: &str, sub: Match) {
        let subs = &mut self.root.leaf(filter).subs;
        match subs.binary_search_by_key(&sub.session, |s| s.session) {
            Ok(i) => subs[i] = sub,
            Err(i) => {
                subs.insert(i, sub);
                self.entries += 1;
            }
        }
    }

    /// Removes a session's subscription. True when it was the last one of this shard's with the filter.
    pub fn unsubscribe(&mut self, filter: &str, session: usize) -> bool {
        let gone = self.root.change(Some(filter), |leaf| {
            let i = leaf.subs.binary_search_by_key(&session, |s| s.session).ok()?;
            leaf.subs.remove(i);
            Some(leaf.subs.is_empty())
        });
        match gone.flatten() {
            Some(last) => {
                self.entries -= 1;
                last
            }
            None => false,
        }
    }

    /// Another shard wants what matches.
    pub fn interest(&mut self, filter: &str, shard: ShardId) {
        let shards = &mut self.root.leaf(filter).shards;
        if let Err(i) = shards.binary_search(&shard) {
            shards.insert(i, shard);
            self.entries += 1;
        }
    }

    /// Another shard wants it no longer.
    pub fn no_interest(&mut self, filter: &str, shard: ShardId) {
        let gone = self.root.change(Some(filter), |leaf| {
            let i = leaf.shards.binary_search(&shard).ok()?;
            leaf.shards.remove(i);
            Some(())
        });
        if gone.flatten().is_some() {
            self.entries -= 1;
        }
    }

    /// Whether nobody wants anything.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Finds who wants a topic. `out` is cleared first.
    pub fn matches(&self, topic: &str, out: &mut Matches) {
        out.local.clear();
        out.shards.clear();
        if self.entries == 0 {
            return;
        }
        self.root.collect(Some(topic), true, out);
        out.local.sort_by_key(|m| (m.session, m.id));
        out.shards.sort_unstable();
        out.shards.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn level(wild: bool) -> impl Strategy<Value = String> {
        let plain = prop_oneof![Just("a"), Just("b"), Just(""), Just("$x"), Just("long-level")].prop_map(String::from);
        if wild { prop_oneof![4 => plain, 1 => Just("+".to_owned())].boxed() } else { plain.boxed() }
    }

    fn a_filter() -> impl Strategy<Value = String> {
        (proptest::collection::vec(level(true), 1..5), any::<bool>()).prop_map(|(mut levels, hash)| {
            if hash {
                levels.push("#".into());
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_matcher(
            steps in proptest::collection::vec((a_filter(), 0usize..4, any::<bool>()), 1..40),
            topics in proptest::collection::vec(proptest::collection::vec(level(false), 1..5), 1..10),
        ) {
            let mut trie = Trie::default();
            let mut model: BTreeSet<(String, usize)> = BTreeSet::new();
            for (f, who, add) in steps {
                if !filter::is_valid(&f) {
                    continue;
                }
                // Sessions 0 and 1 are local, 2 and 3 stand for other shards.
                match (add, who < 2) {
                    (true, true) => trie.subscribe(&f, Match { session: who, options: Options(1), id: 0 }),
                    (true, false) => trie.interest(&f, who as ShardId),
                    (false, true) => {
                        let last = trie.unsubscribe(&f, who);
                        let held = model.contains(&(f.clone(), who));
                        prop_assert_eq!(last, held && !model.contains(&(f.clone(), 1 - who)));
                    }
                    (false, false) => trie.no_interest(&f, who as ShardId),
                }
                if add { model.insert((f, who)); } else { model.remove(&(f, who)); }
            }
            let mut out = Matches::default();
            for topic in topics {
                let topic = topic.join("/");
                trie.matches(&topic, &mut out);
                let hits: Vec<&(String, usize)> = model.iter().filter(|(f, _)| filter::matches(f, &topic)).collect();
                let mut local: Vec<usize> = hits.iter().map(|h| h.1).filter(|w| *w < 2).collect();
                local.sort_unstable();
                let shards: BTreeSet<usize> = hits.iter().map(|h| h.1).filter(|w| *w >= 2).collect();
                prop_assert_eq!(out.local.iter().map(|m| m.session).collect::<Vec<_>>(), local);
                prop_assert_eq!(out.shards.iter().map(|s| usize::from(*s)).collect::<BTreeSet<_>>(), shards);
            }
            for (f, who) in &model {
                if *who < 2 { trie.unsubscribe(f, *who); } else { trie.no_interest(f, *who as ShardId); }
            }
            prop_assert!(trie.is_empty() && trie.root.is_empty(), "nodes are left over");
        }
    }
}
