//! The ends of connections.

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};

use crate::harness::{Gate, Setup, Stand, answer, raw_client, raw_handshake, raw_head, raw_rest, soon, status};

async fn standard() -> Stand {
    Setup::standard().answering(|_| status(200)).await
}

/// The next invocation must be `$disconnect` with this code and reason.
async fn disconnected(stand: &Stand, code: u16, reason: &str) {
    let event = stand.event_of("DISCONNECT").await;
    let found = (event.context("disconnectStatusCode").as_u64(), event.context("disconnectReason").as_str());
    assert_eq!(found, (Some(code.into()), Some(reason)));
}

#[tokio::test]
async fn a_close_of_the_client_is_reported_with_its_code_and_reason() {
    let stand = standard().await;
    for (frame, code, reason) in [
        (Some(CloseFrame { code: 1000.into(), reason: "".into() }), 1000, ""),
        (Some(CloseFrame { code: 4001.into(), reason: "done".into() }), 4001, "done"),
        (None, 1005, "Client-side close frame status not set"),
    ] {
        stand.connect().await.close(frame).await;
        disconnected(&stand, code, reason).await;
    }
}

#[tokio::test]
async fn a_client_that_vanishes_is_reported_as_abnormal() {
    let stand = standard().await;
    drop(stand.connect().await);
    disconnected(&stand, 1006, "Connection closed abnormally").await;
}

#[tokio::test]
async fn a_connection_is_gone_before_disconnect_begins() {
    let gate = Gate::closed();
    let functions_gate = gate.clone();
    let stand = Setup::standard()
        .start(move |event| {
            let gate = functions_gate.clone();
            Box::pin(async move {
                if event.kind() == "DISCONNECT" {
                    gate.pass().await;
                }
                status(200)
            })
        })
        .await;
    let mut client = stand.connect().await;
    client.close(None).await;
    stand.event_of("DISCONNECT").await;
    stand.post(&client.id, "late").await.expect(410, Some("GoneException"), "");
    stand.get(&client.id).await.expect(410, Some("GoneException"), "");
    assert_eq!(stand.api.connection_count(), 0);
    gate.open_for(1);
}

#[tokio::test]
async fn a_binary_frame_closes_with_1003() {
    let stand = standard().await;
    let mut client = stand.connect().await;
    client.stream.send(Message::binary(vec![1, 2, 3])).await.expect("an open connection");
    assert_eq!(client.closed().await, (1003, "Unsupported Data".to_owned()));
    disconnected(&stand, 1003, "Unsupported Data").await;
}

#[tokio::test]
async fn a_frame_over_the_limit_closes_with_1009_however_large_it_is() {
    let stand = standard().await;
    for bytes in [32 * 1024 + 1, 128 * 1024 + 1, 16 * 1024 * 1024] {
        let mut client = raw_client(&stand, raw_handshake(&stand, "").as_bytes()).await;
        raw_head(&mut client).await;
        stand.event_of("CONNECT").await;
        // A masked text frame with a length of eight bytes (RFC 6455, section 5.2). The client reads only when it has sent all of
        // it, and must not be cut off before.
        let mut frame = vec![0x81, 0xff];
        frame.extend(u64::to_be_bytes(bytes));
        frame.extend([0; 4]);
        frame.resize(frame.len() + usize::try_from(bytes).expect("less than the address space"), b'x');
        soon("the end of the frame", client.write_all(&frame)).await.expect("an open connection");
        client.shutdown().await.expect("an open connection");
        let close = raw_rest(&mut client).await;
        assert_eq!(close, [b"\x88\x11\x03\xf1".as_slice(), b"Message Too Big"].concat());
        disconnected(&stand, 1009, "Message Too Big").await;
    }
}

#[tokio::test]
async fn a_message_over_the_limit_in_small_frames_closes_with_1009() {
    let stand = standard().await;
    let mut client = stand.connect().await;
    for kind in [Data::Text, Data::Continue, Data::Continue, Data::Continue, Data::Continue] {
        let frame = Frame::message("x".repeat(32 * 1024), OpCode::Data(kind), false);
        client.stream.send(Message::Frame(frame)).await.expect("an open connection");
    }
    assert_eq!(client.closed().await, (1009, "Message Too Big".to_owned()));
    disconnected(&stand, 1009, "Message Too Big").await;
}

#[tokio::test]
async fn what_breaks_the_protocol_closes_with_its_code() {
    let stand = standard().await;
    let masked_text_that_is_not_utf8: &[u8] = &[0x81, 0x81, 0, 0, 0, 0, 0xff];
    let unmasked_text: &[u8] = &[0x81, 0x01, b'a'];
    let compressed_text: &[u8] = &[0xc1, 0x81, 0, 0, 0, 0, b'a'];
    for (bytes, code, reason) in [
        (masked_text_that_is_not_utf8, 1007, "Invalid frame payload data"),
        (unmasked_text, 1002, "Protocol error"),
        (compressed_text, 1002, "Protocol error"),
    ] {
        let mut client = raw_client(&stand, raw_handshake(&stand, "").as_bytes()).await;
        raw_head(&mut client).await;
        stand.event_of("CONNECT").await;
        client.write_all(bytes).await.expect("an open connection");
        let close = raw_rest(&mut client).await;
        assert_eq!(close[..2], [0x88, u8::try_from(2 + reason.len()).expect("a short reason")]);
        assert_eq!(close[2..], [&u16::to_be_bytes(code), reason.as_bytes()].concat());
        drop(client);
        disconnected(&stand, code, reason).await;
    }
}

#[tokio::test]
async fn the_idle_limit_and_the_limit_of_life_close_with_1001() {
    let short = Duration::from_millis(200);
    for setup in [
        Setup::standard().time_limits(|limits| limits.idle = short),
        Setup::standard().time_limits(|limits| limits.connection = short),
    ] {
        let stand = setup.answering(|_| status(200)).await;
        let began = Instant::now();
        let mut client = stand.connect().await;
        assert_eq!(client.closed().await, (1001, "Going away".to_owned()));
        assert!(began.elapsed() >= short);
        disconnected(&stand, 1001, "Going away").await;
    }
}

#[tokio::test]
async fn activity_in_either_direction_postpones_the_idle_limit() {
    let idle = Duration::from_secs(1);
    let stand = Setup::standard().time_limits(|limits| limits.idle = idle).answering(|_| status(200)).await;
    let mut client = stand.connect().await;
    let began = Instant::now();
    // The last activity is at least half a second after the opening: the close cannot come before one and a half.
    let mut last_activity = began;
    while began.elapsed() < idle / 2 {
        last_activity = Instant::now();
        client.stream.send(Message::Ping("".into())).await.expect("an open connection");
        assert_eq!(client.message().await, Message::Pong("".into()));
    }
    assert_eq!(client.closed().await, (1001, "Going away".to_owned()));
    assert!(last_activity.elapsed() >= idle);

    disconnected(&stand, 1001, "Going away").await;
    let mut client = stand.connect().await;
    let mut last_activity = Instant::now();
    let began = last_activity;
    while began.elapsed() < idle / 2 {
        last_activity = Instant::now();
        stand.post(&client.id, "event").await.expect(200, None, "");
        assert_eq!(client.text().await, "event");
    }
    assert_eq!(client.closed().await, (1001, "Going away".to_owned()));
    assert!(last_activity.elapsed() >= idle);
}

#[tokio::test]
async fn a_shutdown_closes_everyone_with_1001_and_invokes_nothing() {
    let gate = Gate::closed();
    let functions_gate = gate.clone();
    let stand = Setup::standard()
        .route("$default", true)
        .start(move |event| {
            let gate = functions_gate.clone();
            Box::pin(async move {
                match event.json["body"].as_str() {
                    Some("slow") => gate.pass().await,
                    _ if event.json["queryStringParameters"] == json!({ "slow": "1" }) => gate.pass().await,
                    _ => {}
                }
                answer(json!({ "statusCode": 200 }))
            })
        })
        .await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(stand.connect().await);
    }
    clients[0].send("slow").await;
    stand.event_of("MESSAGE").await;
    let mut slow_handshake = stand.request();
    *slow_handshake.uri_mut() = format!("{}?slow=1", stand.url()).parse().expect("a URL");

    let asking = async {
        let refusal = stand.refused(slow_handshake).await;
        assert_eq!(refusal.status, 503);
    };
    let stopping = async {
        stand.event_of("CONNECT").await;
        let began = Instant::now();
        stand.api.shutdown().await;
        began.elapsed()
    };
    let reading = async {
        for client in &mut clients {
            assert_eq!(client.closed().await, (1001, "Going away".to_owned()));
        }
    };
    let ((), took, ()) = tokio::join!(asking, stopping, reading);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(stand.api.connection_count(), 0);
    stand.no_event().await;
    let refused = tokio::net::TcpStream::connect(stand.address).await;
    assert!(refused.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_clients_that_do_not_answer() {
    let stand = standard().await;
    // A client that never reads and never closes, with more waiting for it than the operating system takes.
    let client = stand.connect().await;
    while stand.post(&client.id, "x".repeat(100_000)).await.status == 200 {}
    let began = Instant::now();
    stand.api.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
