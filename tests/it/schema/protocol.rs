//! The rules of the worker's protocol, function by function, by SQL alone: no worker runs here.

mod choose_probe;
mod claim_avoided;
mod claim_kinds;
mod claim_lost;
mod claim_position;
mod claim_slots;
mod durations;
mod environment;
mod expire;
mod hold;
mod lane;
pub(crate) mod lost_rows;
mod next_due;
mod record;
mod record_discarded;
mod refused;
mod release;
mod report_worker;
mod resume;
mod sequences;
mod session;
mod set_back;
mod slow_triggers;
mod throttle;
mod wakeup;

use sqlx::postgres::types::PgInterval;
use sqlx::postgres::{PgListener, PgRow};
use sqlx::{AssertSqlSafe, FromRow, PgExecutor};
use time::OffsetDateTime;
use uuid::Uuid;

use testkit::World;

/// The default app's limit, for which the lane gives out a slot each 10 ms.
const LIMIT: &str = "102";
/// The time from one slot to the next one.
const SPACING: time::Duration = time::Duration::milliseconds(10);
/// The lease of a claim.
const LEASE: time::Duration = time::Duration::seconds(30);
/// Earlier than all times.
const BEGINNING: &str = "-infinity";
/// Later than all times.
const INFINITY: &str = "infinity";

/// A world in which the default app has a lane.
async fn world() -> World {
    let world = World::new().await;
    world
        .execute(&format!("select signaling.open_lane('default', {LIMIT})"))
        .await;
    world
}

/// Listens to the wakeups of workers.
async fn listener(world: &World) -> PgListener {
    let mut listener = PgListener::connect(&world.url).await.expect("connected");
    listener
        .listen("signaling_wakeup")
        .await
        .expect("listening");
    listener
}

/// Makes messages retries that are due.
async fn make_retries(world: &World, condition: &str) {
    let retried = "sent_at = now() - interval '1 second', attempts = 1";
    world
        .set_messages(&format!("{retried} where {condition}"))
        .await;
}

async fn now(world: &World) -> OffsetDateTime {
    world.ask("select clock_timestamp()").await
}

/// The row of a claim about the lane, as columns.
const LANE_COLUMNS: &str = "(lane->>'at')::timestamptz as at, (lane->>'slots')::int as slots,
    lane->'hold'->>'kind' as hold, (lane->'hold'->>'until')::timestamptz as hold_until,
    (lane->>'throttled_per_s')::float8 as throttled_per_s, (lane->>'expired')::int as expired,
    (lane->>'failed')::int as failed, (lane->>'refused')::int as refused, (lane->>'unknown')::int as unknown, (lane->>'next_slot_at')::timestamptz as next_slot_at,
    (lane->>'next_due_at')::timestamptz as next_due_at, nullif(lane->>'wakeup', 'off') as wakeup,
    (lane->'passed'->>0)::timestamptz as passed_at, (lane->'passed'->>1)::bigint as passed_id,
    (lane->>'set_back_s')::float8 * interval '1 second' as set_back_by";

/// The arguments of a claim, beside its id.
#[derive(Clone)]
struct Claim {
    app: &'static str,
    claimed_by: &'static str,
    max_messages: i32,
    horizon: &'static str,
    lookahead: &'static str,
    ended_before: String,
    first_after: (String, i64),
    retry_after: (String, i64),
    poll_interval: &'static str,
    wants_wakeup: bool,
    avoided: Vec<&'static str>,
}

impl Default for Claim {
    fn default() -> Self {
        Self {
            app: "default",
            claimed_by: "tester",
            max_messages: 1_000,
            horizon: "500 milliseconds",
            lookahead: "200 milliseconds",
            ended_before: INFINITY.into(),
            first_after: (BEGINNING.into(), 0),
            retry_after: (BEGINNING.into(), 0),
            poll_interval: "2 seconds",
            wants_wakeup: false,
            avoided: Vec::new(),
        }
    }
}

impl Claim {
    fn of_at_most(max_messages: i32) -> Self {
        Self {
            max_messages,
            ..Self::default()
        }
    }

    fn statement(&self, claim_id: Uuid) -> String {
        let Self {
            app,
            claimed_by,
            max_messages,
            horizon,
            lookahead,
            ended_before,
            first_after,
            retry_after,
            poll_interval,
            wants_wakeup,
            avoided,
        } = self;
        let avoided = avoided.join(",");
        format!(
            "select claimed.*, {LANE_COLUMNS} from signaling.claim(
                 app => '{app}', claim_id => '{claim_id}', claimed_by => '{claimed_by}',
                 max_messages => {max_messages}, lease => '{LEASE_TEXT}', horizon => '{horizon}',
                 lookahead => '{lookahead}', ended_before => '{ended_before}',
                 first_after_at => '{}', first_after_id => {}, retry_after_at => '{}', retry_after_id => {},
                 poll_interval => '{poll_interval}', wants_wakeup => {wants_wakeup}, avoided => '{{{avoided}}}') as claimed",
            first_after.0, first_after.1, retry_after.0, retry_after.1
        )
    }

    async fn run(&self, executor: impl PgExecutor<'_>) -> Claimed {
        self.try_run(executor).await.expect("claimed")
    }

    /// As a worker of an environment, which is given as SQL.
    async fn run_for(&self, executor: impl PgExecutor<'_>, environment: &str) -> Claimed {
        let id = Uuid::new_v4();
        let statement = self.statement(id);
        let environment = format!(", environment => {environment}) as claimed");
        let statement = statement.replace(") as claimed", &environment);
        Self::claimed(executor, id, statement)
            .await
            .expect("claimed")
    }

    async fn try_run(&self, executor: impl PgExecutor<'_>) -> Result<Claimed, sqlx::Error> {
        let id = Uuid::new_v4();
        Self::claimed(executor, id, self.statement(id)).await
    }

    async fn claimed(
        executor: impl PgExecutor<'_>,
        id: Uuid,
        statement: String,
    ) -> Result<Claimed, sqlx::Error> {
        let rows: Vec<PgRow> = sqlx::query(AssertSqlSafe(statement))
            .fetch_all(executor)
            .await?;
        Ok(Claimed::from_rows(id, &rows))
    }
}

/// [`LEASE`] as Postgres reads it.
const LEASE_TEXT: &str = "30 seconds";

/// The result of a claim.
#[derive(Debug)]
struct Claimed {
    id: Uuid,
    lane: LaneRow,
    /// In the order of their slots.
    messages: Vec<Message>,
}

impl Claimed {
    fn from_rows(id: Uuid, rows: &[PgRow]) -> Self {
        let (lane, messages) = rows.split_last().expect("a row about the lane");
        let mut messages: Vec<Message> = messages
            .iter()
            .map(|row| Message::from_row(row).expect("a message"))
            .collect();
        messages.sort_by_key(|message| message.slot_at);
        Self {
            id,
            lane: LaneRow::from_row(lane).expect("a lane"),
            messages,
        }
    }

    fn ids(&self) -> Vec<i64> {
        self.messages.iter().map(|message| message.id).collect()
    }

    fn retries(&self) -> usize {
        let retries = self.messages.iter().filter(|message| message.is_retry);
        retries.count()
    }
}

#[derive(Debug, FromRow)]
struct LaneRow {
    at: OffsetDateTime,
    slots: i32,
    hold: Option<String>,
    hold_until: Option<OffsetDateTime>,
    throttled_per_s: Option<f64>,
    expired: i32,
    unknown: i32,
    next_slot_at: OffsetDateTime,
    next_due_at: Option<OffsetDateTime>,
    wakeup: Option<String>,
    passed_at: Option<OffsetDateTime>,
    passed_id: Option<i64>,
    set_back_by: Option<PgInterval>,
}

#[derive(Debug, FromRow)]
struct Message {
    id: i64,
    destination: Option<String>,
    attempts: i32,
    uncharged: i32,
    failing_since: Option<OffsetDateTime>,
    is_retry: bool,
    original_due_at: OffsetDateTime,
    slot_at: OffsetDateTime,
}

/// The message and the SQLSTATE of a function that failed.
fn database_error(error: sqlx::Error) -> (String, String) {
    let error = error
        .into_database_error()
        .expect("an error of the database");
    let code = error.code().expect("a code").into_owned();
    (code, error.message().to_owned())
}
