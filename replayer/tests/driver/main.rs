//! Tests of packets, plans and the driver, against small servers of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faults;
mod files;
mod frames;
mod meta;
mod packets;
mod plans;
mod proposals;
mod protocol;
mod server;
mod spans;
mod timing;
