//! Sample messages, each with what should become of it.

use crate::outbox::NewMessage;

/// Receivers whose names begin so are offline.
pub(super) const OFFLINE: &str = "offline-";
/// The first call to receivers whose names begin so fails.
pub(super) const FLAKY: &str = "flaky-";

/// A message, and how it should end.
pub(super) struct Sample {
    pub(super) message: NewMessage,
    /// The status that it should end with.
    pub(super) ends_as: &'static str,
    /// The calls that it should take.
    pub(super) calls: i32,
}

/// So many messages: of twenty, eleven to peers with and without an ack, six to channels, two offline, one flaky.
pub(super) fn samples(count: usize) -> Vec<Sample> {
    (0..count).map(sample).collect()
}

fn sample(number: usize) -> Sample {
    let peer = |destination: String, wait_for_ack| NewMessage {
        sender: format!("sender-{}", number % 7),
        destination: Some(destination),
        payload: format!(r#"{{"sample":{number},"text":"Hello from the outbox"}}"#),
        wait_for_ack,
        ..NewMessage::default()
    };
    let to_channel = |message: NewMessage| NewMessage {
        destination: None,
        channel_name: Some(format!("channel-{}", number % 5)),
        ..message
    };
    let (message, ends_as, calls) = match number % 20 {
        0..=5 => (peer(format!("user-{number}"), false), "message_sent", 1),
        6..=10 => (peer(format!("user-{number}"), true), "message_delivered", 1),
        11..=16 => (to_channel(peer(String::new(), false)), "message_sent", 1),
        17..=18 => (
            peer(format!("{OFFLINE}{number}"), true),
            "message_offline",
            1,
        ),
        _ => (peer(format!("{FLAKY}{number}"), false), "message_sent", 2),
    };
    Sample {
        message,
        ends_as,
        calls,
    }
}
