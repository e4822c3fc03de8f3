//! Search for messages, newest first. Every statement is bounded, even in a large outbox.
//!
//! Most filters have no index, because every message would pay for it. So a page reads down the primary key, a window of
//! ids at a time, until the page is full or its time is over. The page then reports how far it has read, and the next page
//! continues there. A few pending messages are found by their own indexes.

mod windows;

use std::time::{Duration, Instant};

use sqlx::{FromRow, PgConnection, query};

use crate::outbox::Outbox;
use crate::outbox::one_off::{value, values};
use crate::pace::DbTime;
use windows::{by_windows, window};

pub(crate) const PAGE_ROWS: usize = 50;
/// A page that takes longer stays incomplete.
const PAGE_TIME: Duration = Duration::from_millis(400);
/// With more pending messages, a page reads down the primary key.
const MAX_PENDING_IDS: usize = 20_000;

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
/// Ids that one statement reads.
const LISTED_IDS: usize = 1_000;
/// Stands for all states of a message that has not ended.
pub(crate) const PENDING: &str = "pending";

/// None in a field matches every message.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct MessageFilter {
    pub(crate) app: Option<String>,
    /// One of [`STATES`], or [`PENDING`].
    pub(crate) state: Option<String>,
    /// Destination or channel.
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
    /// One of [`STATES`].
    pub(crate) state: String,
    pub(crate) attempts: i32,
    pub(crate) http_status: Option<i32>,
    pub(crate) error: Option<String>,
    pub(crate) created_at: DbTime,
    pub(crate) next_attempt_at: Option<DbTime>,
    pub(crate) finished_at: Option<DbTime>,
}

#[derive(Debug)]
pub(crate) struct MessagePage {
    pub(crate) rows: Vec<MessageLine>,
    /// The next page has ids below this. None: this is the last page.
    pub(crate) next_before: Option<i64>,
    /// The highest and the lowest id that an incomplete page has read.
    pub(crate) looked_at: Option<(i64, i64)>,
    pub(crate) now: DbTime,
}

impl MessageFilter {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The fields `rows`, `next_before` and `looked_at` of a page.
type Found = (Vec<MessageLine>, Option<i64>, Option<(i64, i64)>);

impl Outbox {
    /// The database's time.
    pub(crate) async fn viewed_at(&self) -> Result<DbTime, sqlx::Error> {
        self.read(async |session| time_of(session).await).await
    }

    /// The newest messages that match a filter, with ids below `before`.
    pub(crate) async fn search(
        &self,
        filter: &MessageFilter,
        before: Option<i64>,
    ) -> Result<MessagePage, sqlx::Error> {
        self.read(async |session| {
            let deadline = Deadline(Instant::now() + PAGE_TIME);
            let now = time_of(session).await?;
            let (rows, next_before, looked_at) = match pending_ids(session, filter).await? {
                Some(ids) => by_ids(session, filter, ids, before, deadline).await?,
                None => by_windows(session, filter, before, deadline).await?,
            };
            Ok(MessagePage {
                rows,
                next_before,
                looked_at,
                now,
            })
        })
        .await
    }
}

pub(super) async fn time_of(session: &mut PgConnection) -> Result<DbTime, sqlx::Error> {
    value(session, query("select clock_timestamp()")).await
}

/// The end of a page's time. Each page runs at least one statement, so that the next page continues further down.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn is_over(self) -> bool {
        Instant::now() > self.0
    }
}

/// The ids of messages that may be in a pending state. None if there are too many, or the filter names no such state.
async fn pending_ids(
    session: &mut PgConnection,
    filter: &MessageFilter,
) -> Result<Option<Vec<i64>>, sqlx::Error> {
    const FIRST_ATTEMPTS: &str = include_str!("search/first_attempts.sql");
    const RETRIES: &str = include_str!("search/retries.sql");
    let statements = match filter.state.as_deref() {
        Some("queued" | "scheduled") => &[FIRST_ATTEMPTS][..],
        Some("sending" | "retrying") => &[RETRIES],
        Some(PENDING) => &[FIRST_ATTEMPTS, RETRIES],
        _ => return Ok(None),
    };
    let mut ids: Vec<i64> = Vec::new();
    for statement in statements {
        let some = query(*statement)
            .bind(&filter.app)
            .bind(i64::try_from(MAX_PENDING_IDS + 1).unwrap_or(i64::MAX));
        ids.extend(values::<i64>(session, some).await?);
        if ids.len() > MAX_PENDING_IDS {
            return Ok(None);
        }
    }
    Ok(Some(ids))
}

async fn by_ids(
    session: &mut PgConnection,
    filter: &MessageFilter,
    mut ids: Vec<i64>,
    before: Option<i64>,
    deadline: Deadline,
) -> Result<Found, sqlx::Error> {
    ids.retain(|id| before.is_none_or(|before| *id < before));
    ids.sort_unstable_by(|one, other| other.cmp(one));
    let mut rows = Vec::new();
    // The filter may drop some of the ids, so the page reads a list of ids at a time.
    for some in ids.chunks(LISTED_IDS) {
        let (highest, lowest) = (some[0], some[some.len() - 1]);
        let room = PAGE_ROWS + 1 - rows.len();
        rows.extend(window(session, filter, (highest, lowest), Some(some), room).await?);
        if rows.len() > PAGE_ROWS {
            break;
        }
        if deadline.is_over() && ids.last() != Some(&lowest) {
            return Ok((rows, Some(lowest), Some((ids[0], lowest))));
        }
    }
    let next_before = cut(&mut rows);
    Ok((rows, next_before, None))
}

/// Cuts the rows to a page. Returns where the next page begins, if rows are left over.
fn cut(rows: &mut Vec<MessageLine>) -> Option<i64> {
    if rows.len() <= PAGE_ROWS {
        return None;
    }
    rows.truncate(PAGE_ROWS);
    rows.last().map(|row| row.id)
}
