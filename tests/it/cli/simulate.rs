//! `worker simulate`

use harness::{Worker, assert_contains};

use crate::ops::ops_client::OpsClient;

#[tokio::test]
async fn the_simulated_api_answers_and_prints_a_summary() {
    let simulate = ["simulate", "--listen=127.0.0.1:0"];
    let simulate = Worker::new(&simulate).arg("--fault=500:destination=flaky");
    let mut simulator = simulate.start();
    simulator.until_printed("control").await;
    let printed = simulator.stdout.text();
    let mut lines = printed.lines();
    let line = lines.find(|line| line.starts_with("simulated API"));
    let (_, address) = line.expect("its URL").split_once("http://").expect("a URL");
    let api = OpsClient(address.trim().parse().expect("an address"));

    let path = "/dev/v2/project/app/rtm/users/alice/peer_messages?wait_for_ack=true";
    let json = [("content-type", "application/json")];
    for (destination, status, phrase) in [
        ("bob", 200, "message_delivered"),
        ("offline-bob", 200, "message_offline"),
        ("flaky", 500, "failed"),
    ] {
        let body = format!(r#"{{"destination":"{destination}","payload":"hello"}}"#);
        let response = api.ask("POST", path, &json, &body).await;
        assert_eq!(response.status, status, "{response:?}");
        assert_contains(&response.body, &[phrase]);
    }
    let ledger = api.get("/_simulator/ledger").await.body;
    assert_contains(&ledger, &[r#""calls":3"#]);

    simulator.signal("INT").await;
    assert_eq!(simulator.wait_exit().await, Some(0));
    let printed = simulator.stdout.text();
    let phrase = "3 calls, 2 messages accepted, 0 of them more than once";
    assert_contains(&printed, &[phrase]);
}
