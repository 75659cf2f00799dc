//! Who holds up a write to the file. Linux lists the locks of all processes; elsewhere, or in another container, nobody can tell.
//!
//! The file is never opened for this: closing it again would drop the locks that this process has on it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The processes that hold up a write: `process 4711 (python3)`, several separated by commas.
pub(super) fn holders(database: &Path) -> Option<String> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let mut found: Vec<u32> = Vec::new();
    for (path, bytes) in [(database.to_owned(), FILE_BYTES), (with_suffix(database, "-shm"), LOG_BYTES)] {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        found.extend(holders_in(&locks, metadata.dev(), metadata.ino(), bytes));
    }
    found.retain(|process| *process != std::process::id());
    found.sort_unstable();
    found.dedup();
    let named: Vec<String> = found.iter().map(|process| named(*process)).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

/// Processes with a lock on some of these bytes of a file. A line is: number, kind, mode, READ or WRITE, process, device and inode
/// (`fd:01:4711`, in hexadecimal and decimal), first byte, last byte.
fn holders_in(locks: &str, device: u64, inode: u64, bytes: (u64, u64)) -> Vec<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    let holder = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        // Whoever waits for a lock stands behind an arrow.
        let [_, "POSIX", _, _, process, of, first, last] = fields[..] else {
            return None;
        };
        let first: u64 = first.parse().ok()?;
        let last: u64 = if last == "EOF" { u64::MAX } else { last.parse().ok()? };
        let holds = of == file && first <= bytes.1 && last >= bytes.0;
        // -1 for a process of another container.
        process.parse().ok().filter(|_| holds)
    };
    locks.lines().filter_map(holder).collect()
}

fn named(process: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    match name.trim() {
        "" => format!("process {process}"),
        name => format!("process {process} ({})", name.escape_debug()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The lock bytes of the file (SQLite's file format, "the lock-byte page"): pending, reserved, and those of readers.
const FILE_BYTES: (u64, u64) = (0x4000_0000, 0x4000_0000 + 511);
/// The write lock of the write-ahead log, in its shared memory (SQLite's "WAL-mode file format").
const LOG_BYTES: (u64, u64) = (120, 120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_found_by_file_and_byte() {
        let locks = "1: POSIX  ADVISORY  WRITE 4711 08:01:393229 1073741825 1073741825\n\
                     1: -> POSIX  ADVISORY  WRITE 1 08:01:393229 1073741825 1073741825\n\
                     2: FLOCK  ADVISORY  WRITE 2 08:01:393229 0 EOF\n\
                     3: POSIX  ADVISORY  READ 4712 08:01:393229 1073741826 1073742335\n\
                     4: POSIX  ADVISORY  WRITE 4713 08:01:5 1073741825 1073741825\n\
                     5: POSIX  ADVISORY  WRITE -1 08:01:393229 0 EOF\n\
                     6: POSIX  ADVISORY  READ 4714 08:01:393229 128 128\n";
        let device = rustix::fs::makedev(8, 1);
        assert_eq!(holders_in(locks, device, 393_229, FILE_BYTES), [4711, 4712]);
        assert!(holders_in(locks, device, 393_229, LOG_BYTES).is_empty());
        assert!(holders_in("", device, 5, FILE_BYTES).is_empty());
    }
}
