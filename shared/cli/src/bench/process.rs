//! What a process has used, as Linux tells it in /proc (proc_pid_schedstat(5), proc_pid_status(5)).

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Whether this system tells what a process has used.
pub(super) fn is_told() -> bool {
    fs::exists("/proc/self/schedstat").unwrap_or(false)
}

/// The CPU time of a process's threads, user and system, to the nanosecond. Threads that ended are left out; the programs measured
/// here end none while they work.
///
/// # Errors
/// When there is no such process, or this is not Linux.
pub(super) fn cpu_time(process: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += time_on_cpu(&text).ok_or_else(|| unreadable("schedstat"))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The most memory that a process ever had in use, in bytes: `VmHWM`.
///
/// # Errors
/// When there is no such process, or this is not Linux.
pub(super) fn peak_memory(process: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    bytes_of("VmHWM:", &text).ok_or_else(|| unreadable("status"))
}

/// The memory that a process has in use now, in bytes: `VmRSS`.
///
/// # Errors
/// When there is no such process, or this is not Linux.
pub(super) fn memory(process: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    bytes_of("VmRSS:", &text).ok_or_else(|| unreadable("status"))
}

/// The processes that run this executable.
///
/// # Errors
/// When this is not Linux.
pub(super) fn running(executable: &Path) -> io::Result<Vec<u32>> {
    let executable = fs::canonicalize(executable)?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ends meanwhile, or is another user's, is none of ours.
        if fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == executable) {
            found.push(process);
        }
    }
    Ok(found)
}

fn unreadable(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/…/{file} is not as Linux writes it"))
}

fn time_on_cpu(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

fn bytes_of(field: &str, status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_writes_is_read() {
        assert_eq!(time_on_cpu("1234567 90619 1\n"), Some(1_234_567));
        assert_eq!(time_on_cpu(""), None);
        assert_eq!(bytes_of("VmHWM:", "VmPeak:\t    3060 kB\nVmHWM:\t    1600 kB\n"), Some(1_638_400));
        assert_eq!(bytes_of("VmHWM:", "VmPeak:\t    3060 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_is_found_by_its_executable() {
        let own = std::env::current_exe().expect("this process has one");
        assert!(running(&own).expect("this is Linux").contains(&std::process::id()));
        assert!(memory(std::process::id()).expect("this process lives") > 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn work_costs_this_process_time_and_memory() {
        let before = cpu_time(std::process::id()).expect("this process lives");
        let mut sum = 0_u64;
        // Until it is seen: how long that takes is the machine's business.
        while cpu_time(std::process::id()).expect("this process lives") == before {
            sum = (0..100_000).fold(sum, |sum: u64, number| sum.wrapping_mul(31).wrapping_add(number));
        }
        std::hint::black_box(sum);
        let peak = peak_memory(std::process::id()).expect("this process lives");
        let held = std::hint::black_box(vec![1_u8; 256 * 1024 * 1024]);
        assert!(peak_memory(std::process::id()).expect("this process lives") >= peak.max(held.len() as u64));
    }
}
