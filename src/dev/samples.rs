//! Sample messages with their expected results.

use crate::message::NewMessage;

/// Receivers with this prefix are offline.
pub(super) const OFFLINE: &str = "offline-";
/// The first call of each message to receivers with this prefix fails.
pub(super) const FLAKY: &str = "flaky-";

pub(super) struct Sample {
    pub(super) message: NewMessage,
    /// The expected final status.
    pub(super) status: &'static str,
    pub(super) attempts: i32,
}

/// Of twenty samples, eleven go to peers with and without an ack, six to channels, two to offline receivers, and one to
/// a flaky one.
pub(super) fn sample(number: usize) -> Sample {
    let sender = format!("sender-{}", number % 7);
    let payload = format!(r#"{{"sample":{number},"text":"Hello from the outbox"}}"#);
    let to = |prefix: &str| {
        let receiver = format!("{prefix}{number}");
        NewMessage::to_peer(sender.clone(), receiver, payload.clone())
    };
    let acknowledged = |message| NewMessage {
        wait_for_ack: true,
        ..message
    };
    let (message, status, attempts) = match number % 20 {
        0..=5 => (to("user-"), "message_sent", 1),
        6..=10 => (acknowledged(to("user-")), "message_delivered", 1),
        11..=16 => {
            let channel = format!("channel-{}", number % 5);
            let message = NewMessage::to_channel(sender.clone(), channel, payload.clone());
            (message, "message_sent", 1)
        }
        17..=18 => (acknowledged(to(OFFLINE)), "message_offline", 1),
        _ => (to(FLAKY), "message_sent", 2),
    };
    Sample {
        message,
        status,
        attempts,
    }
}
