//! What people look through: messages, newest first, and one message with its calls. Every statement is bounded, however
//! large the outbox is.
//!
//! There is no index for most of what a person may ask for, because every message would pay for it. So a page goes down
//! the primary key, a window of ids at a time, until it is full or has taken long enough; then it says how far it has
//! looked, and the next page goes on there. What is pending has its indexes: as long as that is little, it is found by them.

mod one;

use std::time::{Duration, Instant};

use sqlx::FromRow;
use time::OffsetDateTime;

use super::Outbox;
use super::line::Session;
pub use one::{CallLine, MessageView};

/// Messages on a page.
pub const PAGE_ROWS: usize = 50;
/// Ids that one statement looks at.
const WINDOW_IDS: i64 = 10_000;
/// Ids that a page looks at, at most.
const MAX_PAGE_IDS: i64 = 1_000_000;
/// After so long, a page is shown as far as it has come.
const PAGE_TIME: Duration = Duration::from_millis(400);
/// Pending messages that are found by their indexes; more are looked for by their ids.
const MAX_PENDING_IDS: i64 = 20_000;
/// Ids are in the order of creation but for this many: a transaction may be open for long before it inserts.
const ID_DISORDER: i64 = 10_000;

/// What a message may be on the way to, or have become: the values of `state` in `signaling.delivery`.
pub const STATES: [&str; 11] = [
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
/// All states of a message that has not ended.
pub const PENDING: &str = "pending";

/// Which messages to show. What is none asks for nothing.
#[derive(Debug, Default, Clone)]
pub struct MessageFilter {
    /// Of this app.
    pub app: Option<String>,
    /// One of [`STATES`], or [`PENDING`].
    pub state: Option<String>,
    /// To this destination or channel.
    pub receiver: Option<String>,
    /// From this sender.
    pub sender: Option<String>,
    /// Inserted at this time or later.
    pub since: Option<OffsetDateTime>,
    /// Inserted before this time.
    pub until: Option<OffsetDateTime>,
    /// With this in their error, in capitals or not.
    pub error_has: Option<String>,
}

/// A message in a list: without its content.
#[derive(Debug, FromRow)]
pub struct MessageLine {
    /// Its id.
    pub id: i64,
    /// Its app.
    pub app: String,
    /// Who it is from.
    pub sender: String,
    /// Whom a peer message is for.
    pub destination: Option<String>,
    /// Where a channel message goes.
    pub channel_name: Option<String>,
    /// One of [`STATES`].
    pub state: String,
    /// Calls that were made.
    pub attempts: i32,
    /// The HTTP status of the last call.
    pub http_status: Option<i32>,
    /// What went wrong.
    pub error: Option<String>,
    /// When it was inserted.
    pub created_at: OffsetDateTime,
    /// When it is called next, if that is known.
    pub next_attempt_at: Option<OffsetDateTime>,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
}

/// A page of messages.
#[derive(Debug)]
pub struct MessagePage {
    /// The messages, newest first.
    pub rows: Vec<MessageLine>,
    /// Where the next page begins: it has ids below this. None if there are no more.
    pub next_before: Option<i64>,
    /// The highest and the lowest id that were looked at, where messages had to be looked for.
    pub looked_at: Option<(i64, i64)>,
    /// The time by the database's clock.
    pub now: OffsetDateTime,
}

impl MessageFilter {
    /// Whether every message will do.
    pub fn is_empty(&self) -> bool {
        let Self {
            app,
            state,
            receiver,
            sender,
            since,
            until,
            error_has,
        } = self;
        [app, state, receiver, sender, error_has]
            .iter()
            .all(|text| text.is_none())
            && since.is_none()
            && until.is_none()
    }
}

impl Outbox {
    /// The time by the database's clock, for those who look on.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn viewed_at(&self) -> Result<OffsetDateTime, sqlx::Error> {
        self.look(async |session| time_of(session).await).await
    }

    /// The newest messages that a filter lets through, with ids below `before`.
    ///
    /// # Errors
    /// Where the database fails, or one of its statements takes too long.
    pub async fn browse(
        &self,
        filter: &MessageFilter,
        before: Option<i64>,
    ) -> Result<MessagePage, sqlx::Error> {
        self.look(async |session| {
            let now = time_of(session).await?;
            let pending = match filter.state.as_deref() {
                Some(state) => pending_ids(session, filter.app.as_deref(), state).await?,
                None => None,
            };
            let (rows, next_before, looked_at) = match pending {
                Some(ids) => by_ids(session, filter, &ids, before).await?,
                None => by_windows(session, filter, before).await?,
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

async fn time_of(session: &mut Session) -> Result<OffsetDateTime, sqlx::Error> {
    sqlx::query_scalar("select clock_timestamp()")
        .persistent(false)
        .fetch_one(&mut **session)
        .await
}

type Found = (Vec<MessageLine>, Option<i64>, Option<(i64, i64)>);

/// The ids of what may be in a state, if that is a pending one and few are; none if they have to be looked for.
async fn pending_ids(
    session: &mut Session,
    app: Option<&str>,
    state: &str,
) -> Result<Option<Vec<i64>>, sqlx::Error> {
    let (fresh, again) = match state {
        "queued" | "scheduled" => (true, false),
        "sending" | "retrying" => (false, true),
        PENDING => (true, true),
        _ => return Ok(None),
    };
    let mut ids: Vec<i64> = Vec::new();
    for (is_wanted, statement) in [
        (fresh, include_str!("browse/fresh.sql")),
        (again, include_str!("browse/again.sql")),
    ] {
        if is_wanted {
            let some: Vec<i64> = sqlx::query_scalar(statement)
                .persistent(false)
                .bind(app)
                .bind(MAX_PENDING_IDS + 1)
                .fetch_all(&mut **session)
                .await?;
            ids.extend(some);
        }
    }
    let are_all = i64::try_from(ids.len()).is_ok_and(|count| count <= MAX_PENDING_IDS);
    Ok(are_all.then_some(ids))
}

/// A page of these.
async fn by_ids(
    session: &mut Session,
    filter: &MessageFilter,
    ids: &[i64],
    before: Option<i64>,
) -> Result<Found, sqlx::Error> {
    let mut ids: Vec<i64> = ids
        .iter()
        .copied()
        .filter(|id| before.is_none_or(|before| *id < before))
        .collect();
    ids.sort_unstable_by(|one, other| other.cmp(one));
    let mut rows = Vec::new();
    // What is in the index may be in another state: a list of ids at a time, until the page is full.
    for some in ids.chunks(1_000) {
        let (Some(highest), Some(lowest)) = (some.first(), some.last()) else {
            break;
        };
        let some = window(
            session,
            filter,
            (*highest, *lowest),
            Some(some),
            PAGE_ROWS + 1 - rows.len(),
        )
        .await?;
        rows.extend(some);
        if rows.len() > PAGE_ROWS {
            break;
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

/// A page of what is found on the way down the primary key.
async fn by_windows(
    session: &mut Session,
    filter: &MessageFilter,
    before: Option<i64>,
) -> Result<Found, sqlx::Error> {
    let begun = Instant::now();
    let mut rows = Vec::new();
    let Some((mut highest, lowest)) = bounds(session, filter, before).await? else {
        return Ok((rows, None, None));
    };
    let (began_at, mut looked_down_to) = (highest, highest + 1);
    let mut is_exhausted = false;
    loop {
        let floor = highest.saturating_sub(WINDOW_IDS - 1).max(lowest);
        let room = PAGE_ROWS + 1 - rows.len();
        rows.extend(window(session, filter, (highest, floor), None, room).await?);
        if rows.len() > PAGE_ROWS {
            let next_before = cut(&mut rows);
            return Ok((rows, next_before, None));
        }
        looked_down_to = floor.min(looked_down_to);
        // Over a gap in one step, however wide it is.
        match next_id(session, floor).await? {
            Some(id) if id >= lowest => highest = id,
            _ => is_exhausted = true,
        }
        if is_exhausted || begun.elapsed() > PAGE_TIME || began_at - looked_down_to > MAX_PAGE_IDS {
            break;
        }
    }
    let next_before = (!is_exhausted).then_some(looked_down_to);
    Ok((rows, next_before, Some((began_at, looked_down_to))))
}

/// The messages of a range of ids, or those of it that are listed.
async fn window(
    session: &mut Session,
    filter: &MessageFilter,
    (highest, lowest): (i64, i64),
    listed: Option<&[i64]>,
    max_rows: usize,
) -> Result<Vec<MessageLine>, sqlx::Error> {
    let statement = if listed.is_some() {
        concat!(
            include_str!("browse/window.sql"),
            include_str!("browse/listed.sql")
        )
    } else {
        include_str!("browse/window.sql")
    };
    let statement = format!("{statement}\norder by id desc limit $10");
    sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .persistent(false)
        .bind(highest)
        .bind(lowest)
        .bind(&filter.app)
        .bind(&filter.state)
        .bind(&filter.receiver)
        .bind(&filter.sender)
        .bind(filter.since)
        .bind(filter.until)
        .bind(&filter.error_has)
        .bind(i64::try_from(max_rows).unwrap_or(i64::MAX))
        .bind(listed)
        .fetch_all(&mut **session)
        .await
}

/// The highest id below another one.
async fn next_id(session: &mut Session, below: i64) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("select id from signaling.outbox where id < $1 order by id desc limit 1")
        .persistent(false)
        .bind(below)
        .fetch_optional(&mut **session)
        .await
}

/// The highest and the lowest id that may be on a page.
async fn bounds(
    session: &mut Session,
    filter: &MessageFilter,
    before: Option<i64>,
) -> Result<Option<(i64, i64)>, sqlx::Error> {
    let Some(newest) = next_id(session, i64::MAX).await? else {
        return Ok(None);
    };
    let mut highest = newest.min(before.unwrap_or(i64::MAX).saturating_sub(1));
    let mut lowest = 1;
    if let Some(until) = filter.until {
        let end = first_id_since(session, newest, until).await?;
        highest = highest.min(end.saturating_add(ID_DISORDER));
    }
    if let Some(since) = filter.since {
        lowest = (first_id_since(session, newest, since).await? - ID_DISORDER).max(1);
    }
    Ok((highest >= lowest).then_some((highest, lowest)))
}

/// About where the ids begin that were inserted at a time or later, by bisection: ids are nearly in that order.
async fn first_id_since(
    session: &mut Session,
    newest: i64,
    since: OffsetDateTime,
) -> Result<i64, sqlx::Error> {
    let (mut low, mut high) = (1, newest.saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        let row: Option<(i64, OffsetDateTime)> = sqlx::query_as(
            "select id, created_at from signaling.outbox where id >= $1 order by id limit 1",
        )
        .persistent(false)
        .bind(middle)
        .fetch_optional(&mut **session)
        .await?;
        match row {
            Some((id, created_at)) if created_at < since => low = id + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}
