//! Sample messages, each with what should become of it.

use crate::message::{InvalidMessage, NewMessage};

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
///
/// # Errors
/// Where the API would not take one.
pub(super) fn samples(count: usize) -> Result<Vec<Sample>, InvalidMessage> {
    (0..count).map(sample).collect()
}

fn sample(number: usize) -> Result<Sample, InvalidMessage> {
    let sender = format!("sender-{}", number % 7);
    let payload = format!(r#"{{"sample":{number},"text":"Hello from the outbox"}}"#);
    let to = |receivers: &str| {
        NewMessage::to_peer(
            sender.clone(),
            format!("{receivers}{number}"),
            payload.clone(),
        )
    };
    let (message, ends_as, calls) = match number % 20 {
        0..=5 => (to("user-")?, "message_sent", 1),
        6..=10 => (to("user-")?.wait_for_ack()?, "message_delivered", 1),
        11..=16 => {
            let channel = format!("channel-{}", number % 5);
            let message = NewMessage::to_channel(sender.clone(), channel, payload.clone())?;
            (message, "message_sent", 1)
        }
        17..=18 => (to(OFFLINE)?.wait_for_ack()?, "message_offline", 1),
        _ => (to(FLAKY)?, "message_sent", 2),
    };
    Ok(Sample {
        message,
        ends_as,
        calls,
    })
}
