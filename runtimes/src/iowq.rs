//! io_uring itself: whether this process may use it, what a ring was really given, and the kernel's own workers (io-wq).
//!
//! What a ring cannot do without blocking (buffered writes, fdatasync) runs on io-wq workers. Two of their properties
//! decide file I/O more than the runtime does: how many there are (by default the smaller of the ring's entries and four
//! per CPU), and where they run. Neither monoio nor compio has an interface for them, so both are set here, from outside.
//!
//! Where they run needs two ways. IORING_REGISTER_IOWQ_AFF keeps workers inside the server's CPUs on Linux before 6.2,
//! where they would run on any. Since then a thread inherits the mask that sched_setaffinity(2) gave its parent, and every
//! later mask is cut down to it: workers of a pinned shard share its one CPU, whatever is registered. [`WorkerCpus`]
//! lets them go by the same call that pinned the shard, which the kernel allows for workers since 6.3.
//! What this leaves out: workers for unbounded work (pipes, devices), of which a broker has none.

use crate::affinity::{self, AffinityError};
use crate::server::ServeError;
use crate::settings::Settings;
use crate::shell::Node;
use io_uring::{IoUring, Probe, opcode};
use rustix::thread::Pid;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, io};

/// Registration opcodes of io_uring_register(2).
const IORING_REGISTER_IOWQ_AFF: libc::c_uint = 17;
const IORING_REGISTER_IOWQ_MAX_WORKERS: libc::c_uint = 19;
/// 1024 CPUs, as in glibc's cpu_set_t.
const CPU_MASK_WORDS: usize = 16;

/// Operations that the shells use; all are in Linux 5.6, so a kernel that can register workers (5.15) has them.
const NEEDED: [(u8, &str); 10] = [
    (opcode::Accept::CODE, "ACCEPT"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::Writev::CODE, "WRITEV"),
    (opcode::SendMsg::CODE, "SENDMSG"),
    (opcode::Read::CODE, "READ"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::Fsync::CODE, "FSYNC"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];

/// Why io_uring cannot be used, or not as the arm asks. Each ends with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel has no io_uring, or the sandbox says so.
    #[error(
        "this kernel, or the sandbox that this process runs in, has no io_uring; use Linux 5.15 or later outside such a sandbox, or choose a tokio stack"
    )]
    Absent,
    /// The kernel has it, but not for this process.
    #[error("io_uring is forbidden here: {0}, or choose a tokio stack")]
    Forbidden(String),
    /// An operation is missing.
    #[error("this kernel's io_uring lacks {0}; use Linux 5.15 or later, or choose a tokio stack")]
    Lacking(&'static str),
    /// A ring cannot be set up for lack of a resource, or with these entries.
    #[error("an io_uring instance cannot be set up: {source}; {advice}")]
    Setup {
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The ring that a runtime built cannot be told apart, or not be read.
    #[error("the runtime's io_uring instance cannot be examined: {0}; mount /proc")]
    Unseen(String),
    /// The ring has another size than the arm says.
    #[error(
        "a ring of {asked} entries was asked for, but has {given}; set ring_entries to a power of two, for monoio at least 256"
    )]
    Entries {
        /// What the settings say.
        asked: u32,
        /// What the kernel was asked for and gave.
        given: u32,
    },
    /// Registering the workers' number failed.
    #[error(
        "io-wq workers cannot be bounded to {asked}: {reason}; set iowq_bounded to a number from 1 to this user's limit of processes (`ulimit -u`), on Linux 5.15 or later"
    )]
    Workers {
        /// What the settings say.
        asked: u32,
        /// What the kernel said or gave.
        reason: String,
    },
    /// Registering the workers' CPUs failed.
    #[error(
        "io-wq workers cannot be bound to CPUs {cpus:?}: {source}; name CPUs inside this process's cpuset, on Linux 5.14 or later"
    )]
    Cpus {
        /// What the settings say.
        cpus: Vec<usize>,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What a shard's ring was really given, as the kernel confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    /// Submission queue entries.
    pub entries: u32,
    /// Most io-wq workers for files of this ring's thread.
    pub bounded: u32,
}

/// Checks that this process may use io_uring and that it has every operation the shells need. A runtime that finds out
/// later may fall back without a word: compio, for one, sends an operation that is missing to its thread pool.
///
/// # Errors
/// [`ServeError::Runtime`] with a [`RingError`]'s sentence.
pub fn require(node: &Node) -> Result<(), ServeError> {
    probe().map_err(|error| node.runtime_error(error.to_string()))
}

/// Lets `make` build a runtime on the calling thread, finds the ring that it opened, and makes it what the settings say:
/// monoio keeps its ring to itself. Threads that build at the same time wait for each other.
///
/// # Errors
/// [`ServeError::Runtime`] with a [`RingError`]'s sentence: the runtime cannot be built, opened no ring or more than one,
/// or the kernel does not give the ring what the settings say.
pub fn build<R>(node: &Node, make: impl FnOnce() -> io::Result<R>) -> Result<(R, Ring), ServeError> {
    find_ring(make)
        .and_then(|(runtime, fd)| Ok((runtime, register(fd, &node.settings)?)))
        .map_err(|error| node.runtime_error(error.to_string()))
}

fn probe() -> Result<(), RingError> {
    let ring = IoUring::new(8).map_err(explain)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(explain)?;
    match NEEDED.into_iter().find(|&(code, _)| !probe.is_supported(code)) {
        Some((_, name)) => Err(RingError::Lacking(name)),
        None => Ok(()),
    }
}

fn find_ring<R>(make: impl FnOnce() -> io::Result<R>) -> Result<(R, RawFd), RingError> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let before = rings()?;
    let runtime = make().map_err(explain)?;
    let opened: Vec<RawFd> = rings()?.into_iter().filter(|fd| !before.contains(fd)).collect();
    match opened.as_slice() {
        [fd] => Ok((runtime, *fd)),
        _ => Err(RingError::Unseen(format!("it opened {} instances instead of one", opened.len()))),
    }
}

/// Registers the number of io-wq workers and their CPUs, after making sure that the ring has the entries that the settings
/// say. To be called on the thread that submits to the ring, because workers belong to threads. Returns what the kernel
/// says that holds, which may be an error: it must be what was asked for.
fn register(fd: RawFd, settings: &Settings) -> Result<Ring, RingError> {
    let (asked, bounded) = (settings.ring_entries, settings.iowq_bounded);
    let entries = ring_entries(fd)?;
    if entries != asked {
        return Err(RingError::Entries { asked, given: entries });
    }
    if bounded == 0 {
        return Err(RingError::Workers { asked: 0, reason: "the kernel takes 0 as `leave it as it is`".to_owned() });
    }
    let _before = exchange_workers(fd, bounded)?;
    let held = exchange_workers(fd, 0)?;
    if held != bounded {
        return Err(RingError::Workers { asked: bounded, reason: format!("the kernel holds {held}") });
    }
    bind_workers(fd, &settings.cpus)?;
    Ok(Ring { entries, bounded: held })
}

/// Binds the calling thread, one of a blocking pool, to the server's CPUs, and names it like tokio's; does so once. For
/// runtimes that have no hook at the start of such threads.
pub fn bind_pool_thread(node: &Node, of: impl std::fmt::Display) {
    thread_local!(static BOUND: Cell<bool> = const { Cell::new(false) });
    if !BOUND.replace(true) {
        node.bind_blocking_thread();
        if let Ok(name) = CString::new(format!("blocking-{of}")) {
            // Without it the thread bears its parent's name: less clear, not wrong.
            let _unnamed = rustix::thread::set_name(&name);
        }
    }
}

/// Sets the number of workers for files, unless it is 0; returns the number that held before.
fn exchange_workers(fd: RawFd, bounded: u32) -> Result<u32, RingError> {
    // The second number is of workers for everything else than files; 0 leaves it as it is.
    let mut workers: [u32; 2] = [bounded, 0];
    // SAFETY: this opcode reads and writes an array of two u32, which `workers` is; it outlives the call.
    unsafe { io_uring_register(fd, IORING_REGISTER_IOWQ_MAX_WORKERS, workers.as_mut_ptr().cast(), 2) }
        .map_err(|error| RingError::Workers { asked: bounded, reason: error.to_string() })?;
    Ok(workers[0])
}

fn bind_workers(fd: RawFd, cpus: &[usize]) -> Result<(), RingError> {
    if cpus.is_empty() {
        return Ok(());
    }
    let failed = |source| RingError::Cpus { cpus: cpus.to_vec(), source };
    let mut mask = [0u64; CPU_MASK_WORDS];
    for &cpu in cpus {
        match mask.get_mut(cpu / 64) {
            Some(word) => *word |= 1 << (cpu % 64),
            None => return Err(failed(io::ErrorKind::InvalidInput.into())),
        }
    }
    // SAFETY: this opcode reads a CPU mask of as many bytes as the last argument says; `mask` outlives the call.
    unsafe { io_uring_register(fd, IORING_REGISTER_IOWQ_AFF, mask.as_mut_ptr().cast(), size_of_val(&mask) as u32) }
        .map_err(failed)
}

/// Lets the io-wq workers of pinned shards run on all CPUs of the server, as long as it lives: a thread that looks for new
/// workers, since the kernel starts and ends them as it needs.
#[derive(Debug)]
pub struct WorkerCpus {
    keeper: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl WorkerCpus {
    /// Between two looks. Short against a run, long against the 10 µs that a look takes.
    const PERIOD: Duration = Duration::from_millis(20);

    /// Starts it, if there is anything to do: with one CPU, or none named, all threads are where they should be. A failure
    /// halts the run.
    pub fn keep(node: &Arc<Node>) -> WorkerCpus {
        let ended = Arc::new(AtomicBool::new(false));
        if node.settings.cpus.len() < 2 {
            return WorkerCpus { keeper: None, ended };
        }
        let (own_node, own_ended) = (Arc::clone(node), Arc::clone(&ended));
        let keep = move || {
            let mut known = HashMap::new();
            while !own_ended.load(Ordering::Acquire) {
                if let Err(error) = free_new_workers(&mut known, &own_node.settings.cpus) {
                    own_node.halt(format!(
                        "io-wq workers could not be given the server's CPUs: {error}; use Linux 6.3 or later, or one CPU"
                    ));
                    return;
                }
                thread::sleep(WorkerCpus::PERIOD);
            }
        };
        match thread::Builder::new().name("iowq-cpus".to_owned()).spawn(keep) {
            Ok(keeper) => WorkerCpus { keeper: Some(keeper), ended },
            Err(error) => {
                node.halt(format!("the thread that frees io-wq workers cannot be started: {error}"));
                WorkerCpus { keeper: None, ended }
            }
        }
    }
}

impl Drop for WorkerCpus {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(keeper) = self.keeper.take() {
            let _it_cannot_panic = keeper.join();
        }
    }
}

/// Gives the CPUs to workers that have come since the last look. `known` counts looks at each living thread: a new worker
/// bears its parent's name for a moment, so the first look is not enough to tell that a thread is none.
fn free_new_workers(known: &mut HashMap<i32, u8>, cpus: &[usize]) -> Result<(), AffinityError> {
    const ENOUGH: u8 = 2;
    let mut living = HashMap::with_capacity(known.len());
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let Some(thread) = task.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let mut looks = known.get(&thread).copied().unwrap_or(0);
        if looks < ENOUGH {
            looks += 1;
            if fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("iou-wrk")) {
                match affinity::bind(Pid::from_raw(thread), cpus) {
                    Err(AffinityError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {
                        continue;
                    }
                    bound => bound?,
                }
                looks = ENOUGH;
            }
        }
        living.insert(thread, looks);
    }
    *known = living;
    Ok(())
}

/// io_uring_register(2), for rings whose owner keeps them to itself.
///
/// # Safety
/// `argument` must be what the opcode and `count` say.
unsafe fn io_uring_register(
    fd: RawFd,
    opcode: libc::c_uint,
    argument: *mut libc::c_void,
    count: libc::c_uint,
) -> io::Result<()> {
    // SAFETY: the caller vouches for `argument`; a descriptor that is no ring is refused by the kernel.
    match unsafe { libc::syscall(libc::SYS_io_uring_register, fd, opcode, argument, count) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Descriptors of this process that are rings.
fn rings() -> Result<Vec<RawFd>, RingError> {
    let mut rings = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").map_err(|error| RingError::Unseen(error.to_string()))?.flatten() {
        // A descriptor may be closed by another thread meanwhile: then it is no ring of ours.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if target.as_os_str() == "anon_inode:[io_uring]" {
            rings.extend(entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
        }
    }
    Ok(rings)
}

/// Submission queue entries of a ring, as the kernel made it.
fn ring_entries(fd: RawFd) -> Result<u32, RingError> {
    let path = format!("/proc/self/fdinfo/{fd}");
    let text = fs::read_to_string(&path).map_err(|error| RingError::Unseen(format!("{path}: {error}")))?;
    let mask = text.lines().find_map(|line| line.strip_prefix("SqMask:")).map(str::trim);
    mask.and_then(|mask| u32::from_str_radix(mask.trim_start_matches("0x"), 16).ok())
        .and_then(|mask| mask.checked_add(1))
        .ok_or_else(|| RingError::Unseen(format!("{path} names no SqMask")))
}

/// Turns the error of a ring's set-up into what to do about it.
fn explain(source: io::Error) -> RingError {
    let advice = match source.raw_os_error() {
        Some(libc::ENOSYS) => return RingError::Absent,
        Some(libc::EPERM | libc::EACCES) => return RingError::Forbidden(who_forbids(switch().as_deref())),
        Some(libc::EINVAL) => "set ring_entries to a power of two from 2 to 32768",
        Some(libc::ENOMEM) => "raise the limit of locked memory (`ulimit -l`) or set ring_entries lower",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files (`ulimit -n`)",
        _ => "choose a tokio stack if this cannot be repaired",
    };
    RingError::Setup { source, advice }
}

/// The system-wide switch, where the kernel has one (6.6 and later).
fn switch() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()
}

fn who_forbids(switch: Option<&str>) -> String {
    match switch.map(str::trim) {
        Some("2") => "kernel.io_uring_disabled is 2; run `sysctl kernel.io_uring_disabled=0`".to_owned(),
        Some("1") => "kernel.io_uring_disabled is 1 and this user is not in kernel.io_uring_group; \
                      run `sysctl kernel.io_uring_disabled=0` or join that group"
            .to_owned(),
        _ => "most likely a container's seccomp profile forbids it; allow io_uring_setup, io_uring_enter and \
              io_uring_register in the profile (for a trial: `--security-opt seccomp=unconfined`)"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::fd::AsRawFd;

    fn settings(ring_entries: u32, iowq_bounded: u32) -> Settings {
        Settings { ring_entries, iowq_bounded, ..Settings::default() }
    }

    #[test]
    fn workers_are_registered_and_read_back() {
        let (ring, fd) = find_ring(|| IoUring::new(64)).unwrap();
        assert_eq!(fd, ring.as_raw_fd());
        for bounded in [3, 17] {
            assert_eq!(register(fd, &settings(64, bounded)).unwrap(), Ring { entries: 64, bounded });
            assert_eq!(exchange_workers(fd, 0).unwrap(), bounded);
        }
    }

    #[test]
    fn what_was_not_given_is_an_error() {
        let ring = IoUring::new(64).unwrap();
        let fd = ring.as_raw_fd();
        let entries = register(fd, &settings(65, 1)).unwrap_err().to_string();
        assert!(entries.contains("65 entries was asked for, but has 64"), "{entries}");
        let none = register(fd, &settings(64, 0)).unwrap_err().to_string();
        assert!(none.contains("cannot be bounded to 0") && none.contains("iowq_bounded"), "{none}");
        let many = register(fd, &settings(64, u32::MAX)).unwrap_err().to_string();
        assert!(many.contains("cannot be bounded to 4294967295"), "{many}");
        let cpus = bind_workers(fd, &[1 << 10]).unwrap_err().to_string();
        assert!(cpus.contains("[1024]") && cpus.contains("cpuset"), "{cpus}");
        let closed = register(-1, &settings(64, 1)).unwrap_err().to_string();
        assert!(closed.contains("/proc/self/fdinfo/-1"), "{closed}");
    }

    #[test]
    fn a_ring_that_cannot_be_set_up_says_why() {
        let error = find_ring(|| IoUring::new(1 << 20).map(|_ring| ())).unwrap_err().to_string();
        assert!(error.contains("power of two from 2 to 32768"), "{error}");
        let error = find_ring(|| Ok(())).unwrap_err().to_string();
        assert!(error.contains("opened 0 instances"), "{error}");
    }

    #[test]
    fn whoever_forbids_is_named_with_the_way_out() {
        assert!(who_forbids(Some("2\n")).contains("`sysctl kernel.io_uring_disabled=0`"));
        assert!(who_forbids(Some("1\n")).contains("kernel.io_uring_group"));
        assert!(who_forbids(Some("0\n")).contains("seccomp"));
        assert!(who_forbids(None).contains("seccomp"));
    }

    /// Makes io_uring_setup fail with `errno` on the calling thread, as a container's seccomp profile would.
    fn forbid(errno: i32) {
        let instruction = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
        let mut filter = [
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_io_uring_setup as u32),
            instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
            instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: `program` points to a filter of `len` instructions; the kernel copies it during the call.
        let installed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program)
        };
        assert_eq!(installed, 0, "{}", io::Error::last_os_error());
    }

    fn required_with(errno: i32) -> String {
        let checked = std::thread::spawn(move || {
            forbid(errno);
            probe().unwrap_err().to_string()
        });
        checked.join().unwrap()
    }

    #[test]
    fn without_io_uring_the_error_says_what_to_do() {
        probe().unwrap();
        assert!(required_with(libc::EPERM).contains("io_uring is forbidden here"));
        assert!(required_with(libc::ENOSYS).contains("has no io_uring; use Linux 5.15"));
    }
}
