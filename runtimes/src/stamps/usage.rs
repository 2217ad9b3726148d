//! What a thread has used: its CPU time, and the time that it was ready to run and had no CPU.
//!
//! Both are known to the kernel alone, and a system call at each poll would cost more than most polls. So a thread keeps
//! its last reading. It reads again before a poll when that is older than [`limits::STALE_NS`] (sooner, when the poll
//! waited long), and after a poll that was long; but not after one that is shorter than [`limits::READ_EVERY_NS`], if the
//! last such reading is not that old: then nothing is said about that poll. An idle thread's poll thus begins with a fresh
//! reading, and a busy one's with one of the last millisecond.
//!
//! The error that remains: what a long poll is said to have used is what its thread used since the last reading, less the
//! polls in between, which are taken to have used their whole time. Too much is said by what the runtime itself used
//! between polls in that time, and by what it waited for a CPU there; too little, by what the polls in between waited.
//! All of it is less than the reading's age, so below one millisecond, and never more than the poll's own time: CPU time
//! and run delay are cut to it, the CPU time first.
//!
//! CPU time is CLOCK_THREAD_CPUTIME_ID; run delay, the second number of /proc/thread-self/schedstat (kernel:
//! Documentation/scheduler/sched-stats.rst), which a kernel without CONFIG_SCHED_INFO does not have, and one that does not
//! keep these counts fills with zeros: then it is not known. The kernel adds a wait to it when the wait ends, so a reading
//! that is taken on a CPU is exact. Most of a busy thread's readings are of the CPU time alone: see [`UsageReader::read`].
//! What this leaves out: who had the CPU meanwhile.
//!
//! [`limits::STALE_NS`]: super::limits::STALE_NS
//! [`limits::READ_EVERY_NS`]: super::limits::READ_EVERY_NS

use super::limits::OFF_CPU_NS;
use regauge_traces::meta::{monotonic_ns, thread_cpu_ns};
use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The counters of the calling thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, ns.
    pub cpu_ns: u64,
    /// Time ready to run without a CPU, ns; `None` when the kernel does not say.
    pub run_delay_ns: Option<u64>,
}

/// Times that a thread was switched away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Switches {
    /// It gave its CPU up.
    pub voluntary: u32,
    /// It was taken from its CPU.
    pub involuntary: u32,
}

/// Reads the counters of the thread that made it.
#[derive(Debug)]
pub struct UsageReader {
    schedstat: Option<File>,
    /// The last reading of both counters, and when, ns of CLOCK_MONOTONIC.
    whole: Cell<Option<(u64, Usage)>>,
}

impl UsageReader {
    /// For the calling thread. The file stays open, and stays this thread's.
    pub fn of_this_thread() -> UsageReader {
        let schedstat = File::open("/proc/thread-self/schedstat").ok();
        // An empty or foreign file is none.
        UsageReader { schedstat: schedstat.filter(|file| run_delay(file).is_some()), whole: Cell::new(None) }
    }

    /// The counters now. Costs some microseconds, nearly all of it for the run delay. That is not read again where the CPU
    /// time shows that the thread was off its CPU for less than [`OFF_CPU_NS`] since it was: it has grown by no more.
    pub fn read(&self) -> Usage {
        // In this order: who loses the CPU between the two has been off it.
        let cpu_ns = thread_cpu_ns();
        let at_ns = monotonic_ns();
        if let Some((then_ns, then)) = self.whole.get() {
            let off_cpu_ns = at_ns.saturating_sub(then_ns).saturating_sub(cpu_ns.saturating_sub(then.cpu_ns));
            if off_cpu_ns < OFF_CPU_NS {
                return Usage { cpu_ns, ..then };
            }
        }
        let usage = Usage { cpu_ns, run_delay_ns: self.schedstat.as_ref().and_then(run_delay) };
        self.whole.set(Some((at_ns, usage)));
        usage
    }
}

/// Whether the kernel says how long threads waited for a CPU.
pub fn has_run_delay() -> bool {
    UsageReader::of_this_thread().schedstat.is_some()
}

/// How long a thread was ready to run and had no CPU so far, ns: the second number of its schedstat file. `None` also
/// where the third, how often it was given a CPU, is zero: whoever reads has been given one, so nobody counts.
pub fn run_delay(file: &File) -> Option<u64> {
    let mut text = [0; 96];
    let len = file.read_at(&mut text, 0).ok()?;
    let mut numbers = std::str::from_utf8(text.get(..len)?).ok()?.split_ascii_whitespace();
    let delay = numbers.nth(1)?.parse().ok()?;
    let slices: u64 = numbers.next()?.parse().ok()?;
    (slices > 0).then_some(delay)
}

/// Switches of the calling thread so far (getrusage(2) with RUSAGE_THREAD).
pub fn switches() -> Switches {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills a `rusage`, which is plain numbers and zeroed before; the pointer is to one of our own.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    Switches { voluntary: usage.ru_nvcsw as u32, involuntary: usage.ru_nivcsw as u32 }
}

impl Switches {
    /// Since `before`.
    pub fn since(self, before: Switches) -> Switches {
        Switches {
            voluntary: self.voluntary.wrapping_sub(before.voluntary),
            involuntary: self.involuntary.wrapping_sub(before.involuntary),
        }
    }
}

impl Usage {
    /// Since `before`, without the CPU time `others_ns`, and cut to `wall_ns`.
    pub(super) fn since(self, before: Usage, others_ns: u64, wall_ns: u64) -> Usage {
        let delay = self.run_delay_ns.zip(before.run_delay_ns).map(|(now, then)| now.saturating_sub(then).min(wall_ns));
        let cpu = self.cpu_ns.saturating_sub(before.cpu_ns).saturating_sub(others_ns);
        Usage { cpu_ns: cpu.min(wall_ns - delay.unwrap_or(0)), run_delay_ns: delay }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    #[test]
    fn the_counters_are_those_of_the_calling_thread() {
        std::thread::spawn(|| {
            let reader = UsageReader::of_this_thread();
            let (before, started) = (reader.read(), Instant::now());
            // Another thread's CPU time must not show.
            let other = std::thread::spawn(|| while Instant::now().elapsed().is_zero() {});
            std::thread::sleep(Duration::from_millis(20));
            other.join().unwrap();
            let after = reader.read();
            let used = after.since(before, 0, started.elapsed().as_nanos() as u64);
            assert!(used.cpu_ns < 10_000_000, "{used:?}");
            // Who has slept has been off its CPU, so that its run delay was read again.
            assert_eq!(reader.whole.get().unwrap().1, after);
            assert!(switches().voluntary >= 1);
            if has_run_delay() {
                assert!(after.run_delay_ns.unwrap() >= before.run_delay_ns.unwrap());
                let file = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
                let now: u64 = file.split(' ').nth(1).unwrap().parse().unwrap();
                assert!(now >= after.run_delay_ns.unwrap(), "not the run delay: {file}");
            } else {
                assert_eq!(after.run_delay_ns, None);
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_kernel_that_does_not_count_says_nothing() {
        let said = |text: &str| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(text.as_bytes(), 0).unwrap();
            run_delay(&file)
        };
        assert_eq!((said("0 0 0\n"), said("71 0 2\n"), said("71 15 2\n")), (None, Some(0), Some(15)));
        assert_eq!((said(""), said("71 15"), said("71 no 2")), (None, None, None));
    }

    proptest! {
        #[test]
        fn parts_never_exceed_the_wall(
            cpu in (0u64..1 << 40, 0u64..1 << 40), delay in (0u64..1 << 40, 0u64..1 << 40),
            others in 0u64..1 << 30, wall in 0u64..1 << 40, known in any::<bool>(),
        ) {
            let at = |cpu_ns, delay| Usage { cpu_ns, run_delay_ns: known.then_some(delay) };
            let used = at(cpu.0, delay.0).since(at(cpu.1, delay.1), others, wall);
            prop_assert!(used.cpu_ns + used.run_delay_ns.unwrap_or(0) <= wall);
            prop_assert_eq!(used.run_delay_ns.is_some(), known);
        }
    }
}
