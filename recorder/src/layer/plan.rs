//! What is known about a callsite before its first span: its kind, and what each of its fields means.
//!
//! Worked out once per callsite, so that a span's fields are told apart by their position and not by their name.

use regauge_traces::Kind;
use tracing_core::Metadata;

/// What a field means to a trace. Every other field is passed over, unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Ignored,
    Session,
    Target,
    Bytes,
    Count,
    Qos,
    Status,
    Proposal,
}

/// A callsite.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) metadata: &'static Metadata<'static>,
    /// `None`: its spans are not recorded.
    pub(super) kind: Option<Kind>,
    roles: Box<[Role]>,
    /// Whether any field means something.
    pub(super) has_fields: bool,
}

impl Plan {
    pub(super) fn of(metadata: &'static Metadata<'static>, recorded: bool) -> Plan {
        let kind = recorded.then(|| kind_of_step(metadata.name()).unwrap_or(Kind::Step));
        let role = |name: &str| match name {
            "session" => Role::Session,
            // The name of a step stands in its target.
            "target" | "proposal" if kind == Some(Kind::Step) => Role::Ignored,
            "target" => Role::Target,
            "bytes" => Role::Bytes,
            "count" => Role::Count,
            "qos" => Role::Qos,
            "status" => Role::Status,
            "proposal" => Role::Proposal,
            _ => Role::Ignored,
        };
        let roles: Box<[Role]> = match kind {
            Some(_) => metadata.fields().iter().map(|field| role(field.name())).collect(),
            None => Box::default(),
        };
        let has_fields = roles.iter().any(|role| *role != Role::Ignored);
        Plan { metadata, kind, roles, has_fields }
    }

    pub(super) fn role(&self, index: usize) -> Role {
        self.roles.get(index).copied().unwrap_or(Role::Ignored)
    }
}

/// The kind of a span with this name, unless it is one that only the wire shows.
pub(super) fn kind_of_step(name: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.name() == name && !kind.is_on_wire() && *kind != Kind::Step)
}
