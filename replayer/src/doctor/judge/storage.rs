//! Where the study's files lie and what a sync means there.

use super::{finding, gib, unknown};
use crate::canary::Canary;
use crate::doctor::{Finding, Level};
use crate::host::Facts;

/// A synced write faster than this did not reach a device, ns.
const SYNC_TOO_FAST_NS: u64 = 5_000;
const FREE_MIN: u64 = 2 << 30;

pub(super) fn file_system(facts: &Facts) -> Finding {
    let disk = &facts.disk;
    let Some(kind) = &disk.file_system else {
        return unknown("file_system", "The study's file system is not known, nor what a sync means on it.");
    };
    let value = format!(
        "{kind} on {} ({})",
        disk.mount_point.as_deref().unwrap_or("?"),
        disk.mount_options.as_deref().unwrap_or("?")
    );
    if disk.is_memory() {
        return finding(
            "file_system",
            value,
            Level::Bad,
            "Files live in memory: fdatasync does nothing, and every arm's \
                       durability is a word only.",
        )
        .advise("Put the study on a disk: `--out` on another file system.");
    }
    match kind.as_str() {
        "overlay" => finding("file_system", value, Level::Warn, "A container's layered file system adds its own work.")
            .advise("Put the study on a volume of the host."),
        "nfs" | "nfs4" | "cifs" | "9p" | "virtiofs" | "fuseblk" | "fuse" => {
            finding("file_system", value, Level::Warn, "Syncs go over a network or through another process.")
                .advise("Put the study on a local disk, unless the broker will live on such a file system too.")
        }
        "btrfs" | "zfs" | "bcachefs" => {
            finding("file_system", value, Level::Ok, "It copies on write: syncs cost more than on ext4 or xfs.")
        }
        _ => finding("file_system", value, Level::Ok, "Syncs go to a local file system."),
    }
}

pub(super) fn device(facts: &Facts) -> Finding {
    let disk = &facts.disk;
    let Some(device) = &disk.device else {
        return finding(
            "device",
            "not visible",
            Level::Ok,
            "No single block device below; the sync's cost shows itself.",
        );
    };
    let cache = disk.write_cache.as_deref().unwrap_or("unknown write cache");
    // A virtual disk says that it turns because nobody told it otherwise.
    let is_virtual = device.starts_with("vd") || device.starts_with("xvd");
    let kind = match disk.rotational {
        _ if is_virtual => "virtual, ",
        Some(true) => "rotational, ",
        Some(false) => "not rotational, ",
        None => "",
    };
    let value = format!("{device} ({kind}{cache})");
    if disk.rotational == Some(true) && !is_virtual {
        return finding("device", value, Level::Warn, "A turning disk: the tails of durable writes are the disk's.")
            .advise("Use the kind of disk that the broker has in production.");
    }
    let means = match disk.write_cache.as_deref() {
        Some("write back") => "A sync flushes the device's cache.",
        Some("write through") => "The device says that it keeps no volatile cache, so a sync sends no flush.",
        _ => "What a sync does to the device is not known.",
    };
    finding("device", value, Level::Ok, means)
}

pub(super) fn sync(canary: Option<&Canary>) -> Finding {
    let Some(canary) = canary else {
        return finding("fdatasync", "not measured", Level::Bad, "The study's directory cannot be written.")
            .advise("Choose a directory that this user may write.");
    };
    let us = |ns: u64| ns as f64 / 1e3;
    let value = format!("p50 {:.0} µs, slowest of 32 {:.0} µs (4 KiB)", us(canary.sync_p50_ns), us(canary.sync_max_ns));
    if canary.sync_p50_ns < SYNC_TOO_FAST_NS {
        return finding(
            "fdatasync",
            value,
            Level::Bad,
            "Too fast to have reached a device: a sync means nothing here.",
        )
        .advise("Put the study on a real disk.");
    }
    finding("fdatasync", value, Level::Ok, "What one durable write costs before any stack is added.")
}

pub(super) fn free_space(facts: &Facts) -> Finding {
    let Some(free) = facts.disk.free_bytes else {
        return unknown("free_space", "The free space is not known.");
    };
    if free < FREE_MIN {
        return finding("free_space", gib(free), Level::Warn, "A long study may fill the disk.")
            .advise("Make room, or put the study elsewhere.");
    }
    finding("free_space", gib(free), Level::Ok, "Enough for the data directory of one run and the samples of all.")
}
