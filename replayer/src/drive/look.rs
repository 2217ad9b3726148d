//! How long a reply may have waited for the driver: the lateness of reading, as lag is the lateness of sending.
//!
//! Nobody can tell from outside when bytes became readable. But the driver knows when it last looked and they were not
//! there. So each reply gets an upper bound: the time since that look. When the driver slept meanwhile, the bytes came
//! during the sleep (or it would not have begun), and what remains is the wait for a CPU after the wake-up, which the
//! kernel counts per thread (`/proc/thread-self/schedstat`, run delay). It is read after the replies of a pass were
//! stamped, so that no reply waits for it.
//!
//! Left out: the kernel's own way from the wire to the socket, which no program can see; it belongs to the network.

use regauge_runtimes::stamps::usage::run_delay;
use std::fs::File;

/// A wait that lasted longer than this was a sleep, ns: without one, epoll_wait returns in a microsecond or two.
const SLEPT_NS: u64 = 10_000;

/// The run delay is read at least this often while the driver sleeps and wakes, ns, lest the delays of passes without
/// replies be put down to a later reply.
const REFRESH_NS: u64 = 1_000_000;

/// See the module. Times in ns since t0.
#[derive(Debug)]
pub(super) struct Look {
    /// When the sockets were last looked at.
    looked_ns: u64,
    /// What is read now was not there before this moment.
    readable_since_ns: u64,
    /// How long the last wait slept; 0 when it did not.
    slept_ns: u64,
    /// Requests whose replies were read in this pass.
    replied: Vec<u32>,
    schedstat: Option<File>,
    run_delay_ns: u64,
    first_delay_ns: u64,
    refreshed_ns: u64,
}

impl Look {
    pub(super) fn new() -> Look {
        let mut look = Look {
            looked_ns: 0,
            readable_since_ns: 0,
            slept_ns: 0,
            replied: Vec::with_capacity(1024),
            schedstat: None,
            run_delay_ns: 0,
            first_delay_ns: 0,
            refreshed_ns: 0,
        };
        // Opened by the driver's thread itself: the file is that of the thread that opens it.
        look.schedstat = File::open("/proc/thread-self/schedstat").ok();
        look.first_delay_ns = look.read_run_delay().unwrap_or(0);
        look.run_delay_ns = look.first_delay_ns;
        look
    }

    /// The wait that was entered at `entered_ns` has returned at `now`.
    pub(super) fn looked(&mut self, entered_ns: u64, now: u64) {
        let waited_ns = now.saturating_sub(entered_ns);
        self.slept_ns = if waited_ns >= SLEPT_NS { waited_ns } else { 0 };
        self.readable_since_ns = if self.slept_ns > 0 { now } else { self.looked_ns };
        self.looked_ns = now;
    }

    /// A reply to `op` was read at `now`: how long it may have waited.
    pub(super) fn replied(&mut self, op: usize, now: u64) -> u64 {
        if self.slept_ns > 0 {
            self.replied.push(op as u32);
        }
        now.saturating_sub(self.readable_since_ns)
    }

    /// The pass is over: adds the wait for a CPU to what its replies may have waited.
    pub(super) fn passed(&mut self, read_lag_ns: &mut [u64]) {
        if self.slept_ns == 0 || (self.replied.is_empty() && self.looked_ns < self.refreshed_ns + REFRESH_NS) {
            return;
        }
        let before_ns = self.run_delay_ns;
        self.run_delay_ns = self.read_run_delay().unwrap_or(before_ns);
        self.refreshed_ns = self.looked_ns;
        // No reply waited longer than the sleep was.
        let delay_ns = (self.run_delay_ns - before_ns).min(self.slept_ns);
        for op in self.replied.drain(..) {
            read_lag_ns[op as usize] += delay_ns;
        }
    }

    /// How long the thread was ready and had no CPU so far; `None` when this kernel does not count it.
    pub(super) fn run_delay_ns(&self) -> Option<u64> {
        self.read_run_delay().map(|now| now.saturating_sub(self.first_delay_ns))
    }

    fn read_run_delay(&self) -> Option<u64> {
        run_delay(self.schedstat.as_ref()?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn without_a_sleep_a_reply_may_be_as_old_as_the_last_look() {
        let mut look = Look::new();
        look.looked(0, 1_000);
        // A pass of 500 µs in which nothing was looked at.
        look.looked(500_000, 501_000);
        assert_eq!(look.replied(0, 502_000), 501_000);
        // The next wait slept: what came after it is fresh.
        look.looked(600_000, 900_000);
        assert_eq!(look.replied(0, 902_000), 2_000);
    }

    #[test]
    fn the_wait_for_a_cpu_is_added_to_the_replies_of_the_pass_and_to_no_other() {
        let mut look = Look::new();
        let mut lag = [0, 0, 0];
        look.looked(0, 50_000);
        for op in [0, 2] {
            lag[op] = look.replied(op, 51_000);
        }
        // As if the thread had waited longer than it slept.
        look.run_delay_ns = 0;
        look.schedstat = Some(schedstat("1 70000 3\n"));
        look.passed(&mut lag);
        assert_eq!(lag, [51_000, 0, 51_000]);
        look.schedstat = Some(schedstat("1 80000 3\n"));
        look.looked(60_000, 90_000);
        lag[1] = look.replied(1, 90_000);
        look.passed(&mut lag);
        assert_eq!(lag, [51_000, 10_000, 51_000]);
        assert!(look.run_delay_ns().is_some());
        // A kernel that does not count.
        look.schedstat = Some(schedstat("0 0 0\n"));
        assert_eq!(look.run_delay_ns(), None);
    }

    fn schedstat(text: &str) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
        file
    }
}
