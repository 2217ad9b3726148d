//! The broker behind its gate.

use super::broker::Broker;
use super::config::{BrokerConfig, Counters, PartitionState};
use super::effect::{Effect, Input, Now, PeerMsg};
use super::gate::Gate;

/// A shard for shells that want only what can be done now: every effect that it gives can be performed at once.
#[derive(Debug)]
pub struct Shard {
    broker: Broker,
    gate: Gate,
    raw: Vec<Effect>,
}

impl Shard {
    /// A shard at its start. `recovered` says where its partitions stand; see [`PartitionState`].
    pub fn new(config: BrokerConfig, recovered: Vec<PartitionState>) -> Self {
        Shard { broker: Broker::new(config, recovered), gate: Gate::default(), raw: Vec::new() }
    }

    /// Takes an input in and appends what can be done now, in the order in which it must be begun. Replies carry no
    /// `after` any more, and syncs neither.
    pub fn handle(&mut self, input: Input<'_>, now: Now, out: &mut Vec<Effect>) {
        let completed = match &input {
            Input::Done { op, result: Ok(_) } => Some(*op),
            Input::Peer { msg: PeerMsg::Appended { token }, .. } => Some(*token),
            _ => None,
        };
        if let Input::Closed { conn } = input {
            self.gate.forget(conn);
        }
        self.broker.handle(input, now, &mut self.raw);
        if matches!(self.raw.first(), Some(Effect::Halt { .. })) {
            out.append(&mut self.raw);
            return;
        }
        let Shard { broker, gate, raw } = self;
        let pending = |op| broker.is_pending(op);
        if let Some(op) = completed
            && !pending(op)
        {
            gate.complete(op, pending, out);
        }
        for effect in raw.drain(..) {
            gate.admit(effect, pending, out);
        }
    }

    /// What was done since the start.
    pub fn counters(&self) -> Counters {
        self.broker.counters()
    }
}
