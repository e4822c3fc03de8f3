//! The pages for whoever has the token.

use std::fs;
use std::sync::Arc;

use signaling_worker::ops::{Access, OpsToken};
use tempfile::NamedTempFile;

use super::browser::Browser;
use super::server::Dashboard;
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
async fn a_page_whose_sign_in_is_over_leads_to_the_form_and_back() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let world = World::new().await;
    let file = NamedTempFile::new().expect("a file");
    fs::write(file.path(), TOKEN).expect("written");
    let token = OpsToken::in_file(file.path()).expect("a token");
    let dashboard = Dashboard::with(&world.url, 2, Access::Token(Arc::new(token))).await;
    let wanted = format!("{}/messages?to=user-7", dashboard.url);
    browser.open(&wanted).await;
    sign_in(&browser, TOKEN).await;
    browser.until_shown("No message is like this").await;

    // A new token ends what was signed in with the old one, which the page sees when it looks again.
    fs::write(file.path(), OTHER_TOKEN).expect("written");
    browser.until("location.pathname === '/login'").await;
    sign_in(&browser, OTHER_TOKEN).await;
    browser.until_shown("No message is like this").await;
    assert_eq!(browser.value("location.href").await, wanted);
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:#?}");
    browser.quit().await;
}
