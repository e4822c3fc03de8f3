//! The dashboard in a real browser.

use serde_json::{Value, json};

use super::browser::{Browser, DESKTOP, Key, PHONE};
use super::server::{Dashboard, count_pending};
use super::{fixtures, pages};
use testkit::{PATIENCE, World, peer};

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
        browser.prefer("light").await;
        browser.open(&format!("{}{path}", dashboard.url)).await;
        let colours = "['body', '.panel', 'a', 'h1, h2'].map((name) => { const style = getComputedStyle(document.querySelector(`main ${name}`) ?? document.body); return style.color + style.backgroundColor; }).concat(getComputedStyle(document.body).backgroundColor)";
        let light = browser.value(colours).await;
        browser.prefer("dark").await;
        let dark = browser.value(colours).await;
        for (light, dark) in light
            .as_array()
            .expect("some")
            .iter()
            .zip(dark.as_array().expect("some"))
        {
            assert_ne!(light, dark, "{path}: the same in the light and in the dark");
        }
        let low_contrast = browser.value(CONTRAST).await;
        assert_eq!(low_contrast, json!([]), "{path}: low contrast in the dark");
        browser.prefer("light").await;
        let found = browser.value(CONTRAST).await;
        assert_eq!(found, json!([]), "{path}: low contrast in the light");

        browser.resize(PHONE).await;
        let width = browser
            .value("[document.documentElement.scrollWidth, innerWidth]")
            .await;
        assert_eq!(
            width,
            json!([PHONE.0, PHONE.0]),
            "{path}: wider than a phone"
        );
        // Each form of an action fits, too.
        let forms = "document.querySelectorAll('[popover]').length";
        for index in 0..browser.value(forms).await.as_u64().expect("a number") {
            let form = format!("document.querySelectorAll('[popover]')[{index}]");
            browser.value(&format!("{form}.showPopover()")).await;
            let fits = browser
                .value(&format!("(({{left, right, bottom}}) => left >= 0 && right <= innerWidth && bottom <= innerHeight)({form}.getBoundingClientRect())"))
                .await;
            assert_eq!(fits, Value::Bool(true), "{path}: {form}");
            let low_contrast = browser.value(CONTRAST).await;
            assert_eq!(low_contrast, json!([]), "{path}: {form}");
            browser.value(&format!("{form}.hidePopover()")).await;
        }
        let unnamed = browser
            .value("[...document.querySelectorAll('input:not([type=hidden]), select')].filter((field) => !field.labels.length).length + [...document.querySelectorAll('a, button')].filter((stop) => !stop.textContent.trim()).length")
            .await;
        assert_eq!(unnamed, json!(0), "{path}: an element has no name");
        let landmarks = browser
            .value("['header', 'nav', 'main', 'h1, h2'].every((name) => document.querySelector(name)) && document.documentElement.lang === 'en'")
            .await;
        assert_eq!(
            landmarks,
            Value::Bool(true),
            "{path}: a landmark is missing"
        );
        let complaints = browser.complaints().await;
        assert!(complaints.is_empty(), "{path}: {complaints:#?}");
    }
    browser.quit().await;
}

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
    let plots = browser
        .value("[...document.querySelectorAll('[aria-labelledby=app-default] [role=img]')].map((chart) => [chart.ariaLabel.split(':')[0], chart.querySelectorAll('polygon, polyline').length > 0, chart.querySelector('svg').getBoundingClientRect().width > 200])")
        .await;
    assert_eq!(
        plots,
        json!([
            ["Calls per second, last hour", true, true],
            ["Backlog, last hour", true, true]
        ])
    );
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
    let outline = browser
        .value("getComputedStyle(document.activeElement).outlineStyle")
        .await;
    assert_eq!(outline, "solid", "the focus is seen");
    browser.press("user-7").await;
    browser.press(Key::Enter).await;
    browser.until("location.search.includes('to=user-7')").await;
    let receivers = "[...new Set([...document.querySelectorAll('tbody td:nth-child(3)')].map((cell) => cell.textContent.trim()))]";
    assert_eq!(browser.value(receivers).await, json!(["user-7"]));
    let found = browser
        .value("document.querySelector('[name=to]').value")
        .await;
    assert_eq!(found, "user-7");

    browser
        .open(&format!("{}/messages?state=failed", dashboard.url))
        .await;
    let rows = "document.querySelectorAll('tbody tr').length";
    assert_eq!(browser.value(rows).await, json!(50));
    browser.tab_to("element.rel === 'next'").await;
    browser.press(Key::Enter).await;
    browser.until("location.search.includes('before=')").await;
    browser.tab_to("element.rel === 'next'").await;
    browser.press(Key::Enter).await;
    browser.until_shown("No older messages").await;
    assert_eq!(browser.value(rows).await, json!(20));
    browser.tab_to("element.matches('tbody th a')").await;
    browser.press(Key::Enter).await;
    browser
        .until("location.pathname.startsWith('/messages/')")
        .await;
    browser.until_shown("no such user").await;
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
        .tab_to("element.textContent.startsWith('Pause')")
        .await;
    browser.press(Key::Enter).await;
    browser.until_shown("Pause default?").await;
    let paused = "select paused_at is not null from signaling.lane";
    assert!(!world.ask::<bool>(paused).await, "a form changes nothing");
    browser
        .until("document.activeElement.name === 'reason'")
        .await;
    browser.press("the vendor asked for it").await;
    browser.press(Key::Enter).await;
    browser.until_shown("the vendor asked for it;").await;
    assert!(world.ask::<bool>(paused).await);
    let holds = async || {
        world
            .count("claim_id is not null and status = 'pending'")
            .await
            == 0
    };
    world
        .until("unsent messages are released", PATIENCE, holds)
        .await;
    let calls = world.seen().calls;
    assert!(calls < 2_000, "all messages were sent before the pause");
    // The page has refreshed itself at least once since the pause.
    browser.until("performance.getEntriesByType('resource').filter((entry) => entry.initiatorType === 'fetch').length > 0").await;
    assert_eq!(world.seen().calls, calls, "calls of a paused app");

    browser
        .tab_to("element.textContent.startsWith('Resume')")
        .await;
    browser.press(Key::Enter).await;
    browser.until_shown("Resume default?").await;
    browser.tab_to("element.className === 'primary'").await;
    browser.press(Key::Enter).await;
    browser
        .until("!document.body.textContent.includes('the vendor asked for it;')")
        .await;
    world.until_accepted(calls + 20).await;
    assert!(browser.complaints().await.is_empty());
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
    let typed = browser
        .value("document.querySelector('[name=sender]').value")
        .await;
    assert_eq!(typed, "half a na");

    browser.disconnect(true).await;
    browser.until_shown("No contact with the worker").await;
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
        let marked = browser.value("typeof window.marked").await;
        assert_eq!(marked, "undefined", "{path}: a script ran");
        let complaints = browser.complaints().await;
        assert!(complaints.is_empty(), "{path}: {complaints:#?}");
    }
    browser
        .open(&format!("{}/messages/{id}", dashboard.url))
        .await;
    let found = browser
        .value("document.getElementById('payload') === null")
        .await;
    assert_eq!(found, Value::Bool(true));
    browser
        .tab_to("element.textContent === 'Show the payload'")
        .await;
    browser.press(Key::Enter).await;
    browser
        .until(
            "document.getElementById('payload')?.textContent.includes('<script>window.marked=1')",
        )
        .await;
    browser.quit().await;
}
