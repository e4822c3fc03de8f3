//! A gateway that repeats the request in every encoding and in every field that the worker stores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::markers::{Marker, assert_silent, marker, shown};
use super::raw_api::{RawApi, RawRequest};
use harness::{API_KEY, API_SECRET, Worker, World, assert_contains, peer};

const PAYLOAD: &str = "the \"Löwe\" of line one,\nand the tiger of line two: 918273645546372819";
const TOKEN: &str = "007eJxTYPj3Zt5qAAg9182736455Token";

type Encode = fn(&str) -> String;

const ENCODINGS: [(&str, Encode); 5] = [
    ("plain", str::to_owned),
    ("json", |text| serde_json::to_string(text).expect("JSON")),
    ("percent", |text| {
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
    }),
    ("base64", |text| STANDARD.encode(text)),
    ("shifted", |text| STANDARD.encode(format!("?{text}"))),
];

/// The parts of a request that the gateway repeats: the body, the payload, and values of headers.
fn pieces(request: &RawRequest) -> Vec<String> {
    let body: Value = serde_json::from_str(&request.body).expect("JSON");
    let payload = body["payload"].as_str().expect("a payload");
    let headers = request
        .head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| ["authorization", "x-agora-token"].contains(name));
    let mut pieces = [&request.body, payload, &payload[..32]]
        .map(str::to_owned)
        .to_vec();
    for (_, value) in headers {
        pieces.push(value.to_owned());
        if let Some(pair) = value.strip_prefix("Basic ") {
            let pair = String::from_utf8(STANDARD.decode(pair).expect("base64")).expect("text");
            pieces.extend(pair.split(':').map(str::to_owned));
        }
    }
    pieces
}

/// The fields and the header that the worker stores.
fn places(status: u16) -> &'static [&'static str] {
    if status == 200 {
        // With another result or code it would be no success.
        &["reason", "request_id", "x-request-id"]
    } else {
        &[
            "reason",
            "message",
            "code",
            "result",
            "request_id",
            "x-request-id",
        ]
    }
}

/// The responses of the gateway: one for each part, encoding and field.
fn answers(request: &RawRequest, status: u16) -> Vec<String> {
    let mut answers = Vec::new();
    for piece in pieces(request) {
        for (form, encode) in ENCODINGS {
            let echo = encode(&piece);
            for field in places(status).iter().copied() {
                // The worker knows base64 by its length alone, and an ID may be as long.
                let is_base64 = ["base64", "shifted"].contains(&form);
                if is_base64 && (piece.len() < 31 || field.ends_with("id")) {
                    continue;
                }
                let in_header = field == "x-request-id" && !echo.contains(['\n', '\r']);
                let mut body = json!({"result": "success", "code": "message_sent"});
                if field == "reason" || field == "message" {
                    body[field] = json!(format!("can't take {echo} from you"));
                } else if field != "x-request-id" {
                    body[field] = json!(echo);
                }
                let body = body.to_string();
                let header = if in_header {
                    format!("x-request-id: {echo}\r\n")
                } else {
                    String::new()
                };
                answers.push(format!(
                    "HTTP/1.1 {status} Said\r\n{header}content-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                ));
            }
        }
    }
    answers
}

/// Sends messages to the gateway, and asserts that no row, log or report shows the payload or a secret.
async fn assert_no_echo(status: u16, sign_in: &[(&str, &str)], secrets: &[Marker]) {
    let world = World::new().await;
    let (sent, next) = (Arc::<Mutex<String>>::default(), AtomicUsize::new(0));
    let all_sent = Arc::clone(&sent);
    let api = RawApi::start(move |request, mut stream: TcpStream| {
        let answers = answers(&request, status);
        let turn = next.fetch_add(1, Ordering::SeqCst);
        let answer = answers[turn % answers.len()].clone();
        all_sent.lock().expect("whole").push_str(&answer);
        async move {
            stream.write_all(answer.as_bytes()).await.ok();
        }
    })
    .await;
    let worker = world
        .worker_without_app()
        .env("AGORA_APP_ID", "echo")
        .env("AGORA_BASE_URL", &api.url)
        .env("WORKER_LOG", "trace");
    let sign = |worker: Worker, (name, value): &(&str, &str)| worker.env(name, value);
    let mut worker = sign_in.iter().fold(worker, sign).start();

    let pair = STANDARD.encode(format!("{API_KEY}:{API_SECRET}"));
    let request = RawRequest {
        head: format!("authorization: Basic {pair}"),
        body: json!({ "payload": PAYLOAD }).to_string(),
    };
    // Each response needs its own message. A 401 holds the lane, which retries one message.
    let is_held = status == 401;
    let messages = if is_held {
        1
    } else {
        answers(&request, status).len()
    };
    for turn in 0..messages {
        let message =
            json!({"payload": PAYLOAD, "max_attempts": 1, "dedupe_key": turn.to_string()});
        world.insert(peer(message)).await;
    }
    if is_held {
        world.until_lane("hold_reason is not null").await;
    } else {
        world.until_all_final().await;
    }
    let report = world.run(&["status", "--json"]).await;
    worker.stop().await;

    let mut markers = vec![
        marker("the payload's first line", &PAYLOAD[..23]),
        marker("the payload's second line", &PAYLOAD[25..]),
        marker("the payload's number", "918273645546372819"),
    ];
    markers.extend_from_slice(secrets);
    let kept: String = world
        .ask(
            "select coalesce(string_agg(concat_ws(' ', error, request_id), E'\\n'), '') || E'\\n'
                 || coalesce((select string_agg(error, E'\\n') from signaling.attempt), '') || E'\\n'
                 || coalesce((select string_agg(hold_reason, E'\\n') from signaling.lane), '')
             from signaling.outbox",
        )
        .await;
    if status == 200 {
        let found = world
            .count("status <> 'message_sent' or request_id is not null")
            .await;
        assert_eq!(found, 0);
    } else {
        assert_contains(&kept, &["not kept: it may repeat"]);
    }
    assert_silent("the database", &kept, &markers);
    assert_silent("the log", &worker.stderr.text(), &markers);
    assert_silent("worker status", &report, &markers);
    // The gateway did repeat each marker.
    let sent = sent.lock().expect("whole").clone();
    for marker in &markers {
        let is_sent = shown(&sent, std::slice::from_ref(marker)).is_some();
        assert!(is_sent, "{}", marker.name);
    }
}

const BASIC: [(&str, &str); 2] = [("AGORA_API_KEY", API_KEY), ("AGORA_API_SECRET", API_SECRET)];

#[tokio::test]
async fn the_worker_stores_no_echo_in_an_error_or_a_success() {
    let secrets = [marker("the key", API_KEY), marker("the secret", API_SECRET)];
    for status in [400, 200] {
        assert_no_echo(status, &BASIC, &secrets).await;
    }
}

#[tokio::test]
async fn the_worker_stores_no_echo_of_a_token() {
    for headers in ["x-agora", "authorization"] {
        let sign_in = [
            ("AGORA_TOKEN", TOKEN),
            ("AGORA_UID", "alice"),
            ("AGORA_TOKEN_HEADERS", headers),
        ];
        assert_no_echo(400, &sign_in, &[marker("the token", TOKEN)]).await;
    }
}

#[tokio::test]
async fn the_worker_stores_no_echo_as_the_reason_of_a_hold() {
    assert_no_echo(401, &BASIC, &[]).await;
}
