//! The clock, and sleeping until something arrives or a deadline comes, to the nanosecond.
//!
//! The timeout of epoll_wait is in whole milliseconds, rounded up, and subject to the thread's timer slack (50 µs by
//! default); either would make every send late. So the deadline is a timer of the kernel that the same epoll instance
//! watches: absolute, in nanoseconds, without slack.

pub use regauge_traces::meta::{monotonic_ns, thread_cpu_ns};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{self, Errno};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use std::os::fd::{AsFd, OwnedFd};

/// Events taken per wait.
const EVENTS_MAX: usize = 256;

/// Token of the deadline's timer.
const TIMER: u64 = u64::MAX;

fn timespec(time_ns: u64) -> Timespec {
    // Seconds since boot stay far below the sign bit.
    Timespec { tv_sec: (time_ns / 1_000_000_000) as i64, tv_nsec: (time_ns % 1_000_000_000) as i64 }
}

/// Time since a run's t0.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// t0 on CLOCK_MONOTONIC, ns.
    pub t0_ns: u64,
}

impl Clock {
    /// Now, ns since t0; 0 before it.
    pub fn now(&self) -> u64 {
        monotonic_ns().saturating_sub(self.t0_ns)
    }

    /// Sleeps until `margin_ns` before t0, then watches the clock.
    pub fn wait_for_t0(&self, margin_ns: u64) {
        let sleep_ns = self.t0_ns.saturating_sub(monotonic_ns()).saturating_sub(margin_ns);
        std::thread::sleep(std::time::Duration::from_nanos(sleep_ns));
        while monotonic_ns() < self.t0_ns {
            std::hint::spin_loop();
        }
    }
}

/// What happened on a socket.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// The token that it was added with.
    pub token: usize,
    /// There may be bytes to read, or an end.
    pub readable: bool,
    /// There may be room to write.
    pub writable: bool,
    /// The other side has closed, or the socket failed: read until that shows.
    pub ending: bool,
}

/// An epoll instance with a deadline.
pub struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    /// A new one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> io::Result<Poll> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        // Edge-triggered: an expired timer never has to be read.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), flags)?;
        Ok(Poll { epoll, timer, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Watches a socket from now on; a closed one leaves by itself. Edge-triggered, both directions: the interest never
    /// has to be changed, which would cost a system call per change. `token` is below `usize::MAX`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn add(&self, socket: impl AsFd, token: usize) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token as u64), flags)
    }

    /// Looks for events, and without any waits for them until `deadline_ns` on CLOCK_MONOTONIC; `None` does not wait.
    /// Tells how many came. A signal ends the wait without any.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn wait(&mut self, deadline_ns: Option<u64>) -> io::Result<usize> {
        self.events.clear();
        if let Some(deadline_ns) = deadline_ns {
            // Zero would disarm the timer; the clock was past one nanosecond long ago.
            let it_value = timespec(deadline_ns.max(1));
            let once = Itimerspec { it_interval: timespec(0), it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        }
        let timeout = deadline_ns.is_none().then(|| timespec(0));
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        self.events.retain(|event| {
            let data = event.data;
            data.u64() != TIMER
        });
        Ok(self.events.len())
    }

    /// Event number `index` of the last wait.
    pub fn event(&self, index: usize) -> Event {
        let epoll::Event { flags, data } = self.events[index];
        let ending = flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        Event {
            token: data.u64() as usize,
            readable: ending || flags.contains(epoll::EventFlags::IN),
            writable: flags.contains(epoll::EventFlags::OUT),
            ending,
        }
    }
}
