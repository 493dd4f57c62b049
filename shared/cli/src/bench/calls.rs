//! `calls`: what each operation asks of AWS, as the local stack counts it, with the functions warm.
//!
//! An operation's calls are all that come from its beginning until none has come for a while: a publish includes the drains that it
//! wakes. Times play no part in it.

use super::function::IDENTITY;
use super::options::Subject;
use super::progress::Progress;
use super::project::Project;
use super::report::Report;
use super::stack;
use crate::commands::request_failure;
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use carillon_aws::config::{AWS_ENDPOINT_URL, AwsConfig};
use carillon_aws::environment::Environment;
use carillon_aws::store::DynamoStore;
use carillon_client::http::{Message, Publisher};
use carillon_client::items::Incoming;
use carillon_client::websocket::Client;
use carillon_core::channel::Channel;
use carillon_core::namespace::NamespaceOptions;
use carillon_engine::ports::Namespaces;
use carillon_local::calls::CallCount;
use carillon_local::stack::{Ready, Stack};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

/// Connections of the larger fan-out.
const MANY: usize = 100;

/// Connections that are made at once.
const CONNECTING: usize = 8;

/// How long a stream lasts: the least that the template takes.
const STREAM_SECONDS: &str = "10";

/// What one operation asked for.
#[derive(Debug, Serialize)]
struct Figures {
    operation: &'static str,
    dynamodb_calls: u64,
    read_units: f64,
    write_units: f64,
    sqs_calls: u64,
    posts: u64,
    iot_publishes: u64,
    calls: Vec<CallCount>,
}

/// Counts every operation.
pub(super) async fn measure(project: &Project) -> Outcome<Report> {
    let running = stack::start(project, &[("StreamSeconds", STREAM_SECONDS)]).await?;
    let counted = Counting { stack: &running, project, figures: Vec::new() }.operations().await;
    stack::end(running).await;
    Ok(report(&counted?))
}

struct Counting<'a> {
    stack: &'a Stack,
    project: &'a Project,
    figures: Vec<Figures>,
}

impl Counting<'_> {
    async fn operations(mut self) -> Outcome<Vec<Figures>> {
        let progress = Progress::begin("counting calls", 0);
        let ready = self.stack.ready();
        let publisher = stack::publisher(ready)?;
        // `quiet` sends nothing to MQTT; `bench` has every option as it comes.
        let [lonely, one, many, mqtt] =
            ["quiet/lonely", "quiet/one", "quiet/many", "bench/mqtt"].map(|text| Channel::parse(text).expect("a channel"));
        self.without_mqtt(&lonely).await?;

        // Once for nothing: environments start, options are read, epochs begin.
        let (first, mut from_first) = stack::websocket_subscriber(ready, &one).await?;
        for channel in [&lonely, &one, &many, &mqtt] {
            publish(&publisher, channel, None).await?;
        }
        stack::delivery(&mut from_first).await?;
        stack::settled(self.stack).await?;

        let (second, _from_second) = self.count("connect", stack::websocket(ready)).await?;
        self.count("subscribe, the channel's first", async { subscribe(&second, &many).await }).await?;
        self.count("subscribe, a further one", async { subscribe(&first, &many).await }).await?;
        self.count("publish, nobody listens", publish(&publisher, &lonely, None)).await?;
        self.count("publish with an id, nobody listens", publish(&publisher, &lonely, Some("id-1"))).await?;
        self.count("the same id again", publish(&publisher, &lonely, Some("id-1"))).await?;
        self.count("publish to 1 connection", async {
            publish(&publisher, &one, None).await?;
            stack::delivery(&mut from_first).await
        })
        .await?;
        let received = subscribers(ready, &many, MANY - 2).await?;
        stack::settled(self.stack).await?;
        self.count("publish to 100 connections", publish(&publisher, &many, None)).await?;
        self.count("publish over MQTT", publish(&publisher, &mqtt, None)).await?;
        self.count("history, one page", async { first.history(&many, None, None).await.map_err(request_failure) }).await?;
        self.count("unsubscribe", async { second.unsubscribe(&many).await.map_err(request_failure) }).await?;
        self.count("disconnect with two subscriptions", async {
            first.close().await;
            Ok(())
        })
        .await?;

        // A stream goes on until its planned end, whoever has left, and asks for things meanwhile; then its environment is warm.
        let stream = async |since| stack::one_stream(ready, &mqtt, since).await;
        stack::over(stream(None).await?).await?;
        let mut streaming = self.count("SSE stream", stream(None)).await?;
        publish(&publisher, &mqtt, None).await?;
        let position = stack::delivery(&mut streaming.1).await?.position;
        stack::over(streaming).await?;
        let resumed = self.count("SSE stream, resumed", stream(Some(position))).await?;
        stack::over(resumed).await?;
        drop((progress, received, second));
        // What they leave behind is cleared away before the functions end.
        stack::settled(self.stack).await?;
        Ok(self.figures)
    }

    /// Counts the calls of one operation.
    async fn count<T>(&mut self, operation: &'static str, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        self.stack.reset_calls();
        let done = work.await?;
        let calls = stack::settled(self.stack).await?;
        self.figures.push(Figures::new(operation, calls));
        Ok(done)
    }

    async fn without_mqtt(&self, channel: &Channel) -> Outcome {
        let failed = |error| Failure::new(Exit::Failed, Context::new("cannot set the namespace's options", error));
        let endpoint = [(AWS_ENDPOINT_URL, self.stack.ready().aws.as_str())];
        let environment: Environment = IDENTITY.into_iter().chain(endpoint).collect();
        let config = AwsConfig::from_environment(&environment)
            .map_err(|error| failed(Box::<dyn std::error::Error + Send + Sync>::from(error)))?;
        let resource = |id| -> Outcome<String> {
            self.stack.template().resources.get(id).cloned().map_or_else(|| self.project.resource(id).map(str::to_owned), Ok)
        };
        let store = DynamoStore::new(&config, resource("LogTable")?, resource("RegistryTable")?);
        let mut options = NamespaceOptions::default();
        options.set("mqtt", 0).map_err(|fault| failed(fault.into()))?;
        store.set_namespace(&channel.namespace(), &options).await.map_err(|error| failed(error.into()))
    }
}

impl Figures {
    fn new(operation: &'static str, calls: Vec<CallCount>) -> Self {
        let of = |service: &'static str| calls.iter().filter(move |row| row.service == service);
        let count = |service| of(service).map(|row| row.count).sum();
        Self {
            operation,
            dynamodb_calls: count("dynamodb"),
            read_units: of("dynamodb").map(|row| row.read_units).sum(),
            write_units: of("dynamodb").map(|row| row.write_units).sum(),
            sqs_calls: count("sqs"),
            posts: count("execute-api"),
            iot_publishes: count("iotdata"),
            calls,
        }
    }
}

async fn subscribe(client: &Client, channel: &Channel) -> Outcome {
    client.subscribe(channel, None).await.map(drop).map_err(request_failure)
}

/// Connections that are subscribed to a channel; they stay for as long as this value.
async fn subscribers(ready: &Ready, channel: &Channel, count: usize) -> Outcome<Vec<(Client, Incoming)>> {
    let connecting = (0..count).map(|_| stack::websocket_subscriber(ready, channel));
    stream::iter(connecting).buffer_unordered(CONNECTING).try_collect().await
}

async fn publish(publisher: &Publisher, channel: &Channel, id: Option<&str>) -> Outcome {
    let data = RawValue::from_string(r#"{"order":42,"state":"shipped"}"#.to_owned()).map_err(std::io::Error::from)?;
    let message = Message { channel: channel.to_string(), id: id.map(str::to_owned), kind: None, data: Some(data) };
    stack::publish(publisher, message).await
}

fn report(figures: &[Figures]) -> Report {
    let rows = figures.iter().map(|of| {
        let counts = [of.sqs_calls, of.posts, of.iot_publishes].map(|count| count.to_string());
        let [sqs, posts, iot] = counts;
        let units = [of.read_units, of.write_units].map(|units| units.to_string());
        let [read, write] = units;
        vec![of.operation.to_owned(), of.dynamodb_calls.to_string(), read, write, sqs, posts, iot]
    });
    Report {
        subject: Subject::Calls,
        columns: vec!["operation", "DynamoDB calls", "read units", "write units", "SQS sends", "posts", "IoT publishes"],
        rows: rows.collect(),
        notes: vec![
            "The functions are warm. A publish includes the drains that it wakes; where nobody listens and MQTT is off, there is none.".to_owned(),
            "SQS's receives and deletes are the event source mapping's, which AWS bills to the queue's owner, and are not in here; neither \
             are function invocations."
                .to_owned(),
        ],
        values: json!(figures),
        chart: None,
    }
}
