//! The credentials that the API accepts.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::token;

/// The type has no `Debug`, which would show the secrets.
#[derive(Clone)]
pub enum Credential {
    /// For basic authentication with any sender.
    Key { api_key: String, api_secret: String },
    /// A token that the API accepts without parsing it. With `uid`, only this sender may use the token.
    Token { token: String, uid: Option<String> },
    /// The API accepts 007 tokens that are signed with this certificate, for their app and user.
    Certificate(String),
}

/// Checks the credentials in the headers of a call. Without accepted credentials, the API admits every call. `now_s` is
/// Unix time.
pub(super) fn admit(
    accepted: &[Credential],
    headers: &HeaderMap,
    app_id: &str,
    sender: &str,
    now_s: u64,
) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // The API ignores the `x-agora-token` header of a call with `Authorization`.
    let (pair, token) = match text(header::AUTHORIZATION.as_str()) {
        Some(value) => (
            value
                .strip_prefix("Basic ")
                .and_then(|pair| STANDARD.decode(pair).ok()),
            value.strip_prefix("agora token="),
        ),
        None if text("x-agora-uid") == Some(sender) => (None, text("x-agora-token")),
        None => (None, None),
    };
    let admits = |credential: &Credential| match credential {
        Credential::Key {
            api_key,
            api_secret,
        } => pair.as_deref() == Some(format!("{api_key}:{api_secret}").as_bytes()),
        Credential::Token { token: given, uid } => {
            token == Some(given) && uid.as_ref().is_none_or(|uid| uid == sender)
        }
        Credential::Certificate(certificate) => {
            token.is_some_and(|token| token::admits(token, certificate, app_id, sender, now_s))
        }
    };
    accepted.is_empty() || accepted.iter().any(admits)
}
