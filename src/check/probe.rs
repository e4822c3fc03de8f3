//! Sends one message to a user that the operator names, to learn whether the API accepts the credentials. The API has no call
//! without an effect. The message spends a slot of the app's budget. It has no row, because a worker's role can't insert rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Finding;
use crate::message::{InvalidMessage, Message, MessageOptions, Name, Payload, Target};
use crate::outbox::{Outbox, Refusal, SlotReservation};
use crate::outcome::{self, Acceptance, Outcome};
use crate::pace::clock::Moment;
use crate::pace::{PermitTerms, SendPermit};
use crate::signaling::{CallFailure, Client, CredentialError, Response};

const SUBJECT: &str = "probe";

const PAYLOAD: &str = "signaling-worker check";
/// Longer than the longest time between two probes of a held lane.
const SLOT_TIMEOUT: Duration = Duration::from_secs(10);
const SLOT_RETRY: Duration = Duration::from_millis(20);

pub(crate) fn message(sender: &str, destination: &str) -> Result<Message, InvalidMessage> {
    Ok(Message {
        sender: Name::sender(sender)?,
        target: Target::peer(destination)?,
        payload: Payload::new(PAYLOAD)?,
        options: MessageOptions::default(),
    })
}

#[derive(Debug)]
pub(crate) enum Probed {
    Called {
        call: Result<Response, CallFailure>,
        took: Duration,
    },
    NotSignedIn(CredentialError),
    NoSlot(Refusal),
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
    pub(crate) async fn call(&self, message: &Message) -> Result<Probed, sqlx::Error> {
        let connection = match self.client.connection().await {
            Ok(connection) => connection,
            Err(failure) => {
                return Ok(Probed::Called {
                    call: Err(failure),
                    took: Duration::ZERO,
                });
            }
        };
        let request = match self.client.prepare(message, &connection) {
            Ok(request) => request,
            Err(error) => return Ok(Probed::NotSignedIn(error)),
        };
        let call_id = Uuid::new_v4();
        let (permit, is_probe) = match self.permit(call_id).await? {
            Ok(permitted) => permitted,
            Err(refusal) => return Ok(Probed::NoSlot(refusal)),
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
        Ok(Probed::Called { call, took })
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
            match self
                .outbox
                .reserve_slot(self.app, call_id, self.lease)
                .await?
            {
                SlotReservation::NoLane => {
                    let environment = self.environment;
                    self.outbox
                        .open_lane(self.app, self.limit_per_s, environment, false)
                        .await?;
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

pub(crate) fn finding(probed: &Probed) -> Finding {
    let (call, took) = match probed {
        Probed::Called { call, took } => (call, took.as_millis()),
        Probed::NotSignedIn(error) => {
            return Finding::fail(
                SUBJECT,
                format!("not made: {error}"),
                "check the app's credentials and --probe-from",
            );
        }
        Probed::NoSlot(refusal) => return no_slot(*refusal),
    };
    let response = || format!("after {took} ms: {}", outcome::describe(call));
    match outcome::classify(call) {
        Outcome::Accepted(taken) => {
            let what = match taken {
                Acceptance::Sent => "the API accepted the message",
                Acceptance::Delivered => "the recipient has the message",
                Acceptance::Offline => "the API accepted the message, and the recipient is offline",
            };
            Finding::ok(SUBJECT, format!("{what}, after {took} ms"))
        }
        Outcome::Unauthorized => Finding::fail(
            SUBJECT,
            format!("the API refuses the credentials, {}", response()),
            "check the app ID and the secrets (AGORA_APP_ID, AGORA_API_KEY, AGORA_API_SECRET, AGORA_TOKEN, AGORA_APP_CERTIFICATE), and whether the account may use Signaling",
        ),
        Outcome::Rejected => Finding::fail(
            SUBJECT,
            format!("the API refuses the message, {}", response()),
            "check the users of --probe and --probe-from, the app ID and AGORA_BASE_URL",
        ),
        Outcome::Throttled => Finding::warn(
            SUBJECT,
            response(),
            "the API accepts the credentials and throttles: find other programs that call the API with this app ID",
        ),
        Outcome::Unserved => Finding::fail(
            SUBJECT,
            format!("the response is not from the API, {}", response()),
            "check AGORA_BASE_URL: it may name another server, or a gateway that does not forward to the API",
        ),
        Outcome::Transient | Outcome::Ambiguous => Finding::fail(
            SUBJECT,
            response(),
            "try again; if the probe still fails, check AGORA_BASE_URL and the network between this host and the API",
        ),
    }
}

fn no_slot(refusal: Refusal) -> Finding {
    let (found, advice) = match refusal {
        Refusal::Paused => (
            "not made: an operator paused the app",
            "`worker status` shows the operator and the reason; `worker resume` ends the pause",
        ),
        Refusal::RetryAfter => (
            "not made: the API has asked for a pause",
            "`worker status` shows the end of the pause",
        ),
        Refusal::Busy => (
            "not made: the workers took all slots of the last 10 s",
            "try again; `worker status` shows the state of the app",
        ),
        Refusal::Held => (
            "not made: the app is held, and the workers made all probes of the last 10 s",
            "`worker status` shows the reason of the hold",
        ),
    };
    Finding::warn(SUBJECT, found, advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;
    use crate::signaling::ResponseBody;

    fn answered(status: u16, code: Option<&str>) -> Probed {
        Probed::Called {
            call: Ok(Response {
                status,
                retry_after: None,
                request_id: None,
                body: ResponseBody::Object {
                    result: (status == 200).then(|| "success".into()),
                    code: code.map(str::to_owned),
                    reason: None,
                },
            }),
            took: Duration::from_millis(20),
        }
    }

    #[test]
    fn a_probe_passes_on_success_warns_on_429_and_fails_otherwise() {
        for (probed, level, phrase) in [
            (answered(200, Some("message_sent")), Level::Ok, "20 ms"),
            (answered(401, None), Level::Fail, "refuses the credentials"),
            (answered(400, None), Level::Fail, "refuses the message"),
            (answered(404, None), Level::Fail, "not from the API"),
            (answered(429, None), Level::Warn, "HTTP 429"),
            (answered(503, None), Level::Fail, "HTTP 503"),
            (Probed::NoSlot(Refusal::Paused), Level::Warn, "paused"),
            (
                Probed::NotSignedIn(CredentialError::OtherSender { uid: "u".into() }),
                Level::Fail,
                "not made",
            ),
        ] {
            let finding = finding(&probed);
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.found.contains(phrase), "{finding:?}");
        }
    }
}
