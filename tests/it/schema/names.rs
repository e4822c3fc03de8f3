//! Names that the table allows reach the API unchanged.

use std::collections::BTreeSet;

use harness::{World, channel, peer};
use serde_json::json;

fn allowed_characters() -> impl Iterator<Item = char> {
    ('\u{1}'..='\u{7f}')
        .filter(|c| c.is_ascii_alphanumeric() || "!#$%&()+-:;<=.>?@[]^_{}|~,' ".contains(*c))
}

/// Names that something between the table and the API might take for something else.
const AWKWARD: [&str; 14] = [
    "a b  c",
    "%2F",
    "%",
    "100%",
    "%%20",
    "a+b",
    "#frag",
    "?query=1&x=2",
    "a;b=c,d",
    "...",
    "..a",
    "~.-_",
    "!#$%&()+-:;<=.>?@[]^_{}|~,'",
    "<script>'--",
];

#[tokio::test]
async fn every_name_that_the_api_allows_reaches_it_unchanged() {
    let world = World::new().await;
    let mut names: Vec<String> = allowed_characters().map(|c| format!("a{c}b")).collect();
    names.extend(
        allowed_characters()
            .filter(|c| *c != ' ' && *c != '.')
            .map(String::from),
    );
    names.extend(AWKWARD.map(str::to_owned));
    names.push("%2E".repeat(21) + "x");
    names.push("a".to_owned() + &" ".repeat(62) + "b");

    let mut written = BTreeSet::new();
    let mut messages = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let (for_peer, for_channel) = (format!("peer {number}"), format!("channel {number}"));
        messages.push(peer(
            json!({"sender": name, "destination": name, "payload": for_peer}),
        ));
        messages.push(channel(
            json!({"sender": name, "channel_name": name, "payload": for_channel}),
        ));
        written.insert(("Peer".to_owned(), name.clone(), name.clone(), for_peer));
        written.insert((
            "Channel".to_owned(),
            name.clone(),
            name.clone(),
            for_channel,
        ));
    }
    // A URL path can't carry these, but a body can.
    for name in [".", ".."] {
        messages.push(peer(json!({"destination": name, "payload": name})));
        messages.push(channel(json!({"channel_name": name, "payload": name})));
        for kind in ["Peer", "Channel"] {
            written.insert((kind.into(), "alice".into(), name.into(), name.into()));
        }
    }
    for message in messages {
        world.insert(message).await;
    }
    let _worker = world.worker().start();
    world.until_all_final().await;

    let arrived: BTreeSet<_> = world
        .simulator
        .ledger()
        .calls()
        .into_iter()
        .map(|call| {
            let payload = call.payload.expect("a short one");
            (
                format!("{:?}", call.kind),
                call.sender,
                call.target,
                payload,
            )
        })
        .collect();
    assert_eq!(arrived, written);
    assert_eq!(world.seen().calls, written.len() as u64);
    assert_eq!(world.count("status <> 'message_sent'").await, 0);
}

#[tokio::test]
async fn every_payload_that_the_api_allows_reaches_it_unchanged() {
    let world = World::new().await;
    let payloads = [
        "x".repeat(32_768),
        "é".repeat(16_384),
        "😀".repeat(8_192),
        // Each of these is written as six characters in JSON.
        "\u{1}".repeat(32_768),
        "\"\\/\u{8}\u{c}\n\r\t\u{7f}\u{2028}\u{feff}\u{ffff}".to_owned(),
        r#"{"nested": {"json": [1, 2, 3]}}"#.to_owned(),
        " ".to_owned(),
        "\n".to_owned(),
    ];
    for payload in &payloads {
        world.insert(peer(json!({"payload": payload}))).await;
        world.insert(channel(json!({"payload": payload}))).await;
    }
    let _worker = world.worker().start();
    world.until_all_final().await;
    for payload in &payloads {
        let calls = world.calls_of(payload).into_iter();
        let kinds: BTreeSet<_> = calls.map(|call| format!("{:?}", call.kind)).collect();
        assert!(kinds.iter().eq(["Channel", "Peer"]), "{kinds:?}");
    }
    assert_eq!(world.seen().calls, 2 * payloads.len() as u64);
    assert_eq!(world.count("status <> 'message_sent'").await, 0);
}

#[tokio::test]
async fn every_flag_of_a_message_reaches_the_api() {
    let world = World::new().await;
    for bits in 0..8_u8 {
        let [ack, offline, historical] = [1, 2, 4].map(|bit| bits & bit != 0);
        let flags = json!({
            "wait_for_ack": ack, "enable_offline_messaging": offline,
            "enable_historical_messaging": historical, "payload": format!("peer {bits}"),
        });
        world.insert(peer(flags)).await;
    }
    for historical in [false, true] {
        let payload = format!("channel {historical}");
        let flag = json!({"enable_historical_messaging": historical, "payload": payload});
        world.insert(channel(flag)).await;
    }
    let _worker = world.worker().start();
    world.until_all_final().await;
    for bits in 0..8_u8 {
        let call = &world.calls_of(&format!("peer {bits}"))[0];
        let flags = [
            call.wait_for_ack,
            call.enable_offline_messaging,
            call.enable_historical_messaging,
        ];
        assert_eq!(flags, [1, 2, 4].map(|bit| bits & bit != 0));
    }
    for historical in [false, true] {
        let call = &world.calls_of(&format!("channel {historical}"))[0];
        assert_eq!(call.enable_historical_messaging, historical);
    }
}
