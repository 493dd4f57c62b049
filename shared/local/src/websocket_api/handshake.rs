//! From an HTTP request to an open connection, and what follows its end.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::{debug, warn};

use super::answer::{self, Answer};
use super::clock::Moment;
use super::event::{ConnectionFacts, EventFacts, Forwarding, Identity, connect_event, disconnect_event};
use super::frame::GatewayError;
use super::id::ConnectionId;
use super::integration::{self, IntegrationFailure};
use super::registry::{Connection, OutgoingMessage};
use super::route::{CONNECT, DISCONNECT};
use super::session::{Ending, Session};
use super::socket::Socket;
use super::{Peer, Shared};

/// Answers a request for the stage. The 101 is withheld until the function of `$connect` has agreed.
pub(super) async fn handshake(shared: &Arc<Shared>, peer: Peer, request: Request<Incoming>) -> Answer {
    let upgrade = match upgrade_of(&request) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return *refusal,
    };
    let (mut parts, _) = request.into_parts();
    let Some(on_upgrade) = parts.extensions.remove::<OnUpgrade>() else {
        return answer::upgrade_required();
    };
    let (sender, answer) = oneshot::channel();
    // A task of its own, because a client that leaves drops this future: `$connect` has begun then, and needs its `$disconnect`.
    shared.spawn(open(shared.clone(), peer, parts, upgrade, on_upgrade, sender));
    answer
        .await
        .unwrap_or_else(|_| answer::error(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", "Service Unavailable"))
}

/// The answer to a client that gets no connection. Boxed, because answers are large and seldom refusals.
type Refusal = Box<Answer>;

/// A valid request for a WebSocket: what has to be answered to its key.
struct UpgradeRequest {
    accept: HeaderValue,
}

/// Reads the opening handshake; RFC 6455, section 4.2.1.
fn upgrade_of(request: &Request<Incoming>) -> Result<UpgradeRequest, Refusal> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(answer::forbidden().into());
    }
    if request.version() != Version::HTTP_11 || !lists(headers, &CONNECTION, "upgrade") || !lists(headers, &UPGRADE, "websocket")
    {
        return Err(answer::upgrade_required().into());
    }
    let bad_request = |message| answer::error(StatusCode::BAD_REQUEST, "BadRequestException", message);
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut refusal = bad_request("Sec-WebSocket-Version must be 13");
        refusal.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(refusal.into());
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return Err(bad_request("Sec-WebSocket-Key is missing").into());
    };
    let accept = derive_accept_key(key.as_bytes());
    Ok(UpgradeRequest { accept: HeaderValue::from_str(&accept).expect("the accept key is base64") })
}

/// Whether a header that is a list has an element, whatever its case.
fn lists(headers: &HeaderMap, name: &HeaderName, element: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(element))
}

/// Runs a connection from `$connect` to `$disconnect`.
async fn open(
    shared: Arc<Shared>,
    peer: Peer,
    parts: Parts,
    upgrade: UpgradeRequest,
    on_upgrade: OnUpgrade,
    sender: oneshot::Sender<Answer>,
) {
    let facts = connection_facts(&shared, peer.address, &parts.headers);
    let subprotocol = match authorise(&shared, &facts, peer, &parts).await {
        Ok(subprotocol) => subprotocol,
        Err(refusal) => {
            // A client that has left needs no answer.
            let _ = sender.send(*refusal);
            return;
        }
    };
    drop(parts);
    let (connection, outgoing) = Connection::new(facts, &shared.stopping);
    debug!(connection.id = connection.facts.id.as_str(), "a connection opens");
    // Before the 101, so that a client that asks to be called back at once can be.
    shared.registry.insert(connection.clone());
    let ending = match sender.send(switching_protocols(upgrade, subprotocol)) {
        Ok(()) => live(&shared, &connection, outgoing, on_upgrade).await,
        Err(_) => Ending::lost(),
    };
    shared.registry.remove(&connection.facts.id);
    connection.refuse_messages();
    debug!(connection.id = connection.facts.id.as_str(), close.code = ending.code, "a connection has closed");
    disconnect(&shared, &connection, &ending).await;
}

fn connection_facts(shared: &Shared, peer: SocketAddr, headers: &HeaderMap) -> ConnectionFacts {
    let text = |name| headers.get(name).map(|value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned());
    ConnectionFacts {
        id: ConnectionId::random(),
        connected_at: Moment::now(),
        identity: Identity { user_agent: text(USER_AGENT), source_ip: peer.ip().to_string() },
        domain_name: text(HOST).unwrap_or_default(),
        api_id: shared.spec.api_id.clone(),
        stage: shared.spec.stage.clone(),
    }
}

/// Asks the function of `$connect`, where there is one: the subprotocol it chose, or the refusal.
async fn authorise(shared: &Shared, facts: &ConnectionFacts, peer: Peer, parts: &Parts) -> Result<Option<HeaderValue>, Refusal> {
    let Some(route) = shared.spec.routes.get(CONNECT) else {
        return Ok(None);
    };
    let event = EventFacts::now();
    let refuse = |status, error: GatewayError| {
        let text = error.text(&facts.id, &event.request_id);
        Err(Refusal::from(answer::json_text(status, text)))
    };
    let forwarding = Forwarding { source_ip: &facts.identity.source_ip, port: peer.local_port };
    let payload = connect_event(facts, &event, &parts.headers, parts.uri.query(), forwarding);
    let answer = match integration::invoke(shared, CONNECT, route, payload).await {
        Ok(answer) => answer,
        Err(IntegrationFailure::Failed) => return refuse(StatusCode::BAD_GATEWAY, GatewayError::InternalServerError),
        Err(IntegrationFailure::TimedOut) => {
            return refuse(StatusCode::GATEWAY_TIMEOUT, GatewayError::EndpointRequestTimedOut);
        }
        Err(IntegrationFailure::Throttled) => return refuse(StatusCode::TOO_MANY_REQUESTS, GatewayError::TooManyRequests),
        Err(IntegrationFailure::ShuttingDown) => {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, GatewayError::ServiceUnavailable);
        }
    };
    match integration::connect_answer(&answer) {
        Ok(answer) if answer.status.is_success() => Ok(answer.subprotocol),
        Ok(answer) => Err(answer::empty(answer.status).into()),
        Err(error) => {
            warn!(route.key = CONNECT, function.name = route.function, %error, "the answer of a function cannot be used");
            refuse(StatusCode::BAD_GATEWAY, GatewayError::InternalServerError)
        }
    }
}

fn switching_protocols(upgrade: UpgradeRequest, subprotocol: Option<HeaderValue>) -> Answer {
    let mut answer = answer::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, upgrade.accept);
    if let Some(subprotocol) = subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    answer
}

/// The open connection itself, from the 101 to the end of the closing handshake.
async fn live(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    outgoing: mpsc::UnboundedReceiver<OutgoingMessage>,
    on_upgrade: OnUpgrade,
) -> Ending {
    let Some((stream, already_read)) = on_upgrade.await.ok().and_then(tcp_stream) else {
        return Ending::lost();
    };
    let socket = Socket::new(stream, already_read).await;
    let mut session = Session::new(shared.clone(), connection.clone(), socket, outgoing);
    let ending = session.run().await;
    // Gone for `@connections` before anyone can hear of the end.
    shared.registry.remove(&connection.facts.id);
    session.close(&ending).await;
    ending
}

fn tcp_stream(upgraded: Upgraded) -> Option<(TcpStream, Vec<u8>)> {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    // Copied, because the bytes are few or none and would keep hyper's whole buffer of 8 KB for the life of the connection.
    Some((parts.io.into_inner(), parts.read_buf.to_vec()))
}

/// Tells the function of `$disconnect`, where there is one. Best effort, as on AWS: a failure is logged and that is all.
async fn disconnect(shared: &Shared, connection: &Connection, ending: &Ending) {
    let Some(route) = shared.spec.routes.get(DISCONNECT) else {
        return;
    };
    let payload = disconnect_event(&connection.facts, &EventFacts::now(), ending.code, &ending.reason);
    // Failures are logged where they arise; nobody is left to be told.
    let _ = integration::invoke(shared, DISCONNECT, route, payload).await;
}
