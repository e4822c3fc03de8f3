//! The dashboard of a worker that requires a token.

use super::browser::{Browser, ENTER};
use super::server::{Dashboard, idle_worker};
use harness::World;

const TOKEN: &str = "zebra-token-0918273645";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_with_the_token_as_password_refreshes_and_acts() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let world = World::new().await;
    let worker = idle_worker(&world).file("WORKER_OPS_TOKEN_FILE", TOKEN);
    let dashboard = Dashboard::start(worker).await;
    let address = dashboard.url.strip_prefix("http://").expect("a URL");
    for (path, text) in [("/messages", "There are no messages yet"), ("/", "idle")] {
        let url = format!("http://operator:{TOKEN}@{address}{path}");
        browser.open(&url).await;
        browser.until_shown(text).await;
    }
    browser
        .until("performance.getEntriesByType('resource').some((entry) => entry.initiatorType === 'fetch' && entry.responseStatus === 200)")
        .await;
    browser
        .enter_on("element.textContent.startsWith('Pause')")
        .await;
    browser.until_shown("Pause idle?").await;
    browser.press(ENTER).await;
    browser.until_shown("is paused by dashboard").await;
    browser.assert_console_is_empty("a pause").await;
    browser.quit().await;
}
