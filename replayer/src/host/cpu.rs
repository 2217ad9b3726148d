//! CPUs: which may be used, how they are grouped into cores, what limits them, and the time that others took.

use super::{colon_field, read, read_number};
use crate::layout::Cpus;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is known of the CPUs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuFacts {
    /// Name that the processor gives itself.
    pub model: Option<String>,
    /// CPUs that this process may use, ascending.
    pub allowed: Vec<usize>,
    /// For each allowed CPU the hyperthreads of its core, itself included.
    pub siblings: BTreeMap<usize, Vec<usize>>,
    /// Frequency governors in use; empty when the host does not say (virtual machines mostly).
    pub governors: Vec<String>,
    /// Whether a hypervisor stands below.
    pub is_virtual: Option<bool>,
    /// CPUs that a control group grants, as a number of whole CPUs; `None` = no quota.
    pub quota_cpus: Option<f64>,
    /// Load average over the last minute.
    pub load_1min: Option<f64>,
    /// Share of CPU time that the hypervisor gave to others since boot, percent.
    pub steal_since_boot_percent: Option<f64>,
}

impl CpuFacts {
    /// What a layout depends on.
    pub fn for_layout(&self) -> Cpus {
        Cpus { allowed: self.allowed.clone(), siblings: self.siblings.clone(), is_virtual: self.is_virtual }
    }
}

pub(super) fn gather() -> CpuFacts {
    let info = read("/proc/cpuinfo");
    let flags = info.as_deref().and_then(|i| colon_field(i, "flags"));
    let allowed = allowed();
    let siblings = |cpu: &usize| {
        let text = read(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"))?;
        Some((*cpu, parse_list(&text)?))
    };
    let governor = |cpu: &usize| read(format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"));
    let mut governors: Vec<String> = allowed.iter().filter_map(governor).collect();
    governors.sort();
    governors.dedup();
    CpuFacts {
        model: info.as_deref().and_then(|i| colon_field(i, "model name")),
        siblings: allowed.iter().filter_map(siblings).collect(),
        governors,
        // Only x86 names the hypervisor among its flags; elsewhere nothing is claimed.
        is_virtual: flags.map(|f| f.split_whitespace().any(|flag| flag == "hypervisor")),
        quota_cpus: quota(),
        load_1min: read("/proc/loadavg").and_then(|l| l.split_whitespace().next()?.parse().ok()),
        steal_since_boot_percent: CpuTimes::read().and_then(|t| CpuTimes::default().steal_percent(&t, &allowed)),
        allowed,
    }
}

/// CPUs of this process's affinity mask, ascending.
pub fn allowed() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// `[0, 1, 2, 5]` from `0-2,5`.
pub fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        match part.split_once('-') {
            Some((from, to)) => {
                let (from, to): (usize, usize) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
                if to < from || to - from > rustix::thread::CpuSet::MAX_CPU {
                    return None;
                }
                cpus.extend(from..=to);
            }
            None => cpus.push(part.trim().parse().ok()?),
        }
    }
    Some(cpus)
}

/// Ticks per CPU since boot: all, and those that the hypervisor gave to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuTimes {
    ticks: BTreeMap<usize, (u64, u64)>,
}

impl CpuTimes {
    /// Reads /proc/stat; `None` when it is not there.
    pub fn read() -> Option<CpuTimes> {
        Some(CpuTimes::parse(&read("/proc/stat")?))
    }

    fn parse(text: &str) -> CpuTimes {
        let mut ticks = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let cpu = words.next().and_then(|w| w.strip_prefix("cpu")).and_then(|n| n.parse::<usize>().ok());
            let Some(cpu) = cpu else { continue };
            // user nice system idle iowait irq softirq steal; guest times are contained in user and nice.
            let fields: Vec<u64> = words.take(8).map(|w| w.parse().unwrap_or(0)).collect();
            ticks.insert(cpu, (fields.iter().sum(), fields.get(7).copied().unwrap_or(0)));
        }
        CpuTimes { ticks }
    }

    /// Stolen share of the time between `self` and `later` on the worst of `cpus`, percent; `None` when the host says
    /// nothing about any of them or no tick passed.
    pub fn steal_percent(&self, later: &CpuTimes, cpus: &[usize]) -> Option<f64> {
        let share = |cpu: &usize| {
            let (all_before, stolen_before) = self.ticks.get(cpu).copied().unwrap_or_default();
            let (all, stolen) = later.ticks.get(cpu).copied()?;
            let all = all.saturating_sub(all_before);
            (all > 0).then(|| 100.0 * stolen.saturating_sub(stolen_before) as f64 / all as f64)
        };
        cpus.iter().filter_map(share).reduce(f64::max)
    }
}

/// The tightest CPU quota of this process's control groups, in CPUs.
fn quota() -> Option<f64> {
    let groups = read("/proc/self/cgroup")?;
    let mut tightest: Option<f64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let root = match controllers {
            "" => Some("/sys/fs/cgroup"),
            c if c.split(',').any(|c| c == "cpu") => Some("/sys/fs/cgroup/cpu"),
            _ => None,
        };
        let Some(root) = root else { continue };
        // A quota of any ancestor binds as well.
        for ancestor in Path::new(path.trim_start_matches('/')).ancestors() {
            let dir = PathBuf::from(root).join(ancestor);
            let found = quota_v2(read(dir.join("cpu.max")).as_deref()).or_else(|| quota_v1(&dir));
            tightest = [tightest, found].into_iter().flatten().reduce(f64::min);
        }
    }
    tightest
}

/// `0.5` from `50000 100000`, nothing from `max 100000`.
fn quota_v2(text: Option<&str>) -> Option<f64> {
    let (quota, period) = text?.split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.trim().parse().ok()?);
    (period > 0.0).then(|| quota / period)
}

fn quota_v1(dir: &Path) -> Option<f64> {
    let quota = read_number(dir.join("cpu.cfs_quota_us"))?;
    let period = read_number(dir.join("cpu.cfs_period_us"))?;
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_list(""), Some(vec![]));
        assert_eq!(parse_list("3-1"), None);
        assert_eq!(parse_list("0-99999999999"), None);
        assert_eq!(parse_list("a"), None);
    }

    #[test]
    fn steal_is_that_of_the_worst_cpu_asked_for() {
        let before = CpuTimes::parse("cpu  9 9 9\ncpu0 100 0 0 0 0 0 0 0 0 0\ncpu1 100 0 0 0 0 0 0 10 0 0\nintr 1");
        let after = CpuTimes::parse("cpu0 150 0 0 40 0 0 0 10 7 7\ncpu1 200 0 0 0 0 0 0 10 0 0");
        assert_eq!(before.steal_percent(&after, &[0, 1]), Some(10.0));
        assert_eq!(before.steal_percent(&after, &[1]), Some(0.0));
        assert_eq!(before.steal_percent(&after, &[7]), None);
        assert_eq!(before.steal_percent(&before, &[0]), None);
    }

    #[test]
    fn quotas() {
        assert_eq!(quota_v2(Some("50000 100000")), Some(0.5));
        assert_eq!(quota_v2(Some("max 100000")), None);
        assert_eq!(quota_v2(Some("nonsense")), None);
        assert_eq!(quota_v2(None), None);
    }
}
