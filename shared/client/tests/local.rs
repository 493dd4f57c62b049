//! The switches of a local stack against a server that has some and one that has none.

use axum::Router;
use axum::extract::{Request, State as Shared};
use axum::http::{Method, StatusCode};
use carillon_client::local::{Faults, State, SwitchError};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;

/// A server's faults, where it has any.
type Switches = Option<Arc<Mutex<String>>>;

async fn start(switches: Switches) -> Faults {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let router = Router::new().fallback(answer).with_state(switches);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Faults::new(&url).expect("a URL")
}

async fn answer(Shared(switches): Shared<Switches>, request: Request) -> (StatusCode, String) {
    let (parts, body) = request.into_parts();
    assert_eq!(parts.uri.path(), "/_local/faults");
    let Some(switches) = switches else {
        return (StatusCode::NOT_FOUND, "no such path".to_owned());
    };
    if parts.method == Method::POST {
        assert_eq!(parts.headers["content-type"], "application/json");
        let body = axum::body::to_bytes(body, 1_024).await.expect("a body");
        *switches.lock().unwrap_or_else(PoisonError::into_inner) = String::from_utf8(body.to_vec()).expect("text");
    }
    (StatusCode::OK, switches.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

#[tokio::test]
async fn a_switch_is_turned_and_read() {
    let switches = Arc::new(Mutex::new(r#"{"iot":"back"}"#.to_owned()));
    let faults = start(Some(Arc::clone(&switches))).await;
    assert_eq!(faults.iot().await.expect("an answer"), State::Back);
    faults.set_iot(State::Away).await.expect("an answer");
    assert_eq!(*switches.lock().unwrap_or_else(PoisonError::into_inner), r#"{"iot":"away"}"#);
    assert_eq!(faults.iot().await.expect("an answer"), State::Away);
}

#[tokio::test]
async fn a_stack_without_the_switch_is_told() {
    let faults = start(None).await;
    let error = faults.set_iot(State::Away).await.expect_err("no switch");
    assert!(matches!(&error, SwitchError::Refused { status: 404, body } if body == "no such path"), "{error:?}");
    assert!(matches!(Faults::new("no url"), Err(SwitchError::Url { .. })));
}
