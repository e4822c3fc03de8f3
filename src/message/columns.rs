//! A message as text from outside, before its check.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;

use super::{InvalidMessage, NewMessage, Target};
use crate::time_text;

/// The columns that a producer writes. A column that is left out has the table's default.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a column of its own")]
pub(crate) struct MessageColumns {
    pub(crate) app: Option<String>,
    pub(crate) sender: String,
    pub(crate) destination: Option<String>,
    pub(crate) channel_name: Option<String>,
    pub(crate) payload: String,
    #[serde(default)]
    pub(crate) wait_for_ack: bool,
    #[serde(default)]
    pub(crate) enable_offline_messaging: bool,
    #[serde(default)]
    pub(crate) enable_historical_messaging: bool,
    #[serde(default, deserialize_with = "time")]
    pub(crate) due_at: Option<OffsetDateTime>,
    #[serde(default, deserialize_with = "time")]
    pub(crate) expires_at: Option<OffsetDateTime>,
    pub(crate) max_attempts: Option<u16>,
    #[serde(default)]
    pub(crate) at_most_once: bool,
    pub(crate) dedupe_key: Option<String>,
    pub(crate) traceparent: Option<String>,
}

/// Reads a time, or null. The error does not quote the text, which may be a payload in the wrong place.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OffsetDateTime>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let error = || D::Error::custom(format!("a value is not a time: {}", time_text::ACCEPTED));
    time_text::parse(&text).map(Some).ok_or_else(error)
}

impl TryFrom<MessageColumns> for NewMessage {
    type Error = InvalidMessage;

    fn try_from(columns: MessageColumns) -> Result<Self, InvalidMessage> {
        let target = Target::from_columns(columns.destination, columns.channel_name)?;
        let mut message = Self::to(target, columns.sender, columns.payload)?;
        if columns.wait_for_ack {
            message = message.wait_for_ack()?;
        }
        if columns.enable_offline_messaging {
            message = message.enable_offline_messaging()?;
        }
        message.message.options.enable_historical_messaging = columns.enable_historical_messaging;
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
