//! Classifies responses and missing responses, and decides what becomes of the row. Pure functions: no other module decides
//! what a response means.

use std::time::Duration;

use sqlx::FromRow;

use crate::pace::DbTime;
use crate::signaling::{CallFailure, Response, ResponseBody};

/// The result of an attempt. The names are values of the metrics and of the attempt's column `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Outcome {
    MessageSent,
    MessageDelivered,
    MessageOffline,
    /// HTTP 500: the call had no effect.
    Transient,
    /// No connection, or a response that only a gateway gives. The call had no effect and says nothing about the message.
    #[strum(serialize = "transient")]
    Unserved,
    /// HTTP 429: the limit of the app, or of one destination.
    Throttled,
    Rejected,
    /// HTTP 401 or 403. The circuit breaker decides whether the credentials, the worker or the message is at fault.
    Unauthorized,
    /// The API may have sent the message, or not.
    Ambiguous,
}

/// Classifies a call by the documentation (Messaging REST API, "Status code" and "Response body parameters").
pub(crate) fn classify(call: &Result<Response, CallFailure>) -> Outcome {
    let response = match call {
        Ok(response) => response,
        Err(CallFailure::NotSent(_)) => return Outcome::Unserved,
        Err(CallFailure::TimedOut(_) | CallFailure::Broken(_)) => return Outcome::Ambiguous,
    };
    match response.status {
        200 => acceptance(&response.body).unwrap_or(Outcome::Ambiguous),
        // "Parameters incorrect", not JSON, illegal content: another call with the same message fails, too.
        400 | 415 | 435 => Outcome::Rejected,
        401 | 403 => Outcome::Unauthorized,
        429 => Outcome::Throttled,
        // "Internal server error" is the only 5xx by which the API says that it has not sent the message.
        500 => Outcome::Transient,
        // 408 is "no response from the server", and 503 "processing exceeded the maximum time". The API may have sent the
        // message. After any other 5xx too, because a gateway may have passed the request on. A 2xx other than 200 is
        // undocumented, and may be a success.
        201..=299 | 408 | 501..=599 => Outcome::Ambiguous,
        // The API does not document any other status. A gateway redirects or answers 404 if its routes are wrong. If a 404
        // failed the message, one minute of wrong routes would fail all messages of that minute.
        _ => Outcome::Unserved,
    }
}

fn acceptance(body: &ResponseBody) -> Option<Outcome> {
    let ResponseBody::Object { result, code, .. } = body else {
        return None;
    };
    if result.as_ref().is_some_and(|result| result != "success") {
        return None;
    }
    match code.as_deref() {
        Some("message_sent") => Some(Outcome::MessageSent),
        Some("message_delivered") => Some(Outcome::MessageDelivered),
        // An older page of the vendor has the code peer_offline.
        Some("message_offline" | "peer_offline") => Some(Outcome::MessageOffline),
        // The success of a channel message has no code.
        _ => result.is_some().then_some(Outcome::MessageSent),
    }
}

/// The error of a call for people: bounded, and without the payload.
pub(crate) fn describe(call: &Result<Response, CallFailure>) -> String {
    let response = match call {
        Ok(response) => response,
        Err(failure) => return failure.to_string(),
    };
    let body = match &response.body {
        ResponseBody::Unreadable(why) => format!(", and {why}"),
        ResponseBody::Object {
            result,
            code,
            reason,
        } => {
            let result = result.as_ref().map(|it| format!(", result {it:?}"));
            let code = code.as_ref().map(|it| format!(", code {it:?}"));
            let reason = reason.as_ref().map(|it| format!(": {it}"));
            [result, code, reason].into_iter().flatten().collect()
        }
    };
    format!("HTTP {}{body}", response.status)
}

/// A final value of the column `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum FinalStatus {
    MessageSent,
    MessageDelivered,
    MessageOffline,
    /// Rejected, out of charged attempts, given up after `WORKER_GIVE_UP_AFTER`, or of a sender that the token does not allow.
    Failed,
    Expired,
    /// The API may have sent the message, and the worker may not send it again.
    Unknown,
}

/// The cause of a failed attempt, as the column `fault` has it. A newer version may write other faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Fault {
    /// The API rejected the message, or accepts other messages at present.
    Message,
    /// The destination has a limit of its own.
    Destination,
    /// The API accepts messages of other workers, or this worker died or panicked during the attempt.
    Worker,
    /// The API accepts messages of no worker, or refuses the app's credentials.
    Api,
    /// The calls of this app exceed its limit.
    Budget,
    Unclear,
}

/// The limits and promises of a row for the decision after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct DeliveryPolicy {
    /// Charged attempts before this one.
    #[sqlx(try_from = "i32")]
    pub(crate) attempts: u32,
    /// Failed attempts before this one that were not charged.
    #[sqlx(try_from = "i32")]
    pub(crate) uncharged: u32,
    pub(crate) failing_since: Option<DbTime>,
    #[sqlx(try_from = "i32")]
    pub(crate) max_attempts: u32,
    pub(crate) at_most_once: bool,
    pub(crate) expires_at: Option<DbTime>,
    /// True if the attempt probes a lane that is held.
    #[sqlx(skip)]
    pub(crate) probe: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Final(FinalStatus),
    /// The message is due again after this time.
    Retry(Duration),
}

impl DeliveryPolicy {
    /// The number of this attempt within its message, from 1, as in `signaling.attempt`.
    pub(crate) fn attempt(&self) -> u32 {
        let before = self.attempts.saturating_add(self.uncharged);
        before.saturating_add(1)
    }

    /// The number of failed attempts that determines the next delay. A held lane spaces its probes itself, and the message of
    /// a probe must be due soon after the end of the hold.
    pub(crate) fn failures(&self) -> u32 {
        if self.probe { 1 } else { self.attempt() }
    }
}

/// The wait for which the API asks, an hour at most; zero if it does not ask.
pub(crate) fn retry_after(call: &Result<Response, CallFailure>) -> Duration {
    let asked = call.as_ref().ok().and_then(|response| response.retry_after);
    asked.unwrap_or_default().min(MAX_RETRY_AFTER)
}

pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// Decides what becomes of a row after a call. `delay` is the delay of a retry. A message that fails for `give_up_after` ends.
/// `now` is a time of the database that has certainly passed, even after a step of its clock.
pub(crate) fn next(
    outcome: Outcome,
    is_charged: bool,
    policy: DeliveryPolicy,
    now: DbTime,
    delay: Duration,
    give_up_after: Duration,
) -> Next {
    let final_status = match outcome {
        Outcome::MessageSent => FinalStatus::MessageSent,
        Outcome::MessageDelivered => FinalStatus::MessageDelivered,
        Outcome::MessageOffline => FinalStatus::MessageOffline,
        Outcome::Rejected => FinalStatus::Failed,
        Outcome::Ambiguous if policy.at_most_once => FinalStatus::Unknown,
        Outcome::Throttled
        | Outcome::Unauthorized
        | Outcome::Transient
        | Outcome::Unserved
        | Outcome::Ambiguous => {
            let is_last = is_charged && policy.attempts.saturating_add(1) >= policy.max_attempts;
            let failing_since = policy.failing_since;
            if is_last || failing_since.is_some_and(|since| now.since(since) >= give_up_after) {
                FinalStatus::Failed
            } else if policy.expires_at.is_some_and(|at| at <= now + delay) {
                FinalStatus::Expired
            } else {
                return Next::Retry(delay);
            }
        }
    };
    Next::Final(final_status)
}

impl Outcome {
    pub(crate) fn is_accepted(self) -> bool {
        use Outcome::{MessageDelivered, MessageOffline, MessageSent};
        matches!(self, MessageSent | MessageDelivered | MessageOffline)
    }

    /// The value of the attempt's column `outcome`. An accepted attempt has no row.
    pub(crate) fn failure(self) -> Option<&'static str> {
        (!self.is_accepted()).then(|| self.into())
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use proptest::prelude::*;

    use super::*;
    use crate::signaling::EchoFilter;

    #[expect(clippy::unnecessary_wraps, reason = "the calls under test are results")]
    fn response(status: u16, body: &str) -> Result<Response, CallFailure> {
        Ok(Response::read(
            status,
            &HeaderMap::new(),
            Ok(body.as_bytes()),
            &EchoFilter::default(),
        ))
    }

    #[test]
    fn each_documented_answer_means_what_the_documentation_says() {
        use Outcome::{Ambiguous, MessageDelivered, MessageOffline, MessageSent};
        use Outcome::{Throttled, Unauthorized};
        let cases = [
            (r#"{"result":"success","code":"message_sent"}"#, MessageSent),
            (
                r#"{"result":"success","code":"message_delivered"}"#,
                MessageDelivered,
            ),
            (r#"{"code":"message_offline"}"#, MessageOffline),
            (
                r#"{"result":"success","code":"peer_offline"}"#,
                MessageOffline,
            ),
            (r#"{"result":"success"}"#, MessageSent),
            ("\u{feff}{\"result\":\"success\"}", MessageSent),
            (r#"{"result":"failed","code":"message_sent"}"#, Ambiguous),
            (r#"{"result":"failed"}"#, Ambiguous),
            ("{}", Ambiguous),
            ("", Ambiguous),
            ("<html>", Ambiguous),
            ("[1]", Ambiguous),
        ];
        for (body, expected) in cases {
            assert_eq!(classify(&response(200, body)), expected, "{body}");
        }
        let success = r#"{"result":"success","code":"message_sent"}"#;
        for (status, expected) in [
            (201, Ambiguous),
            (204, Ambiguous),
            (401, Unauthorized),
            (403, Unauthorized),
            (408, Ambiguous),
            (429, Throttled),
        ] {
            assert_eq!(classify(&response(status, success)), expected, "{status}");
        }
    }

    #[test]
    fn only_400_415_and_435_reject_a_message() {
        let rejecting: Vec<u16> = (0..1_000)
            .filter(|status| classify(&response(*status, "{}")) == Outcome::Rejected)
            .collect();
        assert_eq!(rejecting, [400, 415, 435]);
    }

    #[test]
    fn after_each_5xx_but_500_the_message_may_have_been_sent() {
        for status in 501..600 {
            assert_eq!(classify(&response(status, "")), Outcome::Ambiguous);
        }
        assert_eq!(classify(&response(500, "")), Outcome::Transient);
    }

    #[test]
    fn a_status_that_only_a_gateway_gives_is_no_verdict_on_the_message() {
        for status in [
            100, 301, 302, 307, 402, 404, 405, 406, 407, 409, 410, 413, 414, 421, 425, 431, 451,
            499, 600,
        ] {
            let call = response(status, r#"{"result":"success"}"#);
            assert_eq!(classify(&call), Outcome::Unserved, "{status}");
        }
    }

    #[test]
    fn retry_after_of_any_status_is_followed_within_bounds() {
        for status in [404, 429, 500, 503] {
            for (value, asked) in [("9", SECOND * 9), ("99999999", MAX_RETRY_AFTER)] {
                let mut headers = HeaderMap::new();
                headers.insert("retry-after", value.parse().expect("a value"));
                let echo_filter = EchoFilter::default();
                let call = Ok(Response::read(status, &headers, Ok(b""), &echo_filter));
                assert_eq!(retry_after(&call), asked, "{status}");
            }
        }
        assert_eq!(retry_after(&response(429, "")), Duration::ZERO);
        let unsent = Err(CallFailure::NotSent("refused".into()));
        assert_eq!(retry_after(&unsent), Duration::ZERO);
    }

    #[test]
    fn a_call_without_an_answer_is_ambiguous_unless_it_was_not_sent() {
        assert_eq!(
            classify(&Err(CallFailure::NotSent("refused".into()))),
            Outcome::Unserved
        );
        assert_eq!(
            classify(&Err(CallFailure::TimedOut(Duration::from_secs(1)))),
            Outcome::Ambiguous
        );
        assert_eq!(
            classify(&Err(CallFailure::Broken("reset".into()))),
            Outcome::Ambiguous
        );
    }

    const NOW: DbTime = DbTime::from_micros(1_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_hours(24);
    const POLICY: DeliveryPolicy = DeliveryPolicy {
        attempts: 0,
        uncharged: 0,
        failing_since: None,
        max_attempts: 3,
        at_most_once: false,
        expires_at: None,
        probe: false,
    };
    const LAST: DeliveryPolicy = DeliveryPolicy {
        attempts: 2,
        ..POLICY
    };
    /// Failures for which the message may be to blame, or not.
    const OPEN: [Outcome; 5] = [
        Outcome::Transient,
        Outcome::Unserved,
        Outcome::Unauthorized,
        Outcome::Ambiguous,
        Outcome::Throttled,
    ];

    fn after(outcome: Outcome, is_charged: bool, policy: DeliveryPolicy) -> Next {
        next(outcome, is_charged, policy, NOW, SECOND, DAY)
    }

    #[test]
    fn a_message_is_tried_until_its_charged_attempts_are_used_up() {
        for outcome in OPEN {
            assert_eq!(after(outcome, true, POLICY), Next::Retry(SECOND));
            let failed = Next::Final(FinalStatus::Failed);
            assert_eq!(after(outcome, true, LAST), failed);
            assert_eq!(after(outcome, false, LAST), Next::Retry(SECOND));
        }
    }

    #[test]
    fn a_message_that_fails_for_a_day_ends_charged_or_not() {
        let failing = |since| DeliveryPolicy {
            uncharged: 300,
            failing_since: Some(since),
            ..POLICY
        };
        for outcome in OPEN {
            for is_charged in [true, false] {
                let given_up = after(outcome, is_charged, failing(NOW - DAY));
                assert_eq!(given_up, Next::Final(FinalStatus::Failed));
            }
            let goes_on = after(outcome, false, failing(NOW - DAY + SECOND));
            assert_eq!(goes_on, Next::Retry(SECOND));
        }
    }

    #[test]
    fn the_delay_grows_with_every_failure_but_those_of_probes() {
        let failed = DeliveryPolicy {
            attempts: 2,
            uncharged: 3,
            ..POLICY
        };
        assert_eq!(failed.failures(), 6);
        let probe = DeliveryPolicy {
            probe: true,
            ..failed
        };
        assert_eq!(probe.failures(), 1);
    }

    #[test]
    fn at_most_once_ends_as_unknown_after_an_ambiguous_call_and_only_then() {
        let once = DeliveryPolicy {
            at_most_once: true,
            ..POLICY
        };
        for is_charged in [true, false] {
            let unknown = Next::Final(FinalStatus::Unknown);
            assert_eq!(after(Outcome::Ambiguous, is_charged, once), unknown);
        }
        let again = after(Outcome::Transient, true, once);
        assert_eq!(again, Next::Retry(SECOND));
    }

    #[test]
    fn a_message_that_would_be_due_after_its_expiry_has_expired() {
        let short = DeliveryPolicy {
            expires_at: Some(NOW + SECOND),
            ..POLICY
        };
        let outcome = Outcome::Transient;
        let expired = Next::Final(FinalStatus::Expired);
        assert_eq!(after(outcome, true, short), expired);
        let soon = next(outcome, true, short, NOW, SECOND / 2, DAY);
        assert_eq!(soon, Next::Retry(SECOND / 2));
    }

    proptest! {
        #[test]
        fn random_bytes_never_count_as_success(status: u16, body: Vec<u8>) {
            let call = Ok(Response::read(status, &HeaderMap::new(), Ok(&body), &EchoFilter::default()));
            prop_assert!(!classify(&call).is_accepted());
            prop_assert!(describe(&call).len() < 2_000);
        }

        #[test]
        fn only_a_200_can_be_a_success(status in (0_u16..1_000).prop_filter("not 200", |s| *s != 200)) {
            let call = response(status, r#"{"result":"success","code":"message_sent"}"#);
            prop_assert!(!classify(&call).is_accepted());
        }
    }
}
