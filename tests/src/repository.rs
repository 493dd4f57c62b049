//! Where things are in the repository.

use std::fs::File;
use std::path::{Path, PathBuf};

/// The root of the workspace.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in a folder of the workspace")
}

/// A file or folder of the repository.
#[must_use]
pub fn path(relative: &str) -> PathBuf {
    root().join(relative)
}

/// The text of a file of the repository.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn read(relative: &str) -> String {
    let path = path(relative);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where the tests keep what outlives them: cargo's target folder, which is not committed.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn kept() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| path("target"), |target| root().join(target));
    let kept = target.join("tests");
    std::fs::create_dir_all(&kept).unwrap_or_else(|error| panic!("{}: {error}", kept.display()));
    kept
}

/// Holds a lock of this name until the file is dropped, against every process that uses the same target folder.
///
/// # Panics
/// When the lock cannot be taken.
#[must_use]
pub fn lock(name: &str) -> File {
    let path = kept().join(format!("{name}.lock"));
    let file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.lock().unwrap_or_else(|error| panic!("{} cannot be locked: {error}", path.display()));
    file
}
