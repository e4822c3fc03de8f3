//! A gateway that has lost its way to the API, and answers by itself.

use serde_json::json;

use super::{lane, until_lane};
use testkit::{World, fleet, peer, warm_up};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_answers_404_fails_no_message() {
    let world = World::new().await;
    let _fleet = fleet(2, || world.worker()).await;
    warm_up(&world).await;
    world.set_faults(&[r#"404:body={"message":"no Route matched with those values"}"#]);
    world.insert_many(300).await;
    for number in 0..20 {
        world
            .insert(peer(
                json!({"at_most_once": true, "payload": format!("at most once {number}")}),
            ))
            .await;
    }
    until_lane(&world, "hold = 'unavailable' and hold_probes >= 3").await;
    let reason: String = lane(&world, "hold_reason").await;
    assert!(reason.contains("404"), "{reason}");
    assert_eq!(
        world
            .count("status not in ('pending', 'message_sent')")
            .await,
        0
    );
    let outcomes: Vec<String> =
        sqlx::query_scalar("select distinct outcome from signaling.attempt")
            .fetch_all(&world.pool)
            .await
            .expect("outcomes");
    assert_eq!(outcomes, ["transient"]);

    world.set_faults(&[]);
    world.until_all_final().await;
    assert_eq!(world.count("status = 'message_sent'").await, 321);
    let seen = world.seen();
    assert_eq!((seen.accepted, seen.duplicates), (321, 0));
}
