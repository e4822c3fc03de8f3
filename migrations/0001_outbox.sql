-- The outbox, its attempts and its lanes. `worker migrate` creates the schema `signaling` before it runs this file, and
-- the functions (migrations/functions/) after it.

-- One row per message. The first block of columns is the producer's, the second one the worker's.
create table signaling.outbox (
    id                          bigint generated always as identity primary key,
    app                         text        not null default 'default',
    sender                      text        not null,
    destination                 text,
    channel_name                text,
    payload                     text        not null,
    wait_for_ack                boolean     not null default false,
    enable_offline_messaging    boolean     not null default false,
    enable_historical_messaging boolean     not null default false,
    due_at                      timestamptz not null default now(),
    expires_at                  timestamptz,
    max_attempts                integer     not null default 10,
    at_most_once                boolean     not null default false,
    dedupe_key                  text,
    traceparent                 text,
    created_at                  timestamptz not null default now(),

    status                      text        not null default 'pending',
    attempts                    integer     not null default 0,
    uncharged                   integer     not null default 0,
    failing_since               timestamptz,
    claim_id                    uuid,
    claimed_by                  text,
    sent_at                     timestamptz,
    finished_at                 timestamptz,
    http_status                 integer,
    request_id                  text,
    error                       text,

    -- Postgres holds years that drivers can't read, and infinity: a worker that meets one could not send its message. What
    -- the API demands of the other columns is refused by the trigger check_message.
    constraint due_at_is_before_year_1_or_after_year_9999
        check (due_at >= '0001-01-01 00:00+00' and due_at < '10000-01-01 00:00+00'),
    constraint expires_at_is_before_year_1_or_after_year_9999
        check (expires_at >= '0001-01-01 00:00+00' and expires_at < '10000-01-01 00:00+00'),

    -- What the states mean.
    constraint status_is_not_a_known_status
        check (status in ('pending', 'message_sent', 'message_delivered', 'message_offline',
                          'failed', 'expired', 'cancelled', 'unknown')),
    constraint finished_at_is_null_exactly_while_pending
        check ((status = 'pending') = (finished_at is null)),
    constraint attempts_is_negative
        check (attempts >= 0),
    constraint a_sent_message_needs_sent_at
        check (status not in ('message_sent', 'message_delivered', 'message_offline') or sent_at is not null)
)
-- A message is written three times (insert, claim, record): room on the page keeps its versions together.
with (fillfactor = 70,
      autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
      autovacuum_analyze_scale_factor = 0.05);

-- Serve claim() and next_due(): the due rows of one app, oldest first. First attempts and retries have an index each, so
-- that neither kind is searched for among any number of the other.
create index outbox_first_attempts on signaling.outbox (app, due_at, id)
    where status = 'pending' and sent_at is null and claim_id is null;
create index outbox_retries on signaling.outbox (app, due_at, id)
    where status = 'pending' and (sent_at is not null or claim_id is not null);
-- Serves expire(): rows that wait for a later time, or in a lane that is held.
create index outbox_expiring on signaling.outbox (app, expires_at) where status = 'pending' and expires_at is not null;
-- Serves signaling.peak_rate(): calls by time. A block range index costs next to nothing to keep.
create index outbox_sent on signaling.outbox using brin (sent_at) with (pages_per_range = 32, autosummarize = on);
-- Makes the producer's insert idempotent: `insert … on conflict do nothing`.
create unique index outbox_dedupe on signaling.outbox (app, dedupe_key) where dedupe_key is not null;

comment on table signaling.outbox is
    'Messages to send: insert a row in your own transaction, read its status here. One row per message.';
comment on column signaling.outbox.app is 'Which configured app sends it: an alias, not the app ID.';
comment on column signaling.outbox.sender is 'The user_id of the API: who the message is from.';
comment on column signaling.outbox.destination is 'Receiver of a peer message; null for a channel message.';
comment on column signaling.outbox.channel_name is 'Channel of a channel message; null for a peer message.';
comment on column signaling.outbox.payload is '1 to 32,768 bytes of UTF-8.';
comment on column signaling.outbox.wait_for_ack is 'Peer messages only: wait for the receiver, so that the status tells delivered from offline.';
comment on column signaling.outbox.due_at is
    'Earliest time of the next call. While a worker has the row, the end of its lease.';
comment on column signaling.outbox.expires_at is 'Not sent after this time: the row ends as expired.';
comment on column signaling.outbox.max_attempts is 'Charged attempts that may fail before the row ends as failed.';
comment on column signaling.outbox.at_most_once is
    'Never called again after a call whose outcome is not known: the row ends as unknown.';
comment on column signaling.outbox.dedupe_key is 'Unique per app: insert … on conflict do nothing.';
comment on column signaling.outbox.attempts is
    'Attempts that count against max_attempts: a lost one, and each one except those in uncharged.';
comment on column signaling.outbox.uncharged is
    'Failed attempts for which the message may not be to blame: see signaling.attempt.evidence.';
comment on column signaling.outbox.failing_since is
    'Start of the first failed attempt. A message that still fails WORKER_GIVE_UP_AFTER (24 h by default) later ends as failed, charged or not.';
comment on column signaling.outbox.claim_id is
    'The claim that has the row, or that finished it. Null while nobody has it.';
comment on column signaling.outbox.sent_at is 'Start of the last call, on the clock of this database.';
comment on column signaling.outbox.error is 'What went wrong at the last call.';

-- One row per call that did not end its message well, and one per claim that ended without a record.
create table signaling.attempt (
    id          bigint generated always as identity primary key,
    message_id  bigint      not null references signaling.outbox on delete cascade,
    attempt     integer     not null,
    sent_at     timestamptz,
    duration    interval,
    http_status integer,
    outcome     text        not null,
    error       text,
    fault       text,
    charged     boolean     not null default false,
    evidence    text,
    claimed_by  text,
    recorded_at timestamptz not null default clock_timestamp(),
    constraint fault_is_not_a_known_fault
        check (fault in ('message', 'destination', 'worker', 'api', 'budget', 'unclear')),
    constraint outcome_is_not_a_known_outcome
        check (outcome in ('transient', 'throttled', 'rejected', 'unauthorized', 'ambiguous', 'lost'))
);
create index attempt_of_message on signaling.attempt (message_id, id);
create index attempt_sent on signaling.attempt using brin (sent_at) with (pages_per_range = 32, autosummarize = on);

comment on table signaling.attempt is 'Calls that did not end their message well, oldest first by id.';
comment on column signaling.attempt.attempt is 'Which attempt of the message this was, from 1, charged or not.';
comment on column signaling.attempt.fault is
    'On which side the worker saw the fault: message (or its destination), destination, worker, api, budget (calls a second of the app), or unclear.';
comment on column signaling.attempt.charged is 'The attempt counts against max_attempts.';
comment on column signaling.attempt.evidence is 'By which other calls the worker decided whether to charge the attempt.';
comment on column signaling.attempt.outcome is
    'transient: worth another call. throttled: 429. rejected: never worth another call. unauthorized: 401 or 403. ambiguous: it may have had its effect. lost: the worker that had the row died, so whether it called is not known.';

-- One row per app: the budget of calls that all workers share, and the state of the lane.
create table signaling.lane (
    app              text             primary key,
    limit_per_s      double precision not null,
    configured_per_s double precision not null,
    limit_set_by     text,
    limit_set_at     timestamptz,
    environment      text,
    rate_per_s       double precision not null,
    rate_at          timestamptz      not null default 'epoch',
    throttled_at     timestamptz,
    retry_after_until timestamptz,
    next_slot_at     timestamptz      not null default 'epoch',

    hold             text,
    hold_reason      text,
    hold_since       timestamptz,
    hold_until       timestamptz,
    hold_probes      integer          not null default 0,
    probe_claim_id   uuid,
    probe_target     text,
    released_at      timestamptz,

    paused_at        timestamptz,
    paused_by        text,
    pause_reason     text,

    generation       bigint           not null default 0,

    constraint limit_per_s_is_not_between_1_and_a_million check (limit_per_s between 1 and 1000000),
    constraint environment_is_not_a_name_of_1_to_64_letters_digits_dots_dashes
        check (environment ~ '^[A-Za-z0-9._-]{1,64}$'),
    constraint rate_per_s_is_not_positive check (rate_per_s > 0),
    constraint next_slot_at_or_rate_at_is_infinite check (isfinite(next_slot_at) and isfinite(rate_at)),
    constraint hold_is_not_a_known_hold check (hold in ('unauthorized', 'unavailable')),
    constraint a_hold_needs_its_times
        check ((hold is null) = (hold_since is null) and (hold is null) = (hold_until is null)),
    constraint a_pause_needs_who_and_when check ((paused_at is null) = (paused_by is null))
)
-- Every claim writes this row: its versions stay on one page, and are cleaned up there.
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

-- Serves claim() and next_due() while another session holds a snapshot, such as a report or a backup. Postgres then keeps
-- every version of a lane's row, and a claim by the primary key would read them all. The index has a collation of its
-- own, because Postgres would otherwise choose the primary key, which looks as good.
create index lane_newest on signaling.lane (app collate "C", generation desc);

comment on table signaling.lane is 'One row per app: its budget of calls, shared by every worker, and its state.';
comment on column signaling.lane.limit_per_s is
    'Calls a second that go out at most: the configured limit, or what signaling.set_limit() said.';
comment on column signaling.lane.configured_per_s is 'The limit that the worker which started last is configured with.';
comment on column signaling.lane.limit_set_by is 'Who set another limit than the configured one. Null: nobody.';
comment on column signaling.lane.environment is
    'The WORKER_ENVIRONMENT of the workers that send this app''s messages: workers of another one refuse them until signaling.adopt(). Null: none was ever set.';
comment on column signaling.lane.rate_per_s is
    'Slots a second as of rate_at. A 429 cuts it; then it climbs back by 5 % a second, see signaling.present_rate().';
comment on column signaling.lane.throttled_at is 'When a burst of 429s last cut the rate.';
comment on column signaling.lane.next_slot_at is
    'The next send slot that no worker has taken.';
comment on column signaling.lane.retry_after_until is
    'The API has asked by Retry-After for no call before this time. signaling.resume() ends the wait.';
comment on column signaling.lane.hold is
    'unauthorized: the API refuses the credentials. unavailable: the API can''t be reached or answers with errors. Null: sending.';
comment on column signaling.lane.hold_until is 'When one message is tried again.';
comment on column signaling.lane.probe_claim_id is
    'The claim that probes a held lane: only its outcome changes the hold.';
comment on column signaling.lane.probe_target is
    'Destination or channel of the last probe: the next probe prefers another one.';
comment on column signaling.lane.released_at is
    'When the last hold ended. No new hold begins within ten seconds of it.';
comment on column signaling.lane.paused_at is 'Since when an operator keeps the app from sending. Null: not paused.';
comment on column signaling.lane.generation is
    'Grows every fifty claims or so: by lane_newest the newest versions are found first.';

-- Which apps have an idle worker that wants to be notified of inserts. Each insert reads this table. It stands beside the
-- lanes because each claim writes a new version of a lane: while a session holds a snapshot, an insert would read them all.
create table signaling.wakeup (
    app          text        primary key,
    wanted_until timestamptz not null
)
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.wakeup is 'Which apps have an idle worker, for signaling.notify_workers().';
comment on column signaling.wakeup.wanted_until is 'Until then inserts notify. A minute at a time, in case the worker dies.';

-- Messages that a trigger or a constraint of the application keeps from being changed. Claims pass over them until retry_at.
-- No foreign key leads to the outbox, because each deletion of a message would look here; a claim forgets messages that are
-- gone.
create table signaling.refused (
    app             text        not null,
    message_id      bigint      not null,
    refused_at      timestamptz not null,
    times           integer     not null,
    retry_at        timestamptz not null,
    code            text,
    constraint_name text,
    constraint refused_pkey primary key (app, message_id)
)
with (autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.refused is
    'Messages that can''t be claimed or ended, because a trigger or a constraint refuses it. The others are sent meanwhile.';
comment on column signaling.refused.times is 'How many tries in a row the database has refused.';
comment on column signaling.refused.retry_at is 'Claims pass over the message until then. signaling.resume() ends the wait.';
comment on column signaling.refused.code is 'The code of the error (SQLSTATE). Null: a trigger skipped the change without an error. 57014: a function of the application took longer than a worker waits.';

-- How far the deletion of old messages is, and which process deletes. One row: one process of the fleet at a time.
create table signaling.retention (
    is_the_only_row boolean     primary key default true,
    held_by         uuid,
    held_until      timestamptz not null default 'epoch',
    began_at        timestamptz,
    looked_up_to    bigint,
    last_row        bigint,
    deleted         bigint      not null default 0,

    constraint retention_has_one_row check (is_the_only_row)
)
-- Every batch writes this row: its versions stay on one page, and are cleaned up there.
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.retention is
    'How far the deletion of old messages is: it goes through the outbox by id, one process at a time. signaling.delete_finished() makes the row where it is missing.';
comment on column signaling.retention.held_by is 'The process that deletes. Null between two passes.';
comment on column signaling.retention.held_until is
    'Until then no other process goes on with the pass; between two passes, when the next one begins.';
comment on column signaling.retention.began_at is 'When the pass began. Null between two passes.';
comment on column signaling.retention.looked_up_to is 'The pass has looked at every id up to this one.';
comment on column signaling.retention.last_row is 'The last row that the pass has met: what follows it is a gap so far.';
comment on column signaling.retention.deleted is 'How many messages this pass has deleted, or the last one.';

-- The triggers' functions get their texts from migrations/functions/.
create function signaling.check_message() returns trigger language plpgsql as 'begin return new; end';
create function signaling.notify_workers() returns trigger language plpgsql as 'begin return null; end';
create function signaling.take_free_id() returns trigger language plpgsql as 'begin return new; end';
create function signaling.skip_while_restoring() returns trigger language plpgsql as 'begin return new; end';

create trigger check_message
    before insert or update of app, sender, destination, channel_name, payload, wait_for_ack, enable_offline_messaging,
                               max_attempts, dedupe_key, traceparent
    on signaling.outbox
    for each row execute function signaling.check_message();

create trigger notify_workers
    after insert on signaling.outbox
    referencing new table as inserted
    for each statement execute function signaling.notify_workers();

create trigger take_free_id
    before insert on signaling.attempt
    for each row execute function signaling.take_free_id();

create trigger skip_while_restoring
    before insert on signaling.schema_migrations
    for each row execute function signaling.skip_while_restoring();
