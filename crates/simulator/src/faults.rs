//! Fault injection: rules select calls and say how they fail.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use strum::{EnumString, IntoStaticStr};

use super::ledger::Call;

#[derive(Debug, Clone, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Fault {
    /// The API responds with this status, and does not accept the message. Without a body, it sends the usual one.
    Status {
        code: u16,
        retry_after: Option<String>,
        body: Option<String>,
    },
    /// The API accepts the message, and responds after this delay.
    Slow(Duration),
    /// The API accepts the message, and closes the connection without a response.
    Drop,
    /// The API closes the connection without a response, and does not accept the message.
    DropBefore,
    /// The API accepts the message, and never responds.
    Hang,
    /// The API accepts the message, and responds with status 200 and a body that is not JSON.
    Garbage,
    /// The API accepts the message, and closes the connection in the middle of the response.
    HalfBody,
}

impl Fault {
    pub(super) fn accepts_message(&self) -> bool {
        !matches!(self, Self::Status { .. } | Self::DropBefore)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        if let Some(delay) = text.strip_prefix("slow=") {
            let delay = humantime::parse_duration(delay).with_context(|| {
                format!(
                    "the delay of a fault can't be `{delay}`: write a duration such as 250ms or 3s"
                )
            })?;
            return Ok(Self::Slow(delay));
        }
        if let Ok(fault) = text.parse()
            && !matches!(fault, Self::Status { .. } | Self::Slow(_))
        {
            return Ok(fault);
        }
        let code = text.parse().ok();
        let code = code.filter(|code| (200..=599).contains(code));
        Ok(Self::Status {
            code: code.with_context(|| {
                format!(
                    "unknown fault `{text}`: write a status from 200 to 599, slow=DURATION, drop, drop_before, hang, \
                     garbage or half_body"
                )
            })?,
            retry_after: None,
            body: None,
        })
    }
}

/// A fault, and conditions for the calls that meet it. A condition of `None` matches every call.
///
/// As text: `FAULT[:KEY=VALUE,…]`, such as `500:share=0.01`, `429:count=10,retry_after=2`,
/// `slow=250ms:destination=slow-` or `500:destination=flaky-,first_calls=1`.
#[derive(Debug, Clone)]
pub struct FaultRule {
    pub(super) fault: Fault,
    app: Option<String>,
    /// Prefix of the receiving user's or channel's name.
    destination: String,
    /// Probability of the fault for a call that meets the other conditions.
    share: f64,
    /// The number of calls that the fault may still hit.
    pub(super) count: Option<u64>,
    /// Matches only the first so many calls of each message.
    first_calls: Option<u32>,
}

impl FaultRule {
    fn matches(&self, call: &Call, nth: u32) -> bool {
        self.count != Some(0)
            && self.app.as_ref().is_none_or(|app| *app == call.app_id)
            && call.target.starts_with(&self.destination)
            && self.first_calls.is_none_or(|first| nth <= first)
            && rand::random::<f64>() < self.share
    }

    fn set(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        let text = Some(value.to_owned());
        let wrong = || format!("the {key} of a fault can't be `{value}`: write a number");
        match (key, &mut self.fault) {
            ("app", _) => self.app = text,
            ("destination", _) => value.clone_into(&mut self.destination),
            ("share", _) => self.share = value.parse().with_context(wrong)?,
            ("count", _) => self.count = Some(value.parse().with_context(wrong)?),
            ("first_calls", _) => self.first_calls = Some(value.parse().with_context(wrong)?),
            ("retry_after", Fault::Status { retry_after, .. }) => *retry_after = text,
            ("body", Fault::Status { body, .. }) => *body = text,
            _ => bail!(
                "`{key}` is not a condition of this fault: write app=, destination=, share=, count= or first_calls=; with a \
                 status also, last of all, retry_after= or body="
            ),
        }
        Ok(())
    }
}

impl FromStr for FaultRule {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (fault, mut rest) = text.split_once(':').unwrap_or((text, ""));
        let mut rule = Self {
            fault: Fault::parse(fault)?,
            app: None,
            destination: String::new(),
            share: 1.0,
            count: None,
            first_calls: None,
        };
        while !rest.is_empty() {
            let condition = rest.split_once('=');
            let (key, after) = condition
                .with_context(|| format!("`{rest}` is not a condition: write KEY=VALUE"))?;
            let (value, next) = match key {
                // These values may contain commas, so they extend to the end.
                "retry_after" | "body" => (after, ""),
                _ => after.split_once(',').unwrap_or((after, "")),
            };
            rule.set(key, value)?;
            rest = next;
        }
        ensure!(
            (0.0..=1.0).contains(&rule.share),
            "the share of a fault can't be `{}`: write a number from 0 to 1",
            rule.share
        );
        Ok(rule)
    }
}

/// The fault of the first rule that matches the call, the `nth` one of its message.
pub(super) fn choose(rules: &mut [FaultRule], call: &Call, nth: u32) -> Option<Fault> {
    let rule = rules.iter_mut().find(|rule| rule.matches(call, nth))?;
    if let Some(count) = &mut rule.count {
        *count -= 1;
    }
    Some(rule.fault.clone())
}
