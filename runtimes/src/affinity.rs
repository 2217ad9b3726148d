//! Binding threads to CPUs, and proving it.
//!
//! A stack is compared with another on the same CPUs, so a CPU that the kernel does not grant ends the run: the kernel
//! itself drops unknown CPUs from a mask without a word, which is why every binding is read back here.
//! What it leaves out: choosing CPUs (the replayer's layout does) and memory placement.

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use std::io;

/// Why a thread could not be bound to CPUs.
#[derive(Debug, thiserror::Error)]
pub enum AffinityError {
    /// The number is beyond what a CPU mask can hold.
    #[error("CPU {cpu} does not exist: CPU masks end at {max}; name CPUs that `lscpu -e` lists", max = CpuSet::MAX_CPU - 1)]
    OutOfRange {
        /// The number asked for.
        cpu: usize,
    },
    /// The kernel bound the thread, but to less than was asked for.
    #[error(
        "CPU {missing} is offline, does not exist, or lies outside this process's cpuset; name CPUs that `lscpu -e` lists as online"
    )]
    NotGranted {
        /// The first CPU that is missing.
        missing: usize,
    },
    /// The call failed.
    #[error("binding to CPUs {cpus:?} failed: {source}; name CPUs that `lscpu -e` lists as online")]
    Refused {
        /// The CPUs asked for.
        cpus: Vec<usize>,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Binds the calling thread to `cpus`, and reads back that it holds. An empty list binds nothing.
///
/// # Errors
/// When a CPU does not exist, is offline, or is not granted to this process.
pub fn bind_thread(cpus: &[usize]) -> Result<(), AffinityError> {
    bind(None, cpus)
}

/// Binds every thread that this process has now; those started later inherit it from the thread that starts them.
///
/// # Errors
/// As [`bind_thread`]. A thread that ends meanwhile is not an error.
pub fn bind_process(cpus: &[usize]) -> Result<(), AffinityError> {
    if cpus.is_empty() {
        return Ok(());
    }
    bind(None, cpus)?;
    let refused = |source| AffinityError::Refused { cpus: cpus.to_vec(), source };
    for task in std::fs::read_dir("/proc/self/task").map_err(refused)? {
        let name = task.map_err(refused)?.file_name();
        let Some(pid) = name.to_str().and_then(|tid| tid.parse().ok()).and_then(Pid::from_raw) else { continue };
        match bind(Some(pid), cpus) {
            Err(AffinityError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
            other => other?,
        }
    }
    Ok(())
}

pub(crate) fn bind(thread: Option<Pid>, cpus: &[usize]) -> Result<(), AffinityError> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut mask = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(AffinityError::OutOfRange { cpu });
        }
        mask.set(cpu);
    }
    let refused = |source: rustix::io::Errno| AffinityError::Refused { cpus: cpus.to_vec(), source: source.into() };
    sched_setaffinity(thread, &mask).map_err(refused)?;
    let granted = sched_getaffinity(thread).map_err(refused)?;
    match cpus.iter().find(|&&cpu| !granted.is_set(cpu)) {
        Some(&missing) => Err(AffinityError::NotGranted { missing }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn in_thread<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(f).join().unwrap()
    }

    fn own_cpus() -> Vec<usize> {
        let mask = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).filter(|&cpu| mask.is_set(cpu)).collect()
    }

    #[test]
    fn a_thread_is_bound_to_what_was_asked() {
        let first = own_cpus()[0];
        let bound = in_thread(move || {
            bind_thread(&[first]).unwrap();
            own_cpus()
        });
        assert_eq!(bound, [first]);
    }

    #[test]
    fn nothing_asked_binds_nothing() {
        let before = own_cpus();
        let after = in_thread(|| {
            bind_thread(&[]).unwrap();
            own_cpus()
        });
        assert_eq!(before, after);
    }

    #[test]
    fn a_missing_cpu_is_named_even_beside_one_that_exists() {
        let first = own_cpus()[0];
        let error = in_thread(move || bind_thread(&[first, 1000])).unwrap_err();
        assert!(matches!(error, AffinityError::NotGranted { missing: 1000 }), "{error}");
    }

    #[test]
    fn numbers_beyond_the_mask_are_refused() {
        let error = in_thread(|| bind_thread(&[1 << 20])).unwrap_err();
        assert!(error.to_string().contains("CPU 1048576 does not exist"), "{error}");
    }
}
