//! Inserts messages in the caller's transaction.

use sqlx::types::Json;
use sqlx::{Acquire, Postgres};

use crate::message::NewMessage;

/// 5,000 of the largest messages fit into one `jsonb` (256 MiB). With more, Postgres would fail with an error that names no
/// limit.
const MAX_MESSAGES: usize = 5_000;

/// Runs with the application's `search_path`, so names of types, functions and tables are qualified. `coalesce` is a
/// keyword, and needs no schema.
const INSERT: &str = "
    insert into signaling.outbox
        (app, sender, destination, channel_name, payload, wait_for_ack, enable_offline_messaging,
         enable_historical_messaging, due_at, expires_at, max_attempts, at_most_once, dedupe_key, traceparent)
    select coalesce(app, 'default'), sender, destination, channel_name, payload, wait_for_ack, enable_offline_messaging,
           enable_historical_messaging, coalesce(due_at, pg_catalog.now()), expires_at,
           coalesce(max_attempts, 10), at_most_once, dedupe_key, traceparent
    from pg_catalog.jsonb_populate_recordset(null::signaling.outbox, $1) with ordinality
    order by ordinality
    on conflict do nothing
    returning id, app, dedupe_key";

/// Why [`enqueue`] failed.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// Postgres can't store U+0000. The statement would fail, and the error and the server's log would quote a part of
    /// the text.
    #[error("{column} has the character U+0000, which Postgres can't store: remove the character")]
    Nul {
        /// The column of the text.
        column: &'static str,
    },
    /// The call has more than 5,000 messages.
    #[error(
        "{count} messages are more than the {MAX_MESSAGES} of one call: split them into several calls, in one transaction"
    )]
    TooMany {
        /// The number of messages.
        count: usize,
    },
    /// The table refuses a message. The name of the constraint says why.
    #[error("the table refuses a message: {}", constraint.replace('_', " "))]
    Refused {
        /// The constraint's name.
        constraint: String,
    },
    /// A trigger of the application has changed or dropped a message, so the ids can't be assigned to the messages. The other
    /// messages are inserted: roll the transaction back. A call with a pool has already committed them.
    #[error(
        "a trigger on signaling.outbox changes messages while they are inserted. Change the trigger: it must keep app and dedupe_key, and insert each message"
    )]
    Changed,
    /// The database failed.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for EnqueueError {
    fn from(error: sqlx::Error) -> Self {
        let violation = error.as_database_error();
        let violation = violation.filter(|error| error.is_check_violation());
        match violation.and_then(|error| error.constraint()) {
            Some(constraint) => Self::Refused {
                constraint: constraint.to_owned(),
            },
            None => Self::Database(error),
        }
    }
}

/// Inserts messages into `signaling.outbox`, in their order, with one statement. With a `&mut Transaction`, workers send the
/// messages if the transaction commits, and never if it rolls back. A `&mut PgConnection` and a `&PgPool` work, too.
///
/// Returns an id for each message, in the same order. The id is `None` if the `dedupe_key` already exists in the table or in
/// an earlier message of the call. Producers find the message by its id in `signaling.delivery_status`. The call inserts all
/// messages or none, unless a trigger changes messages. A call takes up to 5,000 messages. Split more into several calls in
/// one transaction.
///
/// The role needs the privileges of a producer: `worker grant producer`.
///
/// ```no_run
/// use signaling_producer::{NewMessage, enqueue};
///
/// # async fn ship(pool: sqlx::PgPool, order_id: i64) -> Result<(), Box<dyn std::error::Error>> {
/// let mut transaction = pool.begin().await?;
/// sqlx::query("update app_order set shipped_at = now() where id = $1")
///     .bind(order_id)
///     .execute(&mut *transaction)
///     .await?;
/// let message = NewMessage {
///     wait_for_ack: true,
///     dedupe_key: Some(format!("order-{order_id}-shipped")),
///     ..NewMessage::to_peer("shop", "user-17", "Your order is on its way")
/// };
/// let ids = enqueue(&mut transaction, &[message]).await?;
/// transaction.commit().await?;
///
/// match ids[0] {
///     Some(id) => println!("message {id}"),
///     None => println!("the message was inserted before"),
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If a text has U+0000 in it, there are more than 5,000 messages, the table refuses a message, the database fails, or a
/// trigger changes messages. After the last three, the caller has to roll back its transaction. After
/// [`Changed`](EnqueueError::Changed), a commit would keep the inserted messages.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn can't promise to be Send for every A, and a task or a handler needs that"
)]
pub fn enqueue<'a, 'c, A>(
    connection: A,
    messages: &'a [NewMessage],
) -> impl Future<Output = Result<Vec<Option<i64>>, EnqueueError>> + Send + 'a
where
    A: Acquire<'c, Database = Postgres> + Send + 'a,
{
    async move {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        if messages.len() > MAX_MESSAGES {
            let count = messages.len();
            return Err(EnqueueError::TooMany { count });
        }
        if let Some(column) = messages.iter().find_map(NewMessage::column_with_nul) {
            return Err(EnqueueError::Nul { column });
        }
        let mut connection = connection.acquire().await?;
        let insert = sqlx::query_as(INSERT).bind(Json(messages));
        match_up(messages, insert.fetch_all(&mut *connection).await?)
    }
}

/// The columns `id`, `app` and `dedupe_key`.
type Inserted = (i64, String, Option<String>);

/// Assigns the ids to the messages. Rows come in the order of the messages, and only a message with a key may have no row.
/// Postgres inserts a key once, so the row belongs to the first message with that key.
fn match_up(
    messages: &[NewMessage],
    inserted: Vec<Inserted>,
) -> Result<Vec<Option<i64>>, EnqueueError> {
    let mut rows = inserted.into_iter().peekable();
    let mut ids = Vec::with_capacity(messages.len());
    for message in messages {
        let row = rows.next_if(|(_, app, key)| app == message.app() && *key == message.dedupe_key);
        if row.is_none() && message.dedupe_key.is_none() {
            return Err(EnqueueError::Changed);
        }
        ids.push(row.map(|(id, ..)| id));
    }
    if rows.next().is_some() {
        return Err(EnqueueError::Changed);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(app: &str, key: Option<&str>) -> NewMessage {
        NewMessage {
            app: Some(app.to_owned()),
            dedupe_key: key.map(str::to_owned),
            ..NewMessage::to_peer("a", "b", "hi")
        }
    }

    fn row(id: i64, app: &str, key: Option<&str>) -> Inserted {
        (id, app.to_owned(), key.map(str::to_owned))
    }

    #[test]
    fn each_message_gets_the_id_of_its_row() {
        let messages = [
            message("a", Some("old")),
            message("a", None),
            message("a", Some("k")),
            message("b", Some("k")),
            message("a", Some("k")),
            message("a", None),
            message("a", Some("old")),
        ];
        let inserted = vec![
            row(1, "a", None),
            row(2, "a", Some("k")),
            row(3, "b", Some("k")),
            row(4, "a", None),
        ];
        let ids = match_up(&messages, inserted).expect("a match");
        assert_eq!(ids, [None, Some(1), Some(2), Some(3), None, Some(4), None]);
    }

    #[test]
    fn rows_that_match_no_message_are_an_error() {
        let messages = [message("a", None), message("a", Some("k"))];
        for inserted in [
            vec![],
            vec![row(1, "b", None), row(2, "a", Some("k"))],
            vec![row(1, "a", None), row(2, "a", Some("other"))],
            vec![row(1, "a", None), row(2, "a", Some("k")), row(3, "a", None)],
        ] {
            assert!(match_up(&messages, inserted).is_err());
        }
    }
}
