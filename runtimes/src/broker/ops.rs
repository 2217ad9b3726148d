//! Operations that have been named and are not finished.

use super::effect::OpId;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// What an operation is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    /// Append to a partition.
    Append(u32),
    /// Sync of a partition.
    Sync(u32),
    /// Roll of a partition.
    Roll(u32),
    /// Read for a session (key and serial).
    Read(usize, u64),
    /// Meta call of a client.
    Meta(Arc<str>),
    /// An append that another shard does.
    Remote,
    /// The answer of another shard to a subscription, for a join.
    Subscription {
        /// Key of the join.
        join: usize,
        /// What was subscribed to.
        filter: Arc<str>,
        /// Whether the retained messages of the answer are wanted.
        retained: bool,
    },
}

/// The table of them, and the source of new ids.
#[derive(Debug, Default)]
pub(super) struct Ops {
    last: u64,
    open: HashMap<OpId, Op, ById>,
}

impl Ops {
    /// Names a new operation.
    pub fn open(&mut self, op: Op) -> OpId {
        self.last += 1;
        let id = OpId(self.last);
        self.open.insert(id, op);
        id
    }

    /// An operation is finished.
    pub fn finish(&mut self, id: OpId) -> Option<Op> {
        self.open.remove(&id)
    }

    /// Whether it is still to be finished.
    pub fn is_open(&self, id: OpId) -> bool {
        self.open.contains_key(&id)
    }
}

/// Hashes ids that the broker or its shell counts up: a multiplication spreads them well enough, at a tenth of the cost
/// of the default hasher. Never for what clients choose.
pub(super) type ById = BuildHasherDefault<IdHasher>;

/// See [`ById`].
#[derive(Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}
