//! The broker seen from outside: bytes and completions in, effects out. No I/O.
//!
//! `flows` are readable scripts whose effects are kept as snapshots; `properties` are what must hold for every input and
//! every order of completions; `shards` compares several shards with one. All packets are built and read by
//! `mqtt-protocol-core`, so that the broker's own reading and writing is checked against another implementation.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clients;
mod flows;
mod flows_v5;
mod packets;
mod properties;
mod shards;
mod sim;
