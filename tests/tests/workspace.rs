//! What the workspace as a whole promises: which crate may know which, what is written beside each, and what no file names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use carillon_tests::repository;
use serde_json::Value;

/// Which of our crates each of our crates may stand on.
const MAY_STAND_ON: [(&str, &[&str]); 13] = [
    ("carillon-core", &[]),
    ("carillon-wire", &["carillon-core"]),
    ("carillon-engine", &["carillon-core", "carillon-wire"]),
    ("carillon-aws", &["carillon-core", "carillon-wire", "carillon-engine"]),
    ("carillon-runtime", &["carillon-core", "carillon-wire", "carillon-engine", "carillon-aws"]),
    ("websocket", FUNCTION),
    ("publish", FUNCTION),
    ("deliver", FUNCTION),
    ("stream", FUNCTION),
    ("authorize", FUNCTION),
    ("carillon-client", &["carillon-core", "carillon-wire"]),
    // It runs any template's functions.
    ("carillon-local", &[]),
    ("carillon", &["carillon-core", "carillon-wire", "carillon-engine", "carillon-aws", "carillon-client", "carillon-local"]),
];

const FUNCTION: &[&str] = &["carillon-core", "carillon-wire", "carillon-engine", "carillon-aws", "carillon-runtime"];

/// This crate, which may stand on every other.
const TESTS: &str = "carillon-tests";

/// The crates that talk to AWS: the adapters, and the command, whose demo puts an event as an application does.
const MAY_USE_THE_SDK: [&str; 3] = ["carillon-aws", "carillon", TESTS];

/// What runs in an AWS account, where nothing is local.
const DEPLOYED: [&str; 6] = ["functions", "shared/core", "shared/wire", "shared/engine", "shared/aws", "shared/runtime"];

/// A crate of the workspace.
struct Package {
    name: String,
    folder: PathBuf,
    /// What it is built from, dev-dependencies left out.
    dependencies: BTreeSet<String>,
}

/// The workspace's crates, as cargo sees them.
fn packages() -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let output = Command::new(cargo).args(arguments).current_dir(repository::root()).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    let package = |package: &Value| {
        let text = |name: &str| package[name].as_str().expect("a text").to_owned();
        let dependencies = package["dependencies"].as_array().expect("a list").iter();
        let dependencies = dependencies.filter(|dependency| dependency["kind"] != "dev");
        Package {
            name: text("name"),
            folder: Path::new(&text("manifest_path")).parent().expect("it lies in a folder").to_owned(),
            dependencies: dependencies.map(|dependency| dependency["name"].as_str().expect("a name").to_owned()).collect(),
        }
    };
    packages.iter().map(package).collect()
}

/// Every file of the repository under a folder that git knows or would take.
fn files(folder: &str) -> Vec<PathBuf> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", folder];
    let output = Command::new("git").args(arguments).current_dir(repository::root()).output();
    let listed = output.ok().filter(|output| output.status.success()).map(|output| {
        let names = String::from_utf8(output.stdout).expect("the names are UTF-8");
        names.split_terminator('\0').map(repository::path).filter(|path| path.is_file()).collect::<Vec<_>>()
    });
    // An unpacked archive has no git; then the folder has nothing but the repository's files.
    let files = listed.unwrap_or_else(|| walk(&repository::path(folder)));
    assert!(!files.is_empty(), "no file under {folder}");
    files
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn extension_is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

#[test]
fn dependencies_point_one_way() {
    let packages = packages();
    let ours: BTreeSet<_> = packages.iter().map(|package| package.name.as_str()).collect();
    let may = BTreeMap::from(MAY_STAND_ON);
    let expected: BTreeSet<_> = may.keys().copied().chain([TESTS]).collect();
    assert_eq!(ours, expected, "the table at the head of this test knows every crate");
    for package in packages.iter().filter(|package| package.name != TESTS) {
        let allowed = may[package.name.as_str()];
        let used = package.dependencies.iter().map(String::as_str).filter(|name| ours.contains(name));
        let wrong: Vec<_> = used.filter(|name| !allowed.contains(name)).collect();
        assert!(wrong.is_empty(), "{} stands on {wrong:?}, and may stand on {allowed:?} only", package.name);
    }
}

#[test]
fn only_the_adapters_name_the_sdk() {
    for package in packages() {
        let sdk: Vec<_> = package.dependencies.iter().filter(|name| name.starts_with("aws-sdk-")).collect();
        assert!(sdk.is_empty() || MAY_USE_THE_SDK.contains(&package.name.as_str()), "{} uses {sdk:?}", package.name);
    }
}

#[test]
fn what_is_deployed_knows_nothing_local() {
    for folder in DEPLOYED {
        for path in files(folder).into_iter().filter(|path| extension_is(path, "rs") && !is_test(path)) {
            let text = std::fs::read_to_string(&path).expect("source is UTF-8");
            let deployed = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for name in ["127.0.0.1", "localhost", "carillon_local"] {
                assert!(!deployed.contains(name), "{} names {name}", path.display());
            }
        }
    }
}

/// Whether a file holds nothing but tests.
fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().any(|component| component.as_os_str() == "tests")
}

#[test]
fn every_crate_says_what_it_is_and_what_it_must_not_know() {
    for package in packages() {
        let path = package.folder.join("README.md");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines >= 2, "{} has a heading and no more", path.display());
        assert!(text.contains("must not know"), "{} does not say what the crate must not know", path.display());
    }
}

#[test]
fn every_function_is_a_default_member_and_nothing_else_is() {
    let functions: BTreeSet<_> = packages()
        .into_iter()
        .filter(|package| package.folder.parent() == Some(&repository::path("functions")))
        .map(|package| format!("\"functions/{}\"", package.name))
        .collect();
    let manifest = repository::read("Cargo.toml");
    let (_, after) = manifest.split_once("default-members = [").expect("the manifest has default members");
    let members: BTreeSet<_> = after.split(']').next().expect("a list").split(',').map(|name| name.trim().to_owned()).collect();
    assert_eq!(members, functions);
}

/// Each dependency with its features, as this build of the workspace has them.
fn features(arguments: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let fixed = ["tree", "--offline", "--prefix", "none", "--format", "{p} {f}"];
    let output = Command::new(cargo).args(fixed).args(arguments).current_dir(repository::root()).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo prints UTF-8");
    let lines = text.lines().map(|line| line.trim_end_matches(" (*)").trim_end()).filter(|line| !line.is_empty());
    // Our own crates are quick to build.
    lines.filter(|line| !line.contains(" (/")).map(str::to_owned).collect()
}

/// `cargo run -p carillon`, the build inside `carillon local` and in these tests, and `cargo test --workspace`: where a
/// dependency had other features in one of them, everything above it would be built again, the AWS SDK first of all.
#[test]
fn one_build_of_the_dependencies_serves_all_commands() {
    let test = features(&["--workspace", "--edges", "normal,build,dev"]);
    let build = features(&["--workspace", "--edges", "no-dev"]);
    let run = features(&["--package", "carillon", "--edges", "no-dev"]);
    for (command, features) in [("cargo build --workspace", build), ("cargo run -p carillon", run)] {
        let other: Vec<_> = features.difference(&test).collect();
        assert!(other.is_empty(), "{command} builds these otherwise than cargo test --workspace does: {other:#?}");
    }
}

#[test]
fn every_sample_event_is_json_and_documented() {
    let readme = repository::read("events/README.md");
    let events: Vec<_> = files("events").into_iter().filter(|path| !path.ends_with("README.md")).collect();
    for path in &events {
        let text = std::fs::read_to_string(path).expect("an event is UTF-8");
        let event: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(event.is_object() || event.is_array(), "{} is no event", path.display());
        let function = path.parent().and_then(Path::file_name).expect("it lies in a folder").to_string_lossy();
        let section = readme.split("\n## ").find(|section| section.starts_with(&format!("`{function}`")));
        let section = section.unwrap_or_else(|| panic!("events/README.md has no section `{function}`"));
        let name = path.file_name().expect("it has a name").to_string_lossy();
        assert!(section.contains(&format!("`{name}`")), "events/README.md does not list {function}/{name}");
    }
    let listed = readme.matches(".json` |").count();
    assert_eq!(listed, events.len(), "events/README.md lists files that are not there");
}

#[test]
fn every_function_has_sample_events() {
    for package in packages().iter().filter(|package| package.folder.starts_with(repository::path("functions"))) {
        assert!(!files(&format!("events/{}", package.name)).is_empty());
    }
}

#[test]
fn lock_files_name_no_host() {
    let locks: Vec<_> =
        ["shared", "tests"].into_iter().flat_map(files).filter(|path| path.ends_with("package-lock.json")).collect();
    assert!(!locks.is_empty(), "no package-lock.json");
    for path in locks {
        let text = std::fs::read_to_string(&path).expect("a lock file is UTF-8");
        let mut lock: Value = serde_json::from_str(&text).expect("a lock file is JSON");
        let packages = lock["packages"].as_object_mut().expect("a map");
        assert!(packages.values().any(|package| package["integrity"].is_string()), "{} has no hashes", path.display());
        for (name, package) in packages {
            assert!(package["resolved"].is_null(), "{name}: npm install --omit-lockfile-registry-resolved");
            // Where an author asks for donations says nothing about where a package comes from.
            package.as_object_mut().expect("a map").remove("funding");
        }
        assert!(!lock.to_string().contains("://"), "{} names a host", path.display());
    }

    let requirements = repository::read("tests/clients/python/requirements.txt");
    assert!(!requirements.contains("://") && !requirements.contains("--index-url"), "requirements.txt names a host");
    let packages = requirements.lines().filter(|line| !line.starts_with([' ', '#']) && !line.trim().is_empty());
    let mut count = 0;
    for package in packages {
        assert!(package.contains("==") && package.ends_with('\\'), "{package} is not pinned with a hash");
        count += 1;
    }
    assert!(count >= 2, "requirements.txt pins nothing");

    // Cargo's own name for its registry, which stands in every lock file, and no mirror's.
    let lock = repository::read("Cargo.lock");
    let sources: Vec<_> = lock.lines().filter(|line| line.starts_with("source = ")).collect();
    assert!(!sources.is_empty());
    let foreign = sources.into_iter().find(|source| !source.starts_with("source = \"registry+https://github.com/rust-lang/"));
    assert_eq!(foreign, None, "Cargo.lock names a host");
}
