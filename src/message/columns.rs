//! A message as it comes from outside, before it is known to be one.

use serde::Deserialize;
use time::OffsetDateTime;
use time::serde::rfc3339;

use super::{InvalidMessage, NewMessage, Target};

/// The columns that a producer writes, with any values. What is left out has the table's default.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a column of its own")]
pub(crate) struct MessageColumns {
    /// Which configured app sends it.
    #[serde(default)]
    pub(crate) app: Option<String>,
    /// The API's user ID of the sender.
    pub(crate) sender: String,
    /// The receiver of a peer message.
    #[serde(default)]
    pub(crate) destination: Option<String>,
    /// The channel of a channel message.
    #[serde(default)]
    pub(crate) channel_name: Option<String>,
    /// 1 to 32,768 bytes.
    pub(crate) payload: String,
    /// Tell delivered from offline. Peer messages only.
    #[serde(default)]
    pub(crate) wait_for_ack: bool,
    /// Keep it for a receiver that is offline. Peer messages only.
    #[serde(default)]
    pub(crate) enable_offline_messaging: bool,
    /// Keep it as a historical message.
    #[serde(default)]
    pub(crate) enable_historical_messaging: bool,
    #[serde(default, with = "rfc3339::option")]
    pub(crate) due_at: Option<OffsetDateTime>,
    #[serde(default, with = "rfc3339::option")]
    pub(crate) expires_at: Option<OffsetDateTime>,
    /// Calls that may go wrong.
    #[serde(default)]
    pub(crate) max_attempts: Option<u16>,
    /// Never called again after a call whose outcome is not known.
    #[serde(default)]
    pub(crate) at_most_once: bool,
    /// Unique per app: a message whose key is there already is not inserted again.
    #[serde(default)]
    pub(crate) dedupe_key: Option<String>,
    /// W3C trace context of the producer.
    #[serde(default)]
    pub(crate) traceparent: Option<String>,
}

impl TryFrom<MessageColumns> for NewMessage {
    type Error = InvalidMessage;

    /// Checks what the API demands, so that a person learns of a mistake in words, and of which line has it.
    fn try_from(columns: MessageColumns) -> Result<Self, InvalidMessage> {
        let target = Target::from_columns(
            columns.destination,
            columns.channel_name,
            columns.wait_for_ack,
            columns.enable_offline_messaging,
        )?;
        let mut message = Self::to(target, columns.sender, columns.payload)?;
        message.message.enable_historical_messaging = columns.enable_historical_messaging;
        message.at_most_once = columns.at_most_once;
        if let Some(alias) = columns.app {
            message = message.app(alias)?;
        }
        if let Some(time) = columns.due_at {
            message = message.due_at(time)?;
        }
        if let Some(time) = columns.expires_at {
            message = message.expires_at(time)?;
        }
        if let Some(calls) = columns.max_attempts {
            message = message.max_attempts(calls)?;
        }
        if let Some(key) = columns.dedupe_key {
            message = message.dedupe_key(key)?;
        }
        if let Some(context) = columns.traceparent {
            message = message.traceparent(context)?;
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_column_is_not_ignored() {
        let error =
            serde_json::from_str::<MessageColumns>(r#"{"sender":"a","destiny":"b","payload":"x"}"#)
                .err()
                .expect("an unknown field");
        assert!(error.to_string().contains("destiny"), "{error}");
    }
}
