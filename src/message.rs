//! A message as the API accepts it. The table's CHECK constraints hold the same rules, so Postgres rejects a producer's
//! mistake in the producer's own `INSERT`.

mod new;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

pub use new::NewMessage;

/// Limits user IDs and channel names (Messaging REST API, parameters).
const MAX_NAME_CHARS: usize = 64;
/// Limits a payload in UTF-8 (Messaging REST API: "not exceed 32 KB").
pub(crate) const MAX_PAYLOAD_BYTES: usize = 32_768;

/// User IDs and channel names have these characters beside letters, digits and space. The API's 1.x page prints `" , "` where
/// the vendor's other pages have `{` and `}`.
const PUNCTUATION: &str = "!#$%&()+-:;<=.>?@[]^_{}|~,'";

/// A value can't be part of a message. The error names the column, and does not show the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{column} {problem}")]
pub struct InvalidMessage {
    column: &'static str,
    problem: String,
}

fn invalid<T>(column: &'static str, problem: impl Into<String>) -> Result<T, InvalidMessage> {
    let problem = problem.into();
    Err(InvalidMessage { column, problem })
}

/// A text that Postgres can store, of so many characters.
fn check_text(
    column: &'static str,
    text: &str,
    chars: RangeInclusive<usize>,
) -> Result<(), InvalidMessage> {
    let count = text.chars().count();
    if count < *chars.start() {
        return invalid(column, "is empty");
    }
    if count > *chars.end() {
        let problem = format!("is longer than {} characters", chars.end());
        return invalid(column, problem);
    }
    if text.contains('\0') {
        let problem = "has the character U+0000, which the database can't store";
        return invalid(column, problem);
    }
    Ok(())
}

fn check_payload(payload: &str) -> Result<(), InvalidMessage> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return invalid("payload", "is longer than 32,768 bytes of UTF-8");
    }
    check_text("payload", payload, 1..=MAX_PAYLOAD_BYTES)
}

/// A user ID or the name of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn sender(value: impl Into<String>) -> Result<Self, InvalidMessage> {
        let name = Self::new("sender", value)?;
        if name.0 == "." || name.0 == ".." {
            let problem =
                "is \".\" or \"..\", which a URL path can't carry: choose another user ID";
            return invalid("sender", problem);
        }
        Ok(name)
    }

    fn new(column: &'static str, value: impl Into<String>) -> Result<Self, InvalidMessage> {
        let name = value.into();
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == ' ' || PUNCTUATION.contains(c);
        if let Some(character) = name.chars().find(|c| !is_allowed(*c)) {
            let problem = format!("has the character {character:?}, which the API does not allow");
            return invalid(column, problem);
        }
        if name.starts_with(' ') || name.ends_with(' ') {
            return invalid(column, "begins or ends with a space");
        }
        check_text(column, &name, 1..=MAX_NAME_CHARS)?;
        Ok(Self(name))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// `Debug` shows the size of the payload alone. A clone shares the text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Payload(Arc<str>);

impl Payload {
    pub(crate) fn new(value: impl Into<Arc<str>>) -> Result<Self, InvalidMessage> {
        let value = value.into();
        check_payload(&value)?;
        Ok(Self(value))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// The recipient of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Peer(Name),
    Channel(Name),
}

impl Target {
    pub(crate) fn peer(destination: impl Into<String>) -> Result<Self, InvalidMessage> {
        Name::new("destination", destination).map(Self::Peer)
    }

    pub(crate) fn channel(name: impl Into<String>) -> Result<Self, InvalidMessage> {
        Name::new("channel_name", name).map(Self::Channel)
    }

    /// The target of a row. Exactly one of its two columns has a value.
    pub(crate) fn from_columns(
        destination: Option<&str>,
        channel_name: Option<&str>,
    ) -> Result<Self, InvalidMessage> {
        match (destination, channel_name) {
            (Some(destination), None) => Self::peer(destination),
            (None, Some(name)) => Self::channel(name),
            _ => invalid(
                "exactly one of destination and channel_name",
                "has to be given",
            ),
        }
    }

    /// The destination, or the channel.
    pub(crate) fn name(&self) -> &str {
        let (Self::Peer(name) | Self::Channel(name)) = self;
        name.as_str()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) sender: Name,
    pub(crate) target: Target,
    pub(crate) payload: Payload,
    pub(crate) options: MessageOptions,
}

/// A channel message has neither of the first two options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct MessageOptions {
    /// The API answers only when the recipient has the message, so that delivered and offline can be told apart.
    pub(crate) wait_for_ack: bool,
    /// The API keeps the message for a recipient that is offline.
    pub(crate) enable_offline_messaging: bool,
    /// The API keeps a historical message. The vendor deprecates that, and still accepts it.
    pub(crate) enable_historical_messaging: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_of_the_apis_list_is_allowed_and_no_other_ascii_one() {
        let allowed: String = ('\u{0}'..='\u{7f}')
            .filter(|c| Name::sender(format!("a{c}b")).is_ok())
            .collect();
        assert_eq!(
            allowed,
            " !#$%&'()+,-.0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_abcdefghijklmnopqrstuvwxyz{|}~"
        );
    }

    #[test]
    fn names_are_1_to_64_characters_without_outer_spaces() {
        for name in ["a b", &"a".repeat(64)] {
            assert!(Target::peer(name).is_ok() && Target::channel(name).is_ok());
        }
        for name in ["", " a", "a ", &"a".repeat(65)] {
            assert!(Target::peer(name).is_err() && Target::channel(name).is_err());
        }
    }

    #[test]
    fn a_dot_segment_receives_but_does_not_send() {
        for name in [".", ".."] {
            assert!(Target::peer(name).is_ok());
            assert!(Name::sender(name).is_err());
        }
    }

    #[test]
    fn a_payload_is_measured_in_bytes_and_never_printed() {
        assert!(Payload::new("é".repeat(16_384)).is_ok());
        assert!(Payload::new("é".repeat(16_385)).is_err());
        assert!(Payload::new("a\0b").is_err());
        assert_eq!(
            format!("{:?}", Payload::new("hush").expect("valid")),
            "Payload(4 bytes)"
        );
    }
}
