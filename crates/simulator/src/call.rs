//! A call as the ledger records it.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The ledger keeps longer payloads as length and hash alone, so that its memory is bounded.
const MAX_KEPT_PAYLOAD_BYTES: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallKind {
    #[default]
    Peer,
    Channel,
}

/// One call. A field that the API could not read from the request is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // The API has these fields.
pub struct Call {
    /// Position in the order of arrival, from 1. A ledger never uses a number twice.
    pub seq: u64,
    /// Microseconds from the ledger's start to the arrival.
    pub at_us: u64,
    pub app_id: String,
    pub kind: CallKind,
    pub sender: String,
    /// The receiving user or channel.
    pub target: String,
    /// Empty if the payload has more than 256 bytes.
    pub payload: Option<String>,
    pub payload_bytes: u64,
    /// The first 16 hexadecimal digits of the payload's SHA-256.
    pub payload_hash: String,
    pub wait_for_ack: bool,
    pub enable_offline_messaging: bool,
    pub enable_historical_messaging: bool,
    /// The HTTP status of the response, once the API has sent one.
    pub status: Option<u16>,
    /// The `code` of a successful response, such as `message_sent`.
    pub code: Option<Cow<'static, str>>,
    /// The injected fault, such as `drop`.
    pub fault: Option<Cow<'static, str>>,
    /// The API has taken the message, even if a fault spoiled the response.
    pub accepted: bool,
    pub request_id: String,
}

impl Call {
    pub(super) fn at(&self) -> Duration {
        Duration::from_micros(self.at_us)
    }

    pub(super) fn set_message(&mut self, target: String, payload: String) {
        self.target = target;
        self.payload_bytes = payload.len() as u64;
        self.payload_hash = payload_hash(&payload);
        self.payload = (payload.len() <= MAX_KEPT_PAYLOAD_BYTES).then_some(payload);
    }

    /// Calls with equal keys carry the same message. The API has no idempotency key, so the contents have to do.
    pub(super) fn message_key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let receiver = (&self.app_id, self.kind, &self.sender, &self.target);
        (receiver, &self.payload_hash, self.payload_bytes).hash(&mut hasher);
        hasher.finish()
    }
}

pub(super) fn payload_hash(payload: &str) -> String {
    let digest = Sha256::digest(payload);
    let first_eight = digest.iter().take(8);
    let number = first_eight.fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{number:016x}")
}
