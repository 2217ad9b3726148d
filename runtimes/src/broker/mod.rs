//! The broker as a pure state machine: packets and completions in, effects out.
//!
//! No I/O, no clock, no async. A broker is split into *shards*; each shard owns the sessions whose client id hashes
//! to it, and the partitions whose number falls to it. Shards speak only by [`effect::PeerMsg`].

pub mod effect;
