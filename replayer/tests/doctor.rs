//! The doctor on this host; hosts that are made up stand beside its judgements.
#![allow(clippy::unwrap_used)]

use regauge_replayer::doctor::{Level, Report, examine};
use std::path::Path;
use std::time::Duration;

#[test]
fn it_finds_something_to_say_about_every_matter_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let report = examine(&dir.path().join("not/yet/there"), Duration::from_millis(30));
    for name in [
        "kernel",
        "io_uring",
        "cpus",
        "smt",
        "frequency",
        "virtual",
        "steal",
        "cpu_quota",
        "load",
        "clock",
        "file_system",
        "device",
        "fdatasync",
        "free_space",
        "memory",
        "memlock",
        "nofile",
        "tracing",
        "huge_pages",
    ] {
        let finding = report.finding(name).unwrap();
        assert!(finding.means.ends_with('.') && !finding.value.is_empty(), "{finding:?}");
        assert!(finding.advice.as_ref().is_none_or(|a| a.ends_with('.')), "{finding:?}");
        assert!(finding.level == Level::Ok || !finding.means.is_empty());
    }
    assert!(report.canary.is_some());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    // Compared as JSON: serde_json reads most floating-point numbers, not all, back to the last bit.
    let text = serde_json::to_string(&report).unwrap();
    let read: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), serde_json::from_str::<serde_json::Value>(&text).unwrap());
}

#[test]
fn a_path_that_cannot_be_written_is_bad() {
    let report = examine(Path::new("/proc/regauge"), Duration::ZERO);
    assert_eq!(report.finding("fdatasync").unwrap().level, Level::Bad);
    assert_eq!(report.worst(), Level::Bad);
}

#[test]
fn memory_is_no_disk() {
    let report = examine(Path::new("/dev/shm"), Duration::ZERO);
    let finding = report.finding("file_system").unwrap();
    assert_eq!(finding.level, Level::Bad, "{finding:?}");
    assert!(finding.means.contains("fdatasync does nothing"));
}
