//! The SSE client against a server that plays a script: what it asks for, when it comes back, what it hands over.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use carillon_client::backoff::Backoff;
use carillon_client::items::{Delivery, End, Incoming, Item, Notice, Subscription};
use carillon_client::sse::{ConnectError, Options, connect};
use carillon_client::token::Token;
use carillon_core::channel::Channel;
use carillon_core::fault::ErrorCode;
use carillon_core::position::{Epoch, Position};
use futures_util::{StreamExt, stream};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;

/// Nothing here takes long; what takes so long never comes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not come within {PATIENCE:?}"))
}

/// What the server does with a request.
#[derive(Clone)]
enum Answer {
    Status(u16, &'static str),
    /// A stream of these bytes, then its end.
    Ends(Vec<u8>),
    /// A stream of these bytes, then a broken connection.
    Breaks(Vec<u8>),
    /// A stream of these bytes, then nothing.
    Stays(Vec<u8>),
    /// A page.
    Page,
}

/// What was asked: the query and the last event id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    query: String,
    last_event_id: Option<String>,
}

type Play = dyn Fn(&Asked) -> Option<Answer> + Send + Sync;

#[derive(Clone)]
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    play: Arc<Play>,
}

impl Server {
    /// A server that answers with these, one after the other.
    async fn script(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers = Mutex::new(VecDeque::from_iter(answers));
        Self::play(move |_| answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front()).await
    }

    async fn play(play: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/base", listener.local_addr().expect("bound"));
        let server = Self { url, asked: Arc::default(), play: Arc::new(play) };
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn options(&self, channels: Vec<(Channel, Option<Position>)>) -> Options {
        let backoff = Backoff { first: Duration::from_millis(2), most: Duration::from_millis(10) };
        Options { reconnect: Some(backoff), ..Options::new(&self.url, Some(Token::new("secret")), channels) }
    }

    /// A client of one channel, without a position.
    async fn connect(&self) -> (Subscription, Incoming) {
        soon("a stream", connect(self.options(vec![(channel("a"), None)]))).await.expect("a stream")
    }

    /// Why there is no stream of one channel.
    async fn refused(&self) -> ConnectError {
        soon("an answer", connect(self.options(vec![(channel("a"), None)]))).await.map(|_| ()).expect_err("refused")
    }
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    assert_eq!((request.method().as_str(), request.uri().path()), ("GET", "/base/sse"));
    assert_eq!(request.headers()["authorization"], "Bearer secret");
    assert_eq!(request.headers()["accept"], "text/event-stream");
    let last_event_id = request.headers().get("last-event-id").map(|id| id.to_str().expect("text").to_owned());
    let asked = Asked { query: request.uri().query().unwrap_or_default().to_owned(), last_event_id };
    let answer = (server.play)(&asked);
    server.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    let events = Response::builder().header("content-type", "text/event-stream; charset=utf-8");
    let part = |bytes| Ok::<_, io::Error>(Bytes::from(bytes));
    let response = match answer
        .unwrap_or(Answer::Status(404, r#"{"error":{"code":"not_found","message":"the script is over","retry":false}}"#))
    {
        Answer::Status(status, body) => Response::builder().status(status).body(Body::from(body)),
        Answer::Ends(bytes) => events.body(Body::from_stream(stream::iter([part(bytes)]))),
        Answer::Breaks(bytes) => {
            let breaks = stream::once(async move { part(bytes) }).chain(stream::once(async {
                // Whoever waits lets what came before leave.
                tokio::task::yield_now().await;
                Err(io::Error::other("cut"))
            }));
            events.body(Body::from_stream(breaks))
        }
        Answer::Stays(bytes) => {
            let stays = stream::unfold(Some(bytes), move |bytes| async move {
                match bytes {
                    Some(bytes) => Some((part(bytes), None)),
                    None => std::future::pending().await,
                }
            });
            events.body(Body::from_stream(stays))
        }
        Answer::Page => Response::builder().header("content-type", "text/html").body(Body::from("<html>")),
    };
    response.expect("a response")
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("a channel")
}

fn at(offset: u64) -> Position {
    Position::new(Epoch(1_700), offset)
}

/// The parts of a stream, as the server writes them.
fn begin(offset: u64, recovered: &str) -> String {
    let data = format!(r#"{{"channels":[{{"channel":"a","epoch":"1700","offset":{offset}{recovered}}}]}}"#);
    format!(": carillon\n\nretry: 1\n\nevent: carillon.subscribed\nid: v{offset}\ndata: {data}\n\n")
}

fn message(position: Position) -> String {
    let Position { epoch, offset } = position;
    let data = format!(r#"{{"id":"{position}","subject":"a","data":"🔔","epoch":"{epoch}","offset":{offset}}}"#);
    format!("id: v{offset}\ndata: {data}\n\n")
}

fn messages(offsets: impl IntoIterator<Item = u64>) -> String {
    offsets.into_iter().map(|offset| message(at(offset))).collect()
}

async fn position(incoming: &mut Incoming) -> Position {
    let Delivery { channel: found, position, event, .. } = soon("a message", incoming.next_delivery()).await.expect("a message");
    assert_eq!(found, channel("a"));
    assert_eq!(event.as_str(), format!(r#"{{"id":"{position}","subject":"a","data":"🔔"}}"#));
    position
}

async fn positions(incoming: &mut Incoming, count: usize) -> Vec<Position> {
    let mut positions = Vec::new();
    while positions.len() < count {
        positions.push(position(incoming).await);
    }
    positions
}

async fn notice(incoming: &mut Incoming) -> Notice {
    match soon("a notice", incoming.next()).await {
        Some(Item::Notice(notice)) => notice,
        other => panic!("no notice but {other:?}"),
    }
}

async fn subscribed(incoming: &mut Incoming, offset: u64, recovered: Option<bool>) {
    let expected = Notice::Subscribed { channel: channel("a"), position: Some(at(offset)), recovered };
    assert_eq!(notice(incoming).await, expected);
}

/// Takes the notice of a cut, and answers with its reason.
async fn disconnected(incoming: &mut Incoming) -> String {
    match notice(incoming).await {
        Notice::Disconnected { reason, planned: false, .. } => reason,
        other => panic!("no cut but {other:?}"),
    }
}

#[tokio::test]
async fn messages_come_in_order_and_repeats_are_dropped_and_told() {
    let stream = begin(4, "") + &messages([5, 5, 6]) + ":\n\n" + &messages([4, 7]);
    let server = Server::script([Answer::Stays(stream.into_bytes())]).await;
    let (subscription, mut incoming) = server.connect().await;
    subscribed(&mut incoming, 4, None).await;
    assert_eq!(position(&mut incoming).await, at(5));
    assert_eq!(notice(&mut incoming).await, Notice::Repeat { channel: channel("a"), position: at(5) });
    assert_eq!(position(&mut incoming).await, at(6));
    assert_eq!(notice(&mut incoming).await, Notice::Repeat { channel: channel("a"), position: at(4) });
    assert_eq!(position(&mut incoming).await, at(7));
    soon("the end", subscription.close()).await;
    assert_eq!(soon("the end", incoming.next()).await, None);
    assert_eq!(server.asked(), [Asked { query: "channel=a".to_owned(), last_event_id: None }]);
}

#[tokio::test]
async fn a_stream_that_is_cut_anywhere_goes_on_after_the_last_whole_event() {
    // The n-th stream breaks one byte later than the one before, until all of it came.
    let whole = begin(0, "").len() + messages(1..=3).len();
    let length = Mutex::new(0_usize);
    let server = Server::play(move |asked| {
        let taken: u64 = asked.last_event_id.as_deref().map_or(0, |id| id.trim_start_matches('v').parse().expect("an id"));
        let mut length = length.lock().unwrap_or_else(PoisonError::into_inner);
        *length += 1;
        let recovered = if asked.last_event_id.is_some() { r#","recovered":true"# } else { "" };
        let stream = (begin(taken, recovered) + &messages(taken + 1..=taken + 3)).into_bytes();
        if length.is_multiple_of(2) {
            Some(Answer::Breaks(stream[..stream.len().min(*length)].to_vec()))
        } else {
            Some(Answer::Ends(stream[..stream.len().min(*length)].to_vec()))
        }
    })
    .await;
    let (_subscription, mut incoming) = server.connect().await;
    let mut expected = 0;
    let mut cuts = 0;
    while cuts < whole {
        match soon("an item", incoming.next()).await.expect("an item") {
            Item::Delivery(delivery) => {
                expected += 1;
                assert_eq!(delivery.position, at(expected), "after {cuts} cuts");
            }
            Item::Notice(Notice::Disconnected { planned: false, .. }) => cuts += 1,
            Item::Notice(Notice::Reconnected | Notice::Subscribed { .. }) => {}
            other => panic!("{other:?} after {cuts} cuts"),
        }
    }
    assert!(expected > 3, "messages came over many streams: {expected}");
}

#[tokio::test]
async fn the_planned_end_is_no_trouble_and_its_wait_is_kept() {
    let end = "event: carillon.end\nid: x\ndata: {\"reconnect_ms\":3}\n\n";
    let first = begin(4, "") + &messages([5]) + end;
    let second = begin(5, r#","recovered":true"#) + &messages([6]);
    let server = Server::script([Answer::Stays(first.into_bytes()), Answer::Stays(second.into_bytes())]).await;
    let (_subscription, mut incoming) = server.connect().await;
    assert_eq!(position(&mut incoming).await, at(5));
    let planned = notice(&mut incoming).await;
    let Notice::Disconnected { planned: true, reconnect_in, .. } = planned else { panic!("{planned:?}") };
    assert_eq!(reconnect_in, Duration::from_millis(3));
    assert_eq!(notice(&mut incoming).await, Notice::Reconnected);
    assert_eq!(position(&mut incoming).await, at(6));
    assert_eq!(server.asked()[1].last_event_id.as_deref(), Some("x"));
}

#[tokio::test]
async fn a_hole_is_asked_for_by_position() {
    let first = begin(4, "") + &messages([5, 7]);
    let second = begin(5, r#","recovered":true"#) + &messages([6, 7]);
    let server = Server::script([Answer::Stays(first.into_bytes()), Answer::Stays(second.into_bytes())]).await;
    let (_subscription, mut incoming) = server.connect().await;
    assert_eq!(position(&mut incoming).await, at(5));
    assert_eq!(notice(&mut incoming).await, Notice::Hole { channel: channel("a"), position: at(5), found: at(7) });
    assert_eq!(disconnected(&mut incoming).await, "messages are missing");
    assert_eq!(positions(&mut incoming, 2).await, [at(6), at(7)]);
    assert_eq!(server.asked()[1], Asked { query: "channel=a&since=1700-5".to_owned(), last_event_id: None });
}

#[tokio::test]
async fn gaps_are_told_and_a_new_epoch_continues_the_one_before() {
    let next = Position::new(Epoch(1_800), 1);
    let gap = "event: carillon.gap\nid: g\ndata: {\"channel\":\"a\",\"after\":{\"epoch\":\"1700\",\"offset\":5},\"epoch\":\"1700\",\"offset\":8}\n\n";
    let unknown = "event: carillon.gap\nid: h\ndata: {\"channel\":\"a\",\"epoch\":\"1800\",\"offset\":4}\n\n";
    let stream = begin(4, "") + &messages([5]) + gap + &messages([9]) + &message(next) + unknown;
    let server = Server::script([Answer::Stays(stream.into_bytes())]).await;
    let (_subscription, mut incoming) = server.connect().await;
    subscribed(&mut incoming, 4, None).await;
    assert_eq!(position(&mut incoming).await, at(5));
    assert_eq!(notice(&mut incoming).await, Notice::Gap { channel: channel("a"), after: at(5), to: at(8) });
    assert_eq!(positions(&mut incoming, 2).await, [at(9), next]);
    let to = Position::new(Epoch(1_800), 4);
    assert_eq!(notice(&mut incoming).await, Notice::Gap { channel: channel("a"), after: next, to });
}

#[tokio::test]
async fn a_position_is_handed_in_and_told_where_it_cannot_be_continued() {
    let recovered = (begin(4, r#","recovered":true"#) + &messages([5])).into_bytes();
    let lost = (begin(90, r#","recovered":false"#) + &messages([91])).into_bytes();
    let server = Server::script([Answer::Breaks(recovered), Answer::Stays(lost)]).await;
    let options = server.options(vec![(channel("a"), Some(at(4)))]);
    let (_subscription, mut incoming) = soon("a stream", connect(options)).await.expect("a stream");
    subscribed(&mut incoming, 4, Some(true)).await;
    assert_eq!(position(&mut incoming).await, at(5));
    assert!(disconnected(&mut incoming).await.contains("the stream broke"));
    assert_eq!(notice(&mut incoming).await, Notice::Reconnected);
    assert_eq!(notice(&mut incoming).await, Notice::Unrecovered { channel: channel("a"), since: at(5), position: at(90) });
    assert_eq!(position(&mut incoming).await, at(91));
    let asked = server.asked();
    assert_eq!(asked[0], Asked { query: "channel=a&since=1700-4".to_owned(), last_event_id: None });
    assert_eq!(asked[1], Asked { query: "channel=a".to_owned(), last_event_id: Some("v5".to_owned()) });
}

#[tokio::test]
async fn errors_of_the_stream_are_waited_out_or_the_end() {
    let busy = "event: carillon.error\ndata: {\"code\":\"unavailable\",\"message\":\"no answer\",\"retry\":true,\"retry_after_ms\":7}\n\n";
    let over = "event: carillon.error\ndata: {\"code\":\"forbidden\",\"message\":\"no grant\",\"retry\":false}\n\n";
    let first = (begin(4, "") + &messages([5]) + busy).into_bytes();
    let second = (begin(5, r#","recovered":true"#) + &messages([6]) + over).into_bytes();
    let server = Server::script([Answer::Stays(first), Answer::Stays(second)]).await;
    let (_subscription, mut incoming) = server.connect().await;
    assert_eq!(position(&mut incoming).await, at(5));
    let cut = notice(&mut incoming).await;
    let Notice::Disconnected { reason, planned: false, reconnect_in } = cut else { panic!("{cut:?}") };
    assert_eq!(reason, "unavailable: no answer");
    assert!(reconnect_in >= Duration::from_millis(7), "{reconnect_in:?}");
    assert_eq!(position(&mut incoming).await, at(6));
    assert_eq!(notice(&mut incoming).await, Notice::Ended(End::Declined("forbidden: no grant".to_owned())));
    assert_eq!(soon("the end", incoming.next()).await, None);
}

#[tokio::test]
async fn an_answer_for_good_ends_the_client_with_the_servers_words() {
    const FAULT: &str = r#"{"error":{"code":"bad_request","message":"channel: is missing","retry":false}}"#;
    for status in [400, 401, 403, 404, 405] {
        let first = begin(4, "").into_bytes();
        let server = Server::script([
            Answer::Status(status, FAULT),
            Answer::Ends(first),
            Answer::Status(503, ""),
            Answer::Status(status, FAULT),
        ])
        .await;
        let error = server.refused().await;
        assert_eq!(error.is_refused_token(), matches!(status, 401 | 403));
        let ConnectError::Refused { status: found, fault } = error else { panic!("{error:?}") };
        assert_eq!((found, fault.code, &*fault.message), (status, ErrorCode::BadRequest, "channel: is missing"));

        let (_subscription, mut incoming) = server.connect().await;
        subscribed(&mut incoming, 4, None).await;
        assert_eq!(disconnected(&mut incoming).await, "the endpoint closed the stream");
        assert!(disconnected(&mut incoming).await.contains("503"));
        let text = "channel: is missing".to_owned();
        let end = if matches!(status, 401 | 403) { End::Refused(text) } else { End::Declined(text) };
        assert_eq!(notice(&mut incoming).await, Notice::Ended(end));
    }
}

#[tokio::test]
async fn what_is_no_stream_of_ours_is_told() {
    let server = Server::script([Answer::Page, Answer::Status(502, "Bad Gateway")]).await;
    let error = server.refused().await;
    assert!(matches!(&error, ConnectError::NoStream { found } if found == "text/html"), "{error:?}");
    let error = server.refused().await;
    assert!(matches!(&error, ConnectError::Foreign { status: 502, body } if body == "Bad Gateway"), "{error:?}");
}

#[tokio::test]
async fn a_silent_stream_is_left() {
    let first = begin(4, "").into_bytes();
    let second = (begin(4, r#","recovered":true"#) + &messages([5])).into_bytes();
    let server = Server::script([Answer::Stays(first), Answer::Stays(second)]).await;
    let silence = Duration::from_millis(50);
    let options = Options { silence, ..server.options(vec![(channel("a"), None)]) };
    let (_subscription, mut incoming) = soon("a stream", connect(options)).await.expect("a stream");
    subscribed(&mut incoming, 4, None).await;
    assert!(disconnected(&mut incoming).await.contains("silent for 0.05 s"));
    assert_eq!(position(&mut incoming).await, at(5));
}

#[tokio::test]
async fn without_reconnection_a_cut_is_the_end() {
    let server = Server::script([Answer::Ends(begin(4, "").into_bytes())]).await;
    let options = Options { reconnect: None, ..server.options(vec![(channel("a"), None)]) };
    let (_subscription, mut incoming) = soon("a stream", connect(options)).await.expect("a stream");
    subscribed(&mut incoming, 4, None).await;
    assert_eq!(notice(&mut incoming).await, Notice::Ended(End::Lost("the endpoint closed the stream".to_owned())));
}

#[tokio::test]
async fn events_that_cannot_be_read_do_no_harm() {
    let strange = "data: hello\n\nevent: carillon.new\ndata: {}\n\nevent: carillon.gap\ndata: []\n\nid: y\n\n";
    let other = message(at(9)).replace(r#""subject":"a""#, r#""subject":"b""#);
    let stream = begin(4, "") + strange + &other + &messages([5]);
    let server = Server::script([Answer::Stays(stream.into_bytes())]).await;
    let (_subscription, mut incoming) = server.connect().await;
    assert_eq!(position(&mut incoming).await, at(5));
}

#[tokio::test]
async fn every_channel_has_a_place_of_its_own() {
    let data = r#"{"channels":[{"channel":"a","epoch":"1700","offset":4},{"channel":"b","epoch":"1900","offset":0}]}"#;
    let of_b = message(Position::new(Epoch(1_900), 1)).replace(r#""subject":"a""#, r#""subject":"b""#);
    let stream = format!("event: carillon.subscribed\nid: v\ndata: {data}\n\n{of_b}{}", messages([5, 7]));
    let rest = messages([6, 7]);
    let begin = format!(
        "event: carillon.subscribed\ndata: {}\n\n{rest}",
        data.replace(r#""offset":4"#, r#""offset":5,"recovered":true"#)
            .replace(r#""offset":0"#, r#""offset":1,"recovered":true"#)
    );
    let server = Server::script([Answer::Stays(stream.into_bytes()), Answer::Stays(begin.into_bytes())]).await;
    let options = server.options(vec![(channel("b"), None), (channel("a"), None)]);
    let (_subscription, mut incoming) = soon("a stream", connect(options)).await.expect("a stream");
    let mut offsets = Vec::new();
    while offsets.len() < 4 {
        let delivery = soon("a message", incoming.next_delivery()).await.expect("a message");
        offsets.push((delivery.channel.to_string(), delivery.position.offset));
    }
    let expected = [("b", 1), ("a", 5), ("a", 6), ("a", 7)].map(|(name, offset)| (name.to_owned(), offset));
    assert_eq!(offsets, expected);
    let queries: Vec<_> = server.asked().into_iter().map(|asked| asked.query).collect();
    assert_eq!(queries, ["channel=b&channel=a", "channel=b&channel=a&since=1900-1&since=1700-5"]);
}

#[tokio::test]
async fn options_that_no_server_takes_are_refused_here() {
    let server = Server::script([]).await;
    let place = |name: &str, since| (channel(name), since);
    let refused = async |channels| connect(server.options(channels)).await.map(|_| ()).expect_err("refused");
    assert!(matches!(refused(Vec::new()).await, ConnectError::Channels { found: 0 }));
    let many = (0..51).map(|number| place(&format!("a/{number}"), None)).collect();
    assert!(matches!(refused(many).await, ConnectError::Channels { found: 51 }));
    assert!(matches!(refused(vec![place("a", None), place("a", None)]).await, ConnectError::Twice(_)));
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_told_at_once() {
    // Bound and not listening: the port is ours and refuses.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let url = format!("http://{}", socket.local_addr().expect("bound"));
    let error = connect(Options::new(url, None, vec![(channel("a"), None)])).await.map(|_| ()).expect_err("nobody listens");
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn a_client_ends_when_nobody_takes_items_any_more() {
    let server = Server::script([Answer::Stays(begin(4, "").into_bytes())]).await;
    let (subscription, incoming) = server.connect().await;
    drop(incoming);
    soon("the end", subscription.close()).await;
}
