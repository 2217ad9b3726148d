//! io_uring: really tried, because a kernel that has it may still forbid it.

use super::read_number;
use io_uring::{IoUring, Probe, opcode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;

/// What is known of io_uring.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UringFacts {
    /// A ring was made and answered a request.
    pub works: bool,
    /// Why not.
    pub error: Option<String>,
    /// The error's number (errno).
    pub errno: Option<i32>,
    /// Operations that the stacks need, and whether this kernel has them; empty when it could not be asked.
    pub operations: BTreeMap<String, bool>,
    /// kernel.io_uring_disabled: 0 everybody may, 1 only a group or root, 2 nobody.
    pub disabled: Option<i64>,
}

pub(super) fn gather() -> UringFacts {
    let disabled = read_number("/proc/sys/kernel/io_uring_disabled");
    match attempt() {
        Ok(operations) => UringFacts { works: true, operations, disabled, ..UringFacts::default() },
        Err(e) => UringFacts { error: Some(e.to_string()), errno: e.raw_os_error(), disabled, ..UringFacts::default() },
    }
}

/// Makes a small ring, sends a no-op through it, and asks which operations there are.
fn attempt() -> io::Result<BTreeMap<String, bool>> {
    let mut ring = IoUring::new(8)?;
    // SAFETY: a no-op refers to no memory.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    if let Some(answer) = ring.completion().next()
        && answer.result() < 0
    {
        return Err(io::Error::from_raw_os_error(-answer.result()));
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        ("accept", opcode::Accept::CODE),
        ("recv", opcode::Recv::CODE),
        ("send", opcode::Send::CODE),
        ("write", opcode::Write::CODE),
        ("fsync", opcode::Fsync::CODE),
        ("timeout", opcode::Timeout::CODE),
    ];
    Ok(needed.into_iter().map(|(name, code)| (name.to_owned(), probe.is_supported(code))).collect())
}
