//! Screenshots for the README: `make screenshots`.

use std::path::Path;

use super::browser::{Browser, PHONE};
use super::fixtures;
use super::server::{Dashboard, count_pending};
use harness::{World, slow_api};

const MAX_BYTES: usize = 150 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes docs/screenshots: make screenshots"]
async fn screenshots_of_the_pages() {
    let browser = Browser::start().await.expect("a browser");
    let world = World::with(slow_api(20)).await;
    fixtures::an_hour_of_stats(&world, "default").await;
    let dashboard = Dashboard::start(world.worker()).await;
    world.until_idle().await;
    world
        .execute(
            "insert into signaling.outbox (sender, destination, payload, wait_for_ack)
             select 'order-events', 'user-' || n % 900, '{\"order\": ' || n || ', \"state\": \"packed\"}', n % 3 = 0
             from generate_series(1, 20000) as n;
             insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s)
             values ('eu', 200, 200, signaling.slot_rate(200));
             select signaling.pause('eu', 'the vendor maintains its servers until 14:00', 'operator@ops-1')",
        )
        .await;
    fixtures::an_hour_of_stats(&world, "eu").await;
    fixtures::messages_of_all_states(&world, 8).await;
    // The overview shows the rate of the last ten seconds: that many calls take longer.
    world.until_accepted(6_000).await;
    count_pending(&world).await;
    let failed: i64 = world
        .ask("select max(message_id) from signaling.attempt where outcome = 'rejected'")
        .await;
    let message = format!("/messages/{failed}");
    for (name, path, size, scheme) in [
        ("overview", "/", (1200, 900), "light"),
        ("overview-dark", "/", (1200, 900), "dark"),
        ("messages", "/messages", (1200, 760), "light"),
        ("message", message.as_str(), (1200, 640), "light"),
        ("failures", "/failures", (1200, 420), "light"),
        ("phone", "/", PHONE, "light"),
    ] {
        browser.resize(size).await;
        browser.prefer(scheme).await;
        browser.open(&format!("{}{path}", dashboard.url)).await;
        let picture = browser.screenshot().await;
        assert!(
            picture.len() < MAX_BYTES,
            "{name} has {} bytes",
            picture.len()
        );
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/screenshots");
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(directory.join(format!("{name}.png")), picture).expect("written");
    }
    browser.quit().await;
}
