//! Accepted and refused calls.

use super::*;

#[tokio::test]
async fn the_ledger_records_an_accepted_peer_message() {
    let simulator = started(&[]).await;
    let mut client = Client::new(&simulator).await;
    let path = "/dev/v2/project/app/rtm/users/a%20%2B%3F%25/peer_messages?wait_for_ack=false";
    let body = json!({
        "destination": "bob", "payload": "hello",
        "enable_offline_messaging": true, "enable_historical_messaging": true,
    });
    let reply = client
        .request("POST", path, body.to_string())
        .await
        .unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    let request_id = reply.headers["x-request-id"].to_str().unwrap();
    assert_eq!(
        reply.body,
        json!({ "result": "success", "request_id": request_id, "code": "message_sent" })
    );

    let call = simulator.ledger().calls().remove(0);
    assert_eq!(call.kind, CallKind::Peer);
    assert_eq!(call.sender, "a +?%");
    assert_eq!(call.target, "bob");
    assert_eq!(call.payload.as_deref(), Some("hello"));
    assert_eq!(call.status, Some(200));
    assert_eq!(call.request_id, request_id);
    assert!(call.accepted && call.enable_offline_messaging && call.enable_historical_messaging);
}

#[tokio::test]
async fn the_ledger_records_an_accepted_channel_message() {
    let simulator = started(&[]).await;
    let mut client = Client::new(&simulator).await;
    let path = "/dev/v2/project/app/rtm/users/alice/channel_messages";
    let body = json!({ "channel_name": "room", "payload": "hello" }).to_string();
    let reply = client.request("POST", path, body).await.unwrap();
    assert_eq!(reply.body["code"], "message_sent");
    let call = simulator.ledger().calls().remove(0);
    assert_eq!(
        (call.kind, call.target.as_str()),
        (CallKind::Channel, "room")
    );
}

#[tokio::test]
async fn a_call_that_waits_for_an_ack_says_whether_the_recipient_is_online() {
    let simulator = started(&[]).await;
    let mut client = Client::new(&simulator).await;
    let reply = client.send("bob", "hello").await.unwrap();
    assert_eq!(reply.body["code"], "message_delivered");
    let reply = client.send("offline-bob", "hello").await.unwrap();
    assert_eq!(reply.body["code"], "message_offline");
    assert_eq!(reply.body.get("result"), None);
}

#[tokio::test]
async fn calls_with_wrong_parameters_are_refused() {
    let simulator = started(&[]).await;
    let mut client = Client::new(&simulator).await;
    let right = json!({ "destination": "bob", "payload": "hello" });
    let with = |field: &str, value: Value| {
        let mut body = right.clone();
        body[field] = value;
        body.to_string()
    };
    let alice = "/dev/v2/project/app/rtm/users/alice/peer_messages";
    for (path, body) in [
        (alice, "not json".to_owned()),
        (alice, "[]".to_owned()),
        (alice, json!({ "destination": "bob" }).to_string()),
        (alice, with("destination", json!(5))),
        (alice, with("destination", json!("bo/b"))),
        (alice, with("payload", json!(""))),
        (alice, with("payload", json!("x".repeat(32_769)))),
        (alice, with("enable_offline_messaging", json!("true"))),
        (alice, with("enable_historical_messaging", Value::Null)),
        (
            "/dev/v2/project/app/rtm/users/a%2Fb/peer_messages",
            right.to_string(),
        ),
        (
            "/dev/v2/project/app/rtm/users/%FF/peer_messages",
            right.to_string(),
        ),
        (
            "/dev/v2/project/app/rtm/users/alice/peer_messages?wait_for_ack=yes",
            right.to_string(),
        ),
        (
            "/dev/v2/project/app/rtm/users/alice/peer_messages?wait_for_ack=true&wait_for_ack=true",
            right.to_string(),
        ),
    ] {
        let reply = client.request("POST", path, body.clone()).await.unwrap();
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{path} {body}");
        assert_eq!(reply.body["result"], "failed");
        assert!(reply.body["reason"].is_string());
    }
    let summary = simulator.ledger().summary();
    assert_eq!((summary.calls, summary.accepted), (13, 0));
}

#[tokio::test]
async fn a_body_above_the_size_limit_is_refused() {
    let simulator = started(&[]).await;
    let mut client = Client::new(&simulator).await;
    // Every byte of a legal payload may be escaped.
    let escaped = format!(
        r#"{{"destination":"bob","payload":"{}"}}"#,
        r"\u0001".repeat(32_768)
    );
    let path = "/dev/v2/project/app/rtm/users/alice/peer_messages";
    let reply = client.request("POST", path, escaped).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);

    let simulator = started(&[]).await;
    let mut stream = TcpStream::connect(simulator.address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\ncontent-length: 262145\r\n\r\n{}",
        " ".repeat(262_145)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status_line = [0; 12];
    stream.read_exact(&mut status_line).await.unwrap();
    assert_eq!(&status_line, b"HTTP/1.1 413");
}

#[tokio::test]
async fn other_routes_methods_and_content_types_are_refused() {
    let simulator = started(&[]).await;
    let mut client = Client::new(&simulator).await;
    let path = "/dev/v2/project/app/rtm/users/alice/peer_messages";
    let reply = client.request("GET", path, String::new()).await.unwrap();
    assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
    let elsewhere = "/dev/v2/project/app/rtm/users/alice/messages";
    let reply = client
        .request("POST", elsewhere, String::new())
        .await
        .unwrap();
    assert_eq!(reply.status, StatusCode::NOT_FOUND);

    let mut stream = TcpStream::connect(simulator.address).await.unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nhost: s\r\ncontent-length: 2\r\n\r\n{{}}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status_line = [0; 12];
    stream.read_exact(&mut status_line).await.unwrap();
    assert_eq!(&status_line, b"HTTP/1.1 415");

    assert_eq!(simulator.ledger().summary().calls, 1);
}

#[tokio::test]
async fn a_call_over_the_limit_is_refused_with_429() {
    let simulator = started(&[]).await;
    simulator.behaviour().limit = Some(2);
    let mut client = Client::new(&simulator).await;
    loop {
        let reply = client.send("bob", "hello").await.unwrap();
        if reply.status == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(reply.body, json!({ "message": "API rate limit exceeded" }));
            break;
        }
    }
    let summary = simulator.ledger().summary();
    assert_eq!(summary.apps["app"].accepted, 2);
    assert_eq!(summary.apps["app"].by_status[&429], 1);
}

#[tokio::test]
async fn a_wrong_sign_in_is_refused_with_401() {
    let simulator = started(&[]).await;
    simulator.behaviour().credentials = vec![Credential::Certificate("other".to_owned())];
    let mut client = Client::new(&simulator).await;
    let reply = client.send("bob", "hello").await.unwrap();
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        reply.body,
        json!({ "message": "Invalid authentication credentials" })
    );
    let calls = simulator.ledger().calls_for_payload("hello");
    assert_eq!((calls[0].status, calls[0].accepted), (Some(401), false));
}
