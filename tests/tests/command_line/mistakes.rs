//! What keeps `carillon local` from starting: each mistake is named with the place where it can be mended, and nothing is left.

use std::net::TcpListener;

use carillon_tests::program::Ended;
use serde_yaml_ng::Value as Yaml;

use crate::carillon::{Folder, assert_told, exit};

/// Runs a stack of a template that does not start, and proves that it leaves nothing.
async fn refused(folder: &Folder, arguments: &[&str]) -> Ended {
    let ended = folder.run(&[&["local"], arguments].concat()).await;
    assert_eq!(folder.functions(), Vec::<String>::new());
    assert!(!folder.ready_file().exists(), "{ended:?}");
    ended
}

#[tokio::test]
async fn a_busy_port_is_named_with_the_flags_that_change_it() {
    let folder = Folder::new();
    let template = folder.template(|_| ()).await;
    let flags = ["--aws-port", "--websocket-port", "--mqtt-port", "--iot-port", "--url-port"];
    for busy in flags {
        let other = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = other.local_addr().expect("it is bound").port().to_string();
        let ports = flags.map(|flag| [flag, if flag == busy { &port } else { "0" }]).concat();
        let ended = refused(&folder, &[&ports[..], &["--template", &template]].concat()).await;
        assert_told(&ended, exit::FAILED, &[&format!("port {port} is busy"), busy, "--free-ports"]);
        let unnamed = flags.iter().filter(|flag| **flag != busy).find(|flag| ended.errors.contains(**flag));
        assert_eq!(unnamed, None, "a flag that would not help is named: {}", ended.errors);
    }
}

#[tokio::test]
async fn two_stacks_do_not_share_a_data_folder() {
    let folder = Folder::new();
    let template = folder.template(|_| ()).await;
    let (program, ready) = folder.local(&["--template", &template, "--data", "tables"]).await;
    let arguments = ["local", "--free-ports", "--template", &template, "--data", "tables", "--ready-file", "other.json"];
    let ended = folder.run(&arguments).await;
    assert_told(&ended, exit::FAILED, &["tables", "in use by another stack", "--data"]);
    program.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(program.ended().await.status.code(), Some(exit::DONE));
    folder.assert_nothing_is_left(&ready);
}

#[tokio::test]
async fn a_template_that_is_not_there_is_named_with_its_flag() {
    let folder = Folder::new();
    let ended = refused(&folder, &["--free-ports"]).await;
    assert_told(&ended, exit::USAGE, &["cannot read the template template.yaml", "No such file", "--template"]);
    let ended = refused(&folder, &["--free-ports", "--template", "deep/other.yaml"]).await;
    assert_told(&ended, exit::USAGE, &["deep/other.yaml"]);
}

#[tokio::test]
async fn a_template_that_is_no_yaml_is_named_with_the_line() {
    let folder = Folder::new();
    let template = folder.write("broken.yaml", "Resources:\n  Queue: { Type: AWS::SQS::Queue\n  Other: [\n");
    let ended = refused(&folder, &["--free-ports", "--template", &template]).await;
    assert_told(&ended, exit::USAGE, &["broken.yaml", "cannot be parsed", "line 3"]);
}

#[tokio::test]
async fn a_mistake_in_the_template_is_named_with_its_resource_and_property() {
    type Change = fn(&mut Yaml);
    let changes: [(&str, Change, &[&str]); 5] = [
        (
            "PublishQueue",
            |queue| queue["Properties"]["VisibilityTimeout"] = "soon".into(),
            &["Resources.PublishQueue.Properties.VisibilityTimeout"],
        ),
        (
            "LogTable",
            |table| table["Properties"]["KeySchema"][0]["KeyType"] = "HASHED".into(),
            &["table LogTable", "keySchema", "HASHED"],
        ),
        (
            "DeliverFunction",
            |function| function["Properties"]["Timeout"] = 901.into(),
            &["Resources.DeliverFunction.Properties.Timeout", "900"],
        ),
        (
            "DeliverFunction",
            |function| function["Properties"]["CodeUri"] = "bin/nothing".into(),
            &["Resources.DeliverFunction.Properties.CodeUri", "bin/nothing"],
        ),
        (
            "PublishFunction",
            |function| {
                let reference = serde_yaml_ng::from_str("!GetAtt Nowhere.Arn").expect("YAML");
                function["Properties"]["Events"]["PublishMessages"]["Properties"]["Queue"] = reference;
            },
            &["Resources.PublishFunction", "Nowhere"],
        ),
    ];
    for (resource, change, texts) in changes {
        let folder = Folder::new();
        let template = folder.template(|resources| change(&mut resources[resource])).await;
        let ended = refused(&folder, &["--free-ports", "--template", &template]).await;
        assert_told(&ended, exit::USAGE, texts);
    }
}

#[tokio::test]
async fn a_wrong_parameter_is_named_and_its_value_is_not_shown() {
    let folder = Folder::new();
    let template = folder.write(
        "parameters.yaml",
        "Parameters:\n  Database: { Type: String }\n  Size: { Type: String, Default: small, AllowedValues: [small, large] }\n\
         Resources:\n  Queue: { Type: AWS::SQS::Queue }\n",
    );
    let wrong: [(&[&str], &[&str]); 3] = [
        (&[], &["parameter Database has no value", "--parameter Database=VALUE"]),
        (
            &["--parameter", "Database=a", "--parameter", "Colour=b"],
            &["parameter Colour is not in the template", "Database, Size"],
        ),
        (&["--parameter", "Database=a", "--parameter", "Size=sesame"], &["parameter Size", "small"]),
    ];
    for (parameters, texts) in wrong {
        let ended = refused(&folder, &[&["--free-ports", "--template", &template], parameters].concat()).await;
        assert_told(&ended, exit::USAGE, texts);
        assert!(!ended.errors.contains("sesame"), "{}", ended.errors);
    }
    // The template's own secret must be one that it takes.
    let template = folder.template(|_| ()).await;
    let ended = refused(&folder, &["--free-ports", "--template", &template, "--parameter", "Secret=sesame"]).await;
    assert_told(&ended, exit::USAGE, &["parameter Secret", "32"]);
    assert!(!ended.errors.contains("sesame"), "{}", ended.errors);
}

#[tokio::test]
async fn a_function_that_does_not_build_is_named_under_the_compilers_own_message() {
    let folder = Folder::new();
    folder.write("Cargo.toml", "[package]\nname = \"hello\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n");
    std::fs::create_dir(folder.path("src")).expect("the folder is ours");
    folder.write("src/main.rs", "fn main() { nonsense() }\n");
    let template = folder.write(
        "template.yaml",
        "Resources:
  Hello:
    Type: AWS::Serverless::Function
    Metadata: { BuildMethod: rust-cargolambda, BuildProperties: { Binary: hello } }
    Properties: { Runtime: provided.al2023, Handler: bootstrap, CodeUri: . }
",
    );
    let ended = refused(&folder, &["--free-ports", "--template", &template]).await;
    assert_told(&ended, exit::FAILED, &["src/main.rs", "nonsense", "`cargo build", "--bin hello"]);
    let template = folder.write("other.yaml", &std::fs::read_to_string(template).expect("ours").replace("hello", "goodbye"));
    folder.write("src/main.rs", "fn main() {}\n");
    let ended = refused(&folder, &["--free-ports", "--template", &template]).await;
    assert_told(&ended, exit::FAILED, &["goodbye"]);
}
