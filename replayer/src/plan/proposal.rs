//! A raft proposal as the meta-service gets it: a gRPC message of the recorded length that opens the recorded number of
//! sessions.
//!
//! A trace does not hold what was proposed, only how many entries and how many bytes. Opening sessions is what
//! RobustMQ's proposals do and the one call of ours that reads and writes; client ids are made up, unique, and padded
//! until the length is met. They come from ordinals of the plan, not from the trace's hashes, so that another redaction
//! key gives the same requests. Only who proposes is left open for the driver to say ([`for_caller`]), since a server that
//! is driven a second time would otherwise answer what it remembers.

use super::PlanError;
use super::names::base36;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use regauge_runtimes::meta::proto::{Call, OpenSession, ProposeRequest, Session, call};
use regauge_traces::{Span, flags};

/// The most calls that the meta-service takes in one proposal.
const CALLS_MAX: u32 = 10_000;

/// The largest proposal that it takes, bytes: gRPC's usual limit of a message.
const BYTES_MAX: u64 = 4 << 20;

/// Longest client id, bytes: what MQTT can carry.
const CLIENT_BYTES_MAX: usize = 65_535;

/// Reckoned for the request's id, bytes: its own length must not change the calls, or renumbering a trace would.
const ID_BYTES: u64 = 4;

/// What names the caller, which is no part of what was recorded, bytes: a key and eight bytes, the message's last.
const CALLER_BYTES: usize = 9;

/// Its key: field 3, of 64 bits.
const CALLER_KEY: u8 = 3 << 3 | 1;

/// The wall clock of every open, s: a plan must not depend on when it was made. As long on the wire as a real one.
const UNIX_S: u64 = 1_767_225_600;

/// Flag byte and length of a gRPC message.
const PREFIX_BYTES: usize = 5;

/// A proposal ready to be sent.
pub(super) struct Proposal {
    /// The gRPC message with its prefix.
    pub message: Bytes,
    /// The part of it that says what is proposed, without the id.
    pub calls: Bytes,
    /// The recorded length could not be met.
    pub resized: bool,
}

/// Whether a proposal like this can be made.
pub(super) fn check(span: &Span) -> Result<(), PlanError> {
    let refuse = |why: String| Err(PlanError::Proposal { id: span.id, why });
    if span.count == 0 || span.count > CALLS_MAX {
        return refuse(format!("it has {} entries, and the meta-service takes 1 to {CALLS_MAX}", span.count));
    }
    if span.bytes > BYTES_MAX {
        return refuse(format!("it has {} bytes, and the meta-service takes at most {BYTES_MAX}", span.bytes));
    }
    Ok(())
}

/// The proposal of this span, whose client ids begin with `name`.
pub(super) fn proposal(span: &Span, name: &str) -> Proposal {
    let shortest = |call: usize| format!("raft/{name}/{}", base36(call)).len();
    let count = span.count as usize;
    let mut lengths: Vec<usize> = (0..count).map(shortest).collect();
    let wanted = span.bytes.saturating_sub(ID_BYTES + CALLER_BYTES as u64);
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    // A length of 0 was not recorded; the shortest proposal is as good as any.
    let mut resized = false;
    if span.bytes > 0 {
        let bare: usize = lengths.iter().map(|length| call_bytes(span, *length)).sum();
        resized = bare > wanted;
        stretch(span, &mut lengths, wanted.saturating_sub(bare));
    }
    let calls: Vec<Call> = lengths.iter().enumerate().map(|(call, length)| open(span, name, call, *length)).collect();
    // Without an id: protobuf does not write a zero.
    let calls = Bytes::from(ProposeRequest { id: 0, calls, caller: 0 }.encode_to_vec());
    let id = ProposeRequest { id: span.id, calls: Vec::new(), caller: 0 }.encode_to_vec();
    let bytes = id.len() + calls.len() + CALLER_BYTES;
    let mut message = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    message.put_u8(0);
    message.put_u32(bytes as u32);
    message.put_slice(&id);
    message.put_slice(&calls);
    message.put_u8(CALLER_KEY);
    message.put_u64_le(0);
    let most = lengths.iter().max().copied().unwrap_or(0);
    Proposal { message: message.freeze(), calls, resized: resized || most == CLIENT_BYTES_MAX }
}

/// A proposal's message as this caller sends it. Its length stays.
pub(super) fn for_caller(message: &[u8], caller: u64) -> Bytes {
    let open = message.len().saturating_sub(size_of::<u64>());
    let mut own = BytesMut::with_capacity(message.len());
    own.put_slice(&message[..open]);
    own.put_u64_le(caller);
    own.freeze()
}

/// Shares `slack` bytes among the client ids. What longer length prefixes cost is taken off again, so the sum never
/// grows by more than `slack`, and misses it by a few bytes at most.
fn stretch(span: &Span, lengths: &mut [usize], slack: usize) {
    let count = lengths.len();
    let bytes = |lengths: &[usize]| -> usize { lengths.iter().map(|length| call_bytes(span, *length)).sum() };
    let wanted = bytes(lengths) + slack;
    let shortest = lengths.to_vec();
    for (call, length) in lengths.iter_mut().enumerate() {
        *length = (*length + slack / count + usize::from(call < slack % count)).min(CLIENT_BYTES_MAX);
    }
    let mut over = bytes(lengths).saturating_sub(wanted);
    for call in (0..count).rev().cycle().take(4 * count) {
        let (length, shortest) = (&mut lengths[call], shortest[call]);
        if over == 0 {
            break;
        }
        let taken = over.div_ceil(count).min(*length - shortest).min(over);
        let before = call_bytes(span, *length);
        *length -= taken;
        over = over.saturating_sub(before - call_bytes(span, *length));
    }
}

/// Encoded length of one call with a client id of this length.
fn call_bytes(span: &Span, client_bytes: usize) -> usize {
    let field = |bytes: usize| 1 + prost::length_delimiter_len(bytes) + bytes;
    let expiry = if span.expiry_s > 0 { 1 + prost::length_delimiter_len(span.expiry_s as usize) } else { 0 };
    let session = field(client_bytes) + expiry;
    let clean = if span.has(flags::CLEAN_START) { 2 } else { 0 };
    let open = field(session) + clean + 1 + prost::length_delimiter_len(UNIX_S as usize);
    field(field(open))
}

fn open(span: &Span, name: &str, call: usize, length: usize) -> Call {
    let mut client = format!("raft/{name}/{}", base36(call));
    client.extend(std::iter::repeat_n('-', length.saturating_sub(client.len())));
    let session = Session { client, expiry_s: span.expiry_s, subscriptions: Vec::new(), left_unix_s: None };
    let open = OpenSession { session: Some(session), clean: span.has(flags::CLEAN_START), unix_s: UNIX_S };
    Call { call: Some(call::Call::Open(open)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;
    use regauge_traces::Kind;
    use std::collections::HashSet;

    proptest! {
        /// Whatever was recorded, the request opens that many sessions with unique names and is as long, if it can be.
        #[test]
        fn a_proposal_has_the_recorded_count_and_length(
            id: u64, count in 1_u32..150, bytes in 0_u64..40_000, expiry_s: u32, clean: bool,
        ) {
            let mut span = Span::new(id, Kind::RaftProposal, 0);
            (span.count, span.bytes, span.expiry_s) = (count, bytes, expiry_s);
            span.flags = if clean { flags::CLEAN_START } else { 0 };
            let proposal = proposal(&span, "7");
            let message = &proposal.message;
            prop_assert_eq!(message[0], 0);
            prop_assert_eq!(u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize, message.len() - 5);
            let request = ProposeRequest::decode(&message[5..]).unwrap();
            prop_assert_eq!((request.id, request.calls.len()), (id, count as usize));
            let sent = for_caller(message, id ^ 77);
            let told = ProposeRequest { caller: id ^ 77, ..request.clone() };
            prop_assert_eq!(ProposeRequest::decode(&sent[5..]).unwrap(), told);
            prop_assert_eq!((sent.len(), &sent[..5]), (message.len(), &message[..5]));
            let clients: HashSet<String> = request.calls.iter().map(|call| match &call.call {
                Some(call::Call::Open(open)) => open.session.as_ref().unwrap().client.clone(),
                other => panic!("{other:?} is no open"),
            }).collect();
            prop_assert_eq!(clients.len(), count as usize);
            let off = (message.len() - 5).abs_diff(bytes as usize);
            if bytes > 0 && !proposal.resized {
                // The id's own length, and a byte that a length prefix needs, for each call at most.
                prop_assert!(off <= 8 + 2 * count as usize, "{} bytes instead of {}", message.len() - 5, bytes);
            }
            prop_assert_eq!(proposal.calls.len(), ProposeRequest { id: 0, caller: 0, ..request }.encoded_len());
        }
    }
}
