-- The outbox, its attempts and its lanes. `worker migrate` creates the schema `signaling` before it runs this file, and
-- installs migrations/functions/ afterwards.

-- One row per message. Producers write the first block of columns, workers the second one.
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

    -- Postgres accepts infinity and years that drivers can't read, so a worker could not send such a message. The trigger
    -- check_message checks the other columns.
    constraint due_at_is_before_year_1_or_after_year_9999
        check (due_at >= '0001-01-01 00:00+00' and due_at < '10000-01-01 00:00+00'),
    constraint expires_at_is_before_year_1_or_after_year_9999
        check (expires_at >= '0001-01-01 00:00+00' and expires_at < '10000-01-01 00:00+00'),

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
-- Free space on each page keeps the three versions of a message (insert, claim, record) together.
with (fillfactor = 70,
      autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
      autovacuum_analyze_scale_factor = 0.05);

-- For claim() and next_due(): the due messages of one app, oldest first. First attempts and retries have an index each, so
-- that a search for one kind never reads a large number of the other.
create index outbox_first_attempts on signaling.outbox (app, due_at, id)
    where status = 'pending' and sent_at is null and claim_id is null;
create index outbox_retries on signaling.outbox (app, due_at, id)
    where status = 'pending' and (sent_at is not null or claim_id is not null);
-- For expire(): messages that wait for a later time, or in a held lane.
create index outbox_expiring on signaling.outbox (app, expires_at) where status = 'pending' and expires_at is not null;
-- For peak_rate(): calls by time. A block range index costs inserts and updates next to nothing.
create index outbox_sent on signaling.outbox using brin (sent_at) with (pages_per_range = 32, autosummarize = on);
-- For producers that insert `on conflict do nothing`.
create unique index outbox_dedupe on signaling.outbox (app, dedupe_key) where dedupe_key is not null;

comment on table signaling.outbox is
    'Messages to send: insert a row in your own transaction, read its status here. One row per message.';
comment on column signaling.outbox.app is 'Alias of the app that sends the message, not the app ID.';
comment on column signaling.outbox.sender is 'The sender: a user_id of the API.';
comment on column signaling.outbox.destination is 'Recipient of a peer message; null for a channel message.';
comment on column signaling.outbox.channel_name is 'Channel of a channel message; null for a peer message.';
comment on column signaling.outbox.payload is '1 to 32,768 bytes of UTF-8.';
comment on column signaling.outbox.wait_for_ack is 'Peer messages only: the API waits for the recipient, so that the status tells delivered from offline.';
comment on column signaling.outbox.due_at is
    'Earliest time of the next call. While a worker has claimed the message, the end of the lease.';
comment on column signaling.outbox.expires_at is 'A message that is not sent before this time ends as expired.';
comment on column signaling.outbox.max_attempts is 'Charged attempts that may fail before the message ends as failed.';
comment on column signaling.outbox.at_most_once is
    'After a call without a known outcome, the message ends as unknown and is never sent again.';
comment on column signaling.outbox.dedupe_key is 'Unique per app: insert … on conflict do nothing.';
comment on column signaling.outbox.attempts is
    'Attempts that count against max_attempts, with attempts of lost workers.';
comment on column signaling.outbox.uncharged is
    'Failed attempts that do not count against max_attempts, because the message may not be at fault: see signaling.attempt.evidence.';
comment on column signaling.outbox.failing_since is
    'Start of the first failed attempt. A message that still fails WORKER_GIVE_UP_AFTER (24 h by default) later ends as failed, even if no attempt was charged.';
comment on column signaling.outbox.claim_id is
    'The claim that has the message, or that finished it. Null while no worker has claimed it.';
comment on column signaling.outbox.sent_at is 'Start of the last call, on the clock of this database.';
comment on column signaling.outbox.error is 'The error of the last call.';

-- One row per failed call, and one per claim that ended without a record.
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

comment on table signaling.attempt is 'Failed calls, oldest first by id.';
comment on column signaling.attempt.attempt is 'Number of the attempt within its message, from 1. Uncharged attempts count, too.';
comment on column signaling.attempt.fault is
    'The side that the worker found at fault: message (or its destination), destination, worker, api, budget (the app''s calls a second), or unclear.';
comment on column signaling.attempt.charged is 'The attempt counts against max_attempts.';
comment on column signaling.attempt.evidence is 'The other calls by which the worker decided whether to charge the attempt.';
comment on column signaling.attempt.outcome is
    'transient: the worker retries. throttled: 429. rejected: a retry would fail, too. unauthorized: 401 or 403. ambiguous: the API may have accepted the message. lost: the worker died, and it is not known whether it made a call.';

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
-- Every claim writes this row. Free space keeps the versions on one page, where each access removes old ones.
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

-- For claim() and next_due() while another session holds a snapshot, such as a report or a backup. Postgres then keeps every
-- version of a lane's row, and a claim by the primary key would read them all. By `generation`, the newest versions come
-- first. The collation differs from that of the primary key, because Postgres might choose the primary key otherwise.
create index lane_newest on signaling.lane (app collate "C", generation desc);

comment on table signaling.lane is 'One row per app: its budget of calls, shared by every worker, and its state.';
comment on column signaling.lane.limit_per_s is
    'The most calls a second: the configured limit, or a limit from signaling.set_limit().';
comment on column signaling.lane.configured_per_s is 'The configured limit of the worker that started last.';
comment on column signaling.lane.limit_set_by is 'The operator who has overridden the configured limit. Null: the configured limit holds.';
comment on column signaling.lane.environment is
    'The WORKER_ENVIRONMENT of the workers that send this app''s messages. Workers of another environment refuse to send them until signaling.adopt(). Null: no worker has set one.';
comment on column signaling.lane.rate_per_s is
    'Slots a second at the time rate_at. A 429 cuts the rate, which then climbs by 5 % a second: see signaling.present_rate().';
comment on column signaling.lane.throttled_at is 'When a burst of 429s last cut the rate.';
comment on column signaling.lane.next_slot_at is
    'The next free slot.';
comment on column signaling.lane.retry_after_until is
    'The API has asked by Retry-After for no call before this time. signaling.resume() ends the wait.';
comment on column signaling.lane.hold is
    'unauthorized: the API refuses the credentials. unavailable: the API can''t be reached or answers with errors. Null: sending.';
comment on column signaling.lane.hold_until is 'When the next probe may start.';
comment on column signaling.lane.probe_claim_id is
    'The claim of the probe: only its outcome changes the hold.';
comment on column signaling.lane.probe_target is
    'Destination or channel of the last probe. The next probe prefers another one.';
comment on column signaling.lane.released_at is
    'When the last hold ended. No hold begins within the next ten seconds.';
comment on column signaling.lane.paused_at is 'When an operator paused the app. Null: not paused.';
comment on column signaling.lane.generation is
    'Grows about every fifty claims: see the index lane_newest.';

-- The apps with an idle worker that wants a notification of inserts. Each insert reads this table. In the table of lanes, an
-- insert would read every version that claims have written while a session holds a snapshot.
create table signaling.wakeup (
    app          text        primary key,
    wanted_until timestamptz not null
)
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.wakeup is 'Apps with an idle worker, for signaling.notify_workers().';
comment on column signaling.wakeup.wanted_until is 'Inserts notify until then. Workers renew it for a minute at a time, in case they die.';

-- Messages that the database refuses to change, because of a trigger or a constraint of the application: see refuse(). There
-- is no foreign key, because each deletion of a message would read this table. Claims remove entries of deleted messages.
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
    'Messages that can''t be claimed or ended, because a trigger or a constraint refuses the change. Workers send the other messages meanwhile.';
comment on column signaling.refused.times is 'Number of refused tries in a row.';
comment on column signaling.refused.retry_at is 'Claims pass over the message until then. signaling.resume() ends that wait.';
comment on column signaling.refused.code is 'The code of the error (SQLSTATE). Null: a trigger skipped the change without an error. 57014: a function of the application took longer than a worker waits.';

-- Progress of the deletion of old messages: see delete_finished(). One row, because one process of the fleet deletes at a
-- time.
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
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.retention is
    'Progress of the deletion of old messages. signaling.delete_finished() inserts the row if it is missing.';
comment on column signaling.retention.held_by is 'The process that deletes. Null between two passes.';
comment on column signaling.retention.held_until is
    'No other process continues the pass before this time. Between two passes, the start of the next one.';
comment on column signaling.retention.began_at is 'When the pass began. Null between two passes.';
comment on column signaling.retention.looked_up_to is 'The pass has read every id up to this one.';
comment on column signaling.retention.last_row is 'The last row that the pass has read. A gap follows it so far.';
comment on column signaling.retention.deleted is 'Messages that this pass has deleted; between two passes, that the last one deleted.';

-- Placeholders: migrations/functions/ has the texts of these functions.
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
