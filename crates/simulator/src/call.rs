//! A call as the ledger keeps it, and the identity of the message it carries.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Payloads up to this many bytes are kept as they are.
const KEPT_PAYLOAD_BYTES: usize = 256;

/// Which of the two endpoints a call was made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallKind {
    /// `peer_messages`: to one user.
    Peer,
    /// `channel_messages`: to a channel.
    Channel,
}

/// One call of the API, from its arrival on.
///
/// What could not be read from the request is empty. A call that still waits for its body or its answer has no status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // They are the API's own fields.
pub struct Call {
    /// The number of the call in the order of arrival, from 1; never given twice by one ledger.
    pub seq: u64,
    /// Microseconds from the ledger's start to the arrival.
    pub at_us: u64,
    /// The app ID in the path.
    pub app_id: String,
    pub kind: CallKind,
    pub sender: String,
    /// The receiving user, or the channel.
    pub target: String,
    /// The payload, when it has at most 256 bytes.
    pub payload: Option<String>,
    /// The length of the payload.
    pub payload_bytes: u64,
    /// The first 16 hexadecimal digits of the payload's SHA-256.
    pub payload_hash: String,
    /// What the query said; `false` for channel messages.
    pub wait_for_ack: bool,
    /// What the body said; `false` for channel messages.
    pub enable_offline_messaging: bool,
    pub enable_historical_messaging: bool,
    /// The HTTP status answered; `None` when no answer was given, or not yet.
    pub status: Option<u16>,
    /// The `code` of a successful answer, such as `message_sent`.
    pub code: Option<Cow<'static, str>>,
    /// The name of the fault that was done to the call, such as `drop`.
    pub fault: Option<Cow<'static, str>>,
    /// Whether the API took the message, whatever it answered. A message to an offline receiver was taken.
    pub accepted: bool,
    /// The `request_id` of the answer.
    pub request_id: String,
}

impl Call {
    /// Notes what message the call carries.
    pub(super) fn set_message(&mut self, target: String, payload: String) {
        self.target = target;
        self.payload_bytes = payload.len() as u64;
        self.payload_hash = payload_hash(&payload);
        self.payload = (payload.len() <= KEPT_PAYLOAD_BYTES).then_some(payload);
    }

    /// Whether the call carried `payload`, also when it was too long to be kept.
    pub fn carries(&self, payload: &str) -> bool {
        self.carries_hashed(payload, &payload_hash(payload))
    }

    pub(super) fn carries_hashed(&self, payload: &str, hash: &str) -> bool {
        self.payload_bytes == payload.len() as u64 && self.payload_hash == hash
    }

    /// Identifies the message: the API has no idempotency key, so equal contents are all there is to go by.
    pub(super) fn message_key(&self) -> u128 {
        let mut hasher = Sha256::new();
        let kind = match self.kind {
            CallKind::Peer => "peer",
            CallKind::Channel => "channel",
        };
        for part in [
            &self.app_id,
            kind,
            &self.sender,
            &self.target,
            &self.payload_hash,
        ] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update(self.payload_bytes.to_le_bytes());
        let digest: [u8; 32] = hasher.finalize().into();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        u128::from_le_bytes(key)
    }
}

pub(super) fn payload_hash(payload: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(payload).into();
    digest[..8].iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String can't fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
