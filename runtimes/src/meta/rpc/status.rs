//! A node's errors as gRPC statuses, and back.

use super::{PROPOSAL_BYTES_MAX, RAFT_BYTES_MAX};
use crate::meta::api::ProposeError;
use std::net::SocketAddr;
use tonic::{Code, Status};

const LEADER: &str = "leader";

/// What came of an attempt that brought no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The node says so; another attempt would bring the same.
    Final(String),
    /// It does not lead.
    Elsewhere(Option<SocketAddr>),
    /// There is no connection, or it broke.
    Broken(String),
}

/// To the wire.
pub(super) fn out(error: &ProposeError) -> Status {
    match error {
        ProposeError::Beyond(reason) => Status::resource_exhausted(reason.clone()),
        ProposeError::Failed(reason) => Status::internal(reason.clone()),
        ProposeError::NotLeader { leader } => {
            let mut status = Status::unavailable(error.to_string());
            if let Some(value) = leader.and_then(|leader| leader.to_string().parse().ok()) {
                status.metadata_mut().insert(LEADER, value);
            }
            status
        }
    }
}

/// From the wire.
pub(super) fn failure(status: &Status) -> Failure {
    use std::error::Error;
    // What a node answers has no source here; what went wrong on the way to it has.
    if let Some(mut cause) = status.source() {
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        return Failure::Broken(cause.to_string());
    }
    match status.code() {
        Code::Unavailable => {
            let leader = status.metadata().get(LEADER).and_then(|value| value.to_str().ok());
            Failure::Elsewhere(leader.and_then(|leader| leader.parse().ok()))
        }
        Code::ResourceExhausted | Code::InvalidArgument | Code::Internal | Code::OutOfRange | Code::Unimplemented => {
            Failure::Final(status.message().to_owned())
        }
        code => Failure::Broken(format!("{}: {}", code.description(), status.message())),
    }
}

/// What tonic answers to a message beyond its limit is OUT_OF_RANGE, of which no other status here is. This is what it
/// should have said.
pub(super) fn beyond(proposal: bool) -> Status {
    Status::resource_exhausted(match proposal {
        true => format!(
            "a proposal is larger than {} MiB; propose fewer calls at once, or sessions with fewer subscriptions",
            PROPOSAL_BYTES_MAX >> 20
        ),
        false => format!("a message between nodes is larger than {} MiB", RAFT_BYTES_MAX >> 20),
    })
}
