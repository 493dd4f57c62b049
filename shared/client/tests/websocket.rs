//! The WebSocket client against a server that plays a script: what it sends, when it comes back, what it hands over.

use carillon_client::backoff::Backoff;
use carillon_client::items::{Delivery, End, Incoming, Item, Notice};
use carillon_client::token::Token;
use carillon_client::websocket::{Client, ConnectError, Options, Published, RequestError, Subscribed, connect};
use carillon_core::channel::Channel;
use carillon_core::fault::ErrorCode;
use carillon_core::limits::FRAME_BYTES;
use carillon_core::position::{Epoch, Position};
use futures_util::{SinkExt, StreamExt};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

const EPOCH: &str = "1700000000000";

/// Nothing here takes long; what takes so long never comes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not come within {PATIENCE:?}"))
}

struct Server(TcpListener);

impl Server {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
    }

    fn options(&self) -> Options {
        let port = self.0.local_addr().expect("bound").port();
        let backoff = Backoff { first: Duration::from_millis(5), most: Duration::from_millis(50) };
        Options { reconnect: Some(backoff), ..Options::new(format!("ws://127.0.0.1:{port}/prod"), Some(Token::new("secret"))) }
    }

    async fn accept(&self) -> Peer {
        #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
        fn echo(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
            assert_eq!(request.headers()["authorization"], "Bearer secret");
            assert_eq!(request.headers()["sec-websocket-protocol"], "carillon.v1");
            response.headers_mut().insert("sec-websocket-protocol", "carillon.v1".parse().expect("a header"));
            Ok(response)
        }
        let (stream, _) = soon("a connection", self.0.accept()).await.expect("accepted");
        Peer(accept_hdr_async(stream, echo).await.expect("a handshake"))
    }

    /// Answers the next connection with a bare HTTP status.
    async fn refuse(&self, status: &str) {
        let (mut stream, _) = soon("a connection", self.0.accept()).await.expect("accepted");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the request's head"));
        }
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 9\r\n\r\nforbidden");
        stream.write_all(answer.as_bytes()).await.expect("written");
    }
}

struct Peer(WebSocketStream<TcpStream>);

impl Peer {
    /// The next frame of the client, which must be of this action.
    async fn expect(&mut self, action: &str) -> Value {
        loop {
            let message = soon(action, self.0.next()).await.expect("an open connection").expect("a message");
            if let Message::Text(text) = message {
                let frame: Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(frame["action"], action, "{frame}");
                return frame;
            }
        }
    }

    async fn send(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.expect("sent");
    }

    async fn reply(&mut self, request: &Value, body: Value) {
        let mut frame = json!({"type": "reply", "ref": request["ref"], "ok": true});
        frame.as_object_mut().expect("an object").extend(body.as_object().expect("an object").clone());
        self.send(frame).await;
    }

    async fn refuse(&mut self, request: &Value, code: &str) {
        let error = json!({"code": code, "message": "no", "retry": false});
        self.send(json!({"type": "reply", "ref": request["ref"], "ok": false, "error": error})).await;
    }

    async fn events(&mut self, offsets: &[u64]) {
        let events: Vec<_> =
            offsets.iter().map(|offset| json!({"offset": offset, "event": {"id": offset.to_string()}})).collect();
        self.send(json!({"type": "events", "channel": "orders/42", "epoch": EPOCH, "events": events})).await;
    }

    /// Waits until the client has closed its side.
    async fn closed(mut self) {
        soon("the end", async { while let Some(Ok(_)) = self.0.next().await {} }).await;
    }
}

fn channel() -> Channel {
    Channel::parse("orders/42").expect("a channel")
}

fn at(offset: u64) -> Position {
    Position::new(Epoch(1_700_000_000_000), offset)
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("JSON")
}

async fn offset(incoming: &mut Incoming) -> u64 {
    let Delivery { position, event, channel: found, .. } = soon("a message", incoming.next_delivery()).await.expect("a message");
    assert_eq!((position.epoch, found), (at(0).epoch, channel()));
    assert_eq!(event.as_str(), format!(r#"{{"id":"{}"}}"#, position.offset));
    position.offset
}

async fn notice(incoming: &mut Incoming) -> Notice {
    match soon("a notice", incoming.next()).await {
        Some(Item::Notice(notice)) => notice,
        other => panic!("no notice but {other:?}"),
    }
}

/// A client that is subscribed at offset 4.
async fn subscribed(server: &Server, options: Options) -> (Client, Incoming, Peer) {
    let (client, mut peer) = tokio::join!(connect(options), server.accept());
    let (client, incoming) = client.expect("connected");
    let channel = channel();
    let (answer, ()) = tokio::join!(client.subscribe(&channel, None), async {
        let request = peer.expect("subscribe").await;
        assert_eq!(request.get("since"), None);
        peer.reply(&request, json!({"channel": "orders/42", "epoch": EPOCH, "offset": 4})).await;
    });
    assert_eq!(answer, Ok(Subscribed { position: at(4), recovered: None }));
    (client, incoming, peer)
}

/// Takes the subscribe after a cut or a hole, which must ask for everything after `since`.
async fn resumed(peer: &mut Peer, since: u64) {
    let request = peer.expect("subscribe").await;
    assert_eq!(request["since"], json!({"epoch": EPOCH, "offset": since}));
    peer.reply(&request, json!({"channel": "orders/42", "epoch": EPOCH, "offset": since, "recovered": true})).await;
}

#[tokio::test]
async fn frames_before_the_answer_are_judged_by_it() {
    let server = Server::start().await;
    let (client, mut peer) = tokio::join!(connect(server.options()), server.accept());
    let (client, mut incoming) = client.expect("connected");
    let channel = channel();
    let (answer, ()) = tokio::join!(client.subscribe(&channel, None), async {
        let request = peer.expect("subscribe").await;
        peer.events(&[4, 5]).await;
        peer.reply(&request, json!({"channel": "orders/42", "epoch": EPOCH, "offset": 4})).await;
        peer.events(&[6]).await;
    });
    assert_eq!(answer.map(|answer| answer.position), Ok(at(4)));
    assert_eq!(notice(&mut incoming).await, Notice::Repeat { channel, position: at(4) });
    assert_eq!(offset(&mut incoming).await, 5);
    assert_eq!(offset(&mut incoming).await, 6);
}

#[tokio::test]
async fn a_cut_connection_comes_back_and_goes_on_from_the_last_position() {
    let server = Server::start().await;
    let (client, mut incoming, mut peer) = subscribed(&server, server.options()).await;
    peer.events(&[5]).await;
    assert_eq!(offset(&mut incoming).await, 5);
    drop(peer);

    let mut peer = server.accept().await;
    resumed(&mut peer, 5).await;
    peer.events(&[6, 7]).await;
    assert!(matches!(notice(&mut incoming).await, Notice::Disconnected { .. }));
    assert_eq!(notice(&mut incoming).await, Notice::Reconnected);
    assert_eq!(offset(&mut incoming).await, 6);
    assert_eq!(offset(&mut incoming).await, 7);
    tokio::join!(client.close(), peer.closed());
    assert_eq!(soon("the end", incoming.next()).await, None);
}

#[tokio::test]
async fn a_position_that_cannot_be_continued_is_told() {
    let server = Server::start().await;
    let (_client, mut incoming, peer) = subscribed(&server, server.options()).await;
    drop(peer);
    let mut peer = server.accept().await;
    let request = peer.expect("subscribe").await;
    peer.reply(&request, json!({"channel": "orders/42", "epoch": EPOCH, "offset": 90, "recovered": false})).await;
    assert!(matches!(notice(&mut incoming).await, Notice::Disconnected { .. }));
    assert_eq!(notice(&mut incoming).await, Notice::Reconnected);
    assert_eq!(notice(&mut incoming).await, Notice::Unrecovered { channel: channel(), since: at(4), position: at(90) });
}

#[tokio::test]
async fn a_hole_is_mended_on_the_same_connection() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = subscribed(&server, server.options()).await;
    peer.events(&[6]).await;
    assert_eq!(notice(&mut incoming).await, Notice::Hole { channel: channel(), position: at(4), found: at(6) });
    resumed(&mut peer, 4).await;
    peer.events(&[5, 6]).await;
    assert_eq!(offset(&mut incoming).await, 5);
    assert_eq!(offset(&mut incoming).await, 6);
}

#[tokio::test]
async fn a_gap_is_told_and_gone_over() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = subscribed(&server, server.options()).await;
    let after = json!({"epoch": EPOCH, "offset": 4});
    peer.send(json!({"type": "gap", "channel": "orders/42", "after": after, "epoch": EPOCH, "offset": 7})).await;
    peer.events(&[8]).await;
    assert_eq!(notice(&mut incoming).await, Notice::Gap { channel: channel(), after: at(4), to: at(7) });
    assert_eq!(offset(&mut incoming).await, 8);
}

#[tokio::test]
async fn requests_get_their_own_answers_in_whatever_order_they_come() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = subscribed(&server, server.options()).await;
    let channel = channel();
    let publish = client.publish(&channel, raw(r#"{"id":"a","data":1}"#));
    let history = client.history(&channel, Some(at(1)), Some(2));
    let script = async {
        let publish = peer.expect("publish").await;
        assert_eq!((&publish["channel"], &publish["event"]), (&json!("orders/42"), &json!({"id": "a", "data": 1})));
        let history = peer.expect("history").await;
        assert_eq!((&history["from"], &history["limit"]), (&json!({"epoch": EPOCH, "offset": 1}), &json!(2)));
        let events = json!([{"offset": 2, "event": {"id": "2"}}]);
        let next = json!({"epoch": EPOCH, "offset": 2});
        peer.reply(&history, json!({"epoch": EPOCH, "events": events, "next": next, "recovered": true})).await;
        peer.refuse(&publish, "too_large").await;
    };
    let (published, page, ()) = tokio::join!(publish, history, script);
    assert!(matches!(published, Err(RequestError::Fault(fault)) if fault.code == ErrorCode::TooLarge));
    let page = page.expect("a page");
    assert_eq!((page.events.len(), page.next, page.recovered), (1, Some(at(2)), true));

    let publish = client.publish(&channel, raw("{}"));
    let script = async {
        let publish = peer.expect("publish").await;
        peer.reply(&publish, json!({"id": "a", "epoch": EPOCH, "offset": 5, "duplicate": true})).await;
    };
    let (published, ()) = tokio::join!(publish, script);
    assert_eq!(published, Ok(Published { id: "a".to_owned(), position: at(5), duplicate: true }));
}

#[tokio::test]
async fn a_refused_subscribe_leaves_nothing_behind() {
    let server = Server::start().await;
    let (client, mut peer) = tokio::join!(connect(server.options()), server.accept());
    let (client, _incoming) = client.expect("connected");
    let channel = channel();
    let (answer, ()) = tokio::join!(client.subscribe(&channel, Some(at(1))), async {
        let request = peer.expect("subscribe").await;
        peer.refuse(&request, "forbidden").await;
    });
    assert!(matches!(answer, Err(RequestError::Fault(fault)) if fault.code == ErrorCode::Forbidden));
    let (answer, ()) = tokio::join!(client.subscribe(&channel, None), async {
        let request = peer.expect("subscribe").await;
        peer.reply(&request, json!({"channel": "orders/42", "epoch": EPOCH, "offset": 0})).await;
    });
    assert_eq!(answer.map(|answer| answer.position), Ok(at(0)));
    assert_eq!(client.subscribe(&channel, None).await, Err(RequestError::Subscribed(channel)));
}

#[tokio::test]
async fn after_a_cut_a_subscribe_is_tried_again_until_the_server_refuses_for_good() {
    let server = Server::start().await;
    let (_client, mut incoming, peer) = subscribed(&server, server.options()).await;
    drop(peer);
    let mut peer = server.accept().await;
    for code in ["busy", "unavailable", "forbidden"] {
        let request = peer.expect("subscribe").await;
        assert_eq!(request["since"]["offset"], 4);
        peer.refuse(&request, code).await;
    }
    assert!(matches!(notice(&mut incoming).await, Notice::Disconnected { .. }));
    assert_eq!(notice(&mut incoming).await, Notice::Reconnected);
    assert!(matches!(notice(&mut incoming).await, Notice::Refused { fault, .. } if fault.code == ErrorCode::Forbidden));
}

#[tokio::test]
async fn an_error_of_the_gateway_is_the_answer_where_only_one_request_waits() {
    let server = Server::start().await;
    let (client, mut incoming, mut peer) = subscribed(&server, server.options()).await;
    let gateway = json!({"message": "Internal server error", "connectionId": "a=", "requestId": "b="});
    let (answer, ()) = tokio::join!(client.ping(), async {
        peer.expect("ping").await;
        peer.send(gateway.clone()).await;
    });
    assert_eq!(answer, Err(RequestError::Gateway("Internal server error".to_owned())));
    peer.send(gateway).await;
    assert_eq!(notice(&mut incoming).await, Notice::Unclaimed { message: "Internal server error".to_owned() });
}

#[tokio::test]
async fn an_idle_connection_is_pinged_and_left_when_no_answer_comes() {
    let server = Server::start().await;
    let every = Duration::from_millis(20);
    let options = Options { ping_every: every, answer_timeout: Duration::from_millis(500), ..server.options() };
    let (_client, mut incoming, mut peer) = subscribed(&server, options).await;
    for _ in 0..3 {
        let ping = peer.expect("ping").await;
        peer.reply(&ping, json!({})).await;
    }
    peer.expect("ping").await;
    let reason = loop {
        if let Notice::Disconnected { reason, .. } = notice(&mut incoming).await {
            break reason;
        }
    };
    assert_eq!(reason, "no answer to a ping within 0.5 s");
    resumed(&mut server.accept().await, 4).await;
}

#[tokio::test]
async fn the_server_may_ask_for_a_new_connection() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = subscribed(&server, server.options()).await;
    peer.send(json!({"type": "reconnect", "after_ms": 10})).await;
    let (mut next, ()) = tokio::join!(server.accept(), peer.closed());
    resumed(&mut next, 4).await;
    let planned = notice(&mut incoming).await;
    assert!(matches!(planned, Notice::Disconnected { planned: true, reconnect_in: Duration::ZERO, .. }), "{planned:?}");
}

#[tokio::test]
async fn a_goodbye_ends_the_client_or_sends_it_to_a_new_connection() {
    let server = Server::start().await;
    let (client, mut incoming, mut peer) = subscribed(&server, server.options()).await;
    peer.send(json!({"type": "bye", "code": "rate_limited", "reconnect": true})).await;
    let mut peer = server.accept().await;
    resumed(&mut peer, 4).await;
    peer.send(json!({"type": "bye", "code": "unauthorized", "reconnect": false})).await;
    assert!(matches!(notice(&mut incoming).await, Notice::Disconnected { .. }));
    assert_eq!(notice(&mut incoming).await, Notice::Reconnected);
    assert_eq!(notice(&mut incoming).await, Notice::Ended(End::Bye(ErrorCode::Unauthorized)));
    assert_eq!(soon("the end", incoming.next()).await, None);
    assert_eq!(client.ping().await, Err(RequestError::Closed));
}

#[tokio::test]
async fn a_token_that_is_refused_is_not_tried_again() {
    let server = Server::start().await;
    let (first, ()) = tokio::join!(connect(server.options()), server.refuse("401 Unauthorized"));
    let error = first.expect_err("refused");
    assert!(error.is_refused_token());
    assert!(matches!(error, ConnectError::Refused { status: 401, .. }), "{error:?}");

    let (_client, mut incoming, peer) = subscribed(&server, server.options()).await;
    drop(peer);
    server.refuse("503 Service Unavailable").await;
    server.refuse("403 Forbidden").await;
    for _ in 0..2 {
        assert!(matches!(notice(&mut incoming).await, Notice::Disconnected { .. }));
    }
    assert!(matches!(notice(&mut incoming).await, Notice::Ended(End::Refused(_))));
}

#[tokio::test]
async fn without_reconnection_a_cut_is_the_end() {
    let server = Server::start().await;
    let (client, mut incoming, mut peer) = subscribed(&server, Options { reconnect: None, ..server.options() }).await;
    let (answer, ()) = tokio::join!(client.ping(), async {
        peer.expect("ping").await;
        drop(peer);
    });
    assert_eq!(answer, Err(RequestError::Disconnected));
    assert!(matches!(notice(&mut incoming).await, Notice::Ended(End::Lost(_))));
}

#[tokio::test]
async fn what_the_gateway_would_cut_the_connection_for_is_not_sent() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = subscribed(&server, server.options()).await;
    let event = raw(&json!({"data": "x".repeat(FRAME_BYTES)}).to_string());
    let answer = client.publish(&channel(), event).await;
    assert!(matches!(answer, Err(RequestError::TooLarge { limit: FRAME_BYTES, .. })), "{answer:?}");
    let (answer, ()) = tokio::join!(client.ping(), async {
        let ping = peer.expect("ping").await;
        peer.reply(&ping, json!({})).await;
    });
    assert_eq!(answer, Ok(()));
}

#[tokio::test]
async fn frames_that_cannot_be_read_do_no_harm() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = subscribed(&server, server.options()).await;
    for frame in [json!([1]), json!({"type": "events"}), json!({"type": "of a later version"}), json!({"type": "keepalive"})] {
        peer.send(frame).await;
    }
    peer.events(&[5]).await;
    assert_eq!(offset(&mut incoming).await, 5);
}

#[tokio::test]
async fn nothing_of_an_ended_subscription_comes() {
    let server = Server::start().await;
    let (client, mut incoming, mut peer) = subscribed(&server, server.options()).await;
    let channel = channel();
    let (answer, ()) = tokio::join!(client.unsubscribe(&channel), async {
        let request = peer.expect("unsubscribe").await;
        peer.events(&[5]).await;
        peer.reply(&request, json!({})).await;
    });
    assert_eq!(answer, Ok(()));
    client.close().await;
    assert_eq!(soon("the end", incoming.next()).await, None);
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_told_at_once() {
    // Bound and not listening: the port is ours and refuses.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let port = socket.local_addr().expect("bound").port();
    let error = connect(Options::new(format!("ws://127.0.0.1:{port}/prod"), None)).await.expect_err("nobody listens");
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
    let error = connect(Options::new("http://127.0.0.1/", None)).await.expect_err("no WebSocket URL");
    assert!(matches!(error, ConnectError::Url { .. }), "{error:?}");
}
