//! Threads that burn CPU beside the server's, on its CPUs: what a debug console in the same process does to a broker.
//!
//! They spin without a system call, so they go only when the kernel takes them. What this leaves out: bounds of their own;
//! they inherit the process's CPUs.

use crate::shell::Node;
use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Neighbours; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Neighbours {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Neighbours {
    /// Starts as many as the settings say. One that cannot be started halts the run.
    pub fn start(node: &Node) -> Neighbours {
        let ended = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for n in 0..node.settings.neighbours {
            let own = Arc::clone(&ended);
            let spin = move || {
                while !own.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            };
            match thread::Builder::new().name(format!("neighbour-{n}")).spawn(spin) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    node.halt(format!("a neighbour's thread cannot be started: {error}; set neighbours lower"))
                }
            }
        }
        Neighbours { ended, threads }
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _it_cannot_panic = thread.join();
        }
    }
}
