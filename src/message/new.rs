//! A message that a producer inserts.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;

use super::{InvalidMessage, Name, Target};
use super::{check_payload, check_text, invalid};
use crate::pace::DbTime;
use crate::time_text;

const MAX_ATTEMPTS: u16 = 1_000;
const MAX_ALIAS_CHARS: usize = 64;
const MAX_DEDUPE_KEY_CHARS: usize = 256;
const MAX_TRACEPARENT_CHARS: usize = 128;

/// A message to insert with [`enqueue`](crate::enqueue()), which checks everything that the table checks. The fields are the
/// columns of the table. `Debug` does not show the payload.
///
/// ```
/// use signaling_worker::NewMessage;
///
/// let message = NewMessage {
///     wait_for_ack: true,
///     dedupe_key: Some("order-4711-shipped".into()),
///     ..NewMessage::to_peer("shop", "user-17", "Your order is on its way")
/// };
/// assert!(message.check().is_ok());
/// let mistake = NewMessage::to_channel("shop", "news/today", "Hello all").check().unwrap_err();
/// assert!(mistake.to_string().contains("channel_name has the character '/'"));
/// ```
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
    /// The API answers only when the recipient has the message, so that the status tells delivered from offline. Not for
    /// channel messages.
    pub wait_for_ack: bool,
    /// The API keeps the message for a recipient that is offline. Not for channel messages.
    pub enable_offline_messaging: bool,
    /// The API keeps the message as a historical message (deprecated by the vendor).
    pub enable_historical_messaging: bool,
    /// The earliest time to send, in place of the database's present time.
    #[serde(deserialize_with = "time", serialize_with = "in_utc")]
    pub due_at: Option<OffsetDateTime>,
    /// No call starts after this time.
    #[serde(deserialize_with = "time", serialize_with = "in_utc")]
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

/// A producer may make the dedupe key of content.
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

    /// Checks the message by the rules of the table. [`enqueue`](crate::enqueue()) calls this method.
    ///
    /// # Errors
    /// If the API or the table does not allow one of the values.
    pub fn check(&self) -> Result<(), InvalidMessage> {
        let target =
            Target::from_columns(self.destination.as_deref(), self.channel_name.as_deref())?;
        Name::sender(self.sender.as_str())?;
        check_payload(&self.payload)?;
        let peer_options = [
            ("wait_for_ack", self.wait_for_ack),
            ("enable_offline_messaging", self.enable_offline_messaging),
        ];
        for (column, is_set) in peer_options {
            if is_set && matches!(target, Target::Channel(_)) {
                let problem = "is for peer messages only: leave it out for a channel message";
                return invalid(column, problem);
            }
        }
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let app = self.app();
        if !(1..=MAX_ALIAS_CHARS).contains(&app.len()) || !app.bytes().all(is_allowed) {
            let problem = "is not a name of 1 to 64 letters, digits, dots, dashes and underscores";
            return invalid("app", problem);
        }
        for (column, time) in [("due_at", self.due_at), ("expires_at", self.expires_at)] {
            if time.is_some_and(|time| !DbTime::from(time).is_within_years_1_to_9999()) {
                return invalid(column, "is before year 1 or after year 9999 in UTC");
            }
        }
        if !(1..=MAX_ATTEMPTS).contains(&self.max_attempts()) {
            let problem = format!("is not between 1 and {MAX_ATTEMPTS}");
            return invalid("max_attempts", problem);
        }
        if let Some(key) = &self.dedupe_key {
            check_text("dedupe_key", key, 1..=MAX_DEDUPE_KEY_CHARS)?;
        }
        let traceparent = self.traceparent.as_deref().unwrap_or_default();
        check_text("traceparent", traceparent, 0..=MAX_TRACEPARENT_CHARS)
    }

    pub(crate) fn app(&self) -> &str {
        self.app.as_deref().unwrap_or("default")
    }

    pub(crate) fn max_attempts(&self) -> u16 {
        self.max_attempts.unwrap_or(10)
    }
}

/// Reads a time, or null. The error does not quote the text, which may be a payload in the wrong place.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OffsetDateTime>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let error = || D::Error::custom(format!("a value is not a time: {}", time_text::ACCEPTED));
    time_text::parse(&text).map(Some).ok_or_else(error)
}

/// Postgres reads no year 0, which a time may have in another zone.
#[expect(clippy::ref_option, reason = "serde passes the field by reference")]
fn in_utc<S: Serializer>(time: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(DbTime::from).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn message() -> NewMessage {
        NewMessage::to_channel("a", "lobby", "hi")
    }

    fn is_valid(change: impl FnOnce(&mut NewMessage)) -> bool {
        let mut message = message();
        change(&mut message);
        message.check().is_ok()
    }

    #[test]
    fn a_value_that_the_table_rejects_is_an_error() {
        let app = |app: &str| is_valid(|message| message.app = Some(app.to_owned()));
        let attempts = |attempts| is_valid(|message| message.max_attempts = Some(attempts));
        let key = |key: &str| is_valid(|message| message.dedupe_key = Some(key.to_owned()));
        let trace = |trace: &str| is_valid(|message| message.traceparent = Some(trace.to_owned()));
        assert!(app("news.eu-west_1") && attempts(1_000));
        assert!(key(&"é".repeat(256)) && trace(&"é".repeat(128)));
        for alias in ["", "a b", "ä", &"a".repeat(65)] {
            assert!(!app(alias), "{alias}");
        }
        assert!(!attempts(0) && !attempts(1_001));
        assert!(!key("") && !key("a\0b") && !key(&"é".repeat(257)));
        assert!(!trace("a\0b") && !trace(&"é".repeat(129)));
        assert!(!is_valid(|message| message.wait_for_ack = true));
        assert!(!is_valid(|message| message.enable_offline_messaging = true));
        assert!(!is_valid(|message| message.destination = Some("b".into())));
    }

    #[test]
    fn a_time_outside_of_the_years_1_to_9999_in_utc_is_rejected() {
        for time in [
            datetime!(9999-12-31 23:59:59 -05:00),
            datetime!(0001-01-01 00:00 +1),
            datetime!(0000-12-31 23:59:59.9999999 UTC),
            datetime!(-4714-01-01 00:00 UTC),
        ] {
            assert!(!is_valid(|message| message.due_at = Some(time)));
            assert!(!is_valid(|message| message.expires_at = Some(time)));
        }
        for time in [
            datetime!(0001-01-01 00:00 UTC),
            datetime!(9999-12-31 23:59:59.999_999_999 UTC),
        ] {
            assert!(is_valid(|message| message.due_at = Some(time)));
        }
    }

    #[test]
    fn neither_payload_nor_key_is_printed() {
        let message = NewMessage {
            dedupe_key: Some("hush-1".into()),
            ..NewMessage::to_peer("a", "b", "hush")
        };
        assert!(!format!("{message:?}").contains("hush"));
    }

    #[test]
    fn a_misspelt_column_is_not_ignored() {
        let line = r#"{"sender":"a","destiny":"b","payload":"x"}"#;
        let error = serde_json::from_str::<NewMessage>(line).expect_err("an unknown field");
        assert!(error.to_string().contains("destiny"), "{error}");
    }
}
