//! The file system below a path: its type, mount, device and free space.

use super::{read, read_number};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is known of the storage below a path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskFacts {
    /// The path that was looked at (the nearest that exists).
    pub path: PathBuf,
    /// Type of the file system: `ext4`, `xfs`, `tmpfs`, …
    pub file_system: Option<String>,
    /// Where it is mounted.
    pub mount_point: Option<String>,
    /// Mount options, those of the mount and those of the file system.
    pub mount_options: Option<String>,
    /// What is mounted, e.g. `/dev/nvme0n1p1`.
    pub source: Option<String>,
    /// Whole disk below it, e.g. `nvme0n1`; `None` for file systems without one block device.
    pub device: Option<String>,
    /// Whether that disk turns.
    pub rotational: Option<bool>,
    /// `write back` (a volatile cache that a flush must empty) or `write through`, as the kernel believes.
    pub write_cache: Option<String>,
    /// Free space for this user, bytes.
    pub free_bytes: Option<u64>,
}

impl DiskFacts {
    /// Whether files live in memory only, so that syncing them means nothing.
    pub fn is_memory(&self) -> bool {
        matches!(self.file_system.as_deref(), Some("tmpfs" | "ramfs" | "hugetlbfs"))
    }
}

/// Looks at the file system below `path`, or below its nearest parent that exists.
pub fn gather(path: &Path) -> DiskFacts {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let Some(existing) = absolute.ancestors().find_map(|p| p.canonicalize().ok()) else {
        return DiskFacts { path: absolute, ..DiskFacts::default() };
    };
    let mount = read("/proc/self/mountinfo").and_then(|text| Mount::of(&text, &existing));
    let device = std::fs::metadata(&existing).ok().and_then(|m| whole_disk(m.dev()));
    let queue = |file: &str| device.as_ref().map(|d| d.join("queue").join(file));
    let free = rustix::fs::statvfs(&existing).ok().and_then(|s| s.f_bavail.checked_mul(s.f_frsize));
    DiskFacts {
        file_system: mount.as_ref().map(|m| m.file_system.clone()),
        mount_point: mount.as_ref().map(|m| m.point.display().to_string()),
        mount_options: mount.as_ref().map(|m| m.options.clone()),
        source: mount.map(|m| m.source),
        device: device.as_ref().and_then(|d| Some(d.file_name()?.to_string_lossy().into_owned())),
        rotational: queue("rotational").and_then(read_number).map(|n| n != 0),
        write_cache: queue("write_cache").and_then(read),
        free_bytes: free,
        path: existing,
    }
}

/// One line of /proc/self/mountinfo, see proc_pid_mountinfo(5).
struct Mount {
    point: PathBuf,
    file_system: String,
    options: String,
    source: String,
}

impl Mount {
    /// The mount that `path` lies on: the longest mount point above it, the last of equals (it covers the others).
    fn of(mountinfo: &str, path: &Path) -> Option<Mount> {
        let above = mountinfo.lines().filter_map(Mount::parse).filter(|m| path.starts_with(&m.point));
        above.max_by_key(|m| m.point.as_os_str().len())
    }

    fn parse(line: &str) -> Option<Mount> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(4);
        let (point, options) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (file_system, source, super_options) = (after.next()?, after.next()?, after.next()?);
        Some(Mount {
            point: PathBuf::from(unescape(point)),
            file_system: file_system.to_owned(),
            options: format!("{options};{super_options}"),
            source: unescape(source),
        })
    }
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The sysfs directory of the whole disk that carries a device number (a partition's parent).
fn whole_disk(dev: u64) -> Option<PathBuf> {
    let link = format!("/sys/dev/block/{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    let dir = std::fs::canonicalize(link).ok()?;
    if dir.join("partition").exists() { dir.parent().map(Path::to_owned) } else { Some(dir) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MOUNTS: &str = "22 27 0:21 / /proc rw - proc proc rw\n\
        27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
        28 27 0:40 / /data rw - tmpfs tmpfs rw,size=1k\n\
        29 27 8:1 /sub /data\\040two rw,noatime - xfs /dev/sda1 rw,attr2\n\
        a broken line\n";

    #[test]
    fn the_longest_mount_point_carries_the_path() {
        let of = |path: &str| Mount::of(MOUNTS, Path::new(path)).unwrap();
        assert_eq!(of("/data/x").file_system, "tmpfs");
        assert_eq!(of("/database").file_system, "ext4");
        assert_eq!(
            (of("/data two/x").source, of("/data two/x").options),
            ("/dev/sda1".into(), "rw,noatime;rw,attr2".into())
        );
    }

    #[test]
    fn memory_file_systems_are_known() {
        assert!(gather(Path::new("/dev/shm")).is_memory() || !Path::new("/dev/shm").exists());
        assert!(!DiskFacts { file_system: Some("ext4".into()), ..DiskFacts::default() }.is_memory());
    }
}
