//! Calls that go wrong on demand.

use super::*;

#[tokio::test]
async fn a_status_fault_is_answered_and_the_message_is_not_taken() {
    let simulator = started(&["503:retry_after=2,first_calls=1"]).await;
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
async fn a_dropped_call_has_its_effect_and_no_answer() {
    let simulator = started(&["drop:count=1", "drop_before:count=1"]).await;
    for (fault, accepted) in [("drop", true), ("drop_before", false)] {
        let mut client = Client::new(&simulator).await;
        assert!(client.send("bob", fault).await.is_err());
        let call = simulator.ledger().calls_for_payload(fault).remove(0);
        assert_eq!(call.fault.as_deref(), Some(fault));
        assert_eq!((call.accepted, call.status), (accepted, None));
    }
    let mut client = Client::new(&simulator).await;
    let reply = client.send("bob", "drop").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(simulator.ledger().summary().duplicates, 1);
}

#[tokio::test]
async fn a_broken_answer_breaks_off_in_its_body() {
    let simulator = started(&["half_body:count=1", "garbage"]).await;
    let mut stream = TcpStream::connect(simulator.address()).await.unwrap();
    let body = r#"{"destination":"bob","payload":"hello"}"#;
    let request = format!(
        "POST /dev/v2/project/app/rtm/users/alice/peer_messages HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, half) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!half.is_empty() && !half.ends_with('}'), "{answer}");

    let mut client = Client::new(&simulator).await;
    let reply = client.send("bob", "hello").await.unwrap();
    assert_eq!((reply.status, reply.body), (StatusCode::OK, Value::Null));
    assert_eq!(simulator.ledger().summary().accepted, 2);
}

#[tokio::test]
async fn a_hanging_call_is_taken_and_ends_when_the_simulator_stops() {
    let simulator = started(&["hang"]).await;
    let mut client = Client::new(&simulator).await;
    let calling = tokio::spawn(async move { client.send("bob", "hello").await.is_err() });
    simulator
        .ledger()
        .wait_for_accepted(1, PATIENCE)
        .await
        .unwrap();
    assert_eq!(simulator.ledger().calls()[0].status, None);
    simulator.stop().await;
    assert!(calling.await.unwrap());
}

#[tokio::test]
async fn a_slow_answer_that_nobody_waits_for_is_none() {
    let simulator = started(&["slow=1h"]).await;
    let mut client = Client::new(&simulator).await;
    let calling = tokio::spawn(async move { client.send("bob", "hello").await.is_err() });
    simulator
        .ledger()
        .wait_for_accepted(1, PATIENCE)
        .await
        .unwrap();
    calling.abort();
    simulator.stop().await;
    let app = &simulator.ledger().summary().apps["app"];
    assert_eq!((app.accepted, app.unanswered), (1, 1));
}

#[tokio::test]
async fn a_slow_answer_comes_all_the_same() {
    let simulator = started(&["slow=20ms"]).await;
    let mut client = Client::new(&simulator).await;
    let begun = std::time::Instant::now();
    let reply = client.send("bob", "hello").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(20));
    assert_eq!(reply.body["code"], "message_delivered");
    assert_eq!(simulator.ledger().calls()[0].status, Some(200));
}
