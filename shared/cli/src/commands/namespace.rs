//! `carillon namespace`: the options of namespaces, in the registry table.

use crate::arguments::{NamespaceCommand, SWITCH, Table, is_switch};
use crate::endpoints::{self, ReadyFile};
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use crate::output::Output;
use carillon_aws::clock::SystemClock;
use carillon_aws::config::{AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL_DYNAMODB, AWS_REGION, AWS_SECRET_ACCESS_KEY, AwsConfig};
use carillon_aws::environment::Environment;
use carillon_aws::store::DynamoStore;
use carillon_core::channel::Namespace;
use carillon_core::namespace::{NamespaceOptions, OPTIONS};
use carillon_engine::ports::{Clock, Namespaces, PortError};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table as Printed};
use serde_json::{Map, Value};
use std::path::Path;

/// The logical id of the registry table in the template.
const REGISTRY_TABLE: &str = "RegistryTable";

/// Runs the command.
pub(super) async fn run(command: NamespaceCommand, ready_file: &Path, output: Output) -> Outcome<Exit> {
    match command {
        NamespaceCommand::Get { namespace, table } => {
            let store = open(table, ready_file)?;
            let options = store.namespace(&namespace).await.map_err(failure)?;
            print(&[(namespace, options.unwrap_or_default())], output)?;
        }
        NamespaceCommand::Set { namespace, options: changes, table } => {
            let mut options = NamespaceOptions::default();
            // Before anything is called: a wrong option needs no table to be found out.
            apply(&mut options, &changes)?;
            let store = open(table, ready_file)?;
            let before = store.namespace(&namespace).await.map_err(failure)?.unwrap_or_default();
            options = before;
            apply(&mut options, &changes)?;
            let options = options.switched_on(before, SystemClock.now());
            store.set_namespace(&namespace, &options).await.map_err(failure)?;
            print(&[(namespace, options)], output)?;
            output.people("Functions that are warm take the new options within a minute.")?;
        }
        NamespaceCommand::List { table } => {
            let all = open(table, ready_file)?.namespaces().await.map_err(failure)?;
            if all.is_empty() {
                output.people("No namespace has options of its own; every channel has the defaults.")?;
            } else {
                print(&all, output)?;
            }
        }
    }
    Ok(Exit::Done)
}

fn apply(options: &mut NamespaceOptions, changes: &[(String, u64)]) -> Outcome {
    for (name, value) in changes {
        options.set(name, *value).map_err(|fault| Failure::new(Exit::Usage, fault))?;
    }
    Ok(())
}

/// One line per namespace.
fn print(namespaces: &[(Namespace, NamespaceOptions)], output: Output) -> Outcome {
    if !output.is_json() {
        return output.people(table(namespaces).trim_fmt());
    }
    for (namespace, options) in namespaces {
        let mut object = Map::new();
        object.insert("namespace".to_owned(), namespace.as_str().into());
        object.extend(options.values().map(|(name, value)| (name.to_owned(), Value::from(value))));
        output.result(String::new, &object)?;
    }
    Ok(())
}

fn table(namespaces: &[(Namespace, NamespaceOptions)]) -> Printed {
    let mut table = Printed::new();
    let names = NamespaceOptions::default().values().map(|(name, _)| name);
    table.load_preset(NOTHING).set_header(std::iter::once("namespace").chain(names));
    for (namespace, options) in namespaces {
        let values = options.values().into_iter().zip(&OPTIONS).map(|((_, value), option)| {
            if is_switch(option) { SWITCH[usize::from(value == 1)].to_owned() } else { value.to_string() }
        });
        table.add_row(std::iter::once(namespace.to_string()).chain(values));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The store: a named table by the AWS variables, else that of the running local stack.
fn open(table: Table, ready_file: &Path) -> Outcome<DynamoStore> {
    let (environment, table) = match table.registry_table.filter(|name| !name.is_empty()) {
        Some(table) => (Environment::of_process(), table),
        None => local(ready_file)?,
    };
    let config = AwsConfig::from_environment(&environment).map_err(|mistakes| {
        let error = Context::new("the AWS variables are not enough to reach the table", mistakes);
        Failure::new(Exit::NotReachable, error)
            .hint("`eval \"$(aws configure export-credentials --format env)\"` sets the credentials of a profile")
    })?;
    // Namespaces are in the registry: the log's name is never used.
    Ok(DynamoStore::new(&config, "", table))
}

/// The local stack's table, and what reaches it: never the credentials of the person at the keyboard.
fn local(ready_file: &Path) -> Outcome<(Environment, String)> {
    let unknown = |why: Box<dyn std::error::Error + Send + Sync>| {
        Failure::new(Exit::NotReachable, Context::new("nobody says which registry table to use", why)).hint(
            "give --registry-table, or set CARILLON_REGISTRY_TABLE (the output RegistryTableName of a deployed stack),\n\
             or start a stack here with `carillon local`, or name its ready file with --ready-file",
        )
    };
    let file = ready_file.display();
    let ready = endpoints::read(ready_file).map_err(|error| unknown(Context::new(format!("cannot use {file}"), error).into()))?;
    let ReadyFile { aws: Some(endpoint), region: Some(region), mut resources, .. } = ready else {
        return Err(unknown(format!("{file} names no AWS endpoint and region").into()));
    };
    let Some(table) = resources.remove(REGISTRY_TABLE) else {
        return Err(unknown(format!("the stack of {file} has no resource {REGISTRY_TABLE}").into()));
    };
    let variables = [
        (AWS_REGION, region.as_str()),
        (AWS_ACCESS_KEY_ID, "local"),
        (AWS_SECRET_ACCESS_KEY, "local"),
        (AWS_ENDPOINT_URL_DYNAMODB, endpoint.as_str()),
    ];
    Ok((variables.into_iter().collect(), table))
}

fn failure(error: PortError) -> Failure {
    let text = format!("{:?}", error.source);
    let refused = ["AccessDenied", "UnrecognizedClient", "ExpiredToken", "InvalidSignature", "MissingAuthentication"];
    if refused.iter().any(|name| text.contains(name)) {
        let failure = Failure::new(Exit::Refused, error);
        return failure.hint("the credentials need dynamodb:GetItem, PutItem, UpdateItem and Query on the registry table");
    }
    if text.contains("DispatchFailure") || text.contains("TimeoutError") {
        return Failure::new(Exit::NotReachable, error).hint("is the stack running, and is AWS_REGION the region of the table?");
    }
    Failure::new(Exit::Failed, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local_of(text: &str) -> Outcome<(Environment, String)> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ready.json");
        std::fs::write(&file, text).expect("written");
        local(&file)
    }

    #[test]
    fn the_local_table_is_reached_with_dummy_credentials_only() {
        let ready = r#"{"aws":"http://127.0.0.1:3000","region":"us-east-1","resources":{"RegistryTable":"registry-1"}}"#;
        let (environment, table) = local_of(ready).expect("a local stack");
        assert_eq!(table, "registry-1");
        assert_eq!(environment.get(AWS_ENDPOINT_URL_DYNAMODB), Some("http://127.0.0.1:3000"));
        assert_eq!(environment.get(AWS_ACCESS_KEY_ID), Some("local"));
        assert_eq!(environment.names().count(), 4);
    }

    #[test]
    fn where_no_table_is_known_the_hint_names_all_three_ways() {
        for text in ["{}", r#"{"aws":"http://127.0.0.1:3000","region":"us-east-1"}"#, "no JSON"] {
            let failure = local_of(text).expect_err("no table");
            assert_eq!(failure.exit(), Exit::NotReachable);
            let text = failure.to_string();
            for way in ["--registry-table", "CARILLON_REGISTRY_TABLE", "carillon local", "--ready-file"] {
                assert!(text.contains(way), "{way} is not in {text}");
            }
        }
    }

    #[test]
    fn wrong_options_are_refused_by_name() {
        let mut options = NamespaceOptions::default();
        let failure = apply(&mut options, &[("history_size".to_owned(), 200_000)]).expect_err("over");
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(failure.to_string().contains("history_size: 200000 is not within 0 to 100000"), "{failure}");
    }

    #[test]
    fn people_get_a_table_with_a_column_per_option() {
        let namespace = Namespace::parse("orders").expect("a namespace");
        let printed = table(&[(namespace, NamespaceOptions::default())]).to_string();
        let lines: Vec<_> = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(
            lines,
            [
                ["namespace", "history_size", "history_age_s", "max_event_bytes", "mqtt", "retain"],
                ["orders", "100", "86400", "30720", "yes", "no"]
            ]
        );
    }
}
