//! The emulated Lambda with a real function: processes, their deadlines and their deaths.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::harness::{Folder, bytes, call, call_in_vain, end, function, lines, lives, pid, start, start_with, until, within};
use bytes::Bytes;
use carillon_local::invoker::{InvokeError, Invoker, Outcome, StreamingOutcome};
use carillon_local::lambda::limits::{MAX_ASYNCHRONOUS_PAYLOAD_BYTES, MAX_RESPONSE_BYTES, MAX_SYNCHRONOUS_PAYLOAD_BYTES};
use carillon_local::lambda::{FailureDestinations, Functions, LambdaOptions};
use serde_json::{Value, json};

/// A minute between two tries becomes 6 ms.
const QUICK: f64 = 0.000_1;

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_process_is_used_again() {
    let functions = start(function());
    assert_eq!(call(&functions, json!({ "do": "echo", "value": { "a": [1, "ä"] } })).await, json!({ "a": [1, "ä"] }));
    let first = call(&functions, json!({ "do": "context" })).await;
    let second = call(&functions, json!({ "do": "context" })).await;
    assert_eq!(pid(&first), pid(&second));
    assert_ne!(first["request_id"], second["request_id"]);
    let counters = functions.counters("Probe").expect("it exists");
    assert_eq!((counters.environments_started, counters.invocations, counters.function_errors), (1, 3, 0));
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_knows_its_function_and_its_true_deadline() {
    let functions = start(function());
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let context = call(&functions, json!({ "do": "context" })).await;
    let after = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let deadline = context["deadline_ms"].as_u64().expect("a number");
    assert!((before + 30_000..=after + 30_000).contains(&deadline), "{before} {deadline} {after}");
    assert_eq!(context["arn"], "arn:aws:lambda:us-east-1:000000000000:function:stack-probe");
    let trace = context["trace_id"].as_str().expect("a trace id");
    assert!(trace.starts_with("Root=1-") && trace.contains(";Parent=") && trace.ends_with(";Sampled=0"), "{trace}");
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_the_variables_of_lambda_and_no_others() {
    let mut deployed = function();
    for (name, value) in [("TABLE", "log"), ("AWS_ENDPOINT_URL_SQS", "https://sqs"), ("AWS_ENDPOINT_URL_SNS", "https://sns")] {
        deployed.spec.environment.insert(name.to_owned(), value.to_owned());
    }
    let mut options = LambdaOptions { region: "eu-west-1".to_owned(), ..LambdaOptions::default() };
    options.variables.insert("AWS_ENDPOINT_URL_SQS".to_owned(), "http://127.0.0.1:1".to_owned());
    let functions = start_with(deployed, &options);

    let mut variables = call(&functions, json!({ "do": "environment" })).await;
    let variables = variables.as_object_mut().expect("an object");
    let log_stream = variables.remove("AWS_LAMBDA_LOG_STREAM_NAME").expect("it is set");
    assert!(log_stream.as_str().is_some_and(|name| name.contains("/[$LATEST]")), "{log_stream}");
    let runtime_api = variables.remove("AWS_LAMBDA_RUNTIME_API").expect("it is set");
    assert!(runtime_api.as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{runtime_api}");
    let folder = crate::support::probe().parent().expect("a file has a folder").to_str().expect("the path is text").to_owned();
    let expected = json!({
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_LAMBDA_FUNCTION_NAME": "stack-probe",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/stack-probe",
        "AWS_REGION": "eu-west-1",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_SESSION_TOKEN": "local",
        "LAMBDA_TASK_ROOT": folder,
        "LANG": "en_US.UTF-8",
        "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin",
        "TABLE": "log",
        "TZ": ":UTC",
        "_HANDLER": "bootstrap",
    });
    // lambda_runtime sets this one itself, for X-Ray.
    variables.remove("_X_AMZN_TRACE_ID");
    assert_eq!(Value::Object(variables.clone()), expected);
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_invocations_have_a_process_each() {
    let folder = Folder::new();
    let functions = start(function());
    let waiting: Vec<_> = (0..3).map(|_| functions.invoke("Probe", wait(&folder))).collect();
    until("three processes", || lines(&folder.path("started")).len() == 3).await;
    folder.open("gate");
    let mut pids = BTreeSet::new();
    for outcome in waiting {
        let Ok(Outcome::Success(answer)) = within("an answer", outcome).await else { panic!("the gate is open") };
        pids.insert(pid(&serde_json::from_slice(&answer).expect("JSON")));
    }
    assert_eq!(pids.len(), 3);
    call(&functions, json!({ "do": "echo" })).await;
    assert_eq!(functions.counters("Probe").expect("it exists").environments_started, 3);
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invocations_beyond_the_processes_wait_in_order() {
    let folder = Folder::new();
    let functions = start_with(function(), &LambdaOptions { max_environments: 1, ..LambdaOptions::default() });
    let first = functions.invoke("Probe", wait(&folder));
    until("the first invocation", || lines(&folder.path("started")).len() == 1).await;
    let order = folder.path("order");
    let numbers: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let waiting: Vec<_> = numbers
        .iter()
        .map(|number| bytes(&json!({ "do": "attempt", "path": order, "line": number, "failures": 0 })))
        .map(|payload| functions.invoke("Probe", payload))
        .collect();
    assert_eq!(lines(&order), Vec::<String>::new());
    folder.open("gate");
    within("the first answer", first).await.expect("it was accepted");
    for outcome in waiting {
        within("an answer", outcome).await.expect("it was accepted");
    }
    assert_eq!(lines(&order), numbers);
    assert_eq!(functions.counters("Probe").expect("it exists").environments_started, 1);
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_takes_as_many_invocations_as_it_says() {
    let folder = Folder::new();
    let mut deployed = function();
    deployed.spec.environment.insert("AWS_LAMBDA_MAX_CONCURRENCY".to_owned(), "3".to_owned());
    let functions = start(deployed);
    let waiting: Vec<_> = (0..4).map(|_| functions.invoke("Probe", wait(&folder))).collect();
    until("four invocations", || lines(&folder.path("started")).len() == 4).await;
    folder.open("gate");
    let mut pids = Vec::new();
    for outcome in waiting {
        let Ok(Outcome::Success(answer)) = within("an answer", outcome).await else { panic!("the gate is open") };
        pids.push(pid(&serde_json::from_slice(&answer).expect("JSON")));
    }
    assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), 2, "three in one process and one in another: {pids:?}");
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_invocation_is_reported_and_its_process_killed() {
    let folder = Folder::new();
    let mut deployed = function();
    deployed.spec.timeout = Duration::from_secs(1);
    let functions = start(deployed);
    let victim = pid(&call(&functions, json!({ "do": "context" })).await);
    let began = Instant::now();
    let error = call_in_vain(&functions, json!({ "do": "wait", "gate": folder.path("never") })).await;
    let lasted = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(20)).contains(&lasted), "{lasted:?}");
    assert_eq!(error["errorType"], "Sandbox.Timedout");
    let message = error["errorMessage"].as_str().expect("a text");
    assert!(message.starts_with("RequestId: ") && message.ends_with(" Error: Task timed out after 1.00 seconds"), "{message}");
    until("the late process to be gone", || !lives(victim)).await;
    let next = pid(&call(&functions, json!({ "do": "context" })).await);
    assert_ne!(next, victim);
    let counters = functions.counters("Probe").expect("it exists");
    assert_eq!((counters.environments_started, counters.function_errors), (2, 1));
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_reported_and_recovered_from() {
    let functions = start(function());
    let cases = [
        (json!({ "do": "exit", "code": 1 }), "Runtime exited with error: exit status 1"),
        (json!({ "do": "exit", "code": 0 }), "Runtime exited without providing a reason"),
        (json!({ "do": "abort" }), "Runtime exited with error: signal: aborted"),
    ];
    for (payload, reason) in cases {
        let error = call_in_vain(&functions, payload).await;
        assert_eq!(error["errorType"], "Runtime.ExitError");
        let message = error["errorMessage"].as_str().expect("a text");
        assert!(message.contains(&format!(" Error: {reason}")), "{message}");
        assert_eq!(call(&functions, json!({ "do": "echo", "value": 1 })).await, 1);
    }
    assert_eq!(functions.counters("Probe").expect("it exists").environments_started, 4);
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_function_reports_is_handed_on_and_its_process_lives() {
    let functions = start(function());
    let before = pid(&call(&functions, json!({ "do": "context" })).await);
    assert_eq!(call_in_vain(&functions, json!({ "do": "error" })).await["errorMessage"], "as asked");
    assert_eq!(call_in_vain(&functions, json!({ "do": "panic" })).await["errorMessage"], "Lambda panicked: as asked");
    assert_eq!(pid(&call(&functions, json!({ "do": "context" })).await), before);
    assert_eq!(functions.counters("Probe").expect("it exists").function_errors, 2);
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_start_is_reported() {
    for (start_with, error_type, message) in
        [("exit", "Runtime.ExitError", "Runtime exited with error: exit status 7"), ("error", "Probe.NotToday", "as asked")]
    {
        let mut deployed = function();
        deployed.spec.environment.insert("PROBE_START".to_owned(), start_with.to_owned());
        let functions = start(deployed);
        let error = call_in_vain(&functions, json!({ "do": "echo" })).await;
        assert_eq!(error["errorType"], error_type);
        assert!(error["errorMessage"].as_str().is_some_and(|text| text.ends_with(message)), "{error}");
        end(functions).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_binary_is_reported() {
    let mut deployed = function();
    deployed.executable = PathBuf::from("/nonexistent/bootstrap");
    let functions = start(deployed);
    let error = call_in_vain(&functions, json!({ "do": "echo" })).await;
    assert_eq!(error["errorType"], "Runtime.InvalidEntrypoint");
    assert!(error["errorMessage"].as_str().is_some_and(|text| text.contains("/nonexistent/bootstrap")), "{error}");
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_that_died_is_replaced_unnoticed() {
    let functions = start(function());
    let victim = pid(&call(&functions, json!({ "do": "context" })).await);
    assert_eq!(functions.kill_environments("Probe").expect("it exists"), 1);
    assert_ne!(pid(&call(&functions, json!({ "do": "context" })).await), victim);
    assert_eq!(functions.counters("Probe").expect("it exists").function_errors, 0);
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_arrives_while_it_is_written() {
    let folder = Folder::new();
    let functions = start(function());
    let payload = json!({ "do": "stream", "chunks": ["one", "two"], "gate": folder.path("gate") });
    let outcome = within("the stream", functions.invoke_streaming("Probe", bytes(&payload))).await;
    let Ok(StreamingOutcome::Started { content_type, mut body }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(content_type, "application/vnd.awslambda.http-integration-response");
    let mut received = Vec::new();
    while !received.ends_with(b"one") {
        let chunk = within("the first chunk", body.recv()).await.expect("the stream goes on").expect("nothing broke");
        received.extend_from_slice(&chunk);
    }
    let end_of_prelude = received.windows(8).position(|window| window == [0; 8]).expect("eight NUL");
    let prelude: Value = serde_json::from_slice(&received[..end_of_prelude]).expect("the prelude is JSON");
    assert_eq!((&prelude["statusCode"], &prelude["headers"]["x-probe"]), (&json!(200), &json!("yes")));

    folder.open("gate");
    let mut rest = Vec::new();
    while let Some(chunk) = within("the rest", body.recv()).await {
        rest.extend_from_slice(&chunk.expect("nothing broke"));
    }
    assert_eq!(rest, b"two");
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_crashes_breaks_and_says_why() {
    let folder = Folder::new();
    let functions = start(function());
    let payload = json!({ "do": "stream", "chunks": ["one"], "gate": folder.path("gate"), "exit": 3 });
    let outcome = within("the stream", functions.invoke_streaming("Probe", bytes(&payload))).await;
    let Ok(StreamingOutcome::Started { mut body, .. }) = outcome else { panic!("{outcome:?}") };
    folder.open("gate");
    let broken = loop {
        match within("the crash", body.recv()).await {
            Some(Ok(_)) => {}
            Some(Err(broken)) => break broken,
            None => panic!("the stream ended as if nothing had happened"),
        }
    };
    assert!(broken.0.starts_with("Runtime.ExitError: ") && broken.0.ends_with("exit status 3"), "{}", broken.0);
    assert!(within("the end", body.recv()).await.is_none());
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_answer_can_be_streamed_and_a_stream_collected() {
    let functions = start(function());
    let plain = within("the answer", functions.invoke_streaming("Probe", bytes(&json!({ "do": "echo", "value": 7 })))).await;
    let Ok(StreamingOutcome::Started { content_type, mut body }) = plain else { panic!("{plain:?}") };
    assert_eq!(content_type, "application/octet-stream");
    assert_eq!(body.recv().await, Some(Ok(Bytes::from_static(b"7"))));
    assert_eq!(body.recv().await, None);

    let stream = within("the answer", functions.invoke("Probe", bytes(&json!({ "do": "stream", "chunks": ["a", "b"] })))).await;
    let Ok(Outcome::Success(answer)) = stream else { panic!("{stream:?}") };
    assert!(answer.ends_with(b"\0\0\0\0\0\0\0\0ab"));
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_stops_nothing() {
    let folder = Folder::new();
    let functions = start(function());
    let buffered = functions.invoke("Probe", bytes(&json!({ "do": "attempt", "path": folder.path("buffered"), "failures": 0 })));
    drop(buffered);
    until("the buffered invocation", || lines(&folder.path("buffered")).len() == 1).await;

    let payload = json!({ "do": "stream", "chunks": ["one", "two"], "gate": folder.path("gate"), "done": folder.path("done") });
    let outcome = within("the stream", functions.invoke_streaming("Probe", bytes(&payload))).await;
    drop(outcome);
    folder.open("gate");
    until("the stream's end", || lines(&folder.path("done")).len() == 1).await;
    call(&functions, json!({ "do": "echo" })).await;
    let counters = functions.counters("Probe").expect("it exists");
    assert_eq!(counters.function_errors, 0);
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_concurrency_throttles() {
    let folder = Folder::new();
    let mut deployed = function();
    deployed.spec.reserved_concurrency = Some(1);
    let functions = start(deployed);
    let first = functions.invoke("Probe", wait(&folder));
    assert_eq!(functions.invoke("Probe", bytes(&json!({ "do": "echo" }))).await, Err(InvokeError::Throttled));
    folder.open("gate");
    within("the first answer", first).await.expect("it was accepted");
    for number in 0..20 {
        assert_eq!(
            call(&functions, json!({ "do": "echo", "value": number })).await,
            number,
            "one after the other is one at a time"
        );
    }
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_event_is_tried_three_times_with_one_request_id() {
    let folder = Folder::new();
    let functions = start_with(function(), &LambdaOptions { time_scale: QUICK, ..LambdaOptions::default() });
    let path = folder.path("succeeds");
    functions.invoke_later("Probe", bytes(&json!({ "do": "attempt", "path": path, "failures": 2 }))).expect("it is queued");
    until("the third try", || lines(&path).len() == 3).await;
    assert_eq!(lines(&path).iter().collect::<BTreeSet<_>>().len(), 1);

    let path = folder.path("fails");
    functions.invoke_later("Probe", bytes(&json!({ "do": "attempt", "path": path, "failures": 99 }))).expect("it is queued");
    until("the event to be given up", || functions.counters("Probe").expect("it exists").dropped_events == 1).await;
    assert_eq!(lines(&path).len(), 3);
    assert_eq!(functions.counters("Probe").expect("it exists").function_errors, 5);
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_an_event_that_is_given_up_goes_to_the_failure_destination() {
    let folder = Folder::new();
    let records: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let mut deployed = function();
    deployed.spec.asynchronous.maximum_retries = 1;
    deployed.spec.asynchronous.on_failure = Some("arn:aws:sqs:us-east-1:000000000000:failures".to_owned());
    let failure_destinations = FailureDestinations::new({
        let records = Arc::clone(&records);
        move |arn, record| {
            records.lock().expect("no panic under it").push((arn.to_owned(), record));
            true
        }
    });
    let functions = start_with(deployed, &LambdaOptions { time_scale: QUICK, failure_destinations, ..LambdaOptions::default() });
    let payload = json!({ "do": "attempt", "path": folder.path("fails"), "failures": 99 });
    functions.invoke_later("Probe", bytes(&payload)).expect("it is queued");
    until("the record", || !records.lock().expect("no panic under it").is_empty()).await;
    let (arn, record) = records.lock().expect("no panic under it").remove(0);
    assert_eq!(arn, "arn:aws:sqs:us-east-1:000000000000:failures");
    let mut record: Value = serde_json::from_str(&record).expect("a record is JSON");
    // What differs from run to run.
    for pointer in ["/timestamp", "/requestContext/requestId", "/responsePayload"] {
        let value = record.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}"));
        assert!(!value.is_null(), "{pointer}");
        *value = json!("…");
    }
    assert_eq!(record["requestPayload"].take(), payload);
    let golden: Value = serde_json::from_str(include_str!("../golden/lambda/failure_record.json")).expect("JSON");
    assert_eq!(record, golden);
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_event_waits_out_a_throttle() {
    let folder = Folder::new();
    let mut deployed = function();
    deployed.spec.reserved_concurrency = Some(1);
    let functions = start_with(deployed, &LambdaOptions { time_scale: QUICK, ..LambdaOptions::default() });
    let first = functions.invoke("Probe", wait(&folder));
    let path = folder.path("later");
    functions.invoke_later("Probe", bytes(&json!({ "do": "attempt", "path": path, "failures": 0 }))).expect("it is queued");
    until("more throttles than there are retries", || functions.counters("Probe").expect("it exists").throttles > 5).await;
    assert_eq!(lines(&path).len(), 0);
    folder.open("gate");
    within("the first answer", first).await.expect("it was accepted");
    until("the event's turn", || lines(&path).len() == 1).await;
    assert_eq!(functions.counters("Probe").expect("it exists").dropped_events, 0);
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_and_answers_have_limits() {
    let functions = start(function());
    let quoted = |length: usize| {
        let mut payload = br#"{"do":"echo","value":""#.to_vec();
        payload.resize(length - 2, b'x');
        payload.extend_from_slice(br#""}"#);
        Bytes::from(payload)
    };
    let limit = MAX_SYNCHRONOUS_PAYLOAD_BYTES;
    assert!(matches!(functions.invoke("Probe", quoted(limit)).await, Ok(Outcome::Success(_))));
    assert_eq!(functions.invoke("Probe", quoted(limit + 1)).await, Err(InvokeError::TooLarge { size: limit + 1, limit }));
    let limit = MAX_ASYNCHRONOUS_PAYLOAD_BYTES;
    assert_eq!(functions.invoke_later("Probe", quoted(limit)), Ok(()));
    assert_eq!(functions.invoke_later("Probe", quoted(limit + 1)), Err(InvokeError::TooLarge { size: limit + 1, limit }));
    assert_eq!(functions.invoke_later("Nobody", quoted(100)), Err(InvokeError::NotFound("Nobody".to_owned())));

    // Two bytes are the quotes around the text.
    let answer = call(&functions, json!({ "do": "large", "bytes": MAX_RESPONSE_BYTES - 2 })).await;
    assert_eq!(answer.as_str().map(str::len), Some(MAX_RESPONSE_BYTES - 2));
    let error = call_in_vain(&functions, json!({ "do": "large", "bytes": MAX_RESPONSE_BYTES - 1 })).await;
    assert_eq!(error["errorType"], "Function.ResponseSizeTooLarge");
    assert_eq!(call(&functions, json!({ "do": "echo", "value": 1 })).await, 1, "the process goes on");
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_that_changes_is_started_anew() {
    let folder = Folder::new();
    let mut deployed = function();
    deployed.executable = folder.path("bootstrap");
    std::fs::copy(crate::support::probe(), &deployed.executable).expect("the folder is ours");
    let binary = deployed.executable.clone();
    let functions = start(deployed);
    let old = pid(&call(&functions, json!({ "do": "context" })).await);
    let busy = functions.invoke("Probe", wait(&folder));
    until("an invocation of the old build", || lines(&folder.path("started")).len() == 1).await;

    build_anew(&folder, &binary);
    let new = pid(&call(&functions, json!({ "do": "context" })).await);
    assert_ne!(new, old);
    assert!(lives(old), "it has an invocation to finish");
    folder.open("gate");
    assert!(matches!(within("the old invocation", busy).await, Ok(Outcome::Success(_))));
    until("the old process to be gone", || !lives(old)).await;
    assert_eq!(pid(&call(&functions, json!({ "do": "context" })).await), new);
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_processes_of_an_old_build_too() {
    let folder = Folder::new();
    let mut deployed = function();
    deployed.executable = folder.path("bootstrap");
    std::fs::copy(crate::support::probe(), &deployed.executable).expect("the folder is ours");
    let binary = deployed.executable.clone();
    let functions = start(deployed);
    let old = pid(&call(&functions, json!({ "do": "context" })).await);
    let busy = functions.invoke("Probe", wait(&folder));
    until("an invocation of the old build", || lines(&folder.path("started")).len() == 1).await;
    build_anew(&folder, &binary);
    call(&functions, json!({ "do": "echo" })).await;
    assert!(lives(old));
    end(functions).await;
    assert!(!lives(old));
    assert!(matches!(busy.await, Ok(Outcome::FunctionError(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_kept_by_line() {
    let folder = Folder::new();
    let functions =
        start_with(function(), &LambdaOptions { log_directory: Some(folder.path("logs")), ..LambdaOptions::default() });
    call(&functions, json!({ "do": "print", "line": "hello" })).await;
    let has = |functions: &Functions, text: &str| {
        functions.logs("Probe").expect("it exists").iter().any(|line| line.text == text && line.log_stream.contains("[$LATEST]"))
    };
    until("both lines", || has(&functions, "hello on stdout") && has(&functions, "hello on stderr")).await;
    assert!(lines(&folder.path("logs/stack-probe.log")).contains(&"hello on stdout".to_owned()));
    call_in_vain(&functions, json!({ "do": "exit", "code": 1 })).await;
    assert!(functions.logs("Probe").expect("it exists").iter().any(|line| line.text.ends_with("exit status 1")));
    end(functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_leaves_no_process() {
    let folder = Folder::new();
    let functions = start(function());
    let idle = pid(&call(&functions, json!({ "do": "context" })).await);
    let busy = functions.invoke("Probe", wait(&folder));
    until("a busy process", || lines(&folder.path("started")).len() == 1).await;
    functions.invoke_later("Probe", bytes(&json!({ "do": "error" }))).expect("it is queued");
    until("an event that waits for its retry", || functions.counters("Probe").expect("it exists").function_errors == 1).await;

    let began = Instant::now();
    functions.shutdown(Duration::from_secs(20)).await;
    assert!(began.elapsed() < Duration::from_secs(10), "the processes end when asked: {:?}", began.elapsed());
    let Ok(Outcome::FunctionError(error)) = busy.await else { panic!("the process ended under it") };
    assert!(String::from_utf8_lossy(&error).contains("signal: terminated"));
    assert!(!lives(idle));
    assert_eq!(functions.invoke("Probe", bytes(&json!({ "do": "echo" }))).await, Err(InvokeError::ShuttingDown));
    assert_eq!(functions.invoke_later("Probe", bytes(&json!({ "do": "echo" }))), Err(InvokeError::ShuttingDown));
    assert_eq!(functions.counters("Probe").expect("it exists").dropped_events, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_listen_is_killed_after_the_grace() {
    let mut deployed = function();
    deployed.spec.environment.insert("PROBE_START".to_owned(), "deaf".to_owned());
    let functions = start(deployed);
    let deaf = pid(&call(&functions, json!({ "do": "context" })).await);
    let began = Instant::now();
    within("shutdown", functions.shutdown(Duration::from_millis(300))).await;
    assert!(began.elapsed() >= Duration::from_millis(300), "it was given its grace");
    assert!(!lives(deaf));
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_refuses_what_still_waits() {
    let folder = Folder::new();
    let functions = start_with(function(), &LambdaOptions { max_environments: 1, ..LambdaOptions::default() });
    let first = functions.invoke("Probe", wait(&folder));
    until("the first invocation", || lines(&folder.path("started")).len() == 1).await;
    let second = functions.invoke("Probe", bytes(&json!({ "do": "echo" })));
    end(functions).await;
    assert!(matches!(first.await, Ok(Outcome::FunctionError(_))));
    assert_eq!(second.await, Err(InvokeError::ShuttingDown));
}

/// A payload that waits for the gate and says that it does.
fn wait(folder: &Folder) -> Bytes {
    bytes(&json!({ "do": "wait", "started": folder.path("started"), "gate": folder.path("gate") }))
}

/// Does to a binary what cargo does: puts another file in its place.
fn build_anew(folder: &Folder, binary: &Path) {
    let modified = std::fs::metadata(binary).and_then(|metadata| metadata.modified()).expect("the file is ours");
    let built = folder.path("built");
    std::fs::copy(crate::support::probe(), &built).expect("the folder is ours");
    let file = std::fs::File::options().write(true).open(&built).expect("the file is ours");
    file.set_modified(modified + Duration::from_secs(1)).expect("the file is ours");
    drop(file);
    std::fs::rename(&built, binary).expect("the folder is ours");
}
