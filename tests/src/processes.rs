//! Which processes of this machine run an executable of a folder, and how much memory they take.

use std::path::Path;
use std::process::Command;

/// The command lines of the processes whose program lies in this folder.
///
/// # Panics
/// When the system does not list its processes.
#[must_use]
pub fn of_folder(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().expect("the folder's path is UTF-8");
    command_lines().into_iter().filter(|line| line.starts_with(folder)).collect()
}

/// The memory that the processes of one executable hold, `VmRSS` of proc(5), in KiB; none where there is no `/proc`.
///
/// # Panics
/// When the path is not UTF-8.
#[must_use]
pub fn resident_kib(executable: &Path) -> Option<u64> {
    let executable = executable.to_str().expect("the executable's path is UTF-8");
    let paths = std::fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let runs = |path: &std::path::PathBuf| {
        std::fs::read(path.join("cmdline")).is_ok_and(|line| line.split(|byte| *byte == 0).next() == Some(executable.as_bytes()))
    };
    let resident = |path: std::path::PathBuf| {
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some(paths.filter(runs).filter_map(resident).sum())
}

/// The command line of every process; processes that have ended and were not waited for have none.
fn command_lines() -> Vec<String> {
    let listed = std::fs::read_dir("/proc").map(|entries| {
        let paths = entries.flatten().map(|entry| entry.path().join("cmdline"));
        let lines = paths.filter_map(|path| std::fs::read(path).ok());
        lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
    });
    listed.unwrap_or_else(|_| from_ps())
}

/// Where there is no `/proc`, as on macOS.
fn from_ps() -> Vec<String> {
    let output = Command::new("ps").args(["-axo", "args="]).output().expect("ps lists the processes");
    String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::wait::eventually;

    #[tokio::test]
    async fn a_process_is_found_with_its_memory_until_it_is_gone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(of_folder(folder.path()), Vec::<String>::new());
        let program = folder.path().join("sleep");
        symlink("/bin/sleep", &program).expect("linked");
        let mut child = Command::new(&program).arg("60").spawn().expect("started");
        // Its command line can be read a moment after it was started.
        eventually("the process", || {
            let found = of_folder(folder.path());
            std::future::ready(if found.len() == 1 { Ok(()) } else { Err(format!("{found:?}")) })
        })
        .await;
        assert!(resident_kib(&program).is_none_or(|kib| kib > 0));
        child.kill().expect("killed");
        child.wait().expect("it ended");
        assert_eq!(of_folder(folder.path()), Vec::<String>::new());
        assert!(resident_kib(&program).is_none_or(|kib| kib == 0));
    }
}
