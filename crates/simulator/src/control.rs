//! The control API under `/_simulator/`: reads and changes the simulator over HTTP.

use std::sync::Arc;

use anyhow::Context as _;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::ApiState;
use super::behaviour::Behaviour;
use super::call::Call;
use super::faults::FaultRule;
use super::summary::Summary;

const MAX_LISTED_CALLS: usize = 10_000;

const HELP: &str = "\
The simulated Signaling API.

GET    /_simulator/ledger                   totals: calls, statuses, duplicates, the fullest second
DELETE /_simulator/ledger                   forget all calls
GET    /_simulator/calls?after=SEQ&limit=N  the calls after number SEQ (0), at most N (1000)
GET    /_simulator/faults                   the fault rules in force, as JSON
PUT    /_simulator/faults                   replace them: an array of such rules, or of texts as
                                            [\"500:share=0.01\", \"slow=250ms:destination=slow-\"]
GET    /_simulator/config                   limit, offline prefix, latency; of credentials, the kinds
PUT    /_simulator/config                   replace the fields given: limit, retry_after, offline_prefix,
                                            latency_ms, jitter_ms, keep_alive_s, idle_close_ms,
                                            closes_connections,
                                            credentials {basic, tokens, app_certificates}
";

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/_simulator", get(HELP))
        .route("/_simulator/", get(HELP))
        .route("/_simulator/ledger", get(summary).delete(clear))
        .route("/_simulator/calls", get(calls))
        .route("/_simulator/faults", get(faults).put(set_faults))
        .route("/_simulator/config", get(config).put(set_config))
}

/// Requests to the control API do not count in the ledger.
pub(super) fn is_control(path: &str) -> bool {
    path.starts_with("/_simulator/") || path == "/_simulator"
}

async fn summary(State(api): State<Arc<ApiState>>) -> Json<Summary> {
    Json(api.ledger.summary())
}

async fn clear(State(api): State<Arc<ApiState>>) -> StatusCode {
    api.ledger.clear();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

async fn calls(State(api): State<Arc<ApiState>>, Query(page): Query<Page>) -> Json<Vec<Call>> {
    let limit = page.limit.unwrap_or(1_000).min(MAX_LISTED_CALLS);
    Json(api.ledger.calls_after(page.after, limit))
}

async fn faults(State(api): State<Arc<ApiState>>) -> Json<Vec<FaultRule>> {
    Json(api.faults().rules.clone())
}

async fn set_faults(State(api): State<Arc<ApiState>>, body: Bytes) -> Response {
    match read_rules(&body) {
        Ok(rules) => {
            api.faults().rules.clone_from(&rules);
            Json(rules).into_response()
        }
        Err(error) => bad_request(&error),
    }
}

fn read_rules(body: &[u8]) -> anyhow::Result<Vec<FaultRule>> {
    let rules: Vec<Value> =
        serde_json::from_slice(body).context("the fault rules must be a JSON array")?;
    let read = |rule| match rule {
        Value::String(text) => text.parse(),
        rule => {
            let rule: FaultRule = serde_json::from_value(rule)?;
            rule.check()?;
            Ok(rule)
        }
    };
    rules.into_iter().map(read).collect()
}

async fn config(State(api): State<Arc<ApiState>>) -> Json<Value> {
    Json(without_secrets(&api.behaviour()))
}

async fn set_config(State(api): State<Arc<ApiState>>, body: Bytes) -> Response {
    let mut behaviour = api.behaviour();
    match changed(&behaviour, &body) {
        Ok(changed) => {
            *behaviour = Arc::new(changed);
            Json(without_secrets(&behaviour)).into_response()
        }
        Err(error) => bad_request(&error),
    }
}

/// The environment may contain real credentials, so the response names their kinds alone.
fn without_secrets(behaviour: &Behaviour) -> Value {
    let mut fields = json!(behaviour);
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("credentials");
        fields.insert(
            "accepts".to_owned(),
            json!(behaviour.credentials.describe()),
        );
    }
    fields
}

/// Replaces the fields that `body` names.
fn changed(present: &Behaviour, body: &[u8]) -> anyhow::Result<Behaviour> {
    let changes: Map<String, Value> =
        serde_json::from_slice(body).context("the settings must be a JSON object")?;
    let mut fields = json!(present);
    if let Some(fields) = fields.as_object_mut() {
        fields.extend(changes);
        // GET adds this field. A client may edit the response and PUT it back.
        fields.remove("accepts");
    }
    let behaviour: Behaviour = serde_json::from_value(fields)?;
    behaviour.check()?;
    Ok(behaviour)
}

fn bad_request(error: &anyhow::Error) -> Response {
    let body = Json(json!({ "error": format!("{error:#}") }));
    (StatusCode::BAD_REQUEST, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_fields_stay() {
        let changed = changed(&Behaviour::default(), br#"{"limit": null}"#).unwrap();
        assert_eq!(
            changed,
            Behaviour {
                limit: None,
                ..Behaviour::default()
            }
        );
    }

    #[test]
    fn a_shown_configuration_can_be_put_back_and_has_no_secret() {
        let mut behaviour = Behaviour::default();
        behaviour
            .credentials
            .app_certificates
            .push("hidden".to_owned());
        let shown = without_secrets(&behaviour).to_string();
        assert!(!shown.contains("hidden"), "{shown}");
        assert_eq!(changed(&behaviour, shown.as_bytes()).unwrap(), behaviour);
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error = changed(&Behaviour::default(), br#"{"limits": 1}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("unknown field `limits`"), "{error}");
    }

    #[test]
    fn rules_are_read_as_text_and_as_objects() {
        let rules =
            read_rules(br#"["drop:count=1", {"fault": {"kind": "slow", "ms": 5}, "share": 0.5}]"#)
                .unwrap();
        assert_eq!(rules[0], "drop:count=1".parse().unwrap());
        assert_eq!(rules[1], "slow=5ms:share=0.5".parse().unwrap());
        assert!(read_rules(br#"[{"fault": {"kind": "drop"}, "share": 2}]"#).is_err());
    }
}
