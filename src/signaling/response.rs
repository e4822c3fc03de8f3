//! The response of a call as it came. [`crate::outcome`] decides what a response means.

use std::time::{Duration, SystemTime};

use hyper::header::{DATE, HeaderMap, RETRY_AFTER};
use serde_json::{Map, Value};

use super::EchoFilter;
use crate::sanitize;

/// The documented bodies have some hundred bytes.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;
pub(crate) const MAX_REQUEST_ID_CHARS: usize = 128;
pub(crate) const MAX_REASON_CHARS: usize = 300;
/// The echo filter reads this much more text than the worker keeps. Otherwise it would miss a piece of the payload that the
/// limit cuts short.
const LOOKAHEAD_CHARS: usize = 128;
/// JSON forbids a byte order mark, and some gateways and servers write one.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// Replaces a text that may repeat the request.
const NOT_KEPT: &str = "(not kept: it may repeat the message or the credentials)";
/// Results and codes of the API's documentation. The worker keeps them even if the payload is the same word, because they
/// decide the outcome and reveal nothing.
const VOCABULARY: [&str; 6] = [
    "success",
    "failed",
    "message_sent",
    "message_delivered",
    "message_offline",
    "peer_offline",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    /// The API's ID of the call, from the body or from the header `X-Request-ID`.
    pub(crate) request_id: Option<String>,
    pub(crate) body: ResponseBody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ResponseBody {
    /// Each field may be missing, and be a string or a number.
    Object {
        /// `success` or `failed`.
        result: Option<String>,
        /// `message_sent`, `message_delivered`, `message_offline` and others.
        code: Option<String>,
        /// The reason of a failure, in the API's words.
        reason: Option<String>,
    },
    /// The reason why the body can't be read. The bytes are not kept, because they might repeat the payload.
    Unreadable(&'static str),
}

impl Response {
    /// Reads a response. `body` is an error if the body did not come completely. A text that may repeat the payload or a
    /// secret is not kept.
    pub(crate) fn read(
        status: u16,
        headers: &HeaderMap,
        body: Result<&[u8], &'static str>,
        echo_filter: &EchoFilter,
    ) -> Self {
        let header = |name: &str| headers.get(name)?.to_str().ok();
        let kept_id = |id: &str| {
            let id = sanitize::text(id, MAX_REQUEST_ID_CHARS + LOOKAHEAD_CHARS);
            let is_kept = echo_filter.allows_id(&id) && !id.is_empty();
            is_kept.then(|| sanitize::text(&id, MAX_REQUEST_ID_CHARS))
        };
        let object = body.and_then(read_object);
        let id_in_body = object
            .as_ref()
            .ok()
            .and_then(|object| kept_id(&text_of(object, &["request_id", "requestId"])?));
        Self {
            status,
            retry_after: header(RETRY_AFTER.as_str())
                .and_then(|value| parse_retry_after(value.trim(), header(DATE.as_str()))),
            request_id: id_in_body.or_else(|| kept_id(header("x-request-id")?)),
            body: match object {
                Ok(object) => read_texts(&object, echo_filter),
                Err(why) => ResponseBody::Unreadable(why),
            },
        }
    }
}

/// Reads seconds or an HTTP date (RFC 9110, section 10.2.3). A date is compared with the response's own `Date`, because the
/// clock of this host may differ.
fn parse_retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    #[expect(
        clippy::disallowed_methods,
        reason = "an HTTP date has nothing to do with the database's clock"
    )]
    let now = date
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .unwrap_or_else(SystemTime::now);
    Some(at.duration_since(now).unwrap_or_default())
}

fn read_object(bytes: &[u8]) -> Result<Map<String, Value>, &'static str> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    if bytes.is_empty() {
        return Err("it has no body");
    }
    serde_json::from_slice(bytes).map_err(|_| "its body is not a JSON object")
}

fn read_texts(object: &Map<String, Value>, echo_filter: &EchoFilter) -> ResponseBody {
    let kept = |names: &[&str]| {
        let text = text_of(object, names)?;
        if VOCABULARY.contains(&text.as_str()) {
            return Some(text);
        }
        Some(if echo_filter.allows_reason(&text) {
            sanitize::text(&text, MAX_REASON_CHARS)
        } else {
            NOT_KEPT.into()
        })
    };
    ResponseBody::Object {
        result: kept(&["result"]),
        code: kept(&["code", "errorCode"]),
        reason: kept(&["reason", "message"]),
    }
}

/// The first field of these names that is a string or a number, as text.
fn text_of(object: &Map<String, Value>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| match object.get(*name)? {
        Value::String(text) => Some(sanitize::text(text, MAX_REASON_CHARS + LOOKAHEAD_CHARS)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallFailure {
    /// No byte of the request went out.
    #[error("the API could not be reached: {0}")]
    NotSent(String),
    /// No response came in time. The request may have gone out.
    #[error("no response within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The request went out, or part of it, and the connection broke.
    #[error("the connection broke before a response came: {0}")]
    Broken(String),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Payload;

    fn read(body: &str) -> Response {
        Response::read(
            200,
            &HeaderMap::new(),
            Ok(body.as_bytes()),
            &EchoFilter::default(),
        )
    }

    #[test]
    fn fields_are_read_as_strings_or_numbers_under_each_of_their_names() {
        let response = read(r#"{"errorCode":500,"error":true,"reason":"it broke","requestId":17}"#);
        assert_eq!(response.request_id.as_deref(), Some("17"));
        assert_eq!(
            response.body,
            ResponseBody::Object {
                result: None,
                code: Some("500".into()),
                reason: Some("it broke".into())
            }
        );
    }

    #[test]
    fn a_byte_order_mark_makes_no_body_unreadable() {
        let body = r#"{"result":"success","request_id":"17","code":"message_offline"}"#;
        assert_eq!(read(&format!("\u{feff}{body}")), read(body));
        assert_eq!(read("\u{feff}"), read(""));
    }

    #[test]
    fn text_from_outside_is_bounded_and_has_no_control_characters() {
        let reason = format!("\\u0000{}", "word ".repeat(200));
        let ResponseBody::Object {
            reason: Some(reason),
            ..
        } = read(&format!(r#"{{"reason":"{reason}"}}"#)).body
        else {
            panic!("an object with a reason");
        };
        assert_eq!(reason, "word ".repeat(MAX_REASON_CHARS / 5));
    }

    #[test]
    fn a_text_that_repeats_the_request_is_not_kept_and_the_rest_is() {
        let echo_filter = EchoFilter {
            payload: Payload::from("meet me at the old bridge at nine".to_owned()),
            secrets: vec!["tiger-tiger-tiger".to_owned().into()],
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-request-id",
            "tiger-tiger-tiger".parse().expect("a value"),
        );
        let read = |body: &str| Response::read(400, &headers, Ok(body.as_bytes()), &echo_filter);

        let response = read(
            r#"{"result":"failed","code":"tiger-tiger","reason":"can't send \"me at the old bridge\"","requestId":17}"#,
        );
        assert_eq!(response.request_id.as_deref(), Some("17"));
        let expected = ResponseBody::Object {
            result: Some("failed".into()),
            code: Some(NOT_KEPT.into()),
            reason: Some(NOT_KEPT.into()),
        };
        assert_eq!(response.body, expected);
        assert_eq!(read("{}").request_id, None);

        // The limit cuts the piece, and the rest of the piece is still an echo.
        let reason = format!("{}me at the old bridge", " ".repeat(MAX_REASON_CHARS - 4));
        let body = read(&format!(r#"{{"reason":"{reason}"}}"#)).body;
        assert!(
            matches!(body, ResponseBody::Object { reason: Some(reason), .. } if reason == NOT_KEPT)
        );
    }

    #[test]
    fn a_payload_that_is_a_word_of_the_api_changes_no_meaning() {
        let echo_filter = EchoFilter {
            payload: Payload::from("message_sent".to_owned()),
            secrets: Vec::new(),
        };
        let body = br#"{"result":"success","code":"message_sent"}"#;
        let response = Response::read(200, &HeaderMap::new(), Ok(body), &echo_filter);
        assert!(
            matches!(response.body, ResponseBody::Object { code: Some(code), .. } if code == "message_sent")
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_on_the_apis_clock() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (value, expected) in [
            ("7", Some(7)),
            ("", None),
            ("-1", None),
            ("soon", None),
            ("Sun, 06 Nov 1994 08:49:57 GMT", Some(20)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
        ] {
            let expected = expected.map(Duration::from_secs);
            assert_eq!(parse_retry_after(value, date), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(status: u16, body: Vec<u8>, retry_after in "\\PC*") {
            let mut headers = HeaderMap::new();
            if let Ok(value) = retry_after.parse() {
                headers.insert(RETRY_AFTER, value);
            }
            Response::read(status, &headers, Ok(&body), &EchoFilter::default());
        }
    }
}
