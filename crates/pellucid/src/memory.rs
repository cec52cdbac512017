//! How much memory there is to take.

use std::fs::read_to_string;
use std::path::Path;

/// Bytes that this process may still take: what the machine has available, within the limits of its control groups and of its
/// address space. None where the system does not say, as outside Linux.
pub fn available() -> Option<u64> {
    let here = |name: &str| read_to_string(Path::new("/proc").join(name)).ok();
    let machine = here("meminfo").and_then(|text| kilobytes(&text, "MemAvailable:"));
    let space = here("self/limits").and_then(|text| address_space(&text)).and_then(|limit| {
        let taken = kilobytes(&here("self/status")?, "VmSize:")?;
        Some(limit.saturating_sub(taken))
    });
    let groups = here("self/cgroup").unwrap_or_default();
    let group = groups.lines().filter_map(|line| of_group(line, Path::new("/sys/fs/cgroup"))).min();
    [machine, space, group].into_iter().flatten().min()
}

/// A field of `/proc/meminfo` or `/proc/self/status`, in bytes.
fn kilobytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The limit of the address space in `/proc/self/limits`; none: it has none.
fn address_space(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("Max address space"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// What the control group of a line of `/proc/self/cgroup`, and those around it, still allow. Inside a container its files
/// stand at the root.
fn of_group(line: &str, root: &Path) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (root, names) = match controllers {
        "" => (root.to_owned(), ["memory.max", "memory.current", "inactive_file ", "active_file "]),
        _ if controllers.split(',').any(|controller| controller == "memory") => (
            root.join("memory"),
            ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ", "total_active_file "],
        ),
        _ => return None,
    };
    let folder = root.join(path.trim_start_matches('/'));
    folder
        .ancestors()
        .take_while(|folder| folder.starts_with(&root))
        .filter_map(|folder| left(folder, names))
        .min()
}

/// What a control group still allows: its limit without what is taken, of which copies of files do not count.
fn left(folder: &Path, [limit, usage, files @ ..]: [&str; 4]) -> Option<u64> {
    let number = |name: &str| read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limit, usage) = (number(limit)?, number(usage)?);
    let statistics = read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let of = |field: &str| statistics.lines().find_map(|line| line.strip_prefix(field)?.parse::<u64>().ok());
    let reclaimed: u64 = files.iter().filter_map(|field| of(field)).fold(0, u64::saturating_add);
    Some(limit.saturating_sub(usage.saturating_sub(reclaimed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        assert_eq!(kilobytes("MemTotal: 9 kB\nMemAvailable:   21 kB\n", "MemAvailable:"), Some(21 * 1024));
        assert_eq!(kilobytes("MemAvailable: many\n", "MemAvailable:"), None);
        let limits =
            "Limit  Soft  Hard  Units\nMax address space         4096000000           unlimited    bytes\n";
        assert_eq!(address_space(limits), Some(4_096_000_000));
        assert_eq!(
            address_space("Max address space         unlimited            unlimited    bytes\n"),
            None
        );
        if cfg!(target_os = "linux") {
            assert!(available().is_some_and(|bytes| bytes > 1 << 20));
        }
    }

    #[test]
    fn the_narrowest_control_group_counts_and_copies_of_files_do_not() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a/memory.max", "1000\n");
        write("a/memory.current", "700\n");
        write("a/memory.stat", "anon 400\nfile 300\ninactive_file 100\nactive_file 200\n");
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "5\n");
        assert_eq!(of_group("0::/a/b", root.path()), Some(600));
        write("a/b/memory.max", "50\n");
        assert_eq!(of_group("0::/a/b", root.path()), Some(45));
        assert_eq!(of_group("0::/elsewhere", root.path()), None);
        write("memory/memory.limit_in_bytes", "90\n");
        write("memory/memory.usage_in_bytes", "100\n");
        assert_eq!(of_group("4:cpu,memory:/gone", root.path()), Some(0));
        assert_eq!(of_group("5:pids:/a", root.path()), None);
    }
}
