//! Search for messages, newest first. Every statement is bounded, even in a large outbox.
//!
//! Most filters have no index, because every message would pay for it. So a page reads a range of ids down the primary key,
//! and the next page continues there. A few pending messages are found by their own indexes.

use sqlx::{FromRow, query};

use crate::outbox::Outbox;
use crate::outbox::one_off::{rows, value};
use crate::pace::DbTime;

pub(crate) const PAGE_ROWS: usize = 50;
/// The most messages that a page reads. With more, a slow disk would exceed the timeout of a read. A page of pending messages
/// uses their own indexes only if fewer messages are pending.
const MAX_READ: i64 = 20_000;

/// The values of `state` in `signaling.delivery`.
pub(crate) const STATES: [&str; 11] = [
    "queued",
    "scheduled",
    "sending",
    "retrying",
    "message_sent",
    "message_delivered",
    "message_offline",
    "failed",
    "expired",
    "cancelled",
    "unknown",
];
/// Matches all four states of a message that is not finished.
pub(crate) const PENDING: &str = "pending";

/// None in a field matches every message.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct MessageFilter {
    pub(crate) app: Option<String>,
    /// One of [`STATES`], or [`PENDING`].
    pub(crate) state: Option<String>,
    pub(crate) recipient: Option<String>,
    pub(crate) sender: Option<String>,
    /// Inserted at this time or later.
    pub(crate) since: Option<DbTime>,
    pub(crate) until: Option<DbTime>,
    /// Part of the error text, in any case.
    pub(crate) error_has: Option<String>,
}

#[derive(Debug, FromRow)]
pub(crate) struct MessageLine {
    pub(crate) id: i64,
    pub(crate) app: String,
    pub(crate) sender: String,
    pub(crate) destination: Option<String>,
    pub(crate) channel_name: Option<String>,
    pub(crate) state: String,
    pub(crate) attempts: i32,
    pub(crate) uncharged: i32,
    pub(crate) http_status: Option<i32>,
    pub(crate) error: Option<String>,
    pub(crate) created_at: DbTime,
    pub(crate) next_attempt_at: Option<DbTime>,
    pub(crate) finished_at: Option<DbTime>,
    pub(crate) now: DbTime,
}

#[derive(Debug)]
pub(crate) struct MessagePage {
    pub(crate) rows: Vec<MessageLine>,
    /// The next page has ids below this one. None on the last page.
    pub(crate) next_before: Option<i64>,
}

impl Outbox {
    pub(crate) async fn viewed_at(&self) -> Result<DbTime, sqlx::Error> {
        let (time,) = self.read_row(query("select clock_timestamp()")).await?;
        Ok(time)
    }

    /// The newest messages that match a filter, with ids below `before`.
    pub(crate) async fn search(
        &self,
        filter: &MessageFilter,
        before: Option<i64>,
    ) -> Result<MessagePage, sqlx::Error> {
        let before = before.unwrap_or(i64::MAX);
        self.read(async |session| {
            let listed: Option<Vec<i64>> = match filter.state.as_deref() {
                Some("queued" | "scheduled" | "sending" | "retrying" | PENDING) => {
                    let pending = query(include_str!("search/pending.sql"));
                    value(session, pending.bind(&filter.app).bind(MAX_READ)).await?
                }
                _ => None,
            };
            let (highest, lowest, mut next_before) = if listed.is_some() {
                (before.saturating_sub(1), i64::MIN, None)
            } else {
                let range = query(include_str!("search/range.sql"))
                    .bind(before)
                    .bind(filter.since)
                    .bind(filter.until)
                    .bind(MAX_READ);
                let range = rows::<(i64, i64, Option<i64>)>(session, range).await?.pop();
                range.ok_or(sqlx::Error::RowNotFound)?
            };
            let window = query(include_str!("search/window.sql"))
                .bind(highest)
                .bind(lowest)
                .bind(&filter.app)
                .bind(&filter.state)
                .bind(&filter.recipient)
                .bind(&filter.sender)
                .bind(filter.since)
                .bind(filter.until)
                .bind(&filter.error_has)
                .bind(i64::try_from(PAGE_ROWS + 1).unwrap_or(i64::MAX))
                .bind(listed);
            let mut rows: Vec<MessageLine> = rows(session, window).await?;
            if rows.len() > PAGE_ROWS {
                rows.truncate(PAGE_ROWS);
                next_before = rows.last().map(|row| row.id);
            }
            Ok(MessagePage { rows, next_before })
        })
        .await
    }
}
