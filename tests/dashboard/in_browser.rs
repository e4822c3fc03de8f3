//! The dashboard in a real browser.

use serde_json::json;

use super::browser::{Browser, DESKTOP, ENTER, PHONE};
use super::server::{Dashboard, count_pending};
use super::{fixtures, pages};
use harness::{World, peer};

const PAGES: [&str; 5] = [
    "/",
    "/messages",
    "/messages?state=failed",
    "/messages/1?payload=1",
    "/failures",
];

/// A world with messages of all states and an hour of stats. No worker sends its messages.
async fn filled_world() -> (World, Dashboard) {
    let world = World::new().await;
    world.open_lane("default").await;
    fixtures::messages_of_all_states(&world, 20).await;
    fixtures::an_hour_of_stats(&world, "default").await;
    let dashboard = Dashboard::of(&world).await;
    count_pending(&world).await;
    (world, dashboard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_is_legible_at_any_width_in_light_and_dark() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let (_world, dashboard) = filled_world().await;
    for path in PAGES {
        browser.resize(DESKTOP).await;
        browser.open(&format!("{}{path}", dashboard.url)).await;
        let mut colours = Vec::new();
        for scheme in ["dark", "light"] {
            browser.prefer(scheme).await;
            colours.push(browser.value(COLOURS).await);
            let context = format!("{path}: low contrast in the {scheme}");
            browser.assert_value(CONTRAST, json!([]), &context).await;
        }
        for (index, dark) in colours[0].as_array().expect("some").iter().enumerate() {
            assert_ne!(dark, &colours[1][index], "{path}: light and dark are alike");
        }

        browser.resize(PHONE).await;
        let width = "[document.documentElement.scrollWidth, innerWidth]";
        let as_wide = json!([PHONE.0, PHONE.0]);
        let context = format!("{path}: wider than a phone");
        browser.assert_value(width, as_wide, &context).await;
        // Each form of an action fits, too.
        let forms = "document.querySelectorAll('[popover]').length";
        for index in 0..browser.value(forms).await.as_u64().expect("a number") {
            let form = format!("document.querySelectorAll('[popover]')[{index}]");
            let context = format!("{path}: {form}");
            browser.value(&format!("{form}.showPopover()")).await;
            let fits = format!("{FITS}({form}.getBoundingClientRect())");
            browser.assert_value(&fits, json!(true), &context).await;
            browser.assert_value(CONTRAST, json!([]), &context).await;
            browser.value(&format!("{form}.hidePopover()")).await;
        }
        let context = format!("{path}: elements without a name");
        browser.assert_value(UNNAMED, json!(0), &context).await;
        let context = format!("{path}: a landmark is missing");
        browser.assert_value(LANDMARKS, json!(true), &context).await;
        browser.assert_console_is_empty(path).await;
    }
    browser.quit().await;
}

/// Colours of some elements. The dark ones have to differ from the light ones.
const COLOURS: &str = r"['body', '.panel', 'a', 'h1, h2'].map((name) => {
    const style = getComputedStyle(document.querySelector(`main ${name}`) ?? document.body);
    return style.color + style.backgroundColor;
}).concat(getComputedStyle(document.body).backgroundColor)";

const FITS: &str =
    "(({left, right, bottom}) => left >= 0 && right <= innerWidth && bottom <= innerHeight)";

/// The number of fields without a label, and of links and buttons without a text.
const UNNAMED: &str = r"[...document.querySelectorAll('input:not([type=hidden]), select')].filter((field) => !field.labels.length).length
    + [...document.querySelectorAll('a, button')].filter((stop) => !stop.textContent.trim()).length";

const LANDMARKS: &str = r"['header', 'nav', 'main', 'h1, h2'].every((name) => document.querySelector(name))
    && document.documentElement.lang === 'en'";

/// Texts with less than 4.5 : 1 between them and what is behind them (WCAG 2.1, 1.4.3).
const CONTRAST: &str = r"(() => {
    const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const c = channels(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] > 0) return c;
        }
        return [255, 255, 255];
    };
    return [...document.querySelectorAll('body *')]
        .filter((e) => !e.closest('svg') && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) && e.checkVisibility())
        .map((e) => {
            const [a, b] = [light(channels(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
            return [e.outerHTML.slice(0, 80), (a + 0.05) / (b + 0.05)];
        })
        .filter(([, ratio]) => ratio < 4.5);
})()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_overview_has_two_charts_of_an_apps_last_hour() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let (_world, dashboard) = filled_world().await;
    browser.open(&dashboard.url).await;
    browser.until_shown("default").await;
    let charts = r"[...document.querySelectorAll('[aria-labelledby=app-default] [role=img]')].map((chart) => [
        chart.ariaLabel.split(':')[0],
        chart.querySelectorAll('polygon, polyline').length > 0,
        chart.querySelector('svg').getBoundingClientRect().width > 200])";
    let expected = json!([
        ["Calls per second, last hour", true, true],
        ["Backlog, last hour", true, true]
    ]);
    browser.assert_value(charts, expected, "charts").await;
    browser.quit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_searches_and_pages_with_the_keyboard_alone() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let world = World::new().await;
    fixtures::messages_of_all_states(&world, 120).await;
    let dashboard = Dashboard::of(&world).await;
    browser.open(&format!("{}/messages", dashboard.url)).await;
    browser.tab_to("element.className === 'skip'").await;
    browser.tab_to("element.name === 'to'").await;
    let outline = "getComputedStyle(document.activeElement).outlineStyle";
    let context = "the focus is visible";
    browser.assert_value(outline, json!("solid"), context).await;
    browser.press("user-7").await;
    browser.press(ENTER).await;
    browser.until("location.search.includes('to=user-7')").await;
    let recipients = "[...new Set([...document.querySelectorAll('tbody td:nth-child(3)')].map((cell) => cell.textContent.trim()))]";
    let found = json!(["user-7"]);
    browser.assert_value(recipients, found, "recipients").await;
    let field = "document.querySelector('[name=to]').value";
    browser.assert_value(field, json!("user-7"), field).await;

    browser
        .open(&format!("{}/messages?state=failed", dashboard.url))
        .await;
    let rows = "document.querySelectorAll('tbody tr').length";
    browser
        .assert_value(rows, json!(50), "the first page")
        .await;
    browser.enter_on("element.rel === 'next'").await;
    browser.until("location.search.includes('before=')").await;
    browser.enter_on("element.rel === 'next'").await;
    browser.until_shown("No older messages").await;
    browser.assert_value(rows, json!(20), "the last page").await;
    browser.enter_on("element.matches('tbody th a')").await;
    browser
        .until("location.pathname.startsWith('/messages/')")
        .await;
    browser.until_shown("illegal parameter").await;
    browser.quit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_on_the_page_stops_the_calls_until_the_resume() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let world = World::new().await;
    let dashboard = Dashboard::start(world.worker().env("WORKER_RATE", "50")).await;
    world.insert_many(2_000).await;
    world.until_accepted(20).await;
    count_pending(&world).await;
    browser.open(&dashboard.url).await;
    browser.until_shown("sending").await;
    browser
        .enter_on("element.textContent.startsWith('Pause')")
        .await;
    browser.until_shown("Pause default?").await;
    let is_paused = async || world.lane::<bool>("paused_at is not null").await;
    assert!(!is_paused().await, "a form changes nothing");
    browser
        .until("document.activeElement.name === 'reason'")
        .await;
    browser.press("the vendor asked for it").await;
    browser.press(ENTER).await;
    browser.until_shown("the vendor asked for it;").await;
    assert!(is_paused().await);
    world
        .until_count(0, "claim_id is not null and status = 'pending'")
        .await;
    let calls = world.seen().calls;
    assert!(calls < 2_000, "all messages were sent before the pause");
    // The page has refreshed itself at least once since the pause.
    browser.until("performance.getEntriesByType('resource').filter((entry) => entry.initiatorType === 'fetch').length > 0").await;
    assert_eq!(world.seen().calls, calls, "calls of a paused app");

    browser
        .enter_on("element.textContent.startsWith('Resume')")
        .await;
    browser.until_shown("Resume default?").await;
    browser.enter_on("element.className === 'primary'").await;
    browser
        .until("!document.body.textContent.includes('the vendor asked for it;')")
        .await;
    world.until_accepted(calls + 20).await;
    browser
        .assert_console_is_empty("a pause and a resume")
        .await;
    browser.quit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_refreshes_itself_and_reports_a_lost_connection() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let world = World::new().await;
    let dashboard = Dashboard::of(&world).await;
    browser.open(&format!("{}/messages", dashboard.url)).await;
    browser.until_shown("There are no messages yet").await;
    world
        .insert(peer(json!({"destination": "user-4711"})))
        .await;
    browser.until_shown("user-4711").await;

    // A refresh keeps what a person has typed.
    browser.tab_to("element.name === 'sender'").await;
    browser.press("half a na").await;
    world
        .insert(peer(json!({"destination": "user-4712"})))
        .await;
    browser.value("document.activeElement.blur()").await;
    browser.until_shown("user-4712").await;
    let typed = "document.querySelector('[name=sender]').value";
    browser.assert_value(typed, json!("half a na"), typed).await;

    browser.disconnect(true).await;
    browser.until_shown("The worker has not answered").await;
    browser.disconnect(false).await;
    browser
        .until("document.getElementById('contact').textContent === ''")
        .await;
    browser.quit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_in_texts_of_rows_do_not_run() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let world = World::new().await;
    let dashboard = Dashboard::of(&world).await;
    let id = pages::hostile(&world).await;
    count_pending(&world).await;
    for path in [
        "/".to_owned(),
        "/messages".to_owned(),
        format!("/messages/{id}?payload=1"),
        "/failures".to_owned(),
        "/messages?to=%22%3E%3Cscript%3Ewindow.marked=1%3C/script%3E".to_owned(),
    ] {
        browser.open(&format!("{}{path}", dashboard.url)).await;
        browser.until("document.readyState === 'complete'").await;
        let (marked, context) = ("typeof window.marked", format!("{path}: a script ran"));
        let undefined = json!("undefined");
        browser.assert_value(marked, undefined, &context).await;
        browser.assert_console_is_empty(&path).await;
    }
    browser
        .open(&format!("{}/messages/{id}", dashboard.url))
        .await;
    let is_hidden = "document.getElementById('payload') === null";
    browser
        .assert_value(is_hidden, json!(true), is_hidden)
        .await;
    browser
        .enter_on("element.textContent === 'Show the payload'")
        .await;
    browser
        .until(
            "document.getElementById('payload')?.textContent.includes('<script>window.marked=1')",
        )
        .await;
    browser.quit().await;
}
