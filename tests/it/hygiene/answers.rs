//! Responses without an end, or far too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::raw_api::{RawApi, write_for_ever};
use harness::{Row, World, assert_contains};

/// The most bytes of an endless response that a connection may take. The two socket buffers take up to some megabytes.
const MOST_TAKEN: usize = 32 * 1024 * 1024;

/// Delivers a message to an API until the worker gives up. Returns the row, and the most bytes of a response that the
/// connection took.
async fn call<F, A>(answer: F) -> (Row, usize)
where
    F: Fn(TcpStream) -> A + Send + Sync + 'static,
    A: Future<Output = usize> + Send + 'static,
{
    let world = World::new().await;
    let taken = Arc::<AtomicUsize>::default();
    let most = Arc::clone(&taken);
    let api = RawApi::start(move |_, stream| {
        let (answering, most) = (answer(stream), Arc::clone(&most));
        async move {
            most.fetch_max(answering.await, Ordering::SeqCst);
        }
    })
    .await;
    let mut worker = world
        .worker()
        .env("AGORA_BASE_URL", &api.url)
        .env("WORKER_REQUEST_TIMEOUT", "2s")
        .env("WORKER_GIVE_UP_AFTER", "1ms")
        .start();
    let (_, row) = world.deliver(json!({})).await;
    api.until_let_go().await;
    // The worker makes a second call unless the API rejects the message.
    let is_rejected = row.http_status == Some(400);
    assert_eq!(api.requests(), if is_rejected { 1 } else { 2 });
    worker.stop().await;
    let error = row.error.as_deref().unwrap_or_default();
    assert!(error.len() < 1_200, "{error}");
    (row, taken.load(Ordering::SeqCst))
}

/// Writes a text, and then another one until the worker closes the connection. Returns the number of bytes.
async fn write_then(mut stream: TcpStream, head: impl AsRef<str>, endless: &str) -> usize {
    let head = head.as_ref();
    stream.write_all(head.as_bytes()).await.ok();
    head.len() + write_for_ever(&mut stream, endless.as_bytes()).await
}

#[tokio::test]
async fn responses_that_are_too_long_or_have_no_end_are_given_up() {
    let long_header = format!("x-long: {}\r\n", "x".repeat(1024 * 1024));
    let chunked = |status: &str| format!("HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n");
    let ok = "HTTP/1.1 200 OK\r\n";
    let broken = "the connection broke before a response came";
    let timeout = "no response within 2s";
    for (what, head, endless, http_status, error) in [
        (
            "a long header",
            format!("{ok}{long_header}\r\n"),
            "\0",
            None,
            broken,
        ),
        (
            "many headers",
            format!("{ok}{}\r\n", "a: b\r\n".repeat(5_000)),
            "\0",
            None,
            broken,
        ),
        (
            "endless headers",
            ok.to_owned(),
            "x-more: and more of it\r\n",
            None,
            broken,
        ),
        (
            "endless interim responses",
            String::new(),
            "HTTP/1.1 102 Processing\r\n\r\n",
            None,
            timeout,
        ),
        (
            "an endless body",
            chunked("200 OK"),
            "10\r\n0123456789abcdef\r\n",
            Some(200),
            "longer than 64 KiB",
        ),
        (
            "an endless chunk extension",
            chunked("400 No") + "1;",
            "extension",
            Some(400),
            "its body did not come",
        ),
        (
            "endless trailers",
            chunked("400 No") + "1\r\nx\r\n0\r\n",
            "x-trailer: x\r\n",
            Some(400),
            "its body did not come",
        ),
    ] {
        let (row, taken) = call(move |stream| write_then(stream, head.clone(), endless)).await;
        let found = (row.status.as_str(), row.http_status);
        assert_eq!(found, ("failed", http_status), "{what}");
        assert_contains(&row.error.expect("an error"), &[error]);
        // The worker reads interim responses until the timeout, and keeps none.
        assert!(error == timeout || taken < MOST_TAKEN, "{what}: {taken}");
    }
}

#[tokio::test]
async fn a_response_that_drips_ends_with_the_request_timeout() {
    /// Far shorter than the request timeout, so no pause between two bytes ends the call.
    const DRIP: Duration = Duration::from_millis(50);
    for (head, http_status, error) in [
        ("HTTP/1.1 200 OK\r\nx-slow: ", None, "no response within 2s"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n",
            Some(200),
            "HTTP 200, and its body did not come in time",
        ),
    ] {
        let (row, _) = call(move |mut stream: TcpStream| async move {
            let mut written = head.len();
            stream.write_all(head.as_bytes()).await.ok();
            while stream.write_all(b"x").await.is_ok() {
                written += 1;
                tokio::time::sleep(DRIP).await;
            }
            written
        })
        .await;
        let found = (row.http_status, row.error.as_deref());
        assert_eq!(found, (http_status, Some(error)));
    }
}

#[tokio::test]
async fn texts_of_a_response_are_cut_and_lose_their_control_characters() {
    let long = "rrr ".repeat(2_500);
    let (row, _) = call(move |stream| {
        let body = format!(
            r#"{{"result":"{long}","code":"{long}","reason":"\u0000\u001b[31m{long}\n","request_id":"{long}"}}"#
        );
        let length = body.len();
        let head = format!("HTTP/1.1 500 No\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        write_then(stream, head + &body, "\0")
    })
    .await;
    assert_eq!(row.http_status, Some(500));
    let (error, id) = (row.error.expect("an error"), row.request_id.expect("an id"));
    assert!(error.contains("rrr") && error.len() < 1_000, "{error}");
    assert!(!error.contains(char::is_control), "{error:?}");
    assert_eq!(id, "rrr ".repeat(32));
}

#[tokio::test]
async fn a_control_request_to_the_simulator_is_bounded() {
    let world = World::new().await;
    let address = world.simulator.address;
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = "PUT /_simulator/faults HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("written");
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    let taken = write_for_ever(&mut stream, chunk.as_bytes()).await;
    assert!(taken < MOST_TAKEN, "{taken}");
    assert!(world.simulator.faults().is_empty());
}
