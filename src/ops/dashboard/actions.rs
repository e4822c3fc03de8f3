//! The operator's actions. A page has a button for each, which opens a form that says what will happen. The POST of the form
//! acts, and redirects to a page with a notice.

use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;

use super::failures::SPAN;
use super::layout::PageError;
use super::messages::given;
use super::{OpsState, outbox};
use crate::outbox::{AdminError, FailureKey, RetryFilter};

/// Written to the lane as the operator's name.
const BY: &str = "dashboard";
/// Final statuses of messages that an operator can send again.
pub(super) const RETRYABLE: [&str; 4] = ["failed", "expired", "cancelled", "unknown"];

/// A button, and the form that it opens. `name` distinguishes the button from equal ones on the page.
pub(super) fn button(
    action: &str,
    verb: &str,
    name: &str,
    target: &[(&str, &str)],
    consequence: &Markup,
) -> Markup {
    let id = format!("{action}-{name}").replace(' ', "-");
    html! {
        button type="button" popovertarget=(id) { (verb) "…" span.unseen { " " (name) } }
        form.panel.question #(id) popover method="post" action=(format!("/actions/{action}")) {
            h2 { (verb) " " (name) "?" }
            (consequence)
            @for (name, value) in target { input type="hidden" name=(name) value=(value); }
            div.buttons {
                button.primary type="submit" { (verb) }
                button type="button" popovertarget=(id) { "Do nothing" }
            }
        }
    }
}

#[derive(Deserialize)]
pub(super) struct AppForm {
    app: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    limit: String,
}

pub(super) async fn pause(
    State(state): State<OpsState>,
    Form(form): Form<AppForm>,
) -> Result<Redirect, PageError> {
    let reason = given(&form.reason);
    let paused = outbox(&state)?.pause(&form.app, reason.as_deref(), BY);
    paused.await?;
    redirect(&state, "/?done=paused").await
}

pub(super) async fn resume(
    State(state): State<OpsState>,
    Form(form): Form<AppForm>,
) -> Result<Redirect, PageError> {
    outbox(&state)?.resume(&form.app).await?;
    redirect(&state, "/?done=resumed").await
}

/// An empty field stands for the configured limit.
pub(super) async fn limit(
    State(state): State<OpsState>,
    Form(form): Form<AppForm>,
) -> Result<Redirect, PageError> {
    let error = "a limit is a number of calls per second, as in 500";
    let limit = given(&form.limit).map(|limit| limit.parse()).transpose();
    let limit = limit.map_err(|_| PageError(StatusCode::BAD_REQUEST, error.into()))?;
    outbox(&state)?.set_limit(&form.app, limit, BY).await?;
    redirect(&state, "/?done=limited").await
}

#[derive(Deserialize)]
pub(super) struct Message {
    id: i64,
}

pub(super) async fn cancel(
    State(state): State<OpsState>,
    Form(Message { id }): Form<Message>,
) -> Result<Redirect, PageError> {
    let is_cancelled = outbox(&state)?.cancel(id).await?;
    let not = if is_cancelled { "" } else { "not-" };
    redirect(&state, &format!("/messages/{id}?done={not}cancelled")).await
}

pub(super) async fn retry(
    State(state): State<OpsState>,
    Form(Message { id }): Form<Message>,
) -> Result<Redirect, PageError> {
    let filter = RetryFilter {
        statuses: RETRYABLE.map(str::to_owned).into(),
        ..RetryFilter::default()
    };
    let messages = outbox(&state)?.retry_listed(&[id], &filter).await?;
    redirect(&state, &format!("/messages/{id}?done=retried&n={messages}")).await
}

pub(super) async fn retry_group(
    State(state): State<OpsState>,
    Form(key): Form<FailureKey>,
) -> Result<Redirect, PageError> {
    let outbox = outbox(&state)?;
    let ids = outbox.failed_messages(&key, SPAN).await;
    let ids = ids.map_err(AdminError::Database)?;
    let filter = RetryFilter {
        app: Some(key.app),
        statuses: vec!["failed".into()],
        http_statuses: key.http_status.into_iter().collect(),
        ..RetryFilter::default()
    };
    let messages = outbox.retry_listed(&ids, &filter).await?;
    redirect(&state, &format!("/failures?done=retried&n={messages}")).await
}

/// To the page after an action, which has to show the change.
async fn redirect(state: &OpsState, path: &str) -> Result<Redirect, PageError> {
    state.fleet.forget().await;
    Ok(Redirect::to(path))
}
