//! `carillon bench`: that it measures what it says, and nothing else. What it finds is not asserted.

use serde_json::Value;
use std::process::{Command, Output};

#[cfg(target_os = "linux")]
#[test]
fn fanout_measures_every_program_on_its_whole_number_of_posts() {
    let output = bench(&["fanout", "--development", "--connections", "20,260", "--rounds", "2", "--no-node", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    assert_eq!(report["benchmark"], "fanout");
    assert!(report["circumstances"]["warning"].as_str().is_some_and(|text| text.contains("development")), "{report}");
    let figures = report["values"].as_array().expect("a list");
    let programs: Vec<_> = figures.iter().map(|of| (of["program"].as_str(), of["connections"].as_u64())).collect();
    let of = |connections| {
        ["Carillon's deliver", "hyper alone, signed once", "AWS SDK for Rust"].map(|name| (Some(name), Some(connections)))
    };
    assert_eq!(programs, [of(20), of(260)].concat());
    for of in figures {
        for figure in ["first_cpu_us_per_post", "cpu_us_per_post", "posts_per_second", "peak_memory_bytes"] {
            assert!(of[figure].as_f64().is_some_and(|number| number > 0.0), "{figure} in {of}");
        }
    }
}

#[cfg(all(debug_assertions, target_os = "linux"))]
#[test]
fn a_development_build_measures_nothing_unless_it_is_told_to() {
    let output = bench(&["start"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("this is a development build") && said.contains("--release"), "{said}");
}

#[test]
fn figures_of_development_builds_are_not_written_down() {
    let output = bench(&["start", "--development", "--write"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs the command in this checkout.
fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
    command.arg("bench").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.output().expect("the command starts")
}
