//! `worker simulate`

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use testkit::{Running, Worker, assert_contains};

/// Makes a request on a connection of its own, and returns the answer as it came.
async fn request(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!(
        "{head} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
}

async fn address(simulator: &Running) -> String {
    simulator.until_printed("control").await;
    let printed = simulator.stdout.text();
    let line = printed
        .lines()
        .find(|line| line.starts_with("simulated API"))
        .expect("its URL");
    line.rsplit("http://")
        .next()
        .expect("an address")
        .trim()
        .to_owned()
}

#[tokio::test]
async fn the_simulated_api_answers_and_prints_a_summary() {
    let mut simulator = Worker::new(&[
        "simulate",
        "--listen",
        "127.0.0.1:0",
        "--fault",
        "500:destination=flaky",
    ])
    .start();
    let address = address(&simulator).await;
    let path = "POST /dev/v2/project/app/rtm/users/alice/peer_messages?wait_for_ack=true";
    for (destination, status, phrase) in [
        ("bob", "200 OK", "message_delivered"),
        ("offline-bob", "200 OK", "message_offline"),
        ("flaky", "500 Internal Server Error", "failed"),
    ] {
        let body = format!(r#"{{"destination":"{destination}","payload":"hello"}}"#);
        let answer = request(&address, path, &body).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains(phrase), "{answer}");
    }
    let ledger = request(&address, "GET /_simulator/ledger", "").await;
    assert!(ledger.contains(r#""calls":3"#), "{ledger}");

    simulator.signal("INT").await;
    assert_eq!(simulator.wait_exit().await, Some(0));
    let printed = simulator.stdout.text();
    let phrase = "3 calls, 2 messages accepted, 0 of them more than once";
    assert_contains(&printed, &[phrase]);
}
