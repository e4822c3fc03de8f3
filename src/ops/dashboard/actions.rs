//! The operator's actions. A page has a button for each, which opens a form that says what will happen. The POST of the form
//! acts, and redirects to a page that shows the change.

use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::PageError;
use super::messages::given;
use super::{OpsState, outbox};
use crate::outbox::{ADMIN_TIMEOUT, Outbox, RetryFilter};

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

/// The fields of all forms. Each action reads its own.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    app: String,
    reason: String,
    limit: String,
    id: Option<i64>,
}

pub(super) async fn act(
    State(state): State<OpsState>,
    Path(action): Path<String>,
    Form(fields): Form<Fields>,
) -> Result<Redirect, PageError> {
    let not_yet = |PageError(_, why)| PageError(StatusCode::CONFLICT, why);
    let outbox = outbox(&state).map_err(not_yet)?;
    let changed = change(outbox, &action, &fields).await;
    // Also after an error, because the change may have taken effect.
    state.overview.forget().await;
    changed?;
    let message = fields.id.map(|id| format!("/messages/{id}"));
    Ok(Redirect::to(message.as_deref().unwrap_or("/")))
}

async fn change(outbox: &Outbox, action: &str, fields: &Fields) -> Result<(), PageError> {
    let refused = |error: &str| PageError(StatusCode::BAD_REQUEST, error.into());
    let id = fields.id.ok_or_else(|| {
        refused("the form names no message: open the message's page, and try again")
    });
    let app = &fields.app;
    let is_changed = match action {
        "pause" => {
            let reason = given(&fields.reason);
            outbox.pause(app, reason.as_deref(), BY).await.map(|_| true)
        }
        "resume" => outbox.resume(app).await.map(|_| true),
        "limit" => {
            let error = "a limit is a number of calls per second, as in 500";
            // An empty field stands for the configured limit.
            let limit = given(&fields.limit).map(|limit| limit.parse()).transpose();
            let limit = limit.map_err(|_| refused(error))?;
            outbox.set_limit(app, limit, BY).await.map(|_| true)
        }
        "cancel" => outbox.cancel(id?).await,
        "retry" => {
            let filter = RetryFilter {
                statuses: RETRYABLE.map(str::to_owned).into(),
                ids: Some(vec![id?]),
                ..RetryFilter::default()
            };
            let retry = outbox.retry(&filter, false, None, ADMIN_TIMEOUT);
            retry.await.map(|by_app| !by_app.is_empty())
        }
        _ => {
            let error = format!("there is no action {action}");
            return Err(PageError(StatusCode::NOT_FOUND, error));
        }
    };
    if is_changed? {
        return Ok(());
    }
    let why = match action {
        "cancel" => "it has ended, was deleted, or a worker is sending it now",
        _ => {
            "it is pending, was deleted, the API has accepted it, or another session has locked it"
        }
    };
    let error = format!("the message is unchanged, because {why}: look at its page again");
    Err(PageError(StatusCode::CONFLICT, error))
}
