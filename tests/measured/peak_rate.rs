//! The workers' own account of their fullest second.

use harness::{APP_ID, World, api_with_limit, assert_contains, fleet};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peak_of_a_run_is_within_the_limit_and_what_the_api_saw() {
    let world = World::alone(api_with_limit(500)).await;
    world.set_faults(&["500:count=3", "503:first_calls=1,share=0.05"]);
    world.insert_many(180).await;
    let worker = || world.worker().env("WORKER_RATE", "100");
    let _fleet = fleet(2, worker).await;
    world.until_all_final().await;

    let peak: i64 = world
        .ask("select signaling.peak_rate('default', now() - interval '1 minute', now())")
        .await;
    assert!(peak <= 100, "{peak} calls in a second");
    let app = &world.seen().apps[APP_ID];
    assert!(app.worst_sliding_second <= 100, "{app:?}");
    let seen = i64::try_from(app.worst_sliding_second).expect("few");
    assert!((peak - seen).abs() <= 5, "{peak} here, {seen} there");
    let calls: i64 = world
        .ask("select count(*) from signaling.calls('default', now() - interval '1 minute', now())")
        .await;
    assert_eq!(u64::try_from(calls), Ok(app.calls));

    let json = world.run(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(status[0]["peak_calls_1m"], peak);
    let text = world.run(&["status"]).await;
    let phrase = &format!("at most {peak} in a second of the last minute");
    assert_contains(&text, &[phrase]);
}
