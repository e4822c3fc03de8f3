//! Sign-in for browsers: a form for the token, and a cookie.

use axum::Router;
use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use hyper::header::SET_COOKIE;
use hyper::http::uri::PathAndQuery;
use hyper::{StatusCode, Uri};
use maud::{DOCTYPE, html};
use serde::Deserialize;

use super::policy::LOGIN_PATH;
use super::token::{Access, COOKIE_NAME, WRONG_TOKEN_DELAY, cookie_value, is_token};
use crate::ops::OpsState;

/// A working day. Browsers delete the cookie then. The server accepts the cookie until the token changes.
const COOKIE_MAX_AGE_S: u32 = 12 * 60 * 60;
const MAX_NEXT_BYTES: usize = 1_000;

#[derive(Deserialize)]
struct LoginQuery {
    next: Option<String>,
}

#[derive(Deserialize)]
struct LoginForm {
    token: String,
    next: Option<String>,
}

pub(in crate::ops) fn routes() -> Router<OpsState> {
    Router::new().route(LOGIN_PATH, get(show_form).post(sign_in))
}

/// The login page's URL, which leads back to the wanted page.
pub(super) fn login_url(wanted: &Uri) -> String {
    let next = local_path(wanted.path_and_query().map(PathAndQuery::as_str));
    let mut query = form_urlencoded::Serializer::new(String::new());
    format!("{LOGIN_PATH}?{}", query.append_pair("next", next).finish())
}

/// A path of this server. Browsers take `//` and `/\` for the beginning of another server's name.
fn local_path(next: Option<&str>) -> &str {
    next.filter(|next| {
        next.len() <= MAX_NEXT_BYTES
            && next.starts_with('/')
            && !next[1..].starts_with(['/', '\\'])
            && next.bytes().all(|byte| byte.is_ascii_graphic())
    })
    .unwrap_or("/")
}

async fn show_form(State(state): State<OpsState>, Query(query): Query<LoginQuery>) -> Response {
    match state.access {
        Access::Loopback => Redirect::to("/").into_response(),
        Access::Token(_) => page(StatusCode::OK, "", local_path(query.next.as_deref())),
    }
}

/// Any number of wrong tokens must not lock out the right one. The token's length makes guessing hopeless.
async fn sign_in(State(state): State<OpsState>, Form(form): Form<LoginForm>) -> Response {
    let next = local_path(form.next.as_deref());
    let Access::Token(token) = &state.access else {
        return Redirect::to("/").into_response();
    };
    let Some(token) = token.current() else {
        let why = "The worker has no usable token. See its log.";
        return page(StatusCode::SERVICE_UNAVAILABLE, why, next);
    };
    if !is_token(form.token.trim().as_bytes(), &token) {
        tokio::time::sleep(WRONG_TOKEN_DELAY).await;
        return page(StatusCode::UNAUTHORIZED, "The token is wrong.", next);
    }
    // Not `Secure`, because the server speaks plain HTTP, over which browsers store no such cookie.
    let value = cookie_value(&token);
    let cookie = format!(
        "{COOKIE_NAME}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={COOKIE_MAX_AGE_S}"
    );
    ([(SET_COOKIE, cookie)], Redirect::to(next)).into_response()
}

fn page(status: StatusCode, error: &str, next: &str) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                meta name="color-scheme" content="light dark";
                title { "Sign in · signaling worker" }
                // Without a link, browsers request /favicon.ico, which needs the token.
                link rel="icon" type="image/svg+xml" href="/assets/icon.svg";
            }
            body {
                main {
                    h1 { "Signaling worker" }
                    @if !error.is_empty() { p role="alert" { (error) } }
                    form method="post" action=(LOGIN_PATH) {
                        input type="hidden" name="next" value=(next);
                        // Password managers need a user name.
                        input type="text" autocomplete="username" value="worker" hidden;
                        p { label for="token" { "Token" } " " input #token name="token" type="password" autocomplete="current-password" required autofocus; }
                        p { "The file of WORKER_OPS_TOKEN_FILE contains the token." }
                        p { button { "Sign in" } }
                    }
                }
            }
        }
    };
    (status, page).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_no_other_server() {
        for (next, path) in [
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
            assert_eq!(local_path(next), path, "{next:?}");
        }
        let wanted: Uri = "/messages?a=1&b=2".parse().expect("an address");
        assert_eq!(
            login_url(&wanted),
            "/login?next=%2Fmessages%3Fa%3D1%26b%3D2"
        );
    }
}
