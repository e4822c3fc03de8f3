//! Search for messages, newest first. Every statement is bounded, even in a large outbox.
//!
//! Most filters have no index, because every message would pay for it. So a page reads down the primary key, a window of
//! ids at a time, until the page is full or its time is over, and the next page continues there. A few pending messages are
//! found by their own indexes.

use std::time::{Duration, Instant};

use sqlx::{FromRow, PgConnection, query};

use crate::outbox::Outbox;
use crate::outbox::one_off::{rows, value, values};
use crate::pace::DbTime;

pub(crate) const PAGE_ROWS: usize = 50;
/// A page that takes longer stays incomplete.
const PAGE_TIME: Duration = Duration::from_millis(400);
/// Ids that one statement reads: a range, or a list of pending messages. With more pending messages, a page reads down the
/// primary key.
const WINDOW_IDS: i64 = 10_000;
/// A transaction may be open for long before it inserts, so ids are only roughly in the order of `created_at`.
const ID_DISORDER: i64 = 10_000;

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
/// Stands for all states of a message that has not ended.
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
    /// The next page has ids below this. None: this is the last page.
    pub(crate) next_before: Option<i64>,
}

/// The first rows that match, and the id before which an incomplete page continues.
type Found = (Vec<MessageLine>, Option<i64>);

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
            let (mut rows, mut next_before) = match pending_ids(session, filter).await? {
                Some(ids) => {
                    let range = (before.saturating_sub(1), i64::MIN);
                    (window(session, filter, range, Some(&ids)).await?, None)
                }
                None => by_windows(session, filter, before).await?,
            };
            if rows.len() > PAGE_ROWS {
                rows.truncate(PAGE_ROWS);
                next_before = rows.last().map(|row| row.id);
            }
            Ok(MessagePage { rows, next_before })
        })
        .await
    }
}

/// The ids of pending messages. None if there are too many, or the filter names no pending state.
async fn pending_ids(
    session: &mut PgConnection,
    filter: &MessageFilter,
) -> Result<Option<Vec<i64>>, sqlx::Error> {
    let Some("queued" | "scheduled" | "sending" | "retrying" | PENDING) = filter.state.as_deref()
    else {
        return Ok(None);
    };
    let pending = query(include_str!("search/pending.sql"))
        .bind(&filter.app)
        .bind(WINDOW_IDS);
    let ids: Vec<i64> = values(session, pending).await?;
    Ok(i64::try_from(ids.len())
        .is_ok_and(|count| count < WINDOW_IDS)
        .then_some(ids))
}

async fn by_windows(
    session: &mut PgConnection,
    filter: &MessageFilter,
    before: i64,
) -> Result<Found, sqlx::Error> {
    let deadline = Instant::now() + PAGE_TIME;
    let mut rows = Vec::new();
    let Some((mut highest, lowest)) = bounds(session, filter, before).await? else {
        return Ok((rows, None));
    };
    loop {
        let floor = highest.saturating_sub(WINDOW_IDS - 1).max(lowest);
        rows.extend(window(session, filter, (highest, floor), None).await?);
        // One step passes any gap.
        let next = next_id(session, floor).await?;
        let Some(next) = next.filter(|next| *next >= lowest && rows.len() <= PAGE_ROWS) else {
            return Ok((rows, None));
        };
        if Instant::now() > deadline {
            return Ok((rows, Some(floor)));
        }
        highest = next;
    }
}

/// The messages of a range of ids that match the filter, and that are listed if there is a list.
async fn window(
    session: &mut PgConnection,
    filter: &MessageFilter,
    (highest, lowest): (i64, i64),
    listed: Option<&[i64]>,
) -> Result<Vec<MessageLine>, sqlx::Error> {
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
    rows(session, window).await
}

async fn next_id(session: &mut PgConnection, below: i64) -> Result<Option<i64>, sqlx::Error> {
    let next = query("select id from signaling.outbox where id < $1 order by id desc limit 1");
    Ok(values(session, next.bind(below)).await?.pop())
}

/// The highest and the lowest id that can match the filter's times.
async fn bounds(
    session: &mut PgConnection,
    filter: &MessageFilter,
    before: i64,
) -> Result<Option<(i64, i64)>, sqlx::Error> {
    let Some(newest) = next_id(session, before).await? else {
        return Ok(None);
    };
    let mut first_id_since = async |time: DbTime| {
        let search = query(include_str!("search/first_id_since.sql"));
        value::<i64>(session, search.bind(newest).bind(time)).await
    };
    let (mut highest, mut lowest) = (newest, 1);
    if let Some(until) = filter.until {
        highest = highest.min(first_id_since(until).await?.saturating_add(ID_DISORDER));
    }
    if let Some(since) = filter.since {
        lowest = (first_id_since(since).await? - ID_DISORDER).max(1);
    }
    Ok((highest >= lowest).then_some((highest, lowest)))
}
