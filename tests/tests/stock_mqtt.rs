//! What stock MQTT clients see of the real functions: `mqtt` for Node and `paho-mqtt` for Python, both versions of the protocol,
//! over TCP and over WebSocket; and boto3, which publishes over IoT Core's HTTP data plane.

use std::num::NonZeroU32;

use carillon_tests::clients::{node, python};
use carillon_tests::program::Program;
use carillon_tests::sse::message;
use carillon_tests::stack::TestStack;
use carillon_tests::wait::eventually;
use carillon_tests::websocket::Event;
use carillon_tests::{binaries, program};
use serde_json::{Value, json};
use tokio::process::Command;

/// MQTT's reason "not authorized": of version 3.1.1 (section 3.2.2.3) and of version 5 (section 3.2.2.2).
const NOT_AUTHORIZED: [(u64, u64); 2] = [(4, 5), (5, 0x87)];

/// A client on a stock package.
struct Client {
    program: Program,
    /// Whether it speaks MQTT 5.
    is_5: bool,
    quality: u64,
}

impl Client {
    /// A client on `mqtt` for Node, by the options of `clients/node/mqtt.mjs`.
    async fn node(stack: &TestStack, options: &Value) -> Self {
        Self::of(node(stack, "mqtt.mjs", &[&options.to_string()]).await, options)
    }

    /// A client on `paho-mqtt`, by the options of `clients/python/mqtt.py`.
    async fn python(stack: &TestStack, options: &Value) -> Self {
        Self::of(python(stack, "mqtt.py", &[&options.to_string()]).await, options)
    }

    fn of(program: Program, options: &Value) -> Self {
        Self { program, is_5: options["version"] == 5, quality: options["qos"].as_u64().unwrap_or(1) }
    }

    /// Its next fact, which has to have this member.
    async fn fact(&mut self, name: &str) -> Value {
        let fact = self.program.json().await;
        fact.get(name).cloned().unwrap_or_else(|| panic!("instead of {name:?} the script said {fact}"))
    }

    /// Waits until it is connected and subscribed.
    async fn subscribed(&mut self, topics: usize) {
        self.fact("connected").await;
        assert_eq!(self.fact("granted").await, json!(vec![self.quality; topics]));
    }

    /// The next message as it came, and the event in it, which is checked against its properties.
    async fn message(&mut self) -> (Value, Event) {
        let mut found = self.fact("message").await;
        let event = message(found["event"].take());
        let expected = json!({
            "contentType": "application/cloudevents+json",
            "text": true,
            "user": {"epoch": event.epoch, "offset": event.offset.to_string()},
        });
        assert_eq!(found["properties"], if self.is_5 { expected } else { Value::Null }, "{found}");
        assert_eq!(found["quality"], self.quality, "{found}");
        (found, event)
    }

    /// Waits for its end.
    async fn ends(self) {
        self.program.succeeds().await;
    }
}

/// Clients of every version, transport and quality, on these topics, until they have so many messages.
async fn one_of_each(stack: &TestStack, topics: &[String], messages: usize) -> Vec<Client> {
    let options = |version: u64, transport: &str, qos: u64| json!({"version": version, "transport": transport, "qos": qos, "topics": topics, "messages": messages});
    let mut clients = Vec::new();
    for (version, transport, quality) in [(4, "mqtt", 0), (4, "mqtt_ws", 1), (5, "mqtt", 1), (5, "mqtt_ws", 0)] {
        clients.push(Client::node(stack, &options(version, transport, quality)).await);
    }
    for (version, transport, quality) in [(3, "mqtt", 1), (3, "mqtt_ws", 0), (5, "mqtt", 0), (5, "mqtt_ws", 1)] {
        clients.push(Client::python(stack, &options(version, transport, quality)).await);
    }
    for client in &mut clients {
        client.subscribed(topics.len()).await;
    }
    clients
}

/// Sets options of a namespace by the command.
async fn set_namespace(stack: &TestStack, namespace: &str, options: &[&str]) {
    let mut command = Command::new(binaries::path("carillon").await);
    let ready_file = stack.ready_file();
    command.args(["namespace", "set", namespace]).args(options).arg("--ready-file").arg(&ready_file);
    let ended = Program::start("carillon namespace set", &mut command).ended().await;
    let program::Ended { status, errors, .. } = ended;
    assert!(status.success(), "{status}: {errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_transport_and_quality_gets_what_is_published() {
    let stack = TestStack::start().await;
    let mut socket = stack.connect().await;
    for channel in ["orders/42", "orders/eu/43", "news"] {
        socket.subscribe(channel).await;
    }
    let topics = [stack.topic("orders/#"), stack.topic("news")];
    let clients = one_of_each(&stack, &topics, 3).await;
    // No filter matches the first two.
    for channel in ["newspaper", "news/today", "orders/42", "orders/eu/43", "news"] {
        stack.publish(channel, &json!({"on": channel})).await;
    }
    let mut expected = socket.events(3).await;
    expected.sort_by(|one, other| one.channel.cmp(&other.channel));
    for mut client in clients {
        let mut events = Vec::new();
        for _ in 0..3 {
            let (found, event) = client.message().await;
            assert_eq!((&found["topic"], &found["retain"]), (&json!(stack.topic(&event.channel)), &json!(false)));
            events.push(event);
        }
        // Each channel is a shard of its own: between channels there is no order.
        events.sort_by(|one, other| one.channel.cmp(&other.channel));
        assert_eq!(events, expected);
        client.ends().await;
    }
    stack.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_message_is_retained_where_the_namespace_says_so() {
    let stack = TestStack::start().await;
    set_namespace(&stack, "kept", &["retain=yes"]).await;
    let exact = |channel: &str, messages| json!({"version": 5, "qos": 1, "topics": [stack.topic(channel)], "messages": messages});
    let mut live = Client::node(&stack, &exact("kept/1", 3)).await;
    live.subscribed(1).await;
    for number in 1..=2 {
        stack.publish("kept/1", &json!(number)).await;
        let (found, event) = live.message().await;
        assert_eq!((&found["retain"], event.offset), (&json!(false), number), "who listens gets it as it comes");
    }
    // Who comes later gets the newest at once, and not on a filter with wildcards: so does IoT Core.
    let mut late = Client::node(&stack, &exact("kept/1", 2)).await;
    late.subscribed(1).await;
    let (found, event) = late.message().await;
    assert_eq!((&found["retain"], event.offset, &event.event["data"]), (&json!(true), 2, &json!(2)));
    let mut old =
        Client::python(&stack, &json!({"version": 3, "qos": 1, "topics": [stack.topic("kept/1")], "messages": 1})).await;
    old.subscribed(1).await;
    let (found, event) = old.message().await;
    assert_eq!((&found["retain"], event.offset), (&json!(true), 2));
    let mut wide = Client::node(&stack, &exact("kept/#", 1)).await;
    wide.subscribed(1).await;
    stack.publish("kept/1", &json!(3)).await;
    for client in [&mut live, &mut late, &mut wide] {
        let (found, event) = client.message().await;
        assert_eq!((&found["retain"], event.offset), (&json!(false), 3));
    }

    // Everywhere else nothing is kept.
    let mut live = Client::node(&stack, &exact("orders/1", 2)).await;
    live.subscribed(1).await;
    stack.publish("orders/1", &json!(1)).await;
    assert_eq!(live.message().await.1.offset, 1);
    let mut late = Client::node(&stack, &exact("orders/1", 1)).await;
    late.subscribed(1).await;
    stack.publish("orders/1", &json!(2)).await;
    for client in [&mut live, &mut late] {
        let (found, event) = client.message().await;
        assert_eq!((&found["retain"], event.offset), (&json!(false), 2));
    }
    stack.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_publishes_reaches_the_subscribers_of_all_protocols() {
    const CHANNEL: &str = "devices/7";
    let stack = TestStack::start().await;
    let (mut socket, mut stream) = (stack.connect().await, stack.stream(&[CHANNEL]).await);
    socket.subscribe(CHANNEL).await;
    stream.subscribed().await;
    let options = json!({"version": 5, "qos": 1, "topics": [stack.topic(CHANNEL)]});
    let mut subscriber = Client::node(&stack, &options).await;
    subscriber.subscribed(1).await;

    let topic = stack.publish_topic(CHANNEL);
    let publish = |version: u64, client: &str, payload: &Value| {
        let publish = [json!({"topic": topic, "payload": payload.to_string()})];
        json!({"version": version, "client": client, "publish": publish, "messages": 0})
    };
    let event = json!({
        "specversion": "1.0", "id": "reading-1", "source": "/sensor", "type": "reading", "subject": CHANNEL, "data": {"celsius": 21},
    });
    let mut received = Vec::new();
    // Every way to publish, each with what its event has to be: source, type and data.
    for (number, expected) in [
        json!(["mqtt:till-1", "carillon.message", {"total": 1}]),
        json!(["mqtt:till-2", "carillon.message", "two"]),
        json!(["/sensor", "reading", {"celsius": 21}]),
        json!(["mqtt:till-4", "carillon.message", [4]]),
        json!(["mqtt:n/a", "carillon.message", 5]),
    ]
    .into_iter()
    .enumerate()
    {
        let data = &expected[2];
        match number {
            0 => Client::node(&stack, &publish(4, "till-1", data)).await.ends().await,
            1 => Client::python(&stack, &publish(3, "till-2", data)).await.ends().await,
            2 => Client::python(&stack, &publish(5, "till-3", &event)).await.ends().await,
            3 => Client::node(&stack, &publish(5, "till-4", data)).await.ends().await,
            _ => {
                let facts = python(&stack, "iot_data.py", &[&topic, &data.to_string()]).await.succeeds().await;
                assert_eq!(facts, [json!({"published": topic, "status": 200})]);
            }
        }
        let seen = socket.event().await;
        let found = [&seen.event["source"], &seen.event["type"], &seen.event["data"]];
        assert_eq!(json!(found), expected, "{seen:?}");
        assert_eq!(stream.message().await, seen);
        assert_eq!(subscriber.message().await.1, seen);
        received.push(seen);
    }
    carillon_tests::story::assert_dense(&received, 0);
    assert_eq!(received[2].event["id"], "reading-1");
    stack.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_publishes_to_mqtt_subscribers_too() {
    let stack = TestStack::start().await;
    let topics = [stack.topic("direct/1")];
    let mut clients = Vec::new();
    for version in [4, 5] {
        let options = json!({"version": version, "qos": 1, "topics": topics, "messages": 1});
        let mut client = Client::node(&stack, &options).await;
        client.subscribed(1).await;
        clients.push(client);
    }
    let facts = python(&stack, "iot_data.py", &[&topics[0], r#"{"by":"hand"}"#]).await.succeeds().await;
    assert_eq!(facts, [json!({"published": topics[0], "status": 200})]);
    for mut client in clients {
        let found = client.fact("message").await;
        assert_eq!((&found["topic"], &found["event"]), (&json!(topics[0]), &json!({"by": "hand"})));
        client.ends().await;
    }
    stack.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_should_not_have_published_is_kept_for_people_and_disturbs_nobody() {
    const CHANNEL: &str = "devices/7";
    // A minute between the tries of an asynchronous invocation is a second here.
    let mut stack = TestStack::start_with(|options| options.time_scale = NonZeroU32::new(60).expect("it is not 0")).await;
    stack.allow("PublishFunction");
    stack.allow("PublishFailureQueue");
    let mut stream = stack.stream(&[CHANNEL]).await;
    stream.subscribed().await;
    let options = json!({"version": 5, "qos": 1, "topics": [stack.topic(CHANNEL)], "messages": 1});
    let mut subscriber = Client::node(&stack, &options).await;
    subscriber.subscribed(1).await;

    let topic = stack.publish_topic(CHANNEL);
    // Over the limit of a message, and within that of IoT Core.
    let large = json!({"text": "x".repeat(31 * 1024)}).to_string();
    let foreign =
        json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "another", "data": 1}).to_string();
    let bad = ["this is no JSON", "", &large, &foreign];
    let mut publish: Vec<_> = bad.iter().map(|payload| json!({"topic": topic, "payload": payload})).collect();
    publish.push(json!({"topic": topic, "payload": "\"good\""}));
    let published = publish.len();
    let options = json!({"version": 5, "client": "till-7", "publish": publish, "messages": 0});
    let mut device = Client::node(&stack, &options).await;
    device.fact("connected").await;
    for _ in 0..published {
        // MQTT knows no more of a message than that the broker has it.
        assert_eq!(device.fact("published").await, topic);
    }
    device.ends().await;
    let event = stream.message().await;
    assert_eq!((event.offset, &event.event["data"]), (1, &json!("good")));
    assert_eq!(subscriber.message().await.1, event);

    let queue = "PublishFailureQueue";
    eventually("the records of what was refused", || {
        let length = stack.queue_length(queue);
        std::future::ready(if length == bad.len() { Ok(()) } else { Err(format!("{length} messages in {queue}")) })
    })
    .await;
    // Each of the three tries is in the log, as something to count.
    let logged = stack.logged("PublishFunction");
    let failed: Vec<_> = logged.iter().filter(|line| line["device_messages.failed"] == 1).collect();
    assert_eq!(failed.len(), 3 * bad.len(), "{failed:#?}");
    for text in ["payload", "subject", "30720"] {
        assert!(failed.iter().any(|line| line["error.message"].as_str().is_some_and(|message| message.contains(text))), "{text}");
    }

    // Beyond IoT Core's own limit the connection ends, and nothing is published.
    let options = json!({"version": 5, "publish": [{"topic": topic, "payload": 128 * 1024 + 1}]});
    let mut device = Client::node(&stack, &options).await;
    device.fact("connected").await;
    loop {
        let fact = device.program.json().await;
        assert!(fact.get("published").is_none(), "{fact}");
        if fact.get("closed").is_some() {
            break;
        }
    }
    assert_eq!(stack.queue_length(queue), bad.len());
    stack.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused() {
    let stack = TestStack::start().await;
    let wrong = "x".repeat(stack.token().len());
    for (version, reason) in NOT_AUTHORIZED {
        for transport in ["mqtt", "mqtt_ws"] {
            for (user, password) in [("token", &*wrong), ("token", ""), ("root", stack.token())] {
                let options = json!({"version": version, "transport": transport, "user": user, "password": password});
                let mut client = Client::node(&stack, &options).await;
                assert_eq!(client.fact("error").await, reason, "{options}");
            }
        }
    }
    for version in [3, 5] {
        let mut client = Client::python(&stack, &json!({"version": version, "password": wrong})).await;
        assert_eq!(client.program.json().await, json!({"connected": false, "reason": "Not authorized"}));
        client.ends().await;
    }
    stack.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_not_the_stack_s_own_end_the_connection() {
    let stack = TestStack::start().await;
    let mut socket = stack.connect().await;
    socket.subscribe("orders/42").await;
    // Another stack's topics, and those on which only the stack itself publishes.
    let foreign =
        ["another/p/orders/42".to_owned(), stack.topic("orders/42"), stack.publish_topic("orders/42").replace("/p/", "/q/")];
    for (version, reason) in NOT_AUTHORIZED {
        for topic in &foreign {
            let options = json!({"version": version, "publish": [{"topic": topic, "payload": "1"}]});
            let mut client = Client::node(&stack, &options).await;
            client.fact("connected").await;
            if version == 5 {
                assert_eq!(client.fact("disconnected").await, reason, "{topic}");
            }
            client.fact("closed").await;
        }
        for topic in ["#", "another/c/orders/42", &stack.publish_topic("orders/42")] {
            let options = json!({"version": version, "topics": [topic]});
            let mut client = Client::node(&stack, &options).await;
            client.fact("connected").await;
            loop {
                let fact = client.program.json().await;
                assert!(fact.get("message").is_none(), "{topic}: {fact}");
                // 128 and above are refusals (MQTT 3.1.1 section 3.9.3, MQTT 5 section 3.9.3).
                let granted = fact["granted"][0].as_u64();
                assert!(granted.is_none_or(|granted| granted >= 128), "{topic}: {fact}");
                if fact.get("closed").is_some() {
                    break;
                }
            }
        }
    }
    stack.publish("orders/42", &json!("the only one")).await;
    let event = socket.event().await;
    assert_eq!((event.offset, &event.event["data"]), (1, &json!("the only one")));
    stack.shutdown().await;
}
