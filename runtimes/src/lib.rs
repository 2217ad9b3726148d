//! The stacks: one broker, built natively on several async runtimes.
//!
//! [`broker`] decides (pure, no I/O, no clock, no async); each shell performs in its runtime's own idiom. Shells have
//! the same function order, so that `diff tokio_pinned.rs compio.rs` is the picture of what a migration means. What all
//! shells share is plain synchronous code: [`shell`], [`segment`], [`meta`], [`outbox`].

pub mod affinity;
pub mod attest;
pub mod broker;
pub mod digest;
pub mod drain;
pub mod meta;
pub mod outbox;
pub mod recover;
pub mod segment;
pub mod server;
pub mod settings;
pub mod shell;
pub mod spans;
pub mod stamps;

mod check;
mod compio;
mod iowq;
mod monoio;
mod neighbours;
mod serve;
mod tokio_pinned;
mod tokio_shared;

pub use serve::serve;
pub use server::{Ready, ServeConfig, ServeError, ServerRecord, Stop};
