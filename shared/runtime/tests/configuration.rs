//! docs/configuration.md says what the code reads.

use carillon_aws::environment::{Unset, Variable};
use carillon_core::namespace::OPTIONS;
use carillon_runtime::start::{EXIT_FAILED, EXIT_MISCONFIGURED};
use std::fmt::Write;
use std::path::Path;

/// With this variable set the test writes the file instead of comparing it.
const UPDATE: &str = "UPDATE_DOCS";

#[test]
fn docs_configuration_is_what_the_code_reads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let expected = document();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &expected).expect("docs/configuration.md can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/configuration.md is out of date: {UPDATE}=1 cargo test -p carillon-runtime writes it");
}

fn document() -> String {
    let [ours, aws] = [&carillon_runtime::config::VARIABLES[..], &carillon_aws::config::VARIABLES[..]].map(variables);
    let options = options();
    format!(
        "<!-- Written by a test: UPDATE_DOCS=1 cargo test -p carillon-runtime -->\n\
         # Configuration\n\
         \n\
         template.yaml sets every variable that the functions need, and `carillon local` reads it from there; this page is for\n\
         whoever changes one or runs a function by other means. An empty value counts as unset. A function reports every mistake\n\
         in one line and ends with exit code {EXIT_MISCONFIGURED}; a `CARILLON_…` variable that no function and no command\n\
         reads is a mistake too. A function that cannot reach Lambda's Runtime API ends with {EXIT_FAILED}.\n\
         \n\
         ## Variables of the functions\n\
         \n\
         {ours}\
         \n\
         Logs are JSON, one object a line, on stdout. Other people's crates log warnings and errors alone, whatever the level, since\n\
         below that they log headers and payloads.\n\
         \n\
         ## Variables of the AWS SDKs\n\
         \n\
         They have the meaning that they have for every SDK, and Lambda sets the first four. Profiles, web identities and instance\n\
         metadata are not read: a function has its credentials in its environment.\n\
         \n\
         {aws}\
         \n\
         ## Options of a namespace\n\
         \n\
         `carillon namespace set` sets them, `get` and `list` show them. A running function may go on with what it knows for up to a\n\
         minute.\n\
         \n\
         {options}"
    )
}

fn variables(variables: &[Variable]) -> String {
    let mut table = "| variable | meaning | where it is unset |\n|---|---|---|\n".to_owned();
    for Variable { name, meaning, unset } in variables {
        let unset = match unset {
            Unset::Refused => "the function does not start".to_owned(),
            Unset::Default(value) => format!("`{value}`"),
            Unset::Nothing => "left out".to_owned(),
        };
        writeln!(table, "| `{name}` | {meaning} | {unset} |").expect("a String takes every write");
    }
    table
}

fn options() -> String {
    let mut table = "| option | meaning | unit | range | default |\n|---|---|---|---|---|\n".to_owned();
    for option in OPTIONS {
        let (least, most) = option.range;
        let (name, meaning, unit, default) = (option.name, option.meaning, option.unit, option.default);
        writeln!(table, "| `{name}` | {meaning} | {unit} | {least} to {most} | {default} |").expect("a String takes every write");
    }
    table
}
