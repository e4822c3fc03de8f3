//! The part of a claimed message that the request contains. The table refuses values that the API does not allow, so a
//! producer's mistake fails in the producer's own `INSERT`.

use std::fmt;
use std::sync::Arc;

#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Message {
    pub(crate) sender: String,
    /// None: a channel message.
    pub(crate) destination: Option<String>,
    pub(crate) channel_name: Option<String>,
    pub(crate) payload: Payload,
    pub(crate) wait_for_ack: bool,
    pub(crate) enable_offline_messaging: bool,
    pub(crate) enable_historical_messaging: bool,
}

impl Message {
    pub(crate) fn target(&self) -> &str {
        let target = self.destination.as_ref().or(self.channel_name.as_ref());
        target.map_or("", String::as_str)
    }
}

/// `Debug` shows only the size, because no log may show a payload. A clone shares the text.
#[derive(Clone, Default, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent, no_pg_array)]
pub(crate) struct Payload(Arc<str>);

impl Payload {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_not_printed() {
        let payload = Payload::from("hush".to_owned());
        assert_eq!(format!("{payload:?}"), "Payload(4 bytes)");
    }
}
