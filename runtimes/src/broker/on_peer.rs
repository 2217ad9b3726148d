//! What other shards say.

use super::broker::Broker;
use super::deliver::Fan;
use super::effect::{Message, OpId, PeerMsg, ShardId};
use super::on_subscribe::JoinKind;
use super::ops::Op;

impl Broker {
    /// A message of another shard.
    pub(super) fn on_peer(&mut self, from: ShardId, msg: PeerMsg) {
        match msg {
            PeerMsg::Append { token, msg } => self.on_peer_append(from, token, &msg),
            PeerMsg::Appended { token } => {
                self.ops.finish(token);
            }
            PeerMsg::Publish { msg } => self.publish_now(Fan::of_message(&msg, None)),
            PeerMsg::Deliver { msg, stored } => self.fan_out(&mut Fan::of_message(&msg, stored), false),
            PeerMsg::Subscribe { token, filter } => {
                self.trie.interest(&filter, from);
                let retained = self.retained.matching(&filter).map(|kept| kept.message.clone()).collect();
                self.send(from, PeerMsg::Subscribed { token, retained });
            }
            PeerMsg::Subscribed { token, retained } => self.on_subscribed(token, retained),
            PeerMsg::Unsubscribe { filter } => self.trie.no_interest(&filter, from),
        }
    }

    /// Another shard delivers matches of a filter from now on. Its retained messages go out at once: what it delivers
    /// later is newer.
    fn on_subscribed(&mut self, token: OpId, retained: Vec<Message>) {
        let Some(Op::Subscription { join, filter, retained: wanted }) = self.ops.finish(token) else { return };
        if wanted
            && let Some(j) = self.joins.get(join)
            && matches!(j.kind, JoinKind::Suback { .. })
            && let Some(session) =
                self.conn_keys.get(&j.conn).and_then(|key| self.conns.get(*key)).and_then(|c| c.session)
        {
            for message in retained {
                self.deliver_retained(session, &filter, message, self.now.mono_ns);
            }
        }
        self.join_arrived(join);
    }
}
