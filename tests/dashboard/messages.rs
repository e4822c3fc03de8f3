//! The list of messages: filters, pages, and the time that a page takes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::database_proxy::{DatabaseProxy, Network};
use super::fixtures;
use super::server::Dashboard;
use harness::World;

/// The ids on a page, from the top.
fn ids(page: &str) -> Vec<i64> {
    let links = page.split("<th scope=\"row\"><a href=\"/messages/").skip(1);
    let ids = links.filter_map(|rest| rest.split('"').next());
    ids.map(|id| id.parse().expect("an id")).collect()
}

/// The path of the next page.
fn next(page: &str) -> Option<String> {
    let (_, rest) = page.split_once("rel=\"next\" href=\"")?;
    Some(rest.split('"').next()?.replace("&amp;", "&"))
}

/// All ids of a filter, page by page.
async fn all(dashboard: &Dashboard, query: &str) -> Vec<i64> {
    let mut found = Vec::new();
    let mut path = Some(format!("/messages?{query}"));
    while let Some(here) = path {
        let page = dashboard.page(&here).await;
        found.extend(ids(&page));
        path = next(&page);
    }
    found
}

#[tokio::test]
async fn the_pages_of_a_filter_have_each_message_once_and_the_newest_first() {
    let world = World::new().await;
    fixtures::messages_of_all_states(&world, 60).await;
    let dashboard = Dashboard::of(&world).await;
    let times: Vec<String> = world
        .column(
            "select to_char((now() - age) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')
             from unnest(array[interval '300 seconds', '100 seconds']) as age order by age desc",
        )
        .await;
    let (since, until) = (&times[0], &times[1]);
    for (query, condition) in [
        ("", "true"),
        ("state=failed", "status = 'failed'"),
        ("state=message_sent", "status = 'message_sent'"),
        ("state=pending", "status = 'pending'"),
        (
            "state=queued",
            "status = 'pending' and attempts = 0 and due_at <= now()",
        ),
        (
            "state=scheduled&app=default",
            "status = 'pending' and attempts = 0 and due_at > now()",
        ),
        ("state=retrying", "status = 'pending' and attempts > 0"),
        ("state=sending", "false"),
        ("to=user-7", "destination = 'user-7'"),
        ("to=lobby-0", "channel_name = 'lobby-0'"),
        ("sender=order-events&state=unknown", "status = 'unknown'"),
        ("sender=nobody", "false"),
        ("app=other", "false"),
        (
            "error=ILLEGAL+PARAMETER",
            "error like '%illegal parameter%'",
        ),
        ("until=2020-01-01T00:00", "false"),
        ("since=2099-01-01T00:00", "false"),
        (
            &format!("since={since}&until={until}"),
            &format!("created_at >= '{since}Z' and created_at < '{until}Z'"),
        ),
    ] {
        let found = all(&dashboard, query).await;
        let expected: Vec<i64> = world
            .column(&format!(
                "select id from signaling.outbox where {condition} order by id desc"
            ))
            .await;
        assert_eq!(found, expected, "{query}");
        assert_eq!(found.is_empty(), condition == "false", "{query}");
    }
}

#[tokio::test]
async fn an_id_leads_to_its_message() {
    let world = World::new().await;
    let dashboard = Dashboard::of(&world).await;
    world.insert_many(1).await;
    let answer = dashboard.get("/messages?id=1&app=&state=").await;
    assert_eq!(answer.header("location"), Some("/messages/1"));
    dashboard.shows("/messages/1", &["Message 1"]).await;
}

#[tokio::test]
async fn messages_inserted_between_two_pages_move_no_rows() {
    let world = World::new().await;
    world.insert_many(120).await;
    let dashboard = Dashboard::of(&world).await;
    let first = dashboard.page("/messages").await;
    world.insert_many(70).await;
    let second = dashboard.page(&next(&first).expect("more")).await;
    let third = dashboard.page(&next(&second).expect("more")).await;
    let seen: BTreeSet<i64> = [first, second, third]
        .iter()
        .flat_map(|page| ids(page))
        .collect();
    assert_eq!(seen, (1..=120).collect());
}

#[tokio::test]
async fn a_search_skips_any_gap_of_ids_in_few_round_trips() {
    let world = World::new().await;
    world.insert_many(3_000).await;
    world
        .execute("alter sequence signaling.outbox_id_seq restart with 90000000000")
        .await;
    world.insert_many(2).await;
    let proxy = DatabaseProxy::open(&world);
    let dashboard = Dashboard::through(&proxy, &world).await;
    let nothing = ["No message matches"];
    dashboard.shows("/messages?to=nobody", &nothing).await;
    proxy.set(Network::Far(Duration::from_millis(50)));
    for query in [
        "to=user-1",
        // A list of pending messages takes one round trip.
        "state=queued&to=user-1",
        // So does a binary search for the ids of two times.
        "since=2020-01-01T00:00&until=2099-01-01T00:00&to=user-1",
    ] {
        let found = all(&dashboard, query).await;
        assert_eq!(found, [90_000_000_000, 1], "{query}");
    }
}
