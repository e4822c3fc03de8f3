//! What people look through: messages, newest first, and one message with its calls. Every statement is bounded,
//! however large the outbox is.
//!
//! There is no index for most of what a person may ask for, because every message would pay for it. So a page goes down
//! the primary key, a window of ids at a time, until it is full or has taken long enough; then it says how far it has
//! looked, and the next page goes on there. What is pending has its indexes: as long as that is little, it is found
//! by them.

mod windows;

use std::time::{Duration, Instant};

use sqlx::{FromRow, PgConnection, query};

use crate::outbox::Outbox;
use crate::outbox::one_off::{value, values};
use crate::pace::DbTime;
use windows::{by_windows, window};

pub(crate) const PAGE_ROWS: usize = 50;
/// After so long, a page is shown as far as it has come.
const PAGE_TIME: Duration = Duration::from_millis(400);
/// Pending messages that are found by their indexes; more are looked for by their ids.
const MAX_PENDING_IDS: usize = 20_000;

/// What a message may be on the way to, or have become: the values of `state` in `signaling.delivery`.
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
/// Ids of a list that one statement looks at.
const LISTED_IDS: usize = 1_000;
/// All states of a message that has not ended.
pub(crate) const PENDING: &str = "pending";

/// Which messages to show. A field that is none matches every message.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct MessageFilter {
    pub(crate) app: Option<String>,
    /// One of [`STATES`], or [`PENDING`].
    pub(crate) state: Option<String>,
    /// To this destination or channel.
    pub(crate) receiver: Option<String>,
    pub(crate) sender: Option<String>,
    /// Inserted at this time or later.
    pub(crate) since: Option<DbTime>,
    pub(crate) until: Option<DbTime>,
    /// With this in their error, in capitals or not.
    pub(crate) error_has: Option<String>,
}

/// A message in a list: without its content.
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
    /// When it is called next, if that is known.
    pub(crate) next_attempt_at: Option<DbTime>,
    pub(crate) finished_at: Option<DbTime>,
}

#[derive(Debug)]
pub(crate) struct MessagePage {
    pub(crate) rows: Vec<MessageLine>,
    /// Where the next page begins: it has ids below this. None if there are no more.
    pub(crate) next_before: Option<i64>,
    /// The highest and the lowest id that were looked at, where messages had to be looked for.
    pub(crate) looked_at: Option<(i64, i64)>,
    /// The time by the database's clock.
    pub(crate) now: DbTime,
}

impl MessageFilter {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Rows of a page, where the next one begins, and the highest and the lowest id that were looked at.
type Found = (Vec<MessageLine>, Option<i64>, Option<(i64, i64)>);

impl Outbox {
    /// The time by the database's clock, for those who look on.
    pub(crate) async fn viewed_at(&self) -> Result<DbTime, sqlx::Error> {
        self.read(async |session| time_of(session).await).await
    }

    /// The newest messages that a filter lets through, with ids below `before`.
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

/// When a page has taken long enough. What repeats a statement looks at it after one at least, so that the next page goes
/// on further down.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn is_over(self) -> bool {
        Instant::now() > self.0
    }
}

/// The ids of what may be in a state, if that is a pending one and few are; none if they have to be looked for.
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
    // What is in the index may be in another state: a list of ids at a time, until the page is full.
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

/// Leaves a page of the rows; where the next one begins, if some are left over.
fn cut(rows: &mut Vec<MessageLine>) -> Option<i64> {
    if rows.len() <= PAGE_ROWS {
        return None;
    }
    rows.truncate(PAGE_ROWS);
    rows.last().map(|row| row.id)
}
