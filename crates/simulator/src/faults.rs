//! Fault injection: rules select calls and say how they fail.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::http::HeaderValue;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::call::Call;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The API responds with this status, and does not take the message.
    Status {
        /// From 200 to 599.
        code: u16,
        retry_after: Option<String>,
        /// By default the body that the API usually sends with this status.
        body: Option<String>,
    },
    /// The API takes the message, and responds this many milliseconds later.
    Slow { ms: u64 },
    /// The API takes the message, and closes the connection without a response.
    Drop,
    /// The API closes the connection without a response, and does not take the message.
    DropBefore,
    /// The API takes the message, and never responds.
    Hang,
    /// The API takes the message, and responds with status 200 and a body that is not JSON.
    Garbage,
    /// The API takes the message, and closes the connection in the middle of the response.
    HalfBody,
}

impl Fault {
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

    pub(super) fn takes_message(&self) -> bool {
        !matches!(self, Self::Status { .. } | Self::DropBefore)
    }
}

/// A fault, and conditions for the calls that meet it. A condition of `None` matches every call.
///
/// As text: `FAULT[:KEY=VALUE,…]`, such as `500:share=0.01`, `429:retry_after=2,count=10`,
/// `slow=250ms:destination=slow-` or `500:destination=flaky-,first_calls=1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    pub fault: Fault,
    pub app: Option<String>,
    pub sender: Option<String>,
    /// Prefix of the receiving user's or channel's name.
    pub destination: Option<String>,
    /// Probability of the fault for a call that meets the other conditions.
    #[serde(default = "always")]
    pub share: f64,
    /// Remaining number of faults. The API counts it down.
    pub count: Option<u64>,
    /// Matches only the first so many calls of each message.
    pub first_calls: Option<u32>,
}

fn always() -> f64 {
    1.0
}

impl From<Fault> for FaultRule {
    /// A rule that matches every call.
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
    /// Checks values that the types do not restrict.
    ///
    /// # Errors
    /// If a value is out of range.
    pub fn check(&self) -> anyhow::Result<()> {
        let share = self.share;
        ensure!(
            (0.0..=1.0).contains(&share),
            "the share of a fault can't be `{share}`: write a number from 0 to 1"
        );
        if let Fault::Status {
            code, retry_after, ..
        } = &self.fault
        {
            ensure!(
                (200..=599).contains(code),
                "the status of a fault can't be `{code}`: write a number from 200 to 599"
            );
            let header = HeaderValue::from_str(retry_after.as_deref().unwrap_or_default());
            header.context("the retry_after of a fault can't be sent as an HTTP header")?;
        }
        Ok(())
    }

    fn matches(&self, call: &Call, nth: Option<u32>) -> bool {
        let is = |wanted: &Option<String>, actual: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == actual)
        };
        let prefix = self.destination.as_deref().unwrap_or_default();
        self.count != Some(0)
            && is(&self.app, &call.app_id)
            && is(&self.sender, &call.sender)
            && call.target.starts_with(prefix)
            && self
                .first_calls
                .is_none_or(|first| nth.is_some_and(|nth| nth <= first))
    }

    fn set(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        fn number<T: FromStr>(key: &str, value: &str) -> anyhow::Result<T> {
            let number = value.parse().ok();
            number
                .with_context(|| format!("the {key} of a fault can't be `{value}`: write a number"))
        }
        match (key, &mut self.fault) {
            ("app", _) => self.app = Some(value.to_owned()),
            ("sender", _) => self.sender = Some(value.to_owned()),
            ("destination", _) => self.destination = Some(value.to_owned()),
            ("share", _) => self.share = number(key, value)?,
            ("count", _) => self.count = Some(number(key, value)?),
            ("first_calls", _) => self.first_calls = Some(number(key, value)?),
            ("retry_after", Fault::Status { retry_after, .. }) => {
                *retry_after = Some(value.to_owned());
            }
            ("body", Fault::Status { body, .. }) => *body = Some(value.to_owned()),
            ("retry_after" | "body", fault) => bail!(
                "`{}` can't have {key}: write it with a status, such as 503:{key}=…",
                fault.name()
            ),
            _ => return Err(unknown_key(key)),
        }
        Ok(())
    }
}

fn unknown_key(key: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "`{key}` is not a condition of a fault: write app=, sender=, destination=, share=, count=, first_calls=, \
         retry_after= or, last of all, body="
    )
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(delay) = text.strip_prefix("slow=") {
            let delay = humantime::parse_duration(delay).with_context(|| {
                format!(
                    "the delay of a fault can't be `{delay}`: write a duration such as 250ms or 3s"
                )
            })?;
            let ms = u64::try_from(delay.as_millis())?;
            return Ok(Self::Slow { ms });
        }
        Ok(match text.replace('-', "_").as_str() {
            "drop" => Self::Drop,
            "drop_before" => Self::DropBefore,
            "hang" => Self::Hang,
            "garbage" => Self::Garbage,
            "half_body" => Self::HalfBody,
            status => Self::Status {
                code: status.parse().ok().with_context(|| {
                    format!(
                        "unknown fault `{text}`: write a status from 200 to 599, slow=DURATION, drop, drop_before, \
                         hang, garbage or half_body"
                    )
                })?,
                retry_after: None,
                body: None,
            },
        })
    }
}

impl FromStr for FaultRule {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (fault, mut rest) = text.split_once(':').unwrap_or((text, ""));
        let mut rule = Self::from(fault.parse::<Fault>()?);
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=').ok_or_else(|| unknown_key(rest))?;
            // A body may contain commas, so it extends to the end.
            let (value, next) = match key {
                "body" => (after, ""),
                _ => after.split_once(',').unwrap_or((after, "")),
            };
            rule.set(key, value)?;
            rest = next;
        }
        rule.check()?;
        Ok(rule)
    }
}

/// The rules in force, and the random numbers that decide their shares.
#[derive(Debug)]
pub(super) struct Faults {
    pub(super) rules: Vec<FaultRule>,
    rng: StdRng,
}

impl Faults {
    pub(super) fn new(rules: Vec<FaultRule>, seed: u64) -> Self {
        Self {
            rules,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// The fault of the first rule that matches the call, the `nth` one of its message.
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

    /// A random delay of at most `jitter`.
    pub(super) fn delay(&mut self, jitter: Duration) -> Duration {
        if jitter.is_zero() {
            return jitter;
        }
        jitter.mul_f64(self.rng.random::<f64>())
    }
}
