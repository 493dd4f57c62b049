//! Where and when something was measured: read from the machine, never written by hand.

use super::options::{Options, Subject};
use super::report::Circumstances;
use std::fs;
use std::path::Path;
use std::process::Command;
use time::OffsetDateTime;
use time::macros::format_description;

/// What stands beside figures of development builds.
const DEVELOPMENT: &str = "These are development builds: the figures say nothing about Carillon.";

/// What `--write` changes itself, and a commit need not have.
const WRITTEN: [&str; 2] = ["docs/performance.md", "docs/latency.svg"];

/// The circumstances of this run, for one of its subjects.
pub(super) fn of(project: &Path, options: &Options, subject: Subject) -> Circumstances {
    let today = OffsetDateTime::now_utc().format(format_description!("[year]-[month]-[day]"));
    Circumstances {
        command: command(options, subject),
        date: today.unwrap_or_else(|_| "an unknown day".to_owned()),
        commit: commit(project),
        machine: machine(),
        warning: options.development.then_some(DEVELOPMENT),
    }
}

/// The command line that measures this one subject again.
fn command(options: &Options, subject: Subject) -> String {
    let mut command = format!("cargo run --release -p carillon -- bench {}", subject.name());
    if subject == Subject::Fanout {
        let connections = options.connections.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        command += &format!(" --connections {connections} --rounds {}", options.rounds);
        if options.no_node {
            command += " --no-node";
        }
    }
    command
}

fn commit(project: &Path) -> String {
    let git = |arguments: &[&str]| output(Command::new("git").arg("-C").arg(project).args(arguments));
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).unwrap_or_default();
    if is_changed(&changed) { format!("{commit} with changes") } else { commit }
}

/// Whether `git status --porcelain` names a file that is not written by the benchmark itself.
fn is_changed(status: &str) -> bool {
    status.lines().any(|line| line.get(3..).is_some_and(|path| !WRITTEN.contains(&path.trim_matches('"'))))
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |cores| cores.to_string());
    let processor = fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| processor(&text))
        .unwrap_or_else(|| "an unknown processor".to_owned());
    let system = output(Command::new("uname").arg("-srm")).unwrap_or_else(|| std::env::consts::OS.to_owned());
    format!("{processor}, {cores} cores, {system}")
}

fn processor(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_benchmark_writes_is_no_change() {
        assert!(!is_changed(""));
        assert!(!is_changed(" M docs/performance.md\nM  docs/latency.svg"));
        assert!(is_changed(" M docs/performance.md\n M shared/cli/src/main.rs"));
    }

    #[test]
    fn the_command_measures_the_same_again() {
        let options = Options {
            subject: Subject::All,
            connections: vec![1_000, 10_000],
            rounds: 5,
            no_node: false,
            write: true,
            development: false,
        };
        let fanout = command(&options, Subject::Fanout);
        assert!(fanout.ends_with("bench fanout --connections 1000,10000 --rounds 5"), "{fanout}");
        assert!(command(&options, Subject::Start).ends_with("bench start"));
    }

    #[test]
    fn the_processor_is_the_first_that_is_named() {
        let text = "processor\t: 0\nmodel name\t: A Processor @ 3 GHz\nprocessor\t: 1\nmodel name\t: Another\n";
        assert_eq!(processor(text).as_deref(), Some("A Processor @ 3 GHz"));
        assert_eq!(processor("Hardware\t: a board\n"), None);
    }
}
