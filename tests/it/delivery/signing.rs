//! Three kinds of credentials, and the sources of their secrets.

use serde_json::json;
use simulator::Credential;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use harness::{API_KEY, API_SECRET, APP_ID, PATIENCE, Worker, World, basic, peer, write};

const TOKEN: &str = "007token-of-the-tests";
const CERTIFICATE: &str = "5CFd2fd1755d40ecb72977518be15d3b";

fn worker_with(world: &World, variables: &[(&str, &str)]) -> Worker {
    variables.iter().fold(
        world.worker_without_app().env("AGORA_APP_ID", APP_ID),
        |worker, (name, value)| worker.env(name, value),
    )
}

/// Receives one request, accepts its message, and returns the lines of the request.
async fn one_request(listener: TcpListener) -> Vec<String> {
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        let bytes = stream.read_buf(&mut request).await.expect("read");
        assert_ne!(bytes, 0, "the request ends too early");
    }
    let body = r#"{"result":"success","code":"message_sent"}"#;
    let length = body.len();
    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
    let written = stream.write_all(response.as_bytes()).await;
    written.expect("written");
    let request = String::from_utf8(request).expect("text");
    request.split("\r\n").map(str::to_owned).collect()
}

#[tokio::test]
async fn a_call_has_the_prefix_of_its_base_url_and_the_documented_headers() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let token = [("AGORA_TOKEN", TOKEN), ("AGORA_UID", "alice")];
    let _worker = worker_with(&world, &token)
        .env("AGORA_TOKEN_HEADERS", "authorization")
        .env("AGORA_BASE_URL", &format!("http://{address}/some/prefix/"))
        .start();
    let id = world.insert(peer(json!({"wait_for_ack": true}))).await;
    let request = one_request(listener);
    let request = timeout(PATIENCE, request).await.expect("a request");
    world.until_final(id).await;
    let path = "/some/prefix/dev/v2/project/app-of-the-tests/rtm/users/alice/peer_messages";
    for line in [
        format!("POST {path}?wait_for_ack=true HTTP/1.1"),
        format!("authorization: agora token={TOKEN}"),
        "content-type: application/json;charset=utf-8".to_owned(),
        format!("host: {address}"),
    ] {
        assert!(request.contains(&line), "{line}: {request:?}");
    }
    let is_x_agora = |line: &String| line.starts_with("x-agora");
    assert!(!request.iter().any(is_x_agora), "{request:?}");
}

#[tokio::test]
async fn a_given_token_sends_for_its_user_and_another_senders_message_fails_at_once() {
    let world = World::new().await;
    world.simulator.behaviour().credentials = vec![Credential::Token {
        token: TOKEN.to_owned(),
        uid: Some("alice".to_owned()),
    }];
    let own = world.insert(peer(json!({"sender": "alice"}))).await;
    let other = world.insert(peer(json!({"sender": "mallory"}))).await;
    let _worker = worker_with(&world, &[("AGORA_TOKEN", TOKEN), ("AGORA_UID", "alice")]).start();
    assert_eq!(world.until_final(own).await.status, "message_sent");
    let row = world.until_final(other).await;
    let found = (row.status.as_str(), row.attempts, row.sent_at);
    assert_eq!(found, ("failed", 0, None));
    let error = row.error.expect("an error");
    let names_both = error.contains("alice") && error.contains("AGORA_UID");
    assert!(names_both && !error.contains(TOKEN), "{error}");
    assert_eq!(world.seen().calls, 1);
}

/// Such a message makes no call, so its probe shows nothing about the API.
#[tokio::test]
async fn another_senders_message_fails_also_as_the_probe_of_a_held_app() {
    let world = World::new().await;
    let open = "select signaling.open_lane('default', 500)";
    world.execute(open).await;
    let hold = "select signaling.hold('default', 'unavailable', 'HTTP 500', null)";
    world.execute(hold).await;
    let other = world.insert(peer(json!({"sender": "mallory"}))).await;
    let _worker = worker_with(&world, &[("AGORA_TOKEN", TOKEN), ("AGORA_UID", "alice")]).start();
    let row = world.until_final(other).await;
    assert_eq!((row.status.as_str(), row.sent_at), ("failed", None));
    assert!(world.lane::<bool>("hold is not null").await);
}

#[tokio::test]
async fn an_app_certificate_gives_every_sender_credentials() {
    for headers in ["authorization", "x-agora"] {
        let world = World::new().await;
        world.simulator.behaviour().credentials =
            vec![Credential::Certificate(CERTIFICATE.to_owned())];
        for sender in ["alice", "bob", "a b", "%2F", "alice"] {
            world.insert(peer(json!({"sender": sender}))).await;
        }
        let variables = [
            ("AGORA_APP_CERTIFICATE", CERTIFICATE),
            ("AGORA_TOKEN_HEADERS", headers),
        ];
        let _worker = worker_with(&world, &variables).start();
        world.until_all_final().await;
        world.assert_sent_once(5).await;
        assert_eq!(world.seen().calls, 5, "{headers}");
    }
}

#[tokio::test]
async fn secrets_are_read_from_files_and_again_when_a_file_changes() {
    let world = World::new().await;
    world.simulator.behaviour().credentials = basic(API_KEY, "the-next-secret");
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = write(directory.path(), name, &format!("{text}\n"));
        path.display().to_string()
    };
    let worker = worker_with(
        &world,
        &[
            ("AGORA_API_KEY_FILE", &write("key", API_KEY)),
            ("AGORA_API_SECRET_FILE", &write("secret", "the-last-secret")),
            ("DATABASE_URL_FILE", &write("url", &world.url)),
        ],
    )
    .without_env("DATABASE_URL")
    .start();
    let id = world.insert(peer(json!({}))).await;
    worker.until_logged("lane_held").await;
    write("secret", "the-next-secret");
    assert_eq!(world.until_final(id).await.status, "message_sent");
}

#[tokio::test]
async fn a_secret_whose_file_is_gone_holds_the_app_until_it_is_back() {
    let world = World::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    let secret = directory.path().join("secret");
    let path = secret.to_str().expect("a path");
    let variables = [("AGORA_API_KEY", API_KEY), ("AGORA_API_SECRET_FILE", path)];
    std::fs::write(&secret, API_SECRET).expect("written");
    let worker = worker_with(&world, &variables).start();
    worker.until_logged("worker_started").await;
    std::fs::remove_file(&secret).expect("removed");
    // The worker uses the secret that it has read for a moment.
    world
        .until("the app is held", PATIENCE, async || {
            world.insert(peer(json!({}))).await;
            worker.logged("lane_held") > 0
        })
        .await;
    let line = worker.log_line("lane_held");
    assert!(line.contains("can't be read"), "{line}");
    world.until_lane("hold_probes > 1").await;
    let waited = "clock_timestamp() - hold_since > interval '0.9 s'";
    assert!(world.lane::<bool>(waited).await, "a probe without a pause");
    std::fs::write(&secret, API_SECRET).expect("written");
    world.until_count(0, "status <> 'message_sent'").await;
}
