//! From an HTTP request to an open connection, and what follows its end.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{HOST, SEC_WEBSOCKET_VERSION, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::sync::{mpsc, oneshot};
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
use crate::upgrade::{self, UpgradeFault};

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

/// Reads the opening handshake.
fn upgrade_of(request: &Request<Incoming>) -> Result<UpgradeRequest, Refusal> {
    let bad_request = |message| answer::error(StatusCode::BAD_REQUEST, "BadRequestException", message);
    match upgrade::accept_key(request) {
        Ok(accept) => Ok(UpgradeRequest { accept }),
        Err(UpgradeFault::Method) => Err(answer::forbidden().into()),
        Err(UpgradeFault::NoUpgrade) => Err(answer::upgrade_required().into()),
        Err(UpgradeFault::Version) => {
            let mut refusal = bad_request("Sec-WebSocket-Version must be 13");
            refusal.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            Err(refusal.into())
        }
        Err(UpgradeFault::NoKey) => Err(bad_request("Sec-WebSocket-Key is missing").into()),
    }
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
    upgrade::complete(answer.headers_mut(), upgrade.accept, subprotocol);
    answer
}

/// The open connection itself, from the 101 to the end of the closing handshake.
async fn live(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    outgoing: mpsc::UnboundedReceiver<OutgoingMessage>,
    on_upgrade: OnUpgrade,
) -> Ending {
    let Some((stream, already_read)) = on_upgrade.await.ok().and_then(upgrade::tcp_stream) else {
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

/// Tells the function of `$disconnect`, where there is one. Best effort, as on AWS: a failure is logged and that is all.
async fn disconnect(shared: &Shared, connection: &Connection, ending: &Ending) {
    let Some(route) = shared.spec.routes.get(DISCONNECT) else {
        return;
    };
    let payload = disconnect_event(&connection.facts, &EventFacts::now(), ending.code, &ending.reason);
    // Failures are logged where they arise; nobody is left to be told.
    let _ = integration::invoke(shared, DISCONNECT, route, payload).await;
}
