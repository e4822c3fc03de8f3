//! A small WebDriver client for chromedriver on this machine.
//!
//! The client has only the commands that the browser tests use. Most are in the W3C standard
//! (<https://www.w3.org/TR/webdriver2/>). The paths with `goog` and `se` are chromedriver's own. A client crate would
//! bring a second HTTP client with it, and make the tests slower to compile.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use testkit::PATIENCE;

/// Longer than chromedriver waits for the browser to start, because its own error explains more than a timeout.
const REQUEST_TIMEOUT: Duration = PATIENCE.saturating_mul(3);
/// A screenshot is the largest response. It takes less than 1 MiB.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;
/// Error responses without JSON are cut to this length in error messages.
const MAX_SHOWN_CHARS: usize = 1_000;

/// A key that types no character.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    Enter,
    Tab,
}

impl From<Key> for String {
    /// WebDriver's code point for the key.
    fn from(key: Key) -> Self {
        match key {
            Key::Enter => '\u{E007}',
            Key::Tab => '\u{E004}',
        }
        .into()
    }
}

/// A browser that chromedriver controls.
///
/// Each command opens a connection, so a command that fails or times out can't break the next one.
#[derive(Debug)]
pub(super) struct Session {
    driver: SocketAddr,
    /// `/session/{id}`, the path that all commands of this session start with.
    path: String,
}

impl Session {
    /// Starts a browser. `capabilities` holds its program, its arguments and what it logs.
    pub(super) async fn start(port: u16, capabilities: Value) -> anyhow::Result<Self> {
        let driver = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let parameters = json!({"capabilities": {"alwaysMatch": capabilities}});
        let value = send(driver, Method::POST, "/session", Some(parameters)).await?;
        let id = value["sessionId"].as_str();
        let id = id.with_context(|| format!("chromedriver returned no session ID: {value}"))?;
        Ok(Self {
            driver,
            path: format!("/session/{id}"),
        })
    }

    /// Opens a URL and waits until its page is loaded.
    pub(super) async fn navigate(&self, url: &str) -> anyhow::Result<()> {
        self.post("/url", json!({"url": url})).await?;
        Ok(())
    }

    /// Runs the body of a JavaScript function and returns the function's result.
    pub(super) async fn execute(&self, script: &str) -> anyhow::Result<Value> {
        self.post("/execute/sync", json!({"script": script, "args": []}))
            .await
    }

    /// Presses and releases one key after the other. They go to the focused element.
    pub(super) async fn press(&self, keys: &str) -> anyhow::Result<()> {
        let press = |key: char| {
            ["keyDown", "keyUp"].map(|action| json!({"type": action, "value": key.to_string()}))
        };
        let actions: Vec<_> = keys.chars().flat_map(press).collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.post("/actions", json!({"actions": [keyboard]}))
            .await?;
        Ok(())
    }

    /// Sends a command of the Chrome DevTools Protocol.
    pub(super) async fn devtools(&self, command: &str, parameters: Value) -> anyhow::Result<Value> {
        let parameters = json!({"cmd": command, "params": parameters});
        self.post("/goog/cdp/execute", parameters)
            .await
            .with_context(|| format!("DevTools command {command} failed"))
    }

    /// Returns the console's entries since the previous call, as `LEVEL: message`.
    pub(super) async fn console(&self) -> anyhow::Result<Vec<String>> {
        let entries = self.post("/se/log", json!({"type": "browser"})).await?;
        let line = |entry: &Value| {
            let level = entry["level"].as_str()?;
            let message = entry["message"].as_str()?;
            Some(format!("{level}: {message}"))
        };
        entries
            .as_array()
            .and_then(|entries| entries.iter().map(line).collect())
            .with_context(|| format!("chromedriver returned a log of unknown form: {entries}"))
    }

    /// Returns a PNG of the visible part of the page.
    pub(super) async fn screenshot(&self) -> anyhow::Result<Vec<u8>> {
        let path = format!("{}/screenshot", self.path);
        let image = send(self.driver, Method::GET, &path, None).await?;
        let image = image.as_str().context("chromedriver returned no image")?;
        STANDARD
            .decode(image)
            .context("chromedriver returned an image that is not Base64")
    }

    /// Closes the browser. No command can follow.
    pub(super) async fn end(&self) -> anyhow::Result<()> {
        send(self.driver, Method::DELETE, &self.path, None).await?;
        Ok(())
    }

    async fn post(&self, command: &str, parameters: Value) -> anyhow::Result<Value> {
        let path = format!("{}{command}", self.path);
        send(self.driver, Method::POST, &path, Some(parameters)).await
    }
}

/// Sends a command and returns the `value` of the response.
///
/// # Errors
/// If chromedriver refuses the command, can't be reached, or does not respond within [`REQUEST_TIMEOUT`].
async fn send(
    driver: SocketAddr,
    method: Method,
    path: &str,
    parameters: Option<Value>,
) -> anyhow::Result<Value> {
    let body = parameters.map_or_else(Bytes::new, |parameters| parameters.to_string().into());
    let request = Request::builder()
        .method(&method)
        .uri(path)
        .header(HOST, driver.to_string())
        .header(CONTENT_TYPE, "application/json; charset=utf-8")
        .body(Full::new(body))?;
    tokio::time::timeout(REQUEST_TIMEOUT, exchange(driver, request))
        .await
        .map_err(|_| anyhow!("no response within {REQUEST_TIMEOUT:?}"))
        .flatten()
        .and_then(|(status, body)| value(status, &body))
        .with_context(|| format!("WebDriver command {method} {path} failed"))
}

async fn exchange(
    driver: SocketAddr,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(driver).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES);
    let body = body.collect().await.map_err(anyhow::Error::from_boxed)?;
    Ok((status, body.to_bytes()))
}

/// Takes the `value` out of a response. That of an error response holds a message, which starts with the error's code.
fn value(status: StatusCode, body: &[u8]) -> anyhow::Result<Value> {
    let Ok(mut response) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(body);
        let shown: String = text.chars().take(MAX_SHOWN_CHARS).collect();
        bail!("chromedriver responded {status} without JSON: {shown}");
    };
    let value = response.get_mut("value").map_or(Value::Null, Value::take);
    if status != StatusCode::OK {
        let message = value["message"].as_str().unwrap_or("no message");
        bail!("chromedriver responded {status}: {message}");
    }
    Ok(value)
}
