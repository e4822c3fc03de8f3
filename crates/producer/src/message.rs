//! A message, as a producer inserts it.

use std::fmt;

use serde::Serialize;
use time::OffsetDateTime;
use time::serde::rfc3339;

/// A message to insert with [`enqueue`](crate::enqueue()). The fields are the columns of the table, which refuses values that
/// the API does not allow. `Debug` does not show the payload.
///
/// ```
/// use signaling_producer::NewMessage;
///
/// let message = NewMessage {
///     wait_for_ack: true,
///     dedupe_key: Some("order-4711-shipped".into()),
///     ..NewMessage::to_peer("shop", "user-17", "Your order is on its way")
/// };
/// assert_eq!(message.destination.as_deref(), Some("user-17"));
/// ```
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a column of its own")]
pub struct NewMessage {
    /// The alias of the app that sends the message: 1 to 64 letters, digits, dots, dashes and underscores. None: `default`.
    pub app: Option<String>,
    /// The sending user.
    pub sender: String,
    /// The recipient of a message to one user.
    pub destination: Option<String>,
    /// The channel of a message to all users in a channel, instead of a destination.
    pub channel_name: Option<String>,
    /// The text, of at most 32,768 bytes.
    pub payload: String,
    /// The API waits for the recipient before it responds, so that the status distinguishes delivered from offline. Not for
    /// channel messages.
    pub wait_for_ack: bool,
    /// The API keeps the message for a recipient that is offline. Not for channel messages.
    pub enable_offline_messaging: bool,
    /// The API keeps the message as a historical message (deprecated by the vendor).
    pub enable_historical_messaging: bool,
    /// The earliest time to send. None: the database's present time.
    #[serde(serialize_with = "rfc3339::option::serialize")]
    pub due_at: Option<OffsetDateTime>,
    /// No call starts after this time.
    #[serde(serialize_with = "rfc3339::option::serialize")]
    pub expires_at: Option<OffsetDateTime>,
    /// The number of charged attempts after which the message ends as `failed`: 1 to 1,000. None: 10.
    pub max_attempts: Option<u16>,
    /// The worker does not repeat a call that may have sent the message. The message then ends as `unknown`.
    pub at_most_once: bool,
    /// A key that is unique in the app. [`enqueue`](crate::enqueue()) inserts no second message with the same key.
    pub dedupe_key: Option<String>,
    /// The W3C trace context of the producer. The worker's spans join that trace.
    pub traceparent: Option<String>,
}

/// Omits the dedupe key, because a producer may derive it from the payload.
impl fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewMessage")
            .field("app", &self.app())
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

impl NewMessage {
    /// A message to one user.
    pub fn to_peer(
        sender: impl Into<String>,
        destination: impl Into<String>,
        payload: impl Into<String>,
    ) -> Self {
        Self {
            sender: sender.into(),
            destination: Some(destination.into()),
            payload: payload.into(),
            ..Self::default()
        }
    }

    /// A message to all users in a channel.
    pub fn to_channel(
        sender: impl Into<String>,
        channel_name: impl Into<String>,
        payload: impl Into<String>,
    ) -> Self {
        Self {
            sender: sender.into(),
            channel_name: Some(channel_name.into()),
            payload: payload.into(),
            ..Self::default()
        }
    }

    pub(crate) fn app(&self) -> &str {
        self.app.as_deref().unwrap_or("default")
    }

    /// The first column whose text has U+0000 in it.
    pub(crate) fn column_with_nul(&self) -> Option<&'static str> {
        let columns = [
            ("app", self.app.as_ref()),
            ("sender", Some(&self.sender)),
            ("destination", self.destination.as_ref()),
            ("channel_name", self.channel_name.as_ref()),
            ("payload", Some(&self.payload)),
            ("dedupe_key", self.dedupe_key.as_ref()),
            ("traceparent", self.traceparent.as_ref()),
        ];
        let has_nul = |text: &String| text.contains('\0');
        let mut columns = columns.into_iter();
        let found = columns.find(|(_, text)| text.is_some_and(has_nul));
        found.map(|(column, _)| column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_payload_nor_key_is_printed() {
        let message = NewMessage {
            dedupe_key: Some("hush-1".into()),
            ..NewMessage::to_peer("a", "b", "hush")
        };
        assert!(!format!("{message:?}").contains("hush"));
    }
}
