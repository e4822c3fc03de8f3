//! Reads a call, and checks its parameters as strictly as the API's documentation is written.

use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::call::{Call, CallKind};

const MAX_PAYLOAD_BYTES: usize = 32 * 1024;
const MAX_NAME_CHARS: usize = 64;
/// Names of users and channels may also contain letters, digits and inner spaces.
const NAME_SYMBOLS: &str = "!#$%&()+-:;<=.>?@[]^_{}|~,'";

/// The API's refusal of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// Without a reason the response has the usual body of its status.
    pub(super) reason: Option<String>,
    pub(super) retry_after: Option<String>,
}

impl Refusal {
    pub(super) fn of(status: StatusCode) -> Self {
        Self {
            status,
            reason: None,
            retry_after: None,
        }
    }

    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            reason: Some(reason.into()),
            ..Self::of(status)
        }
    }
}

fn bad_request(reason: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, reason)
}

/// The app ID of `/dev/v2/project/{app_id}/rtm/users/{user_id}/…`.
pub(super) fn app_id(path: &str) -> String {
    decoded_segment(path, 4).unwrap_or_default()
}

fn decoded_segment(path: &str, index: usize) -> Option<String> {
    let segment = path.split('/').nth(index)?;
    let text = percent_decode_str(segment).decode_utf8().ok()?;
    Some(text.into_owned())
}

/// Copies the request's fields into `call`, and returns the first error.
///
/// The ledger must know the message of a refused call too, so the API reads everything before it refuses.
pub(super) fn read(call: &mut Call, parts: &Parts, body: &[u8]) -> Result<(), Refusal> {
    let sender = decoded_segment(parts.uri.path(), 7);
    call.sender = sender.clone().unwrap_or_default();
    let wait_for_ack = match call.kind {
        CallKind::Peer => wait_for_ack(parts.uri.query().unwrap_or_default()),
        CallKind::Channel => Ok(false),
    };
    call.wait_for_ack = matches!(wait_for_ack, Ok(true));
    let body = read_body(call, body);

    check_content_type(&parts.headers)?;
    let sender = sender.ok_or_else(|| bad_request("user_id is not UTF-8"))?;
    check_name("user_id", &sender)?;
    wait_for_ack?;
    body
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let is_json = parts.next() == Some("application/json");
    let is_utf8 = parts.all(|parameter| {
        !parameter.starts_with("charset=") || matches!(&parameter[8..], "utf-8" | "\"utf-8\"")
    });
    if is_json && is_utf8 {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "Content-Type must be application/json;charset=utf-8",
    ))
}

fn wait_for_ack(query: &str) -> Result<bool, Refusal> {
    let pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let values: Vec<_> = pairs
        .filter(|(name, _)| *name == "wait_for_ack")
        .map(|(_, value)| value)
        .collect();
    match values[..] {
        [] | ["false"] => Ok(false),
        ["true"] => Ok(true),
        [_] => Err(bad_request("wait_for_ack must be true or false")),
        _ => Err(bad_request("wait_for_ack is given more than once")),
    }
}

fn read_body(call: &mut Call, body: &[u8]) -> Result<(), Refusal> {
    let fields: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| bad_request(format!("the body is not a JSON object: {error}")))?;
    let (target_field, offline) = match call.kind {
        CallKind::Peer => ("destination", flag(&fields, "enable_offline_messaging")),
        CallKind::Channel => ("channel_name", Ok(false)),
    };
    let target = text(&fields, target_field);
    let payload = text(&fields, "payload");
    let owned = |text: &Result<&str, Refusal>| text.as_deref().unwrap_or_default().to_owned();
    call.set_message(owned(&target), owned(&payload));
    let historical = flag(&fields, "enable_historical_messaging");
    call.enable_offline_messaging = matches!(offline, Ok(true));
    call.enable_historical_messaging = matches!(historical, Ok(true));

    check_name(target_field, target?)?;
    check_payload(payload?)?;
    offline.and(historical).map(drop)
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, Refusal> {
    fields
        .get(name)
        .ok_or_else(|| bad_request(format!("{name} is missing")))?
        .as_str()
        .ok_or_else(|| bad_request(format!("{name} must be a string")))
}

fn flag(fields: &Map<String, Value>, name: &str) -> Result<bool, Refusal> {
    match fields.get(name) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(bad_request(format!("{name} must be a boolean"))),
    }
}

fn check_name(field: &str, name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(bad_request(format!("{field} must not be empty")));
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == ' ' || NAME_SYMBOLS.contains(c);
    if let Some(wrong) = name.chars().find(|&c| !is_allowed(c)) {
        let wrong = wrong.escape_default();
        return Err(bad_request(format!("{field} must not contain '{wrong}'")));
    }
    if name.len() > MAX_NAME_CHARS {
        return Err(bad_request(format!(
            "{field} must not exceed {MAX_NAME_CHARS} characters"
        )));
    }
    if name.starts_with(' ') || name.ends_with(' ') {
        return Err(bad_request(format!(
            "{field} must not begin or end with a space"
        )));
    }
    Ok(())
}

fn check_payload(payload: &str) -> Result<(), Refusal> {
    if payload.is_empty() {
        return Err(bad_request("payload must not be empty"));
    }
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(bad_request("payload must not exceed 32 KB"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(result: Result<(), Refusal>) -> String {
        result.unwrap_err().reason.unwrap()
    }

    #[test]
    fn a_name_may_have_64_of_the_listed_characters() {
        assert_eq!(check_name("destination", NAME_SYMBOLS), Ok(()));
        assert_eq!(check_name("destination", "inner space"), Ok(()));
        assert_eq!(check_name("destination", &"x".repeat(64)), Ok(()));
        assert!(check_name("destination", &"x".repeat(65)).is_err());
    }

    #[test]
    fn a_name_outside_the_list_is_refused_with_the_cause() {
        assert_eq!(reason(check_name("x", "")), "x must not be empty");
        assert_eq!(reason(check_name("x", "a/b")), "x must not contain '/'");
        assert_eq!(reason(check_name("x", "ä")), r"x must not contain '\u{e4}'");
        for name in [" a", "a ", " ", "a*", "a\\", "a\"", "`", "a\n"] {
            assert!(check_name("x", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_payload_may_have_32768_bytes() {
        assert_eq!(check_payload(&"x".repeat(32_768)), Ok(()));
        assert!(check_payload(&"x".repeat(32_769)).is_err());
        assert!(check_payload(&"ä".repeat(16_385)).is_err());
        assert!(check_payload("").is_err());
    }

    #[test]
    fn wait_for_ack_is_true_or_false_and_nothing_else() {
        assert_eq!(wait_for_ack(""), Ok(false));
        assert_eq!(wait_for_ack("other=1&wait_for_ack=true"), Ok(true));
        assert_eq!(wait_for_ack("wait_for_ack=false"), Ok(false));
        for query in [
            "wait_for_ack",
            "wait_for_ack=",
            "wait_for_ack=1",
            "wait_for_ack=True",
            "wait_for_ack=true&wait_for_ack=true",
        ] {
            assert!(wait_for_ack(query).is_err(), "{query}");
        }
    }

    #[test]
    fn the_content_type_is_json_in_utf_8() {
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            check_content_type(&headers).is_ok()
        };
        assert!(check("application/json"));
        assert!(check("Application/JSON; charset=UTF-8"));
        assert!(!check("application/json;charset=latin1"));
        assert!(!check("text/plain"));
        assert!(check_content_type(&HeaderMap::new()).is_err());
    }
}
