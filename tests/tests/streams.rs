//! How long streams live, and how many live in one environment.

use carillon_tests::stack::TestStack;
use carillon_tests::story::{assert_dense, publish_numbered};
use carillon_tests::template::TestTemplate;
use carillon_tests::wait::eventually;
use futures_util::future::{join_all, try_join_all};
use serde_json::Value;

const CHANNEL: &str = "orders/42";
const FUNCTION: &str = "StreamFunction";

/// The shortest that streams may be.
const SECONDS: u64 = 10;

/// The part of their length by which streams end early, at random: a tenth.
const EARLIEST_MS: u64 = SECONDS * 900;

/// How late an end may be on a busy machine.
const BUSY_MS: u64 = 5_000;

async fn with_short_streams() -> TestStack {
    TestStack::start_with(|options| {
        options.parameters.insert("StreamSeconds".to_owned(), SECONDS.to_string());
    })
    .await
}

/// What the function logged about streams that are over.
fn ended(stack: &TestStack) -> Vec<Value> {
    stack.logged(FUNCTION).into_iter().filter(|line| line["message"] == "a stream ended").collect()
}

fn environments(stack: &TestStack) -> u64 {
    stack.stack().functions().counters(FUNCTION).expect("it is a function of the stack").environments_started
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_stop_the_function_and_its_stream_ends_as_planned() {
    let stack = with_short_streams().await;
    let mut left = stack.stream(&[CHANNEL]).await;
    left.subscribed().await;
    publish_numbered(&stack, CHANNEL, 0, 1).await;
    assert_eq!(left.message().await.offset, 1);
    drop(left);

    // The function is not told: its environment is taken, and another one serves the next client.
    let mut stayed = stack.stream(&[CHANNEL]).await;
    stayed.subscribed().await;
    assert_eq!(environments(&stack), 2);
    publish_numbered(&stack, CHANNEL, 1, 2).await;
    assert_dense(&stayed.messages(2).await, 1);
    let end = stayed.next().await.expect("it says that it ends");
    assert_eq!(end.name, "carillon.end", "{end:?}");
    assert_eq!(stayed.next().await, None);

    let lines = eventually("the end of both streams", || {
        let lines = ended(&stack);
        std::future::ready(if lines.len() == 2 { Ok(lines) } else { Err(format!("{lines:?}")) })
    })
    .await;
    let mut messages = Vec::new();
    for line in &lines {
        assert_eq!(line["reason"], "planned", "{line}");
        let duration_ms = line["duration_ms"].as_u64().expect("a number");
        assert!((EARLIEST_MS..SECONDS * 1_000 + BUSY_MS).contains(&duration_ms), "{line}");
        messages.push(line["messages.count"].as_u64().expect("a number"));
    }
    messages.sort_unstable();
    // The one whose client has left was served to its end: it has every message.
    assert_eq!(messages, [2, 3], "{lines:?}");
    stack.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_live_in_one_environment_and_all_get_everything() {
    const STREAMS: usize = 200;
    const EVENTS: usize = 20;
    let template = TestTemplate::of_repository().with_variable(FUNCTION, "AWS_LAMBDA_MAX_CONCURRENCY", "256");
    let stack = TestStack::start_from(&template, |_| ()).await;
    let mut first = stack.stream(&[CHANNEL]).await;
    first.subscribed().await;
    publish_numbered(&stack, CHANNEL, 0, 1).await;
    first.message().await;
    let before = stack.resident_kib("stream");

    let query = format!("channel={CHANNEL}");
    let mut streams = try_join_all((0..STREAMS).map(|_| stack.stream_with(&query, None))).await.expect("all are let in");
    for joined in join_all(streams.iter_mut().map(carillon_tests::sse::SseStream::subscribed)).await {
        assert_eq!((&joined[0]["channel"], &joined[0]["offset"]), (&CHANNEL.into(), &1.into()));
    }
    let publishing = publish_numbered(&stack, CHANNEL, 1, EVENTS);
    let receiving = join_all(streams.iter_mut().map(|stream| stream.messages(EVENTS)));
    let ((), received) = tokio::join!(publishing, receiving);
    let after = stack.resident_kib("stream");
    let expected = first.messages(EVENTS).await;
    assert_dense(&expected, 1);
    for events in &received {
        assert!(events == &expected, "a stream differs from the first");
    }
    assert_eq!(environments(&stack), 1);
    match (before, after) {
        (Some(before), Some(after)) => {
            let each = after.saturating_sub(before) / STREAMS as u64;
            println!("memory of the environment: {before} KiB with 1 stream, {after} KiB with {} ({each} KiB each)", STREAMS + 1);
        }
        _ => println!("this system does not tell the memory of a process"),
    }
    stack.shutdown().await;
}
