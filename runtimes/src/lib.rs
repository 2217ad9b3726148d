//! The stacks: one broker, built natively on several async runtimes.
//!
//! [`broker`] decides (pure, no I/O, no clock, no async); each shell performs in its runtime's own idiom. Shells have
//! the same function order, so that `diff tokio_pinned.rs compio.rs` is the picture of what a migration means.

pub mod broker;
pub mod settings;
