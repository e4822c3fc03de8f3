//! Reads messages down the primary key, a window of ids at a time.

use sqlx::{PgConnection, query};

use super::{Deadline, Found, MessageFilter, MessageLine, PAGE_ROWS, cut};
use crate::outbox::one_off::{rows, values};
use crate::pace::DbTime;

/// Ids that one statement reads.
const WINDOW_IDS: i64 = 10_000;
/// Ids that one page reads.
const MAX_PAGE_IDS: i64 = 1_000_000;
/// A transaction may be open for long before it inserts, so ids are only roughly in the order of `created_at`.
const ID_DISORDER: i64 = 10_000;

pub(super) async fn by_windows(
    session: &mut PgConnection,
    filter: &MessageFilter,
    before: Option<i64>,
    deadline: Deadline,
) -> Result<Found, sqlx::Error> {
    let mut rows = Vec::new();
    let Some((mut highest, lowest)) = bounds(session, filter, before, deadline).await? else {
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
        // One step passes any gap.
        match next_id(session, floor).await? {
            Some(id) if id >= lowest => highest = id,
            _ => is_exhausted = true,
        }
        if is_exhausted || deadline.is_over() || began_at - looked_down_to > MAX_PAGE_IDS {
            break;
        }
    }
    let next_before = (!is_exhausted).then_some(looked_down_to);
    Ok((rows, next_before, Some((began_at, looked_down_to))))
}

/// The messages of a range of ids that match the filter, and that are listed if there is a list.
pub(super) async fn window(
    session: &mut PgConnection,
    filter: &MessageFilter,
    (highest, lowest): (i64, i64),
    listed: Option<&[i64]>,
    max_rows: usize,
) -> Result<Vec<MessageLine>, sqlx::Error> {
    let window = query(include_str!("window.sql"))
        .bind(highest)
        .bind(lowest)
        .bind(&filter.app)
        .bind(&filter.state)
        .bind(&filter.recipient)
        .bind(&filter.sender)
        .bind(filter.since)
        .bind(filter.until)
        .bind(&filter.error_has)
        .bind(i64::try_from(max_rows).unwrap_or(i64::MAX))
        .bind(listed);
    rows(session, window).await
}

/// The highest id below another one.
async fn next_id(session: &mut PgConnection, below: i64) -> Result<Option<i64>, sqlx::Error> {
    let next = query("select id from signaling.outbox where id < $1 order by id desc limit 1");
    Ok(values(session, next.bind(below)).await?.pop())
}

/// The highest and the lowest id that can match the filter's times.
async fn bounds(
    session: &mut PgConnection,
    filter: &MessageFilter,
    before: Option<i64>,
    deadline: Deadline,
) -> Result<Option<(i64, i64)>, sqlx::Error> {
    let Some(newest) = next_id(session, before.unwrap_or(i64::MAX)).await? else {
        return Ok(None);
    };
    let (mut highest, mut lowest) = (newest, 1);
    if let Some(until) = filter.until {
        let (_, end) = first_id_since(session, newest, until, deadline).await?;
        highest = highest.min(end.saturating_add(ID_DISORDER));
    }
    if let Some(since) = filter.since {
        let (begin, _) = first_id_since(session, newest, since, deadline).await?;
        lowest = (begin - ID_DISORDER).max(1);
    }
    Ok((highest >= lowest).then_some((highest, lowest)))
}

/// Finds by bisection where messages begin that were inserted since a time. The result is a range of ids, which is one id
/// unless the deadline ends the search before.
async fn first_id_since(
    session: &mut PgConnection,
    newest: i64,
    since: DbTime,
    deadline: Deadline,
) -> Result<(i64, i64), sqlx::Error> {
    let (mut low, mut high) = (1, newest.saturating_add(1));
    while low < high && !deadline.is_over() {
        let middle = low + (high - low) / 2;
        let next =
            query("select id, created_at from signaling.outbox where id >= $1 order by id limit 1");
        match rows::<(i64, DbTime)>(session, next.bind(middle))
            .await?
            .pop()
        {
            Some((id, created_at)) if created_at < since => low = id.saturating_add(1),
            _ => high = middle,
        }
    }
    Ok((low, high))
}
