//! Reads a call, and checks its parameters as strictly as the API's documentation is written.

use axum::RequestPartsExt as _;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Path, Query, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::ledger::{Call, CallKind};

const MAX_PAYLOAD_BYTES: usize = 32 * 1024;
const MAX_NAME_CHARS: usize = 64;
/// Names of users and channels may also contain letters, digits and inner spaces.
const NAME_SYMBOLS: &str = "!#$%&()+-:;<=.>?@[]^_{}|~,'";

/// The API's refusal of a call. Without a reason the response has the usual body of its status.
pub(super) type Refusal = (StatusCode, Option<String>);

fn refuse(status: StatusCode, reason: impl Into<String>) -> Refusal {
    (status, Some(reason.into()))
}

fn bad_request(reason: impl Into<String>) -> Refusal {
    refuse(StatusCode::BAD_REQUEST, reason)
}

#[derive(Deserialize)]
struct Options {
    #[serde(default)]
    wait_for_ack: bool,
}

#[derive(Deserialize)]
struct Message {
    destination: Option<String>,
    channel_name: Option<String>,
    payload: String,
    #[serde(default)]
    enable_offline_messaging: bool,
    #[serde(default)]
    enable_historical_messaging: bool,
}

/// Copies the request's fields into `call`. Returns the headers, and the first mistake in the request.
///
/// The ledger must know the message of a refused call too, so the API reads everything before it refuses.
pub(super) async fn read(call: &mut Call, request: Request) -> (HeaderMap, Result<(), Refusal>) {
    let (mut parts, body) = request.into_parts();
    let path = parts.extract::<Path<(String, String)>>().await;
    let options = Query::<Options>::try_from_uri(&parts.uri);
    let body = Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await;

    let path = path.map(|Path((app_id, sender))| (call.app_id, call.sender) = (app_id, sender));
    let options = options.map(|Query(options)| {
        call.wait_for_ack = options.wait_for_ack && call.kind == CallKind::Peer;
    });
    let message = body
        .map_err(|error| refuse(error.status(), error.body_text()))
        .and_then(|body| read_message(call, &body));
    let check = || {
        check_content_type(&parts.headers)?;
        path.map_err(|_| bad_request("user_id is not UTF-8"))?;
        check_name("user_id", &call.sender)?;
        options.map_err(|error| bad_request(error.body_text()))?;
        message
    };
    let checked = check();
    (parts.headers, checked)
}

fn read_message(call: &mut Call, body: &[u8]) -> Result<(), Refusal> {
    let message: Message = serde_json::from_slice(body)
        .map_err(|error| bad_request(format!("the body is not a message: {error}")))?;
    let (target_field, target) = match call.kind {
        CallKind::Peer => ("destination", message.destination),
        CallKind::Channel => ("channel_name", message.channel_name),
    };
    call.target = target.ok_or_else(|| bad_request(format!("{target_field} is missing")))?;
    call.enable_offline_messaging = message.enable_offline_messaging && call.kind == CallKind::Peer;
    call.enable_historical_messaging = message.enable_historical_messaging;
    let payload_bytes = message.payload.len();
    call.set_payload(message.payload);

    check_name(target_field, &call.target)?;
    match payload_bytes {
        0 => Err(bad_request("payload must not be empty")),
        1..=MAX_PAYLOAD_BYTES => Ok(()),
        _ => Err(bad_request("payload must not exceed 32 KB")),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers.get(header::CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    let text = text.to_ascii_lowercase().replace(' ', "");
    if matches!(
        &*text,
        "application/json" | "application/json;charset=utf-8"
    ) {
        return Ok(());
    }
    Err(refuse(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "Content-Type must be application/json;charset=utf-8",
    ))
}

fn check_name(field: &str, name: &str) -> Result<(), Refusal> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == ' ' || NAME_SYMBOLS.contains(c);
    let wrong = name.chars().find(|&c| !is_allowed(c));
    let rule = match wrong {
        _ if name.is_empty() => "must not be empty".to_owned(),
        Some(wrong) => format!("must not contain '{}'", wrong.escape_default()),
        None if name.len() > MAX_NAME_CHARS => {
            format!("must not exceed {MAX_NAME_CHARS} characters")
        }
        None if name.trim() != name => "must not begin or end with a space".to_owned(),
        None => return Ok(()),
    };
    Err(bad_request(format!("{field} {rule}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_64_of_the_listed_characters() {
        let longest = "x".repeat(64);
        for name in [NAME_SYMBOLS, "inner space", &longest] {
            assert_eq!(check_name("destination", name), Ok(()));
        }
        assert!(check_name("destination", &"x".repeat(65)).is_err());
    }

    #[test]
    fn a_name_outside_the_list_is_refused_with_the_cause() {
        let reason = |name| check_name("x", name).unwrap_err().1.unwrap();
        assert_eq!(reason(""), "x must not be empty");
        assert_eq!(reason("a/b"), "x must not contain '/'");
        assert_eq!(reason("ä"), r"x must not contain '\u{e4}'");
        for name in [" a", "a ", " ", "a*", "a\\", "a\"", "`", "a\n"] {
            assert!(check_name("x", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_content_type_is_json_in_utf_8() {
        let check = |value: &str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]);
            check_content_type(&headers).is_ok()
        };
        assert!(check("application/json"));
        assert!(check("Application/JSON; charset=UTF-8"));
        assert!(!check("application/json;charset=latin1"));
        assert!(!check("text/plain"));
        assert!(check_content_type(&HeaderMap::new()).is_err());
    }
}
