#![allow(clippy::unwrap_used)]
use super::*;
use crate::host::{clock::ClockFacts, cpu::CpuFacts, disk::DiskFacts, uring::UringFacts};

/// A host with nothing to complain about.
fn good() -> Facts {
    let operations = [("write".to_owned(), true), ("fsync".to_owned(), true)].into();
    Facts {
        kernel: Some("6.1.0-18-amd64".into()),
        architecture: Some("x86_64".into()),
        cpu: CpuFacts {
            model: Some("A CPU".into()),
            allowed: (0..8).collect(),
            siblings: (0..8).map(|c| (c, vec![c])).collect(),
            governors: vec!["performance".into()],
            is_virtual: Some(false),
            quota_cpus: None,
            load_1min: Some(0.1),
            steal_since_boot_percent: Some(0.0),
        },
        clock: ClockFacts { source: Some("tsc".into()), available: vec!["tsc".into()], read_cost_ns: 25.0 },
        uring: UringFacts { works: true, operations, disabled: Some(0), ..UringFacts::default() },
        disk: DiskFacts {
            file_system: Some("ext4".into()),
            mount_point: Some("/".into()),
            mount_options: Some("rw".into()),
            source: Some("/dev/nvme0n1p1".into()),
            device: Some("nvme0n1".into()),
            rotational: Some(false),
            write_cache: Some("write back".into()),
            free_bytes: Some(100 << 30),
            ..DiskFacts::default()
        },
        memory_total_bytes: Some(32 << 30),
        memory_available_bytes: Some(30 << 30),
        memlock_bytes: Some(8 << 20),
        nofile: Some(1 << 20),
        perf_event_paranoid: Some(2),
        unprivileged_bpf_disabled: Some(2),
        has_btf: true,
        capabilities: Some(u64::MAX),
        seccomp: Some(0),
        huge_pages: Some("madvise".into()),
    }
}

fn judged(change: impl Fn(&mut Facts)) -> Vec<Finding> {
    let mut facts = good();
    change(&mut facts);
    let canary = Canary { spin_ns: 1_000_000, sync_p50_ns: 90_000, sync_max_ns: 300_000 };
    judge::findings(&facts, Some(0.0), Some(&canary))
}

#[test]
fn a_good_host_has_no_complaint() {
    let complaints: Vec<Finding> = judged(|_| ()).into_iter().filter(|f| f.level != Level::Ok).collect();
    assert_eq!(complaints, []);
}

#[test]
fn nothing_known_is_no_panic_and_says_so() {
    let findings = judge::findings(&Facts::default(), None, None);
    assert!(findings.iter().any(|f| f.name == "kernel" && f.value == "unknown"));
    assert!(findings.iter().any(|f| f.name == "steal" && f.level == Level::Warn));
}

#[test]
fn each_fault_of_a_host_is_found_with_advice() {
    type Fault = (&'static str, Level, &'static str, fn(&mut Facts));
    let forbidden = |f: &mut Facts, errno: i32| {
        f.uring = UringFacts { error: Some("refused".into()), errno: Some(errno), ..UringFacts::default() };
    };
    let faults: Vec<Fault> = vec![
        ("kernel", Level::Bad, "newer kernel", |f| f.kernel = Some("5.10.0".into())),
        ("io_uring", Level::Bad, "newer kernel", |f| f.uring.operations = [("fsync".to_owned(), false)].into()),
        ("cpus", Level::Bad, "at least 4", |f| f.cpu.allowed = vec![0]),
        ("cpus", Level::Warn, "at least 4", |f| f.cpu.allowed = vec![0, 1]),
        ("smt", Level::Warn, "smt/control", |f| f.cpu.siblings = [(0, vec![0, 1])].into()),
        ("frequency", Level::Warn, "cpupower", |f| f.cpu.governors = vec!["powersave".into()]),
        ("virtual", Level::Warn, "more blocks", |f| f.cpu.is_virtual = Some(true)),
        ("cpu_quota", Level::Bad, "cpuset", |f| f.cpu.quota_cpus = Some(1.5)),
        ("load", Level::Warn, "uptime", |f| f.cpu.load_1min = Some(3.0)),
        ("clock", Level::Warn, "echo tsc", |f| {
            (f.clock.source, f.clock.read_cost_ns) = (Some("hpet".into()), 900.0);
        }),
        ("file_system", Level::Bad, "--out", |f| f.disk.file_system = Some("tmpfs".into())),
        ("file_system", Level::Warn, "volume", |f| f.disk.file_system = Some("overlay".into())),
        ("file_system", Level::Warn, "local disk", |f| f.disk.file_system = Some("nfs4".into())),
        ("device", Level::Warn, "production", |f| f.disk.rotational = Some(true)),
        ("free_space", Level::Warn, "Make room", |f| f.disk.free_bytes = Some(1 << 20)),
        ("memory", Level::Warn, "larger host", |f| f.memory_available_bytes = Some(1 << 20)),
        ("memlock", Level::Warn, "ulimit -l", |f| f.memlock_bytes = Some(64 << 10)),
        ("nofile", Level::Warn, "ulimit -n", |f| f.nofile = Some(1024)),
        ("tracing", Level::Warn, "CAP_BPF", |f| f.capabilities = Some(0)),
        ("tracing", Level::Warn, "CONFIG_DEBUG_INFO_BTF", |f| f.has_btf = false),
        ("huge_pages", Level::Warn, "madvise", |f| f.huge_pages = Some("always".into())),
    ];
    for (name, level, advice, change) in faults {
        let complaints: Vec<Finding> = judged(change).into_iter().filter(|f| f.level != Level::Ok).collect();
        assert_eq!(complaints.len(), 1, "{name}: {complaints:?}");
        let found = complaints.first().unwrap();
        assert_eq!((found.name.as_str(), found.level), (name, level), "{found:?}");
        assert!(found.advice.as_ref().unwrap().contains(advice), "{found:?}");
    }
    let advice = |change: &dyn Fn(&mut Facts)| {
        let found = judged(change).into_iter().find(|f| f.name == "io_uring").unwrap();
        assert_eq!(found.level, Level::Bad);
        found.advice.unwrap()
    };
    assert!(advice(&|f| forbidden(f, libc::ENOSYS)).contains("built without"));
    assert!(advice(&|f| forbidden(f, libc::ENOMEM)).contains("ulimit -l"));
    assert!(advice(&|f| forbidden(f, libc::EPERM)).contains("security module"));
    let with = |disabled: Option<i64>, seccomp: Option<u32>| {
        advice(&|f| {
            forbidden(f, libc::EPERM);
            (f.uring.disabled, f.seccomp) = (disabled, seccomp);
        })
    };
    assert!(with(Some(2), Some(2)).contains("sysctl -w kernel.io_uring_disabled=0"));
    assert!(with(Some(0), Some(2)).contains("seccomp"));
}

#[test]
fn a_sync_that_costs_nothing_reached_no_device() {
    let canary = Canary { spin_ns: 1, sync_p50_ns: 700, sync_max_ns: 900 };
    let findings = judge::findings(&good(), Some(9.0), Some(&canary));
    let bad: Vec<&str> = findings.iter().filter(|f| f.level == Level::Bad).map(|f| f.name.as_str()).collect();
    assert_eq!(bad, ["fdatasync"]);
    let warned: Vec<&str> = findings.iter().filter(|f| f.level == Level::Warn).map(|f| f.name.as_str()).collect();
    assert_eq!(warned, ["steal"]);
}
