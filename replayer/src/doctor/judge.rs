//! The judgements: facts in, findings out. Each function looks at one matter.

mod cpu;
mod storage;

use super::{Finding, Level};
use crate::canary::Canary;
use crate::host::Facts;

/// First kernel on which a ring's io-wq workers can be bounded (IORING_REGISTER_IOWQ_MAX_WORKERS).
const KERNEL_MIN: (u32, u32) = (5, 15);
const NOFILE_MIN: u64 = 12_000;
const MEMLOCK_MIN: u64 = 8 << 20;
const MEMORY_MIN: u64 = 2 << 30;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

pub(super) fn findings(facts: &Facts, steal_percent: Option<f64>, canary: Option<&Canary>) -> Vec<Finding> {
    let mut all = vec![kernel(facts), io_uring(facts)];
    all.extend([cpu::cpus(facts), cpu::core_sharing(facts), cpu::frequency(facts), cpu::virtual_host(facts)]);
    all.extend([cpu::steal(steal_percent), cpu::quota(facts), cpu::load(facts), cpu::clock(facts)]);
    all.extend([
        storage::file_system(facts),
        storage::device(facts),
        storage::sync(canary),
        storage::free_space(facts),
    ]);
    all.extend([memory(facts), memlock(facts), nofile(facts), tracing(facts), huge_pages(facts)]);
    all
}

fn finding(name: &str, value: impl Into<String>, level: Level, means: impl Into<String>) -> Finding {
    Finding { name: name.to_owned(), value: value.into(), level, means: means.into(), advice: None }
}

impl Finding {
    fn advise(mut self, advice: impl Into<String>) -> Finding {
        self.advice = Some(advice.into());
        self
    }
}

fn unknown(name: &str, means: &str) -> Finding {
    finding(name, "unknown", Level::Warn, means)
}

fn kernel(facts: &Facts) -> Finding {
    let Some(release) = &facts.kernel else {
        return unknown("kernel", "The kernel did not say its release.");
    };
    let value = format!("{release} ({})", facts.architecture.as_deref().unwrap_or("unknown architecture"));
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    match numbers.next().zip(numbers.next()) {
        Some(version) if version < KERNEL_MIN => finding(
            "kernel",
            value,
            Level::Bad,
            format!(
                "The io_uring stacks need {}.{}: the width of io-wq cannot be set below.",
                KERNEL_MIN.0, KERNEL_MIN.1
            ),
        )
        .advise("Boot a newer kernel, or leave the arms on monoio and compio out."),
        _ => finding("kernel", value, Level::Ok, "New enough for every stack."),
    }
}

fn io_uring(facts: &Facts) -> Finding {
    let uring = &facts.uring;
    if uring.works {
        let missing: Vec<&str> = uring.operations.iter().filter(|(_, has)| !**has).map(|(op, _)| op.as_str()).collect();
        if missing.is_empty() {
            return finding(
                "io_uring",
                "works",
                Level::Ok,
                "A ring was made, answered, and has every operation needed.",
            );
        }
        let value = format!("lacks {}", missing.join(", "));
        return finding("io_uring", value, Level::Bad, "monoio and compio cannot do their I/O on this kernel's rings.")
            .advise("Boot a newer kernel, or leave the arms on monoio and compio out.");
    }
    let why = uring.error.clone().unwrap_or_else(|| "no reason given".into());
    let means = "The arms on monoio and compio cannot start; nothing will stand in for io_uring unsaid.";
    let advice = match uring.errno {
        Some(libc::ENOSYS) => "The kernel is built without io_uring: boot another one.".to_owned(),
        Some(libc::ENOMEM) => "Locked memory is too little: raise `ulimit -l` to 8 MiB or more.".to_owned(),
        Some(libc::EPERM | libc::EACCES) => match (uring.disabled, facts.seccomp) {
            (Some(n), _) if n > 0 => format!(
                "kernel.io_uring_disabled is {n}: as root, run `sysctl -w kernel.io_uring_disabled=0` for the study."
            ),
            (_, Some(2)) => "A seccomp filter forbids it, as container engines do by default: run outside the \
                             container, or with a profile that allows io_uring_setup, _enter and _register."
                .to_owned(),
            _ => "A security module forbids it: look for denials in the kernel's log.".to_owned(),
        },
        _ => "Leave the arms on monoio and compio out, or try another host.".to_owned(),
    };
    finding("io_uring", why, Level::Bad, means).advise(advice)
}

fn memory(facts: &Facts) -> Finding {
    let Some(available) = facts.memory_available_bytes else {
        return unknown("memory", "The free memory is not known.");
    };
    let value = format!("{} available", gib(available));
    if available < MEMORY_MIN {
        return finding("memory", value, Level::Warn, "The page cache is short: writes may wait for memory.")
            .advise("Stop other programs, or use a larger host.");
    }
    finding("memory", value, Level::Ok, "Enough for the server, the driver and the page cache.")
}

fn memlock(facts: &Facts) -> Finding {
    match facts.memlock_bytes {
        None => unknown("memlock", "The limit of locked memory is not known."),
        Some(u64::MAX) => finding("memlock", "unlimited", Level::Ok, "Rings get the memory that they lock."),
        Some(bytes) if bytes < MEMLOCK_MIN => {
            let value = format!("{} KiB", bytes / 1024);
            finding("memlock", value, Level::Warn, "Kernels before 5.12 count rings against it; large ones may fail.")
                .advise("Raise it: `ulimit -l 8192`, or LimitMEMLOCK= in the unit.")
        }
        Some(bytes) => {
            finding("memlock", format!("{} KiB", bytes / 1024), Level::Ok, "Rings get the memory they lock.")
        }
    }
}

fn nofile(facts: &Facts) -> Finding {
    match facts.nofile {
        None => unknown("nofile", "The limit of open files is not known."),
        Some(n) if n < NOFILE_MIN => {
            finding("nofile", n.to_string(), Level::Warn, "Traces with thousands of connections will not fit.")
                .advise("Raise it: `ulimit -n 65536`.")
        }
        Some(u64::MAX) => finding("nofile", "unlimited", Level::Ok, "Enough for thousands of connections."),
        Some(n) => finding("nofile", n.to_string(), Level::Ok, "Enough for thousands of connections."),
    }
}

fn tracing(facts: &Facts) -> Finding {
    let capabilities = facts.capabilities.unwrap_or(0);
    let may = capabilities & CAP_SYS_ADMIN != 0
        || (capabilities & CAP_BPF != 0 && capabilities & CAP_PERFMON != 0)
        || (facts.unprivileged_bpf_disabled == Some(0) && facts.perf_event_paranoid.is_some_and(|n| n < 2));
    if may && facts.has_btf {
        return finding("tracing", "allowed", Level::Ok, "eBPF programs can be loaded and find the kernel's types.");
    }
    let value = match (may, facts.has_btf) {
        (true, _) => "no kernel types (BTF)",
        (false, true) => "not permitted",
        (false, false) => "not permitted, and no kernel types (BTF)",
    };
    finding(
        "tracing",
        value,
        Level::Warn,
        "Recording an unmodified process and the run-queue lanes need eBPF; a study \
            does not.",
    )
    .advise("Run as root, or give the binary CAP_BPF and CAP_PERFMON, on a kernel with CONFIG_DEBUG_INFO_BTF.")
}

fn huge_pages(facts: &Facts) -> Finding {
    match facts.huge_pages.as_deref() {
        None => finding("huge_pages", "not visible", Level::Ok, "Transparent huge pages are absent or hidden."),
        Some("always") => finding(
            "huge_pages",
            "always",
            Level::Warn,
            "The kernel may compact memory while a request waits; some stalls come from there.",
        )
        .advise("As root, `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled` for the study."),
        Some(mode) => finding("huge_pages", mode, Level::Ok, "No request waits for memory to be compacted unasked."),
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64)
}
