//! Facts about this host, as the kernel tells them.
//!
//! Why: a figure without its host is a rumour, and half of what misleads in this field (tmpfs, a CPU quota, an io_uring
//! that a container forbids) can be seen beforehand. Here facts are only gathered: what they mean for a study says
//! [`crate::doctor`]. A file that is missing or forbidden gives `None`, never a panic: hosts differ.

pub mod clock;
pub mod cpu;
pub mod disk;
pub mod uring;

use serde::{Deserialize, Serialize};
use std::path::Path;

/// Everything that is known. `None` means that the host does not say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Kernel release, e.g. `6.1.0-18-amd64`.
    pub kernel: Option<String>,
    /// Machine architecture, e.g. `x86_64`.
    pub architecture: Option<String>,
    /// CPUs.
    pub cpu: cpu::CpuFacts,
    /// Clocks.
    pub clock: clock::ClockFacts,
    /// io_uring.
    pub uring: uring::UringFacts,
    /// The file system of the study.
    pub disk: disk::DiskFacts,
    /// Installed memory, bytes.
    pub memory_total_bytes: Option<u64>,
    /// Memory that can be had without swapping, bytes.
    pub memory_available_bytes: Option<u64>,
    /// Soft limit of locked memory, bytes; `u64::MAX` = none.
    pub memlock_bytes: Option<u64>,
    /// Soft limit of open files; `u64::MAX` = none.
    pub nofile: Option<u64>,
    /// kernel.perf_event_paranoid.
    pub perf_event_paranoid: Option<i64>,
    /// kernel.unprivileged_bpf_disabled.
    pub unprivileged_bpf_disabled: Option<i64>,
    /// Whether the kernel carries its types (BTF), which eBPF programs need to find fields.
    pub has_btf: bool,
    /// Effective capabilities, as the bit mask of /proc/self/status.
    pub capabilities: Option<u64>,
    /// Seccomp mode of this process: 0 none, 1 strict, 2 filter.
    pub seccomp: Option<u32>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
}

/// Gathers the facts; `path` lies on the file system that is asked about (it, or its nearest existing parent).
pub fn gather(path: &Path) -> Facts {
    let uname = rustix::system::uname();
    let status = read("/proc/self/status");
    let field = |name: &str| status.as_deref().and_then(|s| colon_field(s, name));
    let meminfo = read("/proc/meminfo");
    let memory = |name: &str| {
        let text = meminfo.as_deref().and_then(|m| colon_field(m, name))?;
        text.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let limit = |resource| Some(rustix::process::getrlimit(resource).current.unwrap_or(u64::MAX));
    Facts {
        kernel: uname.release().to_str().ok().map(str::to_owned),
        architecture: uname.machine().to_str().ok().map(str::to_owned),
        cpu: cpu::gather(),
        clock: clock::gather(),
        uring: uring::gather(),
        disk: disk::gather(path),
        memory_total_bytes: memory("MemTotal"),
        memory_available_bytes: memory("MemAvailable"),
        memlock_bytes: limit(rustix::process::Resource::Memlock),
        nofile: limit(rustix::process::Resource::Nofile),
        perf_event_paranoid: read_number("/proc/sys/kernel/perf_event_paranoid"),
        unprivileged_bpf_disabled: read_number("/proc/sys/kernel/unprivileged_bpf_disabled"),
        has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        capabilities: field("CapEff").and_then(|text| u64::from_str_radix(&text, 16).ok()),
        seccomp: field("Seccomp").and_then(|text| text.parse().ok()),
        huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled").and_then(|text| bracketed(&text)),
    }
}

/// A small file's text without the white space around it.
fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn read_number(path: impl AsRef<Path>) -> Option<i64> {
    read(path)?.parse().ok()
}

/// The value of `name:` in a file of `name: value` lines.
fn colon_field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// `madvise` from `always [madvise] never`.
fn bracketed(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn facts_of_this_host_survive_json() {
        let mut facts = gather(Path::new("/nonexistent/below/nothing"));
        assert!(facts.kernel.is_some() && !facts.cpu.allowed.is_empty());
        // serde_json reads a measured fraction back to within one unit in the last place, not always to the bit.
        facts.clock.read_cost_ns = 30.25;
        facts.cpu.steal_since_boot_percent = facts.cpu.steal_since_boot_percent.map(|_| 1.25);
        facts.cpu.load_1min = facts.cpu.load_1min.map(|_| 0.5);
        let text = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), facts);
    }

    #[test]
    fn small_parsers() {
        assert_eq!(bracketed("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(bracketed("plain"), None);
        assert_eq!(colon_field("CapEff:\t000f\nSeccomp:\t0", "Seccomp").as_deref(), Some("0"));
        assert_eq!(colon_field("Seccomp_filters:\t0", "Seccomp"), None);
    }
}
