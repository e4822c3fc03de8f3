//! A message that a producer inserts.

use std::fmt;

use time::OffsetDateTime;

use super::{ChannelName, InvalidMessage, MAX_ATTEMPTS, Message, Payload, Target, UserId};
use crate::pace::DbTime;

/// Calls after which a message ends as `failed`, unless it says otherwise.
const DEFAULT_MAX_ATTEMPTS: u16 = 10;
const MAX_ALIAS_CHARS: usize = 64;
const MAX_DEDUPE_KEY_CHARS: usize = 256;
const MAX_TRACEPARENT_CHARS: usize = 128;

/// A message to insert with [`enqueue`](crate::enqueue()). One that exists is valid: the table lets it in.
///
/// It begins with whom it is for; what is not said has the table's default.
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

/// A key may be made of content: it prints nothing of itself.
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
    /// Where the API does not allow one of the names, or the payload.
    pub fn to_peer(
        sender: impl Into<String>,
        destination: impl Into<String>,
        payload: impl Into<String>,
    ) -> Result<Self, InvalidMessage> {
        let target = Target::Peer {
            destination: UserId::destination(destination)?,
            wait_for_ack: false,
            enable_offline_messaging: false,
        };
        Self::to(target, sender, payload)
    }

    /// A message to everybody in a channel.
    ///
    /// # Errors
    /// Where the API does not allow one of the names, or the payload.
    pub fn to_channel(
        sender: impl Into<String>,
        channel_name: impl Into<String>,
        payload: impl Into<String>,
    ) -> Result<Self, InvalidMessage> {
        let name = ChannelName::new(channel_name)?;
        Self::to(Target::Channel { name }, sender, payload)
    }

    pub(super) fn to(
        target: Target,
        sender: impl Into<String>,
        payload: impl Into<String>,
    ) -> Result<Self, InvalidMessage> {
        let message = Message {
            sender: UserId::sender(sender)?,
            target,
            payload: Payload::new(payload.into() as String)?,
            enable_historical_messaging: false,
        };
        Ok(message.into())
    }

    /// Which configured app sends it: an alias, `default` if nothing is said.
    ///
    /// # Errors
    /// Where that can be no alias. Whether a worker serves the app is not looked at.
    pub fn app(mut self, alias: impl Into<String>) -> Result<Self, InvalidMessage> {
        let alias = alias.into();
        let is_alias = (1..=MAX_ALIAS_CHARS).contains(&alias.len())
            && alias
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !is_alias {
            return Err(InvalidMessage::NotAnAlias);
        }
        self.app = alias;
        Ok(self)
    }

    /// Waits for the receiver, to tell delivered from offline.
    ///
    /// # Errors
    /// For a channel message, which has no such receiver.
    pub fn wait_for_ack(mut self) -> Result<Self, InvalidMessage> {
        match &mut self.message.target {
            Target::Peer { wait_for_ack, .. } => *wait_for_ack = true,
            Target::Channel { .. } => return Err(InvalidMessage::PeerOnly("wait_for_ack")),
        }
        Ok(self)
    }

    /// The API keeps it for a receiver that is offline.
    ///
    /// # Errors
    /// For a channel message, which has no such receiver.
    pub fn enable_offline_messaging(mut self) -> Result<Self, InvalidMessage> {
        match &mut self.message.target {
            Target::Peer {
                enable_offline_messaging,
                ..
            } => *enable_offline_messaging = true,
            Target::Channel { .. } => {
                return Err(InvalidMessage::PeerOnly("enable_offline_messaging"));
            }
        }
        Ok(self)
    }

    /// The API keeps it as a historical message (deprecated by the vendor).
    #[must_use]
    pub fn enable_historical_messaging(mut self) -> Self {
        self.message.enable_historical_messaging = true;
        self
    }

    /// The earliest time to send, in place of the database's present one.
    ///
    /// # Errors
    /// Where it is before year 1 or after year 9999 in UTC.
    pub fn due_at(mut self, time: OffsetDateTime) -> Result<Self, InvalidMessage> {
        self.due_at = Some(check_time("due_at", time)?);
        Ok(self)
    }

    /// No call starts after this time.
    ///
    /// # Errors
    /// Where it is before year 1 or after year 9999 in UTC.
    pub fn expires_at(mut self, time: OffsetDateTime) -> Result<Self, InvalidMessage> {
        self.expires_at = Some(check_time("expires_at", time)?);
        Ok(self)
    }

    /// Calls after which it ends as `failed`, in place of 10.
    ///
    /// # Errors
    /// Where that is not between 1 and 1,000.
    pub fn max_attempts(mut self, calls: u16) -> Result<Self, InvalidMessage> {
        if !(1..=MAX_ATTEMPTS).contains(&calls) {
            return Err(InvalidMessage::NotANumberOfAttempts);
        }
        self.max_attempts = calls;
        Ok(self)
    }

    /// Never called again when it is not known what an earlier call did.
    #[must_use]
    pub fn at_most_once(mut self) -> Self {
        self.at_most_once = true;
        self
    }

    /// A key that is unique for the app: a message whose key is there already is not inserted again.
    ///
    /// # Errors
    /// Where it has not 1 to 256 characters, or can't be stored.
    pub fn dedupe_key(mut self, key: impl Into<String>) -> Result<Self, InvalidMessage> {
        let (what, key) = ("dedupe_key", key.into());
        if key.is_empty() {
            return Err(InvalidMessage::Empty { what });
        }
        check_text(what, &key, MAX_DEDUPE_KEY_CHARS, "256 characters")?;
        self.dedupe_key = Some(DedupeKey(key));
        Ok(self)
    }

    /// The W3C trace context that it belongs to. Stored, not sent.
    ///
    /// # Errors
    /// Where it has more than 128 characters, or can't be stored.
    pub fn traceparent(mut self, context: impl Into<String>) -> Result<Self, InvalidMessage> {
        let context = context.into();
        check_text(
            "traceparent",
            &context,
            MAX_TRACEPARENT_CHARS,
            "128 characters",
        )?;
        self.traceparent = Some(context);
        Ok(self)
    }
}

fn check_text(
    what: &'static str,
    text: &str,
    max_chars: usize,
    limit: &'static str,
) -> Result<(), InvalidMessage> {
    if text.chars().count() > max_chars {
        return Err(InvalidMessage::TooLong { what, limit });
    }
    if text.contains('\0') {
        return Err(InvalidMessage::Nul { what });
    }
    Ok(())
}

fn check_time(what: &'static str, time: OffsetDateTime) -> Result<DbTime, InvalidMessage> {
    let time = DbTime::from(time);
    if time.is_within_years_1_to_9999() {
        Ok(time)
    } else {
        Err(InvalidMessage::TimeOutOfRange { what })
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn message() -> NewMessage {
        NewMessage::to_channel("a", "lobby", "hi").expect("valid")
    }

    #[test]
    fn what_the_table_refuses_is_no_message() {
        for alias in ["", "a b", "ä", &"a".repeat(65)] {
            assert_eq!(message().app(alias), Err(InvalidMessage::NotAnAlias));
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
    fn a_time_outside_of_the_years_1_to_9999_in_utc_is_refused() {
        for time in [
            datetime!(9999-12-31 23:59:59 -05:00),
            datetime!(0001-01-01 00:00 +1),
            datetime!(0000-12-31 23:59:59.9999999 UTC),
            datetime!(-4714-01-01 00:00 UTC),
        ] {
            let refused = |what| Err(InvalidMessage::TimeOutOfRange { what });
            assert_eq!(message().due_at(time), refused("due_at"));
            assert_eq!(message().expires_at(time), refused("expires_at"));
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
