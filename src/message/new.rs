//! A message that a producer inserts.

use std::fmt;

use time::OffsetDateTime;

use super::{InvalidMessage, Message, MessageOptions, Name, Payload, Target};
use super::{check_not_empty, check_text, invalid};
use crate::pace::DbTime;

const DEFAULT_MAX_ATTEMPTS: u16 = 10;
const MAX_ATTEMPTS: u16 = 1_000;
const MAX_ALIAS_CHARS: usize = 64;
const MAX_DEDUPE_KEY_CHARS: usize = 256;
const MAX_TRACEPARENT_CHARS: usize = 128;

/// A message to insert with [`enqueue`](crate::enqueue()). The constructors check everything that the table checks.
///
/// ```
/// use signaling_worker::NewMessage;
///
/// let message = NewMessage::to_peer("shop", "user-17", "Your order is on its way")?
///     .wait_for_ack()?
///     .dedupe_key("order-4711-shipped")?;
/// let mistake = NewMessage::to_channel("shop", "news/today", "Hello all").unwrap_err();
/// assert!(mistake.to_string().contains("channel_name has the character '/'"));
/// # Ok::<(), signaling_worker::InvalidMessage>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    pub(crate) message: Message,
    pub(crate) app: String,
    pub(crate) due_at: Option<DbTime>,
    pub(crate) expires_at: Option<DbTime>,
    pub(crate) max_attempts: u16,
    pub(crate) at_most_once: bool,
    pub(crate) dedupe_key: Option<DedupeKey>,
    pub(crate) traceparent: Option<String>,
}

/// `Debug` does not show the key, because a producer may make it of content.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct DedupeKey(pub(crate) String);

impl fmt::Debug for DedupeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DedupeKey(...)")
    }
}

impl From<Message> for NewMessage {
    fn from(message: Message) -> Self {
        Self {
            message,
            app: "default".to_owned(),
            due_at: None,
            expires_at: None,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            at_most_once: false,
            dedupe_key: None,
            traceparent: None,
        }
    }
}

impl NewMessage {
    /// A message to one user.
    ///
    /// # Errors
    /// If the API does not allow one of the names, or the payload.
    pub fn to_peer(
        sender: impl Into<String>,
        destination: impl Into<String>,
        payload: impl Into<String>,
    ) -> Result<Self, InvalidMessage> {
        Self::to(Target::peer(destination)?, sender, payload)
    }

    /// A message to all users in a channel.
    ///
    /// # Errors
    /// If the API does not allow one of the names, or the payload.
    pub fn to_channel(
        sender: impl Into<String>,
        channel_name: impl Into<String>,
        payload: impl Into<String>,
    ) -> Result<Self, InvalidMessage> {
        Self::to(Target::channel(channel_name)?, sender, payload)
    }

    pub(super) fn to(
        target: Target,
        sender: impl Into<String>,
        payload: impl Into<String>,
    ) -> Result<Self, InvalidMessage> {
        let message = Message {
            sender: Name::sender(sender)?,
            target,
            payload: Payload::new(payload.into() as String)?,
            options: MessageOptions::default(),
        };
        Ok(message.into())
    }

    /// The alias of the app that sends the message, in place of `default`.
    ///
    /// # Errors
    /// If the alias is not 1 to 64 letters, digits, dots, dashes and underscores.
    pub fn app(mut self, alias: impl Into<String>) -> Result<Self, InvalidMessage> {
        self.app = alias.into();
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=MAX_ALIAS_CHARS).contains(&self.app.len()) || !self.app.bytes().all(is_allowed) {
            let problem = "is not a name of 1 to 64 letters, digits, dots, dashes and underscores";
            return invalid("app", problem);
        }
        Ok(self)
    }

    /// The API answers only when the recipient has the message, so that the status tells delivered from offline.
    ///
    /// # Errors
    /// For a channel message.
    pub fn wait_for_ack(mut self) -> Result<Self, InvalidMessage> {
        self.check_peer("wait_for_ack")?;
        self.message.options.wait_for_ack = true;
        Ok(self)
    }

    /// The API keeps the message for a recipient that is offline.
    ///
    /// # Errors
    /// For a channel message.
    pub fn enable_offline_messaging(mut self) -> Result<Self, InvalidMessage> {
        self.check_peer("enable_offline_messaging")?;
        self.message.options.enable_offline_messaging = true;
        Ok(self)
    }

    fn check_peer(&self, column: &'static str) -> Result<(), InvalidMessage> {
        match &self.message.target {
            Target::Peer(_) => Ok(()),
            Target::Channel(_) => invalid(
                column,
                "is for peer messages only: leave it out for a channel message",
            ),
        }
    }

    /// The API keeps the message as a historical message (deprecated by the vendor).
    #[must_use]
    pub fn enable_historical_messaging(mut self) -> Self {
        self.message.options.enable_historical_messaging = true;
        self
    }

    /// The earliest time to send, in place of the database's present time.
    ///
    /// # Errors
    /// If the time is before year 1 or after year 9999 in UTC.
    pub fn due_at(mut self, time: OffsetDateTime) -> Result<Self, InvalidMessage> {
        self.due_at = Some(check_time("due_at", time)?);
        Ok(self)
    }

    /// No call starts after this time.
    ///
    /// # Errors
    /// If the time is before year 1 or after year 9999 in UTC.
    pub fn expires_at(mut self, time: OffsetDateTime) -> Result<Self, InvalidMessage> {
        self.expires_at = Some(check_time("expires_at", time)?);
        Ok(self)
    }

    /// The number of charged attempts after which the message ends as `failed`, in place of 10.
    ///
    /// # Errors
    /// If the number is not between 1 and 1,000.
    pub fn max_attempts(mut self, attempts: u16) -> Result<Self, InvalidMessage> {
        if !(1..=MAX_ATTEMPTS).contains(&attempts) {
            let problem = format!("is not between 1 and {MAX_ATTEMPTS}");
            return invalid("max_attempts", problem);
        }
        self.max_attempts = attempts;
        Ok(self)
    }

    /// The worker does not repeat a call that may have sent the message. The message then ends as `unknown`.
    #[must_use]
    pub fn at_most_once(mut self) -> Self {
        self.at_most_once = true;
        self
    }

    /// A key that is unique in the app. [`enqueue`](crate::enqueue()) inserts no second message with the same key.
    ///
    /// # Errors
    /// If the key has not 1 to 256 characters, or can't be stored.
    pub fn dedupe_key(mut self, key: impl Into<String>) -> Result<Self, InvalidMessage> {
        let key = key.into();
        check_not_empty("dedupe_key", &key)?;
        check_text("dedupe_key", &key, MAX_DEDUPE_KEY_CHARS)?;
        self.dedupe_key = Some(DedupeKey(key));
        Ok(self)
    }

    /// The W3C trace context of the producer. The worker's spans join that trace.
    ///
    /// # Errors
    /// If the text has more than 128 characters, or can't be stored.
    pub fn traceparent(mut self, context: impl Into<String>) -> Result<Self, InvalidMessage> {
        let context = context.into();
        check_text("traceparent", &context, MAX_TRACEPARENT_CHARS)?;
        self.traceparent = Some(context);
        Ok(self)
    }
}

fn check_time(column: &'static str, time: OffsetDateTime) -> Result<DbTime, InvalidMessage> {
    let time = DbTime::from(time);
    if time.is_within_years_1_to_9999() {
        return Ok(time);
    }
    invalid(column, "is before year 1 or after year 9999 in UTC")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn message() -> NewMessage {
        NewMessage::to_channel("a", "lobby", "hi").expect("valid")
    }

    #[test]
    fn a_value_that_the_table_rejects_is_an_error() {
        for alias in ["", "a b", "ä", &"a".repeat(65)] {
            assert!(message().app(alias).is_err());
        }
        assert!(message().app("news.eu-west_1").is_ok());
        for calls in [0, 1_001] {
            assert!(message().max_attempts(calls).is_err());
        }
        assert!(message().max_attempts(1_000).is_ok());
        for key in ["", "a\0b", &"é".repeat(257)] {
            assert!(message().dedupe_key(key).is_err());
        }
        assert!(message().dedupe_key("é".repeat(256)).is_ok());
        for context in ["a\0b", &"é".repeat(129)] {
            assert!(message().traceparent(context).is_err());
        }
        assert!(message().traceparent("é".repeat(128)).is_ok());
        assert!(message().wait_for_ack().is_err());
        assert!(message().enable_offline_messaging().is_err());
    }

    #[test]
    fn a_time_outside_of_the_years_1_to_9999_in_utc_is_rejected() {
        for time in [
            datetime!(9999-12-31 23:59:59 -05:00),
            datetime!(0001-01-01 00:00 +1),
            datetime!(0000-12-31 23:59:59.9999999 UTC),
            datetime!(-4714-01-01 00:00 UTC),
        ] {
            assert!(message().due_at(time).is_err());
            assert!(message().expires_at(time).is_err());
        }
        for time in [
            datetime!(0001-01-01 00:00 UTC),
            datetime!(9999-12-31 23:59:59.999_999_999 UTC),
        ] {
            assert!(message().due_at(time).is_ok());
        }
    }

    #[test]
    fn neither_payload_nor_key_is_printed() {
        let message = NewMessage::to_peer("a", "b", "hush")
            .and_then(|message| message.dedupe_key("hush-1"))
            .expect("valid");
        assert!(!format!("{message:?}").contains("hush"));
    }
}
