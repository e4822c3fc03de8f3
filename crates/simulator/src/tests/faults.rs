//! Injected faults as the client sees them.

use super::*;

#[tokio::test]
async fn a_status_fault_does_not_accept_the_message() {
    let simulator = started(&["503:first_calls=1,retry_after=2"]).await;
    let mut client = Client::new(&simulator).await;
    let reply = client.send("bob", "hello").await.unwrap();
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.headers["retry-after"], "2");
    let reply = client.send("bob", "hello").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    let summary = simulator.ledger().summary();
    assert_eq!((summary.accepted, summary.duplicates), (1, 0));
}

#[tokio::test]
async fn drop_accepts_the_message_and_drop_before_does_not() {
    let simulator = started(&["drop:count=1", "drop_before:count=1"]).await;
    for (fault, accepted) in [("drop", true), ("drop_before", false)] {
        let mut client = Client::new(&simulator).await;
        assert!(client.send("bob", fault).await.is_err());
        let call = simulator.ledger().calls_for_payload(fault).remove(0);
        assert_eq!(call.fault, Some(fault));
        assert_eq!((call.accepted, call.status), (accepted, None));
    }
    let mut client = Client::new(&simulator).await;
    let reply = client.send("bob", "drop").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(simulator.ledger().summary().duplicates, 1);
}

/// All bytes that the simulator writes until it closes the connection.
async fn raw_response(simulator: &Simulator) -> String {
    let mut stream = TcpStream::connect(simulator.address).await.unwrap();
    let body = r#"{"destination":"bob","payload":"hello"}"#;
    let request = format!(
        "POST /dev/v2/project/app/rtm/users/alice/peer_messages HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn a_dropped_connection_gets_no_byte_of_a_response() {
    let simulator = started(&["drop"]).await;
    let response = raw_response(&simulator).await;
    assert!(response.is_empty(), "{response:?}");
}

#[tokio::test]
async fn a_half_body_ends_early_and_garbage_is_not_json() {
    let simulator = started(&["half_body:count=1", "garbage"]).await;
    let response = raw_response(&simulator).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    let (_, half) = response.split_once("\r\n\r\n").unwrap();
    assert!(!half.is_empty() && !half.ends_with('}'), "{response}");

    let mut client = Client::new(&simulator).await;
    let reply = client.send("bob", "hello").await.unwrap();
    assert_eq!((reply.status, reply.body), (StatusCode::OK, Value::Null));
    assert_eq!(simulator.ledger().summary().accepted, 2);
}

#[tokio::test]
async fn a_hanging_call_accepts_the_message_and_ends_at_the_stop() {
    let simulator = started(&["hang"]).await;
    let mut client = Client::new(&simulator).await;
    let calling = tokio::spawn(async move { client.send("bob", "hello").await.is_err() });
    until(&simulator, |seen| seen.accepted == 1).await;
    assert_eq!(simulator.ledger().calls()[0].status, None);
    simulator.stop().await;
    assert!(calling.await.unwrap());
}

#[tokio::test]
async fn a_slow_response_without_its_client_does_not_count() {
    let simulator = started(&["slow=1h"]).await;
    let mut client = Client::new(&simulator).await;
    let calling = tokio::spawn(async move { client.send("bob", "hello").await.is_err() });
    until(&simulator, |seen| seen.accepted == 1).await;
    calling.abort();
    simulator.stop().await;
    let app = &simulator.ledger().summary().apps["app"];
    assert_eq!((app.accepted, app.unanswered), (1, 1));
}

#[tokio::test]
async fn a_slow_response_arrives_after_its_delay() {
    let simulator = started(&["slow=20ms"]).await;
    let mut client = Client::new(&simulator).await;
    let begun = std::time::Instant::now();
    let reply = client.send("bob", "hello").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(20));
    assert_eq!(reply.body["code"], "message_delivered");
    assert_eq!(simulator.ledger().calls()[0].status, Some(200));
}
