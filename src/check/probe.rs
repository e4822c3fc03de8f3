//! Sends one message to a user that the operator names, to learn whether the API accepts the credentials. The API has no call
//! without an effect. The message spends a slot of the app's budget. It has no row, because a worker's role can't insert rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Finding;
use crate::message::Message;
use crate::outbox::{Outbox, Refusal, SlotReservation};
use crate::outcome::{self, Outcome};
use crate::pace::clock::Moment;
use crate::pace::{PermitTerms, SendPermit};
use crate::signaling::{CallFailure, Client, Response};

const SUBJECT: &str = "probe";

const PAYLOAD: &str = "signaling-worker check";
/// Longer than the longest time between two probes of a held lane.
const SLOT_TIMEOUT: Duration = Duration::from_secs(10);
const SLOT_RETRY: Duration = Duration::from_millis(20);

pub(crate) fn message(sender: &str, destination: &str) -> Message {
    Message {
        sender: sender.to_owned(),
        destination: Some(destination.to_owned()),
        payload: PAYLOAD.to_owned().into(),
        ..Message::default()
    }
}

#[derive(Debug)]
pub(crate) struct Probe<'a> {
    pub(crate) outbox: &'a Outbox,
    pub(crate) app: &'a str,
    /// The limit of a lane that this probe opens.
    pub(crate) limit_per_s: f64,
    pub(crate) environment: Option<&'a str>,
    pub(crate) client: &'a Arc<Client>,
    pub(crate) lease: Duration,
}

impl Probe<'_> {
    /// # Errors
    /// If the database fails.
    pub(crate) async fn send(&self, message: &Message) -> Result<Finding, sqlx::Error> {
        let connection = match self.client.connection().await {
            Ok(connection) => connection,
            Err(failure) => return Ok(judge(&Err(failure), Duration::ZERO)),
        };
        let request = match self.client.prepare(message, &connection) {
            Ok(request) => request,
            Err(error) => {
                let advice = "check the app's credentials";
                return Ok(Finding::fail(SUBJECT, format!("not made: {error}"), advice));
            }
        };
        let call_id = Uuid::new_v4();
        let (permit, is_probe) = match self.permit(call_id).await? {
            Ok(permitted) => permitted,
            Err(refusal) => return Ok(no_slot(refusal)),
        };
        let sent_at = permit.starts_at();
        let begun = Instant::now();
        let call = self.client.send(permit, connection, request).await;
        let took = begun.elapsed();
        if outcome::classify(&call) == Outcome::Throttled {
            let pause = outcome::retry_after(&call);
            self.outbox.throttle(self.app, sent_at, pause).await?;
        }
        if is_probe {
            // The result does not end the hold, because the workers may have other credentials.
            self.outbox.release(self.app, &[call_id]).await?;
        }
        Ok(judge(&call, took))
    }

    /// Waits for a slot. Returns the permit and whether it is the probe of a held lane.
    async fn permit(
        &self,
        call_id: Uuid,
    ) -> Result<Result<(SendPermit, bool), Refusal>, sqlx::Error> {
        let begun = Instant::now();
        let mut refusal = Refusal::Busy;
        while begun.elapsed() < SLOT_TIMEOUT {
            let asked_at = Instant::now();
            let reserved = self.outbox.reserve_slot(self.app, call_id, self.lease);
            match reserved.await? {
                SlotReservation::NoLane => {
                    let (limit_per_s, environment) = (self.limit_per_s, self.environment);
                    let opened = self
                        .outbox
                        .open_lane(self.app, limit_per_s, environment, false);
                    opened.await?;
                }
                SlotReservation::Refused(why @ (Refusal::Paused | Refusal::RetryAfter)) => {
                    return Ok(Err(why));
                }
                SlotReservation::Refused(why @ (Refusal::Busy | Refusal::Held)) => {
                    refusal = why;
                    tokio::time::sleep(SLOT_RETRY).await;
                }
                SlotReservation::Slot {
                    slot_at,
                    lease_ends,
                    is_probe,
                } => {
                    if let Some(clock) = self.outbox.clock().get() {
                        tokio::time::sleep_until(clock.instant_of(slot_at).into()).await;
                        let terms = PermitTerms {
                            slot: slot_at,
                            asked_at,
                            lease_ends,
                            request_timeout: self.client.timing.request_timeout,
                        };
                        let now = Moment::now();
                        if let Ok(permit) = SendPermit::take(terms, &clock, now, None) {
                            return Ok(Ok((permit, is_probe)));
                        }
                    }
                    if is_probe {
                        self.outbox.release(self.app, &[call_id]).await?;
                    }
                }
            }
        }
        Ok(Err(refusal))
    }
}

fn judge(call: &Result<Response, CallFailure>, took: Duration) -> Finding {
    let took = took.as_millis();
    let accepted = |what: &str| Finding::ok(SUBJECT, format!("{what}, after {took} ms"));
    let (found, advice) = match outcome::classify(call) {
        Outcome::MessageSent => return accepted("the API accepted the message"),
        Outcome::MessageDelivered => return accepted("the recipient has the message"),
        Outcome::MessageOffline => {
            return accepted("the API accepted the message, and the recipient is offline");
        }
        Outcome::Unauthorized => (
            "the API refuses the credentials",
            "check the app ID and the secrets (AGORA_APP_ID, AGORA_API_KEY, AGORA_API_SECRET, AGORA_TOKEN, AGORA_APP_CERTIFICATE), and whether the account may use Signaling",
        ),
        Outcome::Rejected => (
            "the API refuses the message",
            "check the user of --probe, the app ID and AGORA_BASE_URL",
        ),
        Outcome::Throttled => (
            "the API accepts the credentials and throttles",
            "find other programs that call the API with this app ID",
        ),
        Outcome::Unserved => (
            "the response is not from the API",
            "check AGORA_BASE_URL: it may name another server, or a gateway that does not forward to the API",
        ),
        Outcome::Transient | Outcome::Ambiguous => (
            "the call failed",
            "try again; if the probe still fails, check AGORA_BASE_URL and the network between this host and the API",
        ),
    };
    let found = format!("{found}, after {took} ms: {}", outcome::describe(call));
    if outcome::classify(call) == Outcome::Throttled {
        return Finding::warn(SUBJECT, found, advice);
    }
    Finding::fail(SUBJECT, found, advice)
}

fn no_slot(refusal: Refusal) -> Finding {
    let why = match refusal {
        Refusal::Paused => "an operator paused the app",
        Refusal::RetryAfter => "the API has asked for a pause",
        Refusal::Busy => "the workers took all slots of the last 10 s",
        Refusal::Held => "the app is held, and the workers made all probes of the last 10 s",
    };
    let advice = "`worker status` shows the state of the app; try again when the app sends";
    Finding::warn(SUBJECT, format!("not made: {why}"), advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;
    use crate::signaling::ResponseBody;

    fn answered(status: u16, code: Option<&str>) -> Response {
        Response {
            status,
            retry_after: None,
            request_id: None,
            body: ResponseBody::Object {
                result: (status == 200).then(|| "success".into()),
                code: code.map(str::to_owned),
                reason: None,
            },
        }
    }

    #[test]
    fn a_probe_passes_on_success_warns_on_429_and_fails_otherwise() {
        for (status, code, level, phrase) in [
            (200, Some("message_sent"), Level::Ok, "20 ms"),
            (401, None, Level::Fail, "refuses the credentials"),
            (400, None, Level::Fail, "refuses the message"),
            (404, None, Level::Fail, "not from the API"),
            (429, None, Level::Warn, "HTTP 429"),
            (503, None, Level::Fail, "HTTP 503"),
        ] {
            let finding = judge(&Ok(answered(status, code)), Duration::from_millis(20));
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.found.contains(phrase), "{finding:?}");
        }
    }
}
