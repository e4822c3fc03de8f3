//! A gateway that has lost its upstream and answers 404 itself.

use serde_json::json;

use harness::{World, fleet, peer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_answers_404_fails_no_message() {
    let world = World::new().await;
    let _fleet = fleet(2, || world.worker()).await;
    world.assert_sends().await;
    world.set_faults(&[r#"404:body={"message":"no Route matched with those values"}"#]);
    world.insert_many(300).await;
    for number in 0..20 {
        let payload = format!("at most once {number}");
        let message = json!({"at_most_once": true, "payload": payload});
        world.insert(peer(message)).await;
    }
    world
        .until_lane("hold = 'unavailable' and hold_probes >= 3")
        .await;
    let reason: String = world.lane("hold_reason").await;
    assert!(reason.contains("404"), "{reason}");
    let ended = "status not in ('pending', 'message_sent')";
    assert_eq!(world.count(ended).await, 0);
    let outcomes = "select distinct outcome from signaling.attempt";
    assert_eq!(world.column::<String>(outcomes).await, ["transient"]);

    world.set_faults(&[]);
    world.until_all_sent(321).await;
    let seen = world.seen();
    assert_eq!((seen.accepted, seen.duplicates), (321, 0));
}
