//! The real function that the emulated services invoke in tests: `examples/probe.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The probe, which `cargo test` builds with the tests; a run of this test alone builds it here.
pub(crate) fn probe() -> PathBuf {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE
        .get_or_init(|| {
            let test = std::env::current_exe().expect("a test has a path");
            let profile = test.parent().and_then(Path::parent).expect("a test lies in <profile>/deps");
            let probe = profile.join("examples/probe");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/probe.rs");
            if modified(&probe) <= modified(&source) {
                let built = Command::new(env!("CARGO"))
                    .args(["build", "-p", "carillon-local", "--example", "probe"])
                    .current_dir(env!("CARGO_MANIFEST_DIR"))
                    .status()
                    .expect("cargo starts");
                assert!(built.success(), "the probe was not built");
            }
            probe
        })
        .clone()
}

/// Nothing for a file that is not there, which is older than any.
fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
