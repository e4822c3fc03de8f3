//! An API whose responses a test writes byte for byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use harness::{PATIENCE, until};

pub(super) struct RawRequest {
    pub(super) head: String,
    pub(super) body: String,
}

/// A server that reads one request per connection, and passes the connection to the test's function.
pub(super) struct RawApi {
    pub(super) url: String,
    open: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl RawApi {
    pub(super) async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(RawRequest, TcpStream) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (open, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let answer = Arc::new(answer);
        let counters = (Arc::clone(&open), Arc::clone(&requests));
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (open, requests) = (Arc::clone(&counters.0), Arc::clone(&counters.1));
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    open.fetch_add(1, Ordering::SeqCst);
                    if let Some(request) = read_request(&mut stream).await {
                        requests.fetch_add(1, Ordering::SeqCst);
                        answer(request, stream).await;
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            url,
            open,
            requests,
            server,
        }
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Waits until the worker has closed every connection.
    pub(super) async fn until_let_go(&self) {
        until("the connections are closed", PATIENCE, async || {
            self.open.load(Ordering::SeqCst) == 0
        })
        .await;
    }
}

impl Drop for RawApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Reads a request by its content length. `None` if the client closes the connection before.
async fn read_request(stream: &mut TcpStream) -> Option<RawRequest> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .expect("a length")
                .parse()
                .expect("a number");
            let body = &bytes[end + 4..];
            if body.len() >= length {
                let body = String::from_utf8_lossy(body).into_owned();
                return Some(RawRequest { head, body });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Writes the same bytes until the client closes the connection. Returns the number of bytes.
pub(super) async fn write_for_ever(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    let mut written = 0;
    while stream.write_all(bytes).await.is_ok() {
        written += bytes.len();
    }
    written
}
