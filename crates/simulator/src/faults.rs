//! Faults on demand: which calls go wrong, and how.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::call::Call;

/// A fault rule that can't be understood or can't be done.
#[derive(Debug, Error, PartialEq)]
pub enum FaultError {
    /// The part before the colon names no fault.
    #[error(
        "unknown fault `{0}`: write a status from 200 to 599, slow=DURATION, drop, drop_before, hang, garbage or half_body"
    )]
    UnknownFault(String),
    /// A key that no rule has, or no value after it.
    #[error(
        "`{0}` is no condition of a fault: write app=, sender=, destination=, share=, count=, first_calls=, retry_after= or, last of all, body="
    )]
    UnknownKey(String),
    /// A value that does not fit its key.
    #[error("`{value}` can't be the {key} of a fault: it has to be {expected}")]
    BadValue {
        key: &'static str,
        value: String,
        expected: &'static str,
    },
    /// An answer's detail for a fault that has none.
    #[error("{key} only goes with a status, such as 503:{key}=…, not with {fault}")]
    OnlyWithStatus {
        key: &'static str,
        /// The name of the fault.
        fault: &'static str,
    },
}

impl FaultError {
    pub(super) fn bad(key: &'static str, value: &str, expected: &'static str) -> Self {
        Self::BadValue {
            key,
            value: value.to_owned(),
            expected,
        }
    }
}

pub(super) const A_SHARE: &str = "a number from 0 to 1";
/// A way in which a call goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Answers with this status instead, and does not take the message.
    Status {
        /// The HTTP status, 200 to 599.
        code: u16,
        /// The `Retry-After` header.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<String>,
        /// The body; by default what the API sends with such a status.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
    },
    /// Takes the message and answers as usual, but this much later.
    Slow {
        /// The delay in milliseconds.
        ms: u64,
    },
    /// Takes the message, then closes the connection without an answer.
    Drop,
    /// Closes the connection without an answer, and does not take the message.
    DropBefore,
    /// Takes the message and never answers; it ends when the client closes the connection.
    Hang,
    /// Takes the message and answers 200 with bytes that are no JSON.
    Garbage,
    /// Takes the message and closes the connection in the middle of the answer.
    HalfBody,
}

impl Fault {
    /// The name by which the ledger and the rules know it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Slow { .. } => "slow",
            Self::Drop => "drop",
            Self::DropBefore => "drop_before",
            Self::Hang => "hang",
            Self::Garbage => "garbage",
            Self::HalfBody => "half_body",
        }
    }

    /// Whether the message is taken all the same.
    pub(super) fn takes_message(&self) -> bool {
        match self {
            Self::Status { .. } | Self::DropBefore => false,
            Self::Slow { .. } | Self::Drop | Self::Hang | Self::Garbage | Self::HalfBody => true,
        }
    }
}

/// A fault and the calls it is done to. What is `None` matches every call.
///
/// As text: `FAULT[:KEY=VALUE,…]`, such as `500:share=0.01`, `429:retry_after=2,count=10`,
/// `slow=250ms:destination=slow-` or `500:destination=flaky-,first_calls=1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    pub fault: Fault,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// What the receiving user's or the channel's name begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The probability that the fault is done to a call which matches otherwise.
    #[serde(default = "always")]
    pub share: f64,
    /// How many times still; counted down as the rule is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Only the first so many calls of each message, counting those that came past sign-in, parameters and limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_calls: Option<u32>,
}

fn always() -> f64 {
    1.0
}

impl From<Fault> for FaultRule {
    /// The rule that does `fault` to every call.
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            app: None,
            sender: None,
            destination: None,
            share: always(),
            count: None,
            first_calls: None,
        }
    }
}

impl FaultRule {
    /// Checks what the types leave open.
    ///
    /// # Errors
    /// [`FaultError::BadValue`] names the value that can't be.
    pub fn check(&self) -> Result<(), FaultError> {
        if !(0.0..=1.0).contains(&self.share) {
            return Err(FaultError::bad("share", &self.share.to_string(), A_SHARE));
        }
        let Fault::Status {
            code, retry_after, ..
        } = &self.fault
        else {
            return Ok(());
        };
        if !(200..=599).contains(code) {
            return Err(FaultError::bad(
                "status",
                &code.to_string(),
                "from 200 to 599",
            ));
        }
        if let Some(value) = retry_after
            && axum::http::HeaderValue::from_str(value).is_err()
        {
            return Err(FaultError::bad(
                "retry_after",
                value,
                "the text of an HTTP header",
            ));
        }
        Ok(())
    }

    fn matches(&self, call: &Call, nth: Option<u32>) -> bool {
        fn is(wanted: Option<&String>, actual: &str) -> bool {
            wanted.is_none_or(|wanted| wanted == actual)
        }
        self.count != Some(0)
            && is(self.app.as_ref(), &call.app_id)
            && is(self.sender.as_ref(), &call.sender)
            && self
                .destination
                .as_ref()
                .is_none_or(|prefix| call.target.starts_with(prefix))
            && self
                .first_calls
                .is_none_or(|first| nth.is_some_and(|nth| nth <= first))
    }
}

/// The rules in force, and the dice.
#[derive(Debug)]
pub(super) struct Faults {
    rules: Vec<FaultRule>,
    rng: StdRng,
}

impl Faults {
    pub(super) fn new(rules: Vec<FaultRule>, seed: u64) -> Self {
        Self {
            rules,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    pub(super) fn rules(&self) -> &[FaultRule] {
        &self.rules
    }

    pub(super) fn replace(&mut self, rules: Vec<FaultRule>) {
        self.rules = rules;
    }

    /// The fault of the first rule that meets the call, which is the `nth` of its message.
    pub(super) fn choose(&mut self, call: &Call, nth: Option<u32>) -> Option<Fault> {
        let Self { rules, rng } = self;
        let rule = rules.iter_mut().find(|rule| {
            rule.matches(call, nth) && (rule.share >= 1.0 || rng.random::<f64>() < rule.share)
        })?;
        if let Some(count) = &mut rule.count {
            *count -= 1;
        }
        Some(rule.fault.clone())
    }

    /// A delay from nothing to `jitter`, evenly spread.
    pub(super) fn jitter(&mut self, jitter: Duration) -> Duration {
        if jitter.is_zero() {
            return Duration::ZERO;
        }
        jitter.mul_f64(self.rng.random::<f64>())
    }
}

#[cfg(test)]
#[path = "faults_tests.rs"]
mod tests;
