//! `carillon local` with the template of somebody else, who knows nothing of Carillon: one function that is built already, a
//! streaming URL, a queue, and resources that the local stack does not have.

use std::path::Path;

use bytes::Bytes;
use carillon_tests::http::{Answer, send};
use carillon_tests::program::Program;
use carillon_tests::wait::{eventually, within};
use carillon_tests::{binaries, processes, repository};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// What stands in the user's own environment and must not reach a function.
const OWN_ACCESS_KEY: &str = "AKIAOFTHEUSERHERSELF";

/// The stack, as the command runs it.
struct Stack {
    program: Program,
    folder: TempDir,
    ready: Value,
}

impl Stack {
    async fn start() -> Self {
        let folder = project().await;
        let template = folder.path().join("thumbnails.yaml");
        let mut program = Program::start(
            "carillon local",
            command(&folder).await.args(["--template"]).arg(template).args(["--parameter", "Bucket=pictures-of-me"]),
        );
        let ready = program.json().await;
        Self { program, folder, ready }
    }

    /// The function's URL.
    fn url(&self) -> &str {
        self.ready["functions"]["Thumbnails"]["url"].as_str().unwrap_or_else(|| panic!("no URL: {}", self.ready))
    }

    /// The AWS endpoint.
    fn aws(&self) -> &str {
        self.ready["aws"].as_str().unwrap_or_else(|| panic!("no endpoint: {}", self.ready))
    }

    /// Invokes the function through Lambda's Invoke.
    async fn invoke(&self, payload: Value) -> Answer {
        let name = self.ready["resources"]["Thumbnails"].as_str().expect("the function has a name");
        let url = format!("{}/2015-03-31/functions/{name}/invocations", self.aws());
        send(Method::POST, &url, &[], payload.to_string()).await
    }

    /// Ends the stack, which leaves nothing, and gives what it said on standard error.
    async fn end(self) -> String {
        self.program.signal(Signal::SIGTERM);
        let ended = self.program.ended().await;
        assert_eq!(ended.status.code(), Some(0), "{}", ended.errors);
        assert_eq!(processes::of_folder(self.folder.path()), Vec::<String>::new());
        ended.errors
    }
}

/// A folder with the template, and the function where the template says that it is.
async fn project() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let template = repository::path("tests/tests/templates/thumbnails.yaml");
    std::fs::copy(template, folder.path().join("thumbnails.yaml")).expect("the folder is ours");
    std::fs::create_dir(folder.path().join("build")).expect("the folder is ours");
    std::fs::copy(binaries::probe().await, folder.path().join("build/bootstrap")).expect("the folder is ours");
    folder
}

/// `carillon local`, with the user's own credentials in its environment.
async fn command(folder: &TempDir) -> Command {
    let mut command = Command::new(binaries::path("carillon").await);
    command.args(["local", "--free-ports", "--json", "--ready-file"]).arg(folder.path().join("ready.json"));
    command.env("AWS_ACCESS_KEY_ID", OWN_ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", "sesame").env("AWS_REGION", "eu-north-1");
    command.env("AWS_PROFILE", "mine");
    command
}

#[tokio::test]
async fn a_function_runs_with_the_templates_environment_and_none_of_the_users() {
    let stack = Stack::start().await;
    let environment = stack.invoke(json!({"do": "environment"})).await.json();
    let queue = format!("{}/123456789012/carillon-Jobs", stack.aws());
    for (name, value) in [
        ("BUCKET", "pictures-of-me"),
        ("QUALITY", "80"),
        ("JOBS", &queue),
        ("LABEL", "carillon in us-east-1"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ("AWS_ENDPOINT_URL", stack.aws()),
    ] {
        assert_eq!(environment[name], value, "{name}: {environment}");
    }
    assert_eq!(environment.get("SHARPNESS"), None, "a variable without a value is none");
    let text = environment.to_string();
    for own in [OWN_ACCESS_KEY, "sesame", "mine", "CARGO"] {
        assert!(!text.contains(own), "{own} of the user's environment reached the function: {text}");
    }
    assert_eq!(stack.ready["token"], Value::Null, "the template has no secret");
    stack.end().await;
}

#[tokio::test]
async fn its_url_streams_and_its_queue_invokes_it() {
    let stack = Stack::start().await;
    let gate = stack.folder.path().join("gate");
    let body = json!({"do": "stream", "chunks": ["first ", "second"], "gate": gate}).to_string();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(stack.url()).body(Full::new(Bytes::from(body))).expect("a request");
    let mut answer = within("the head of the answer", client.request(request)).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-probe"], "yes");
    // The function holds the second part back until the first one was seen here.
    let first = within("the first part", answer.body_mut().frame()).await.expect("a part").expect("it is whole");
    assert_eq!(first.into_data().ok().as_deref(), Some(&b"first "[..]));
    std::fs::write(gate, "").expect("the folder is ours");
    let rest = within("the rest", answer.into_body().collect()).await.expect("it is whole").to_bytes();
    assert_eq!(rest, "second");

    let done = stack.folder.path().join("done");
    let job = json!({"do": "attempt", "path": done, "line": "a thumbnail"}).to_string();
    sqs(&stack, "SendMessage", json!({"MessageBody": job})).await;
    eventually("the function to do its job and the queue to be empty", || async {
        let counts = sqs(&stack, "GetQueueAttributes", json!({"AttributeNames": ["All"]})).await["Attributes"].clone();
        let left = [&counts["ApproximateNumberOfMessages"], &counts["ApproximateNumberOfMessagesNotVisible"]];
        let is_done = std::fs::read_to_string(&done).is_ok_and(|lines| lines == "a thumbnail\n");
        if is_done && left == ["0", "0"] { Ok(()) } else { Err(format!("done: {is_done}, {counts}")) }
    })
    .await;
    stack.end().await;
}

/// Calls SQS about the template's queue.
async fn sqs(stack: &Stack, operation: &str, mut arguments: Value) -> Value {
    arguments["QueueUrl"] = stack.ready["resources"]["Jobs"].clone();
    let target = format!("AmazonSQS.{operation}");
    let headers = [("x-amz-target", target.as_str()), ("content-type", "application/x-amz-json-1.0")];
    let answer = send(Method::POST, stack.aws(), &headers, arguments.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn what_the_stack_does_not_have_is_named_with_what_that_means() {
    let stack = Stack::start().await;
    let errors = stack.end().await;
    let notices: Vec<Value> = errors.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let left_out = |logical_id: &str| {
        let found = notices.iter().find(|notice| notice["notice"] == "left_out" && notice["logical_id"] == logical_id);
        let notice = found.unwrap_or_else(|| panic!("{logical_id} is not named: {errors}"));
        (notice["type"].as_str().unwrap_or_default(), notice["meaning"].as_str().unwrap_or_default(), &notice["harmless"])
    };
    let (kind, meaning, harmless) = left_out("Finished");
    assert_eq!((kind, harmless), ("AWS::SNS::Topic", &json!(false)));
    assert!(meaning.contains("nothing can be published to it"), "{meaning}");
    let (kind, meaning, harmless) = left_out("Pictures");
    assert_eq!((kind, harmless), ("AWS::S3::Bucket", &json!(false)));
    assert!(meaning.contains("a reference to it is a placeholder"), "{meaning}");
    let (_, meaning, harmless) = left_out("Thumbnails.Nightly");
    assert!(meaning.contains("schedules are not run") && harmless == false, "{meaning}");
    assert_eq!(left_out("Log").2, true);
    let named = notices.iter().filter(|notice| notice["notice"] == "left_out").count();
    assert_eq!(named, 4, "nothing else is left out: {errors}");
}

#[tokio::test]
async fn people_see_it_named_too() {
    let folder = project().await;
    let template = folder.path().join("thumbnails.yaml");
    let mut command = Command::new(binaries::path("carillon").await);
    command.args(["local", "--free-ports", "--parameter", "Bucket=pictures-of-me", "--template"]).arg(template);
    let mut program = Program::start("carillon local", command.current_dir(folder.path()));
    program.error_line("left out: Finished (AWS::SNS::Topic): is not emulated").await;
    program.error_line("left out: Log (AWS::Logs::LogGroup)").await;
    assert!(program.line().await.contains("AWS endpoint"), "the first endpoint that there is");
    program.signal(Signal::SIGINT);
    assert_eq!(program.ended().await.status.code(), Some(0));
}

#[tokio::test]
async fn a_function_that_was_not_built_is_told_with_where_it_should_be() {
    let folder = project().await;
    let bootstrap = folder.path().join("build/bootstrap");
    std::fs::remove_file(&bootstrap).expect("it is ours");
    let errors = refused(&folder, 2).await;
    let place = "Resources.Thumbnails.Properties.CodeUri";
    assert!(errors.contains(place) && errors.contains("build/bootstrap"), "{errors}");

    std::fs::write(&bootstrap, "not marked as executable").expect("the folder is ours");
    let errors = refused(&folder, 1).await;
    assert!(errors.contains("function Thumbnails is not an executable file"), "{errors}");
}

/// Runs a stack that does not start, and gives why.
async fn refused(folder: &TempDir, code: i32) -> String {
    let template: &Path = &folder.path().join("thumbnails.yaml");
    let mut command = command(folder).await;
    command.args(["--parameter", "Bucket=pictures-of-me", "--template"]).arg(template);
    let ended = Program::start("carillon local", &mut command).ended().await;
    assert_eq!(ended.status.code(), Some(code), "{}", ended.errors);
    ended.errors
}
