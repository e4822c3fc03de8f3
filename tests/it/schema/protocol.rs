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

use serde_json::json;
use sqlx::postgres::types::PgInterval;
use sqlx::postgres::{PgDatabaseError, PgListener, PgRow};
use sqlx::{AssertSqlSafe, FromRow, PgExecutor, Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{attempt_lines, database_error, refusal, set_workers};
use harness::{World, peer};

/// The default app's limit, for which the lane gives out a slot each 10 ms.
const LIMIT: &str = "102";
/// The time from one slot to the next one.
const SPACING: time::Duration = time::Duration::milliseconds(10);
/// The lease of a claim.
const LEASE: time::Duration = time::Duration::seconds(30);
/// [`LEASE`] as Postgres reads it.
const LEASE_TEXT: &str = "30 seconds";
/// Earlier than all times.
const BEGINNING: &str = "-infinity";
/// Later than all times.
const INFINITY: &str = "infinity";

/// The columns of a lane that is not held.
const NOT_HELD: &str =
    "hold = null, hold_reason = null, hold_since = null, hold_until = null, hold_probes = 0";

/// A world in which the default app has a lane.
async fn world() -> World {
    let world = World::new().await;
    world
        .execute(&format!("select signaling.open_lane('default', {LIMIT})"))
        .await;
    world
}

/// Holds the default app's lane. Its next probe may be made at once.
async fn hold(world: &World) {
    let hold = "select signaling.hold('default', 'unavailable', 'HTTP 500', null)";
    world.execute(hold).await;
    end_pause(world).await;
}

/// Ends the pause of a held lane, so that its next probe may be made.
async fn end_pause(world: &World) {
    world.set_lane("hold_until = clock_timestamp()").await;
}

/// Listens to the wakeups of workers.
async fn listener(world: &World) -> PgListener {
    let mut listener = PgListener::connect(&world.url).await.expect("connected");
    let listening = listener.listen("signaling_wakeup").await;
    listening.expect("listening");
    listener
}

/// Makes messages retries that are due.
async fn make_retries(world: &World, condition: &str) {
    let retried = "sent_at = now() - interval '1 second', attempts = 1";
    world
        .set_messages(&format!("{retried} where {condition}"))
        .await;
}

/// Locks messages in another session.
async fn lock_messages(world: &World, condition: &str) -> Transaction<'static, Postgres> {
    let lock = format!("select from signaling.outbox where {condition} for update");
    world.open_transaction(&lock).await
}

/// Inserts a message with this payload.
async fn insert(world: &World, payload: &str) -> i64 {
    world.insert(peer(json!({"payload": payload}))).await
}

/// Inserts a message and claims it.
async fn claimed_message(world: &World) -> (i64, Claimed) {
    let id = world.insert(peer(json!({}))).await;
    let claim = Claim::default().run(&world.pool).await;
    assert_eq!(claim.ids(), [id]);
    (id, claim)
}

async fn now(world: &World) -> OffsetDateTime {
    world.ask("select clock_timestamp()").await
}

/// The row of a claim about the lane, as columns.
const LANE_COLUMNS: &str = "(lane->>'at')::timestamptz as at, (lane->>'slots')::int as slots,
    lane->'hold'->>'kind' as hold, (lane->'hold'->>'until')::timestamptz as hold_until,
    (lane->>'throttled_per_s')::float8 as throttled_per_s, (lane->>'expired')::int as expired,
    (lane->>'failed')::int as failed, (lane->>'refused')::int as refused, (lane->>'unknown')::int as unknown,
    (lane->>'next_slot_at')::timestamptz as next_slot_at,
    (lane->>'next_due_at')::timestamptz as next_due_at, nullif(lane->>'wakeup', 'off') as wakeup,
    (lane->'passed'->>0)::timestamptz as passed_at, (lane->'passed'->>1)::bigint as passed_id,
    (lane->'retry_passed'->>1)::bigint as retry_passed_id,
    (lane->>'set_back_s')::float8 * interval '1 second' as set_back_by";

/// Arguments of a claim.
struct Claim {
    app: &'static str,
    max_messages: i32,
    horizon: &'static str,
    ended_before: String,
    first_after: (String, i64),
    retry_after: (String, i64),
    wants_wakeup: bool,
    avoided: Vec<&'static str>,
    environment: Option<&'static str>,
    one_by_one: bool,
}

impl Default for Claim {
    fn default() -> Self {
        Self {
            app: "default",
            max_messages: 1_000,
            horizon: "500 milliseconds",
            ended_before: INFINITY.into(),
            first_after: (BEGINNING.into(), 0),
            retry_after: (BEGINNING.into(), 0),
            wants_wakeup: false,
            avoided: Vec::new(),
            environment: None,
            one_by_one: false,
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

    /// A claim that finds out which messages the database refuses to change.
    fn one_by_one() -> Self {
        Self {
            one_by_one: true,
            ..Self::default()
        }
    }

    fn statement(&self, claim_id: Uuid) -> String {
        let Self {
            app,
            max_messages,
            horizon,
            ended_before,
            first_after,
            retry_after,
            wants_wakeup,
            avoided,
            environment,
            one_by_one,
        } = self;
        format!(
            "select claimed.*, {LANE_COLUMNS} from signaling.claim(
                 app => '{app}', claim_id => '{claim_id}', claimed_by => 'tester',
                 max_messages => {max_messages}, lease => '{LEASE_TEXT}', horizon => '{horizon}',
                 lookahead => '200 milliseconds', ended_before => '{ended_before}',
                 first_after_at => '{}', first_after_id => {}, retry_after_at => '{}', retry_after_id => {},
                 poll_interval => '2 seconds', wants_wakeup => {wants_wakeup}, avoided => '{{{}}}',
                 environment => nullif('{}', ''), one_by_one => {one_by_one}) as claimed",
            first_after.0,
            first_after.1,
            retry_after.0,
            retry_after.1,
            avoided.join(","),
            environment.unwrap_or_default(),
        )
    }

    async fn run(&self, executor: impl PgExecutor<'_>) -> Claimed {
        self.try_run(executor).await.expect("claimed")
    }

    /// The error of a claim that Postgres has to refuse.
    async fn refusal(&self, executor: impl PgExecutor<'_>) -> PgDatabaseError {
        database_error(self.try_run(executor).await.expect_err("refused"))
    }

    async fn try_run(&self, executor: impl PgExecutor<'_>) -> Result<Claimed, sqlx::Error> {
        let id = Uuid::new_v4();
        let statement = AssertSqlSafe(self.statement(id));
        let rows: Vec<PgRow> = sqlx::query(statement).fetch_all(executor).await?;
        let (lane, messages) = rows.split_last().expect("a row about the lane");
        let messages = messages.iter().map(Message::from_row);
        let mut messages = messages.collect::<Result<Vec<_>, _>>()?;
        messages.sort_by_key(|message| message.slot_at);
        let lane = LaneRow::from_row(lane)?;
        Ok(Claimed { id, lane, messages })
    }
}

/// The result of a claim.
#[derive(Debug)]
struct Claimed {
    id: Uuid,
    lane: LaneRow,
    /// In the order of their slots.
    messages: Vec<Message>,
}

impl Claimed {
    fn ids(&self) -> Vec<i64> {
        self.messages.iter().map(|message| message.id).collect()
    }

    fn retries(&self) -> usize {
        let retries = self.messages.iter().filter(|message| message.is_retry);
        retries.count()
    }

    /// True if the lane had no slot for the claim.
    fn has_no_slot(&self) -> bool {
        self.lane.slots == 0 && self.messages.is_empty()
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
    failed: i32,
    refused: i32,
    unknown: i32,
    next_slot_at: OffsetDateTime,
    next_due_at: Option<OffsetDateTime>,
    wakeup: Option<String>,
    passed_at: Option<OffsetDateTime>,
    retry_passed_id: Option<i64>,
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
