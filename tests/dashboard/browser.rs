//! A real browser: Debian's Chromium, by its own driver. Nothing of it is left behind.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::prelude::*;
use thirtyfour::{ChromiumLikeCapabilities, LoggingPrefsLogLevel};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use testkit::{PATIENCE, leave_out, until};

const BROWSER: &str = "/usr/bin/chromium";
const DRIVER: &str = "/usr/bin/chromedriver";
/// As wide and high as a small phone.
pub(super) const PHONE: (u32, u32) = (360, 740);
pub(super) const DESKTOP: (u32, u32) = (1280, 900);

/// A browser with one page.
pub(super) struct Browser {
    driver: WebDriver,
    program: Child,
    profile: TempDir,
}

impl Browser {
    /// Starts one; none where none is installed, which is said.
    pub(super) async fn start() -> Option<Self> {
        if ![BROWSER, DRIVER]
            .iter()
            .all(|path| Path::new(path).exists())
        {
            leave_out(
                "the pages are not looked at in a browser: there is none; `.ci/ensure-prerequisites browser` installs it",
            );
            return None;
        }
        let profile = TempDir::new().expect("a directory");
        let mut program = Command::new(DRIVER)
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the driver starts");
        let port = port(&mut program).await;
        let mut wishes = DesiredCapabilities::chrome();
        wishes.set_binary(BROWSER).expect("set");
        let profile_argument = format!("--user-data-dir={}", profile.path().display());
        for argument in [
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
        ] {
            wishes.add_arg(argument).expect("set");
        }
        wishes
            .set_browser_log_level(LoggingPrefsLogLevel::All)
            .expect("set");
        let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), wishes)
            .await
            .expect("a browser");
        let browser = Self {
            driver,
            program,
            profile,
        };
        browser.resize(DESKTOP).await;
        Some(browser)
    }

    pub(super) async fn open(&self, url: &str) {
        self.driver.goto(url).await.expect("opened");
    }

    /// The window's inner size.
    pub(super) async fn resize(&self, (width, height): (u32, u32)) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.command("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// What the system asks for: `light` or `dark`.
    pub(super) async fn prefer(&self, scheme: &str) {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.command("Emulation.setEmulatedMedia", media).await;
    }

    /// Lets it reach nothing, or everything again.
    pub(super) async fn disconnect(&self, offline: bool) {
        let conditions = json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        self.command("Network.enable", json!({})).await;
        self.command("Network.emulateNetworkConditions", conditions)
            .await;
    }

    async fn command(&self, name: &str, parameters: Value) {
        self.driver
            .cdp()
            .send_raw(name, parameters)
            .await
            .expect("done");
    }

    /// What an expression comes to.
    pub(super) async fn value(&self, expression: &str) -> Value {
        self.driver
            .execute(format!("return ({expression})"), Vec::new())
            .await
            .unwrap_or_else(|error| panic!("{expression}: {error}"))
            .json()
            .clone()
    }

    /// Waits until an expression is true.
    pub(super) async fn until(&self, expression: &str) {
        until(expression, PATIENCE, async || {
            // Between two pages there may be nothing to ask.
            matches!(
                self.driver.execute(format!("return Boolean({expression})"), Vec::new()).await,
                Ok(value) if value.json() == &Value::Bool(true)
            )
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

    /// Presses keys, where the focus is.
    pub(super) async fn press(&self, keys: impl Into<thirtyfour::TypingData>) {
        self.driver
            .action_chain()
            .send_keys(keys)
            .perform()
            .await
            .expect("pressed");
    }

    /// Presses Tab until the focus is on what an expression (of `element`) describes.
    pub(super) async fn tab_to(&self, expression: &str) {
        for _ in 0..200 {
            self.press(Key::Tab).await;
            let is_there = format!("((element) => {expression})(document.activeElement)");
            if self.value(&is_there).await == Value::Bool(true) {
                return;
            }
        }
        panic!("no Tab leads to {expression}");
    }

    /// Everything that the console was told since the last time, and the browser found wrong.
    pub(super) async fn complaints(&self) -> Vec<String> {
        let entries = self.driver.browser_log().await.expect("a log");
        entries
            .into_iter()
            .map(|entry| format!("{}: {}", entry.level, entry.message))
            .collect()
    }

    pub(super) async fn screenshot(&self) -> Vec<u8> {
        self.driver.screenshot_as_png().await.expect("a picture")
    }

    /// Ends it.
    pub(super) async fn quit(mut self) {
        self.driver.clone().quit().await.expect("ended");
        self.program.kill().await.expect("killed");
    }
}

impl Drop for Browser {
    /// The browser of a test that has failed goes by its profile, which nobody else has.
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

/// The port that the driver has chosen.
async fn port(program: &mut Child) -> u16 {
    let mut lines = BufReader::new(program.stdout.take().expect("piped")).lines();
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
    // What else it says is read, so that it is not held up.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    port
}
