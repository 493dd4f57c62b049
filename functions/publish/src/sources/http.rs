//! `POST /publish` on the function URL (docs/protocol.md).

use crate::{Handler, Invocation};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use carillon_core::fault::{ErrorCode, Fault};
use carillon_core::limits::PUBLISH_BYTES;
use carillon_engine::ports::{Clock, Queue, Store};
use carillon_runtime::failure::InvocationFailure;
use carillon_runtime::function_url::Request;
use carillon_wire::cloudevents::Defaults;
use carillon_wire::http;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The source of events whose publisher names none.
const SOURCE: &str = "carillon:http";

/// The one path there is.
const PATH: &str = "/publish";

/// Its methods, as `Allow` lists them (RFC 9110 section 10.2.1).
const METHODS: &str = "OPTIONS, POST";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    status_code: u16,
    headers: BTreeMap<&'static str, String>,
    body: String,
}

pub(super) async fn handle<S: Store, Q: Queue, C: Clock>(
    handler: &Handler<S, Q, C>,
    payload: &str,
    invocation: &Invocation,
) -> Result<String, InvocationFailure> {
    let response = match Request::parse(payload) {
        Ok(request) => respond(handler, &request, invocation).await,
        Err(fault) => refusal(&fault),
    };
    Ok(serde_json::to_string(&response).expect("a response has string keys"))
}

async fn respond<S: Store, Q: Queue, C: Clock>(
    handler: &Handler<S, Q, C>,
    request: &Request,
    invocation: &Invocation,
) -> Response {
    // Before anything else: whoever has no token learns nothing.
    if let Err(fault) = request.authenticate(&handler.secret) {
        return refusal(&fault).with("www-authenticate", "Bearer");
    }
    if request.raw_path != PATH {
        let fault = Fault::new(ErrorCode::NotFound, format!("path: {:?} is none; there is {PATH}", request.raw_path));
        return refusal(&fault);
    }
    match request.method() {
        "POST" => {}
        "OPTIONS" => return Response { status_code: 204, headers: BTreeMap::new(), body: String::new() }.with("allow", METHODS),
        other => {
            let fault = Fault::bad_request("method", format_args!("{other:?} is not served; there is POST"));
            return Response { status_code: 405, ..refusal(&fault) }.with("allow", METHODS);
        }
    }
    match publish(handler, request, invocation).await {
        Ok(outcomes) => {
            let wait = outcomes.iter().find_map(|outcome| outcome.fate.as_ref().err()).and_then(|fault| fault.retry_after_ms);
            Response::of(http::results(&outcomes), wait)
        }
        Err(fault) => refusal(&fault),
    }
}

async fn publish<S: Store, Q: Queue, C: Clock>(
    handler: &Handler<S, Q, C>,
    request: &Request,
    invocation: &Invocation,
) -> Result<Vec<http::Outcome>, Fault> {
    let body = body(request)?;
    let headers: Vec<(&str, &str)> = request.headers().collect();
    let new_id = |_: Option<usize>| Uuid::new_v4().to_string();
    let events = http::decode(&headers, &body, &Defaults::unrepeatable(SOURCE, handler.engine.now(), &new_id))?;
    Ok(handler.publish(events, invocation.deadline).await)
}

/// The body's bytes: Lambda hands text over as it is and anything else in base64.
fn body(request: &Request) -> Result<Cow<'_, [u8]>, Fault> {
    let text = request.body.as_deref().unwrap_or_default();
    if !request.is_base64_encoded {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    let bytes = text.len() / 4 * 3;
    if bytes > PUBLISH_BYTES + 3 {
        return Err(Fault::too_large("body", bytes, PUBLISH_BYTES));
    }
    BASE64_STANDARD.decode(text).map(Cow::Owned).map_err(|_| Fault::bad_request("body", "is not base64 of RFC 4648 section 4"))
}

fn refusal(fault: &Fault) -> Response {
    Response::of(http::refusal(fault), fault.retry_after_ms)
}

impl Response {
    fn of(answer: http::Answer, wait_ms: Option<u32>) -> Self {
        let headers = [("content-type", http::ANSWER_TYPE.to_owned())].into();
        let response = Self { status_code: answer.status, headers, body: answer.body };
        // RFC 9110 section 10.2.3: whole seconds.
        match wait_ms {
            Some(wait) => response.with("retry-after", &wait.div_ceil(1_000).to_string()),
            None => response,
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.to_owned());
        self
    }
}
