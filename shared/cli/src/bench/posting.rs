//! What the posts of `deliver` are compared with: loops that do nothing else, each in a process of its own.

use super::function::IDENTITY;
use super::options::Posting;
use super::sink::Sample;
use aws_sdk_apigatewaymanagement::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_apigatewaymanagement::primitives::Blob;
use aws_sdk_apigatewaymanagement::{Client, Config};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

type Failed = Box<dyn Error + Send + Sync>;

/// The id of a connection, as long as API Gateway's are and with what has to be encoded in them.
pub(super) fn connection_id(number: u32) -> String {
    format!("B{number:014}=")
}

/// hyper, its connections held by hand, a request that was signed once and goes out again and again: what posting costs at the least.
///
/// The first line that it gets is the post to repeat, as JSON; after that every line is a round.
///
/// # Errors
/// When a post is not answered with 200.
pub(super) async fn bare(posting: &Posting) -> Result<(), Failed> {
    let endpoint: Uri = posting.endpoint.parse()?;
    let authority = endpoint.authority().ok_or("the endpoint has no host")?.to_string();
    let mut input = Input::new();
    let Some(line) = input.next().await? else { return Ok(()) };
    let sample: Sample = serde_json::from_str(&line)?;
    let (headers, body) = (headers(&sample)?, Bytes::from(sample.body));
    let mut connections = Vec::new();
    for _ in 0..posting.parallel {
        let socket = TcpStream::connect(&authority).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        connections.push(sender);
    }
    answer("ready").await?;
    while input.next().await?.is_some() {
        let count = connections.len();
        let shares = connections.iter_mut().enumerate().map(|(index, sender)| {
            let (path, headers, body) = (sample.path.as_str(), &headers, &body);
            async move {
                for _ in (index..posting.posts as usize).step_by(count) {
                    bare_post(sender, path, headers, body).await?;
                }
                Ok::<(), Failed>(())
            }
        });
        futures_util::future::try_join_all(shares).await?;
        answer("done").await?;
    }
    Ok(())
}

/// The AWS SDK for Rust, with its defaults, over its own HTTP client.
///
/// The first line that it gets is the post whose body it sends, as JSON; after that every line is a round.
///
/// # Errors
/// When a post is not taken.
pub(super) async fn sdk(posting: &Posting) -> Result<(), Failed> {
    let variable = |wanted| IDENTITY.iter().find(|(name, _)| *name == wanted).map_or("", |(_, value)| value);
    let token = Some(variable("AWS_SESSION_TOKEN").to_owned());
    let credentials =
        Credentials::new(variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"), token, None, "benchmark");
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(credentials)
        .endpoint_url(&posting.endpoint)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    let client = Client::from_conf(config);
    let mut input = Input::new();
    let Some(line) = input.next().await? else { return Ok(()) };
    let sample: Sample = serde_json::from_str(&line)?;
    answer("ready").await?;
    while input.next().await?.is_some() {
        let posts = stream::iter(0..posting.posts).map(|number| {
            let data = Blob::new(sample.body.as_bytes());
            client.post_to_connection().connection_id(connection_id(number)).data(data).send()
        });
        posts.buffer_unordered(posting.parallel as usize).map_ok(drop).try_collect::<()>().await?;
        answer("done").await?;
    }
    Ok(())
}

async fn bare_post(sender: &mut SendRequest<Full<Bytes>>, path: &str, headers: &HeaderMap, body: &Bytes) -> Result<(), Failed> {
    let mut request = Request::post(path).body(Full::new(body.clone()))?;
    *request.headers_mut() = headers.clone();
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(format!("a post was answered with {}", response.status()).into());
    }
    response.into_body().collect().await?;
    Ok(())
}

fn headers(sample: &Sample) -> Result<HeaderMap, Failed> {
    let mut headers = HeaderMap::new();
    for (name, value) in &sample.headers {
        headers.insert(name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?);
    }
    Ok(headers)
}

struct Input(tokio::io::Lines<BufReader<tokio::io::Stdin>>);

impl Input {
    fn new() -> Self {
        Self(BufReader::new(tokio::io::stdin()).lines())
    }

    async fn next(&mut self) -> io::Result<Option<String>> {
        self.0.next_line().await
    }
}

async fn answer(line: &str) -> io::Result<()> {
    let mut output = tokio::io::stdout();
    output.write_all(format!("{line}\n").as_bytes()).await?;
    output.flush().await
}
