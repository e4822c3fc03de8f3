-- Minute stats and queue counts: what happened and what waits, without a look at the whole outbox.

-- Minute stats: one row for each app and minute. Workers add to it once a second, so it is a second behind. A worker that
-- is killed loses the stats of its last second.
create table signaling.minute_stats (
    minute             timestamptz not null,
    app                text        not null,
    message_sent       bigint      not null default 0,
    message_delivered  bigint      not null default 0,
    message_offline    bigint      not null default 0,
    failed             bigint      not null default 0,
    expired            bigint      not null default 0,
    unknown            bigint      not null default 0,
    calls_transient    bigint      not null default 0,
    calls_throttled    bigint      not null default 0,
    calls_rejected     bigint      not null default 0,
    calls_unauthorized bigint      not null default 0,
    calls_ambiguous    bigint      not null default 0,
    slots_missed       bigint      not null default 0,
    call_time          bigint[]    not null default '{}',
    queue_wait         bigint[]    not null default '{}',
    backlog            bigint,
    primary key (minute, app)
)
-- Each row is written some hundred times: its versions stay on one page.
with (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.minute_stats is
    'What the workers of an app did in a minute, kept for 8 days. A little behind, and not exact where a worker is killed.';
comment on column signaling.minute_stats.message_sent is
    'Messages that ended so, one call each; message_delivered and message_offline likewise.';
comment on column signaling.minute_stats.failed is
    'Messages that ended so; expired and unknown likewise. What people cancel is not counted.';
comment on column signaling.minute_stats.calls_transient is
    'Calls with this outcome, as in signaling.attempt; the other calls_ columns likewise.';
comment on column signaling.minute_stats.call_time is
    'How many calls took how long: up to 1, 2, 5, 10, 20, 50, 100, 200, 500 ms, 1, 2, 5, 10, 20 s, 1, 5, 30, 60 min, and longer.';
comment on column signaling.minute_stats.queue_wait is
    'How many messages waited how long for their first call, from their insert or when they were due: as call_time.';
comment on column signaling.minute_stats.backlog is 'Messages that waited at the last count of this minute: queued and retrying.';

-- Queue counts: the pending messages of each app, as the last count found them.
create table signaling.queue_counts (
    app       text   primary key,
    queued    bigint not null,
    scheduled bigint not null,
    retrying  bigint not null,
    sending   bigint not null,
    oldest_at timestamptz
)
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.queue_counts is
    'Pending messages by app and state, as they were last counted: see queue_counts_turn. Of apps that no worker has served yet, the first 100.';
comment on column signaling.queue_counts.oldest_at is
    'Since when the oldest one waits that is not scheduled: when it was due, but not before its insert; if a call of it failed, the first such call.';

-- When the last count was, and how long it took. One row: one session counts at a time.
create table signaling.queue_counts_turn (
    is_the_only_row boolean     primary key default true,
    counted_at      timestamptz not null default 'epoch',
    took            interval    not null default '0',

    constraint queue_counts_turn_has_one_row check (is_the_only_row)
)
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.queue_counts_turn is 'When signaling.refresh_queue_counts() last counted, and how long that took. That function makes the row where it is missing.';
