//! Claims about any input from outside. Each fuzz target is a function that panics if its claim is false.
//! The tests run the same functions for a short time.

#[cfg(test)]
mod tests;

use crate::config::parse_apps;
use crate::outcome::{classify, describe};
use crate::signaling::response::{MAX_REASON_CHARS, MAX_REQUEST_ID_CHARS};
use crate::signaling::{EchoFilter, Response, ResponseBody};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// Stands for a secret or a payload in the seeds. No error may quote it.
const HUSH: &str = "Hush7Zq9Hush";
/// The payload of the request.
const PAYLOAD: &str = "Hush7Zq9Hush is what nobody says back, 0123456789";
const MAX_ERROR_BYTES: usize = 4_000;

/// A response: the status, header lines, an empty line and the body.
pub fn answer(data: &[u8]) {
    let (status, headers, body) = split_response(data);
    let echo_filter = EchoFilter {
        payload: PAYLOAD.to_owned().into(),
        secrets: vec![HUSH.into()],
    };
    let response = Response::read(status, &headers, Ok(body), &echo_filter);

    assert_eq!(response.status, status);
    if let Some(id) = &response.request_id {
        assert_kept(id, MAX_REQUEST_ID_CHARS);
        assert!(!id.is_empty());
    }
    let is_object = if let ResponseBody::Object {
        result,
        code,
        reason,
    } = &response.body
    {
        for text in [result, code, reason].into_iter().flatten() {
            assert_kept(text, MAX_REASON_CHARS);
        }
        true
    } else {
        false
    };
    let call = Ok(response);
    if classify(&call).is_accepted() {
        assert!(status == 200 && is_object, "{call:?}");
    }
    assert_redacted(&describe(&call));
}

/// A configuration: an error, or apps that are each coherent or an error.
pub fn config_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let apps = match parse_apps(text) {
        Ok(apps) => apps,
        Err(error) => return assert_redacted(&error),
    };
    for (alias, mut app) in apps {
        // The content of a secret's file is no input of this target, and a path may name any file.
        app.api_key_file = None;
        app.api_secret_file = None;
        app.token_file = None;
        app.app_certificate_file = None;
        // Errors show names, because names are no secrets.
        let without_hush = |name: String| name.replace(HUSH, "-");
        let alias = without_hush(alias);
        app.app_id = app.app_id.map(without_hush);
        app.uid = app.uid.map(without_hush);
        match app.check(&alias) {
            Ok(app) => {
                assert_eq!(app.alias, alias);
                assert!((1..=64).contains(&app.alias.len()));
                assert!((1..=128).contains(&app.app_id.len()));
                assert!((1.0..=1_000_000.0).contains(&app.limit_per_s));
                assert!((1..=100_000).contains(&app.max_in_flight));
                assert!(!app.base_urls.is_empty());
                assert!(!format!("{:?}", app.credentials).contains(HUSH));
            }
            Err(error) => assert_redacted(&error.to_string()),
        }
    }
}

/// A text of a response that the worker keeps: bounded, in one line, and no piece of the request.
fn assert_kept(text: &str, max_chars: usize) {
    assert!(text.chars().count() <= max_chars, "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
    // Any 32 bytes of this payload have at least 16 letters and digits, also if an escape before them hides some.
    let repeats = text
        .as_bytes()
        .windows(32)
        .any(|seen| PAYLOAD.as_bytes().windows(32).any(|hidden| hidden == seen));
    assert!(!repeats && !text.contains(HUSH), "{text}");
}

/// An error for people: bounded, in one line, without a value.
fn assert_redacted(error: &str) {
    assert!(error.len() <= MAX_ERROR_BYTES, "{error}");
    assert!(!error.contains(char::is_control), "{error:?}");
    assert!(!error.contains(HUSH), "{error}");
}

fn split_response(data: &[u8]) -> (u16, HeaderMap, &[u8]) {
    let end = data.windows(2).position(|window| window == b"\n\n");
    let (head, body) = end.map_or((data, &[][..]), |end| (&data[..end], &data[end + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = lines
        .next()
        .and_then(|line| std::str::from_utf8(line).ok()?.parse().ok())
        .unwrap_or(200);
    let headers = lines
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
            Some((name, value))
        })
        .collect();
    (status, headers, body)
}
