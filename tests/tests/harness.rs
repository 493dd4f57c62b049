//! The harness itself: what a test leaves behind is found.

use carillon_tests::http::send;
use carillon_tests::stack::TestStack;
use http::Method;
use serde_json::json;

/// Calls an action of the AWS endpoint that answers with JSON.
async fn call(stack: &TestStack, target: &str, body: serde_json::Value) {
    let answer = send(Method::POST, &stack.ready().aws, &[("x-amz-target", target)], body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// A dead-letter queue with a message in it.
async fn leave_a_message(stack: &TestStack) {
    let queue = stack.resource("WakeupDeadLetterQueue");
    call(stack, "AmazonSQS.SendMessage", json!({"QueueUrl": queue, "MessageBody": "left"})).await;
    assert_eq!(stack.queue_length("WakeupDeadLetterQueue"), 1);
}

/// An invocation that fails, because nothing serves its source.
async fn fail_a_function(stack: &TestStack) {
    let url = format!("{}/2015-03-31/functions/PublishFunction/invocations", stack.ready().aws);
    let answer = send(Method::POST, &url, &[], r#"{"Records":[{"EventSource":"aws:sns"}]}"#).await;
    assert_eq!(answer.headers["x-amz-function-error"], "Unhandled", "{answer:?}");
}

#[tokio::test]
async fn the_processes_of_a_stack_are_told_from_those_of_another() {
    let (one, other) = (TestStack::start().await, TestStack::start().await);
    assert!(one.processes().is_empty(), "functions start with their first invocation");
    one.publish("orders/42", &json!(1)).await;
    // And deliver's, which the publish has woken.
    let processes = one.processes();
    assert!(processes.iter().any(|process| process.contains("/publish")), "{processes:?}");
    assert!(other.processes().is_empty());
    one.shutdown().await;
    other.shutdown().await;
}

#[tokio::test]
#[should_panic(expected = "the test did not shut its stack down")]
async fn a_stack_that_is_forgotten_fails_the_test() {
    drop(TestStack::start().await);
}

#[tokio::test]
#[should_panic(expected = "WakeupDeadLetterQueue has messages")]
async fn a_message_that_is_left_fails_the_test() {
    let stack = TestStack::start().await;
    leave_a_message(&stack).await;
    stack.shutdown().await;
}

#[tokio::test]
#[should_panic(expected = "PublishFunction failed")]
async fn a_function_that_failed_fails_the_test() {
    let stack = TestStack::start().await;
    fail_a_function(&stack).await;
    stack.shutdown().await;
}

#[tokio::test]
async fn what_is_allowed_may_be_left() {
    let mut stack = TestStack::start().await;
    stack.allow("WakeupDeadLetterQueue");
    stack.allow("PublishFunction");
    leave_a_message(&stack).await;
    fail_a_function(&stack).await;
    stack.shutdown().await;
}
