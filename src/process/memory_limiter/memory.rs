//! How much memory there is, and how much of it this process holds.

use std::path::{Path, PathBuf};

/// Anonymous resident bytes of this process; `None` where /proc is not to be had.
pub fn held() -> Option<u64> {
    // Not from statm, which counts in pages whose size differs by machine.
    row_bytes(&std::fs::read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

/// The least of what the cgroup, all its ancestors, and the machine allow.
pub fn total() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| row_bytes(&text, "MemTotal:"))
        .unwrap_or(u64::MAX);
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_files(&cgroup)
        .into_iter()
        .filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok())
        .fold(machine, u64::min)
}

/// A row such as `MemTotal:   16 kB` of a file in /proc.
fn row_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// The files that may limit this process, from its own cgroup up to the root (cgroup v2, and v1's memory controller).
fn limit_files(cgroup: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => (Path::new("/sys/fs/cgroup"), "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (Path::new("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let own = root.join(path.trim_start_matches('/'));
        files.extend(own.ancestors().take_while(|folder| folder.starts_with(root)).map(|folder| folder.join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ancestor_is_asked() {
        let files = limit_files("0::/kubepods/pod1/container\n");
        let expected = ["kubepods/pod1/container/", "kubepods/pod1/", "kubepods/", ""];
        assert_eq!(files, expected.map(|folder| PathBuf::from(format!("/sys/fs/cgroup/{folder}memory.max"))));
        assert_eq!(limit_files("5:cpu,memory:/a\n1:name=systemd:/b\n").len(), 2);
    }

    #[test]
    fn the_machines_memory_is_read() {
        assert_eq!(row_bytes("MemTotal:       16 kB\nMemFree: 1 kB\n", "MemTotal:"), Some(16 * 1024));
        assert_eq!(row_bytes("VmRSS:\t      16 kB\nRssAnon:\t       8 kB\n", "RssAnon:"), Some(8 * 1024));
        assert!(total() > 0 && held().is_some_and(|held| held > 0));
    }
}
