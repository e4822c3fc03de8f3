//! Signing in with the token, for browsers: a form, and a cookie that stands for the token.

use axum::Router;
use axum::extract::{Form, Query, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use hyper::header::SET_COOKIE;
use hyper::{StatusCode, Uri};
use serde::Deserialize;

use super::policy::LOGIN_PATH;
use super::token::{Access, COOKIE_NAME, WRONG_TOKEN_DELAY, cookie_value, is_token};
use crate::ops::OpsState;

/// Without an icon of the page's own, browsers look for one where the token is needed.
const ICON_PATH: &str = "/assets/icon.svg";
/// How long a browser keeps the cookie: a working day. After that it is asked for the token again. The cookie itself
/// says nothing of time: who has copied one gets in until there is another token in the file.
const SIGNED_IN_FOR_S: u32 = 12 * 60 * 60;
/// The longest address to come back to, in bytes.
const MAX_NEXT_BYTES: usize = 1_000;
#[derive(Deserialize)]
struct Back {
    next: Option<String>,
}

#[derive(Deserialize)]
struct Given {
    token: String,
    next: Option<String>,
}

/// The form, what it sends, and the way out.
pub(in crate::ops) fn routes() -> Router<OpsState> {
    Router::new()
        .route(LOGIN_PATH, get(form).post(sign_in))
        .route("/logout", post(sign_out))
}

/// The form's address for somebody who wanted to see this one.
pub(in crate::ops) fn address(wanted: &Uri) -> String {
    let wanted = wanted
        .path_and_query()
        .map_or("/", |wanted| wanted.as_str());
    let next = way_back(Some(wanted));
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("next", next)
        .finish();
    format!("{LOGIN_PATH}?{query}")
}

/// An address of this server, and of no other: browsers take `//` and `/\` for the beginning of another's name.
fn way_back(next: Option<&str>) -> &str {
    next.filter(|next| {
        next.len() <= MAX_NEXT_BYTES
            && next.starts_with('/')
            && !next[1..].starts_with(['/', '\\'])
            && next.bytes().all(|byte| byte.is_ascii_graphic())
    })
    .unwrap_or("/")
}

async fn form(State(state): State<OpsState>, Query(back): Query<Back>) -> Response {
    match state.access {
        Access::Loopback => Redirect::to("/").into_response(),
        Access::Token(_) => page(StatusCode::OK, None, way_back(back.next.as_deref())),
    }
}

/// A right token is taken whatever others have tried. That it can't be guessed is due to its length: that wrong ones
/// are answered later only makes guessing dearer.
async fn sign_in(State(state): State<OpsState>, Form(given): Form<Given>) -> Response {
    let next = way_back(given.next.as_deref());
    let Access::Token(token) = &state.access else {
        return Redirect::to("/").into_response();
    };
    let Some(token) = token.current() else {
        let why = "The worker has no token that can be used: its log says why.";
        return page(StatusCode::SERVICE_UNAVAILABLE, Some(why), next);
    };
    if !is_token(given.token.trim().as_bytes(), &token) {
        tokio::time::sleep(WRONG_TOKEN_DELAY).await;
        return page(
            StatusCode::UNAUTHORIZED,
            Some("That is not the token."),
            next,
        );
    }
    // Not `Secure`: the server itself speaks plain HTTP, over which browsers keep no such cookie, and the header by
    // which a proxy would say that it speaks HTTPS to them can be sent by anybody.
    let cookie = format!(
        "{COOKIE_NAME}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={SIGNED_IN_FOR_S}",
        cookie_value(&token)
    );
    ([(SET_COOKIE, cookie)], Redirect::to(next)).into_response()
}

async fn sign_out() -> Response {
    let cookie = format!("{COOKIE_NAME}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    ([(SET_COOKIE, cookie)], Redirect::to(LOGIN_PATH)).into_response()
}

/// The form. Browsers that keep passwords want a name for each, if only a hidden one. `why` and `next` have been
/// checked: they need no escaping but that of an ampersand or a quote.
fn page(status: StatusCode, why: Option<&str>, next: &str) -> Response {
    let why = why
        .map(|why| format!("<p role=\"alert\">{why}</p>\n"))
        .unwrap_or_default();
    let next = escape(next);
    let page = format!(
        "<!doctype html>
<html lang=\"en\">
<head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\"><title>Sign in · signaling worker</title><link rel=\"icon\" type=\"image/svg+xml\" href=\"{ICON_PATH}\"></head>
<body><main>
<h1>Signaling worker</h1>
{why}<form method=\"post\" action=\"{LOGIN_PATH}\">
<input type=\"hidden\" name=\"next\" value=\"{next}\">
<input type=\"text\" autocomplete=\"username\" value=\"worker\" hidden>
<p><label for=\"token\">Token</label> <input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"current-password\" required autofocus></p>
<p>It stands in the file that WORKER_OPS_TOKEN_FILE names.</p>
<p><button>Sign in</button></p>
</form>
</main></body>
</html>
"
    );
    (status, Html(page)).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_leads_to_no_other_server() {
        for (next, back) in [
            (
                Some("/messages?app=default&status=failed"),
                "/messages?app=default&status=failed",
            ),
            (Some("/"), "/"),
            (Some("//evil.example"), "/"),
            (Some("/\\evil.example"), "/"),
            (Some("https://evil.example"), "/"),
            (Some("evil"), "/"),
            (Some("/a\nb"), "/"),
            (Some(""), "/"),
            (None, "/"),
        ] {
            assert_eq!(way_back(next), back, "{next:?}");
        }
        let wanted: Uri = "/messages?a=1&b=2".parse().expect("an address");
        assert_eq!(address(&wanted), "/login?next=%2Fmessages%3Fa%3D1%26b%3D2");
    }
}
