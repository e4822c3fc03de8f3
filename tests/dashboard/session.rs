//! The dashboard of a worker that requires a token.

use std::fs;

use tempfile::NamedTempFile;

use super::browser::Browser;
use super::server::{Dashboard, idle_worker};
use super::webdriver::Key;
use testkit::World;

const TOKEN: &str = "zebra-token-0918273645";
const OTHER_TOKEN: &str = "another-token-5647382910";

async fn sign_in(browser: &Browser, token: &str) {
    browser
        .until("document.activeElement?.name === 'token'")
        .await;
    browser.press(token).await;
    browser.press(Key::Enter).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_whose_session_has_ended_leads_to_the_login_and_back() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let world = World::new().await;
    let file = NamedTempFile::new().expect("a file");
    fs::write(file.path(), TOKEN).expect("written");
    let path = file.path().to_str().expect("text");
    let worker = idle_worker(&world).env("WORKER_OPS_TOKEN_FILE", path);
    let dashboard = Dashboard::start(worker).await;
    let wanted = format!("{}/messages?to=user-7", dashboard.url);
    browser.open(&wanted).await;
    sign_in(&browser, TOKEN).await;
    browser.until_shown("No message matches").await;

    // A new token ends the session that began with the old one. The open page learns of it at its next refresh.
    fs::write(file.path(), OTHER_TOKEN).expect("written");
    browser.until("location.pathname === '/login'").await;
    sign_in(&browser, OTHER_TOKEN).await;
    browser.until_shown("No message matches").await;
    assert_eq!(browser.value("location.href").await, wanted);
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:#?}");
    browser.quit().await;
}
