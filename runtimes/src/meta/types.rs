//! openraft's types, filled in for the meta-service.
//!
//! Only [`Types`] depends on the runtime; entries, votes and log ids are the same on all of them, and so is what is
//! stored. Node ids are numbers, nodes are socket addresses.

use super::native::Native;
use crate::broker::effect::{MetaCall, MetaReply};
use openraft::impls::{BasicNode, BoxedErrorSource, EntryPayload, InlineBatch, ProgressResponder};
use openraft::{OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;

/// Number of a node of the meta-service, from 1.
pub type NodeId = u64;
/// Who leads, and since when.
pub type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, NodeId>;
/// Where an entry stands in the log.
pub type LogId = openraft::LogId<LeaderId>;
/// What a node voted.
pub type Vote = openraft::Vote<LeaderId>;
/// What an entry says.
pub type Payload = EntryPayload<Proposal, NodeId, BasicNode>;
/// An entry of the raft log.
pub type Entry = openraft::Entry<LeaderId, Payload>;
/// The nodes, and the entry that named them.
pub type StoredMembership = openraft::StoredMembership<LeaderId, NodeId, BasicNode>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<LeaderId, NodeId, BasicNode>;
/// A snapshot: the sessions as [`super::snapshot`] encodes them.
pub type Snapshot = openraft::Snapshot<LeaderId, NodeId, BasicNode, Vec<u8>>;

/// Calls that become one entry of the raft log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Names it in stamps and spans; chosen by who proposes. The same calls under the same id by the same caller are
    /// applied once.
    pub id: u64,
    /// Who proposes, where that is not said by the id; else 0.
    pub caller: u64,
    /// Applied in this order, together.
    pub calls: Vec<MetaCall>,
}

/// One reply for each call of a proposal, in order; none for openraft's own entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies(pub Vec<MetaReply>);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proposal {} of {} calls", self.id, self.calls.len())
    }
}

/// openraft's type configuration on runtime `N`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Types<N>(PhantomData<N>);

impl<N: Native> RaftTypeConfig for Types<N> {
    type D = Proposal;
    type R = Replies;
    type NodeId = NodeId;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = N;
    type Responder<T>
        = ProgressResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}
