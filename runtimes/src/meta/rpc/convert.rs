//! Calls and replies as protobuf messages, and back.

use super::pb;
use crate::broker::effect::{MetaCall, MetaReply, SessionRecord};

/// To the wire.
pub(super) fn call_out(call: &MetaCall) -> pb::Call {
    let call = match call {
        MetaCall::OpenSession { record, clean, unix_s } => {
            pb::call::Call::Open(pb::OpenSession { session: Some(session_out(record)), clean: *clean, unix_s: *unix_s })
        }
        MetaCall::PutSession { record } => pb::call::Call::Put(session_out(record)),
        MetaCall::DropSession { client } => pb::call::Call::Drop(client.clone()),
    };
    pb::Call { call: Some(call) }
}

/// From the wire; an error says in one sentence what is not a call.
pub(super) fn call_in(call: pb::Call) -> Result<MetaCall, String> {
    match call.call {
        Some(pb::call::Call::Open(open)) => {
            let session = open.session.ok_or("an OpenSession without its session")?;
            Ok(MetaCall::OpenSession { record: session_in(session)?, clean: open.clean, unix_s: open.unix_s })
        }
        Some(pb::call::Call::Put(session)) => Ok(MetaCall::PutSession { record: session_in(session)? }),
        Some(pb::call::Call::Drop(client)) => Ok(MetaCall::DropSession { client }),
        None => Err("a call that is neither open nor put nor drop".to_owned()),
    }
}

/// To the wire.
pub(super) fn reply_out(reply: MetaReply) -> pb::Reply {
    match reply {
        MetaReply::Opened(kept) => pb::Reply { kept: kept.as_ref().map(session_out) },
        MetaReply::Stored => pb::Reply { kept: None },
    }
}

/// From the wire: the reply to an open or to another call.
pub(super) fn reply_in(reply: pb::Reply, of_open: bool) -> Result<MetaReply, String> {
    if of_open { Ok(MetaReply::Opened(reply.kept.map(session_in).transpose()?)) } else { Ok(MetaReply::Stored) }
}

fn session_out(record: &SessionRecord) -> pb::Session {
    let subscription =
        |(filter, options): &(String, u8)| pb::Subscription { filter: filter.clone(), options: u32::from(*options) };
    pb::Session {
        client: record.client.clone(),
        expiry_s: record.expiry_s,
        subscriptions: record.subscriptions.iter().map(subscription).collect(),
        left_unix_s: record.left_unix_s,
    }
}

fn session_in(session: pb::Session) -> Result<SessionRecord, String> {
    let subscription = |s: pb::Subscription| match u8::try_from(s.options) {
        Ok(options) => Ok((s.filter, options)),
        Err(_) => Err(format!("a subscription with options {}, which do not fit a byte", s.options)),
    };
    Ok(SessionRecord {
        client: session.client,
        expiry_s: session.expiry_s,
        subscriptions: session.subscriptions.into_iter().map(subscription).collect::<Result<_, _>>()?,
        left_unix_s: session.left_unix_s,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = SessionRecord> {
        (".*", any::<u32>(), prop::collection::vec((".*", any::<u8>()), 0..5), any::<Option<u64>>()).prop_map(
            |(client, expiry_s, subscriptions, left_unix_s)| SessionRecord {
                client,
                expiry_s,
                subscriptions,
                left_unix_s,
            },
        )
    }

    fn call() -> impl Strategy<Value = MetaCall> {
        prop_oneof![
            (record(), any::<bool>(), any::<u64>()).prop_map(|(record, clean, unix_s)| MetaCall::OpenSession {
                record,
                clean,
                unix_s
            }),
            record().prop_map(|record| MetaCall::PutSession { record }),
            ".*".prop_map(|client| MetaCall::DropSession { client }),
        ]
    }

    proptest! {
        #[test]
        fn calls_come_back_as_they_went(call in call()) {
            prop_assert_eq!(call_in(call_out(&call)).unwrap(), call);
        }

        #[test]
        fn replies_come_back_as_they_went(kept in prop::option::of(record())) {
            let reply = MetaReply::Opened(kept);
            prop_assert_eq!(reply_in(reply_out(reply.clone()), true).unwrap(), reply);
        }
    }

    #[test]
    fn what_is_no_call_is_named() {
        assert!(call_in(pb::Call { call: None }).unwrap_err().contains("neither open nor put nor drop"));
        let wide = pb::Subscription { filter: "t".into(), options: 256 };
        let put = pb::call::Call::Put(pb::Session { subscriptions: vec![wide], ..Default::default() });
        assert!(call_in(pb::Call { call: Some(put) }).unwrap_err().contains("options 256"));
    }
}
