//! A raw HTTP client of the ops server. Tests set the headers that a browser would add.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use harness::{PATIENCE, Running, Worker, comes_true};

/// A worker with an ops server.
pub(crate) struct OpsWorker {
    pub(crate) worker: Running,
    pub(crate) client: OpsClient,
}

impl OpsWorker {
    pub(crate) async fn start(worker: Worker) -> Self {
        let worker = worker.env("WORKER_OPS_ADDR", "127.0.0.1:0").start();
        worker.until_logged("ops_server_started").await;
        let line = worker.log_line("ops_server_started");
        let (_, rest) = line.split_once(" address=").expect("an address");
        let address = rest.split_whitespace().next().expect("an address");
        let client = OpsClient(address.parse().expect("an address"));
        Self { worker, client }
    }

    pub(crate) async fn until_ready(&self) {
        self.until_readiness(200, "").await;
    }

    /// Waits until `/readyz` responds with a status and a phrase.
    pub(crate) async fn until_readiness(&self, status: u16, phrase: &str) {
        let mut last = String::new();
        let came = comes_true(PATIENCE * 2, async || {
            let response = self.client.get("/readyz").await;
            last = format!("{} {}", response.status, response.body);
            response.status == status && response.body.contains(phrase)
        })
        .await;
        assert!(came, "readiness is not {status} with {phrase:?}: {last}");
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct OpsClient(pub(crate) SocketAddr);

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

impl OpsClient {
    pub(crate) async fn get(self, path: &str) -> Response {
        self.ask("GET", path, &[], "").await
    }

    pub(crate) async fn get_with(self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.ask("GET", path, headers, "").await
    }

    /// Sends a form as a page of the ops server does.
    pub(crate) async fn post(self, path: &str, headers: &[(&str, &str)], form: &str) -> Response {
        let mut all = vec![
            ("sec-fetch-site", "same-origin"),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        all.extend(headers);
        self.ask("POST", path, &all, form).await
    }

    /// Sends a request. Without another `host` header, the server's address is the host.
    pub(crate) async fn ask(
        self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let mut lines = vec![
            format!("{method} {path} HTTP/1.1"),
            "connection: close".to_owned(),
            format!("content-length: {}", body.len()),
        ];
        if !headers.iter().any(|(name, _)| *name == "host") {
            lines.push(format!("host: {}", self.0));
        }
        lines.extend(
            headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}")),
        );
        let request = format!("{}\r\n\r\n{body}", lines.join("\r\n"));
        let asking = async {
            let mut stream = TcpStream::connect(self.0).await.expect("connected");
            // The server may respond and close before it has read the whole request.
            stream.write_all(request.as_bytes()).await.ok();
            let mut response = Vec::new();
            while !is_whole(&response) && stream.read_buf(&mut response).await.is_ok_and(|n| n > 0)
            {
            }
            String::from_utf8(response).expect("text")
        };
        let text = tokio::time::timeout(PATIENCE, asking)
            .await
            .expect("a response in time");
        parse(&text)
    }
}

/// True if a response is complete by its Content-Length, because chromedriver leaves the connection open.
fn is_whole(response: &[u8]) -> bool {
    let Some(end) = response.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&response[..end]).to_ascii_lowercase();
    let mut lengths = head
        .lines()
        .filter_map(|line| line.strip_prefix("content-length:"));
    let length = lengths.next().and_then(|length| length.trim().parse().ok());
    length.is_some_and(|length: usize| response.len() >= end + 4 + length)
}

fn parse(text: &str) -> Response {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no response: {text:?}"));
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .expect("a status");
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Response {
        status,
        headers,
        body: body.to_owned(),
    }
}
