//! CPUs and clocks.

use super::{finding, unknown};
use crate::arms::{list, plural};
use crate::doctor::{Finding, Level};
use crate::gates::STEAL_PERCENT_MAX;
use crate::host::Facts;

/// From here on one clock reading is a system call rather than a read of the time-stamp counter, ns.
const CLOCK_READ_SLOW_NS: f64 = 200.0;

pub(super) fn cpus(facts: &Facts) -> Finding {
    let n = facts.cpu.allowed.len();
    let model = facts.cpu.model.as_deref().unwrap_or("unknown model");
    let value = format!("{} ({}) of {model}", plural(n, "CPU"), list(&facts.cpu.allowed));
    match n {
        0 => unknown("cpus", "The CPUs that this process may use cannot be read: no layout can be made."),
        1 => finding("cpus", value, Level::Bad, "Driver and server share one CPU: tails show their competition.")
            .advise("Use a host with at least 4 CPUs."),
        2 | 3 => finding(
            "cpus",
            value,
            Level::Warn,
            "Too few for a server of several shards beside a driver with its own CPU; a pilot chooses the layout.",
        )
        .advise("Use a host with at least 4 CPUs for figures that decide something."),
        _ => finding("cpus", value, Level::Ok, "The driver gets a CPU of its own, the server the others."),
    }
}

pub(super) fn core_sharing(facts: &Facts) -> Finding {
    if facts.cpu.siblings.is_empty() {
        return unknown("smt", "The host does not say which CPUs are hyperthreads of one core.");
    }
    if facts.cpu.siblings.values().all(|core| core.len() < 2) {
        return finding("smt", "off", Level::Ok, "Each CPU is a core, as far as the host shows.");
    }
    finding("smt", "on", Level::Warn, "CPUs that are hyperthreads of one core slow each other by up to a half.")
        .advise("As root, `echo off > /sys/devices/system/cpu/smt/control` for the study.")
}

pub(super) fn frequency(facts: &Facts) -> Finding {
    let governors = facts.cpu.governors.join(", ");
    match governors.as_str() {
        "" => finding(
            "frequency",
            "not visible",
            Level::Ok,
            "The clock's rate is not in this system's hands; the canary notices when it drifts.",
        ),
        "performance" => finding("frequency", governors, Level::Ok, "The clock stays up between requests."),
        _ => {
            finding("frequency", governors, Level::Warn, "The clock falls between requests, and rises late in bursts.")
                .advise("As root, run `cpupower frequency-set -g performance` for the study.")
        }
    }
}

pub(super) fn virtual_host(facts: &Facts) -> Finding {
    match facts.cpu.is_virtual {
        Some(true) => {
            finding("virtual", "yes", Level::Warn, "Neighbours can take time that only partly shows as steal.")
                .advise("Prefer a whole machine; otherwise run more blocks.")
        }
        Some(false) => finding("virtual", "no", Level::Ok, "No hypervisor announces itself."),
        None => finding("virtual", "unknown", Level::Ok, "This architecture does not tell."),
    }
}

pub(super) fn steal(percent: Option<f64>) -> Finding {
    let Some(percent) = percent else {
        return unknown("steal", "The kernel does not count stolen time, so its gate cannot pass.");
    };
    let value = format!("{percent:.1} % while looking");
    if percent > STEAL_PERCENT_MAX {
        return finding(
            "steal",
            value,
            Level::Warn,
            "The hypervisor gives this host's time away; runs may be invalid.",
        )
        .advise("Run when neighbours are quiet, or on a host whose CPUs are dedicated.");
    }
    finding("steal", value, Level::Ok, "The hypervisor gave the CPUs when they were wanted.")
}

pub(super) fn quota(facts: &Facts) -> Finding {
    match facts.cpu.quota_cpus {
        None => finding("cpu_quota", "none", Level::Ok, "No control group throttles this process."),
        Some(cpus) => finding(
            "cpu_quota",
            format!("{cpus:.2} CPUs"),
            Level::Bad,
            "A control group stops all threads for the rest of each period once the quota is used: tails show that.",
        )
        .advise("Run outside the container, or with whole CPUs assigned (cpuset) instead of a quota."),
    }
}

pub(super) fn load(facts: &Facts) -> Finding {
    let Some(load) = facts.cpu.load_1min else {
        return unknown("load", "The load average cannot be read.");
    };
    let value = format!("{load:.2} over the last minute");
    if load > 0.25 * facts.cpu.allowed.len() as f64 {
        return finding("load", value, Level::Warn, "Other programs are at work and will be in the tails.")
            .advise("Stop them, or wait until `uptime` shows less.");
    }
    finding("load", value, Level::Ok, "Little else is running.")
}

pub(super) fn clock(facts: &Facts) -> Finding {
    let clock = &facts.clock;
    let source = clock.source.as_deref().unwrap_or("unknown source");
    let value = format!("{source}, {:.0} ns per reading", clock.read_cost_ns);
    if clock.read_cost_ns > CLOCK_READ_SLOW_NS {
        let advice = if clock.available.iter().any(|c| c == "tsc") && source != "tsc" {
            "As root, `echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource`."
        } else {
            "Use another host; here every stamp is a system call."
        };
        return finding("clock", value, Level::Warn, "Stamps are dear: they add to what they measure.").advise(advice);
    }
    finding("clock", value, Level::Ok, "Stamps cost little beside what they measure.")
}
