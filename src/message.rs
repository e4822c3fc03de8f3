//! A message as the API takes it. A value that exists is valid: the table's CHECK constraints hold the same rules,
//! so that a producer's mistake is refused in its own `INSERT` and never gets as far as this.

mod columns;
mod new;

use std::fmt;
use std::sync::Arc;

pub(crate) use columns::MessageColumns;
pub use new::NewMessage;

/// Longest user ID and channel name, in characters (Messaging REST API, parameters).
pub(crate) const MAX_NAME_CHARS: usize = 64;
/// Largest payload, in bytes of UTF-8 (Messaging REST API: "not exceed 32 KB").
pub(crate) const MAX_PAYLOAD_BYTES: usize = 32_768;

/// The most calls that a message may ask for.
pub(crate) const MAX_ATTEMPTS: u16 = 1_000;

/// The characters that the API allows in user IDs and channel names beside letters, digits and space. Its 1.x page
/// prints `" , "` where the vendor's other pages have `{` and `}`.
const PUNCTUATION: &str = "!#$%&()+-:;<=.>?@[]^_{}|~,'";

/// Why a value can't be part of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// A name without a character.
    #[error("{what} is empty")]
    Empty {
        /// Which part of the message.
        what: &'static str,
    },
    /// A name or payload beyond the API's bound.
    #[error("{what} is longer than {limit}")]
    TooLong {
        /// Which part of the message.
        what: &'static str,
        /// The bound with its unit.
        limit: &'static str,
    },
    /// A character outside the API's list.
    #[error("{what} has the character {character:?}, which the API does not allow")]
    ForbiddenCharacter {
        /// Which part of the message.
        what: &'static str,
        /// The first such character.
        character: char,
    },
    /// A space first or last.
    #[error("{what} begins or ends with a space")]
    OuterSpace {
        /// Which part of the message.
        what: &'static str,
    },
    /// A sender that no URL path can carry.
    #[error("sender is \".\" or \"..\", which a URL path can't carry: choose another user ID")]
    DotSegment,
    /// Something asked for that only a peer message has.
    #[error("{0} is for peer messages only: leave it out for a channel message")]
    PeerOnly(&'static str),
    /// Not exactly one of destination and channel name.
    #[error("exactly one of destination and channel_name has to be given")]
    NotOneTarget,
    /// The one character that Postgres stores in no text.
    #[error("{what} has the character U+0000, which the database can't store")]
    Nul {
        /// Which part of the message.
        what: &'static str,
    },
    /// No alias of an app.
    #[error("app is not a name of 1 to 64 letters, digits, dots, dashes and underscores")]
    NotAnAlias,
    /// A time that the table does not take.
    #[error("{what} is before year 1 or after year 9999 in UTC")]
    TimeOutOfRange {
        /// Which part of the message.
        what: &'static str,
    },
    /// A number of calls out of bounds.
    #[error("max_attempts is not between 1 and {MAX_ATTEMPTS}")]
    NotANumberOfAttempts,
}

fn check_name(what: &'static str, name: &str) -> Result<(), InvalidMessage> {
    if name.is_empty() {
        return Err(InvalidMessage::Empty { what });
    }
    if name.chars().count() > MAX_NAME_CHARS {
        return Err(InvalidMessage::TooLong {
            what,
            limit: "64 characters",
        });
    }
    if let Some(character) = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || *c == ' ' || PUNCTUATION.contains(*c)))
    {
        return Err(InvalidMessage::ForbiddenCharacter { what, character });
    }
    if name.starts_with(' ') || name.ends_with(' ') {
        return Err(InvalidMessage::OuterSpace { what });
    }
    Ok(())
}

/// A Signaling user ID: 1 to 64 of the allowed characters, no space first or last.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct UserId(String);

impl UserId {
    /// A user ID that receives.
    ///
    /// # Errors
    /// Where the API does not allow the value.
    pub(crate) fn destination(value: impl Into<String>) -> Result<Self, InvalidMessage> {
        let value = value.into();
        check_name("destination", &value)?;
        Ok(Self(value))
    }

    /// A user ID that sends: one segment of the request's path.
    ///
    /// # Errors
    /// Where the API does not allow the value, or a path can't carry it (`.` and `..`).
    pub(crate) fn sender(value: impl Into<String>) -> Result<Self, InvalidMessage> {
        let value = value.into();
        check_name("sender", &value)?;
        if value == "." || value == ".." {
            return Err(InvalidMessage::DotSegment);
        }
        Ok(Self(value))
    }

    /// The ID as the API knows it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A channel's name: 1 to 64 of the allowed characters, no space first or last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChannelName(String);

impl ChannelName {
    /// A channel to send to.
    ///
    /// # Errors
    /// Where the API does not allow the value.
    pub(crate) fn new(value: impl Into<String>) -> Result<Self, InvalidMessage> {
        let value = value.into();
        check_name("channel_name", &value)?;
        Ok(Self(value))
    }

    /// The name as the API knows it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is said: 1 to 32,768 bytes of UTF-8 without U+0000. Prints its size, never itself. A clone is the same text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Payload(Arc<str>);

impl Payload {
    /// A payload within the API's bounds.
    ///
    /// # Errors
    /// Where it is empty or too long, or can't be stored.
    pub(crate) fn new(value: impl Into<Arc<str>>) -> Result<Self, InvalidMessage> {
        let value = value.into();
        if value.is_empty() {
            return Err(InvalidMessage::Empty { what: "payload" });
        }
        if value.len() > MAX_PAYLOAD_BYTES {
            return Err(InvalidMessage::TooLong {
                what: "payload",
                limit: "32,768 bytes of UTF-8",
            });
        }
        if value.contains('\0') {
            return Err(InvalidMessage::Nul { what: "payload" });
        }
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

/// Whom a message is for, with what only this kind of message can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Peer {
        destination: UserId,
        /// Answer only when the receiver has it, so that delivered and offline can be told apart.
        wait_for_ack: bool,
        /// Keep the message for a receiver that is offline.
        enable_offline_messaging: bool,
    },
    Channel {
        name: ChannelName,
    },
}

impl Target {
    /// The target of a row, of whose two columns exactly one is filled.
    ///
    /// # Errors
    /// Where both or none are filled, or the API does not allow the name.
    pub(crate) fn from_columns(
        destination: Option<String>,
        channel_name: Option<String>,
        wait_for_ack: bool,
        enable_offline_messaging: bool,
    ) -> Result<Self, InvalidMessage> {
        match (destination, channel_name) {
            (Some(destination), None) => Ok(Self::Peer {
                destination: UserId::destination(destination)?,
                wait_for_ack,
                enable_offline_messaging,
            }),
            (None, Some(_)) if wait_for_ack => Err(InvalidMessage::PeerOnly("wait_for_ack")),
            (None, Some(_)) if enable_offline_messaging => {
                Err(InvalidMessage::PeerOnly("enable_offline_messaging"))
            }
            (None, Some(name)) => Ok(Self::Channel {
                name: ChannelName::new(name)?,
            }),
            _ => Err(InvalidMessage::NotOneTarget),
        }
    }

    /// The destination, or the channel.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Peer { destination, .. } => destination.as_str(),
            Self::Channel { name } => name.as_str(),
        }
    }

    /// The call is answered after the receiver has acknowledged the message, or has not.
    pub(crate) fn waits_for_ack(&self) -> bool {
        matches!(
            self,
            Self::Peer {
                wait_for_ack: true,
                ..
            }
        )
    }
}

/// What one call says to the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) sender: UserId,
    pub(crate) target: Target,
    pub(crate) payload: Payload,
    /// Keep it as a historical message (deprecated by the vendor, still accepted).
    pub(crate) enable_historical_messaging: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_of_the_apis_list_is_allowed_and_no_other_ascii_one() {
        let allowed: String = ('\u{0}'..='\u{7f}')
            .filter(|c| UserId::sender(format!("a{c}b")).is_ok())
            .collect();
        assert_eq!(
            allowed,
            " !#$%&'()+,-.0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_abcdefghijklmnopqrstuvwxyz{|}~"
        );
    }

    #[test]
    fn names_are_1_to_64_characters_without_outer_spaces() {
        assert!(UserId::destination("").is_err());
        assert!(UserId::destination("a".repeat(64)).is_ok());
        assert!(UserId::destination("a".repeat(65)).is_err());
        assert!(ChannelName::new(" a").is_err());
        assert!(ChannelName::new("a ").is_err());
        assert!(ChannelName::new("a b").is_ok());
    }

    #[test]
    fn a_dot_segment_receives_but_does_not_send() {
        for name in [".", ".."] {
            assert!(UserId::destination(name).is_ok());
            assert_eq!(UserId::sender(name), Err(InvalidMessage::DotSegment));
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
