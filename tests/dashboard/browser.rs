//! A real browser: Debian's Chromium with its chromedriver. Each test starts its own, with a profile of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::ops_client::OpsClient;
use harness::{PATIENCE, skip, until};

const BROWSER: &str = "/usr/bin/chromium";
const DRIVER: &str = "/usr/bin/chromedriver";
/// As wide and high as a small phone.
pub(super) const PHONE: (u32, u32) = (360, 740);
pub(super) const DESKTOP: (u32, u32) = (1280, 900);

/// WebDriver's code points for keys that type no character.
pub(super) const ENTER: &str = "\u{E007}";
const TAB: &str = "\u{E004}";

/// A browser with one page. Its commands are those of WebDriver (<https://www.w3.org/TR/webdriver2/>), and with `goog` and
/// `se` chromedriver's own.
pub(super) struct Browser {
    address: SocketAddr,
    /// `/session/{id}`, the path that all commands start with.
    session: String,
    driver: Child,
    profile: TempDir,
}

impl Browser {
    /// Starts a browser. Returns `None`, with a notice on stderr, if none is installed.
    pub(super) async fn start() -> Option<Self> {
        if ![BROWSER, DRIVER]
            .iter()
            .all(|path| Path::new(path).exists())
        {
            skip(
                "the tests in a browser: there is no Chromium with its driver; `.ci/ensure-prerequisites browser` installs it",
            );
            return None;
        }
        let profile = TempDir::new().expect("a directory");
        let mut driver = Command::new(DRIVER)
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the driver starts");
        let port = port(&mut driver).await;
        let profile_argument = format!("--user-data-dir={}", profile.path().display());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--force-device-scale-factor=1",
            &profile_argument,
        ];
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": BROWSER, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let parameters = json!({"capabilities": {"alwaysMatch": capabilities}});
        let session = send(address, "POST", "/session", &parameters.to_string()).await;
        let session = session.expect("the browser starts");
        let id = session["sessionId"].as_str().expect("a session");
        let browser = Self {
            address,
            session: format!("/session/{id}"),
            driver,
            profile,
        };
        browser.resize(DESKTOP).await;
        Some(browser)
    }

    pub(super) async fn open(&self, url: &str) {
        self.command("/url", json!({"url": url}))
            .await
            .expect("opened");
    }

    /// Sets the window's inner size.
    pub(super) async fn resize(&self, (width, height): (u32, u32)) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// Sets the colour scheme that the system prefers, `light` or `dark`.
    pub(super) async fn prefer(&self, scheme: &str) {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    /// Cuts the browser off from the network, or connects it again.
    pub(super) async fn disconnect(&self, offline: bool) {
        let conditions = json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        self.devtools("Network.enable", json!({})).await;
        self.devtools("Network.emulateNetworkConditions", conditions)
            .await;
    }

    /// Sends a command of the Chrome DevTools Protocol.
    async fn devtools(&self, command: &str, parameters: Value) {
        let parameters = json!({"cmd": command, "params": parameters});
        let done = self.command("/goog/cdp/execute", parameters).await;
        done.expect(command);
    }

    async fn command(&self, command: &str, parameters: Value) -> Result<Value, String> {
        let path = format!("{}{command}", self.session);
        send(self.address, "POST", &path, &parameters.to_string()).await
    }

    /// Runs the body of a JavaScript function and returns the function's result.
    async fn execute(&self, script: &str) -> Result<Value, String> {
        let parameters = json!({"script": script, "args": []});
        self.command("/execute/sync", parameters).await
    }

    /// Evaluates a JavaScript expression.
    pub(super) async fn value(&self, expression: &str) -> Value {
        let value = self.execute(&format!("return ({expression})")).await;
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// Waits until an expression is true.
    pub(super) async fn until(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        until(expression, PATIENCE, async || {
            // While the browser goes from one page to the next, the script can fail.
            matches!(self.execute(&script).await, Ok(Value::Bool(true)))
        })
        .await;
    }

    /// Waits until the page shows a text.
    pub(super) async fn until_shown(&self, text: &str) {
        self.until(&format!(
            "document.body?.innerText.includes({})",
            json!(text)
        ))
        .await;
    }

    /// Types a text, or presses a key such as [`ENTER`], in the focused element.
    pub(super) async fn press(&self, keys: &str) {
        let press = |key: char| {
            ["keyDown", "keyUp"].map(|action| json!({"type": action, "value": key.to_string()}))
        };
        let actions: Vec<_> = keys.chars().flat_map(press).collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        let pressed = self.command("/actions", json!({"actions": [keyboard]}));
        pressed.await.expect("pressed");
    }

    /// Presses Tab until `expression`, in which `element` is the focused element, is true.
    pub(super) async fn tab_to(&self, expression: &str) {
        for _ in 0..200 {
            self.press(TAB).await;
            let is_there = format!("((element) => {expression})(document.activeElement)");
            if self.value(&is_there).await == Value::Bool(true) {
                return;
            }
        }
        panic!("no Tab leads to {expression}");
    }

    /// Presses Enter on the first element after the focused one for which `expression` is true.
    pub(super) async fn enter_on(&self, expression: &str) {
        self.tab_to(expression).await;
        self.press(ENTER).await;
    }

    pub(super) async fn assert_value(&self, expression: &str, expected: Value, context: &str) {
        assert_eq!(self.value(expression).await, expected, "{context}");
    }

    /// Asserts that the page and the browser have logged nothing to the console since the previous call.
    pub(super) async fn assert_console_is_empty(&self, context: &str) {
        let entries = self.command("/se/log", json!({"type": "browser"})).await;
        assert_eq!(entries, Ok(json!([])), "{context}");
    }

    /// Returns a PNG of the visible part of the page.
    pub(super) async fn screenshot(&self) -> Vec<u8> {
        let path = format!("{}/screenshot", self.session);
        let image = send(self.address, "GET", &path, "").await;
        let image = image.expect("a picture");
        STANDARD.decode(image.as_str().expect("text")).expect("PNG")
    }

    /// Ends the browser and its driver.
    pub(super) async fn quit(mut self) {
        let ended = send(self.address, "DELETE", &self.session, "").await;
        ended.expect("ended");
        self.driver.kill().await.expect("killed");
    }
}

impl Drop for Browser {
    /// Kills every process that has this browser's profile on its command line. A test that fails does not quit its
    /// browser, and chromedriver's end leaves the browser running.
    fn drop(&mut self) {
        let profile = self.profile.path().display().to_string();
        let Ok(processes) = std::fs::read_dir("/proc") else {
            return;
        };
        for process in processes.flatten() {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&profile)
                && let Some(pid) = process.file_name().to_str()
            {
                std::process::Command::new("kill")
                    .args(["-s", "KILL", pid])
                    .stderr(Stdio::null())
                    .status()
                    .ok();
            }
        }
    }
}

/// Reads the port that chromedriver has chosen.
async fn port(driver: &mut Child) -> u16 {
    let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
    let port = tokio::time::timeout(PATIENCE, async {
        while let Some(line) = lines.next_line().await.expect("a line") {
            let port = line
                .strip_prefix("ChromeDriver was started successfully on port ")
                .and_then(|rest| rest.trim_end_matches('.').parse().ok());
            if port.is_some() {
                return port;
            }
        }
        None
    })
    .await
    .expect("the driver starts in time")
    .expect("the driver says its port");
    // A full pipe would block chromedriver.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    port
}

/// Sends a command to chromedriver and returns the `value` of the response, or the message of an error.
async fn send(
    driver: SocketAddr,
    method: &str,
    path: &str,
    parameters: &str,
) -> Result<Value, String> {
    let headers = [("content-type", "application/json; charset=utf-8")];
    let response = OpsClient(driver).ask(method, path, &headers, parameters);
    let response = response.await;
    let mut body: Value = serde_json::from_str(&response.body)
        .unwrap_or_else(|error| panic!("{method} {path}: {error}: {response:?}"));
    match response.status {
        200 => Ok(body["value"].take()),
        status => Err(format!("{method} {path}: {status}: {body}")),
    }
}
